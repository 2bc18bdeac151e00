"""The two API calls: create a contact export, and ask how it is doing.

Knows HTTP, headers, tries and errors with Cometly's own words; knows nothing of windows or Singer.
Sources: Cometly's pages "Create Contact Export", "Get Contact Export" and "Rate Limiting".
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import requests

from tap_cometly.errors import CometlyError
from tap_cometly.redaction import REDACTOR
from tap_cometly.times import read_instant
from tap_cometly.transport import (
    CONNECT_TIMEOUT_SECONDS,
    READ_TIMEOUT_SECONDS,
    DirectSession,
    backoff_delays,
    describe_failure,
    is_safe_url,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tap_cometly.settings import Settings
    from tap_cometly.times import Clock

CALL_TRIES = 8
CALL_SECONDS = 300
"""Time for one API call, waits for rate limits aside."""
RATE_LIMIT_PAUSE_SECONDS = 60
"""Wait after a 429 without a usable `Retry-After`: Cometly counts by the minute."""
SHORTEST_RATE_LIMIT_PAUSE_SECONDS = 1
_LONGEST_MESSAGE = 500

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExportStatus:
    """What Cometly says of an export, when it is created and at every poll.

    Attributes:
        export_id: The export.
        status: `queued`, `processing`, `completed`, `failed`, or one not documented.
        download_url: Presigned URL of a completed export's file, if there is one yet.
        message: What Cometly says about it.
        created_at: When Cometly created it, UTC; None if not given.
        completed_at: When Cometly completed it, UTC; None if not given.
    """

    export_id: int
    status: str
    download_url: str | None
    message: str | None
    created_at: datetime | None = None
    completed_at: datetime | None = None


class RateLimited(Exception):  # noqa: N818 - no error: a request to wait
    """Cometly asks to wait."""

    def __init__(self, seconds: float) -> None:
        """Say how long.

        Args:
            seconds: How long to wait.
        """
        super().__init__(seconds)
        self.seconds = seconds


class ExportVanished(Exception):  # noqa: N818 - a state of an export, not an error of a call
    """Cometly knows no such export (any more); its text is what Cometly says, if anything."""


class CreateRefused(CometlyError):  # noqa: N818 - as urllib3 and requests name theirs
    """Cometly refused to create an export for now or for this window: 409, 422 or 423.

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        """Keep the status of the refusal."""
        super().__init__(message)
        self.status = status


class _Unavailable(Exception):  # noqa: N818 - ends in a CometlyError if it lasts
    """No answer, or none as documented; another try may help."""


def bearer_auth(
    api_key: str,
) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """An auth for a session that sends the API key as `Authorization: Bearer …`."""

    def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {api_key}"
        return request

    return authorize


class CometlyClient:
    """Talks to the API of one Space."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
    ) -> None:
        """Connect to nothing yet.

        Args:
            settings: Where the API is, the key, and what contacts shall carry.
            clock: For pauses between tries.
            read_timeout_seconds: Silence that long counts as a broken connection.
        """
        self._timeout = (CONNECT_TIMEOUT_SECONDS, read_timeout_seconds)
        self._exports_url = f"{settings.api_url}/contacts/exports"
        self._clock = clock
        self._options: dict[str, int] = {}
        if settings.include_comet_tokens:
            self._options["include_comet_tokens"] = 1
        if settings.include_all_emails:
            self._options["include_all_emails"] = 1
        self._session = DirectSession(bearer_auth(settings.api_key))
        self._session.headers.update(
            {
                "Accept": "application/json",
                "Content-Type": "application/json",
                "User-Agent": settings.user_agent,
            }
        )

    def create_export(self, start_date: str, end_date: str) -> int:
        """Have Cometly export the contacts created between two times.

        Args:
            start_date: Wall-clock time in the Space's zone, `YYYY-MM-DD HH:MM:SS`.
            end_date: Likewise.

        Returns:
            The export's id.

        Raises:
            RateLimited: Cometly asks to wait first.
            CometlyError: It refused, or did not answer as it promises.
        """
        body = {"start_date": start_date, "end_date": end_date, **self._options}
        return self._call("create an export", None, body).export_id

    def get_export(self, export_id: int) -> ExportStatus:
        """Ask how an export is doing; a completed one has a fresh download URL each time.

        Args:
            export_id: The export.

        Returns:
            What Cometly says.

        Raises:
            RateLimited: Cometly asks to wait first.
            ExportVanished: There is no such export in this Space.
            CometlyError: It refused, or did not answer as it promises.
        """
        return self._call("say how the export is doing", export_id, None)

    def _call(
        self, doing: str, export_id: int | None, body: Mapping[str, Any] | None
    ) -> ExportStatus:
        """Make a call, again and again while another try may help."""
        started = self._clock.monotonic()
        for tries, pause in enumerate(backoff_delays(), 1):
            try:
                return self._send(doing, export_id, body)
            except _Unavailable as fault:
                elapsed = self._clock.monotonic() - started
                if tries == CALL_TRIES or elapsed + pause > CALL_SECONDS:
                    message = (
                        f"Cometly could not {doing}: {fault}, at the last of {tries} tries; "
                        "check the network, the setting 'api_url' if it is set, and Cometly's "
                        "status, then run the tap again."
                    )
                    raise CometlyError(message) from None
                logger.info("Cometly could not %s: %s; next try in %.1f s", doing, fault, pause)
            self._clock.sleep(pause)
        raise AssertionError  # there is always another pause

    def _send(
        self, doing: str, export_id: int | None, body: Mapping[str, Any] | None
    ) -> ExportStatus:
        """Send one request: about an export, or to create one."""
        method, url = "POST", self._exports_url
        if export_id is not None:
            method, url = "GET", f"{url}/{export_id}"
        try:
            response = self._session.request(
                method, url, json=body, timeout=self._timeout, allow_redirects=False
            )
        except requests.RequestException as error:
            raise _Unavailable(describe_failure(error)) from None
        status = response.status_code
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise RateLimited(self._retry_after(response))
        if status == HTTPStatus.NOT_FOUND and export_id is not None:
            raise ExportVanished(_message(_json_object(response)) or "")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            fault = f"it answered {status}"
            raise _Unavailable(fault)
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise _refusal(doing, response)
        return _export_status(response, export_id)

    def _retry_after(self, response: requests.Response) -> float:
        """Seconds to wait, from a header that holds seconds or an HTTP date."""
        value = response.headers.get("Retry-After", "").strip()
        try:
            seconds = float(value)
        except ValueError:
            moment = _http_date(value)
            seconds = math.nan if moment is None else moment - self._clock.now()
        if not math.isfinite(seconds):
            return RATE_LIMIT_PAUSE_SECONDS
        return max(seconds, SHORTEST_RATE_LIMIT_PAUSE_SECONDS)


def _http_date(text: str) -> float | None:
    """The Unix time of an HTTP date; None if it is none."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    # HTTP's dates are UTC, whatever this machine's zone: a zone that is missing or `-0000` too.
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _export_status(response: requests.Response, export_id: int | None) -> ExportStatus:
    """Read an answer that is shaped as documented, and about the export asked for, if one was."""
    answer = _json_object(response)
    told_id, status = answer.get("export_id"), answer.get("status")
    url = (answer.get("download_url") or "") if status == "completed" else ""
    if type(told_id) is not int or not isinstance(status, str) or not isinstance(url, str):
        fault = "its answer was not shaped as its documentation says"
        raise _Unavailable(fault)
    if export_id not in (None, told_id):
        fault = f"its answer was about export {told_id}, not {export_id}"
        raise _Unavailable(fault)
    if url:
        _check_download_url(url)
    return ExportStatus(
        told_id,
        status,
        url or None,
        _message(answer),
        _instant(answer.get("created_at")),
        _instant(answer.get("completed_at")),
    )


def _instant(value: object) -> datetime | None:
    return read_instant(value, UTC) if isinstance(value, str) else None


def _json_object(response: requests.Response) -> dict[str, Any]:
    """What an answer holds, or nothing if it is no JSON object."""
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _check_download_url(url: str) -> None:
    REDACTOR.hide_url(url)
    if not is_safe_url(url):
        message = (
            "Cometly's download_url is neither https nor on this machine, and the tap does not "
            "read contacts over an open line; ask Cometly's support about it."
        )
        raise CometlyError(message)


def _refusal(doing: str, response: requests.Response) -> CometlyError:
    """The error for an answer that another try would not change."""
    status = response.status_code
    if status < HTTPStatus.BAD_REQUEST:
        return CometlyError(
            f"Cometly refused to {doing}: it answered {status}, a redirect that the tap does not "
            "follow; check the setting 'api_url'."
        )
    message = _message(_json_object(response))
    said = f' and says "{message}"' if message else ""
    sentence = (
        f"Cometly refused to {doing}: it answered {status}{said}; {_ADVICE.get(status, _REPORT)}."
    )
    if status in _REFUSED_CREATE and response.request.method == "POST":
        return CreateRefused(sentence, status)
    return CometlyError(sentence)


_REFUSED_CREATE = (
    HTTPStatus.CONFLICT,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.LOCKED,
)
_REPORT = "if the message does not help, show it to Cometly's support"
_ADVICE: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "check the setting 'api_key'",
    HTTPStatus.FORBIDDEN: (
        "check that the API key may export contacts and that the subscription is active"
    ),
    HTTPStatus.NOT_FOUND: "check the setting 'api_url'",
}


def _message(answer: Mapping[str, Any]) -> str | None:
    """Cometly's own words in an answer: on one line, without secrets."""
    message = answer.get("message")
    if not isinstance(message, str) or not message.strip():
        return None
    words = " ".join(REDACTOR.clean(message).split())
    return words if len(words) <= _LONGEST_MESSAGE else f"{words[:_LONGEST_MESSAGE]}…"
