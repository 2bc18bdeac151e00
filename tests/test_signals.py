"""A signal ends a run soon, with whole lines and true states; so does a reader that goes away."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING

import pytest

from simulator import Population, Simulator, Space
from simulator.faults import ExportStuck, Hang, Stall, TooManyRequests
from tap_cometly.signals import Stopped, StopRequest
from tests.conftest import API_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from simulator.faults import Fault, Where
    from simulator.journal import Kind

WITHIN_SECONDS = 2.0
PEOPLE = Population.generate(
    60_000, since=datetime(2024, 6, 1, tzinfo=UTC), until=datetime(2024, 6, 5, tzinfo=UTC)
)

FIRST_STATE = (
    b'{"type":"STATE","value":{"bookmarks":{"contacts":{"replication_key":"created_until",'
    b'"replication_key_value":"2024-06-02T00:00:00+00:00"}}}}\n'
)


@pytest.fixture
def space() -> Iterator[Simulator]:
    """A Space in real time that lets nobody wait."""
    rules = Space(
        PEOPLE,
        api_key=API_KEY,
        queued_seconds=0,
        processing_seconds=0,
        creates_per_minute=None,
        polls_per_minute=None,
    )
    with Simulator(rules) as simulator:
        yield simulator


class Child:
    """A tap in a process of its own."""

    def __init__(self, space: Simulator, folder: Path, **settings: object) -> None:
        """Start it.

        Args:
            space: What it reads.
            folder: For its files.
            **settings: Settings besides those for the Space.
        """
        config = {
            "api_key": API_KEY,
            "api_url": space.api_url,
            "start_date": "2024-06-01",
            "end_date": "2024-06-06",
            "window_days": 1,
            **settings,
        }
        (folder / "config.json").write_text(json.dumps(config))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tap_cometly", "--config", "config.json"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdout
        assert self.process.stderr
        self.stdout: IO[bytes] = self.process.stdout
        self.stderr: IO[bytes] = self.process.stderr

    def finish(self) -> tuple[int, list[bytes], str]:
        """Read the rest, as a target would.

        Returns:
            Exit code, the rest of the lines on stdout, and the last line on stderr.
        """
        out, err = self.stdout.read(), self.stderr.read()
        self.process.wait(timeout=WITHIN_SECONDS)
        assert b"Traceback" not in err
        assert out == b"" or out.endswith(b"\n")
        return self.process.returncode, out.splitlines(), err.decode().splitlines()[-1]


@contextlib.contextmanager
def running(space: Simulator, folder: Path, **settings: object) -> Iterator[Child]:
    """A tap that is surely gone afterwards."""
    child = Child(space, folder, **settings)
    try:
        yield child
    finally:
        child.process.kill()
        child.process.wait()
        child.stdout.close()
        child.stderr.close()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_in_mid_window_a_signal_leaves_whole_lines_and_a_true_state(
    space: Simulator, tmp_path: Path, signum: signal.Signals
) -> None:
    with running(space, tmp_path) as child:
        read = [*iter(child.stdout.readline, FIRST_STATE), FIRST_STATE, child.stdout.readline()]
        child.process.send_signal(signum)  # while the pipe is full, in the midst of a write
        code, rest, last = child.finish()

    messages = [json.loads(line) for line in [*read, *rest]]
    states = [message["value"] for message in messages if message["type"] == "STATE"]
    claimed = states[-1]["bookmarks"]["contacts"]["replication_key_value"]
    records = [message for message in messages if message["type"] == "RECORD"]
    assert code == 128 + signum
    assert f"Stopped by {signum.name}" in last
    assert claimed == "2024-06-02T00:00:00+00:00"
    assert claimed < records[-1]["record"]["created_until"]
    assert len(records) < len(PEOPLE)


@pytest.mark.parametrize(
    ("where", "fault", "asked"),
    [
        ("create", Hang(), "create"),
        ("create", TooManyRequests(retry_after=600), "create"),
        ("poll", Hang(), "poll"),
        ("create", ExportStuck(), "poll"),
        ("download", Hang(), "download"),
        ("download", Stall(at=1000), "download"),
    ],
    ids=["create", "rate limit", "poll", "processing", "download", "stalled file"],
)
def test_a_signal_ends_every_wait_at_once(
    space: Simulator, tmp_path: Path, where: Where, fault: Fault, asked: Kind
) -> None:
    space.faults.add(where, fault, times=None)
    with running(space, tmp_path) as child:
        space.wait_until_asked(asked)
        child.process.send_signal(signal.SIGTERM)
        child.process.wait(timeout=WITHIN_SECONDS)
        code, _, last = child.finish()

    assert code == 128 + signal.SIGTERM
    assert "Stopped by SIGTERM before the range was complete" in last


def test_a_slow_reader_makes_no_difference(space: Simulator, tmp_path: Path) -> None:
    with running(space, tmp_path) as child:
        space.wait_until_asked("download")  # the pipe is full by now: the tap waits for its reader
        code, lines, _ = child.finish()

    assert code == 0
    assert sum(b'"RECORD"' in line for line in lines) == len(PEOPLE)


def test_a_reader_that_goes_away_ends_the_run_with_one_sentence(
    space: Simulator, tmp_path: Path
) -> None:
    with running(space, tmp_path) as child:
        child.stdout.readline()
        child.stdout.close()
        err = child.stderr.read().decode()
        child.process.wait(timeout=WITHIN_SECONDS)

    assert child.process.returncode == 1
    assert "Traceback" not in err
    assert "The reader of the tap's output went away" in err.splitlines()[-1]


class TestStopRequest:
    """When a request raises, and when it is only noted."""

    def test_in_an_interruptible_stretch_it_raises(self) -> None:
        stop = StopRequest()

        with pytest.raises(Stopped), stop.interruptible():
            stop.request(signal.SIGTERM)

    def test_elsewhere_it_is_noted_until_the_next_stretch(self) -> None:
        stop = StopRequest()
        stop.request(signal.SIGTERM)

        with pytest.raises(Stopped), stop.interruptible():
            pytest.fail("the stretch has begun")

    def test_between_drawn_items_it_does_not_raise(self) -> None:
        stop = StopRequest()
        items = stop.drawn_interruptibly(iter([1, 2]))

        assert next(items) == 1
        stop.request(signal.SIGINT)  # as if in the midst of writing the first
        with pytest.raises(Stopped):
            next(items)

    def test_no_fault_handling_can_swallow_it(self) -> None:
        assert not issubclass(Stopped, Exception)
