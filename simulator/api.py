"""The HTTP API of a simulated Space."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import msgspec

from simulator import wire
from simulator.faults import (
    Answer,
    ExportFault,
    MalformedHeader,
    Refuse,
    Reset,
    TooManyRequests,
)
from simulator.space import Quota, Refused
from simulator.world import API_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from simulator.journal import Kind, Request
    from simulator.space import Endpoint, Space
    from simulator.world import World

    _Result = tuple[int, dict[str, object]]

OVERVIEW = "/simulator"

_EXPORTS = f"{API_PREFIX}/contacts/exports"


class Api:
    """Cometly's two calls and `GET /simulator`."""

    def __init__(self, world: World) -> None:
        """Serve this world."""
        self._world = world

    def kind_of(self, request: web.BaseRequest) -> Kind:
        """Which call a request is."""
        if request.method == "POST" and request.path == _EXPORTS:
            return "create"
        if request.method == "GET" and _export_id(request).isdecimal():
            return "poll"
        return "other"

    async def handle(self, request: web.BaseRequest, record: Request) -> web.Response | None:
        """Answer a request.

        Args:
            request: The request.
            record: Its entry in the log.

        Returns:
            The answer to send; None if it is sent or there is none.
        """
        if record.kind == "create":
            return await self._create(request, record)
        if record.kind == "poll":
            return await self._poll(request, record)
        if request.method == "GET" and request.path == OVERVIEW:
            return wire.json_answer(200, self._world.overview())
        message = f"The route {request.path.lstrip('/')} could not be found."
        return wire.json_answer(404, {"message": message})

    async def _create(self, request: web.BaseRequest, record: Request) -> web.Response | None:
        world, space = self._world, self._world.space
        record.json = _read_json(request, await request.read())
        # The refusal comes later, after key and rate limit.
        with suppress(Refused):
            record.start, record.end = space.read_order(record.json).instants

        def create() -> _Result:
            export = space.create(space.read_order(record.json))
            record.export_id = export.id
            world.faults.export_faults("create", record)
            return 202, {"export_id": export.id, "status": "queued"}

        return await self._answer("create", request, record, create)

    async def _poll(self, request: web.BaseRequest, record: Request) -> web.Response | None:
        world, space = self._world, self._world.space
        export = space.exports.get(int(_export_id(request)))
        if export is not None:
            record.export_id = export.id
            record.start, record.end = export.order.instants

        def poll() -> _Result:
            if export is None:
                raise Refused(404, "Export not found.")
            answer = space.poll(export, world.storage_url)
            for fault in world.faults.export_faults("poll", record):
                if isinstance(fault, ExportFault):
                    answer = fault.change_answer(answer, export, space)
            record.said = str(answer["status"])
            return 200, answer

        return await self._answer("poll", request, record, poll)

    async def _answer(
        self,
        endpoint: Endpoint,
        request: web.BaseRequest,
        record: Request,
        call: Callable[[], _Result],
    ) -> web.Response | None:
        space = self._world.space
        fault = self._world.faults.next_fault(endpoint, record)
        match fault:
            case None:
                return _normal_answer(endpoint, request, space, call)
            case MalformedHeader():
                answer = _normal_answer(endpoint, request, space, call)
                headers = dict(answer.headers) | {"Connection": "close"}
                body = (answer.text or "").encode()
                wire.begin(request, record, answer.status, headers, body, first_line=fault.line)
                await wire.end(request)
                return None
            case TooManyRequests():
                headers = Quota(space.limit(endpoint), 0, None).headers
                return _too_many_requests(headers | _retry_after(fault, space))
            case Refuse():
                echo = f" ({request.headers.get('Authorization')})" if fault.echo else ""
                payload: dict[str, object] = {"message": fault.message + echo}
                if fault.errors is not None:
                    payload["errors"] = fault.errors
                return wire.json_answer(fault.status, payload)
            case Answer(accepted=True) | Reset(accepted=True):
                _normal_answer(endpoint, request, space, call)
        return await wire.common_answer(fault, request, record, self._world)


def _export_id(request: web.BaseRequest) -> str:
    return request.path.removeprefix(f"{_EXPORTS}/")


def _normal_answer(
    endpoint: Endpoint, request: web.BaseRequest, space: Space, call: Callable[[], _Result]
) -> web.Response:
    """Check the key, then the rate limit, then make the call."""
    headers: dict[str, str] = {}
    try:
        space.authorize(request.headers.get("Authorization"))
        quota = space.admit(endpoint)
        headers = quota.headers
        if quota.retry_after is not None:
            return _too_many_requests(headers)
        status, payload = call()
    except Refused as refusal:
        payload = {"message": refusal.message}
        if refusal.errors:
            payload["errors"] = refusal.errors
        status = refusal.status
    return wire.json_answer(status, payload, headers)


def _retry_after(fault: TooManyRequests, space: Space) -> dict[str, str]:
    if fault.retry_after is None:
        return {}
    if fault.retry_after == "http-date":
        in_two_seconds = datetime.fromtimestamp(space.now(), UTC) + timedelta(seconds=2)
        return {"Retry-After": format_datetime(in_two_seconds, usegmt=True)}
    return {"Retry-After": str(fault.retry_after)}


def _too_many_requests(headers: dict[str, str]) -> web.Response:
    return wire.json_answer(429, {"message": "Too Many Attempts."}, headers)


def _read_json(request: web.BaseRequest, body: bytes) -> object:
    """Decode a body as Laravel does: None without its content type or with broken JSON."""
    if "json" not in request.content_type:
        return None
    try:
        decoded: object = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    return decoded
