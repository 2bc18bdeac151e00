"""Singer messages on stdout: always whole lines."""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from singer_sdk.contrib.msgspec import MsgSpecWriter
from singer_sdk.singerlib.encoding.base import SingerMessageType
from typing_extensions import override

from tap_cometly.errors import TapError

if TYPE_CHECKING:
    from singer_sdk.singerlib.encoding.simple import Message

    from tap_cometly.signals import StopRequest

_BUFFERED_BYTES = 256 * 1024


class MessageWriter(MsgSpecWriter):
    """Writes messages, and blocks of RECORD lines that were encoded elsewhere.

    RECORD messages are buffered; every other message is written at once, after them.
    """

    def __init__(self, stop: StopRequest) -> None:
        """Prepare to write.

        Args:
            stop: Defers signals during writes.
        """
        self._stop = stop
        self._buffer = bytearray()

    @override
    def write_message(self, message: Message) -> None:
        self._buffer += self.format_message(message)
        if message.type is not SingerMessageType.RECORD or len(self._buffer) > _BUFFERED_BYTES:
            self.flush()

    def write_lines(self, lines: bytes) -> None:
        r"""Write lines, each ended by `\n`, after all that was written before.

        Raises:
            TapError: stdout is closed.
        """
        self.flush()
        with self._stop.deferred():
            _write_all(lines)

    def flush(self) -> None:
        """Write what is buffered.

        Raises:
            TapError: stdout is closed.
        """
        if self._buffer:
            lines = bytes(self._buffer)
            self._buffer.clear()
            with self._stop.deferred():
                _write_all(lines)


def _write_all(lines: bytes) -> None:
    # Bypass Python's buffer, which does not report partial writes.
    stdout = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
    done = 0
    try:
        while done < len(lines):
            written = stdout.write(memoryview(lines)[done:])
            if written is None:  # a non-blocking pipe is full
                select.select([], [stdout], [])
            done += written or 0
    except BrokenPipeError:
        message = (
            "The target closed the pipe before the range was complete; check its log, then rerun "
            "the tap from the target's last state."
        )
        raise TapError(message) from None
    except OSError:
        # On a full disk, remove the part of a line; a pipe or device has no length to change.
        with suppress(OSError):
            end = stdout.seek(0, os.SEEK_CUR) - done + lines.rfind(b"\n", 0, done) + 1
            stdout.truncate(end)
        raise
