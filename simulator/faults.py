"""Everything that can go wrong, as a script: given this fault, then that.

`simulator.faults.add("download", Cut(1000), times=3)` cuts the next three downloads. Most faults
meet one request each; those of an export or its file stay with the export they met.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import msgspec

from simulator.files import FileForm  # noqa: TC001 - msgspec reads the annotations
from simulator.space import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from simulator.journal import Request
    from simulator.space import Export

Where = Literal["create", "poll", "download"]

_API: frozenset[Where] = frozenset(("create", "poll"))
_STORAGE: frozenset[Where] = frozenset(("download",))
_ANYWHERE = _API | _STORAGE


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that goes wrong.

    Attributes:
        places: Where it can be added.
        stays: Whether it holds for an export from then on, instead of for one request.
    """

    places: ClassVar[frozenset[Where]] = _ANYWHERE
    stays: ClassVar[bool] = False

    def concerns(self, request: Request) -> bool:
        """Tell whether a request can meet this fault at all."""
        del request
        return True

    @classmethod
    def name(cls) -> str:
        """Give the name it goes by: that of `TooManyRequests` is `too-many-requests`."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", cls.__name__).lower()


# Any request


class ServerError(Fault, frozen=True):
    """A 5xx of the gateway, with a page of HTML."""

    status: int = 503
    html: str = "<html><body><h1>Service Unavailable</h1></body></html>"


class Answer(Fault, frozen=True):
    """Any answer: bytes and text as they are, anything else as JSON."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] | None = None


class Redirect(Fault, frozen=True):
    """A redirect elsewhere."""

    location: str
    status: int = 302


class Reset(Fault, frozen=True):
    """The connection breaks (RST) before any answer.

    With `accepted` the request has taken effect all the same.
    """

    accepted: bool = False


class Hang(Fault, frozen=True):
    """No answer until the client leaves or the server stops."""


# API requests


class TooManyRequests(Fault, frozen=True):
    """A 429; `retry_after`: seconds, `http-date` (a date two seconds on) or no such header."""

    retry_after: int | Literal["http-date"] | None = 1

    places: ClassVar[frozenset[Where]] = _API


class Refuse(Fault, frozen=True):
    """A 4xx with Cometly's JSON; `echo` puts the request's Authorization into the message."""

    status: int = 403
    message: str = "Your subscription is inactive."
    echo: bool = False

    places: ClassVar[frozenset[Where]] = _API


# Exports


class ExportFault(Fault, frozen=True):
    """An export that does not go well."""

    stays: ClassVar[bool] = True

    def distort(self, answer: dict[str, object], export: Export) -> dict[str, object]:
        """Change the answer to a poll.

        Args:
            answer: What Cometly would say.
            export: Which export it is about; this poll is counted already.

        Returns:
            What it says instead.

        Raises:
            Refused: It says no.
        """
        raise NotImplementedError


class ExportFails(ExportFault, frozen=True):
    """The export ends as `failed` when it would be completed."""

    message: str = "The export could not be generated."

    def distort(self, answer: dict[str, object], export: Export) -> dict[str, object]:  # noqa: D102
        del export
        if answer["status"] != "completed":
            return answer
        return _still(answer, "failed", self.message)


class ExportStuck(ExportFault, frozen=True):
    """The export is never completed."""

    status: str = "processing"

    def distort(self, answer: dict[str, object], export: Export) -> dict[str, object]:  # noqa: D102
        del export
        if answer["status"] != "completed":
            return answer
        return _still(answer, self.status, "Export is being processed.")


class ExportVanishes(ExportFault, frozen=True):
    """The export is unknown (404) from this poll of it on."""

    from_poll: int = 1

    def distort(self, answer: dict[str, object], export: Export) -> dict[str, object]:  # noqa: D102
        if export.polls < self.from_poll:
            return answer
        raise Refused(404, "Export not found.")


class UnknownStatus(ExportFault, frozen=True):
    """The export's first polls give a status that nobody documented; None: all polls."""

    status: str = "archiving"
    polls: int | None = 1

    def distort(self, answer: dict[str, object], export: Export) -> dict[str, object]:  # noqa: D102
        if self.polls is not None and export.polls > self.polls:
            return answer
        return _still(answer, self.status, "Export is in an unusual state.")


class CompletedWithoutUrl(ExportFault, frozen=True):
    """The first polls that say `completed` give no URL; None: all of them."""

    polls: int | None = 1

    def distort(self, answer: dict[str, object], export: Export) -> dict[str, object]:  # noqa: D102
        if self.polls is not None and export.completed_polls > self.polls:
            return answer
        return {key: value for key, value in answer.items() if key != "download_url"}


class DownloadUrl(ExportFault, frozen=True):
    """Completed polls give this URL instead."""

    url: str

    def distort(self, answer: dict[str, object], export: Export) -> dict[str, object]:  # noqa: D102
        del export
        return answer | {"download_url": self.url} if "download_url" in answer else answer


def _still(answer: Mapping[str, object], status: str, message: str) -> dict[str, object]:
    kept = {key: answer[key] for key in ("export_id", "created_at")}
    return kept | {"status": status, "message": message}


# Transfers


class Cut(Fault, frozen=True):
    """The body ends after `at` bytes of this response, though its length promised more.

    With `reset` the connection is reset (RST) instead of closed (FIN).
    """

    at: int
    reset: bool = False

    places: ClassVar[frozenset[Where]] = _STORAGE


class CutUnnoticed(Fault, frozen=True):
    """The body ends after `at` bytes (None: not before its end), and nothing announced its length.

    As HTTP/1.0 does it: only the closed connection ends it. With `chunked` it comes in chunks, and
    the last, that would end it, is missing.
    """

    at: int | None = None
    chunked: bool = False

    places: ClassVar[frozenset[Where]] = _STORAGE


class Stall(Fault, frozen=True):
    """The body falls silent after `at` bytes of this response."""

    at: int = 0

    places: ClassVar[frozenset[Where]] = _STORAGE


class Expired(Fault, frozen=True):
    """The URL is refused as expired: 403 with XML."""

    places: ClassVar[frozenset[Where]] = _STORAGE


class Throttled(Fault, frozen=True):
    """The bucket is overwhelmed: 503 with XML."""

    places: ClassVar[frozenset[Where]] = _STORAGE


class WrongRange(Fault, frozen=True):
    """A request for a range gets (206) one that begins `shift` bytes further on."""

    shift: int = 1

    places: ClassVar[frozenset[Where]] = _STORAGE

    def concerns(self, request: Request) -> bool:
        """Tell whether the request is for a range."""
        return "Range" in request.headers


# Files


class FileFault(Fault, frozen=True):
    """A stored file, or a store, that is not as it should be."""

    stays: ClassVar[bool] = True

    def relaid(self, form: FileForm) -> FileForm:
        """Give the layout the file has with this fault."""
        return form

    def spoiled(self, data: bytes) -> bytes:
        """Give the bytes the file has with this fault."""
        return data


class Form(FileFault, frozen=True):
    """The file is laid out in this way."""

    form: FileForm

    def relaid(self, form: FileForm) -> FileForm:  # noqa: D102
        del form
        return self.form


class ChangedFile(FileFault, frozen=True):
    """The file was made again: the same contacts, in other bytes and with another ETag."""

    seed: int = 1

    def relaid(self, form: FileForm) -> FileForm:  # noqa: D102
        return msgspec.structs.replace(form, shuffle=self.seed, modified=self.seed)


class Truncated(FileFault, frozen=True):
    """The stored file ends after `length` bytes, and says so; negative: so many are missing."""

    length: int

    def spoiled(self, data: bytes) -> bytes:  # noqa: D102
        return data[: self.length]


class Corrupt(FileFault, frozen=True):
    """The byte `at` is another; negative: counted from the end."""

    at: int

    def spoiled(self, data: bytes) -> bytes:  # noqa: D102
        if not -len(data) <= self.at < len(data):
            return data
        spoiled = bytearray(data)
        spoiled[self.at] ^= 0xFF
        return bytes(spoiled)


class WrongChecksum(FileFault, frozen=True):
    """The checksum in gzip's trailer is wrong."""

    def spoiled(self, data: bytes) -> bytes:  # noqa: D102
        return Corrupt(-8).spoiled(data)


class NoRanges(FileFault, frozen=True):
    """A range is ignored: 200 with the whole file, and no `Accept-Ranges`."""


class NoETag(FileFault, frozen=True):
    """The file has no ETag, and conditions on it are ignored."""


class IgnoresIfMatch(FileFault, frozen=True):
    """`If-Match` and `If-Range` are ignored: a range of a changed file is given all the same."""


class Faults:
    """The script: what goes wrong, where and how often. Safe to use from several threads."""

    def __init__(self) -> None:
        """Begin with nothing going wrong."""
        self._rules: list[_Rule] = []
        self._staying: dict[int, list[_Rule]] = {}
        self._lock = threading.Lock()

    def add(
        self,
        where: Where,
        fault: Fault,
        times: int | None = 1,
        after: int = 0,
        when: Callable[[Request], bool] | None = None,
    ) -> None:
        """Add a fault. Of several that fit a request, the one added first comes first.

        An API request meets faults before the Space looks at it: they cost no quota. A download
        meets them once its URL is found good.

        Args:
            where: The requests it meets: `create`, `poll` or `download`.
            fault: What goes wrong. If it stays with an export, `where` says at which request about
                it it begins; at `create` that is the export being made.
            times: How many requests meet it, or, if it stays, how many exports; None: all.
            after: How many requests that fit go through before.
            when: Whether a request fits; by default every one does.

        Raises:
            ValueError: No such place, or this fault cannot happen there.
        """
        if where not in get_args(Where):
            message = f"{where!r} is no place for a fault: {', '.join(get_args(Where))}"
            raise ValueError(message)
        if where not in fault.places:
            message = f"{fault.name()} cannot happen at {where!r}"
            raise ValueError(message)
        with self._lock:
            self._rules.append(_Rule(where, fault, times, after, when))

    def clear(self) -> None:
        """Let everything go well again, for exports under way too."""
        with self._lock:
            self._rules.clear()
            self._staying.clear()

    def meet(self, where: Where, request: Request) -> Fault | None:
        """Give the fault that a request meets, if any, and count it.

        Args:
            where: Which kind of request it is.
            request: The request.

        Returns:
            A fault that does not stay; None: all goes well.
        """
        with self._lock:
            for rule in self._rules:
                if not rule.fault.stays and rule.meets(where, request):
                    request.fault = rule.fault.name()
                    return rule.fault
        return None

    def settle(self, where: Where, request: Request) -> list[Fault]:
        """Let the faults that stay settle on the export of a request.

        Args:
            where: Which kind of request it is.
            request: A request whose export is known.

        Returns:
            All faults that this export has by now.
        """
        if not self._rules or request.export_id is None:
            return []
        with self._lock:
            settled = self._staying.setdefault(request.export_id, [])
            settled.extend(
                rule
                for rule in self._rules
                if rule.fault.stays and rule not in settled and rule.meets(where, request)
            )
            if settled and request.fault is None:
                request.fault = ", ".join(rule.fault.name() for rule in settled)
            return [rule.fault for rule in settled]


class _Rule:
    """A fault, and what is left of its times."""

    def __init__(
        self,
        where: Where,
        fault: Fault,
        times: int | None,
        after: int,
        when: Callable[[Request], bool] | None,
    ) -> None:
        self.fault = fault
        self._where = where
        self._times = times
        self._after = after
        self._when = when

    def meets(self, where: Where, request: Request) -> bool:
        if where != self._where or self._times == 0 or not self.fault.concerns(request):
            return False
        if self._when is not None and not self._when(request):
            return False
        if self._after:
            self._after -= 1
            return False
        if self._times is not None:
            self._times -= 1
        return True
