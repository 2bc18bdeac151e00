"""An export's file: a presigned URL as an unbroken, verified stream of whole lines.

Three layers, each a generator over the one below: the bytes as they are stored, resumed where a
connection breaks; decompressed, if they are gzip; cut into blocks where a line ends. Memory stays
bounded, however large the file is.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import zlib
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from tap_cometly.errors import FileError, LineError, UrlRefused
from tap_cometly.transport import (
    INTERRUPTED,
    MAX_RETRY_SECONDS,
    READ_BYTES,
    READ_TIMEOUT_SECONDS,
    TOO_SLOW,
    Backoff,
    HttpSession,
    RequestFailed,
    failure_of,
    is_temporary,
    no_auth,
    read_some,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import ModuleType

    import requests

    from tap_cometly.times import Clock

fast_zlib: ModuleType = zlib
with contextlib.suppress(ImportError):  # no wheel for this platform
    from isal import isal_zlib as fast_zlib

MAX_REFUSALS = 3
"""How many download URLs in a row may be refused."""
_REFUSAL_SECONDS = 5
"""Delay before requesting a new URL: a file may appear shortly after its export completes."""
MAX_LINE_BYTES = 16 * 1024 * 1024
"""A contact has a few hundred bytes; longer lines would use too much memory."""
BLOCK_BYTES = 64 * 1024
"""Decompressed bytes in a block: larger ones do not fit the CPU cache and are slower."""
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WBITS = 31  # for zlib: with gzip's header and trailer

logger = logging.getLogger("tap-cometly")


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
    """Opens export files, on connections that never carry the API key."""

    def __init__(
        self,
        user_agent: str,
        clock: Clock,
        read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
        zlib_module: ModuleType = fast_zlib,
    ) -> None:
        # The file is already compressed: ask for no Content-Encoding.
        self._headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}
        self._clock = clock
        self._read_timeout = read_timeout_seconds
        self._zlib = zlib_module

    def open(self, url: str, fresh_url: Callable[[], str]) -> ExportFile:
        """Start to download a file.

        Args:
            url: Presigned URL.
            fresh_url: Returns another URL of the same file when one is refused.

        Raises:
            UrlRefused: The storage refused several URLs in a row.
            FileError: The file could not be downloaded.
        """
        return ExportFile(Download(self._get, url, fresh_url, self._clock), self._zlib)

    def _get(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        # S3 refuses a presigned request that has an Authorization header as well.
        session = HttpSession("Cometly's download_url", self._headers, no_auth, exact_url=url)
        return session.open("GET", url, self._read_timeout, headers=headers)


class ExportFile:
    """The lines of an export's file."""

    def __init__(self, download: Download, zlib_module: ModuleType) -> None:
        """Read the first bytes: they tell whether it is gzip."""
        self._download = download
        self._zlib = zlib_module
        stored = iter(download)
        head = b""
        while len(head) < len(_GZIP_MAGIC) and (chunk := next(stored, b"")):
            head += chunk
        if not head:
            logger.warning("An export's file is empty (0 bytes); treating it as having no contacts")
        self._is_gzip = bool(head) and _GZIP_MAGIC.startswith(head[:2])
        self._stored = itertools.chain([head], stored)

    def close(self) -> None:
        """Close the connection."""
        self._download.close()

    def blocks(self, size: int = BLOCK_BYTES) -> Iterator[Block]:
        r"""Read the file to its verified end.

        Args:
            size: The most bytes that are decompressed at a time.

        Yields:
            Blocks of whole lines. A last line without `\n` gets one.

        Raises:
            FileError: The file ends early, changed, fails its checksum or could not be downloaded.
            LineError: A line is longer than any contact.
        """
        if self._is_gzip:
            return _blocks(_decompress(self._stored, size, self._zlib))
        return _blocks(self._stored)


def _blocks(chunks: Iterable[bytes]) -> Iterator[Block]:
    next_line = 1
    rest = bytearray()
    for chunk in chunks:
        end = chunk.find(b"\n")
        if len(rest) + (len(chunk) if end < 0 else end) > MAX_LINE_BYTES:
            message = (
                f"line {next_line} of its file is longer than {MAX_LINE_BYTES:,} bytes, so it is "
                "not a contact; report this export to Cometly's support"
            )
            raise LineError(message)
        if end < 0:
            rest += chunk
            continue
        end = chunk.rfind(b"\n") + 1
        line_count = chunk.count(b"\n")
        first_line, next_line = next_line, next_line + line_count
        yield Block(_join(rest, chunk[:end]), first_line, line_count)
        rest += chunk[end:]
    if rest:
        yield Block(_join(rest, b"\n"), next_line, 1)


def _join(rest: bytearray, end: bytes) -> bytes:
    """Join two parts and empty the first, so that a long line is in memory once, not twice."""
    lines = b"".join((rest, end))
    rest.clear()
    return lines


def _decompress(stored: Iterator[bytes], size: int, zlib_module: ModuleType) -> Iterator[bytes]:
    """Decompress the members of a gzip file, and check that each is complete.

    Yields:
        Up to `size` bytes.
    """
    data = next(stored)
    while data:
        member = zlib_module.decompressobj(_GZIP_WBITS)
        while not member.eof:
            try:
                chunk = member.decompress(data, size)
            except (zlib.error, zlib_module.error):
                why = "is damaged: invalid gzip data or a wrong checksum"
                raise _damaged(why) from None
            data = member.unconsumed_tail
            if chunk:
                yield chunk
            elif not data and not member.eof:
                data = next(stored, b"")
                if not data:
                    why = "ends early: truncated gzip data"
                    raise _damaged(why)
        data = _next_member(member.unused_data, stored)


def _next_member(data: bytes, stored: Iterator[bytes]) -> bytes:
    """The beginning of the next member; empty at the end of the file."""
    # gzip allows zeros as padding.
    while len(data := data.lstrip(b"\0")) < len(_GZIP_MAGIC) and (chunk := next(stored, b"")):
        data += chunk
    if not _GZIP_MAGIC.startswith(data[:2]):
        why = "is damaged: extra data after the end of the gzip data"
        raise _damaged(why)
    return data


def _damaged(why: str) -> FileError:
    return FileError(
        f"its file {why}; rerun the tap, and if it happens again, contact Cometly's support about "
        "this export"
    )


class Download:
    """The bytes of a stored file, as if no connection ever broke.

    After an interruption it requests the rest with `Range`, and with `If-Match` so that it gets the
    same file. Without a strong ETag, gzip's checksum detects a changed file. A plain file without
    one, or any file if the server ignores `Range`, is downloaded from the start: the known part is
    skipped, and its checksum compared.
    """

    def __init__(
        self,
        get: Callable[[str, Mapping[str, str]], requests.Response],
        url: str,
        fresh_url: Callable[[], str],
        clock: Clock,
    ) -> None:
        """Prepare a download.

        Args:
            get: Requests a URL once, with headers.
            url: Presigned URL.
            fresh_url: Returns another URL of the same file when one is refused.
            clock: For delays.
        """
        self._get = get
        self._url = url
        self._fresh_url = fresh_url
        self._clock = clock
        self._response: requests.Response | None = None
        self._position = 0
        self._checksum = 0
        self._length: int | None = None
        self._etag: str | None = None
        self._is_gzip = False
        self._possible_end = 0
        self._backoff: Backoff | None = None

    def __iter__(self) -> Iterator[bytes]:
        """Read the file.

        Yields:
            The bytes, as they arrive.

        Raises:
            FileError: The file changed, or no more of it could be downloaded.
        """
        while True:
            try:
                chunk = self._read()
            except RequestFailed as error:
                failure = error
            else:
                if not chunk:
                    return
                if not self._position:
                    self._is_gzip = chunk.startswith(_GZIP_MAGIC)
                self._position += len(chunk)
                self._checksum = zlib.crc32(chunk, self._checksum)
                self._backoff = None
                yield chunk
                continue
            # Outside the `except` clause, so that errors raised here have no URL in their context.
            self.close()
            self._wait(failure)

    def close(self) -> None:
        """Close the connection."""
        if self._response is not None:
            self._response.close()
            self._response = None

    def _read(self) -> bytes:
        """Some of the bytes after those already read; none at the end."""
        if self._response is None:
            self._response = self._request()
        if self._position == self._length:
            return b""
        chunk = read_some(self._response)
        if chunk:
            return chunk
        if self._length is not None:
            raise RequestFailed(INTERRUPTED)
        is_second_end = self._possible_end == self._position
        if self._position and (is_second_end or getattr(self._response.raw, "chunked", False)):
            return b""
        # Without a length, a closed connection may be the end or an interruption: try again.
        self._possible_end = self._position
        reason = "the connection closed, and the length of the file is unknown"
        raise RequestFailed(reason)

    def _request(self) -> requests.Response:
        """Request the bytes after those already read; a refused URL is replaced."""
        headers = {}
        strong_etag = self._etag if self._etag and not self._etag.startswith("W/") else None
        if self._position and (strong_etag or self._is_gzip):
            headers["Range"] = f"bytes={self._position}-"
        if self._position and strong_etag:
            headers["If-Match"] = strong_etag
        response = self._get(self._url, headers)
        for _ in range(1, MAX_REFUSALS):
            if not self._is_refusal(response.status_code):
                break
            response.close()
            logger.info("Download URL refused (%d); requesting another", response.status_code)
            self._clock.sleep(_REFUSAL_SECONDS)
            self._url = self._fresh_url()
            response = self._get(self._url, headers)
        try:
            self._check(response)
        except BaseException:
            response.close()
            raise
        return response

    def _is_refusal(self, status: int) -> bool:
        """Whether a status means that the URL is invalid or has expired."""
        is_4xx = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
        is_about_the_file = status == HTTPStatus.PRECONDITION_FAILED or (
            status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and self._position > 0
        )
        return is_4xx and not is_temporary(status) and not is_about_the_file

    def _check(self, response: requests.Response) -> None:
        """Check that a response starts at the right byte of the same file."""
        status = response.status_code
        if is_temporary(status):
            raise failure_of(response, "the storage", self._clock)
        if status == HTTPStatus.PRECONDITION_FAILED:
            raise _changed()
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and self._position:
            if _whole_length(response) != self._position:
                raise _changed()
            self._length = self._position
            return
        if self._is_refusal(status):
            reason = (
                f"its download failed at byte {self._position:,}: the storage refused "
                f"{MAX_REFUSALS} download URLs in a row, the last with {status}"
            )
            raise UrlRefused(reason)
        is_rest = status == HTTPStatus.PARTIAL_CONTENT and self._position > 0
        if status != HTTPStatus.OK and not is_rest:
            redirect = ", a redirect, which the tap does not follow" if 300 <= status < 400 else ""  # noqa: PLR2004
            message = (
                f"its download failed: the storage responded {status}{redirect}; "
                "rerun the tap, and if it happens again, contact Cometly's support"
            )
            raise FileError(message)
        if is_rest and _first_byte(response) != self._position:
            raise _changed()
        self._compare(_whole_length(response), response.headers.get("ETag"))
        if self._position and not is_rest:
            self._skip_known(response)

    def _compare(self, length: int | None, etag: str | None) -> None:
        """Keep the file's length and ETag from the first responses; later ones must match."""
        if not self._position:
            self._length, self._etag = length, etag
            return
        self._length = length if self._length is None else self._length
        self._etag = self._etag or etag
        if length not in (None, self._length) or etag not in (None, self._etag):
            raise _changed()

    def _skip_known(self, response: requests.Response) -> None:
        """Read past the bytes already read, and make sure that they are the same."""
        logger.info("Downloading again from the start; skipping the first %d bytes", self._position)
        left = self._position
        checksum = 0
        while left:
            chunk = read_some(response, min(left, READ_BYTES))
            if not chunk:
                raise RequestFailed(INTERRUPTED)
            checksum = zlib.crc32(chunk, checksum)
            left -= len(chunk)
            if self._backoff is not None and self._backoff.seconds_left(MAX_RETRY_SECONDS) <= 0:
                raise RequestFailed(TOO_SLOW)
        if checksum != self._checksum:
            raise _changed()

    def _wait(self, failure: RequestFailed) -> None:
        """Wait before the next attempt, or give up."""
        self._backoff = self._backoff or Backoff(self._clock)
        delay = self._backoff.next_delay(failure, MAX_RETRY_SECONDS)
        if delay is None:
            explanation = self._backoff.explain(failure, "the network")
            message = f"its download failed at byte {self._position:,}: {explanation}"
            raise FileError(message)
        message = "Download failed at byte %d (%s); retrying in %.1f s"
        logger.info(message, self._position, failure, delay)
        self._clock.sleep(delay)


def _whole_length(response: requests.Response) -> int | None:
    """The length of the whole file, if a response declares it."""
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
        "its file changed during the download, so what was read may be from two different files; "
        "rerun the tap"
    )
