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
    Drip,
    Fault,
    FileFault,
    IgnoresIfMatch,
    MalformedHeader,
    NoETag,
    NoRanges,
    Stall,
    StorageFailure,
    WithoutLength,
    WrongRange,
)
from simulator.files import FileLayout
from simulator.space import etag_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from simulator.request_log import Kind, Request
    from simulator.server_state import ServerState
    from simulator.space import Export, Space

_RANGE: Final = re.compile(r"bytes=(\d+)-", re.ASCII)
_WRITE_BYTES: Final = 2**20


class Storage:
    """Responds to downloads."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def kind_of(self, request: web.BaseRequest) -> Kind:
        """The kind of a request."""
        is_download = request.method == "GET" and request.path.startswith("/exports/")
        return "download" if is_download else "other"

    async def handle(self, request: web.BaseRequest, entry: Request) -> web.StreamResponse | None:
        """The response to a request, or None if aiohttp has nothing to send.

        Args:
            request: The request.
            entry: Its log entry, to be completed.
        """
        if entry.kind == "other":
            return _error(404, "NoSuchKey", "The specified key does not exist.")
        export = _find(self._state.space, request)
        if isinstance(export, web.Response):
            return export
        entry.export_id = export.id
        entry.start, entry.end = export.request.utc_window
        file_faults = self._state.faults.export_faults("download", entry)
        fault = self._state.faults.next_fault("download", entry)
        match fault:
            case StorageFailure():
                message = fault.message
                for name, value in request.query.items():
                    message = message.replace(f"{{{name}}}", value)
                return _error(fault.status, fault.code, message, fault.headers)
            case (
                None | Cut() | WithoutLength() | Drip() | MalformedHeader() | Stall() | WrongRange()
            ):
                stored = await asyncio.to_thread(_stored, self._state.space, export, file_faults)
                part = _part(stored, request)
                if isinstance(part, web.Response):
                    return part
                return await self._transfer(request, entry, part, fault)
            case _:
                return await wire.common_response(fault, request, entry, self._state)

    async def _transfer(
        self, request: web.BaseRequest, entry: Request, part: _Part, fault: Fault | None
    ) -> web.StreamResponse | None:
        body, headers = part.body, part.headers
        declared = headers | {"Content-Length": str(len(body))}
        match fault:
            case Cut():
                wire.send(request, entry, part.status, declared, body[: fault.at])
                await wire.close(request, with_reset=fault.reset)
            case WithoutLength(chunked=False):
                headers["Connection"] = "close"
                wire.send(request, entry, part.status, headers, body[: fault.at])
                await wire.close(request)
            case WithoutLength():
                headers["Transfer-Encoding"] = "chunked"
                chunk = bytes(body[: fault.at])
                framed = b"%x\r\n%b\r\n" % (len(chunk), chunk)
                wire.send(request, entry, part.status, headers, framed)
                await wire.close(request)
            case Drip():
                declared["Connection"] = "close"
                wire.send(request, entry, part.status, declared, b"")
                await wire.drip(request, entry, body[: fault.count], fault.seconds, self._state)
                rest = b"" if fault.count is None else bytes(body[fault.count :])
                entry.bytes_sent += len(rest)
                if request.transport is not None:
                    request.transport.write(rest)
                await wire.close(request)
            case MalformedHeader():
                declared["Connection"] = "close"
                wire.send(request, entry, part.status, declared, body, first_line=fault.line)
                await wire.close(request)
            case Stall():
                wire.send(request, entry, part.status, declared, body[: fault.at])
                await self._state.stopping.wait()
                wire.reset(request)
            case WrongRange():
                return await _send(request, entry, part.shifted(fault.shift))
            case _:
                return await _send(request, entry, part)
        return None


class _StoredObject(NamedTuple):
    """A stored file and the storage's features, with all faults applied."""

    data: bytes
    etag: str | None
    content_encoding: str | None
    ranges: bool
    conditions: bool


class _Part(NamedTuple):
    """The rest of a file from `start` on, to be sent."""

    stored: _StoredObject
    status: int
    start: int

    @property
    def body(self) -> memoryview:
        return memoryview(self.stored.data)[self.start :]

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
            headers["Content-Range"] = f"bytes {self.start}-{size - 1}/{size}"
        return headers

    def shifted(self, by: int) -> _Part:
        last = max(0, len(self.stored.data) - 1)
        return self._replace(start=min(max(0, self.start + by), last))


def _find(space: Space, request: web.BaseRequest) -> Export | web.Response:
    """The export that a presigned URL is for, or an error response."""
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


def _stored(space: Space, export: Export, faults: list[Fault]) -> _StoredObject:
    """The file of an export, with faults applied."""
    file_faults = [fault for fault in faults if isinstance(fault, FileFault)]
    layout = FileLayout()
    for fault in file_faults:
        layout = fault.change_layout(layout)
    data, etag, _ = space.file(export, layout)
    for fault in file_faults:
        data = fault.change_data(data)
    kinds = {type(fault) for fault in file_faults}
    return _StoredObject(
        data,
        None if NoETag in kinds else etag_of(data) if file_faults else etag,
        layout.content_encoding,
        ranges=NoRanges not in kinds,
        conditions=not kinds & {NoETag, IgnoresIfMatch},
    )


def _part(stored: _StoredObject, request: web.BaseRequest) -> _Part | web.Response:
    """The part of a file that a request asks for, or an error response."""
    if_match = request.headers.get("If-Match", "*")
    if stored.conditions and if_match not in ("*", stored.etag):
        message = "At least one of the pre-conditions you specified did not hold"
        return _error(412, "PreconditionFailed", message)
    match = _RANGE.fullmatch(request.headers.get("Range", ""))
    if not stored.ranges or match is None:
        return _Part(stored, 200, 0)
    start = int(match[1])
    if start >= len(stored.data):
        headers = {"Content-Range": f"bytes */{len(stored.data)}"}
        return _error(416, "InvalidRange", "The requested range is not satisfiable", headers)
    return _Part(stored, 206, start)


async def _send(request: web.BaseRequest, entry: Request, part: _Part) -> web.StreamResponse:
    response = web.StreamResponse(status=part.status, headers=part.headers)
    body = part.body
    response.content_length = len(body)
    entry.status = part.status
    await response.prepare(request)
    for start in range(0, len(body), _WRITE_BYTES):
        block = body[start : start + _WRITE_BYTES]
        entry.bytes_sent += len(block)
        await response.write(block)
    return response


def _error(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An S3 error with XML."""
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{escape(message)}</Message>"
        "<RequestId>SIMULATED</RequestId></Error>"
    )
    return web.Response(
        status=status, body=xml.encode(), content_type="application/xml", headers=headers
    )
