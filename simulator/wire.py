"""Answers that aiohttp is too well-behaved to give: broken, silent or none at all."""

from __future__ import annotations

import asyncio
import socket
import struct
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from simulator.faults import Answer, Hang, Redirect, Reset, ServerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from simulator.faults import Fault
    from simulator.journal import Request

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def json_answer(
    status: int, payload: object, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Make an answer of JSON."""
    return web.Response(
        status=status,
        body=msgspec.json.encode(payload),
        content_type="application/json",
        headers=headers,
    )


async def common_answer(
    fault: Fault, request: web.BaseRequest, stopping: asyncio.Event
) -> web.Response | None:
    """Answer with a fault that any request can meet.

    Args:
        fault: The fault.
        request: What is answered.
        stopping: Is set when the server stops.

    Returns:
        The answer; None if there is none.

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
            await stopping.wait()
            reset(request)
        case _:
            message = f"no request meets {fault!r}"
            raise TypeError(message)
    return None


def reset(request: web.BaseRequest) -> None:
    """Reset the connection (RST)."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()


def begin(
    request: web.BaseRequest,
    record: Request,
    status: int,
    headers: Mapping[str, str],
    body: bytes | memoryview,
) -> None:
    """Write the head of an answer and what there is of its body, whatever the head promises."""
    record.status = status
    record.bytes_sent += len(body)
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines.extend(f"{name}: {value}" for name, value in headers.items())
    if request.transport is not None:
        request.transport.write("\r\n".join([*lines, "", ""]).encode() + bytes(body))


async def end(request: web.BaseRequest, *, with_reset: bool = False) -> None:
    """Close the connection, once what is written has left.

    Args:
        request: What was answered.
        with_reset: RST instead of FIN.
    """
    transport = request.transport
    if transport is not None and with_reset:
        while transport.get_write_buffer_size():  # noqa: ASYNC110 - a transport has no event for it
            await asyncio.sleep(0.001)
        reset(request)
    elif transport is not None:
        transport.close()
