"""A minimal Cometly server whose exports all have the same file, of any length."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import NamedTuple, Self

from typing_extensions import override

API_KEY = "benchmark-key"

_NANOSECONDS = 1e9
_WRITE_BYTES = 2**20


class File(NamedTuple):
    """A file that repeats the same gzip member."""

    member: bytes
    repeats: int


class FileServer:
    """Serves the same file for every export, in threads of this process.

    Attributes:
        file: The file.
        reader: Id of the process that reads it.
        cpu_at_request: CPU seconds of the reader's main thread at its first download request; None
            before that, and on systems other than Linux.
    """

    def __init__(self) -> None:
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
        """Serve another file, to a new reader."""
        self.file = file
        self.reader = 0
        self.cpu_at_request = None

    def create(self) -> dict[str, object]:
        """The response to the creation of an export."""
        return {"export_id": next(self._numbers), "status": "queued"}

    def poll(self, number: str) -> dict[str, object]:
        """The response to a poll of an export: it is completed."""
        url = f"{self._origin}/files/{number}"
        return {"export_id": int(number), "status": "completed", "download_url": url}

    def note_request(self) -> None:
        """Record the reader's CPU time at its first download request."""
        spent = Path(f"/proc/{self.reader}/schedstat")
        if self.cpu_at_request is None and self.reader and spent.exists():
            self.cpu_at_request = int(spent.read_text(encoding="ascii").split()[0]) / _NANOSECONDS

    def __enter__(self) -> Self:
        """Start the server."""
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server."""
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: FileServer

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._respond(202, self.files.create())

    def do_GET(self) -> None:
        _, _, number = self.path.rpartition("/")
        if "/contacts/exports/" in self.path:
            self._respond(200, self.files.poll(number))
            return
        self.files.note_request()
        member, repeats = self.files.file
        per_write = max(1, _WRITE_BYTES // max(1, len(member)))
        self.send_response(200)
        self.send_header("ETag", '"the-file"')
        self.send_header("Content-Length", str(len(member) * repeats))
        self.end_headers()
        full, rest = divmod(repeats, per_write)
        block = member * per_write
        for _ in range(full):
            self.wfile.write(block)
        self.wfile.write(member * rest)

    def _respond(self, status: int, payload: dict[str, object]) -> None:
        body = json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        pass
