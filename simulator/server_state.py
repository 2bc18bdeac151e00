"""What the API and the storage share: the Space, its faults, URLs and request log."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import TYPE_CHECKING

from simulator.faults import Faults

if TYPE_CHECKING:
    from simulator.request_log import Kind, Request
    from simulator.space import Space

API_PREFIX = "/public-api/v1"


class ServerState:
    """The state shared by the two servers.

    Attributes:
        space: The Space being served.
        faults: The injected faults.
        requests: All requests in order of arrival, except `GET /simulator`.
        stopping: Set to end hanging requests.
    """

    def __init__(self, space: Space, host: str, api_port: int, storage_port: int) -> None:
        self.space = space
        self.faults = Faults()
        self.requests: list[Request] = []
        self.stopping = asyncio.Event()
        self._host = host
        self._ports = (api_port, storage_port)
        self._arrival = threading.Condition()

    @property
    def api_url(self) -> str:
        """The tap's `api_url`."""
        return f"http://{self._host}:{self._ports[0]}{API_PREFIX}"

    @property
    def storage_url(self) -> str:
        """Origin of the storage."""
        return f"http://{self._host}:{self._ports[1]}"

    def log(self, request: Request) -> None:
        """Append to `requests`."""
        with self._arrival:
            self.requests.append(request)
            self._arrival.notify_all()

    async def pause(self, seconds: float) -> None:
        """Sleep by the Space's clock."""
        if self.space.sleep is None:
            await asyncio.sleep(seconds)
        else:
            self.space.sleep(seconds)
            await asyncio.sleep(0.001)  # lets the event loop send what was written

    def wait_for_requests(self, kind: Kind, count: int = 1, timeout: float = 10) -> None:
        """Block until `count` requests of a kind have arrived.

        Raises:
            TimeoutError: Fewer arrived within `timeout` seconds.
        """

        def arrived() -> bool:
            return sum(request.kind == kind for request in self.requests) >= count

        with self._arrival:
            if not self._arrival.wait_for(arrived, timeout):
                message = f"fewer than {count} {kind} requests arrived within {timeout} s"
                raise TimeoutError(message)

    def overview(self) -> dict[str, object]:
        """The JSON of `GET /simulator`: the Space, requests by status, exports."""
        space = self.space
        responses = Counter((request.kind, request.status) for request in list(self.requests))
        return {
            "space": {
                "contacts": len(space.population),
                "timezone": space.timezone,
                "end_inclusive": space.end_inclusive,
                "creates_per_minute": space.creates_per_minute,
                "polls_per_minute": space.polls_per_minute,
                "url_lifetime_seconds": space.url_lifetime_seconds,
            },
            "requests": [
                {"kind": kind, "status": status, "count": count}
                for (kind, status), count in responses.items()
            ],
            "exports": [
                {
                    "export_id": export.id,
                    "start_date": export.request.start.isoformat(),
                    "end_date": export.request.end.isoformat(),
                    "status": space.status(export),
                    "polls": export.polls,
                    "contacts": export.contacts,
                }
                for export in list(space.exports.values())
            ],
        }
