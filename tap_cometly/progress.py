"""How far a sync is, in lines that a person likes to read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tap_cometly.times import DAY_SECONDS, HOUR_SECONDS, MINUTE_SECONDS, format_local

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

    from tap_cometly.windows import Window

_LITTLE_SHARE = 0.01
"""With less behind it, a sync cannot tell how long the rest takes."""


class Progress:
    """Tells after each window how far the sync is."""

    def __init__(self, start: datetime, end: datetime, zone: tzinfo, began: float) -> None:
        """Note what lies ahead.

        Args:
            start: First instant of the sync's range.
            end: Last instant of it.
            zone: The Space's time zone, in which times are shown.
            began: When the sync began, in seconds of a monotonic clock.
        """
        self._start = start
        self._end = end
        self._zone = zone
        self._began = began
        self._last = began
        self.contacts = 0

    def opening(self) -> str:
        """What lies ahead, in one line."""
        return f"Contacts created from {self._span(self._start, self._end)} ({self._zone})"

    def window_done(self, window: Window, contacts: int, now: float) -> str:
        """One line for a window.

        Args:
            window: The window.
            contacts: How many contacts it had.
            now: The current second of the same clock.

        Returns:
            Window in the Space's time, contacts, seconds, share of the range, time left.
        """
        self.contacts += contacts
        seconds, self._last = now - self._last, now
        share = (window.end - self._start).total_seconds() / (
            self._end - self._start
        ).total_seconds()
        return (
            f"{self._span(window.start, window.end)} | {contacts:>9,} contacts | "
            f"{seconds:>8,.1f} s | {math.floor(share * 100):>3}% done | {self._left(share, now)}"
        )

    def closing(self, now: float) -> str:
        """The whole sync in one line.

        Args:
            now: The current second of the same clock.

        Returns:
            How many contacts there were and how long it took.
        """
        return f"Complete: {self.contacts:,} contacts in {duration(now - self._began)}"

    def _left(self, share: float, now: float) -> str:
        if share >= 1:
            return "complete"
        if share < _LITTLE_SHARE:
            return "time left unknown yet"
        return f"about {duration((now - self._began) * (1 - share) / share)} left"

    def _span(self, start: datetime, end: datetime) -> str:
        return f"{format_local(start, self._zone)} to {format_local(end, self._zone)}"


def duration(seconds: float) -> str:
    """A span of time in words.

    Args:
        seconds: Its length.

    Returns:
        Like `40 s`, `12 min`, `3 h 05 min` or `2 d 04 h`.
    """
    whole = round(seconds)
    if whole < 2 * MINUTE_SECONDS:
        return f"{whole} s"
    if whole < HOUR_SECONDS:
        return f"{round(whole / MINUTE_SECONDS)} min"
    if whole < DAY_SECONDS:
        return f"{whole // HOUR_SECONDS} h {whole % HOUR_SECONDS // MINUTE_SECONDS:02} min"
    return f"{whole // DAY_SECONDS} d {whole % DAY_SECONDS // HOUR_SECONDS:02} h"
