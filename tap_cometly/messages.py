"""Singer messages on stdout: whole lines, always."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from singer_sdk.contrib.msgspec import MsgSpecWriter
from singer_sdk.singerlib.encoding.base import SingerMessageType

from tap_cometly.errors import TapError

if TYPE_CHECKING:
    from singer_sdk.singerlib.encoding.simple import Message

_BUFFERED_BYTES = 256 * 1024
"""Records kept back for one write; every other message goes out at once, after them."""


class MessageWriter(MsgSpecWriter):
    """Writes messages, and blocks of RECORD lines that were encoded elsewhere."""

    def __init__(self) -> None:
        """Nothing is kept back yet."""
        self._kept_back = bytearray()

    def write_message(self, message: Message) -> None:
        """Write a message; a RECORD possibly later, together with others.

        Args:
            message: Any Singer message.

        Raises:
            TapError: Nobody reads stdout any more.
        """
        self._kept_back += self.format_message(message)
        if message.type is not SingerMessageType.RECORD or len(self._kept_back) > _BUFFERED_BYTES:
            self.flush()

    def write_lines(self, lines: bytes) -> None:
        r"""Write lines after all that was written before.

        Args:
            lines: Whole lines, each ended by `\n`.

        Raises:
            TapError: Nobody reads stdout any more.
        """
        self.flush()
        _write_all(lines)

    def flush(self) -> None:
        """Write what was kept back.

        Raises:
            TapError: Nobody reads stdout any more.
        """
        if self._kept_back:
            lines = bytes(self._kept_back)
            self._kept_back.clear()
            _write_all(lines)


def _write_all(lines: bytes) -> None:
    stdout = sys.stdout.buffer
    rest = memoryview(lines)
    try:
        while rest:  # under PYTHONUNBUFFERED a write may be short
            rest = rest[stdout.write(rest) or 0 :]
        stdout.flush()
    except BrokenPipeError:
        message = (
            "The reader of the tap's output went away before the range was complete; look at what "
            "the target says, and start again from the last state that it kept."
        )
        raise TapError(message) from None
