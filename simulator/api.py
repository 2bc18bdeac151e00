"""The HTTP API of a simulated Space."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import msgspec

from simulator import wire
from simulator.faults import (
    ExportFault,
    MalformedHeader,
    Refuse,
    Reset,
    Respond,
    TooManyRequests,
)
from simulator.server_state import API_PREFIX
from simulator.space import Quota, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from simulator.request_log import Kind, Request
    from simulator.server_state import ServerState
    from simulator.space import ApiEndpoint, Space

    _Result = tuple[int, dict[str, object]]

OVERVIEW = "/simulator"

_EXPORTS = f"{API_PREFIX}/contacts/exports"


class Api:
    """Cometly's two endpoints and `GET /simulator`."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def kind_of(self, request: web.BaseRequest) -> Kind:
        """The kind of a request."""
        if request.method == "POST" and request.path == _EXPORTS:
            return "create"
        if request.method == "GET" and _export_id(request).isdecimal():
            return "poll"
        return "other"

    async def handle(self, request: web.BaseRequest, entry: Request) -> web.Response | None:
        """The response to a request, or None if aiohttp has nothing to send.

        Args:
            request: The request.
            entry: Its log entry, to be completed.
        """
        if entry.kind == "create":
            return await self._create(request, entry)
        if entry.kind == "poll":
            return await self._poll(request, entry)
        if request.method == "GET" and request.path == OVERVIEW:
            return wire.json_response(200, self._state.overview())
        message = f"The route {request.path.lstrip('/')} could not be found."
        return wire.json_response(404, {"message": message})

    async def _create(self, request: web.BaseRequest, entry: Request) -> web.Response | None:
        state, space = self._state, self._state.space
        entry.json = _read_json(request, await request.read())
        # `create` refuses an invalid request, after the key and the rate limit.
        with suppress(Refused):
            entry.start, entry.end = space.parse_export_request(entry.json).utc_window

        def create() -> _Result:
            export = space.create(space.parse_export_request(entry.json))
            entry.export_id = export.id
            state.faults.export_faults("create", entry)
            return 202, {"export_id": export.id, "status": "queued"}

        return await self._answer("create", request, entry, create)

    async def _poll(self, request: web.BaseRequest, entry: Request) -> web.Response | None:
        state, space = self._state, self._state.space
        export = space.exports.get(int(_export_id(request)))
        if export is not None:
            entry.export_id = export.id
            entry.start, entry.end = export.request.utc_window

        def poll() -> _Result:
            if export is None:
                raise Refused(404, "Export not found.")
            response = space.poll(export, state.storage_url)
            for fault in state.faults.export_faults("poll", entry):
                if isinstance(fault, ExportFault):
                    response = fault.change_response(response, export, space)
            entry.export_status = str(response["status"])
            return 200, response

        return await self._answer("poll", request, entry, poll)

    async def _answer(
        self,
        endpoint: ApiEndpoint,
        request: web.BaseRequest,
        entry: Request,
        call: Callable[[], _Result],
    ) -> web.Response | None:
        space = self._state.space
        fault = self._state.faults.next_fault(endpoint, entry)
        match fault:
            case None:
                return _normal_response(endpoint, request, space, call)
            case MalformedHeader():
                response = _normal_response(endpoint, request, space, call)
                headers = dict(response.headers) | {"Connection": "close"}
                body = (response.text or "").encode()
                wire.send(request, entry, response.status, headers, body, first_line=fault.line)
                await wire.close(request)
                return None
            case TooManyRequests():
                headers = Quota(space.limit(endpoint), 0, None).headers
                return _too_many_requests(headers | _retry_after(fault, space))
            case Refuse():
                echo = f" ({request.headers.get('Authorization')})" if fault.echo else ""
                payload: dict[str, object] = {"message": fault.message + echo}
                if fault.errors is not None:
                    payload["errors"] = fault.errors
                return wire.json_response(fault.status, payload)
            case Respond(accepted=True) | Reset(accepted=True):
                _normal_response(endpoint, request, space, call)
        return await wire.common_response(fault, request, entry, self._state)


def _export_id(request: web.BaseRequest) -> str:
    return request.path.removeprefix(f"{_EXPORTS}/")


def _normal_response(
    endpoint: ApiEndpoint, request: web.BaseRequest, space: Space, call: Callable[[], _Result]
) -> web.Response:
    """Check the key and the rate limit, then make the call."""
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
    return wire.json_response(status, payload, headers)


def _retry_after(fault: TooManyRequests, space: Space) -> dict[str, str]:
    if fault.retry_after is None:
        return {}
    if fault.retry_after == "http-date":
        in_two_seconds = datetime.fromtimestamp(space.now(), UTC) + timedelta(seconds=2)
        return {"Retry-After": format_datetime(in_two_seconds, usegmt=True)}
    return {"Retry-After": str(fault.retry_after)}


def _too_many_requests(headers: dict[str, str]) -> web.Response:
    return wire.json_response(429, {"message": "Too Many Attempts."}, headers)


def _read_json(request: web.BaseRequest, body: bytes) -> object:
    """Decode a body like Laravel: None if the content type is not JSON or the JSON is invalid."""
    if "json" not in request.content_type:
        return None
    try:
        decoded: object = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    return decoded
