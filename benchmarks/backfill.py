"""How long a backfill takes under Cometly's limits, on simulated time: nothing waits.

Runs the tap's own windows and exports against a model of Cometly: five creates and thirty polls a
minute, and a processing time that grows with the number of contacts. Files are read at a fixed
pace. The bound is what the limit of creates alone would take: exports created x 12 s.

    python -m benchmarks.backfill            # the table, as Markdown
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import pendulum

from tap_cometly.client import ExportStatus, RateLimited
from tap_cometly.exports import Exports
from tap_cometly.settings import Settings
from tap_cometly.times import DAY_SECONDS
from tap_cometly.windows import WindowPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tap_cometly.client import CometlyClient
    from tap_cometly.files import Storage

END = pendulum.datetime(2026, 1, 1)
YEARS = (2, 5, 10)
PROCESSING_SECONDS = (10, 60, 300)
CREATES_A_MINUTE = 5
POLLS_A_MINUTE = 30
CONTACTS_READ_A_SECOND = 300_000
EXPORTED_A_SECOND = 2_000
"""Contacts that Cometly adds to a file in a second, on top of the fixed processing time."""


def small(day: int) -> float:
    """Contacts created on a day, in a small Space: 30 a day."""
    del day
    return 30


def large(day: int) -> float:
    """In a large Space: 40,000 a day, growing."""
    return 20_000 + 40_000 * day / 3650


def bursty(day: int) -> float:
    """In a bursty Space: 500 a day, and a million on one day in 90."""
    return 1_000_000 if day % 90 == 60 else 500  # noqa: PLR2004


SPACES: dict[str, Callable[[int], float]] = {"small": small, "large": large, "bursty": bursty}


class SimulatedClock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        """Begin at zero."""
        self._now = 0.0

    def now(self) -> float:
        """Seconds."""
        return self._now

    def monotonic(self) -> float:
        """Seconds."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self._now += max(seconds, 0.0)


class MinuteLimit:
    """So many requests a minute, counted from the first one."""

    def __init__(self, clock: SimulatedClock, limit: int) -> None:
        """Allow `limit` requests a minute."""
        self._clock = clock
        self._limit = limit
        self._began = float("-inf")
        self._count = 0

    def take(self) -> None:
        """Count a request.

        Raises:
            RateLimited: There were too many.
        """
        if self._clock.now() >= self._began + 60:
            self._began, self._count = self._clock.now(), 0
        if self._count == self._limit:
            raise RateLimited(self._began + 60 - self._clock.now())
        self._count += 1


class ModelledCometly:
    """Cometly as a model: when an export is completed, and how many contacts it has."""

    def __init__(
        self, clock: SimulatedClock, per_day: Callable[[int], float], fixed: float
    ) -> None:
        """Have a Space with so many contacts a day, and a fixed part of the processing time."""
        self._clock = clock
        self._per_day = per_day
        self._fixed = fixed
        self._creates = MinuteLimit(clock, CREATES_A_MINUTE)
        self._polls = MinuteLimit(clock, POLLS_A_MINUTE)
        self._completed: list[float] = []

    def create_export(self, start_date: str, end_date: str) -> int:
        """Accept an export."""
        self._creates.take()
        contacts = self.contacts(
            *(datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (start_date, end_date))
        )
        processing = self._fixed + contacts / EXPORTED_A_SECOND
        self._completed.append(self._clock.now() + processing)
        return len(self._completed)

    def get_export(self, export_id: int) -> ExportStatus:
        """Say whether an export is completed by now."""
        self._polls.take()
        done = self._clock.now() >= self._completed[export_id - 1]
        url = "https://storage.invalid/file" if done else None
        return ExportStatus(export_id, "completed" if done else "processing", url, None)

    def contacts(self, start: datetime, end: datetime) -> int:
        """Contacts created between two instants, spread evenly over each day."""
        epoch = datetime(2016, 1, 1, tzinfo=UTC)
        total, moment = 0.0, start
        while moment < end:
            midnight = moment.replace(hour=0, minute=0, second=0) + timedelta(days=1)
            until = min(midnight, end)
            share = (until - moment).total_seconds() / DAY_SECONDS
            total += self._per_day((moment - epoch).days) * share
            moment = until
        return round(total)

    @property
    def exports(self) -> int:
        """How many exports were created."""
        return len(self._completed)


class NoFiles:
    """A storage whose files need no reading."""

    def open(self, url: str, fresh_url: object) -> NoFiles:
        """Give a file."""
        del url, fresh_url
        return self

    def close(self) -> None:
        """Let go of nothing."""

    def blocks(self) -> Iterator[Any]:
        """No lines."""
        return iter(())


@dataclass(frozen=True)
class Backfill:
    """What a backfill took.

    Attributes:
        seconds: Simulated seconds from its begin to its end.
        exports: How many exports it created.
    """

    seconds: float
    exports: int


SETTINGS = Settings.read(
    {"api_key": "none", "start_date": "2016-01-01", "export_timeout_minutes": 10_000},
    default_user_agent="benchmark",
)


def backfill(per_day: Callable[[int], float], years: int, fixed: float, **changes: Any) -> Backfill:
    """Run one, on simulated time.

    Args:
        per_day: Contacts created on each day.
        years: How far back it goes.
        fixed: Seconds that processing any export takes at least.
        **changes: Settings that differ from the defaults.

    Returns:
        What it took.
    """
    settings = replace(SETTINGS, **changes)
    clock = SimulatedClock()
    cometly = ModelledCometly(clock, per_day, fixed)
    plan = WindowPlan(END.subtract(years=years), END, settings.zone, settings.window_seconds)
    exports = Exports(
        plan, cast("CometlyClient", cometly), cast("Storage", NoFiles()), clock, settings
    )
    for export in exports:
        contacts = cometly.contacts(export.window.start, export.window.end)
        clock.sleep(contacts / CONTACTS_READ_A_SECOND)
        export.contacts = contacts
    return Backfill(clock.now(), cometly.exports)


def shown(seconds: float) -> str:
    """A span of time, short."""
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 100 else f"{minutes / 60:.1f} h"  # noqa: PLR2004


def main() -> None:
    """Print the table."""
    logging.disable()
    print(  # noqa: T201
        "| Space | years | processing | this tap | exports | bound | x bound | a window a day "
        "| 30-day windows | none ahead |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    for name, per_day in SPACES.items():
        for years in YEARS:
            for fixed in PROCESSING_SECONDS:
                tap = backfill(per_day, years, fixed)
                bound = tap.exports * 60 / CREATES_A_MINUTE
                others = [
                    backfill(per_day, years, fixed, window_seconds=DAY_SECONDS),
                    backfill(per_day, years, fixed, window_seconds=30 * DAY_SECONDS),
                    backfill(per_day, years, fixed, max_concurrent_exports=1),
                ]
                cells = [
                    name,
                    str(years),
                    f"{fixed} s",
                    shown(tap.seconds),
                    str(tap.exports),
                    shown(bound),
                    f"{tap.seconds / bound:.1f}",
                    *(shown(other.seconds) for other in others),
                ]
                print(f"| {' | '.join(cells)} |")  # noqa: T201


if __name__ == "__main__":
    main()
