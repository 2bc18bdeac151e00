"""The storage of a simulated Space over HTTP: presigned URLs, with the manners of S3."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final, NamedTuple
from xml.sax.saxutils import escape

from aiohttp import web

from simulator import wire
from simulator.faults import (
    Cut,
    CutUnnoticed,
    Expired,
    Fault,
    FileFault,
    IgnoresIfMatch,
    NoETag,
    NoRanges,
    Stall,
    Throttled,
    WrongRange,
)
from simulator.files import FileForm
from simulator.space import etag_of

if TYPE_CHECKING:
    from simulator.journal import Kind, Request
    from simulator.space import Export, Space
    from simulator.world import World

_EXPIRED: Final = "Request has expired"
_ERRORS: Final[dict[type[Fault], tuple[int, str, str]]] = {
    Expired: (403, "AccessDenied", _EXPIRED),
    Throttled: (503, "SlowDown", "Please reduce your request rate."),
}
_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)
_A_WRITE: Final = 2**20  # bytes


class Storage:
    """Answers downloads."""

    def __init__(self, world: World) -> None:
        """Serve this world."""
        self._world = world

    def kind_of(self, request: web.BaseRequest) -> Kind:
        """Tell which call a request is."""
        of_file = request.path.startswith("/exports/") and request.method in {"GET", "HEAD"}
        return "download" if of_file else "other"

    async def handle(self, request: web.BaseRequest, record: Request) -> web.StreamResponse | None:
        """Answer a request.

        Args:
            request: What is asked.
            record: Its entry in the journal.

        Returns:
            The answer, sent or to be sent; None if nobody gets one.
        """
        if record.kind == "other":
            return _error(404, "NoSuchKey", "The specified key does not exist.")
        export = _find(self._world.space, request)
        if isinstance(export, web.Response):
            return export
        record.export_id = export.id
        record.start, record.end = export.order.instants
        staying = self._world.faults.settle("download", record)
        # HEAD asks about the file alone: it has no transfer that could go wrong.
        asks_for_bytes = request.method == "GET"
        fault = self._world.faults.meet("download", record) if asks_for_bytes else None
        match fault:
            case Expired() | Throttled():
                return _error(*_ERRORS[type(fault)])
            case None | Cut() | CutUnnoticed() | Stall() | WrongRange():
                stored = await asyncio.to_thread(_stored, self._world.space, export, staying)
                part = _part(stored, request)
                if isinstance(part, web.Response):
                    return part
                return await self._transfer(request, record, part, fault)
            case _:
                return await wire.common_answer(fault, request, self._world.stopping)

    async def _transfer(
        self, request: web.BaseRequest, record: Request, part: _Part, fault: Fault | None
    ) -> web.StreamResponse | None:
        body, headers = part.body, part.headers
        promised = headers | {"Content-Length": str(len(body))}
        match fault:
            case Cut():
                wire.begin(request, record, part.status, promised, body[: fault.at])
                await wire.end(request, with_reset=fault.reset)
            case CutUnnoticed(chunked=False):
                headers["Connection"] = "close"
                wire.begin(request, record, part.status, headers, body[: fault.at])
                await wire.end(request)
            case CutUnnoticed():
                headers["Transfer-Encoding"] = "chunked"
                chunk = bytes(body[: fault.at])
                framed = b"%x\r\n%b\r\n" % (len(chunk), chunk)
                wire.begin(request, record, part.status, headers, framed)
                await wire.end(request)
            case Stall():
                wire.begin(request, record, part.status, promised, body[: fault.at])
                await self._world.stopping.wait()
                wire.reset(request)
            case WrongRange():
                return await _send(request, record, part.shifted(fault.shift))
            case _:
                return await _send(request, record, part)
        return None


class _Stored(NamedTuple):
    """A file as the store holds it, its faults included."""

    data: bytes
    etag: str | None
    content_encoding: str | None
    ranges: bool
    conditions: bool


class _Part(NamedTuple):
    """What is sent of a file."""

    stored: _Stored
    status: int
    start: int
    end: int

    @property
    def body(self) -> memoryview:
        return memoryview(self.stored.data)[self.start : self.end]

    @property
    def headers(self) -> dict[str, str]:
        headers = {"Content-Type": "binary/octet-stream"}
        if self.stored.ranges:
            headers["Accept-Ranges"] = "bytes"
        if self.stored.etag is not None:
            headers["ETag"] = self.stored.etag
        if self.stored.content_encoding is not None:
            headers["Content-Encoding"] = self.stored.content_encoding
        if self.status == web.HTTPPartialContent.status_code:
            size = len(self.stored.data)
            headers["Content-Range"] = f"bytes {self.start}-{self.end - 1}/{size}"
        return headers

    def shifted(self, by: int) -> _Part:
        start = min(max(0, self.start + by), max(0, self.end - 1))
        return self._replace(start=start)


def _find(space: Space, request: web.BaseRequest) -> Export | web.Response:
    """Look at how a request is signed, then for its file; or give the error it ends in."""
    if "Authorization" in request.headers:
        return _error(
            400,
            "InvalidArgument",
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, "
            "Signature query string parameter or the Authorization header should be specified",
        )
    problem = space.check_url(request.raw_path)
    if problem is not None:
        code = "AccessDenied" if problem == _EXPIRED else "SignatureDoesNotMatch"
        return _error(403, code, problem)
    export = space.find_file(request.path)
    return export or _error(404, "NoSuchKey", "The specified key does not exist.")


def _stored(space: Space, export: Export, faults: list[Fault]) -> _Stored:
    """Make the file, with what is wrong with it."""
    of_file = [fault for fault in faults if isinstance(fault, FileFault)]
    form = FileForm()
    for fault in of_file:
        form = fault.relaid(form)
    data, etag, _ = space.file(export, form)
    for fault in of_file:
        data = fault.spoiled(data)
    kinds = {type(fault) for fault in of_file}
    return _Stored(
        data,
        None if NoETag in kinds else etag_of(data) if of_file else etag,
        form.content_encoding,
        ranges=NoRanges not in kinds,
        conditions=not kinds & {NoETag, IgnoresIfMatch},
    )


def _part(stored: _Stored, request: web.BaseRequest) -> _Part | web.Response:
    """Read the conditions and the range of a request, or give the error they end in."""
    size = len(stored.data)
    whole = _Part(stored, 200, 0, size)
    if_match = request.headers.get("If-Match", "*")
    if stored.conditions and if_match not in ("*", stored.etag):
        message = "At least one of the pre-conditions you specified did not hold"
        return _error(412, "PreconditionFailed", message)
    if stored.conditions and request.headers.get("If-Range", stored.etag) != stored.etag:
        return whole
    match = _RANGE.fullmatch(request.headers.get("Range", ""))
    if not stored.ranges or match is None or match.group() == "bytes=-":
        return whole
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if first and last and int(last) < start:
        return whole
    if start >= size:
        error = _error(416, "InvalidRange", "The requested range is not satisfiable")
        error.headers["Content-Range"] = f"bytes */{size}"
        return error
    return _Part(stored, 206, start, end)


async def _send(request: web.BaseRequest, record: Request, part: _Part) -> web.StreamResponse:
    response = web.StreamResponse(status=part.status, headers=part.headers)
    body = part.body
    response.content_length = len(body)
    record.status = part.status
    await response.prepare(request)
    if request.method != "HEAD":
        for start in range(0, len(body), _A_WRITE):
            block = body[start : start + _A_WRITE]
            record.bytes_sent += len(block)
            await response.write(block)
    return response


def _error(status: int, code: str, message: str) -> web.Response:
    """Make an error as S3 words it."""
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{escape(message)}</Message>"
        "<RequestId>SIMULATED</RequestId></Error>"
    )
    return web.Response(status=status, body=xml.encode(), content_type="application/xml")
