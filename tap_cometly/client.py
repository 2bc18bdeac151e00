"""The two API calls: create a contact export, and poll it.

Sources: Cometly's pages "Create Contact Export", "Get Contact Export" and "Rate Limiting".
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from tap_cometly.errors import CometlyError
from tap_cometly.redaction import REDACTOR
from tap_cometly.times import MINUTE_SECONDS, read_instant
from tap_cometly.transport import (
    MAX_RETRY_SECONDS,
    READ_TIMEOUT_SECONDS,
    Backoff,
    HttpSession,
    RequestFailed,
    bearer_auth,
    failure_of,
    is_safe_url,
    is_temporary,
    read_body,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tap_cometly.settings import Settings
    from tap_cometly.times import Clock

MAX_FIRST_RETRY_SECONDS = MINUTE_SECONDS
"""How long a request is retried before the first response of any kind in this run."""
MAX_UNREADABLE_CREATES = 3
"""Each of them may have created an export."""
_MAX_RESPONSE_BYTES = 1024 * 1024
_MAX_MESSAGE_LENGTH = 500
_RATE_LIMIT_SECONDS = 60
"""Wait after a 429 without a usable `Retry-After`: Cometly counts by the minute."""

logger = logging.getLogger("tap-cometly")


@dataclass(frozen=True, slots=True)
class ExportStatus:
    """An export, as Cometly describes it; its status in lower case, its times in UTC."""

    export_id: int
    status: str
    download_url: str | None
    message: str | None
    created_at: datetime | None = None
    completed_at: datetime | None = None


class RateLimited(Exception):  # noqa: N818 - not an error, a request to wait
    """Cometly asks to wait for some seconds."""

    def __init__(self, seconds: float | None) -> None:
        """Wait `seconds`, or a minute if the response does not say how long."""
        self.seconds = _RATE_LIMIT_SECONDS if seconds is None else max(seconds, 1)
        super().__init__(self.seconds)


class ExportNotFound(Exception):  # noqa: N818 - a state of an export
    """There is no such export; the message is Cometly's, or empty."""


class CreateRefused(CometlyError):  # noqa: N818 - as urllib3 and requests name theirs
    """Cometly refused a create: too many exports in flight, or too long a window.

    Attributes:
        status: The HTTP status: 409, 422 or 423.
        reason: What Cometly responded, without advice.
    """

    def __init__(self, reason: str, status: int, advice: str) -> None:
        super().__init__(f"{reason}; {advice}")
        self.status, self.reason = status, reason


class _Unreadable(RequestFailed):
    """A successful response that is not what Cometly documents."""


class CometlyClient:
    """Calls the API of one Space."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
    ) -> None:
        self._exports_url = f"{settings.api_url}/contacts/exports"
        self._clock = clock
        self._read_timeout = read_timeout_seconds
        self._options = dict.fromkeys(settings.field_options, 1)
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": settings.user_agent,
        }
        self._session = HttpSession("the setting 'api_url'", headers, bearer_auth(settings.api_key))
        self._has_responded = False

    def create_export(self, start_date: str, end_date: str) -> int:
        """Request an export of the contacts created between two times; its id.

        Args:
            start_date: Wall-clock time in the Space's zone, `YYYY-MM-DD HH:MM:SS`.
            end_date: Likewise.

        Raises:
            RateLimited: Cometly asks to wait first.
            CometlyError: The export could not be created.
        """
        body = {"start_date": start_date, "end_date": end_date, **self._options}
        return self._call("create the export", None, body).export_id

    def get_export(self, export_id: int) -> ExportStatus:
        """Poll an export; a completed one has a fresh download URL each time.

        Raises:
            RateLimited: Cometly asks to wait first.
            ExportNotFound: There is no such export in this Space.
            CometlyError: The export could not be polled.
        """
        return self._call("poll the export", export_id, None)

    def _call(
        self, action: str, export_id: int | None, body: Mapping[str, Any] | None
    ) -> ExportStatus:
        """Retry a request until it succeeds, is refused or has been retried for long enough."""
        backoff = Backoff(self._clock)
        unreadable_creates = 0
        while True:
            try:
                return self._attempt(action, export_id, body)
            except RequestFailed as error:
                failure = error
            if export_id is None and isinstance(failure, _Unreadable):
                unreadable_creates += 1
            max_seconds = MAX_RETRY_SECONDS if self._has_responded else MAX_FIRST_RETRY_SECONDS
            delay = backoff.next_delay(failure, max_seconds)
            if delay is None or unreadable_creates == MAX_UNREADABLE_CREATES:
                message = f"could not {action}: {backoff.explain(failure, _CHECK)}"
                raise CometlyError(message)
            logger.info("Could not %s: %s; retrying in %.1f s", action, failure, delay)
            self._clock.sleep(delay)

    def _attempt(
        self, action: str, export_id: int | None, body: Mapping[str, Any] | None
    ) -> ExportStatus:
        is_create, method, url = export_id is None, "POST", self._exports_url
        if not is_create:
            method, url = "GET", f"{url}/{export_id}"
        with self._session.open(method, url, self._read_timeout, json=body) as response:
            self._has_responded = True
            status = response.status_code
            if is_temporary(status):
                failure = failure_of(response, "the API", self._clock)
                if status != HTTPStatus.TOO_MANY_REQUESTS or failure.is_permanent:
                    raise failure
                raise RateLimited(failure.retry_after)
            is_success = HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES
            try:
                answer = _parse(read_body(response, _MAX_RESPONSE_BYTES, self._clock))
            except RequestFailed as failure:
                if not is_success:
                    raise
                raise _Unreadable(str(failure)) from None
        if is_success:
            return _export_status(answer or {}, export_id)
        if status == HTTPStatus.NOT_FOUND and not is_create:
            raise ExportNotFound(_message(answer or {}) or "")
        raise _refusal(action, status, answer, is_create=is_create)


def _parse(body: bytes) -> dict[str, Any] | None:
    """A JSON object, empty for other JSON; None if a body is not JSON."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else {}


def _export_status(answer: Mapping[str, Any], export_id: int | None) -> ExportStatus:
    """Read a successful response; it must be for the export that was polled."""
    answered_id, status = answer.get("export_id"), answer.get("status")
    url = answer.get("download_url") or ""
    if isinstance(url, str):
        REDACTOR.hide_url(url)
    if not (isinstance(status, str) and status.lower() == "completed"):
        url = ""
    if type(answered_id) is not int or not isinstance(status, str) or not isinstance(url, str):
        reason = "the response was not an export as Cometly documents it"
        raise _Unreadable(reason)
    if export_id not in (None, answered_id):
        reason = f"the response was for export {answered_id}, not {export_id}"
        raise _Unreadable(reason)
    if url and not is_safe_url(url):
        message = (
            "Cometly's download_url is neither https nor http to localhost, so others could read "
            "the contacts; report it to Cometly's support"
        )
        raise CometlyError(message)
    created_at, completed_at = (
        read_instant(value, UTC) if isinstance(value, str) else None
        for value in (answer.get("created_at"), answer.get("completed_at"))
    )
    return ExportStatus(
        answered_id, status.lower(), url or None, _message(answer), created_at, completed_at
    )


def _refusal(
    action: str, status: int, answer: Mapping[str, Any] | None, *, is_create: bool
) -> CometlyError:
    """The error for a response that a retry would not change."""
    failed = f"could not {action}: the API responded {status}"
    if status < HTTPStatus.BAD_REQUEST:
        return CometlyError(
            f"{failed}, a redirect, which the tap does not follow; check the setting 'api_url'"
        )
    if answer is None:
        return CometlyError(
            f"could not {action}: response {status} is not JSON, so probably from a firewall or "
            "proxy, not from Cometly's API; check the network and the setting 'api_url'"
        )
    message = _message(answer)
    reason = f'{failed}: "{message}"' if message else failed
    advice = _ADVICE.get(status, _REPORT)
    if is_create and status in _REFUSED_CREATE:
        return CreateRefused(reason, status, advice)
    return CometlyError(f"{reason}; {advice}")


def _message(answer: Mapping[str, Any]) -> str | None:
    """Cometly's message and what `errors` adds to it, on one line, without secrets."""
    errors = answer.get("errors")
    groups = errors.values() if isinstance(errors, dict) else [errors]
    details = [text for group in groups for text in (group if isinstance(group, list) else [group])]
    message = ""
    for text in (answer.get("message"), *details):
        if isinstance(text, str) and text not in message:
            message = f"{message} {text}"
    words = " ".join(REDACTOR.clean(message).split())
    if len(words) > _MAX_MESSAGE_LENGTH:
        words = f"{words[:_MAX_MESSAGE_LENGTH]}…"
    return words or None


_CHECK = "the network, Cometly's status page and, if it is set, 'api_url'"
_REFUSED_CREATE = (HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.LOCKED)
_REPORT = "if the cause is unclear, contact Cometly's support and quote this line"
_ADVICE: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "check the setting 'api_key'",
    HTTPStatus.FORBIDDEN: (
        "check that the API key may export contacts and that the subscription is active"
    ),
    HTTPStatus.NOT_FOUND: "check the setting 'api_url'",
}
