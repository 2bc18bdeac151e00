"""Faults to inject: `simulator.faults.add("download", Cut(1000), times=3)`.

Most faults affect one request. Those of exports and files stay with an export (`stays`). Named
faults with parameters, and lists to draw from in tests, are in `simulator.presets`.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import msgspec
from typing_extensions import override

from simulator.files import FileForm  # noqa: TC001 - msgspec reads the annotations
from simulator.space import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from simulator.journal import Request
    from simulator.space import Export, Space

Where = Literal["create", "poll", "download"]

_API: frozenset[Where] = frozenset(("create", "poll"))
_STORAGE: frozenset[Where] = frozenset(("download",))
_ANYWHERE = _API | _STORAGE


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fault.

    Attributes:
        places: The requests that it can be added to.
        stays: Whether it stays with an export instead of affecting one request.
    """

    places: ClassVar[frozenset[Where]] = _ANYWHERE
    stays: ClassVar[bool] = False

    def applies_to(self, request: Request) -> bool:
        """Whether the fault can affect a request at all."""
        del request
        return True

    @classmethod
    def name(cls) -> str:
        """The name in texts: that of `TooManyRequests` is `too-many-requests`."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", cls.__name__).lower()


# Any request


class ServerError(Fault, frozen=True):
    """A gateway's 5xx with an HTML page."""

    status: int = 503
    html: str = "<html><body><h1>Service Unavailable</h1></body></html>"


class Answer(Fault, frozen=True):
    """Any answer: a body of bytes or text is sent as it is, anything else as JSON.

    With `accepted` the request has taken effect all the same.
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
    """The connection is reset before the answer.

    With `accepted` the request has taken effect all the same.
    """

    accepted: bool = False


class Hang(Fault, frozen=True):
    """No response until the client disconnects or the server stops."""


class Drip(Fault, frozen=True):
    """The body arrives one byte every `seconds`: an API answer without end, a file to its end.

    Of a file only the first `count` bytes drip; None: all of them.
    """

    seconds: float = 1.0
    count: int | None = None


class MalformedHeader(Fault, frozen=True):
    """The right answer, but its first header line is `line`."""

    line: str = "this line is not a header"


# API requests


class TooManyRequests(Fault, frozen=True):
    """A 429; `retry_after`: seconds, `http-date` (a date in two seconds) or null (no header)."""

    retry_after: int | Literal["http-date"] | None = 1

    places: ClassVar[frozenset[Where]] = _API


class Refuse(Fault, frozen=True):
    """A 4xx with Cometly's JSON; `echo` adds the request's Authorization to the message."""

    status: int = 403
    message: str = "Your subscription is inactive."
    echo: bool = False
    errors: dict[str, list[str]] | None = None

    places: ClassVar[frozenset[Where]] = _API


# Exports


class ExportFault(Fault, frozen=True):
    """A fault of an export, visible in the answers to its polls."""

    stays: ClassVar[bool] = True

    def change_answer(
        self, answer: dict[str, object], export: Export, space: Space
    ) -> dict[str, object]:
        """The answer to a poll with this fault.

        Args:
            answer: The answer without it.
            export: The export, in which this poll is already counted.
            space: The Space of the export.

        Raises:
            Refused: The answer is an error.
        """
        raise NotImplementedError


class ExportFails(ExportFault, frozen=True):
    """The export ends as `failed` instead of `completed`."""

    message: str = "The export could not be generated."

    @override
    def change_answer(
        self, answer: dict[str, object], export: Export, space: Space
    ) -> dict[str, object]:
        if answer["status"] != "completed":
            return answer
        return _pending(answer, "failed", self.message)


class ExportStuck(ExportFault, frozen=True):
    """The export never completes."""

    status: str = "processing"

    @override
    def change_answer(
        self, answer: dict[str, object], export: Export, space: Space
    ) -> dict[str, object]:
        if answer["status"] != "completed":
            return answer
        return _pending(answer, self.status, "Export is being processed.")


class ExportVanishes(ExportFault, frozen=True):
    """The export is not found (404) from its poll number `from_poll` on."""

    from_poll: int = 1

    @override
    def change_answer(
        self, answer: dict[str, object], export: Export, space: Space
    ) -> dict[str, object]:
        if export.polls < self.from_poll:
            return answer
        raise Refused(404, "Export not found.")


class ExportNotFoundYet(ExportFault, frozen=True):
    """The export is not found (404) in its first polls, and in the first seconds."""

    polls: int = 1
    seconds: float = 0

    @override
    def change_answer(
        self, answer: dict[str, object], export: Export, space: Space
    ) -> dict[str, object]:
        if export.polls <= self.polls or space.now() < export.created_at + self.seconds:
            message = rf"No query results for model [App\Models\ContactExport] {export.id}"
            raise Refused(404, message)
        return answer


class UnknownStatus(ExportFault, frozen=True):
    """The export's first polls return an undocumented status; null: all polls."""

    status: str = "archiving"
    polls: int | None = 1

    @override
    def change_answer(
        self, answer: dict[str, object], export: Export, space: Space
    ) -> dict[str, object]:
        if self.polls is not None and export.polls > self.polls:
            return answer
        return _pending(answer, self.status, "Export is in an unusual state.")


class StatusCase(ExportFault, frozen=True):
    """Statuses are written as `COMPLETED` (`upper`) or `Completed` (`title`)."""

    style: Literal["upper", "title"] = "upper"

    @override
    def change_answer(
        self, answer: dict[str, object], export: Export, space: Space
    ) -> dict[str, object]:
        status = str(answer["status"])
        return answer | {"status": status.upper() if self.style == "upper" else status.title()}


class CompletedWithoutUrl(ExportFault, frozen=True):
    """The first polls that return `completed` have no download_url; null: all of them."""

    polls: int | None = 1

    @override
    def change_answer(
        self, answer: dict[str, object], export: Export, space: Space
    ) -> dict[str, object]:
        if self.polls is not None and export.completed_polls > self.polls:
            return answer
        return {key: value for key, value in answer.items() if key != "download_url"}


class DownloadUrl(ExportFault, frozen=True):
    """Completed polls return this download_url."""

    url: str

    @override
    def change_answer(
        self, answer: dict[str, object], export: Export, space: Space
    ) -> dict[str, object]:
        return answer | {"download_url": self.url} if "download_url" in answer else answer


class OddUrl(ExportFault, frozen=True):
    """The download_url has unusual percent-encodings; the storage accepts no other spelling."""

    @override
    def change_answer(
        self, answer: dict[str, object], export: Export, space: Space
    ) -> dict[str, object]:
        if "download_url" not in answer:
            return answer
        origin = str(answer["download_url"]).partition(export.path)[0]
        return answer | {"download_url": origin + space.presign(export, odd=True)}


def _pending(answer: Mapping[str, object], status: str, message: str) -> dict[str, object]:
    kept = {key: answer[key] for key in ("export_id", "created_at")}
    return kept | {"status": status, "message": message}


# Downloads


class StorageFailure(Fault, frozen=True):
    """An S3 error with XML; `{X-Amz-Signature}` in `message` is that value of the URL's query."""

    status: int = 500
    code: str = "InternalError"
    message: str = "We encountered an internal error. Please try again."
    headers: dict[str, str] | None = None

    places: ClassVar[frozenset[Where]] = _STORAGE


class Expired(StorageFailure, frozen=True):
    """The URL is refused as expired: 403 with XML."""

    status: int = 403
    code: str = "AccessDenied"
    message: str = "Request has expired"


class Throttled(StorageFailure, frozen=True):
    """The bucket is overloaded: 503 with XML."""

    status: int = 503
    code: str = "SlowDown"
    message: str = "Please reduce your request rate."


class Cut(Fault, frozen=True):
    """The connection is closed after `at` bytes of this body, although its length was declared.

    With `reset` it is reset (RST) instead of closed (FIN).
    """

    at: int
    reset: bool = False

    places: ClassVar[frozenset[Where]] = _STORAGE


class CutUnnoticed(Fault, frozen=True):
    """The body ends after `at` bytes (null: at its end), and no length was declared.

    As in HTTP/1.0, it ends where the connection closes. With `chunked` it has chunks, and the last,
    empty one is missing.
    """

    at: int | None = None
    chunked: bool = False

    places: ClassVar[frozenset[Where]] = _STORAGE


class Stall(Fault, frozen=True):
    """Nothing follows after `at` bytes of this body, but the connection stays open."""

    at: int = 0

    places: ClassVar[frozenset[Where]] = _STORAGE


class WrongRange(Fault, frozen=True):
    """A range request is answered (206) with a range that begins `shift` bytes later."""

    shift: int = 1

    places: ClassVar[frozenset[Where]] = _STORAGE

    @override
    def applies_to(self, request: Request) -> bool:
        return "Range" in request.headers


# Files


class FileFault(Fault, frozen=True):
    """A fault of a stored file, or of the store."""

    stays: ClassVar[bool] = True

    def change_form(self, form: FileForm) -> FileForm:
        """The layout of the file with this fault."""
        return form

    def change_data(self, data: bytes) -> bytes:
        """The bytes of the file with this fault."""
        return data


class Form(FileFault, frozen=True):
    """The file has this layout."""

    form: FileForm

    @override
    def change_form(self, form: FileForm) -> FileForm:
        return self.form


class ChangedFile(FileFault, frozen=True):
    """The file was replaced: the same contacts, but other bytes and another ETag."""

    seed: int = 1

    @override
    def change_form(self, form: FileForm) -> FileForm:
        return msgspec.structs.replace(form, shuffle=self.seed, modified=self.seed)


class Truncated(FileFault, frozen=True):
    """The stored file is truncated to `length` bytes; negative: so many are missing."""

    length: int

    @override
    def change_data(self, data: bytes) -> bytes:
        return data[: self.length]


class Corrupt(FileFault, frozen=True):
    """The byte at `at` is wrong; negative: counted from the end."""

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
    """Other bytes follow after the end of the gzip data."""

    text: str = "<!-- cached -->"

    @override
    def change_data(self, data: bytes) -> bytes:
        return data + self.text.encode()


class NoRanges(FileFault, frozen=True):
    """Ranges are ignored: 200 with the whole file, and no `Accept-Ranges`."""


class NoETag(FileFault, frozen=True):
    """The file has no ETag, and conditions on it are ignored."""


class IgnoresIfMatch(FileFault, frozen=True):
    """`If-Match` and `If-Range` are ignored: a changed file is resumed all the same."""


class Faults:
    """The injected faults. Thread-safe."""

    def __init__(self) -> None:
        """Start without faults."""
        self._rules: list[_Rule] = []
        self._by_export: dict[int, list[_Rule]] = {}
        self._lock = threading.Lock()

    def add(
        self,
        where: Where,
        fault: Fault,
        times: int | None = 1,
        after: int = 0,
        when: Callable[[Request], bool] | None = None,
    ) -> None:
        """Add a fault. If several match a request, the one added first is used.

        API faults come before the Space handles the request, and use up no quota. Download faults
        come after the URL was found valid.

        Args:
            where: The requests to affect: `create`, `poll` or `download`.
            fault: The fault. If it stays with an export, `where` is the request about that export
                with which it begins.
            times: How many requests are affected, or, if it stays, how many exports; None: all.
            after: How many matching requests pass before.
            when: Whether a request matches; by default every one does.

        Raises:
            ValueError: There is no such place, or the fault cannot happen there.
        """
        if where not in get_args(Where):
            message = f"{where!r} is not one of {', '.join(get_args(Where))}"
            raise ValueError(message)
        if where not in fault.places:
            message = f"{fault.name()} cannot happen at {where!r}"
            raise ValueError(message)
        with self._lock:
            self._rules.append(_Rule(where, fault, times, after, when))

    def clear(self) -> None:
        """Remove all faults, those of existing exports too."""
        with self._lock:
            self._rules.clear()
            self._by_export.clear()

    def next_fault(self, where: Where, request: Request) -> Fault | None:
        """The fault that affects this request, if any. It counts as used."""
        with self._lock:
            for rule in self._rules:
                if not rule.fault.stays and rule.matches(where, request):
                    request.fault = rule.fault.name()
                    return rule.fault
        return None

    def export_faults(self, where: Where, request: Request) -> list[Fault]:
        """All faults of this request's export, including those that begin with the request."""
        if not self._rules or request.export_id is None:
            return []
        with self._lock:
            found = self._by_export.setdefault(request.export_id, [])
            found.extend(
                rule
                for rule in self._rules
                if rule.fault.stays and rule not in found and rule.matches(where, request)
            )
            if found and request.fault is None:
                request.fault = ", ".join(rule.fault.name() for rule in found)
            return [rule.fault for rule in found]


@dataclass(eq=False)
class _Rule:
    """A fault and how often it is still to happen."""

    where: Where
    fault: Fault
    times: int | None
    after: int
    when: Callable[[Request], bool] | None

    def matches(self, where: Where, request: Request) -> bool:
        if where != self.where or self.times == 0 or not self.fault.applies_to(request):
            return False
        if self.when is not None and not self.when(request):
            return False
        if self.after:
            self.after -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True
