"""Shared by most tests: a simulated Space, a virtual clock, and the tap in the test's process."""

from __future__ import annotations

import io
import json
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import Phase, settings

from simulator import Contact, Population, Simulator, Space
from tap_cometly.command import run
from tap_cometly.errors import TapError
from tap_cometly.signals import Stopped
from tap_cometly.tap import TapCometly

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tap_cometly.times import Clock

# For `.ci/mutation`, which does not need failures to be shrunk.
settings.register_profile("mutation", phases=[Phase.generate])

API_KEY = "simulated-key"
JUNE = datetime(2024, 6, 1, tzinfo=UTC)
"""The `start_date` of most tests."""
NOON = datetime(2024, 7, 1, 12, tzinfo=UTC)
"""The time at which a virtual clock starts."""
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class VirtualClock:
    """A clock that only `sleep` moves."""

    def __init__(self, start: datetime = NOON) -> None:
        self._now = start.timestamp()

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += max(seconds, 0)


@dataclass
class Run:
    """What a run of the tap wrote to stdout, and the error if it failed."""

    output: bytes
    error: BaseException | None = None
    messages: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        """Parse the messages; each line must be complete."""
        assert self.output == b"" or self.output.endswith(b"\n")
        self.messages = [json.loads(line) for line in self.output.split(b"\n")[:-1]]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]

    @property
    def records(self) -> list[dict[str, Any]]:
        return [message["record"] for message in self.of_type("RECORD")]

    @property
    def ids(self) -> list[int]:
        return [record["id"] for record in self.records]

    @property
    def states(self) -> list[dict[str, Any]]:
        return [message["value"] for message in self.of_type("STATE")]

    @property
    def bookmarks(self) -> list[str]:
        return [state["bookmarks"]["contacts"]["replication_key_value"] for state in self.states]


class World:
    """A Space, its clock, and a tap that syncs it."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.clock: Clock = VirtualClock()
        self.fill([])

    def fill(self, contacts: Sequence[Contact] | Population, **rules: Any) -> None:
        """Serve a new Space with these contacts; `rules` override the simulator's defaults."""
        population = contacts if isinstance(contacts, Population) else Population(contacts)
        self.space = Space(population, api_key=API_KEY, clock=self.clock.now, **rules)
        self.simulator.reset(self.space)

    def config(self, **settings: Any) -> dict[str, Any]:
        """Settings for this Space, from 2024-06-01; a setting of None is removed."""
        config = {
            "api_key": API_KEY,
            "start_date": "2024-06-01T00:00:00Z",
            "timezone": self.space.timezone,
            "api_url": self.simulator.api_url,
        } | settings
        return {name: value for name, value in config.items() if value is not None}

    def tap(
        self,
        state: dict[str, Any] | None = None,
        catalog: dict[str, Any] | None = None,
        **settings: Any,
    ) -> TapCometly:
        # Copies, because the SDK changes its arguments.
        copies = json.loads(json.dumps({"state": state, "catalog": catalog}))
        return TapCometly(config=self.config(**settings), clock=self.clock, **copies)

    def sync(
        self,
        state: dict[str, Any] | None = None,
        catalog: dict[str, Any] | None = None,
        *,
        act: Callable[[TapCometly], object] = TapCometly.sync_all,
        **settings: Any,
    ) -> Run:
        """Run the tap like its command, but in this process and on the virtual clock."""
        stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n")
        tap: TapCometly | None = None
        error: BaseException | None = None
        with redirect_stdout(stdout):
            try:
                tap = self.tap(state, catalog, **settings)
                act(tap)
            except (TapError, Stopped) as caught:
                error = caught
            finally:
                if tap is not None:
                    tap.stop.handled()
        stdout.flush()
        assert isinstance(stdout.buffer, io.BytesIO)
        return Run(stdout.buffer.getvalue(), error)

    def requests(self, kind: str) -> list[Any]:
        return [request for request in self.simulator.requests if request.kind == kind]

    def windows(self) -> list[tuple[datetime, datetime]]:
        """The windows of all created exports, in order of creation."""
        created = (request for request in self.requests("create") if request.status == 202)
        return [(request.start, request.end) for request in created]


def contact(number: int, created_at: datetime, **fields: Any) -> Contact:
    return Contact(id=number, created_at=created_at, **fields)


def contacts_every(
    step: timedelta, since: datetime, until: datetime, first_id: int = 1
) -> list[Contact]:
    count = (until - since) // step + 1
    return [contact(first_id + n, since + n * step, email=f"{n}@example.com") for n in range(count)]


@pytest.fixture(scope="session")
def running_simulator() -> Iterator[Simulator]:
    """A simulator for the whole session; tests use it through `world`."""
    with Simulator(Space(Population())) as simulator:
        yield simulator


@pytest.fixture
def world(running_simulator: Simulator) -> World:
    """A new, empty Space for each test."""
    return World(running_simulator)


@dataclass
class CommandResult:
    """Exit code and output of a command."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def last_line(self) -> str:
        """The last line on stderr, without the columns before the message."""
        return self.stderr.rstrip("\n").rpartition("\n")[2].rpartition(" | ")[2]


Command = Callable[..., CommandResult]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Runs the command `tap-cometly` in this process, in a temporary folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    root, tap = logging.getLogger(), logging.getLogger(TapCometly.name)
    level, handlers, filters = root.level, root.handlers[:], tap.filters[:]

    def run_command(*arguments: str, config: object = None) -> CommandResult:
        if config is not None:
            (tmp_path / "config.json").write_text(json.dumps(config))
            arguments = ("--config", "config.json", *arguments)
        monkeypatch.setattr(sys, "argv", ["tap-cometly", *arguments])
        capsys.readouterr()
        exit_code = run()
        written = capsys.readouterr()
        root.setLevel(level)  # unlike an assignment, clears the cache of isEnabledFor
        root.handlers[:], tap.filters[:] = handlers, filters
        return CommandResult(exit_code, written.out, written.err)

    yield run_command
    logging.captureWarnings(capture=False)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Restore the signal handlers, hook and timer that a tap replaces."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    handlers = {number: signal.getsignal(number) for number in numbers}
    hook = sys.unraisablehook
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    sys.unraisablehook = hook
    for number, handler in handlers.items():
        signal.signal(number, handler)
