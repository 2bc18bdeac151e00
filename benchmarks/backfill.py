"""How long a backfill takes, in simulated time, without waiting or network access.

The tap's own windows and exports run against a model of Cometly. P is the best possible time: that
of a scheduler that knows the Space and the server in advance, found by trying many window sizes and
numbers of exports in flight on the same model.

    python -m benchmarks.backfill    # prints the tables as Markdown, draws backfill.svg
"""

from __future__ import annotations

import heapq
import logging
import math
import random
from collections import deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, cast

from benchmarks.chart import draw
from benchmarks.measure import table
from tap_cometly.client import ExportStatus, RateLimited
from tap_cometly.exports import Exports
from tap_cometly.settings import Settings
from tap_cometly.times import DAY_SECONDS
from tap_cometly.windows import WindowPlan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_cometly.client import CometlyClient
    from tap_cometly.files import Storage

CHART = Path(__file__).parent / "backfill.svg"
START = datetime(2016, 1, 1, tzinfo=UTC)
DAYS = 3653
END = START + timedelta(days=DAYS)
YEARS = (2, 5, 10)
PROCESSING_SECONDS = (10, 60, 300)
READ_PER_SECOND = 300_000
EXPORTED_PER_SECOND = 2_000
"""Contacts per second that Cometly writes to a file, after the fixed processing time."""
POLLS_PER_CREATE = 6
"""Cometly allows 30 polls and 5 creates per minute."""


def small(day: int) -> float:
    """Contacts created on a day in a small Space."""
    del day
    return 30


def large(day: int) -> float:
    """Contacts created on a day in a large Space: 20,000 at first, 60,000 at the end."""
    return 20_000 + 40_000 * day / 3650


def bursty(day: int) -> float:
    """Contacts created on a day in a bursty Space: a million on one day in 90."""
    return 1_000_000 if day % 90 == 60 else 500  # noqa: PLR2004


SPACES = {"small": small, "large": large, "bursty": bursty}


@dataclass(frozen=True)
class Case:
    """A Space, the range to backfill, and the minimum processing time of an export.

    Attributes:
        space: Key of SPACES.
        years: Length of the range.
        fixed: Minimum processing time of an export, in seconds.
    """

    space: str
    years: int
    fixed: int

    @property
    def start(self) -> datetime:
        """Start of the range."""
        return END.replace(year=END.year - self.years)

    def contacts_by_day(self) -> list[float]:
        """Contacts created on each day of the range."""
        return [SPACES[self.space](day) for day in range((self.start - START).days, DAYS)]


CASES = [Case(*case) for case in product(SPACES, YEARS, PROCESSING_SECONDS)]


@dataclass(frozen=True)
class Server:
    """How Cometly might process exports.

    Attributes:
        workers: Exports processed at a time, in order of creation; the others are queued.
        creates_per_minute: Rate limit for new exports.
        max_contacts: Exports of more contacts fail.
        max_days: Exports of more days fail.
        hang_every: If not 0, every `hang_every`-th export never completes.
        random_times: Whether processing times vary at random, by a factor of 0.5 to 2.
    """

    workers: float = math.inf
    creates_per_minute: int = 5
    max_contacts: float = math.inf
    max_days: float = math.inf
    hang_every: int = 0
    random_times: bool = False


PARALLEL, ONE_WORKER = Server(), Server(workers=1)
SERVERS = {
    "parallel": PARALLEL,
    "one worker": ONE_WORKER,
    "two workers": Server(workers=2),
    "four workers": Server(workers=4),
    "parallel, 30 creates a minute": Server(creates_per_minute=30),
    "parallel, random times": Server(random_times=True),
    "parallel, one export in 50 hangs": Server(hang_every=50),
    "parallel, more than 150,000 contacts fail": Server(max_contacts=150_000),
    "parallel, more than 20 days fail": Server(max_days=20),
    "one worker, more than 20 days fail": Server(workers=1, max_days=20),
}

PREVIOUS_SECONDS = dict(
    zip(
        CASES,
        (
            *(148, 328, 1528, 314, 590, 2750, 554, 1049, 4889),  # small
            *(9211, 15220, 45416, 20574, 34848, 104697, 32989, 56244, 169191),  # large
            *(2191, 2495, 3935, 4976, 5624, 8986, 9443, 10707, 17179),  # bursty
        ),
        strict=True,
    )
)
"""Recorded times of the previous rule (windows of 100,000 contacts, three exports in flight) on the
parallel server."""
PREVIOUS_HOURS = dict(
    zip(
        SERVERS,
        [157.2, 453.5, 225.1, 157.2, 157.0, 195.3, 234.8, 1216.6, 614.0, 916.1],
        strict=True,
    )
)
"""Recorded times of the previous rule for all cases together, on each server."""


class Clock:
    """Simulated time, in seconds."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """The current time."""
        return self._now

    monotonic = now

    def sleep(self, seconds: float) -> None:
        """Advance the time."""
        self._now += max(seconds, 0.0)


class MinuteLimit:
    """A rate limit; each minute starts with its first request."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._minute_start = -math.inf
        self._count = 0

    def take(self, now: float) -> float:
        """Count a request; if it exceeds the limit, return the seconds to wait instead."""
        if now >= self._minute_start + 60:
            self._minute_start, self._count = now, 0
        if self._count == self._limit:
            return self._minute_start + 60 - now
        self._count += 1
        return 0.0


class Workers:
    """The workers of a server, all idle at first."""

    def __init__(self, server: Server, fixed: float) -> None:
        self._server = server
        self._fixed = fixed
        self._busy_until: list[float] = []
        self._random = random.Random(1)  # noqa: S311 - the same times on every run

    def process(self, contacts: float, now: float) -> tuple[float, float]:
        """Assign an export to a worker; return when its processing begins and ends."""
        begins = now
        if len(self._busy_until) >= self._server.workers:
            begins = max(now, heapq.heappop(self._busy_until))
        seconds = self._fixed + contacts / EXPORTED_PER_SECOND
        if self._server.random_times:
            seconds *= 2 ** self._random.uniform(-1, 1)
        if self._server.workers < math.inf:
            heapq.heappush(self._busy_until, begins + seconds)
        return begins, begins + seconds


@dataclass(frozen=True)
class Job:
    """An export of the model."""

    created: float
    begins: float
    ends: float
    fails: bool


class ModelledCometly:
    """Stands in for `CometlyClient`."""

    def __init__(self, clock: Clock, case: Case, server: Server) -> None:
        self._clock = clock
        self._case = case
        self._server = server
        self._workers = Workers(server, case.fixed)
        self._creates = MinuteLimit(server.creates_per_minute)
        self._polls = MinuteLimit(server.creates_per_minute * POLLS_PER_CREATE)
        self.jobs: list[Job] = []

    def create_export(self, start_date: str, end_date: str) -> int:
        """Create an export; return its id."""
        now = self._clock.now()
        if wait := self._creates.take(now):
            raise RateLimited(wait)
        start, end = (datetime.fromisoformat(f"{text}+00:00") for text in (start_date, end_date))
        contacts = self.contacts(start, end)
        begins, ends = self._workers.process(contacts, now)
        days = (end - start) / timedelta(days=1)
        fails = contacts > self._server.max_contacts or days > self._server.max_days
        number = len(self.jobs) + 1
        if self._server.hang_every and number % self._server.hang_every == 0:
            ends = math.inf
        self.jobs.append(Job(now, begins, ends, fails))
        return number

    def get_export(self, export_id: int) -> ExportStatus:
        """The status of an export."""
        now = self._clock.now()
        if wait := self._polls.take(now):
            raise RateLimited(wait)
        job = self.jobs[export_id - 1]
        if now < job.ends:
            return ExportStatus(
                export_id, "queued" if now < job.begins else "processing", None, None
            )
        if job.fails:
            return ExportStatus(export_id, "failed", None, None)
        created, completed = (START + timedelta(seconds=at) for at in (job.created, job.ends))
        url = "https://storage.invalid/file"
        return ExportStatus(export_id, "completed", url, None, created, completed)

    def contacts(self, start: datetime, end: datetime) -> int:
        """Contacts created between two instants, spread evenly over each day."""
        per_day = SPACES[self._case.space]
        total, moment = 0.0, start
        while moment < end:
            midnight = moment.replace(hour=0, minute=0, second=0) + timedelta(days=1)
            until = min(midnight, end)
            share = (until - moment).total_seconds() / DAY_SECONDS
            total += per_day((moment - START).days) * share
            moment = until
        return round(total)


class NoFiles:
    """Stands in for `Storage` and its files, which are empty."""

    def open(self, url: str, fresh_url: object) -> NoFiles:
        """Open the empty file."""
        del url, fresh_url
        return self

    def close(self) -> None:
        """Do nothing."""

    def blocks(self) -> Iterator[Any]:
        """No blocks."""
        return iter(())


SETTINGS = Settings.read(
    {"api_key": "none", "start_date": "2016-01-01"}, default_user_agent="benchmark"
)


@dataclass(frozen=True)
class Backfill:
    """The simulated time of a backfill, and its exports: all of them, and those that failed."""

    seconds: float
    exports: int
    failed: int


def backfill(case: Case, server: Server = PARALLEL, **changes: Any) -> Backfill:
    """Run the tap's windows and exports, with `changes` to its default settings."""
    settings = replace(SETTINGS, **changes)
    clock = Clock()
    cometly = ModelledCometly(clock, case, server)
    plan = WindowPlan(case.start, END, settings.zone, settings.window_seconds)
    exports = Exports(
        plan, cast("CometlyClient", cometly), cast("Storage", NoFiles()), clock, settings
    )
    read = 0
    for export in exports:
        export.contacts = cometly.contacts(export.window.start, export.window.end)
        clock.sleep(export.contacts / READ_PER_SECOND)
        read += 1
    return Backfill(clock.now(), len(cometly.jobs), len(cometly.jobs) - read)


# P, the best possible time.

MAX_CONTACTS = [525_000 * 0.85**step for step in range(12)]
MAX_DAYS = (90, 45, 30, 20)
MAX_IN_FLIGHT = (25, 5, 2)


def best_time(case: Case, server: Server = PARALLEL) -> float:
    """P, the best possible time: the minimum over all window limits and exports in flight."""
    days = case.contacts_by_day()
    plans = {
        tuple(cut(days, min(contacts, server.max_contacts), min(length, server.max_days)))
        for contacts, length in product(MAX_CONTACTS, MAX_DAYS)
    }
    return min(schedule(*parts, case, server) for parts in product(plans, MAX_IN_FLIGHT))


def cut(contacts_by_day: list[float], max_contacts: float, max_days: float) -> list[float]:
    """Cut a range into windows as large as the two limits allow; return the contacts of each."""
    windows = []
    contacts = days = 0.0
    for per_day in contacts_by_day:
        left = 1.0
        while left > 1e-9:  # noqa: PLR2004 - a remainder from rounding
            part = min(left, (max_contacts - contacts) / per_day, max_days - days)
            contacts, days, left = contacts + part * per_day, days + part, left - part
            if contacts > max_contacts - 1 or days > max_days - 1e-9:
                windows.append(contacts)
                contacts = days = 0.0
    return [*windows, contacts] if days else windows


def schedule(plan: tuple[float, ...], max_in_flight: int, case: Case, server: Server) -> float:
    """The time for a plan (contacts of each window), if completions are noticed immediately."""
    limit, workers = MinuteLimit(server.creates_per_minute), Workers(server, case.fixed)
    in_flight: deque[tuple[float, float]] = deque()
    now = read = 0.0
    for contacts in plan:
        if len(in_flight) == max_in_flight:
            completed, seconds = in_flight.popleft()
            read = max(read, completed) + seconds
            now = max(now, read)
        while wait := limit.take(now):
            now += wait
        in_flight.append((workers.process(contacts, now)[1], contacts / READ_PER_SECOND))
    for completed, seconds in in_flight:
        read = max(read, completed) + seconds
    return read


# The tables.


def format_duration(seconds: float) -> str:
    """A duration in minutes, or in hours from 100 minutes on."""
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 100 else f"{minutes / 60:.1f} h"  # noqa: PLR2004


def case_table(taps: list[Backfill], best: list[float]) -> str:
    """The table of all cases on the parallel server."""
    heads = ["Space", "years", "processing", "this tap", "exports", "P", "x P"]
    rows = [
        [
            case.space,
            str(case.years),
            f"{case.fixed} s",
            format_duration(tap.seconds),
            str(tap.exports),
            format_duration(p),
            f"{tap.seconds / p:.2f}",
            format_duration(backfill(case, window_seconds=DAY_SECONDS).seconds),
            format_duration(PREVIOUS_SECONDS[case]),
        ]
        for case, tap, p in zip(CASES, taps, best, strict=True)
    ]
    return table([[*heads, "a window a day", "previous rule"], *rows])


def server_table(taps: dict[str, list[Backfill]], best: dict[str, list[float]]) -> str:
    """The table of all servers, with the sum of all cases in each row."""
    heads = ["server", "this tap", "P", "median x P", "worst x P", "exports failed"]
    rows = [
        [
            name,
            f"{sum(tap.seconds for tap in taps[name]) / 3600:.1f} h",
            f"{sum(best[name]) / 3600:.1f} h",
            f"{median(ratios(taps[name], best[name])):.2f}",
            f"{max(ratios(taps[name], best[name])):.2f}",
            f"{sum(tap.failed for tap in taps[name]):,}",
            f"{PREVIOUS_HOURS[name]:,.1f} h",
        ]
        for name in SERVERS
    ]
    return table([[*heads, "previous rule"], *rows])


def ratios(taps: list[Backfill], best: list[float]) -> list[float]:
    """The time of each case as a multiple of P."""
    return [tap.seconds / p for tap, p in zip(taps, best, strict=True)]


def main() -> None:
    """Print the tables and draw the chart."""
    logging.disable()
    taps = {name: [backfill(case, server) for case in CASES] for name, server in SERVERS.items()}
    best = {name: [best_time(case, server) for case in CASES] for name, server in SERVERS.items()}
    parallel = ratios(taps["parallel"], best["parallel"])
    timeouts = sum(tap.failed for tap in taps["one worker"])  # nothing else fails there
    summary = (
        f"{len(CASES)} cases: median {median(parallel):.2f} x P, worst {max(parallel):.2f} x P, "
        f"one-worker time-outs {timeouts}"
    )
    for text in (case_table(taps["parallel"], best["parallel"]), server_table(taps, best)):
        print(f"{text}\n")  # noqa: T201
    print(summary)  # noqa: T201
    bars = {
        f"{case.space}, {case.years} years, {case.fixed} s": {
            "limit: P": 1.0,
            "tap-cometly": tap.seconds / p,
            "previous rule": PREVIOUS_SECONDS[case] / p,
        }
        for case, tap, p in zip(CASES, taps["parallel"], best["parallel"], strict=True)
        if (case.years, case.fixed) == (YEARS[-1], PROCESSING_SECONDS[-1])
    }
    CHART.write_text(draw(bars, "Backfill time relative to P, the best possible time"), "utf-8")


if __name__ == "__main__":
    main()
