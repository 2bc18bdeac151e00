"""A signal ends a run within seconds and leaves complete lines and correct STATE lines."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from simulator import Population, Simulator, Space
from simulator.faults import ExportStuck, Hang, Stall, TooManyRequests
from tap_cometly.errors import TapError
from tap_cometly.signals import Stopped, StopRequest, blocked
from tap_cometly.tap import TapCometly
from tap_cometly.times import SystemClock
from tests.conftest import API_KEY, DAY, HOUR, JUNE, contacts_every

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulator.faults import Endpoint, Fault
    from simulator.request_log import Kind
    from tests.conftest import World

WITHIN_SECONDS = 2.0
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
FIRST_BOOKMARK = "2024-06-02T00:00:00+00:00"
PEOPLE = Population.generate(8_000, since=JUNE, until=JUNE + 2 * DAY)
SIGNAL_DURING_IMPORTS = """
import os, sys
class Doomed:
    def __del__(self):
        os.kill(os.getpid(), int(os.environ["SIGNUM"]))
class Finder:
    def find_spec(self, name, *_):
        if name == "singer_sdk":
            if "DISCARDED" in os.environ:
                Doomed()
            else:
                Doomed.__del__(None)
sys.meta_path.insert(0, Finder())
"""
"""Sends a signal when the tap begins to import the SDK."""


@pytest.fixture(autouse=True)
def _sighup() -> None:
    """Handle SIGHUP even if pytest runs under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


# In this process.


@pytest.mark.parametrize(
    ("where", "fault", "request_kind"),
    [
        ("create", Hang(), "create"),
        ("create", TooManyRequests(retry_after=600), "create"),
        ("create", ExportStuck(), "poll"),
        ("download", Stall(at=1000), "download"),
    ],
    ids=["answer", "rate limit", "processing", "file"],
)
def test_a_signal_interrupts_every_wait(
    world: World, where: Endpoint, fault: Fault, request_kind: Kind
) -> None:
    world.clock = SystemClock()
    world.fill(contacts_every(HOUR, JUNE, JUNE + DAY), queued_seconds=0, processing_seconds=0)
    world.simulator.faults.add(where, fault, times=None)
    sent: list[float] = []

    def send_signal() -> None:
        world.simulator.wait_for_requests(request_kind)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send_signal, daemon=True).start()
    run = world.sync()

    assert isinstance(run.error, Stopped)
    assert run.error.exit_code == 128 + signal.SIGTERM
    assert str(run.error).startswith("Stopped by SIGTERM before the range was complete; ")
    assert time.monotonic() - sent[0] < WITHIN_SECONDS


def test_a_signal_during_a_write_takes_effect_after_it() -> None:
    stop = StopRequest()
    written = []

    def write() -> None:
        with stop.deferred():
            stop.handle(signal.SIGTERM)
            written.append("the rest of the line")

    with pytest.raises(Stopped):
        write()

    stop.handled()
    assert written


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_is_raised_again_if_python_discards_its_exception(signum: signal.Signals) -> None:
    class Doomed:
        def __del__(self) -> None:
            signal.raise_signal(signum)

    stop = StopRequest()
    stop.install()
    doomed = [Doomed()]

    doomed.clear()
    with pytest.raises(Stopped):
        threading.Event().wait(WITHIN_SECONDS)

    stop.handled()
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_signals_are_blocked_while_handlers_are_replaced() -> None:
    stop = StopRequest()

    def replace_handlers() -> None:
        with blocked():
            signal.signal(signal.SIGTERM, lambda *_: pytest.fail("the SDK's handler"))
            signal.raise_signal(signal.SIGTERM)
            stop.install()

    with pytest.raises(Stopped):
        replace_handlers()

    stop.handled()


def test_a_rejected_state_leaves_no_handlers_of_the_sdk(world: World) -> None:
    stop = StopRequest()

    with pytest.raises(TapError):
        TapCometly(config=world.config(), state={"bookmarks": 5}, stop=stop)

    assert [signal.getsignal(signum) for signum in SIGNALS] == [stop.handle] * 3


def test_under_nohup_sighup_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    StopRequest().install()

    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_except_exception_does_not_catch_a_signal() -> None:
    assert not issubclass(Stopped, Exception)


# In another process.


@pytest.fixture(scope="module")
def space() -> Iterator[Simulator]:
    """A Space in real time."""
    no_waits: dict[str, Any] = dict.fromkeys(("queued_seconds", "processing_seconds"), 0)
    no_limits: dict[str, Any] = dict.fromkeys(("creates_per_minute", "polls_per_minute"))
    with Simulator(Space(PEOPLE, api_key=API_KEY, **no_waits, **no_limits)) as simulator:
        yield simulator


@contextmanager
def running(
    space: Simulator, folder: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The running command; kill it at the end if it still runs."""
    space.reset(space.space)
    config = {
        "api_key": API_KEY,
        "api_url": space.api_url,
        "start_date": "2024-06-01",
        "end_date": "2024-06-04",
        "window_days": 1,
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with subprocess.Popen(
        [sys.executable, "-m", "tap_cometly", "--config", "config.json"],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen[bytes]) -> tuple[int, list[bytes], str]:
    """Read the rest of the output; return exit code, lines, and the last line on stderr."""
    assert process.stdout
    assert process.stderr
    out, err = process.stdout.read(), process.stderr.read()
    process.wait(WITHIN_SECONDS)
    assert out == b"" or out.endswith(b"\n")
    assert b"Traceback" not in err
    assert b"ignored" not in err
    return process.returncode, out.splitlines(), err.decode().splitlines()[-1]


def read_into_second_window(process: subprocess.Popen[bytes]) -> list[bytes]:
    assert process.stdout
    lines = [process.stdout.readline()]
    while b'"STATE"' not in lines[-1]:
        lines.append(process.stdout.readline())
    return [*lines, process.stdout.readline()]


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_within_a_window_leaves_complete_lines_and_a_correct_state(
    space: Simulator, tmp_path: Path, signum: signal.Signals
) -> None:
    with running(space, tmp_path) as process:
        read = read_into_second_window(process)
        process.send_signal(signum)  # while the pipe is full, in the middle of a write
        code, rest, last = finish(process)

    messages = [json.loads(line) for line in [*read, *rest]]
    states = [message["value"] for message in messages if message["type"] == "STATE"]
    records = [message["record"] for message in messages if message["type"] == "RECORD"]
    assert code == 128 + signum
    assert f"Stopped by {signum.name}" in last
    assert states[-1]["bookmarks"]["contacts"]["replication_key_value"] == FIRST_BOOKMARK
    assert records[-1]["created_until"] > FIRST_BOOKMARK
    assert len(records) < len(PEOPLE)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_even_if_the_target_does_not_read(
    space: Simulator, tmp_path: Path, signum: signal.Signals
) -> None:
    with running(space, tmp_path) as process:
        read_into_second_window(process)
        status = Path(f"/proc/{process.pid}/status")
        process.send_signal(signum)
        until = time.monotonic() + WITHIN_SECONDS
        while is_handled(status, signum) and time.monotonic() < until:
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        assert process.returncode is None
        process.send_signal(signum)

        assert process.wait(WITHIN_SECONDS) == -signum


def is_handled(status: Path, signum: int) -> bool:
    """Whether a process handles a signal; the tap removes its handler at the first signal."""
    caught = re.search(r"SigCgt:\s*(\w+)", status.read_text("utf-8"))
    assert caught
    return bool(int(caught[1], 16) >> (signum - 1) & 1)


@pytest.mark.parametrize(
    ("signum", "environment"),
    [(signal.SIGTERM, {}), (signal.SIGINT, {}), (signal.SIGHUP, {"DISCARDED": "1"})],
)
def test_a_signal_during_imports_ends_the_run_with_a_one_line_error(
    space: Simulator, tmp_path: Path, signum: signal.Signals, environment: dict[str, str]
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SIGNAL_DURING_IMPORTS, "utf-8")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {"SIGNUM": str(int(signum)), "PYTHONPATH": path, **environment}
    with running(space, tmp_path, **environment) as process:
        space.faults.add("create", Hang(), times=None)
        process.wait(timeout=WITHIN_SECONDS * 3)
        code, _, last = finish(process)

    assert code == 128 + signum
    assert f"Stopped by {signum.name}" in last
