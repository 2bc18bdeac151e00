"""The promise, as a property: whatever happens, no STATE line claims a contact that is not there.

Each example is a Space (zone, clock changes, how it treats an export's end, how it reads a repeated
hour), people (many on the seconds that matter), settings, faults, and an end: the run completes,
fails, is stopped by a signal, or is killed at any byte of its output. Then:

- every contact created before a STATE line's bookmark came before that line, or is in a file that
  a BATCH line before it names;
- bookmarks never go back, and never beyond the end of the range;
- what was written, and a fresh run from the last STATE line, together hold every contact.

`NOTHING_LOST_EXAMPLES=20000 python -m pytest tests/test_nothing_lost.py` looks longer.
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

from simulator import faults
from simulator.files import FileForm
from tests.conftest import Run, VirtualClock, World, contact

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from simulator import Contact, Simulator
    from simulator.faults import Fault, Where

EXAMPLES = int(os.environ.get("NOTHING_LOST_EXAMPLES", "300"))
SHARES = 8
"""The examples are shared out among tests, which can run side by side."""

CLOCK_CHANGES = {
    "America/New_York": ["2024-03-10T07:00", "2024-11-03T06:00"],
    "America/Havana": ["2024-03-10T05:00", "2024-11-03T05:00"],
    "Australia/Lord_Howe": ["2024-04-06T15:00", "2024-10-05T15:30"],
    "Pacific/Auckland": ["2024-04-06T14:00", "2024-09-28T14:00"],
    "Asia/Kolkata": ["2024-06-01T18:30"],
    "UTC": ["2024-06-01T00:00"],
}
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def _nothing() -> None:
    """Do nothing."""


class Interrupting(VirtualClock):
    """A virtual clock at which a signal comes when a moment has passed."""

    def __init__(self, start: datetime, after_seconds: float | None) -> None:
        """Show a time.

        Args:
            start: The time.
            after_seconds: How much later the signal comes; None for never.
        """
        super().__init__(start)
        self._due = None if after_seconds is None else self.now() + after_seconds
        self.interrupt: Callable[[], None] = _nothing

    def sleep(self, seconds: float) -> None:
        """Let time pass, and the signal come."""
        super().sleep(seconds)
        if self._due is not None and self.now() >= self._due:
            self._due = None
            self.interrupt()


@dataclass
class Story:
    """One example."""

    zone: str
    start: datetime
    first_run: datetime
    second_run: datetime
    people: list[Contact]
    rules: dict[str, Any]
    config: dict[str, Any]
    script: list[tuple[Where, Fault, int, int]]
    batch_size: int | None
    signal_after_seconds: float | None
    killed_at: float | None


def recoverable() -> st.SearchStrategy[tuple[Where, Fault]]:
    """Faults that a run survives, if they are not too many."""
    api: list[Fault] = [
        faults.TooManyRequests(retry_after=7),
        faults.TooManyRequests(retry_after=None),
        faults.ServerError(),
        faults.Answer(body=b"{}"),
        faults.Reset(),
        faults.Reset(accepted=True),
    ]
    exports: list[Fault] = [
        faults.ExportFails(),
        faults.ExportVanishes(),
        faults.ExportStuck(),
        faults.UnknownStatus(),
        faults.CompletedWithoutUrl(),
        faults.NoRanges(),
        faults.NoETag(),
        faults.Form(FileForm(members=3)),
        faults.Form(FileForm(plain=True, shuffle=1)),
        faults.Form(FileForm(content_encoding="gzip", last_newline=False)),
    ]
    downloads: list[Fault] = [
        *(faults.Cut(at=at, reset=at % 2 == 0) for at in (0, 1, 2, 9, 20, 45)),
        faults.CutUnnoticed(at=30),
        faults.CutUnnoticed(at=11, chunked=True),
        faults.Expired(),
        faults.Throttled(),
        faults.Reset(),
    ]
    return st.one_of(
        st.tuples(st.sampled_from(["create", "poll"]), st.sampled_from(api)),
        st.tuples(st.just("create"), st.sampled_from(exports)),
        st.tuples(st.just("download"), st.sampled_from(downloads)),
    )


def fatal() -> st.SearchStrategy[tuple[Where, Fault]]:
    """Faults that end a run."""
    files: list[Fault] = [
        faults.Truncated(length=-1),
        faults.Truncated(length=12),
        faults.WrongChecksum(),
        faults.Form(FileForm(lines=(b"{",))),
    ]
    refusals: list[Fault] = [faults.Refuse(status=401), faults.Redirect("https://example.com")]
    return st.one_of(
        st.tuples(st.just("create"), st.sampled_from(files)),
        st.tuples(st.sampled_from(["create", "poll"]), st.sampled_from(refusals)),
        st.tuples(st.just("download"), st.just(faults.WrongRange())),
    )


@st.composite
def stories(draw: st.DrawFn) -> Story:
    """Draw an example."""
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

    faulty = draw(st.lists(st.one_of(recoverable(), recoverable(), fatal()), max_size=3))
    script = [
        (where, fault, draw(st.integers(1, 4)), draw(st.integers(0, 3))) for where, fault in faulty
    ]
    end = draw(st.sampled_from(["completes", "completes", "signal", "killed"]))
    return Story(
        zone=zone,
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
            "max_concurrent_exports": draw(st.sampled_from([1, 3])),
            "export_timeout_minutes": 2,
            "stream_maps": draw(st.sampled_from([None, None, {"contacts": {"twice": "id * 2"}}])),
        },
        script=script,
        batch_size=draw(st.sampled_from([None, None, None, 1, 4])),
        signal_after_seconds=draw(st.integers(0, 60)) if end == "signal" else None,
        killed_at=draw(st.floats(0, 1)) if end == "killed" else None,
    )


def first_run(world: World, story: Story) -> Run:
    """Run until it completes, fails, is stopped or is killed."""
    world.clock = Interrupting(story.first_run, story.signal_after_seconds)
    world.fill(story.people, **story.rules)
    for where, fault, times, after in story.script:
        world.simulator.faults.add(where, fault, times=times, after=after)
    run = world.sync(on_tap=lambda tap: interrupt_by_signal(world, tap), **story.config)
    if story.killed_at is None:
        return run
    whole, _, _ = run.output[: int(len(run.output) * story.killed_at)].rpartition(b"\n")
    return Run(whole + b"\n" if whole else b"")


def interrupt_by_signal(world: World, tap: Any) -> None:  # noqa: ANN401
    """Let the clock's signal reach a tap."""
    assert isinstance(world.clock, Interrupting)
    world.clock.interrupt = lambda: tap.stop.handle(signal.SIGTERM)


def handed_over(message: dict[str, Any]) -> set[int]:
    """Whom a message hands over, by itself or in the files that it names."""
    if message["type"] == "RECORD":
        return {message["record"]["id"]}
    files = [Path(url2pathname(urlsplit(url).path)) for url in message.get("manifest", ())]
    return {
        json.loads(line)["id"] for file in files for line in gzip.open(file, "rt", encoding="utf-8")
    }


def created(people: Sequence[Contact], since: datetime, until: datetime) -> set[int]:
    """Who was created from one instant on and before another."""
    return {person.id for person in people if since <= person.created_at < until}


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
@settings(
    max_examples=max(EXAMPLES // SHARES, 1),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(story=stories())
def test_every_state_is_true_and_a_run_from_it_finds_the_rest(
    running_simulator: Simulator, tmp_path: Path, share: int, story: Story
) -> None:
    del share
    world = World(running_simulator)
    if story.batch_size:
        story.config["batch_config"] = {
            "encoding": {"format": "jsonl", "compression": "gzip"},
            "storage": {"root": tmp_path.as_uri()},
            "batch_size": story.batch_size,
        }
    run = first_run(world, story)
    event("killed" if story.killed_at is not None else type(run.error).__name__)

    written: set[int] = set()
    latest = story.start
    for message in run.messages:
        written |= handed_over(message)
        if message["type"] == "STATE":
            value = message["value"]["bookmarks"]["contacts"]["replication_key_value"]
            bookmark = datetime.fromisoformat(value)
            assert created(story.people, story.start, bookmark) <= written, "claimed too much"
            assert latest <= bookmark <= datetime.fromtimestamp(world.clock.now(), UTC)
            latest = bookmark

    world.simulator.faults.clear()
    pause = (story.second_run - datetime.fromtimestamp(world.clock.now(), UTC)).total_seconds()
    world.clock = VirtualClock(
        datetime.fromtimestamp(world.clock.now() + max(pause, 0) + 3 * HOUR.total_seconds(), UTC)
    )
    world.space.clock = world.clock.now
    resumed = world.sync(run.states[-1] if run.states else None, **story.config)

    assert resumed.error is None
    if story.killed_at is None and run.error is None:
        assert created(story.people, story.start, story.first_run - 3 * HOUR) <= written
    until = datetime.fromisoformat(resumed.bookmarks[-1])
    written.update(*map(handed_over, resumed.messages))
    assert created(story.people, story.start, until) <= written
    assert until >= story.second_run - 3 * HOUR
