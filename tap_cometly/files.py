"""An export's file: a presigned URL as an unbroken, verified stream of whole lines.

Three layers, each a file object or generator over the one below: bytes that go on where a
connection broke, gzip that checks its trailer, blocks that end where a line ends. Memory stays
bounded whatever the file's size. Knows nothing of JSON or Singer.

The connection to the storage is a bare one: presigned URLs carry their own authorization, S3
refuses a request that has another one too, and the API key is none of its business.
"""

from __future__ import annotations

import gzip
import io
import logging
import re
import zlib
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

import requests
import urllib3

from tap_cometly.errors import FileError, LineError
from tap_cometly.transport import (
    CONNECT_TIMEOUT_SECONDS,
    READ_TIMEOUT_SECONDS,
    DirectSession,
    backoff_delays,
    describe_failure,
    no_auth,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from typing_extensions import Buffer

    from tap_cometly.times import Clock

try:
    from isal import igzip, igzip_lib
except ImportError:  # no wheel for this machine
    FastGzipFile: type[gzip.GzipFile] = gzip.GzipFile
    _DAMAGED: tuple[type[Exception], ...] = (gzip.BadGzipFile, zlib.error)
else:
    FastGzipFile = igzip.GzipFile
    _DAMAGED = (gzip.BadGzipFile, zlib.error, igzip_lib.IsalError)  # type: ignore[assignment]

STORAGE_TRIES = 8
"""Requests in a row that bring no new byte before the file is given up."""
LONGEST_LINE_BYTES = 16 * 1024 * 1024
"""A contact has some hundred bytes; a longer line would fill the memory."""
BLOCK_BYTES = 64 * 1024
"""Decompressed bytes in a block: larger ones leave the processor's cache and are slower."""
_REQUESTED_BYTES = 64 * 1024
"""Compressed bytes read from the connection at a time."""
_GZIP_MAGIC = b"\x1f\x8b"
_CONNECTION_BROKE = "the connection broke"

logger = logging.getLogger(__name__)


class Block(NamedTuple):
    r"""Some lines of a file.

    Attributes:
        lines: Whole lines, each ended by `\n`.
        first_line: The number of the first one in the file, from 1.
        line_count: How many there are, blank ones included.
    """

    lines: bytes
    first_line: int
    line_count: int


class Storage:
    """Opens export files."""

    def __init__(
        self,
        user_agent: str,
        clock: Clock,
        read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
        gzip_file: type[gzip.GzipFile] = FastGzipFile,
    ) -> None:
        """Connect to nothing yet.

        Args:
            user_agent: What the tap calls itself.
            clock: For pauses between tries.
            read_timeout_seconds: Silence that long counts as a broken connection.
            gzip_file: Reads gzip.
        """
        self._timeout = (CONNECT_TIMEOUT_SECONDS, read_timeout_seconds)
        self._clock = clock
        self._gzip_file = gzip_file
        self._session = DirectSession(no_auth)
        # Identity: nothing on the way shall compress what is compressed already.
        self._session.headers.update({"User-Agent": user_agent, "Accept-Encoding": "identity"})

    def open(self, url: str, fresh_url: Callable[[], str]) -> ExportFile:
        """Begin to read a file.

        Args:
            url: Presigned URL.
            fresh_url: Gives another URL of the same file when this one is refused.

        Returns:
            The file, its first bytes read.

        Raises:
            FileError: The file could not be fetched.
        """
        return ExportFile(ResumingStream(self._get, url, fresh_url, self._clock), self._gzip_file)

    def _get(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        return self._session.get(
            url, headers=headers, stream=True, timeout=self._timeout, allow_redirects=False
        )


class ExportFile:
    """The lines of an export's file."""

    def __init__(self, stream: ResumingStream, gzip_file: type[gzip.GzipFile]) -> None:
        """Look at the first bytes of the file.

        Args:
            stream: The file's bytes as they are stored.
            gzip_file: Reads gzip.

        Raises:
            FileError: The file could not be fetched.
        """
        self._stream = stream
        buffered = io.BufferedReader(stream, _REQUESTED_BYTES)
        magic = buffered.peek(len(_GZIP_MAGIC))
        self._lines: io.BufferedIOBase = buffered
        if not magic:
            logger.warning("An export's file has no bytes at all: read as one without contacts")
        elif _GZIP_MAGIC.startswith(magic[:2]):  # the first byte may come alone, or be all there is
            self._lines = gzip_file(fileobj=buffered, mode="rb")

    def close(self) -> None:
        """Let go of the connection."""
        self._stream.close()

    def blocks(self, size: int = BLOCK_BYTES) -> Iterator[Block]:
        r"""Read the file to its verified end.

        Args:
            size: About how many bytes a block has.

        Yields:
            Blocks of whole lines. A last line without `\n` gets one.

        Raises:
            FileError: The file ends early, changed, fails its checksum or could not be fetched.
            LineError: A line is longer than any contact.
        """
        next_line = 1
        rest = bytearray()
        while chunk := self._read(size):
            end = chunk.find(b"\n")
            if len(rest) + (len(chunk) if end < 0 else end) > LONGEST_LINE_BYTES:
                message = (
                    f"line {next_line} of its file is longer than {LONGEST_LINE_BYTES:,} bytes "
                    "and so no contact; ask Cometly's support about this export"
                )
                raise LineError(message)
            if end < 0:
                rest += chunk
                continue
            end = chunk.rfind(b"\n") + 1
            line_count = chunk.count(b"\n")
            first_line, next_line = next_line, next_line + line_count
            yield Block(_joined(rest, chunk[:end]), first_line, line_count)
            rest += chunk[end:]
        if rest:
            yield Block(_joined(rest, b"\n"), next_line, 1)

    def _read(self, size: int) -> bytes:
        try:
            return self._lines.read(size)
        except EOFError:
            message = (
                "its file ends early, in the midst of its gzip data; run the tap again, and "
                "if it ends there again ask Cometly's support about this export"
            )
            raise FileError(message) from None
        except _DAMAGED:
            message = (
                "its file is damaged: it is no valid gzip or fails its checksum; run the tap "
                "again, and if it fails again ask Cometly's support about this export"
            )
            raise FileError(message) from None


def _joined(rest: bytearray, end: bytes) -> bytes:
    """What was kept back and what ends it; a long line is then kept once, not twice."""
    lines = b"".join((rest, end))
    rest.clear()
    return lines


class _Broken(Exception):  # noqa: N818 - ends in a FileError if it lasts
    """The file did not go on; another request may help."""


class ResumingStream(io.RawIOBase):
    """The bytes of a stored file, as if no connection ever broke.

    After a cut it asks for the rest: `Range`, with `If-Match` so that it is the rest of the same
    file. Without an ETag to match, gzip's own checksum tells whether it is; a plain file without
    one, and any file of a server that knows no ranges, is read anew: the known part is skipped and
    its checksum compared.
    """

    def __init__(
        self,
        get: Callable[[str, Mapping[str, str]], requests.Response],
        url: str,
        fresh_url: Callable[[], str],
        clock: Clock,
    ) -> None:
        """Connect to nothing yet.

        Args:
            get: Sends a request for a URL, with headers, and no authorization of its own.
            url: Presigned URL.
            fresh_url: Gives another URL of the same file when this one is refused.
            clock: For pauses between tries.
        """
        super().__init__()
        self._get = get
        self._url = url
        self._fresh_url = fresh_url
        self._clock = clock
        self._response: urllib3.BaseHTTPResponse | None = None
        self._position = 0
        self._checksum = 0
        self._length: int | None = None
        self._etag: str | None = None
        self._is_gzip = False
        self._undeclared_end = 0
        self._ended = False
        self._url_refused = False
        self._fruitless = 0
        self._pauses = backoff_delays()

    def readable(self) -> bool:
        """Whether bytes can be read: they can."""
        return True

    def close(self) -> None:
        """Let go of the connection."""
        self._drop_response()
        super().close()

    def readinto(self, buffer: Buffer) -> int:
        """Read the next bytes.

        Args:
            buffer: Where to put them.

        Returns:
            How many there were; 0 at the end of the file.

        Raises:
            FileError: The file changed, or no more of it could be had.
        """
        view = memoryview(buffer)
        while not self._ended:
            try:
                chunk = self._read_some(min(len(view), _REQUESTED_BYTES))
            except _Broken as fault:
                why = str(fault)
            else:
                self._is_gzip |= not self._position and chunk.startswith(_GZIP_MAGIC)
                self._ended = not chunk
                self._fruitless = 0
                self._position += len(chunk)
                self._checksum = zlib.crc32(chunk, self._checksum)
                view[: len(chunk)] = chunk
                return len(chunk)
            # Not in the `except` clause: what is raised from here on has no URL in its context.
            self._drop_response()
            self._pause_or_give_up(why)
        return 0

    def _read_some(self, most: int) -> bytes:
        """Some of the bytes after those already read, or none at the end."""
        if self._position == self._length:
            return b""
        if self._response is None:
            self._response = self._request()
            if self._ended or self._position == self._length:
                return b""
        chunk = _read_once(self._response, most)
        if chunk:
            return chunk
        if self._length is not None:
            raise _Broken(_CONNECTION_BROKE)
        ended_here_before = self._undeclared_end == self._position > 0
        if getattr(self._response, "chunked", False) or ended_here_before:
            return b""
        # A connection that just ends looks the same at the end and at a cut: look again.
        self._undeclared_end = self._position
        message = "the connection ended, and nothing said that the file does too"
        raise _Broken(message)

    def _request(self) -> urllib3.BaseHTTPResponse:
        """Ask for the bytes after those already read."""
        if self._url_refused:
            self._url = self._fresh_url()
            self._url_refused = False
        headers = {}
        strong_etag = self._etag if self._etag and not self._etag.startswith("W/") else None
        if self._position and (strong_etag or self._is_gzip):
            headers["Range"] = f"bytes={self._position}-"
        if self._position and strong_etag:
            headers["If-Match"] = strong_etag
        self._fruitless += 1
        try:
            response = self._get(self._url, headers)
        except requests.RequestException as fault:
            raise _Broken(describe_failure(fault)) from None
        raw: urllib3.BaseHTTPResponse = response.raw
        try:
            self._accept(response)
        except BaseException:
            raw.close()
            raise
        return raw

    def _accept(self, response: requests.Response) -> None:
        """Check that an answer is the file from the right byte on."""
        status = response.status_code
        if status == HTTPStatus.FORBIDDEN:
            self._url_refused = True
            message = "the storage answered 403, as it does when a download URL has expired"
            raise _Broken(message)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            message = f"the storage answered {status}"
            raise _Broken(message)
        if status == HTTPStatus.PRECONDITION_FAILED:
            raise _changed()
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and self._position:
            if _whole_length(response) != self._position:
                raise _changed()
            self._ended = True
            return
        resumed = status == HTTPStatus.PARTIAL_CONTENT and self._position > 0
        if status != HTTPStatus.OK and not resumed:
            message = (
                f"its file could not be fetched: the storage answered {status}"
                f"{', a redirect that the tap does not follow' if 300 <= status < 400 else ''}; "  # noqa: PLR2004
                "run the tap again, and if it does so again ask Cometly's support"
            )
            raise FileError(message)
        if resumed and _first_byte(response) != self._position:
            raise _changed()
        self._compare(_whole_length(response), response.headers.get("ETag"))
        if self._position and not resumed:
            self._skip_known(response.raw)

    def _compare(self, length: int | None, etag: str | None) -> None:
        """Note what the first answers say of the file; later ones must say the same."""
        if not self._position:
            self._length, self._etag = length, etag
            return
        self._length = length if self._length is None else self._length
        self._etag = self._etag or etag
        if length not in (None, self._length) or etag not in (None, self._etag):
            raise _changed()

    def _skip_known(self, raw: urllib3.BaseHTTPResponse) -> None:
        """Read past the bytes already read, and make sure that they are the same."""
        logger.info("The file comes from its start again: skipping %d known bytes", self._position)
        known = self._position
        checksum = 0
        while known:
            chunk = _read_once(raw, min(known, _REQUESTED_BYTES))
            if not chunk:
                raise _Broken(_CONNECTION_BROKE)
            checksum = zlib.crc32(chunk, checksum)
            known -= len(chunk)
        if checksum != self._checksum:
            raise _changed()

    def _pause_or_give_up(self, why: str) -> None:
        if not self._fruitless:
            self._pauses = backoff_delays()
        if self._fruitless == STORAGE_TRIES:
            message = (
                f"its file could not be read on after {self._position:,} bytes: {why}, at the "
                f"last of {STORAGE_TRIES} tries; check the network, then run the tap again"
            )
            raise FileError(message)
        pause = next(self._pauses)
        logger.info(
            "The file broke off after %d bytes: %s; going on in %.1f s",
            self._position,
            why,
            pause,
        )
        self._clock.sleep(pause)

    def _drop_response(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None


def _read_once(raw: urllib3.BaseHTTPResponse, most: int) -> bytes:
    """The bytes that have arrived, as they are stored; none at the end.

    `read` would wait for all it is asked for, and lose what it has when the connection breaks.
    """
    try:
        return raw.read1(most, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError) as fault:
        raise _Broken(describe_failure(fault)) from None


def _whole_length(response: requests.Response) -> int | None:
    """The length of the whole file, as far as an answer tells it."""
    if response.status_code == HTTPStatus.OK:
        text = response.headers.get("Content-Length", "")
    else:
        text = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _first_byte(response: requests.Response) -> int | None:
    match = re.match(r"bytes ([0-9]{1,18})-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _changed() -> FileError:
    return FileError(
        "its file changed while it was read, so what was read so far may not belong to it; run "
        "the tap again"
    )
