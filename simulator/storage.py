"""The HTTP storage of a simulated Space: presigned URLs that behave like S3's."""

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
    Drip,
    Fault,
    FileFault,
    IgnoresIfMatch,
    MalformedHeader,
    NoETag,
    NoRanges,
    Stall,
    StorageFailure,
    WrongRange,
)
from simulator.files import FileForm
from simulator.space import etag_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from simulator.journal import Kind, Request
    from simulator.space import Export, Space
    from simulator.world import World

_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)
_WRITE_BYTES: Final = 2**20


class Storage:
    """Answers downloads."""

    def __init__(self, world: World) -> None:
        """Serve this world."""
        self._world = world

    def kind_of(self, request: web.BaseRequest) -> Kind:
        """Which call a request is."""
        of_file = request.path.startswith("/exports/") and request.method in {"GET", "HEAD"}
        return "download" if of_file else "other"

    async def handle(self, request: web.BaseRequest, record: Request) -> web.StreamResponse | None:
        """Answer a request.

        Args:
            request: The request.
            record: Its entry in the log.

        Returns:
            The answer, sent or to be sent; None if it is sent or there is none.
        """
        if record.kind == "other":
            return _error(404, "NoSuchKey", "The specified key does not exist.")
        export = _find(self._world.space, request)
        if isinstance(export, web.Response):
            return export
        record.export_id = export.id
        record.start, record.end = export.order.instants
        file_faults = self._world.faults.export_faults("download", record)
        # Download faults do not affect HEAD, which transfers nothing.
        is_get = request.method == "GET"
        fault = self._world.faults.next_fault("download", record) if is_get else None
        match fault:
            case StorageFailure():
                message = fault.message
                for name, value in request.query.items():
                    message = message.replace(f"{{{name}}}", value)
                return _error(fault.status, fault.code, message, fault.headers)
            case (
                None | Cut() | CutUnnoticed() | Drip() | MalformedHeader() | Stall() | WrongRange()
            ):
                stored = await asyncio.to_thread(_stored, self._world.space, export, file_faults)
                part = _part(stored, request)
                if isinstance(part, web.Response):
                    return part
                return await self._transfer(request, record, part, fault)
            case _:
                return await wire.common_answer(fault, request, record, self._world)

    async def _transfer(
        self, request: web.BaseRequest, record: Request, part: _Part, fault: Fault | None
    ) -> web.StreamResponse | None:
        body, headers = part.body, part.headers
        declared = headers | {"Content-Length": str(len(body))}
        match fault:
            case Cut():
                wire.begin(request, record, part.status, declared, body[: fault.at])
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
            case Drip():
                declared["Connection"] = "close"
                wire.begin(request, record, part.status, declared, b"")
                await wire.drip(request, record, body[: fault.count], fault.seconds, self._world)
                rest = b"" if fault.count is None else bytes(body[fault.count :])
                record.bytes_sent += len(rest)
                if request.transport is not None:
                    request.transport.write(rest)
                await wire.end(request)
            case MalformedHeader():
                declared["Connection"] = "close"
                wire.begin(request, record, part.status, declared, body, first_line=fault.line)
                await wire.end(request)
            case Stall():
                wire.begin(request, record, part.status, declared, body[: fault.at])
                await self._world.stopping.wait()
                wire.reset(request)
            case WrongRange():
                return await _send(request, record, part.shifted(fault.shift))
            case _:
                return await _send(request, record, part)
        return None


class _Stored(NamedTuple):
    """A stored file and how the store treats it, with all its faults."""

    data: bytes
    etag: str | None
    content_encoding: str | None
    ranges: bool
    conditions: bool


class _Part(NamedTuple):
    """The part of a file to send."""

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
    """The export of a presigned URL, or the error answer."""
    if "Authorization" in request.headers:
        return _error(
            400,
            "InvalidArgument",
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, "
            "Signature query string parameter or the Authorization header should be specified",
        )
    problem = space.check_url(request.raw_path)
    if problem is not None:
        code = "AccessDenied" if "expired" in problem else "SignatureDoesNotMatch"
        return _error(403, code, problem)
    export = space.find_file(request.path)
    return export or _error(404, "NoSuchKey", "The specified key does not exist.")


def _stored(space: Space, export: Export, faults: list[Fault]) -> _Stored:
    """The file with its faults."""
    file_faults = [fault for fault in faults if isinstance(fault, FileFault)]
    form = FileForm()
    for fault in file_faults:
        form = fault.change_form(form)
    data, etag, _ = space.file(export, form)
    for fault in file_faults:
        data = fault.change_data(data)
    kinds = {type(fault) for fault in file_faults}
    return _Stored(
        data,
        None if NoETag in kinds else etag_of(data) if file_faults else etag,
        form.content_encoding,
        ranges=NoRanges not in kinds,
        conditions=not kinds & {NoETag, IgnoresIfMatch},
    )


def _part(stored: _Stored, request: web.BaseRequest) -> _Part | web.Response:
    """Apply the conditions and the range of a request; the part to send, or the error answer."""
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
        headers = {"Content-Range": f"bytes */{size}"}
        return _error(416, "InvalidRange", "The requested range is not satisfiable", headers)
    return _Part(stored, 206, start, end)


async def _send(request: web.BaseRequest, record: Request, part: _Part) -> web.StreamResponse:
    response = web.StreamResponse(status=part.status, headers=part.headers)
    body = part.body
    response.content_length = len(body)
    record.status = part.status
    await response.prepare(request)
    if request.method != "HEAD":
        for start in range(0, len(body), _WRITE_BYTES):
            block = body[start : start + _WRITE_BYTES]
            record.bytes_sent += len(block)
            await response.write(block)
    return response


def _error(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An error in S3's XML."""
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{escape(message)}</Message>"
        "<RequestId>SIMULATED</RequestId></Error>"
    )
    return web.Response(
        status=status, body=xml.encode(), content_type="application/xml", headers=headers
    )
