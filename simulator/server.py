"""A Space behind two real ports: the API's and the storage's."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from concurrent.futures import Future
from typing import TYPE_CHECKING, Self

from aiohttp import web

from simulator.api import OVERVIEW, PREFIX, Api
from simulator.faults import Faults
from simulator.journal import Request
from simulator.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from simulator.journal import Kind
    from simulator.space import Space

    _Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Simulator:
    """Serves a Space on an event loop in a thread of its own.

    A context manager, or `start()` and `stop()`.

    Attributes:
        space: The Space it serves.
        faults: What goes wrong; nothing at first.
        requests: What it was asked, in order of arrival, but for `GET /simulator`.
        stopping: Is set when connections that hang are to end.
    """

    def __init__(
        self,
        space: Space,
        host: str = "127.0.0.1",
        api_port: int = 0,
        storage_port: int = 0,
        on_answer: Callable[[Request], None] | None = None,
    ) -> None:
        """Prepare to serve.

        Args:
            space: What to serve.
            host: Address to listen on.
            api_port: Port of the API; 0: any free one.
            storage_port: Port of the storage; 0: any free one.
            on_answer: Is called, in the server's thread, when a request is over.
        """
        self.space = space
        self.faults = Faults()
        self.requests: list[Request] = []
        self._host = host
        self._ports = (api_port, storage_port)
        self._on_answer = on_answer
        self._thread: threading.Thread | None = None
        self._asked = threading.Condition()
        self.stopping = asyncio.Event()

    @property
    def api_url(self) -> str:
        """The tap's `api_url`."""
        return f"http://{self._host}:{self._ports[0]}{PREFIX}"

    @property
    def storage_url(self) -> str:
        """Origin of the storage."""
        return f"http://{self._host}:{self._ports[1]}"

    def start(self) -> None:
        """Listen; returns once requests are answered.

        Raises:
            OSError: A port is taken.
        """
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=asyncio.run, args=[self._serve(started)], name="simulator", daemon=True
        )
        self._thread.start()
        try:
            started.result()
        except OSError:
            self._thread.join()
            self._thread = None
            raise

    def stop(self) -> None:
        """Break off what is under way, and listen no more. Stopping twice does nothing."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
            self._thread = None

    def reset(self, space: Space) -> None:
        """Put another Space behind the same ports, without faults and requests.

        Args:
            space: What to serve from now on. Requests that hang are broken off.

        Raises:
            RuntimeError: It has been stopped.
        """

        async def replace() -> None:
            self.stopping.set()
            self.stopping = asyncio.Event()
            self.space = space
            self.faults.clear()
            self.requests.clear()

        asyncio.run_coroutine_threadsafe(replace(), self._loop).result()

    def wait_until_asked(self, kind: Kind, count: int = 1, timeout: float = 10) -> None:
        """Wait until there were so many requests of a kind.

        Args:
            kind: `create`, `poll` or `download`.
            count: How many.
            timeout: How long to wait for them, in seconds.

        Raises:
            TimeoutError: They did not come.
        """

        def came() -> bool:
            return sum(request.kind == kind for request in self.requests) >= count

        with self._asked:
            if not self._asked.wait_for(came, timeout):
                message = f"not asked {count} times to {kind} within {timeout} s"
                raise TimeoutError(message)

    def overview(self) -> dict[str, object]:
        """Give what `GET /simulator` tells: the Space, the requests by status, the exports."""
        space = self.space
        answers = Counter((request.kind, request.status) for request in list(self.requests))
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
                for (kind, status), count in answers.items()
            ],
            "exports": [
                {
                    "export_id": export.id,
                    "start_date": export.order.start.isoformat(),
                    "end_date": export.order.end.isoformat(),
                    "status": space.status(export),
                    "polls": export.polls,
                    "contacts": export.contacts,
                }
                for export in list(space.exports.values())
            ],
        }

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    async def _serve(self, started: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.stopping = asyncio.Event()
        servers = [
            web.Server(self._recorded(service), access_log=None, handler_cancellation=True)
            for service in (Api(self), Storage(self))
        ]
        runners = [web.ServerRunner(server, shutdown_timeout=1.0) for server in servers]
        try:
            self._ports = (
                await _listen(runners[0], self._host, self._ports[0]),
                await _listen(runners[1], self._host, self._ports[1]),
            )
            started.set_result(None)
            await self._stop.wait()
        except OSError as error:
            started.set_exception(error)
        finally:
            self.stopping.set()
            for server in servers:
                for connection in server.connections:
                    if connection.transport is not None:
                        connection.transport.abort()
            for runner in runners:
                await runner.cleanup()

    def _recorded(self, service: Api | Storage) -> _Answer:
        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            record = Request(
                service.kind_of(request),
                self.space.now(),
                request.method,
                request.path,
                request.query,
                request.headers,
            )
            if request.path != OVERVIEW:
                with self._asked:
                    self.requests.append(record)
                    self._asked.notify_all()
            try:
                response = await service.handle(request, record)
                if response is None:
                    return web.Response()
                record.status = response.status
                if isinstance(response, web.Response) and isinstance(response.body, bytes):
                    record.bytes_sent = len(response.body)
                return response
            finally:
                if self._on_answer is not None:
                    self._on_answer(record)

        return answer


async def _listen(runner: web.ServerRunner, host: str, port: int) -> int:
    """Listen, and give the port."""
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    taken: int = runner.addresses[0][1]
    return taken
