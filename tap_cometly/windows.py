"""When: where a sync starts and ends, and the windows of creation time in between.

Pure reckoning with instants and a time zone: no HTTP, no Singer, no clock of its own. Instants are
whole seconds in UTC; wall-clock times appear only where the contract speaks of local midnights.

Cometly reads an export's two dates as wall-clock times in the Space's zone. When clocks go back a
stretch of wall-clock time happens twice, so a date in it is ambiguous; no boundary may lie there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo

from tap_cometly.times import (
    DAY_SECONDS,
    HOUR_SECONDS,
    MINUTE_SECONDS,
    SECOND,
    first_instant,
    midnight,
    repeated_stretch,
    wall_time,
)

FIRST_LENGTH_SECONDS = DAY_SECONDS
"""An adaptive sync knows nothing of a Space at first; a day is small even in a large one."""
SHORTEST_SECONDS = HOUR_SECONDS
"""Adaptive windows are not shorter, and no shorter window is halved."""
LONGEST_SECONDS = 90 * DAY_SECONDS
"""Bounds what one failed export costs."""
CONTACTS_AIMED_AT = 100_000
"""Cometly's page: an export can handle "100,000+ contacts efficiently"."""
MAX_FACTOR = 10
"""One window tells the next by at most this factor: a burst or a lull is not the rule."""
SETTLE_DELAY = timedelta(minutes=5)
"""A contact created just now may not be exportable yet, so the range ends this long ago."""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of creation time that one export covers.

    Attributes:
        start: First instant, UTC, whole seconds.
        end: Last instant, UTC, whole seconds; the next window starts at this very second.
        nominal_seconds: The length that was aimed at, before it was cut to days, minutes, midnight
            or the end of the range.
    """

    start: datetime
    end: datetime
    nominal_seconds: float

    @property
    def seconds(self) -> int:
        """Elapsed seconds from start to end."""
        return round((self.end - self.start).total_seconds())

    def halves(self, zone: tzinfo) -> tuple[Window, Window] | None:
        """Cut the window in two.

        Args:
            zone: The Space's time zone.

        Returns:
            Two windows that meet between start and end, or None where no boundary can lie
            between them.
        """
        middle = _clear_boundary(
            self.start + timedelta(seconds=self.seconds // 2), zone, self.start
        )
        if not self.start < middle < self.end:
            return None
        nominal = self.nominal_seconds / 2
        return (
            replace(self, end=middle, nominal_seconds=nominal),
            replace(self, start=middle, nominal_seconds=nominal),
        )


def sync_range(  # noqa: PLR0913 - all by name
    *,
    start_date: datetime,
    end_date: datetime | None,
    bookmark: datetime | None,
    lookback_days: float,
    now: datetime,
    zone: tzinfo,
) -> tuple[datetime, datetime] | None:
    """Where a sync starts and ends.

    Args:
        start_date: Earliest creation time to export.
        end_date: Latest creation time to export, or None for no bound of the user's.
        bookmark: The end of the last window that an earlier sync finished, if there was one.
        lookback_days: How far before the bookmark to export again; whole days are calendar days.
        now: The current time.
        zone: The Space's time zone.

    Returns:
        The first and the last instant (UTC, whole seconds), or None where there is nothing to do.
    """
    end = (now - SETTLE_DELAY).replace(microsecond=0)
    if end_date is not None:
        end = min(end, end_date)
    end = _before_repeated(end, zone)

    start = start_date
    if bookmark is not None and bookmark > start_date:
        # No further than to start_date: a longer way back may lie before the calendar's first year.
        days_back = min(lookback_days, (bookmark - start_date) / timedelta(days=1) + 2)
        start = max(start_date, _look_back(bookmark, days_back, zone))
    start = _before_repeated(start, zone)
    if start >= end or (bookmark is not None and bookmark >= end):
        return None
    return start, end


class WindowPlan:
    """Hands out the windows of a sync, from its start to its end, each as long as is wise by then.

    Adaptive lengths follow how many contacts the last wholly read window had.
    """

    def __init__(
        self, start: datetime, end: datetime, zone: tzinfo, fixed_seconds: float | None = None
    ) -> None:
        """Plan the windows of a range.

        Args:
            start: First instant of the range, UTC.
            end: Last instant of the range, UTC.
            zone: The Space's time zone.
            fixed_seconds: Length of every window; None for adaptive lengths.
        """
        self.start = start
        self.end = end
        self._zone = zone
        self._next_start = start
        self._fixed_seconds = fixed_seconds
        self._length_seconds = float(FIRST_LENGTH_SECONDS)

    def next_window(self) -> Window | None:
        """The window after the last one handed out, or None after the range's end."""
        if self._next_start >= self.end:
            return None
        nominal = self._fixed_seconds or self._length_seconds
        window = Window(
            self._next_start,
            min(_window_end(self._next_start, nominal, self._zone), self.end),
            nominal,
        )
        self._next_start = window.end
        return window

    def learn(self, window: Window, contacts: int) -> None:
        """Let the windows planned from now on follow one that was wholly read.

        Args:
            window: The window.
            contacts: How many contacts its export had.
        """
        factor = (
            min(max(CONTACTS_AIMED_AT / contacts, 1 / MAX_FACTOR), MAX_FACTOR)
            if contacts
            else MAX_FACTOR
        )
        length = window.nominal_seconds * factor
        self._length_seconds = min(max(length, SHORTEST_SECONDS), LONGEST_SECONDS)


def _look_back(bookmark: datetime, lookback_days: float, zone: tzinfo) -> datetime:
    """The bookmark itself, or the local midnight at or before (bookmark less lookback)."""
    if not lookback_days:
        return bookmark
    part_of_day, whole_days = math.modf(lookback_days)
    earlier = bookmark
    if whole_days:
        earlier = first_instant(wall_time(bookmark, zone) - timedelta(days=whole_days), zone)
    return midnight(wall_time(earlier - timedelta(days=part_of_day), zone).date(), zone)


def _window_end(start: datetime, length_seconds: float, zone: tzinfo) -> datetime:
    days = math.floor(length_seconds / DAY_SECONDS)
    if days:
        end = midnight(wall_time(start, zone).date() + timedelta(days=days), zone)
    else:
        minutes = math.floor(length_seconds / MINUTE_SECONDS)
        end = start + timedelta(minutes=minutes)
    return _clear_boundary(end, zone, start)


def _clear_boundary(boundary: datetime, zone: tzinfo, start: datetime) -> datetime:
    """Move a boundary out of repeated wall-clock time, back if that is after the window's start."""
    stretch = repeated_stretch(boundary, zone)
    if stretch is None:
        return boundary
    first, after = stretch
    return first - SECOND if first - SECOND > start else after


def _before_repeated(instant: datetime, zone: tzinfo) -> datetime:
    """Move an instant back out of repeated wall-clock time."""
    stretch = repeated_stretch(instant, zone)
    return instant if stretch is None else stretch[0] - SECOND
