"""How long a backfill takes, on simulated time: nothing waits, nothing is sent.

The tap's own windows and exports run against a model of Cometly. Beside the tap's time stands P:
the shortest time of a scheduler that knows the Space and the server beforehand, found by trying
many window sizes and numbers of exports in flight on the same model.

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
READ_A_SECOND = 300_000
EXPORTED_A_SECOND = 2_000
"""Contacts that Cometly adds to a file in a second, on top of the fixed processing time."""
POLLS_A_CREATE = 6
"""Cometly allows 30 polls and 5 creates a minute."""


def small(day: int) -> float:
    """Contacts created on a day, in a small Space: 30 a day."""
    del day
    return 30


def large(day: int) -> float:
    """In a large Space: 20,000 to 60,000 a day."""
    return 20_000 + 40_000 * day / 3650


def bursty(day: int) -> float:
    """In a bursty Space: 500 a day, and a million on one day in 90."""
    return 1_000_000 if day % 90 == 60 else 500  # noqa: PLR2004


SPACES = {"small": small, "large": large, "bursty": bursty}


@dataclass(frozen=True)
class Case:
    """A backfill.

    Attributes:
        space: The Space's name.
        years: How far back it goes.
        fixed: Seconds that processing any export takes at least.
    """

    space: str
    years: int
    fixed: int

    @property
    def start(self) -> datetime:
        """Its first instant."""
        return END.replace(year=END.year - self.years)

    def contacts_by_day(self) -> list[float]:
        """How many contacts each of its days has."""
        return [SPACES[self.space](day) for day in range((self.start - START).days, DAYS)]


CASES = [Case(*case) for case in product(SPACES, YEARS, PROCESSING_SECONDS)]


@dataclass(frozen=True)
class Server:
    """How Cometly might process exports.

    Attributes:
        workers: How many it processes at a time, in order of creation; the others are queued.
        creates_a_minute: How many it creates.
        max_contacts: Exports of more contacts fail.
        max_days: Longer exports fail.
        hang_every: One export in so many never completes.
        random_times: Whether exports take 0.5 to 2 times as long, at random.
    """

    workers: float = math.inf
    creates_a_minute: int = 5
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
    "parallel, 30 creates a minute": Server(creates_a_minute=30),
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
"""Recorded: what the previous rule took on the parallel server: windows of 100,000 contacts, three
exports in flight."""
PREVIOUS_HOURS = dict(
    zip(
        SERVERS,
        [157.2, 453.5, 225.1, 157.2, 157.0, 195.3, 234.8, 1216.6, 614.0, 916.1],
        strict=True,
    )
)
"""Recorded: what it took for all 27 cases on each server."""


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        """Begin at zero."""
        self._now = 0.0

    def now(self) -> float:
        """Seconds."""
        return self._now

    monotonic = now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self._now += max(seconds, 0.0)


class MinuteLimit:
    """So many requests a minute, counted from the first one."""

    def __init__(self, limit: int) -> None:
        """Allow `limit` requests a minute."""
        self._limit = limit
        self._began = -math.inf
        self._count = 0

    def take(self, now: float) -> float:
        """Count a request; return the seconds to wait, if it is one too many."""
        if now >= self._began + 60:
            self._began, self._count = now, 0
        if self._count == self._limit:
            return self._began + 60 - now
        self._count += 1
        return 0.0


class Workers:
    """When exports are processed, one after the other or at the same time."""

    def __init__(self, server: Server, fixed: float) -> None:
        """Have the workers of a server, all idle."""
        self._server = server
        self._fixed = fixed
        self._busy_until: list[float] = []
        self._random = random.Random(1)  # noqa: S311 - the same times on every run

    def process(self, contacts: float, now: float) -> tuple[float, float]:
        """Take an export on; return when its processing begins and ends."""
        begins = now
        if len(self._busy_until) >= self._server.workers:
            begins = max(now, heapq.heappop(self._busy_until))
        seconds = self._fixed + contacts / EXPORTED_A_SECOND
        if self._server.random_times:
            seconds *= 2 ** self._random.uniform(-1, 1)
        if self._server.workers < math.inf:
            heapq.heappush(self._busy_until, begins + seconds)
        return begins, begins + seconds


@dataclass(frozen=True)
class Job:
    """An export of the model: its times, and whether it fails."""

    created: float
    begins: float
    ends: float
    fails: bool


class ModelledCometly:
    """Cometly's two calls."""

    def __init__(self, clock: Clock, case: Case, server: Server) -> None:
        """Serve the Space of a case."""
        self._clock = clock
        self._case = case
        self._server = server
        self._workers = Workers(server, case.fixed)
        self._creates = MinuteLimit(server.creates_a_minute)
        self._polls = MinuteLimit(server.creates_a_minute * POLLS_A_CREATE)
        self.jobs: list[Job] = []

    def create_export(self, start_date: str, end_date: str) -> int:
        """Accept an export."""
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
        """Say how an export is doing."""
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
    """A storage whose files need no reading."""

    def open(self, url: str, fresh_url: object) -> NoFiles:
        """Give a file."""
        del url, fresh_url
        return self

    def close(self) -> None:
        """Nothing to close."""

    def blocks(self) -> Iterator[Any]:
        """No lines."""
        return iter(())


SETTINGS = Settings.read(
    {"api_key": "none", "start_date": "2016-01-01"}, default_user_agent="benchmark"
)


@dataclass(frozen=True)
class Backfill:
    """What a backfill took: simulated seconds, exports created, and exports that were lost."""

    seconds: float
    exports: int
    lost: int


def backfill(case: Case, server: Server = PARALLEL, **changes: Any) -> Backfill:
    """Run the tap's windows and exports, with settings that differ from the defaults."""
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
        clock.sleep(export.contacts / READ_A_SECOND)
        read += 1
    return Backfill(clock.now(), len(cometly.jobs), len(cometly.jobs) - read)


# The bound.

SIZES = [525_000 * 0.85**step for step in range(12)]
LENGTHS = (90, 45, 30, 20)
FLIGHTS = (25, 5, 2)


def best(case: Case, server: Server = PARALLEL) -> float:
    """P: the shortest time with the best window size, longest window and exports in flight."""
    days = case.contacts_by_day()
    plans = {
        tuple(cut(days, min(size, server.max_contacts), min(length, server.max_days)))
        for size, length in product(SIZES, LENGTHS)
    }
    return min(schedule(plan, flight, case, server) for plan, flight in product(plans, FLIGHTS))


def cut(days: list[float], size: float, length: float) -> list[float]:
    """Cut a range into windows of at most so many contacts and days; return their contacts."""
    windows = []
    contacts = seconds = 0.0
    for a_day in days:
        left = 1.0
        while left > 1e-9:  # noqa: PLR2004 - what is left of the day by rounding
            part = min(left, (size - contacts) / a_day, length - seconds)
            contacts, seconds, left = contacts + part * a_day, seconds + part, left - part
            if contacts > size - 1 or seconds > length - 1e-9:
                windows.append(contacts)
                contacts = seconds = 0.0
    return [*windows, contacts] if seconds else windows


def schedule(plan: tuple[float, ...], flight: int, case: Case, server: Server) -> float:
    """How long windows of so many contacts take, each export seen at once when it is completed."""
    limit, workers = MinuteLimit(server.creates_a_minute), Workers(server, case.fixed)
    in_flight: deque[tuple[float, float]] = deque()
    now = read = 0.0
    for contacts in plan:
        if len(in_flight) == flight:
            completed, seconds = in_flight.popleft()
            read = max(read, completed) + seconds
            now = max(now, read)
        while wait := limit.take(now):
            now += wait
        in_flight.append((workers.process(contacts, now)[1], contacts / READ_A_SECOND))
    for completed, seconds in in_flight:
        read = max(read, completed) + seconds
    return read


# The tables.


def row(*cells: object) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def shown(seconds: float) -> str:
    """A span of time, short."""
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 100 else f"{minutes / 60:.1f} h"  # noqa: PLR2004


def case_rows(taps: list[Backfill], bounds: list[float]) -> Iterator[str]:
    """The table of the parallel server: a row a case."""
    yield row(
        "Space",
        "years",
        "processing",
        "this tap",
        "exports",
        "P",
        "x P",
        "a window a day",
        "previous rule",
    )
    yield row("---", *["---:"] * 8)
    for case, tap, bound in zip(CASES, taps, bounds, strict=True):
        yield row(
            case.space,
            case.years,
            f"{case.fixed} s",
            shown(tap.seconds),
            tap.exports,
            shown(bound),
            f"{tap.seconds / bound:.2f}",
            shown(backfill(case, window_seconds=DAY_SECONDS).seconds),
            shown(PREVIOUS_SECONDS[case]),
        )


def server_rows(taps: dict[str, list[Backfill]], bounds: dict[str, list[float]]) -> Iterator[str]:
    """The table of all servers: all cases of a server in a row."""
    yield row(
        "server", "this tap", "P", "median x P", "worst x P", "exports failed", "previous rule"
    )
    yield row("---", *["---:"] * 6)
    for name in SERVERS:
        ratios = ratios_of(taps[name], bounds[name])
        yield row(
            name,
            f"{sum(tap.seconds for tap in taps[name]) / 3600:.1f} h",
            f"{sum(bounds[name]) / 3600:.1f} h",
            f"{median(ratios):.2f}",
            f"{max(ratios):.2f}",
            f"{sum(tap.lost for tap in taps[name]):,}",
            f"{PREVIOUS_HOURS[name]:,.1f} h",
        )


def ratios_of(taps: list[Backfill], bounds: list[float]) -> list[float]:
    """How many times P each case took."""
    return [tap.seconds / bound for tap, bound in zip(taps, bounds, strict=True)]


def main() -> None:
    """Print the tables."""
    logging.disable()
    taps = {name: [backfill(case, server) for case in CASES] for name, server in SERVERS.items()}
    bounds = {name: [best(case, server) for case in CASES] for name, server in SERVERS.items()}
    ratios = ratios_of(taps["parallel"], bounds["parallel"])
    timeouts = sum(tap.lost for tap in taps["one worker"])  # nothing else fails there
    verdict = (
        f"{len(CASES)} cases: median {median(ratios):.2f} x P, worst {max(ratios):.2f} x P, "
        f"one-worker time-outs {timeouts}"
    )
    cases, servers = case_rows(taps["parallel"], bounds["parallel"]), server_rows(taps, bounds)
    for line in (*cases, "", *servers, "", verdict):
        print(line)  # noqa: T201
    bars = {
        f"{case.space}, {case.years} years, {case.fixed} s": {
            "limit: P": 1.0,
            "tap-cometly": tap.seconds / bound,
            "previous rule": PREVIOUS_SECONDS[case] / bound,
        }
        for case, tap, bound in zip(CASES, taps["parallel"], bounds["parallel"], strict=True)
        if (case.years, case.fixed) == (YEARS[-1], PROCESSING_SECONDS[-1])
    }
    CHART.write_text(draw(bars, "Backfill time, the shortest possible = 1"), "utf-8")


if __name__ == "__main__":
    main()
