"""The life of an export: create, poll, time out, create anew, halve; several ahead, in order.

Cometly does the work, so one thread is enough: exports are created ahead of the one being read, and
while they are processed the tap reads. Knows nothing of bytes or Singer.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tap_cometly.client import ExportVanished, RateLimited
from tap_cometly.errors import CometlyError, ExportError, FileError, LineError
from tap_cometly.progress import duration
from tap_cometly.times import format_local, format_utc
from tap_cometly.windows import SHORTEST_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_cometly.client import CometlyClient
    from tap_cometly.files import Block, ExportFile, Storage
    from tap_cometly.settings import Settings
    from tap_cometly.times import Clock
    from tap_cometly.windows import Window, WindowPlan

FIRST_POLL_SECONDS = 1
"""After its creation; an export of a quiet hour is completed at once."""
POLL_SHARE = 0.25
"""The next poll comes after a quarter of an export's age: a quarter late at most."""
SHORTEST_POLL_SECONDS = 2.5
"""At most 24 polls a minute and one more per export; Cometly allows 30, and five creates."""
LONGEST_POLL_SECONDS = 15
HEARTBEAT_SECONDS = 30
"""How often a wait is logged, so that an orchestrator sees that the tap is alive."""

_UNFINISHED = {"queued", "processing", "completed"}
"""A completed export without a download URL is not finished either."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Export:
    """One window's export.

    Attributes:
        window: What it covers.
        attempt: 1, or 2 for the one created anew.
        is_created: Whether Cometly was asked for it, and took it.
        export_id: Cometly's id, once it is created.
        created: When it was created, in the clock's monotonic seconds.
        deadline: When it has to be completed, likewise.
        next_poll: When to ask for it next, likewise.
        file: Its file, once that is begun.
        contacts: How many contacts were read from it so far.
    """

    window: Window
    attempt: int = 1
    is_created: bool = False
    export_id: int = 0
    created: float = 0.0
    deadline: float = 0.0
    next_poll: float = 0.0
    file: ExportFile | None = None
    contacts: int = 0

    def blocks(self) -> Iterator[Block]:
        """The lines of its file.

        Yields:
            Blocks of lines; none before the file is begun.

        Raises:
            FileError: The file could not be read whole.
            LineError: A line is longer than any contact.
        """
        if self.file is not None:
            yield from self.file.blocks()

    def __str__(self) -> str:
        """What it is called in messages."""
        name = f"Export {self.export_id}" if self.is_created else "The export"
        return f"{name} of {format_utc(self.window.start)} to {format_utc(self.window.end)}"


class ExportFailed(Exception):  # noqa: N818 - the export is created anew
    """The export failed, vanished or outlived its time-out."""


class Exports:
    """The exports of a plan's windows: created ahead, handed on one by one in window order."""

    def __init__(
        self,
        plan: WindowPlan,
        client: CometlyClient,
        storage: Storage,
        clock: Clock,
        settings: Settings,
    ) -> None:
        """Create nothing yet.

        Args:
            plan: The windows.
            client: Creates and polls exports.
            storage: Opens their files.
            clock: Tells the time, and waits.
            settings: The Space's time zone, in which Cometly reads dates; how many exports may be
                created and not yet wholly read; how long one may stay queued or processing.
        """
        self._plan = plan
        self._client = client
        self._storage = storage
        self._clock = clock
        self._zone = settings.zone
        self._max_in_flight = settings.max_concurrent_exports
        self._timeout_seconds = settings.export_timeout_seconds
        self._queue: deque[Export] = deque()
        self._no_create_before = 0.0
        self._waiting_since = self._last_heartbeat = 0.0
        self._warned_of_status = False

    def __iter__(self) -> Iterator[Export]:
        """Hand on the exports in window order, each when its file is begun.

        Yields:
            Exports with an open file; asking for the next one closes it. The reader counts the
            contacts in `export.contacts`: the next windows' lengths follow them.

        Raises:
            ExportError: An export could not be had.
        """
        while self._queue or self._plan_next():
            export = self._queue[0]
            try:
                with error_context(export):
                    file = self._begin(export)
            except ExportFailed as why:
                self._replace(export, str(why))
                continue
            with closing(file):
                yield export
            # Its stream refers to the export, and isal's reader hides such a circle from Python.
            export.file = None
            self._queue.popleft()
            self._plan.learn(export.window, export.contacts)

    def _plan_next(self) -> Export | None:
        window = self._plan.next_window()
        if window is None:
            return None
        self._queue.append(Export(window))
        return self._queue[-1]

    def _begin(self, export: Export) -> ExportFile:
        """Wait until an export is completed, and begin to read its file."""

        def fresh_url() -> str:
            if export.file is None:
                return self._download_url(export)
            export.deadline = self._clock.monotonic() + self._timeout_seconds
            try:
                return self._download_url(export)
            except ExportFailed as lost:
                message = f"{lost} while its file was read; run the tap again"
                raise FileError(message) from None

        export.file = self._storage.open(self._download_url(export), fresh_url)
        return export.file

    def _download_url(self, export: Export) -> str:
        """Wait until an export is created and completed; then it has a download URL."""
        self._waiting_since = self._last_heartbeat = self._clock.monotonic()
        while not export.is_created:
            self._wait_until(self._no_create_before, "Cometly's limit on new exports")
        while True:
            self._wait_until(export.next_poll, f"export {export.export_id}")
            if url := self._poll(export):
                return url

    def _wait_until(self, moment: float, what: str) -> None:
        """Wait; meanwhile create exports ahead as soon as Cometly lets the tap."""
        while True:
            self._create_ahead()
            now = self._clock.monotonic()
            if now >= moment:
                return
            if now >= self._last_heartbeat + HEARTBEAT_SECONDS:
                self._last_heartbeat = now
                logger.info("Waiting for %s, %s so far", what, duration(now - self._waiting_since))
            wake = min(moment, self._last_heartbeat + HEARTBEAT_SECONDS)
            if now < self._no_create_before < wake:
                wake = self._no_create_before
            self._clock.sleep(wake - now)

    def _create_ahead(self) -> None:
        """Create as many exports as may be in flight, unless Cometly asks to wait."""
        in_flight = sum(export.is_created for export in self._queue)
        for _ in range(in_flight, self._max_in_flight):
            if self._clock.monotonic() < self._no_create_before:
                return
            waiting = (export for export in self._queue if not export.is_created)
            export = next(waiting, None) or self._plan_next()
            if export is None:
                return
            self._create(export)

    def _create(self, export: Export) -> None:
        try:
            with error_context(export):
                export.export_id = self._client.create_export(
                    format_local(export.window.start, self._zone),
                    format_local(export.window.end, self._zone),
                )
        except RateLimited as limit:
            self._no_create_before = self._clock.monotonic() + limit.seconds
            return
        export.is_created = True
        export.created = self._clock.monotonic()
        export.deadline = export.created + self._timeout_seconds
        export.next_poll = export.created + FIRST_POLL_SECONDS
        logger.debug("%s is created", export)

    def _poll(self, export: Export) -> str | None:
        """Ask once how a created export is doing; its download URL, if it has one by now."""
        asked = self._clock.monotonic()
        try:
            answer = self._client.get_export(export.export_id)
        except RateLimited as limit:
            export.next_poll = self._clock.monotonic() + limit.seconds
            return None
        except ExportVanished as vanished:
            raise ExportFailed(_with_words("it vanished", str(vanished))) from None
        if answer.download_url:
            export.next_poll = asked + SHORTEST_POLL_SECONDS
            return answer.download_url
        if answer.status == "failed":
            raise ExportFailed(_with_words("it failed", answer.message))
        self._warn_of_unknown(answer.status)
        age = asked - export.created
        if asked >= export.deadline:
            message = f"it was not done {duration(age)} after its creation"
            raise ExportFailed(message)
        pause = min(max(age * POLL_SHARE, SHORTEST_POLL_SECONDS), LONGEST_POLL_SECONDS)
        export.next_poll = min(asked + pause, export.deadline)
        return None

    def _replace(self, export: Export, why: str) -> None:
        """Put another export in a lost one's place, or two of half its window."""
        self._queue.popleft()
        if export.attempt == 1:
            logger.warning("%s: %s; creating it anew", export, why)
            self._queue.appendleft(Export(export.window, attempt=2))
            return
        halves = export.window.halves(self._zone)
        if export.window.seconds <= SHORTEST_SECONDS or halves is None:
            message = (
                f"{export}: {why}; the one before it was lost too, and its window is too short to "
                "be halved; run the tap again later, and if it fails again ask Cometly's support."
            )
            raise ExportError(message)
        logger.warning("%s: %s; the one before it was lost too: halving its window", export, why)
        self._queue.extendleft(Export(half) for half in reversed(halves))

    def _warn_of_unknown(self, status: str) -> None:
        if status not in _UNFINISHED and not self._warned_of_status:
            self._warned_of_status = True
            logger.warning("Unknown export status %.100r counts as still processing", status)


def _with_words(what: str, message: str | None) -> str:
    return f'{what}, and Cometly says "{message}"' if message else what


@contextmanager
def error_context(export: Export) -> Iterator[None]:
    """Name an export and its window in whatever goes wrong with it.

    Args:
        export: The export.

    Raises:
        ExportError: In place of an error that knows nothing of windows.
    """
    try:
        yield
    except (CometlyError, FileError, LineError) as error:
        message = f"{export}: {str(error).rstrip('.')}."
        raise ExportError(message) from None
