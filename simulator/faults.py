"""Faults to inject: `simulator.faults.add("download", Cut(1000), times=3)`.

Most faults affect one request; export and file faults affect every later request for the same
export. `simulator.presets` has named faults with parameters, and lists for random tests.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import msgspec
from typing_extensions import override

from simulator.files import FileLayout  # noqa: TC001 - msgspec reads the annotations
from simulator.space import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulator.request_log import Request
    from simulator.space import Export, Space

    _Json = dict[str, object]

Endpoint = Literal["create", "poll", "download"]


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fault.

    Attributes:
        endpoints: Where it can be injected.
        per_export: Whether it affects an export from then on instead of a single request.
    """

    endpoints: ClassVar[tuple[Endpoint, ...]] = ("create", "poll", "download")
    per_export: ClassVar[bool] = False

    def applies_to(self, request: Request) -> bool:
        """Whether the fault can affect this request."""
        del request
        return True

    @classmethod
    def name(cls) -> str:
        """The command-line name: `too-many-requests` for `TooManyRequests`."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", cls.__name__).lower()


class ApiFault(Fault, frozen=True):
    """A fault of API requests."""

    endpoints: ClassVar[tuple[Endpoint, ...]] = ("create", "poll")


class DownloadFault(Fault, frozen=True):
    """A fault of downloads."""

    endpoints: ClassVar[tuple[Endpoint, ...]] = ("download",)


# Any request


class ServerError(Fault, frozen=True):
    """A gateway's 5xx with an HTML page."""

    status: int = 503
    html: str = "<html><body><h1>Service Unavailable</h1></body></html>"


class Respond(Fault, frozen=True):
    """Any response; a bytes or str body is sent unchanged, anything else as JSON.

    With `accepted` the request still takes effect.
    """

    status: int = 200
    body: Any = b""
    headers: dict[str, str] | None = None
    accepted: bool = False


class Redirect(Fault, frozen=True):
    """A redirect."""

    location: str
    status: int = 302


class Reset(Fault, frozen=True):
    """The connection is reset before the response.

    With `accepted` the request still takes effect.
    """

    accepted: bool = False


class Hang(Fault, frozen=True):
    """No response until the client disconnects or the server stops."""


class Drip(Fault, frozen=True):
    """The body arrives one byte every `seconds`; an API response never ends.

    In a download only the first `count` bytes are slow (null: all).
    """

    seconds: float = 1.0
    count: int | None = None


class MalformedHeader(Fault, frozen=True):
    """The normal response, but its first header line is `line`."""

    line: str = "this line is not a header"


# API requests


class TooManyRequests(ApiFault, frozen=True):
    """A 429; `retry_after` is in seconds, `http-date` (2 seconds from now) or null (no header)."""

    retry_after: int | Literal["http-date"] | None = 1


class Refuse(ApiFault, frozen=True):
    """A 4xx with Cometly's JSON; `echo` adds the request's Authorization to the message."""

    status: int = 403
    message: str = "Your subscription is inactive."
    echo: bool = False
    errors: dict[str, list[str]] | None = None


# Exports


class ExportFault(Fault, frozen=True):
    """A fault of an export, visible in its poll responses."""

    per_export: ClassVar[bool] = True

    def change_response(self, response: _Json, export: Export, space: Space) -> _Json:
        """The JSON of a poll response with this fault.

        Args:
            response: The JSON without the fault.
            export: The polled export; its `polls` includes this poll.
            space: The Space of the export.

        Raises:
            Refused: The poll fails.
        """
        raise NotImplementedError


class ExportFails(ExportFault, frozen=True):
    """The export ends as `failed` instead of `completed`."""

    message: str = "The export could not be generated."

    @override
    def change_response(self, response: _Json, export: Export, space: Space) -> _Json:
        if response["status"] != "completed":
            return response
        return _pending(response, "failed", self.message)


class ExportStuck(ExportFault, frozen=True):
    """The export never completes."""

    status: str = "processing"

    @override
    def change_response(self, response: _Json, export: Export, space: Space) -> _Json:
        if response["status"] != "completed":
            return response
        return _pending(response, self.status, "Export is being processed.")


class ExportVanishes(ExportFault, frozen=True):
    """The export is not found (404), starting with poll number `from_poll`."""

    from_poll: int = 1

    @override
    def change_response(self, response: _Json, export: Export, space: Space) -> _Json:
        if export.polls < self.from_poll:
            return response
        raise Refused(404, "Export not found.")


class ExportNotYetFound(ExportFault, frozen=True):
    """The export is not found (404) in its first `polls` polls and its first `seconds`."""

    polls: int = 1
    seconds: float = 0

    @override
    def change_response(self, response: _Json, export: Export, space: Space) -> _Json:
        if export.polls <= self.polls or space.now() < export.created_at + self.seconds:
            message = rf"No query results for model [App\Models\ContactExport] {export.id}"
            raise Refused(404, message)
        return response


class UnknownStatus(ExportFault, frozen=True):
    """The first polls (null: all) return an undocumented status."""

    status: str = "archiving"
    polls: int | None = 1

    @override
    def change_response(self, response: _Json, export: Export, space: Space) -> _Json:
        if self.polls is not None and export.polls > self.polls:
            return response
        return _pending(response, self.status, "Export is in an unusual state.")


class StatusCase(ExportFault, frozen=True):
    """Statuses are in upper case (`COMPLETED`) or title case (`Completed`)."""

    style: Literal["upper", "title"] = "upper"

    @override
    def change_response(self, response: _Json, export: Export, space: Space) -> _Json:
        status = str(response["status"])
        return response | {"status": status.upper() if self.style == "upper" else status.title()}


class CompletedWithoutUrl(ExportFault, frozen=True):
    """The first completed polls (null: all) have no download_url."""

    polls: int | None = 1

    @override
    def change_response(self, response: _Json, export: Export, space: Space) -> _Json:
        if self.polls is not None and export.completed_polls > self.polls:
            return response
        return {key: value for key, value in response.items() if key != "download_url"}


class DownloadUrl(ExportFault, frozen=True):
    """Completed polls return `url` as download_url."""

    url: str

    @override
    def change_response(self, response: _Json, export: Export, space: Space) -> _Json:
        return response | {"download_url": self.url} if "download_url" in response else response


class OddUrl(ExportFault, frozen=True):
    """The download_url has unusual percent-encodings; the storage rejects normalized ones."""

    @override
    def change_response(self, response: _Json, export: Export, space: Space) -> _Json:
        if "download_url" not in response:
            return response
        origin = str(response["download_url"]).partition(export.path)[0]
        return response | {"download_url": origin + space.presign(export, odd=True)}


def _pending(response: _Json, status: str, message: str) -> _Json:
    kept = {key: response[key] for key in ("export_id", "created_at")}
    return kept | {"status": status, "message": message}


# Downloads


class StorageFailure(DownloadFault, frozen=True):
    """An S3 error with XML; `{X-Amz-Signature}` in `message` is replaced from the URL's query."""

    status: int = 500
    code: str = "InternalError"
    message: str = "We encountered an internal error. Please try again."
    headers: dict[str, str] | None = None


class Expired(StorageFailure, frozen=True):
    """The URL has expired: 403 with XML."""

    status: int = 403
    code: str = "AccessDenied"
    message: str = "Request has expired"


class Throttled(StorageFailure, frozen=True):
    """The bucket is overloaded: 503 with XML."""

    status: int = 503
    code: str = "SlowDown"
    message: str = "Please reduce your request rate."


class Cut(DownloadFault, frozen=True):
    """The connection is closed after `at` bytes of the body, before its declared length.

    With `reset` it is reset (RST) instead of closed (FIN).
    """

    at: int
    reset: bool = False


class WithoutLength(DownloadFault, frozen=True):
    """A body without a declared length is cut after `at` bytes (null: not cut).

    The end of the body is the end of the connection, as in HTTP/1.0. With `chunked` the body is one
    chunk, and the final empty chunk is missing.
    """

    at: int | None = None
    chunked: bool = False


class Stall(DownloadFault, frozen=True):
    """The body stops after `at` bytes, but the connection stays open."""

    at: int = 0


class WrongRange(DownloadFault, frozen=True):
    """The response to a range request (206) starts `shift` bytes too late."""

    shift: int = 1

    @override
    def applies_to(self, request: Request) -> bool:
        return "Range" in request.headers


# Files


class FileFault(Fault, frozen=True):
    """A fault of a stored file or of the storage."""

    per_export: ClassVar[bool] = True

    def change_layout(self, layout: FileLayout) -> FileLayout:
        """The layout of the file with this fault."""
        return layout

    def change_data(self, data: bytes) -> bytes:
        """The bytes of the file with this fault."""
        return data


class Layout(FileFault, frozen=True):
    """The file has this layout."""

    layout: FileLayout

    @override
    def change_layout(self, layout: FileLayout) -> FileLayout:
        return self.layout


class ChangedFile(FileFault, frozen=True):
    """The file was replaced by one with the same contacts, but other bytes and another ETag."""

    seed: int = 1

    @override
    def change_layout(self, layout: FileLayout) -> FileLayout:
        return msgspec.structs.replace(layout, shuffle=self.seed, modified=self.seed)


class Truncated(FileFault, frozen=True):
    """The stored file is truncated to `length` bytes, or by `-length` bytes if negative."""

    length: int

    @override
    def change_data(self, data: bytes) -> bytes:
        return data[: self.length]


class Corrupt(FileFault, frozen=True):
    """The byte at offset `at` (negative: from the end) is wrong."""

    at: int

    @override
    def change_data(self, data: bytes) -> bytes:
        if not -len(data) <= self.at < len(data):
            return data
        changed = bytearray(data)
        changed[self.at] ^= 0xFF
        return bytes(changed)


class WrongChecksum(FileFault, frozen=True):
    """The checksum in gzip's trailer is wrong."""

    @override
    def change_data(self, data: bytes) -> bytes:
        return Corrupt(-8).change_data(data)


class TrailingBytes(FileFault, frozen=True):
    """`text` follows the gzip data."""

    text: str = "<!-- cached -->"

    @override
    def change_data(self, data: bytes) -> bytes:
        return data + self.text.encode()


class NoRanges(FileFault, frozen=True):
    """`Range` is ignored: 200 with the whole file, and no `Accept-Ranges`."""


class NoETag(FileFault, frozen=True):
    """The file has no ETag, and `If-Match` is ignored."""


class IgnoresIfMatch(FileFault, frozen=True):
    """`If-Match` is ignored, so a download can resume in a changed file."""


class Faults:
    """The injected faults. Thread-safe."""

    def __init__(self) -> None:
        self._rules: list[_Rule] = []
        self._by_export: dict[int, list[_Rule]] = {}
        self._lock = threading.Lock()

    def add(
        self,
        endpoint: Endpoint,
        fault: Fault,
        times: int | None = 1,
        after: int = 0,
        when: Callable[[Request], bool] | None = None,
    ) -> None:
        """Add a fault. If several match a request, the one added first applies.

        API faults replace the call: the Space does not see the request, and the rate limit does not
        count it. `MalformedHeader` and faults with `accepted` do make the call. Download faults
        apply only if the URL is valid.

        Args:
            endpoint: The requests to match.
            fault: The fault. A `per_export` fault starts with a matching request for the export.
            times: Number of requests to affect, or of exports if `per_export`; None: all.
            after: Number of matching requests to skip first.
            when: An additional condition for a match.

        Raises:
            ValueError: The endpoint is unknown or does not support the fault.
        """
        if endpoint not in get_args(Endpoint):
            message = f"{endpoint!r} is not one of {', '.join(get_args(Endpoint))}"
            raise ValueError(message)
        if endpoint not in fault.endpoints:
            message = f"{fault.name()} cannot be added to {endpoint!r}"
            raise ValueError(message)
        with self._lock:
            self._rules.append(_Rule(endpoint, fault, times, after, when))

    def clear(self) -> None:
        """Remove all faults, including those of existing exports."""
        with self._lock:
            self._rules.clear()
            self._by_export.clear()

    def next_fault(self, endpoint: Endpoint, request: Request) -> Fault | None:
        """The fault for this request, if any; counts as one of its `times`."""
        with self._lock:
            for rule in self._rules:
                if not rule.fault.per_export and rule.matches(endpoint, request):
                    request.fault = rule.fault.name()
                    return rule.fault
        return None

    def export_faults(self, endpoint: Endpoint, request: Request) -> list[Fault]:
        """All faults of this request's export, including those that start with the request."""
        if not self._rules or request.export_id is None:
            return []
        with self._lock:
            found = self._by_export.setdefault(request.export_id, [])
            found.extend(
                rule
                for rule in self._rules
                if rule.fault.per_export and rule not in found and rule.matches(endpoint, request)
            )
            if found and request.fault is None:
                request.fault = ", ".join(rule.fault.name() for rule in found)
            return [rule.fault for rule in found]


@dataclass(eq=False)
class _Rule:
    """A fault and the requests that it still applies to."""

    endpoint: Endpoint
    fault: Fault
    times: int | None
    after: int
    when: Callable[[Request], bool] | None

    def matches(self, endpoint: Endpoint, request: Request) -> bool:
        if endpoint != self.endpoint or self.times == 0 or not self.fault.applies_to(request):
            return False
        if self.when is not None and not self.when(request):
            return False
        if self.after:
            self.after -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True
