"""Responses that aiohttp cannot send: malformed, incomplete or none at all."""

from __future__ import annotations

import asyncio
import socket
import struct
from http import HTTPStatus
from itertools import repeat
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from simulator.faults import Drip, Hang, Redirect, Reset, Respond, ServerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from simulator.faults import Fault
    from simulator.request_log import Request
    from simulator.server_state import ServerState

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def json_response(
    status: int, payload: object, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A response with a JSON body."""
    return web.Response(
        status=status,
        body=msgspec.json.encode(payload),
        content_type="application/json",
        headers=headers,
    )


async def common_response(
    fault: Fault, request: web.BaseRequest, entry: Request, state: ServerState
) -> web.Response | None:
    """The response for a fault that applies to any request; None if it needs none from aiohttp.

    Raises:
        TypeError: The fault does not apply to any request.
    """
    match fault:
        case ServerError():
            return web.Response(status=fault.status, text=fault.html, content_type="text/html")
        case Redirect():
            return web.Response(status=fault.status, headers={"Location": fault.location})
        case Respond(body=bytes() as body):
            return web.Response(status=fault.status, body=body, headers=fault.headers)
        case Respond(body=str() as text):
            return web.Response(status=fault.status, body=text.encode(), headers=fault.headers)
        case Respond():
            return json_response(fault.status, fault.body, fault.headers)
        case Reset():
            reset(request)
        case Hang():
            await state.stopping.wait()
            reset(request)
        case Drip():
            headers = {"Content-Type": "application/json", "Connection": "close"}
            send(request, entry, HTTPStatus.OK, headers, b"{")
            await drip(request, entry, repeat(ord(" ")), fault.seconds, state)
        case _:
            message = f"{fault!r} does not apply to this request"
            raise TypeError(message)
    return None


def reset(request: web.BaseRequest) -> None:
    """Reset the connection (RST)."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()


def send(  # noqa: PLR0913
    request: web.BaseRequest,
    entry: Request,
    status: int,
    headers: Mapping[str, str],
    body: bytes | memoryview,
    *,
    first_line: str | None = None,
) -> None:
    """Send headers and a body, whether they match or not.

    Args:
        request: The request to respond to.
        entry: Its entry in the log.
        status: The HTTP status.
        headers: The headers.
        body: The first bytes of the body.
        first_line: A raw line before the headers.
    """
    entry.status = status
    entry.bytes_sent += len(body)
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines.extend([first_line] if first_line else [])
    lines.extend(f"{name}: {value}" for name, value in headers.items())
    if request.transport is not None:
        request.transport.write("\r\n".join([*lines, "", ""]).encode() + bytes(body))


async def drip(
    request: web.BaseRequest,
    entry: Request,
    body: Iterable[int],
    seconds: float,
    state: ServerState,
) -> None:
    """Send a body byte by byte until the client disconnects or the server stops."""
    for byte in body:
        transport = request.transport
        if transport is None or transport.is_closing() or state.stopping.is_set():
            break
        transport.write(bytes([byte]))
        entry.bytes_sent += 1
        await state.pause(seconds)


async def close(request: web.BaseRequest, *, with_reset: bool = False) -> None:
    """Close the connection when all data is sent, with FIN or RST."""
    transport = request.transport
    if transport is not None and with_reset:
        while transport.get_write_buffer_size():  # noqa: ASYNC110 - a transport has no event for this
            await asyncio.sleep(0.001)
        reset(request)
    elif transport is not None:
        transport.close()
