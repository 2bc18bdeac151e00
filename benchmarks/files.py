"""A Cometly that serves one file, as long as one likes, and does nothing else: no bottleneck."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from types import TracebackType

API_KEY = "benchmark-key"

_NANOSECONDS = 1e9
_WRITE_BYTES = 2**20


class File(NamedTuple):
    """An export's file.

    Attributes:
        member: Gzip.
        repeats: How often it is sent, one after the other.
    """

    member: bytes
    repeats: int


class FileServer:
    """Answers every export with the same file, in threads of this process.

    Attributes:
        file: What is served from now on.
        reader: The process that will read it.
        cpu_at_request: How many CPU seconds the reader's main thread had taken when it asked for
            its first file; None before, and where the system does not tell.
    """

    def __init__(self) -> None:
        """Listen on a free port of this machine."""
        self.file = File(b"", 0)
        self.reader = 0
        self.cpu_at_request: float | None = None
        self._numbers = count(1)
        server = self

        class Handler(_Handler):
            files = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._origin = f"http://127.0.0.1:{self._http.server_port}"

    @property
    def api_url(self) -> str:
        """The tap's `api_url`."""
        return f"{self._origin}/public-api/v1"

    def serve(self, file: File) -> None:
        """Serve a file, to a reader that is yet to come.

        Args:
            file: What to serve.
        """
        self.file = file
        self.reader = 0
        self.cpu_at_request = None

    def create(self) -> dict[str, object]:
        """Answer a create."""
        return {"export_id": next(self._numbers), "status": "queued"}

    def poll(self, number: str) -> dict[str, object]:
        """Answer a poll.

        Args:
            number: The export's.

        Returns:
            A completed export.
        """
        url = f"{self._origin}/files/{number}"
        return {"export_id": int(number), "status": "completed", "download_url": url}

    def note_request(self) -> None:
        """Note how far the reader is."""
        spent = Path(f"/proc/{self.reader}/schedstat")
        if self.cpu_at_request is None and self.reader and spent.exists():
            self.cpu_at_request = int(spent.read_text(encoding="ascii").split()[0]) / _NANOSECONDS

    def __enter__(self) -> Self:
        """Start to answer."""
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Answer no more."""
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: FileServer

    def do_POST(self) -> None:
        """Answer a create."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(202, self.files.create())

    def do_GET(self) -> None:
        """Answer a poll, or send the file."""
        _, _, number = self.path.rpartition("/")
        if "/contacts/exports/" in self.path:
            self._answer(200, self.files.poll(number))
            return
        self.files.note_request()
        member, repeats = self.files.file
        at_once = max(1, _WRITE_BYTES // max(1, len(member)))
        self.send_response(200)
        self.send_header("ETag", '"the-file"')
        self.send_header("Content-Length", str(len(member) * repeats))
        self.end_headers()
        full, rest = divmod(repeats, at_once)
        block = member * at_once
        for _ in range(full):
            self.wfile.write(block)
        self.wfile.write(member * rest)

    def _answer(self, status: int, payload: dict[str, object]) -> None:
        body = json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing.

        Args:
            format: Not used.
            *args: Not used.
        """
