"""What most tests need: a simulated Space, a clock that does not wait, and a tap run in-process."""

from __future__ import annotations

import io
import json
import signal
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from simulator import Contact, Population, Simulator, Space
from tap_cometly.errors import TapError
from tap_cometly.signals import Stopped
from tap_cometly.tap import TapCometly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

API_KEY = "simulated-key"
NOON = datetime(2024, 7, 1, 12, tzinfo=UTC)
"""What a virtual clock shows at first."""


class VirtualClock:
    """A clock whose time passes only when somebody sleeps."""

    def __init__(self, start: datetime = NOON) -> None:
        """Show a time.

        Args:
            start: The time.
        """
        self._now = start.timestamp()

    def now(self) -> float:
        """Unix time in seconds."""
        return self._now

    def monotonic(self) -> float:
        """The same: this clock is never set."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Let time pass.

        Args:
            seconds: How much; 0 or less is none.
        """
        self._now += max(seconds, 0)


@dataclass
class Run:
    """What a run of the tap wrote, and how it ended.

    Attributes:
        output: The bytes on stdout.
        error: What ended it, if it did not end well.
    """

    output: bytes
    error: BaseException | None = None
    messages: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        """Read the messages; every line has to be whole."""
        assert self.output == b"" or self.output.endswith(b"\n")
        self.messages = [json.loads(line) for line in self.output.split(b"\n")[:-1]]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """The messages of a type, in order."""
        return [message for message in self.messages if message["type"] == kind]

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records, in order."""
        return [message["record"] for message in self.of_type("RECORD")]

    @property
    def ids(self) -> list[int]:
        """The records' ids, in order."""
        return [record["id"] for record in self.records]

    @property
    def states(self) -> list[dict[str, Any]]:
        """The values of the STATE messages, in order."""
        return [message["value"] for message in self.of_type("STATE")]

    @property
    def bookmarks(self) -> list[str]:
        """The bookmarks of the STATE messages, in order."""
        return [state["bookmarks"]["contacts"]["replication_key_value"] for state in self.states]


class World:
    """A Space, its clock, and a tap that syncs it."""

    def __init__(self, simulator: Simulator) -> None:
        """Serve an empty Space.

        Args:
            simulator: A running one, which gets a new Space.
        """
        self.simulator = simulator
        self.clock = VirtualClock()
        self.fill([])

    def fill(self, contacts: Sequence[Contact] | Population, **rules: Any) -> None:
        """Serve a new Space with these people.

        Args:
            contacts: The people.
            **rules: Rules of the Space that differ from the simulator's defaults.
        """
        population = contacts if isinstance(contacts, Population) else Population(contacts)
        self.space = Space(population, api_key=API_KEY, clock=self.clock.now, **rules)
        self.simulator.reset(self.space)

    def config(self, **settings: Any) -> dict[str, Any]:
        """Settings for this Space, from 2024-06-01 on.

        Args:
            **settings: More of them; None takes one away.
        """
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
        """A tap for this Space.

        Args:
            state: Its state.
            catalog: Its catalog.
            **settings: Settings that differ from `config()`.
        """
        # Copied, as the SDK fills defaults into the mappings it is given.
        given = json.loads(json.dumps({"state": state, "catalog": catalog}))
        return TapCometly(config=self.config(**settings), clock=self.clock, **given)

    def sync(
        self,
        state: dict[str, Any] | None = None,
        catalog: dict[str, Any] | None = None,
        *,
        on_tap: Callable[[TapCometly], None] = lambda _: None,
        **settings: Any,
    ) -> Run:
        """Run the tap as the command does, but in this process and on the virtual clock.

        Args:
            state: Its state.
            catalog: Its catalog.
            on_tap: Is given the tap before it runs.
            **settings: Settings that differ from `config()`.
        """
        stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n")
        error: BaseException | None = None
        with redirect_stdout(stdout):
            try:
                tap = self.tap(state, catalog, **settings)
                on_tap(tap)
                tap.sync_all()
            except (TapError, Stopped) as caught:
                error = caught
        stdout.flush()
        assert isinstance(stdout.buffer, io.BytesIO)
        return Run(stdout.buffer.getvalue(), error)

    def requests(self, kind: str) -> list[Any]:
        """What the Space was asked of a kind: `create`, `poll` or `download`."""
        return [request for request in self.simulator.requests if request.kind == kind]

    def windows(self) -> list[tuple[datetime, datetime]]:
        """The windows of the exports that were created, in order of creation."""
        return [
            (request.start, request.end)
            for request in self.requests("create")
            if request.status == 202
        ]


def contact(number: int, created_at: datetime, **fields: Any) -> Contact:
    """A contact for a test.

    Args:
        number: Its id.
        created_at: When it was created.
        **fields: Any other fields.
    """
    return Contact(id=number, created_at=created_at, **fields)


def contacts_every(
    step: timedelta, since: datetime, until: datetime, first_id: int = 1
) -> list[Contact]:
    """Contacts at even times.

    Args:
        step: Time from one to the next.
        since: When the first is created.
        until: No later than this.
        first_id: Its id.
    """
    count = (until - since) // step + 1
    return [contact(first_id + n, since + n * step, email=f"{n}@example.com") for n in range(count)]


@pytest.fixture(scope="session")
def running_simulator() -> Iterator[Simulator]:
    """A simulator for the whole session; tests take `world`."""
    with Simulator(Space(Population())) as simulator:
        yield simulator


@pytest.fixture
def world(running_simulator: Simulator) -> World:
    """A Space of one's own, empty at first."""
    return World(running_simulator)


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """Give signals back: a tap installs handlers of its own."""
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    yield
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
