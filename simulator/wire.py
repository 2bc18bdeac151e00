"""Answers that aiohttp would not send: malformed, incomplete or none at all."""

from __future__ import annotations

import asyncio
import socket
import struct
from http import HTTPStatus
from itertools import repeat
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from simulator.faults import Answer, Drip, Hang, Redirect, Reset, ServerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from simulator.faults import Fault
    from simulator.journal import Request
    from simulator.world import World

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def json_answer(
    status: int, payload: object, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An answer with JSON."""
    return web.Response(
        status=status,
        body=msgspec.json.encode(payload),
        content_type="application/json",
        headers=headers,
    )


async def common_answer(
    fault: Fault, request: web.BaseRequest, record: Request, world: World
) -> web.Response | None:
    """The answer with a fault that can affect any request; None if it is sent or there is none.

    Raises:
        TypeError: The fault is of another kind.
    """
    match fault:
        case ServerError():
            return web.Response(status=fault.status, text=fault.html, content_type="text/html")
        case Redirect():
            return web.Response(status=fault.status, headers={"Location": fault.location})
        case Answer(body=bytes() as body):
            return web.Response(status=fault.status, body=body, headers=fault.headers)
        case Answer(body=str() as text):
            return web.Response(status=fault.status, body=text.encode(), headers=fault.headers)
        case Answer():
            return json_answer(fault.status, fault.body, fault.headers)
        case Reset():
            reset(request)
        case Hang():
            await world.stopping.wait()
            reset(request)
        case Drip():
            headers = {"Content-Type": "application/json", "Connection": "close"}
            begin(request, record, HTTPStatus.OK, headers, b"{")
            await drip(request, record, repeat(ord(" ")), fault.seconds, world)
        case _:
            message = f"{fault!r} cannot affect this request"
            raise TypeError(message)
    return None


def reset(request: web.BaseRequest) -> None:
    """Reset the connection (RST)."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()


def begin(  # noqa: PLR0913
    request: web.BaseRequest,
    record: Request,
    status: int,
    headers: Mapping[str, str],
    body: bytes | memoryview,
    *,
    first_line: str | None = None,
) -> None:
    """Send a head, and a body that need not fit it.

    Args:
        request: The request to answer.
        record: Its entry in the log.
        status: The HTTP status.
        headers: The headers.
        body: The first bytes of the body.
        first_line: A line before the headers.
    """
    record.status = status
    record.bytes_sent += len(body)
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines.extend([first_line] if first_line else [])
    lines.extend(f"{name}: {value}" for name, value in headers.items())
    if request.transport is not None:
        request.transport.write("\r\n".join([*lines, "", ""]).encode() + bytes(body))


async def drip(
    request: web.BaseRequest, record: Request, body: Iterable[int], seconds: float, world: World
) -> None:
    """Send a body byte by byte, until the client disconnects or the server stops."""
    for byte in body:
        transport = request.transport
        if transport is None or transport.is_closing() or world.stopping.is_set():
            break
        transport.write(bytes([byte]))
        record.bytes_sent += 1
        await world.pause(seconds)


async def end(request: web.BaseRequest, *, with_reset: bool = False) -> None:
    """Close the connection after all data was sent.

    Args:
        request: The answered request.
        with_reset: RST instead of FIN.
    """
    transport = request.transport
    if transport is not None and with_reset:
        while transport.get_write_buffer_size():  # noqa: ASYNC110 - a transport has no event for it
            await asyncio.sleep(0.001)
        reset(request)
    elif transport is not None:
        transport.close()
