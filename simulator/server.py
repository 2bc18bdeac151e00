"""The HTTP servers of a simulated Space: API and storage."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Self

from aiohttp import web

from simulator.api import OVERVIEW, Api
from simulator.request_log import Request
from simulator.server_state import ServerState
from simulator.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from simulator.space import Space

    _Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Simulator(ServerState):
    """Serves a Space from an event loop in its own thread, as a context manager or by `start()`.

    Args:
        space: The Space to serve.
        host: The address to listen on.
        api_port: The port of the API; 0: any free port.
        storage_port: The port of the storage; 0: any free port.
        on_response: Called in the server's thread after each request.
    """

    def __init__(
        self,
        space: Space,
        host: str = "127.0.0.1",
        api_port: int = 0,
        storage_port: int = 0,
        on_response: Callable[[Request], None] | None = None,
    ) -> None:
        super().__init__(space, host, api_port, storage_port)
        self._on_response = on_response
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start listening.

        Raises:
            OSError: A port is in use.
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
        """Abort all connections and stop listening, if running."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
            self._thread = None

    def reset(self, space: Space) -> None:
        """Serve another Space on the same ports; remove faults and logged requests.

        Hanging requests are aborted.

        Raises:
            RuntimeError: The simulator is stopped.
        """

        async def replace() -> None:
            self.stopping.set()
            self.stopping = asyncio.Event()
            self.space = space
            self.faults.clear()
            self.requests.clear()

        asyncio.run_coroutine_threadsafe(replace(), self._loop).result()

    def __enter__(self) -> Self:  # noqa: D105
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:  # noqa: D105
        self.stop()

    async def _serve(self, started: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.stopping = asyncio.Event()
        servers = [
            web.Server(self._logged(service), access_log=None, handler_cancellation=True)
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

    def _logged(self, service: Api | Storage) -> _Handler:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            entry = Request(
                service.kind_of(request),
                self.space.now(),
                request.method,
                request.path,
                request.query,
                request.headers,
            )
            if request.path != OVERVIEW:
                self.log(entry)
            try:
                response = await service.handle(request, entry)
                if response is None:
                    return web.Response()
                entry.status = response.status
                if isinstance(response, web.Response) and isinstance(response.body, bytes):
                    entry.bytes_sent = len(response.body)
                return response
            finally:
                if self._on_response is not None:
                    self._on_response(entry)

        return handle


async def _listen(runner: web.ServerRunner, host: str, port: int) -> int:
    """Start listening and return the port."""
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    bound_port: int = runner.addresses[0][1]
    return bound_port
