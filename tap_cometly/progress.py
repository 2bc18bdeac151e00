"""Log lines about the progress of a sync."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tap_cometly.times import DAY_SECONDS, HOUR_SECONDS, MINUTE_SECONDS, format_local

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

    from tap_cometly.windows import Window

_ENOUGH_SHARE = 0.1
_ENOUGH_WINDOWS = 5
"""The time left is estimated after a tenth of the range or five windows, whichever is first."""
_DECAY = 0.9
"""Weight of a window in the estimate, relative to the one after it."""


class Progress:
    """Describes, after each window, the progress of a sync."""

    def __init__(self, start: datetime, end: datetime, zone: tzinfo, began: float) -> None:
        """Start at the monotonic second `began`; times are shown in the Space's zone."""
        self._start = start
        self._end = end
        self._zone = zone
        self._began = self._last_done = began
        self._contacts = 0
        self._windows = 0
        self._weighted_seconds = self._weights = 0.0
        """Their quotient is the average time of a window."""

    def opening(self) -> str:
        """The range, in one line."""
        return f"Contacts created from {self._span(self._start, self._end)} ({self._zone})"

    def window_done(self, window: Window, contacts: int, now: float, windows_left: int) -> str:
        """One line for a window: its span, contacts, seconds; share of the range, time left."""
        seconds = now - self._last_done
        self._last_done = now
        self._contacts += contacts
        self._windows += 1
        self._weighted_seconds = self._weighted_seconds * _DECAY + seconds
        self._weights = self._weights * _DECAY + 1
        share = (window.end - self._start) / (self._end - self._start)
        return (
            f"{self._span(window.start, window.end)} | {contacts:>9,} {_noun(contacts):<8} | "
            f"{seconds:>8,.1f} s | {math.floor(share * 100):>3}% done | "
            f"{self._left(share, windows_left)}"
        )

    def closing(self, now: float) -> str:
        """The whole sync in one line."""
        return (
            f"Complete: {self._contacts:,} {_noun(self._contacts)} in {duration(now - self._began)}"
        )

    def _left(self, share: float, windows: int) -> str:
        if share >= 1:
            return "complete"
        if share < _ENOUGH_SHARE and self._windows < _ENOUGH_WINDOWS:
            return "time left unknown"
        return f"about {duration(windows * self._weighted_seconds / self._weights)} left"

    def _span(self, start: datetime, end: datetime) -> str:
        return f"{format_local(start, self._zone)} to {format_local(end, self._zone)}"


def _noun(contacts: int) -> str:
    return "contact" if contacts == 1 else "contacts"


def duration(seconds: float) -> str:
    """A span of time in words: `40 s`, `12 min`, `3 h 05 min` or `2 d 04 h`."""
    whole = round(seconds)
    if whole < 2 * MINUTE_SECONDS:
        return f"{whole} s"
    if whole < HOUR_SECONDS:
        return f"{whole // MINUTE_SECONDS} min"
    if whole < DAY_SECONDS:
        return f"{whole // HOUR_SECONDS} h {whole % HOUR_SECONDS // MINUTE_SECONDS:02} min"
    return f"{whole // DAY_SECONDS} d {whole % DAY_SECONDS // HOUR_SECONDS:02} h"
