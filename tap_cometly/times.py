"""Instants and wall-clock times: how they are read, written and converted; and the clock.

An instant is an aware `datetime` in UTC, truncated to whole seconds. A wall-clock time is a naive
`datetime`: what the clocks of a time zone show.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Protocol

from typing_extensions import override

SECOND = timedelta(seconds=1)
MINUTE_SECONDS = 60
HOUR_SECONDS = 3600
DAY_SECONDS = 86_400
LONGER_THAN_ANY_RANGE_SECONDS = 300 * 366 * DAY_SECONDS

_EARLIEST, _LATEST = datetime(2, 1, 1), datetime(9998, 12, 31)  # noqa: DTZ001
"""Dates are clamped to these: a year within `datetime`'s limits, so that no offset overflows."""
_END_OF_DAY = re.compile(r"(?<=[T ])24(?=(:?00){0,2}([.,]0+)?(Z|[+-].*)?$)")
_STARTS_WITH_DATE = re.compile(
    r"(\d{4}-?\d{2}-?\d{2}|\d{4}-?W(?!00)\d{2}-?\d|\d{4}-?\d{3}(?!\d))[^/]*"
)


class Clock(Protocol):
    """The time, and waiting; tests pass in a virtual clock."""

    def now(self) -> float:
        """Unix time in seconds."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes backwards."""

    def sleep(self, seconds: float) -> None:
        """Wait; 0 or less returns at once."""


class SystemClock(Clock):
    """The machine's clock."""

    @override
    def now(self) -> float:
        return time.time()

    @override
    def monotonic(self) -> float:
        return time.monotonic()

    @override
    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)


def read_instant(text: str, zone: tzinfo) -> datetime | None:
    """Parse an ISO 8601 date-time, or a date as its midnight.

    Args:
        text: The text to parse.
        zone: The zone for a time without an offset. A repeated wall-clock time is the earlier
            instant, a skipped one the moment of the clock change.

    Returns:
        The instant, without fractions of a second; None if the text is anything else.
    """
    # `pendulum.parse` also accepts "now" and intervals, and reads "2024" and "2024-01" as dates.
    if not _STARTS_WITH_DATE.fullmatch(text):
        return None
    text, is_end_of_day = _END_OF_DAY.subn("00", text.upper().replace("\u2212", "-"))
    import pendulum  # noqa: PLC0415 - a fifth of the start-up time, and discovery reads no dates

    try:
        moment: object = pendulum.parse(text, exact=True, tz=None)
        if not isinstance(moment, date):
            return None
        wall = datetime.combine(moment, datetime.min.time())
        if isinstance(moment, datetime):
            wall = datetime.combine(moment.date(), moment.time().replace(microsecond=0))
            zone = moment.tzinfo or zone
        wall += timedelta(days=is_end_of_day)
        return first_instant(min(max(wall, _EARLIEST), _LATEST), zone)
    except (ValueError, OverflowError):  # no such day, hour or offset
        return None


def format_utc(instant: datetime) -> str:
    """An instant as records, state and messages show it: `2024-01-15T05:00:00+00:00`."""
    return instant.strftime("%Y-%m-%dT%H:%M:%S+00:00")


def format_local(instant: datetime, zone: tzinfo) -> str:
    """An instant as Cometly reads it: the zone's wall-clock time, `2024-01-15 00:00:00`."""
    return wall_time(instant, zone).strftime("%Y-%m-%d %H:%M:%S")


def wall_time(instant: datetime, zone: tzinfo) -> datetime:
    """The wall-clock time at an instant."""
    return datetime.fromtimestamp(instant.timestamp(), zone).replace(tzinfo=None, fold=0)


def first_instant(wall: datetime, zone: tzinfo) -> datetime:
    """The first instant at which a zone's clocks show a wall-clock time, or have passed it.

    Returns:
        The earlier instant where the time is repeated, the moment of the clock change where it
        is skipped.
    """
    instant = _utc(wall.replace(tzinfo=zone, fold=0))
    if wall_time(instant, zone) == wall:
        return instant
    # Skipped: fold=0 takes the offset from before the clock change, so this instant is after it.
    return _clock_change(_utc(wall.replace(tzinfo=zone, fold=1)), instant, zone)


def midnight(day: date, zone: tzinfo) -> datetime:
    """The first instant of a local day."""
    return first_instant(datetime(day.year, day.month, day.day), zone)  # noqa: DTZ001 - wall-clock


def repeated_stretch(instant: datetime, zone: tzinfo) -> tuple[datetime, datetime] | None:
    """The stretch around an instant in which every wall-clock time happens twice.

    Returns:
        The first instant of the stretch and the first one after it; None where the wall-clock
        time at this instant happens only once.
    """
    wall = wall_time(instant, zone)
    first = _utc(wall.replace(tzinfo=zone, fold=0))
    second = _utc(wall.replace(tzinfo=zone, fold=1))
    if first == second:
        return None
    change = _clock_change(first, second, zone)
    return change - (second - first), change + (second - first)


def _clock_change(before: datetime, after: datetime, zone: tzinfo) -> datetime:
    """The first second after `before`, and at the latest `after`, with the new offset."""
    old_offset = before.astimezone(zone).utcoffset()
    low, high = 0, round((after - before).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        if (before + timedelta(seconds=middle)).astimezone(zone).utcoffset() == old_offset:
            low = middle
        else:
            high = middle
    return before + timedelta(seconds=high)


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)
