"""The life of an export: created, polled, retried or split; several in flight, read in order.

Cometly does the work, so one thread is enough: exports are created ahead of the one that is read.
This module does not handle bytes or Singer. All times are the clock's monotonic seconds.
"""

from __future__ import annotations

import logging
import math
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from tap_cometly.client import CreateRefused, ExportNotFound, RateLimited
from tap_cometly.errors import CometlyError, ExportError, FileError, LineError, UrlRefused
from tap_cometly.progress import duration
from tap_cometly.times import DAY_SECONDS, format_local, format_utc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_cometly.client import CometlyClient, ExportStatus
    from tap_cometly.files import ExportFile, Storage
    from tap_cometly.settings import Settings
    from tap_cometly.times import Clock
    from tap_cometly.windows import Window, WindowPlan

ALWAYS_IN_FLIGHT = 2
"""Cometly works on one while the other is read; more only if it works on several at a time."""
FIRST_POLL_SECONDS = 1
"""From the creation of an export to its first poll: small ones are completed at once."""
POLL_SHARE = 0.25
"""Delay before the next poll, as a share of the export's age: completion is noticed at most 25%
late."""
MIN_POLL_SECONDS = 2.5
MIN_OTHER_POLL_SECONDS = 5
"""For exports other than the one to read next."""
MAX_POLL_SECONDS = 15
NEW_EXPORT_SECONDS = 60
"""For this long after its creation, an export that Cometly does not find is polled again."""
MISSING_URL_SECONDS = 300
"""How long a completed export may be without a download URL."""
HEARTBEAT_SECONDS = 30
"""How often a wait is logged, so that an orchestrator sees that the tap is alive."""

_KNOWN_STATUSES = {"queued", "processing", "completed", "failed"}

logger = logging.getLogger("tap-cometly")


class ExportFailed(Exception):  # noqa: N818 - not the run's failure: the export is retried
    """The export failed, was not found or timed out."""

    def __init__(self, reason: str, *, can_retry: bool = True, can_split: bool = True) -> None:
        super().__init__(reason)
        self.can_retry = can_retry
        self.can_split = can_split


@dataclass(eq=False, slots=True)
class Export:
    """The export of a window.

    Attributes:
        window: The window.
        attempt: 1, or 2 for the retry.
        is_created: Whether Cometly has accepted it.
        export_id: Cometly's id, once it is created.
        created: When it was created.
        created_after: The export in flight that was created just before it.
        polled: When it was last polled.
        is_queued: Whether it was still queued then.
        queued_seconds: How long it was queued, as far as polls have seen it.
        completed: When it was completed; infinite until then.
        url_missing_since: When it was first seen completed without a download URL.
        needs_check: Whether to poll it at once, because another export failed.
        file: Its file, while that is read.
        contacts: How many contacts have been read from it so far.
    """

    window: Window
    attempt: int = 1
    is_created: bool = False
    export_id: int = 0
    created: float = 0.0
    created_after: Export | None = None
    polled: float | None = None
    is_queued: bool = True
    queued_seconds: float = 0.0
    completed: float = math.inf
    url_missing_since: float | None = None
    needs_check: bool = False
    file: ExportFile | None = None
    contacts: int = 0

    @property
    def is_completed(self) -> bool:
        """Whether a poll has seen it completed."""
        return self.completed < math.inf

    @property
    def processing_seconds(self) -> float:
        """How long a completed export was processed."""
        return max(self.completed - self.created - self.queued_seconds, 0)

    def update(self, answer: ExportStatus, now: float) -> None:
        """Apply the response to a poll.

        Raises:
            ExportFailed: It failed, or has been without a download URL for too long.
        """
        if answer.status == "queued":
            self.queued_seconds = now - self.created
        elif answer.status == "processing" and self.is_queued and self.polled is not None:
            # It was queued until shortly before this poll, which may be late.
            self.queued_seconds = min(now, self.polled + MAX_POLL_SECONDS) - self.created
        self.polled, self.needs_check = now, False
        self.is_queued = answer.status == "queued"
        if answer.status == "failed":
            raise ExportFailed(_with_message("failed", answer.message))
        if answer.status == "completed" and not self.is_completed:
            self.completed = self._completion(answer, now)
        if answer.download_url:
            self.url_missing_since = None
        elif self.is_completed:
            self._check_missing_url(now)

    def update_not_found(self, message: str, now: float) -> None:
        """Apply a response that Cometly does not find it.

        Raises:
            ExportFailed: It was created more than a minute ago.
        """
        self.polled, self.needs_check = now, False
        if now - self.created >= NEW_EXPORT_SECONDS:
            self.is_queued = False
            raise ExportFailed(_with_message("not found", message))

    def _completion(self, answer: ExportStatus, now: float) -> float:
        """When it was completed: by the times in the response if it has them, else now."""
        if answer.created_at is None or answer.completed_at is None:
            return now
        seconds = (answer.completed_at - answer.created_at).total_seconds()
        return min(self.created + max(seconds, 0), now)

    def _check_missing_url(self, now: float) -> None:
        if self.url_missing_since is None:
            self.url_missing_since = now
        elif now - self.url_missing_since >= MISSING_URL_SECONDS:
            message = f"completed without a download URL for {duration(MISSING_URL_SECONDS)}"
            raise ExportFailed(message, can_split=False)

    def __str__(self) -> str:
        """Its name in messages."""
        name = f"Export {self.export_id}" if self.is_created else "The export"
        return f"{name} of {format_utc(self.window.start)} to {format_utc(self.window.end)}"


class Exports:
    """The exports of a plan's windows: created ahead, handed over one by one in window order."""

    def __init__(
        self,
        plan: WindowPlan,
        client: CometlyClient,
        storage: Storage,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._plan = plan
        self._client = client
        self._storage = storage
        self._clock = clock
        self._zone = settings.zone
        self._max_in_flight = settings.max_concurrent_exports
        self._timeout_seconds = settings.export_timeout_seconds
        self._queue: list[Export] = []
        """In window order: exports in flight, and some that are to be created."""
        self._newest: Export | None = None
        """The one created last."""
        self._creates_when_idle = False
        """Whether to create only while nothing is in flight, as Cometly refused a create."""
        self._no_create_before = self._no_poll_before = 0.0
        self._previous_completed = -math.inf
        """When the export before the next one to read was completed."""
        self._waiting_since = self._last_heartbeat = 0.0
        self._warned_of_status = False

    @property
    def windows_left(self) -> int:
        """About how many windows come after the one that was handed over last."""
        return len(self._queue) - 1 + self._plan.windows_left

    def __iter__(self) -> Iterator[Export]:
        """Hand over the exports in window order, each when its file is open.

        Yields:
            Exports. The reader counts `contacts`; asking for the next export closes the file and
            lets the plan learn from it.

        Raises:
            ExportError: An export failed for good.
        """
        while self._queue or self._plan_next():
            head = self._queue[0]
            try:
                with error_context(head):
                    file = self._open(head)
            except ExportFailed as failure:
                self._replace(head, failure)
                self._check_all_soon()
                continue
            with closing(file):
                yield head
            self._finish(head)

    def _open(self, head: Export) -> ExportFile:
        """Wait until the export to read next is completed, and open its file."""

        def fresh_url() -> str:
            try:
                return self._wait_for_url(head)
            except ExportFailed as failure:
                if head.file is None:
                    raise
                message = f"its download cannot be resumed ({failure}); rerun the tap"
                raise FileError(message) from None

        try:
            head.file = self._storage.open(self._wait_for_url(head), fresh_url)
        except UrlRefused as refusal:
            raise ExportFailed(refusal.reason) from None
        return head.file

    def _finish(self, head: Export) -> None:
        # `fresh_url` refers back to the export; breaking the cycle frees both at once.
        head.file = head.created_after = None
        self._queue.remove(head)
        self._previous_completed = head.completed
        timeout_share = head.processing_seconds / self._timeout_seconds
        self._plan.learn(head.window, head.contacts, timeout_share)

    def _wait_for_url(self, head: Export) -> str:
        """Wait until the export to read next is completed; meanwhile create and poll others."""
        self._waiting_since = self._last_heartbeat = self._clock.monotonic()
        while True:
            self._create_ahead()
            self._sleep_until_due()
            if url := self._poll_due(head):
                return url

    def _sleep_until_due(self) -> None:
        """Sleep until there is something to create, to poll or to log."""
        now = self._clock.monotonic()
        if now >= self._last_heartbeat + HEARTBEAT_SECONDS:
            self._last_heartbeat = now
            head = self._queue[0]
            what = f"for export {head.export_id}" if head.is_created else "to create an export"
            logger.info("Waiting %s, %s so far", what, duration(now - self._waiting_since))
        wakes = [self._next_poll(export) for export in self._in_flight()]
        wakes.append(self._last_heartbeat + HEARTBEAT_SECONDS)
        if now < self._no_create_before:
            wakes.append(self._no_create_before)
        self._clock.sleep(min(wakes) - now)

    # Create.

    def _create_ahead(self) -> None:
        """Create all exports that may be created now."""
        while self._has_room() and self._clock.monotonic() >= self._no_create_before:
            export = self._first_to_create() or self._plan_next()
            if export is None:
                return
            with error_context(export):
                self._create(export)

    def _has_room(self) -> bool:
        """Whether one more export may be in flight."""
        if not self._queue[0].is_created:
            return True
        return self._is_below_max() and not self._waits_for_newest()

    def _create(self, export: Export) -> None:
        is_alone = not self._in_flight()
        try:
            export_id = self._client.create_export(
                format_local(export.window.start, self._zone),
                format_local(export.window.end, self._zone),
            )
        except RateLimited as limit:
            self._no_create_before = self._clock.monotonic() + limit.seconds
        except CreateRefused as refusal:
            self._wait_or_fail(export, refusal)
        else:
            export.is_created = True
            export.export_id = export_id
            export.created = self._clock.monotonic()
            export.created_after = self._newest if self._newest in self._queue else None
            self._newest = export
            if is_alone:
                self._creates_when_idle = False
            logger.debug("%s created", export)

    def _wait_or_fail(self, export: Export, refusal: CreateRefused) -> None:
        """Handle a refused create: too many in flight, too long a window, or refused for good.

        Raises:
            ExportFailed: Shorter windows may help.
            CreateRefused: Nothing helps.
        """
        others = self._in_flight()
        is_head = export is self._queue[0]
        if is_head:
            others = [other for other in others if self._may_be_processed(other)]
        if not others:
            is_long = export.window.seconds > DAY_SECONDS
            if is_long and refusal.status == HTTPStatus.UNPROCESSABLE_ENTITY:
                raise ExportFailed(refusal.reason, can_retry=False)
            raise refusal
        logger.info(
            "%s: create refused (%d); exports in flight: %d; retrying when there are fewer",
            export,
            refusal.status,
            len(others),
        )
        self._max_in_flight = len(others)
        self._creates_when_idle = True
        if is_head:  # a retry, so the others are read after it: wait until they are completed
            self._no_create_before = self._clock.monotonic() + MAX_POLL_SECONDS
            self._check_all_soon()

    def _may_be_processed(self, export: Export) -> bool:
        age = self._clock.monotonic() - export.created
        return not export.is_completed and age < self._timeout_seconds

    def _is_below_max(self) -> bool:
        return not self._creates_when_idle and len(self._in_flight()) < self._max_in_flight

    def _waits_for_newest(self) -> bool:
        """Whether the next export waits for the newest one to be no longer queued."""
        return (
            len(self._in_flight()) >= ALWAYS_IN_FLIGHT
            and self._newest is not None
            and self._newest.is_queued
            and self._is_below_max()
            and not (self._first_to_create() is None and self._plan.is_finished)
        )

    def _in_flight(self) -> list[Export]:
        return [export for export in self._queue if export.is_created]

    def _first_to_create(self) -> Export | None:
        return next((export for export in self._queue if not export.is_created), None)

    def _plan_next(self) -> Export | None:
        window = self._plan.next_window()
        if window is None:
            return None
        self._queue.append(Export(window))
        return self._queue[-1]

    # Poll.

    def _poll_due(self, head: Export) -> str | None:
        """Poll the exports that are due; return the head's download URL, if it has one."""
        for export in self._in_flight():
            if self._clock.monotonic() < self._next_poll(export):
                continue
            is_check, url = export.needs_check, None
            try:
                with error_context(export):
                    url = self._poll(export)
            except ExportFailed as failure:
                if export is head:
                    raise
                self._replace(export, failure)
                if not is_check:
                    self._check_all_soon()
            if url and export is head:
                return url
        return None

    def _poll(self, export: Export) -> str | None:
        polled_at = self._clock.monotonic()
        try:
            answer = self._client.get_export(export.export_id)
        except RateLimited as limit:
            self._no_poll_before = self._clock.monotonic() + limit.seconds
            return None
        except ExportNotFound as missing:
            export.update_not_found(str(missing), polled_at)
            url = None
        else:
            self._warn_about_unknown(answer.status)
            export.update(answer, polled_at)
            url = answer.download_url
        if polled_at >= self._deadline(export):
            message = f"not completed after {duration(polled_at - self._counts_from(export))}"
            raise ExportFailed(message)
        return url

    def _next_poll(self, export: Export) -> float:
        """When to poll an export; infinite while nothing depends on it."""
        if export.needs_check:
            return self._no_poll_before
        head = self._queue[0]
        if export is head:
            moment = self._next_head_poll(head)
        elif export is self._newest and self._waits_for_newest():
            moment = max(_next_other_poll(export), self._no_create_before)
        elif export is head.created_after and not export.is_completed:
            moment = max(_next_other_poll(export), head.created + self._timeout_seconds)
        else:
            return math.inf
        return max(moment, self._no_poll_before)

    def _next_head_poll(self, head: Export) -> float:
        if not head.is_completed:
            moment = _next_by_age(head, self._counts_from(head), MIN_POLL_SECONDS)
            return min(moment, self._deadline(head))
        return _next_by_age(head, head.url_missing_since or math.inf, MIN_POLL_SECONDS)

    def _counts_from(self, export: Export) -> float:
        """When the timeout starts: at creation, or when the export before it completed, if later.

        The one before is that of the previous window and, for a retry, also the one created just
        before it, which Cometly may process first. The latter delays the start by at most one
        timeout.
        """
        moment = max(export.created, self._previous_completed)
        before = export.created_after
        if before is not None and (before.is_completed or before in self._queue):
            moment = max(moment, min(before.completed, export.created + self._timeout_seconds))
        return moment

    def _deadline(self, export: Export) -> float:
        """When an export times out; infinite unless it is the next one to read."""
        if export is not self._queue[0] or export.is_completed:
            return math.inf
        return self._counts_from(export) + self._timeout_seconds

    def _warn_about_unknown(self, status: str) -> None:
        if status not in _KNOWN_STATUSES and not self._warned_of_status:
            self._warned_of_status = True
            logger.warning("Unknown export status %.100r; treating it as processing", status)

    # Retry and split.

    def _replace(self, export: Export, failure: ExportFailed) -> None:
        """Put a retry in a failed export's place, or two exports of half its window.

        Raises:
            ExportError: It was the retry, and its window cannot be split.
        """
        place = self._queue.index(export)
        if export.attempt == 1 and failure.can_retry:
            logger.warning("%s: %s; retrying", export, failure)
            self._queue[place] = Export(export.window, attempt=2)
            return
        retried = "retry failed too; " if failure.can_retry else ""
        halves = self._plan.halve(export.window) if failure.can_split else None
        if halves is not None:
            logger.warning("%s: %s; %ssplitting the window", export, failure, retried)
            self._queue[place : place + 1] = [Export(half) for half in halves]
        elif place == 0:
            message = (
                f"{export}: {failure}; {retried}rerun the tap later, and if it fails again, "
                "contact Cometly's support."
            )
            raise ExportError(message)
        # Else it fails the run when it is the next to read, after the windows before it.

    def _check_all_soon(self) -> None:
        """Have all exports polled without delay, as they may have failed too."""
        for export in self._in_flight():
            export.needs_check = not export.is_completed


def _next_other_poll(export: Export) -> float:
    return _next_by_age(export, export.created, MIN_OTHER_POLL_SECONDS)


def _next_by_age(export: Export, since: float, min_seconds: float) -> float:
    """When to poll an export again: after a share of its age, within bounds."""
    if export.polled is None:
        return export.created + FIRST_POLL_SECONDS
    pause = (export.polled - since) * POLL_SHARE
    return export.polled + min(max(pause, min_seconds), MAX_POLL_SECONDS)


def _with_message(what: str, message: str | None) -> str:
    return f'{what}: "{message}"' if message else what


@contextmanager
def error_context(export: Export) -> Iterator[None]:
    """Add an export and its window to the message of an error in this block.

    Raises:
        ExportError: Replaces an error that does not name them.
    """
    try:
        yield
    except (CometlyError, FileError, LineError) as error:
        message = f"{export}: {error}."
        raise ExportError(message) from None
