"""Where a sync starts and ends, and the windows of creation time in between.

Pure calculation with instants and a time zone: no HTTP, no Singer, no clock. Instants are whole
seconds in UTC; wall-clock times appear only where windows end at local midnights.

Cometly reads an export's dates as wall-clock times in the Space's zone. When clocks go back, a
stretch of wall-clock time happens twice and a date in it is ambiguous: no boundary may lie there.
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

FIRST_WINDOWS = 3
"""This many windows are one day long: enough for a daily run, and safe for a large Space."""
UNREAD_FACTOR = 3
MAX_UNREAD_SECONDS = 10 * DAY_SECONDS
"""While no window has been read, each is three times as long as the last, up to ten days."""
MIN_SECONDS = HOUR_SECONDS
MAX_SECONDS = 90 * DAY_SECONDS
"""Bounds of an adaptive window; a window of an hour or less is not halved either."""
MAX_FACTOR = 10
"""The next window is at most this much longer or shorter than the last one read."""
MIN_AIM = 100_000
MAX_AIM = 500_000
"""Bounds of the aim: how many contacts an export should have. Cometly promises "100,000+ contacts
efficiently", so the aim starts low and grows as long as exports stay well within their timeout."""
SAFE_SHARE = 2 / 3
"""An export should be processed within this share of its timeout."""
CEILING_WINDOWS = 10
"""How many windows the ceiling applies to after the first split; doubled with each further one."""
CEILING_LIFT_CONTACTS = 50_000
"""An export this large lifts the ceiling: the windows' length was not the problem."""
SETTLE_DELAY = timedelta(minutes=5)
"""Contacts created just now may not be exportable yet, so a sync ends this long before now."""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of creation time, covered by one export.

    Attributes:
        start: First instant, UTC, whole seconds.
        end: Last instant, UTC, whole seconds; the next window starts at the same second.
        nominal_seconds: Planned length, in whole days or minutes. The actual length may differ at
            the end of the range, at local midnights and at clock changes.
    """

    start: datetime
    end: datetime
    nominal_seconds: float

    @property
    def seconds(self) -> int:
        """Elapsed seconds from start to end."""
        return round((self.end - self.start).total_seconds())


def sync_range(  # noqa: PLR0913 - all keyword-only
    *,
    start_date: datetime,
    end_date: datetime | None,
    bookmark: datetime | None,
    lookback_days: float,
    now: datetime,
    zone: tzinfo,
) -> tuple[datetime, datetime] | None:
    """Return the first and the last instant of a sync, or None if there is nothing to sync."""
    end = (now - SETTLE_DELAY).replace(microsecond=0)
    if end_date is not None:
        end = min(end, end_date)
    end = _before_repeated(end, zone)

    start = start_date
    if bookmark is not None and bookmark > start_date:
        # Capped near start_date: a long lookback may reach before the calendar's first year.
        days_back = min(lookback_days, (bookmark - start_date) / timedelta(days=1) + 2)
        start = max(start_date, _look_back(bookmark, days_back, zone))
    start = _before_repeated(start, zone)
    if start >= end or (bookmark is not None and bookmark >= end):
        return None
    return start, end


class WindowPlan:
    """Hands out the windows of a sync in order, each as long as the exports read so far suggest."""

    def __init__(
        self, start: datetime, end: datetime, zone: tzinfo, fixed_seconds: float | None = None
    ) -> None:
        """Plan a range of instants; `fixed_seconds` is the length of every window, if given."""
        self._next_start = start
        self._end = end
        self._zone = zone
        self._fixed_seconds = fixed_seconds
        self._planned = 0
        self._last_nominal = float(DAY_SECONDS)
        self._last_read: tuple[float, int] | None = None
        self._aim = MIN_AIM
        self._ceiling = math.inf
        self._ceiling_windows_left = 0
        self._next_ceiling_windows = CEILING_WINDOWS

    @property
    def is_finished(self) -> bool:
        """Whether the last window has been handed out."""
        return self._next_start >= self._end

    @property
    def windows_left(self) -> int:
        """How many more windows there will be, if all are as long as the last one."""
        return math.ceil((self._end - self._next_start).total_seconds() / self._last_nominal)

    def next_window(self) -> Window | None:
        """Plan the next window; None after the last one."""
        if self.is_finished:
            return None
        nominal = _round_down(self._fixed_seconds or self._adaptive_seconds())
        end = min(_window_end(self._next_start, nominal, self._zone), self._end)
        window = Window(self._next_start, end, nominal)
        self._next_start = end
        self._planned += 1
        self._last_nominal = nominal
        return window

    def learn(self, window: Window, contacts: int, timeout_share: float) -> None:
        """Take a fully read window into account.

        Args:
            window: The window.
            contacts: Number of contacts in its export.
            timeout_share: The export's processing time, as a share of the timeout.
        """
        self._last_read = window.nominal_seconds, contacts
        if contacts >= CEILING_LIFT_CONTACTS:
            self._ceiling_windows_left = 0
        if timeout_share > SAFE_SHARE:
            self._halve_aim()
        elif contacts and timeout_share * 2 * self._aim / contacts < SAFE_SHARE:
            self._aim = min(2 * self._aim, MAX_AIM)

    def halve(self, window: Window) -> tuple[Window, Window] | None:
        """Split a window whose exports fail, and plan shorter ones for a while.

        Returns:
            Two windows that meet between start and end; None if the window is too short.
        """
        if window.seconds <= MIN_SECONDS:
            return None
        middle = _clear_boundary(
            window.start + timedelta(seconds=window.seconds // 2), self._zone, window.start
        )
        if not window.start < middle < window.end:
            return None
        nominal = window.nominal_seconds / 2
        self._lower_ceiling(nominal)
        self._halve_aim()
        return (
            replace(window, end=middle, nominal_seconds=nominal),
            replace(window, start=middle, nominal_seconds=nominal),
        )

    def _adaptive_seconds(self) -> float:
        if self._planned < FIRST_WINDOWS:
            length = float(DAY_SECONDS)
        elif self._last_read is None:
            length = min(self._last_nominal * UNREAD_FACTOR, MAX_UNREAD_SECONDS)
        else:
            nominal, contacts = self._last_read
            factor = self._aim / contacts if contacts else MAX_FACTOR
            length = nominal * min(max(factor, 1 / MAX_FACTOR), MAX_FACTOR)
            length = min(max(length, MIN_SECONDS), MAX_SECONDS)
        if self._ceiling_windows_left:
            self._ceiling_windows_left -= 1
            length = min(length, self._ceiling)
        return length

    def _lower_ceiling(self, seconds: float) -> None:
        self._ceiling = min(seconds, self._ceiling) if self._ceiling_windows_left else seconds
        self._ceiling_windows_left = self._next_ceiling_windows
        self._next_ceiling_windows *= 2

    def _halve_aim(self) -> None:
        self._aim = max(self._aim // 2, MIN_AIM)


def _look_back(bookmark: datetime, lookback_days: float, zone: tzinfo) -> datetime:
    """The bookmark itself, or the local midnight at or before bookmark minus lookback."""
    if not lookback_days:
        return bookmark
    part_of_day, whole_days = math.modf(lookback_days)
    earlier = bookmark
    if whole_days:
        earlier = first_instant(wall_time(bookmark, zone) - timedelta(days=whole_days), zone)
    return midnight(wall_time(earlier - timedelta(days=part_of_day), zone).date(), zone)


def _round_down(seconds: float) -> float:
    """Round a length down to whole days, or to whole minutes if it is less than a day."""
    unit = DAY_SECONDS if seconds >= DAY_SECONDS else MINUTE_SECONDS
    return float(seconds // unit * unit)


def _window_end(start: datetime, nominal_seconds: float, zone: tzinfo) -> datetime:
    if nominal_seconds < DAY_SECONDS:
        return _clear_boundary(start + timedelta(seconds=nominal_seconds), zone, start)
    day = wall_time(start, zone).date() + timedelta(seconds=nominal_seconds)
    end = midnight(day, zone)
    if end - start < timedelta(hours=1):
        end = midnight(day + timedelta(days=1), zone)
    return _clear_boundary(end, zone, start)


def _clear_boundary(boundary: datetime, zone: tzinfo, start: datetime) -> datetime:
    """Move a boundary out of repeated wall-clock time: back, or else forward if that is too far."""
    stretch = repeated_stretch(boundary, zone)
    if stretch is None:
        return boundary
    first, after = stretch
    return first - SECOND if first - SECOND > start else after


def _before_repeated(instant: datetime, zone: tzinfo) -> datetime:
    """Move an instant back out of repeated wall-clock time."""
    stretch = repeated_stretch(instant, zone)
    return instant if stretch is None else stretch[0] - SECOND
