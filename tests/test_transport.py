"""HTTP sessions, as used for the API and the storage."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import pytest

from tap_cometly.transport import HttpSession, RequestFailed, no_auth


def test_a_response_head_that_arrives_byte_by_byte_times_out() -> None:
    stopped = threading.Event()

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
                while not stopped.wait(0.05):
                    connection.sendall(b"a")

        server = threading.Thread(target=drip)
        server.start()
        session = HttpSession("the URL", {}, no_auth)
        try:
            with pytest.raises(RequestFailed, match="timed out"):
                session.open("GET", f"http://127.0.0.1:{listener.getsockname()[1]}/", 0.2)
        finally:
            stopped.set()
            server.join()
