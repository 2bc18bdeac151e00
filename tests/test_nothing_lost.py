"""Every STATE line is correct: the contacts before its bookmark were written before it.

Each scenario has a Space (time zone, clock changes, whether an export's end is inclusive, which of
two repeated hours a time means), contacts (many at boundary seconds), settings, faults, and an end:
the run completes, fails, is stopped by a signal, or is killed at any byte of its output. Then:

- every contact created before a STATE line's bookmark is in a RECORD line before that line, or in
  a file of a BATCH line before that line;
- bookmarks never move back, and never beyond the end of the range;
- the run and a second run from its last STATE line together have every contact;
- a run without faults, or with one recoverable fault, completes.

`NOTHING_LOST_EXAMPLES=20000 python -m pytest tests/test_nothing_lost.py` searches longer.
"""

from __future__ import annotations

import gzip
import json
import os
import signal
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from simulator.presets import FATAL, RECOVERABLE
from tests.conftest import HOUR, Run, VirtualClock, World, contact

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from simulator import Contact, Simulator
    from simulator.faults import Endpoint, Fault
    from tap_cometly.tap import TapCometly

EXAMPLES = int(os.environ.get("NOTHING_LOST_EXAMPLES", "300"))
SHARES = 8
"""The number of tests that share the examples, so that workers can run them in parallel."""

CLOCK_CHANGES = {
    "America/New_York": ["2024-03-10T07:00", "2024-11-03T06:00"],
    "America/Havana": ["2024-03-10T05:00", "2024-11-03T05:00"],
    "Australia/Lord_Howe": ["2024-04-06T15:00", "2024-10-05T15:30"],
    "Pacific/Auckland": ["2024-04-06T14:00", "2024-09-28T14:00"],
    "Asia/Kolkata": ["2024-06-01T18:30"],
    "UTC": ["2024-06-01T00:00"],
}


class InterruptingClock(VirtualClock):
    """A virtual clock that calls `interrupt` once, after some seconds."""

    interrupt: Callable[[], None]

    def __init__(self, start: datetime, after_seconds: float | None) -> None:
        super().__init__(start)
        self._due = None if after_seconds is None else self.now() + after_seconds

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if self._due is not None and self.now() >= self._due:
            self._due = None
            self.interrupt()


@dataclass
class Scenario:
    """An example."""

    start: datetime
    first_run: datetime
    second_run: datetime
    people: list[Contact]
    rules: dict[str, Any]
    config: dict[str, Any]
    script: list[tuple[Endpoint, Fault, int, int]]
    must_complete: bool
    batch_size: int | None
    signal_after_seconds: float | None
    killed_at: float | None


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    zone = draw(st.sampled_from(sorted(CLOCK_CHANGES)))
    change = datetime.fromisoformat(draw(st.sampled_from(CLOCK_CHANGES[zone]))).replace(tzinfo=UTC)
    start = change - draw(st.integers(0, 60)) * HOUR
    first_run = start + draw(st.integers(1, 120)) * HOUR + timedelta(minutes=5)
    second_run = first_run + draw(st.integers(0, 30)) * HOUR

    seconds = round((second_run - start).total_seconds())
    around_change = round((change - start).total_seconds())
    midnight = datetime.combine(start.astimezone(ZoneInfo(zone)).date(), datetime.min.time())
    to_midnight = round((midnight.replace(tzinfo=ZoneInfo(zone)) - start).total_seconds())
    moments = st.one_of(
        st.integers(0, seconds),
        st.integers(0, seconds // 3600).map(lambda hour: hour * 3600),
        st.integers(around_change - 7200, around_change + 7200),
        st.integers(0, 6).map(lambda day: to_midnight + day * 86_400),
    )
    times = draw(st.lists(moments, max_size=25))
    parts = draw(st.sampled_from([0, 0, 0.4]))
    people = [
        contact(n, start + timedelta(seconds=second + parts), email=f"{n}@example.com")
        for n, second in enumerate(times, 1)
        if second >= 0
    ]

    recoverable, fatal = st.sampled_from(RECOVERABLE), st.sampled_from(FATAL)
    faulty = draw(st.lists(st.one_of(recoverable, recoverable, fatal), max_size=3))
    script = [
        (where, fault, draw(st.integers(1, 4)), draw(st.integers(0, 3))) for where, fault in faulty
    ]
    end = draw(st.sampled_from(["completes", "completes", "signal", "killed"]))
    return Scenario(
        start=start,
        first_run=first_run,
        second_run=second_run,
        people=people,
        rules={
            "timezone": zone,
            "end_inclusive": draw(st.booleans()),
            "wall_clock_comparison": draw(st.booleans()),
            "fold": draw(st.sampled_from([0, 1])),
            "processing_seconds": draw(st.sampled_from([0, 30])),
        },
        config={
            "start_date": start.isoformat(),
            "window_days": draw(st.sampled_from([None, 0.25, 1, 2, 1.5])),
            "lookback_days": draw(st.sampled_from([0, 0.3, 1, 2])),
            "max_concurrent_exports": draw(st.sampled_from([1, 3, 25])),
            "export_timeout_minutes": 2,
            "stream_maps": draw(st.sampled_from([None, None, {"contacts": {"twice": "id * 2"}}])),
        },
        script=script,
        must_complete=end == "completes"
        and sum(times for _, _, times, _ in script) <= 1
        and all(fault in RECOVERABLE for fault in faulty),
        batch_size=draw(st.sampled_from([None, None, None, 1, 4])),
        signal_after_seconds=draw(st.integers(0, 60)) if end == "signal" else None,
        killed_at=draw(st.floats(0, 1)) if end == "killed" else None,
    )


def first_run(world: World, scenario: Scenario) -> Run:
    """A run that completes, fails, is stopped or is killed."""
    world.clock = clock = InterruptingClock(scenario.first_run, scenario.signal_after_seconds)
    world.fill(scenario.people, **scenario.rules)
    for where, fault, times, after in scenario.script:
        world.simulator.faults.add(where, fault, times=times, after=after)

    def sync(tap: TapCometly) -> None:
        clock.interrupt = lambda: tap.stop.handle(signal.SIGTERM)
        tap.sync_all()

    run = world.sync(act=sync, **scenario.config)
    if scenario.killed_at is None:
        return run
    whole, _, _ = run.output[: int(len(run.output) * scenario.killed_at)].rpartition(b"\n")
    return Run(whole + b"\n" if whole else b"")


def written_by(message: dict[str, Any]) -> set[int]:
    """The ids of the contacts in a message, or in the files of a BATCH message."""
    if message["type"] == "RECORD":
        return {message["record"]["id"]}
    files = [Path(url2pathname(urlsplit(url).path)) for url in message.get("manifest", ())]
    return {
        json.loads(line)["id"] for file in files for line in gzip.open(file, "rt", encoding="utf-8")
    }


def created(people: Sequence[Contact], since: datetime, until: datetime) -> set[int]:
    """The ids of the contacts created at or after `since` and before `until`."""
    return {person.id for person in people if since <= person.created_at < until}


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
@settings(
    max_examples=max(EXAMPLES // SHARES, 1),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(scenario=scenarios())
def test_every_state_line_is_correct_and_a_run_from_the_last_one_adds_the_rest(
    running_simulator: Simulator, tmp_path: Path, share: int, scenario: Scenario
) -> None:
    del share
    world = World(running_simulator)
    if scenario.batch_size:
        scenario.config["batch_config"] = {
            "encoding": {"format": "jsonl", "compression": "gzip"},
            "storage": {"root": tmp_path.as_uri()},
            "batch_size": scenario.batch_size,
        }
    run = first_run(world, scenario)
    event("killed" if scenario.killed_at is not None else type(run.error).__name__)

    assert not scenario.must_complete or run.error is None
    written: set[int] = set()
    latest = scenario.start
    for message in run.messages:
        written |= written_by(message)
        if message["type"] == "STATE":
            value = message["value"]["bookmarks"]["contacts"]["replication_key_value"]
            bookmark = datetime.fromisoformat(value)
            assert created(scenario.people, scenario.start, bookmark) <= written, (
                "the bookmark is too late"
            )
            assert latest <= bookmark <= datetime.fromtimestamp(world.clock.now(), UTC)
            latest = bookmark

    world.simulator.faults.clear()
    pause = (scenario.second_run - datetime.fromtimestamp(world.clock.now(), UTC)).total_seconds()
    world.clock = VirtualClock(
        datetime.fromtimestamp(world.clock.now() + max(pause, 0) + 3 * HOUR.total_seconds(), UTC)
    )
    world.space.clock = world.clock.now
    resumed = world.sync(run.states[-1] if run.states else None, **scenario.config)

    assert resumed.error is None
    if scenario.killed_at is None and run.error is None:
        assert created(scenario.people, scenario.start, scenario.first_run - 3 * HOUR) <= written
    until = datetime.fromisoformat(resumed.bookmarks[-1])
    written.update(*map(written_by, resumed.messages))
    assert created(scenario.people, scenario.start, until) <= written
    assert until >= scenario.second_run - 3 * HOUR
