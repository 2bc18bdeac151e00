"""Downloads: every line of a file is read once, despite faults of connections, or an error."""

from __future__ import annotations

import gzip
import itertools
import socket
import threading
import tracemalloc
import zlib
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.faults import (
    ChangedFile,
    Corrupt,
    Cut,
    Drip,
    Expired,
    Fault,
    IgnoresIfMatch,
    Layout,
    MalformedHeader,
    NoETag,
    NoRanges,
    Redirect,
    Reset,
    Respond,
    ServerError,
    Stall,
    StorageFailure,
    Throttled,
    TrailingBytes,
    Truncated,
    WithoutLength,
    WrongChecksum,
    WrongRange,
)
from simulator.files import FileLayout
from tap_cometly.errors import FileError, LineError, UrlRefused
from tap_cometly.files import BLOCK_BYTES, Block, Storage, fast_zlib
from tests.conftest import VirtualClock, World, contact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from simulator import Simulator
    from tap_cometly.files import ExportFile

DAY = datetime(2024, 6, 1, tzinfo=UTC)
PEOPLE = [
    contact(number, DAY + timedelta(hours=number), name=name, email=f"{number}@example.com")
    for number, name in enumerate(("Zoë 張偉", "😀 }\n{\u2028"), 1)
]
MIB = 1024 * 1024
RETRY_SECONDS = 15 * 60
PLAIN = Layout(FileLayout(plain=True))
TWO_MEMBERS = Layout(FileLayout(members=2))
LAYOUTS: list[list[Fault]] = [
    [],
    [NoRanges()],
    [NoETag()],
    [TWO_MEMBERS],
    [PLAIN],
    [PLAIN, NoRanges()],
]


def names(faults: list[Fault]) -> str:
    return ", ".join(fault.name() for fault in faults)


EACH_LAYOUT = pytest.mark.parametrize("layout", LAYOUTS, ids=names)


def plain(*lines: bytes, last_newline: bool = True) -> Layout:
    """An uncompressed file of these lines."""
    return Layout(FileLayout(plain=True, lines=lines, only_lines=True, last_newline=last_newline))


class StoredFile:
    """An export's file of two contacts in the simulated storage, to read with any faults."""

    def __init__(
        self,
        simulator: Simulator,
        zlib_module: ModuleType = fast_zlib,
        read_timeout_seconds: float = 60,
    ) -> None:
        self.world = World(simulator)
        self.clock = self.world.clock
        self.world.fill(PEOPLE, sleep=self.clock.sleep)
        order = {"start_date": "2024-06-01 00:00:00", "end_date": "2024-06-02 00:00:00"}
        self._export = self.world.space.create(self.world.space.parse_export_request(order))
        self.clock.sleep(60)
        self._storage = Storage("the-tap/1.0", self.clock, read_timeout_seconds, zlib_module)
        self.urls = 0

    def url(self) -> str:
        """A fresh URL; `urls` counts them."""
        self.urls += 1
        return self.world.simulator.storage_url + self.world.space.presign(self._export)

    def with_faults(self, *faults: Fault, then: Fault | None = None) -> Self:
        """Replace all faults, and clear the journal of requests.

        Args:
            *faults: Faults for one request each, or for all if they change the file.
            then: A fault for all later requests.
        """
        self.world.simulator.faults.clear()
        self.world.simulator.requests.clear()
        self.urls = 0
        for fault in faults:
            self.add(fault)
        if then is not None:
            self.world.simulator.faults.add("download", then, times=None)
        return self

    def add(self, fault: Fault, after: int = 0) -> Self:
        """Add a fault after this number of requests."""
        times = None if fault.per_export else 1
        self.world.simulator.faults.add("download", fault, times, after)
        return self

    def open(
        self, url: str | None = None, fresh_url: Callable[[], str] | None = None
    ) -> ExportFile:
        return self._storage.open(url or self.url(), fresh_url or self.url)

    def read(self, size: int = BLOCK_BYTES) -> bytes:
        """All lines of the file."""
        return b"".join(block.lines for block in self.blocks(size))

    def blocks(self, size: int) -> list[Block]:
        with closing(self.open()) as opened:
            return list(opened.blocks(size))

    def outcome(self) -> bytes | type[Exception]:
        """All lines of the file, or the type of the error."""
        try:
            return self.read()
        except (FileError, LineError) as error:
            return type(error)

    def error(self) -> FileError:
        """The error of reading the file."""
        with pytest.raises(FileError) as error:
            self.read()
        return error.value

    @property
    def stored(self) -> bytes:
        """The stored bytes, without faults."""
        return self.world.space.file(self._export).data

    @property
    def lines(self) -> bytes:
        """The lines of the stored bytes, without faults."""
        return gzip.decompress(self.stored)

    @property
    def bytes_sent(self) -> int:
        """The number of bytes sent in response bodies since `with_faults`."""
        return sum(request.bytes_sent for request in self.world.requests("download"))

    @property
    def statuses(self) -> list[int | None]:
        """The status of each response since `with_faults`."""
        return [request.status for request in self.world.requests("download")]

    @property
    def headers(self) -> list[dict[str, str]]:
        """The headers of each request since `with_faults`."""
        return [dict(request.headers) for request in self.world.requests("download")]


@pytest.fixture
def file(running_simulator: Simulator) -> StoredFile:
    return StoredFile(running_simulator)


@pytest.fixture(params=[fast_zlib, zlib], ids=["fast zlib", "standard zlib"])
def any_zlib(request: pytest.FixtureRequest, running_simulator: Simulator) -> StoredFile:
    return StoredFile(running_simulator, zlib_module=request.param)


class RawServer:
    """Sends raw responses, one per connection.

    Attributes:
        url: Where it listens.
        heads: The heads of the requests.
    """

    def __init__(self, *responses: bytes, ends: bool = True) -> None:
        """Listen.

        Args:
            *responses: Heads and bodies.
            ends: Whether the server closes each connection, and not the client.
        """
        self._responses = responses
        self._ends = ends
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.heads: list[str] = []

    def open(self, target: str = "/file", zlib_module: ModuleType = fast_zlib) -> ExportFile:
        url = self.url + target
        return Storage("the-tap/1.0", VirtualClock(), 10, zlib_module).open(url, lambda: url)

    def read(self) -> bytes:
        with closing(self.open()) as file:
            return b"".join(block.lines for block in file.blocks())

    def _serve(self) -> None:
        for body in self._responses:
            connection, _ = self._listener.accept()
            with connection:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += connection.recv(1)
                self.heads.append(head.decode())
                connection.sendall(body)
                if self._ends:
                    connection.shutdown(socket.SHUT_WR)
                while connection.recv(1):
                    pass

    def __enter__(self) -> Self:
        """Start the server."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until the client has disconnected."""
        self._thread.join(5)
        self._listener.close()
        assert not self._thread.is_alive(), "the client is still connected"


def response(status: str, *headers: str) -> bytes:
    """The head of a response."""
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "\r\n"]).encode()


def ok(body: bytes, *headers: str, length: int | None = None) -> bytes:
    """A 200 with a Content-Length, by default that of the body."""
    content_length = len(body) if length is None else length
    return response("200 OK", f"Content-Length: {content_length}", *headers) + body


# Layouts of a file.


@pytest.mark.parametrize(
    "form",
    [
        FileLayout(members=2),
        FileLayout(members=50),
        FileLayout(content_encoding="gzip", members=3),
        FileLayout(last_newline=False),
        FileLayout(plain=True),
        FileLayout(plain=True, last_newline=False),
        FileLayout(plain=True, content_encoding="gzip"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("size", [1, 7, BLOCK_BYTES])
def test_every_layout_has_the_same_lines(any_zlib: StoredFile, form: FileLayout, size: int) -> None:
    assert any_zlib.with_faults(Layout(form)).read(size) == any_zlib.lines


def test_zeros_may_follow_the_gzip_data() -> None:
    with RawServer(ok(gzip.compress(b"a\n") + b"\0" * 99)) as server:
        assert server.read() == b"a\n"


def test_a_file_without_contacts_has_no_lines(caplog: pytest.LogCaptureFixture) -> None:
    with RawServer(ok(gzip.compress(b""))) as server:
        assert server.read() == b""
    assert caplog.records == []


def test_an_empty_file_has_no_lines_and_logs_a_warning(
    file: StoredFile, caplog: pytest.LogCaptureFixture
) -> None:
    assert file.with_faults(Layout(FileLayout(empty_body=True))).read() == b""
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("byte", [b"x", b"{", b"\x8b"])
def test_a_file_may_have_one_byte(file: StoredFile, byte: bytes) -> None:
    assert file.with_faults(plain(byte, last_newline=False)).read() == byte + b"\n"


# Blocks of lines.


@pytest.mark.parametrize("size", [*range(1, 70), 5000])
def test_a_block_ends_where_a_line_ends(file: StoredFile, size: int) -> None:
    lines = [*(b'{"id":%d,"name":"\xf0\x9f\x98\x80"}' % number for number in range(20)), b"", b"\r"]
    blocks = file.with_faults(Layout(FileLayout(lines=tuple(lines), only_lines=True))).blocks(size)

    assert b"".join(block.lines for block in blocks) == b"".join(line + b"\n" for line in lines)
    assert all(block.lines.endswith(b"\n") for block in blocks)
    assert [block.line_count for block in blocks] == [b.lines.count(b"\n") for b in blocks]
    numbers = [range(block.first_line, block.first_line + block.line_count) for block in blocks]
    assert list(itertools.chain(*numbers)) == list(range(1, 23))


def test_a_last_line_without_a_newline_is_counted(file: StoredFile) -> None:
    blocks = file.with_faults(plain(b"a", b"b", last_newline=False)).blocks(BLOCK_BYTES)

    assert blocks == [Block(b"a\n", 1, 1), Block(b"b\n", 2, 1)]


@pytest.mark.parametrize("is_plain", [True, False])
def test_blocks_have_a_bounded_size(file: StoredFile, *, is_plain: bool) -> None:
    form = FileLayout(plain=is_plain, lines=(b"x" * 99,) * 20_000, only_lines=True)
    blocks = file.with_faults(Layout(form)).blocks(BLOCK_BYTES)

    assert len(blocks) > 5
    assert max(len(block.lines) for block in blocks) < BLOCK_BYTES + 100


@pytest.mark.parametrize("last_newline", [True, False])
def test_a_line_may_have_16_mib(file: StoredFile, *, last_newline: bool) -> None:
    file.with_faults(plain(b"a", b"x" * 16 * MIB, last_newline=last_newline))

    assert len(file.read()) == 2 + 16 * MIB + 1


@pytest.mark.parametrize("last_newline", [True, False])
def test_a_line_of_more_than_16_mib_is_an_error(file: StoredFile, *, last_newline: bool) -> None:
    file.with_faults(plain(b"a", b"x" * (16 * MIB + 1), last_newline=last_newline))

    with pytest.raises(LineError, match=r"^line 2 of its file is longer than 16,777,216 bytes, so"):
        file.read()


@pytest.mark.parametrize("zlib_module", [fast_zlib, zlib], ids=["fast", "standard"])
def test_200_mib_are_read_in_less_than_4_mib_of_memory(zlib_module: ModuleType) -> None:
    line = b'{"id":1,"email":"ada@example.com","name":"Ada"}\n'
    member = gzip.compress(line * (MIB // len(line)))
    with RawServer(ok(member * 200)) as server:
        tracemalloc.start()
        with closing(server.open(zlib_module=zlib_module)) as file:
            size = sum(len(block.lines) for block in file.blocks())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert size > 199 * MIB
    assert peak < 4 * MIB


# Cut downloads are resumed at the next byte.


@EACH_LAYOUT
def test_a_download_cut_at_any_byte_is_resumed(file: StoredFile, layout: list[Fault]) -> None:
    whole = file.with_faults(*layout).read()

    for at in range(file.bytes_sent):
        assert file.with_faults(Cut(at, reset=at % 2 == 1), *layout).read() == whole, at


def test_only_the_rest_of_the_same_file_is_requested(file: StoredFile) -> None:
    file.with_faults(Cut(40)).read()

    assert file.statuses == [200, 206]
    assert "If-Match" not in file.headers[0]
    assert file.headers[1]["Range"] == "bytes=40-"
    assert file.headers[1]["If-Match"].strip('"').isalnum()


@pytest.mark.parametrize("step", [1, 3, 20, 100])
def test_a_download_may_be_cut_repeatedly(file: StoredFile, step: int) -> None:
    whole = file.with_faults().read()

    assert file.with_faults(then=Cut(step)).read() == whole
    ranges = [headers.get("Range") for headers in file.headers]
    starts = range(step, len(file.stored), step)
    assert ranges == [None, *(f"bytes={start}-" for start in starts)]


@pytest.mark.parametrize("step", [1, 20, 100])
def test_a_server_without_ranges_is_read_from_the_start(file: StoredFile, step: int) -> None:
    whole = file.with_faults().read()
    cuts = [Cut(at) for at in range(step, len(file.stored), step)]

    assert file.with_faults(NoRanges(), *cuts).read() == whole
    assert set(file.statuses) == {200}


@pytest.mark.parametrize("at", [0, 1, 40])
def test_a_stalled_download_is_resumed(running_simulator: Simulator, at: int) -> None:
    file = StoredFile(running_simulator, read_timeout_seconds=0.1)

    assert file.with_faults(Stall(at), Stall(at)).read() == file.lines


def test_the_log_says_where_and_why_a_download_was_interrupted(
    file: StoredFile, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    file.with_faults(Cut(40)).read()

    assert caplog.messages[0].startswith(
        "Download failed at byte 40 (the connection was interrupted); retrying in "
    )


def test_a_slow_download_is_read(file: StoredFile) -> None:
    assert file.with_faults(Drip(60, count=30)).read() == file.lines


def test_bytes_already_read_are_skipped_if_the_server_ignores_range(file: StoredFile) -> None:
    lines = [b"%06d" % number for number in range(30_000)]
    file.with_faults(plain(*lines), NoRanges(), Cut(200_000))

    assert file.read() == b"".join(line + b"\n" for line in lines)


def test_a_206_without_content_range_is_an_error() -> None:
    rest = response("206 Partial", "Content-Length: 6") + b'":1}\n'
    with (
        RawServer(ok(b'{"id', 'ETag: "a"', length=9), rest) as server,
        pytest.raises(FileError, match="its file changed"),
    ):
        server.read()


def test_a_206_may_have_less_than_the_requested_range() -> None:
    with RawServer(
        ok(b'{"id', 'ETag: "a"', length=9),
        response("206 Partial", "Content-Range: bytes 4-6/9", "Content-Length: 3") + b'":1',
        response("206 Partial", "Content-Range: bytes 7-8/9", "Content-Length: 2") + b"}\n",
    ) as server:
        assert server.read() == b'{"id":1}\n'


def test_a_plain_file_that_has_grown_is_an_error() -> None:
    with (
        RawServer(ok(b'{"id', length=9), ok(b'{"id":1}\n{"id":2}\n')) as server,
        pytest.raises(FileError, match="its file changed"),
    ):
        server.read()


def test_a_plain_file_with_a_weak_etag_is_read_from_the_start() -> None:
    body, etag = b'{"id":1}\n', 'ETag: W/"a"'
    with RawServer(ok(body[:4], etag, length=len(body)), ok(body, etag)) as server:
        assert server.read() == body

    assert "Range" not in server.heads[1]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.builds(
        FileLayout,
        lines=st.lists(st.binary(max_size=60).map(lambda line: line.replace(b"\n", b""))).map(
            tuple
        ),
        only_lines=st.just(value=True),
        members=st.integers(1, 4),
    ),
    st.lists(st.integers(0, 400), max_size=8).map(lambda places: [Cut(at) for at in places]),
    st.sets(st.sampled_from([NoRanges(), NoETag()])),
    st.integers(1, 300),
)
def test_any_file_with_any_cuts_has_the_same_lines(
    file: StoredFile, form: FileLayout, cuts: list[Cut], layout: set[Fault], size: int
) -> None:
    file.with_faults(Layout(form), *layout, *cuts)

    assert file.read(size) == b"".join(line + b"\n" for line in form.lines)


# Without Content-Length a file ends where two responses end.


@EACH_LAYOUT
def test_a_cut_is_noticed_without_content_length(file: StoredFile, layout: list[Fault]) -> None:
    whole = file.with_faults(*layout).read()

    for at in range(file.bytes_sent):
        cut = WithoutLength(at, chunked=at % 2 == 1)  # an empty chunk would end the response
        assert file.with_faults(cut, *layout).read() == whole, at


@pytest.mark.parametrize("layout", [[], [NoRanges()], [PLAIN, NoRanges()]], ids=names)
def test_no_response_needs_a_content_length(file: StoredFile, layout: list[Fault]) -> None:
    assert file.with_faults(*layout, then=WithoutLength()).read() == file.lines


def test_a_gzip_file_that_is_truncated_in_every_response_is_an_error(file: StoredFile) -> None:
    error = file.with_faults(NoRanges(), then=WithoutLength(60)).error()
    assert "truncated gzip data" in str(error)


def test_an_empty_file_without_content_length_is_an_error(file: StoredFile) -> None:
    error = file.with_faults(then=WithoutLength(0)).error()

    assert "the connection closed, and the length of the file is unknown" in str(error)


def test_a_chunked_response_without_chunks_is_retried() -> None:
    empty = response("200 OK", "Transfer-Encoding: chunked") + b"0\r\n\r\n"
    with RawServer(empty, ok(b"a\n")) as server:
        assert server.read() == b"a\n"


def test_the_last_chunk_ends_the_file() -> None:
    chunks = b'4\r\n{"id\r\n5\r\n":1}\n\r\n0\r\n\r\n'
    with RawServer(response("200 OK", "Transfer-Encoding: chunked") + chunks) as server:
        assert server.read() == b'{"id":1}\n'


# Damaged and changed files are errors.


def test_a_file_truncated_at_any_byte_is_an_error(any_zlib: StoredFile) -> None:
    for length in range(1, len(any_zlib.stored)):
        assert any_zlib.with_faults(Truncated(length)).outcome() is FileError, length


def test_a_file_truncated_between_members_cannot_be_noticed(any_zlib: StoredFile) -> None:
    whole = any_zlib.with_faults().read()
    half = whole[: len(whole) // 2]
    outcomes = [
        any_zlib.with_faults(TWO_MEMBERS, Truncated(length)).outcome()
        for length in range(1, len(any_zlib.stored) + 200)
    ]

    short = [outcome for outcome in outcomes if outcome not in (FileError, whole)]
    assert short in ([half], [half + b"\n"])


@pytest.mark.parametrize("members", [1, 2])
def test_a_wrong_byte_changes_no_line_or_is_an_error(any_zlib: StoredFile, members: int) -> None:
    form = Layout(FileLayout(members=members))
    outcomes = [
        any_zlib.with_faults(form, Corrupt(at)).outcome() for at in range(2, len(any_zlib.stored))
    ]

    assert set(outcomes) <= {any_zlib.lines, FileError}


@pytest.mark.parametrize("members", [1, 2])
def test_a_wrong_checksum_is_an_error(any_zlib: StoredFile, members: int) -> None:
    error = any_zlib.with_faults(Layout(FileLayout(members=members)), WrongChecksum()).error()

    assert "its file is damaged: invalid gzip data or a wrong checksum; rerun the tap" in str(error)


@pytest.mark.parametrize("text", ["x", '{"id":1}\n', "<!-- a page of HTML -->", "\0x", "\x1f\x1f"])
@pytest.mark.parametrize("layout", [[], [Cut(40)], [TWO_MEMBERS]], ids=names)
def test_extra_data_after_the_gzip_data_is_an_error(
    any_zlib: StoredFile, layout: list[Fault], text: str
) -> None:
    error = any_zlib.with_faults(*layout, TrailingBytes(text)).error()

    assert "its file is damaged: extra data after the end of the gzip data; rerun the tap" in str(
        error
    )


@pytest.mark.parametrize(
    "layout",
    [
        *LAYOUTS,
        [IgnoresIfMatch()],
        [PLAIN, IgnoresIfMatch()],
        [PLAIN, NoETag()],
        [PLAIN, NoETag(), NoRanges()],
    ],
    ids=names,
)
def test_the_lines_of_two_files_are_never_mixed(file: StoredFile, layout: list[Fault]) -> None:
    old = file.with_faults(*layout).read()
    new = file.with_faults(*layout, ChangedFile()).read()

    outcomes = [
        file.with_faults(*layout, Cut(at)).add(ChangedFile(), after=1).outcome()
        for at in range(len(file.stored) - 2)
    ]

    # Parts of two files may be equal by chance; gzip's checksum detects the rest.
    assert set(outcomes) <= {old, new, FileError}
    assert layout == [NoETag()] or set(outcomes[30:]) == {FileError}


def test_a_file_that_changes_before_its_first_byte_is_read(file: StoredFile) -> None:
    new = file.with_faults(ChangedFile()).read()

    assert file.with_faults(Cut(0)).add(ChangedFile(), after=1).read() == new


@pytest.mark.parametrize(
    ("faults", "later", "status"),
    [
        ([], ChangedFile(), 412),
        ([WrongRange(-5)], None, 206),
        ([WrongRange(1)], None, 206),
        ([IgnoresIfMatch()], Truncated(30), 416),
    ],
)
def test_a_file_that_changes_during_the_download_is_an_error(
    file: StoredFile, faults: list[Fault], later: Fault | None, status: int
) -> None:
    file.with_faults(Cut(40), *faults)
    if later is not None:
        file.add(later, after=1)

    assert str(file.error()).startswith("its file changed during the download, so what was read")
    assert file.statuses == [200, status]


# Retries, until 15 minutes pass without a new byte.

TEMPORARY = pytest.mark.parametrize(
    "failure",
    [
        *(StorageFailure(status) for status in (408, 425, 429, 500, 503)),
        *(ServerError(502), Throttled(), Reset(), Cut(0), Cut(0, reset=True)),
    ],
    ids=repr,
)


@TEMPORARY
def test_a_temporary_failure_is_retried(file: StoredFile, failure: Fault) -> None:
    assert file.with_faults(failure, Cut(30), failure, failure).read() == file.lines


AT_POSITION = pytest.mark.parametrize("position", [0, 40])


@TEMPORARY
@AT_POSITION
def test_a_download_gives_up_15_minutes_after_the_last_byte(
    file: StoredFile, failure: Fault, position: int
) -> None:
    file.with_faults(*[Cut(position)] * bool(position), then=failure)
    started = file.clock.monotonic()

    error = file.error()

    assert f"its download failed at byte {position}: " in str(error)
    assert "; gave up after" in str(error)
    assert str(error).endswith(" s; check the network, then rerun the tap")
    assert file.clock.monotonic() - started == pytest.approx(RETRY_SECONDS, abs=10)


def test_a_new_byte_restarts_the_15_minutes(file: StoredFile) -> None:
    file.with_faults(*[Cut(1), *[Throttled()] * 20] * 3)
    started = file.clock.monotonic()

    assert file.read() == file.lines
    assert file.clock.monotonic() - started > RETRY_SECONDS


def test_bytes_already_read_that_arrive_slowly_do_not_restart_the_15_minutes(
    file: StoredFile,
) -> None:
    started = file.clock.monotonic()

    error = file.with_faults(NoRanges(), Cut(80), then=Drip(30)).error()

    assert "at byte 80: the response took too long" in str(error)
    assert file.clock.monotonic() - started < RETRY_SECONDS + 120


def test_a_byte_already_read_does_not_restart_the_15_minutes(file: StoredFile) -> None:
    assert "at byte 40" in str(file.with_faults(NoRanges(), Cut(40), then=Cut(40)).error())


def test_time_spent_by_the_reader_does_not_count(file: StoredFile) -> None:
    with closing(file.with_faults(Cut(80), *[Throttled()] * 5).open()) as opened:
        file.clock.sleep(2 * RETRY_SECONDS)
        assert b"".join(block.lines for block in opened.blocks()) == file.lines


@pytest.mark.parametrize("status", [503, 429])
def test_retry_after_is_obeyed(file: StoredFile, status: int) -> None:
    file.with_faults(StorageFailure(status, headers={"Retry-After": "120"})).read()

    first, second = file.world.requests("download")
    assert second.time - first.time == 120


def test_a_retry_after_of_more_than_an_hour_is_an_error(file: StoredFile) -> None:
    error = file.with_faults(Throttled(headers={"Retry-After": "3601"})).error()

    assert str(error) == (
        "its download failed at byte 0: the storage responded 503 and asked to retry after "
        "2024-07-01T13:01:01+00:00; rerun the tap then"
    )


# URLs.

REFUSALS = pytest.mark.parametrize(
    "refusal",
    [Expired(), *(StorageFailure(status, "ExpiredToken") for status in (400, 401, 404, 410))],
    ids=lambda refusal: refusal.status,
)


@REFUSALS
@pytest.mark.parametrize("layout", [[], [NoRanges()]], ids=names)
def test_a_refused_url_is_replaced(file: StoredFile, layout: list[Fault], refusal: Fault) -> None:
    assert file.with_faults(*layout, refusal, refusal, Cut(40), refusal).read() == file.lines
    assert file.urls == 4


@REFUSALS
@AT_POSITION
def test_three_refused_urls_in_a_row_are_an_error(
    file: StoredFile, refusal: Expired, position: int
) -> None:
    error = file.with_faults(*[Cut(position)] * bool(position), then=refusal).error()

    assert isinstance(error, UrlRefused)
    assert str(error).startswith(
        f"its download failed at byte {position}: the storage refused 3 download URLs in a row, "
        f"the last with {refusal.status}; "
    )
    assert file.statuses[-3:] == [refusal.status] * 3
    assert file.urls == 3


def test_another_failure_resets_the_count_of_refused_urls(file: StoredFile) -> None:
    file.with_faults(Expired(), Expired(), Throttled(), Expired(), Expired())

    assert file.read() == file.lines


def test_a_416_to_a_request_without_a_range_is_a_refused_url(file: StoredFile) -> None:
    assert file.with_faults(Respond(416)).read() == file.lines
    assert file.urls == 2


def test_a_416_without_content_range_is_an_error() -> None:
    with (
        RawServer(ok(b'{"id', 'ETag: "a"', length=9), response("416 No")) as server,
        pytest.raises(FileError, match="its file changed"),
    ):
        server.read()


def test_the_rest_is_requested_from_a_replaced_url_too(file: StoredFile) -> None:
    file.with_faults(Cut(40), Expired()).read()

    assert file.statuses == [200, 403, 206]


def test_a_temporary_failure_does_not_replace_the_url(file: StoredFile) -> None:
    file.with_faults(Throttled(), Cut(40), Reset()).read()

    assert file.urls == 1


def test_an_error_of_fresh_url_is_raised(file: StoredFile) -> None:
    def no_url() -> str:
        raise GeneratorExit

    opened = file.with_faults(Cut(40), Expired()).open(fresh_url=no_url)

    with pytest.raises(GeneratorExit), closing(opened):
        list(opened.blocks())


@pytest.mark.parametrize("status", [204, 206])
def test_an_unexpected_status_is_an_error(file: StoredFile, status: int) -> None:
    error = file.with_faults(then=Respond(status, b"" if status == 204 else b"no")).error()

    assert str(error).startswith(
        f"its download failed: the storage responded {status}; rerun the tap"
    )
    assert len(file.statuses) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["{storage}/exports/x", "http://[", "//", "\xff", ""])
def test_a_redirect_is_not_followed(file: StoredFile, location: str, status: int) -> None:
    target = location.format(storage=file.world.simulator.storage_url)

    error = file.with_faults(then=Redirect(target, status)).error()

    assert f"the storage responded {status}, a redirect, which the tap does not" in str(error)
    assert len(file.statuses) == 1


@pytest.mark.parametrize(
    "target",
    [
        "/a%7eb%2Fc~d/../e//f.gz?x=%7E%2f+%20&y=a/b?c'd|e\"<>^`{}[]\\&z=%&sig=a%2Bb==",
        "/%41?%62",
        "//f?a=b",
        "/f",
    ],
)
def test_a_url_is_requested_byte_for_byte(target: str) -> None:
    with RawServer(ok(b"a\n")) as server:
        server.open(f"{target}#fragment").close()

    assert server.heads[0].startswith(f"GET {target} HTTP/1.1\r\n")


def test_spaces_and_non_ascii_characters_in_a_url_are_encoded() -> None:
    with RawServer(ok(b"a\n")) as server:
        server.open("?a b=é").close()

    assert server.heads[0].startswith("GET /?a%20b=%C3%A9 HTTP/1.1\r\n")


# Connections.


def test_download_requests_have_neither_credentials_nor_cookies(file: StoredFile) -> None:
    cookie = Respond(503, headers={"Set-Cookie": "a=b; Path=/"})

    file.with_faults(Cut(40), Expired(), cookie, Throttled()).read()

    assert len(file.headers) == 5
    assert {name.lower() for headers in file.headers for name in headers} == {
        *("host", "user-agent", "accept-encoding", "accept", "connection", "range", "if-match"),
    }
    assert file.headers[0]["User-Agent"] == "the-tap/1.0"
    assert file.headers[0]["Accept-Encoding"] == "identity"


def test_closing_a_file_closes_the_connection() -> None:
    with RawServer(ok(b'{"id":1}\n', length=100), ends=False) as server:
        server.open().close()

    assert len(server.heads) == 1


def test_an_error_closes_the_connection() -> None:
    redirect = response("302 Found", "Content-Length: 100", "Location: /x")
    with RawServer(redirect, ends=False) as server, pytest.raises(FileError, match="302"):
        server.open()


def test_a_malformed_header_is_ignored_and_not_logged(
    file: StoredFile, caplog: pytest.LogCaptureFixture
) -> None:
    assert file.with_faults(MalformedHeader()).read() == file.lines
    assert caplog.records == []


@pytest.mark.parametrize(
    ("url", "environment", "reason"),
    [
        ("https://a..b/f?s3cret", {}, "Cometly's download_url has an invalid host name"),
        ("https://a.example/f?s3cret", {"HTTPS_PROXY": "ftp://x"}, "HTTPS_PROXY is not a usable"),
        (
            "https://127.0.0.1:1/f?s3cret",
            {"REQUESTS_CA_BUNDLE": "/no/such/file"},
            "REQUESTS_CA_BUNDLE does not name a file or folder of CA certificates",
        ),
    ],
)
def test_an_error_that_a_retry_cannot_fix_fails_at_once(
    url: str, environment: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "all_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    clock = VirtualClock()
    started = clock.now()

    with pytest.raises(FileError, match=f"^its download failed at byte 0: {reason}") as error:
        Storage("the-tap/1.0", clock).open(url, lambda: url)

    assert clock.now() == started
    assert [str(each) for each in chain_of(error.value)] == [str(error.value)]


# Secrets: neither an error nor the errors chained to it contain a presigned URL.


@pytest.mark.parametrize(
    "fault", [Throttled(), Expired(), Redirect("http://["), Reset(), Cut(0), WithoutLength(0)]
)
def test_an_error_does_not_contain_the_url(file: StoredFile, fault: Fault) -> None:
    errors = chain_of(file.with_faults(Cut(40), then=fault).error())

    shown = "\n".join(f"{each!r} {vars(each)}" for each in errors)
    assert "X-Amz" not in shown
    assert "/exports/" not in shown


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all errors chained to it."""
    if error is not None:
        yield error
        yield from chain_of(error.__cause__)
        yield from chain_of(error.__context__)
