"""A stored file as whole lines: every byte once, whatever happens to connections, or an error."""

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
    Answer,
    ChangedFile,
    Corrupt,
    Cut,
    CutUnnoticed,
    Drip,
    Expired,
    Fault,
    Form,
    IgnoresIfMatch,
    MalformedHeader,
    NoETag,
    NoRanges,
    OddUrl,
    Redirect,
    Reset,
    ServerError,
    Stall,
    StorageFailure,
    Throttled,
    TrailingBytes,
    Truncated,
    WrongChecksum,
    WrongRange,
)
from simulator.files import FileForm
from tap_cometly.errors import FileError, LineError, UrlRefused
from tap_cometly.files import BLOCK_BYTES, Storage, fast_zlib
from tests.conftest import VirtualClock, World, contact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from simulator import Simulator
    from tap_cometly.files import Block, ExportFile

DAY = datetime(2024, 6, 1, tzinfo=UTC)
PEOPLE = [
    contact(number, DAY + timedelta(hours=number), name=name, email=f"{number}@example.com")
    for number, name in enumerate(("Zoë 張偉", "😀 }\n{\u2028"), 1)
]
MIB = 1024 * 1024
PATIENCE = 15 * 60
PLAIN = Form(FileForm(plain=True))
TWO_MEMBERS = Form(FileForm(members=2))
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


def plain(*lines: bytes, last_newline: bool = True) -> Form:
    """A file without gzip, of these lines."""
    return Form(FileForm(plain=True, lines=lines, only_lines=True, last_newline=last_newline))


class StoredFile:
    """An export's file of two contacts in the simulated storage, to be read under any faults."""

    def __init__(
        self,
        simulator: Simulator,
        zlib_module: ModuleType = fast_zlib,
        read_timeout_seconds: float = 60,
    ) -> None:
        """Complete an export."""
        self.world = World(simulator)
        self.clock = self.world.clock
        self.world.fill(PEOPLE, sleep=self.clock.sleep)
        order = {"start_date": "2024-06-01 00:00:00", "end_date": "2024-06-02 00:00:00"}
        self._export = self.world.space.create(self.world.space.read_order(order))
        self.clock.sleep(60)
        self._storage = Storage("the-tap/1.0", self.clock, read_timeout_seconds, zlib_module)
        self.urls = 0

    def url(self) -> str:
        """A fresh URL; they are counted."""
        self.urls += 1
        return self.world.simulator.storage_url + self.world.space.presign(self._export)

    def meets(self, *faults: Fault, then: Fault | None = None) -> Self:
        """Replace all faults: those of a file stay, the others meet one request each.

        Args:
            *faults: The faults.
            then: Meets all requests after those.
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
        """Add a fault after so many requests."""
        times = None if fault.stays else 1
        self.world.simulator.faults.add("download", fault, times, after)
        return self

    def open(
        self, url: str | None = None, fresh_url: Callable[[], str] | None = None
    ) -> ExportFile:
        return self._storage.open(url or self.url(), fresh_url or self.url)

    def read(self, size: int = BLOCK_BYTES) -> bytes:
        """All of its lines."""
        return b"".join(block.lines for block in self.blocks(size))

    def blocks(self, size: int) -> list[Block]:
        with closing(self.open()) as opened:
            return list(opened.blocks(size))

    def outcome(self) -> bytes | type[Exception]:
        """All of its lines, or the kind of error that reading them ends in."""
        try:
            return self.read()
        except (FileError, LineError) as error:
            return type(error)

    def error(self) -> FileError:
        """The error that reading it ends in."""
        with pytest.raises(FileError) as error:
            self.read()
        return error.value

    @property
    def stored(self) -> bytes:
        """Its bytes as stored, without any fault."""
        return self.world.space.file(self._export).data

    @property
    def lines(self) -> bytes:
        """The lines in them."""
        return gzip.decompress(self.stored)

    @property
    def bytes_sent(self) -> int:
        """How many bytes of bodies were sent since `meets`."""
        return sum(request.bytes_sent for request in self.world.requests("download"))

    @property
    def statuses(self) -> list[int | None]:
        """The status of each response since `meets`."""
        return [request.status for request in self.world.requests("download")]

    @property
    def headers(self) -> list[dict[str, str]]:
        """The headers of each request since `meets`."""
        return [dict(request.headers) for request in self.world.requests("download")]


@pytest.fixture
def file(running_simulator: Simulator) -> StoredFile:
    return StoredFile(running_simulator)


@pytest.fixture(params=[fast_zlib, zlib], ids=["fast zlib", "standard zlib"])
def any_zlib(request: pytest.FixtureRequest, running_simulator: Simulator) -> StoredFile:
    return StoredFile(running_simulator, zlib_module=request.param)


class RawServer:
    """Sends these responses as they are, each on a connection of its own.

    Attributes:
        url: Where it listens.
        heads: The heads of the requests.
    """

    def __init__(self, *responses: bytes, ends: bool = True) -> None:
        """Listen.

        Args:
            *responses: Heads and bodies.
            ends: Whether the server ends a connection, instead of leaving it to the client.
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
        """Start to respond."""
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
    """A 200 that declares a length, by default the right one."""
    declared = len(body) if length is None else length
    return response("200 OK", f"Content-Length: {declared}", *headers) + body


# Layouts: the lines are the same.


@pytest.mark.parametrize(
    "form",
    [
        FileForm(members=2),
        FileForm(members=50),
        FileForm(content_encoding="gzip", members=3),
        FileForm(last_newline=False),
        FileForm(plain=True),
        FileForm(plain=True, last_newline=False),
        FileForm(plain=True, content_encoding="gzip"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("size", [1, 7, BLOCK_BYTES])
def test_every_layout_has_the_same_lines(any_zlib: StoredFile, form: FileForm, size: int) -> None:
    assert any_zlib.meets(Form(form)).read(size) == any_zlib.lines


def test_zeros_may_follow_the_gzip_data() -> None:
    with RawServer(ok(gzip.compress(b"a\n") + b"\0" * 99)) as server:
        assert server.read() == b"a\n"


def test_a_file_without_contacts_has_no_lines(caplog: pytest.LogCaptureFixture) -> None:
    with RawServer(ok(gzip.compress(b""))) as server:
        assert server.read() == b""
    assert caplog.records == []


def test_an_empty_file_has_no_lines_but_a_warning(
    file: StoredFile, caplog: pytest.LogCaptureFixture
) -> None:
    assert file.meets(Form(FileForm(empty_body=True))).read() == b""
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("byte", [b"x", b"{", b"\x8b"])
def test_a_file_may_have_one_byte(file: StoredFile, byte: bytes) -> None:
    assert file.meets(plain(byte, last_newline=False)).read() == byte + b"\n"


# Blocks: whole lines, numbered.


@pytest.mark.parametrize("size", [*range(1, 70), 5000])
def test_a_block_ends_where_a_line_ends(file: StoredFile, size: int) -> None:
    lines = [*(b'{"id":%d,"name":"\xf0\x9f\x98\x80"}' % number for number in range(20)), b"", b"\r"]
    blocks = file.meets(Form(FileForm(lines=tuple(lines), only_lines=True))).blocks(size)

    assert b"".join(block.lines for block in blocks) == b"".join(line + b"\n" for line in lines)
    assert all(block.lines.endswith(b"\n") for block in blocks)
    assert [block.line_count for block in blocks] == [b.lines.count(b"\n") for b in blocks]
    numbers = [range(block.first_line, block.first_line + block.line_count) for block in blocks]
    assert list(itertools.chain(*numbers)) == list(range(1, 23))


@pytest.mark.parametrize("is_plain", [True, False])
def test_blocks_have_a_bounded_size(file: StoredFile, *, is_plain: bool) -> None:
    form = FileForm(plain=is_plain, lines=(b"x" * 99,) * 20_000, only_lines=True)
    blocks = file.meets(Form(form)).blocks(BLOCK_BYTES)

    assert len(blocks) > 5
    assert max(len(block.lines) for block in blocks) < BLOCK_BYTES + 100


@pytest.mark.parametrize("last_newline", [True, False])
def test_a_line_may_have_16_mib(file: StoredFile, *, last_newline: bool) -> None:
    file.meets(plain(b"a", b"x" * 16 * MIB, last_newline=last_newline))

    assert len(file.read()) == 2 + 16 * MIB + 1


@pytest.mark.parametrize("last_newline", [True, False])
def test_a_longer_line_is_an_error(file: StoredFile, *, last_newline: bool) -> None:
    file.meets(plain(b"a", b"x" * (16 * MIB + 1), last_newline=last_newline))

    with pytest.raises(LineError, match=r"^line 2 of its file is longer than 16,777,216 bytes, so"):
        file.read()


@pytest.mark.parametrize("zlib_module", [fast_zlib, zlib], ids=["fast", "standard"])
def test_200_mb_take_a_few_mib_of_memory(zlib_module: ModuleType) -> None:
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


# Cuts: a download is resumed at the byte where it broke.


@EACH_LAYOUT
def test_a_download_cut_at_any_byte_is_resumed(file: StoredFile, layout: list[Fault]) -> None:
    whole = file.meets(*layout).read()

    for at in range(file.bytes_sent):
        assert file.meets(Cut(at, reset=at % 2 == 1), *layout).read() == whole, at


def test_only_the_rest_of_the_same_file_is_requested(file: StoredFile) -> None:
    file.meets(Cut(40)).read()

    assert file.statuses == [200, 206]
    assert "If-Match" not in file.headers[0]
    assert file.headers[1]["Range"] == "bytes=40-"
    assert file.headers[1]["If-Match"].strip('"').isalnum()


@pytest.mark.parametrize("step", [1, 3, 20, 100])
def test_a_download_may_be_cut_again_and_again(file: StoredFile, step: int) -> None:
    whole = file.meets().read()

    assert file.meets(then=Cut(step)).read() == whole
    ranges = [headers.get("Range") for headers in file.headers]
    starts = range(step, len(file.stored), step)
    assert ranges == [None, *(f"bytes={start}-" for start in starts)]


@pytest.mark.parametrize("step", [1, 20, 100])
def test_a_server_without_ranges_is_read_from_the_start(file: StoredFile, step: int) -> None:
    whole = file.meets().read()
    cuts = [Cut(at) for at in range(step, len(file.stored), step)]

    assert file.meets(NoRanges(), *cuts).read() == whole
    assert set(file.statuses) == {200}


@pytest.mark.parametrize("at", [0, 1, 40])
def test_silence_is_a_cut(running_simulator: Simulator, at: int) -> None:
    file = StoredFile(running_simulator, read_timeout_seconds=0.1)

    assert file.meets(Stall(at), Stall(at)).read() == file.lines


def test_a_dripping_file_is_read(file: StoredFile) -> None:
    assert file.meets(Drip(60, count=30)).read() == file.lines


def test_a_known_part_of_any_length_is_skipped(file: StoredFile) -> None:
    lines = [b"%06d" % number for number in range(30_000)]
    file.meets(plain(*lines), NoRanges(), Cut(200_000))

    assert file.read() == b"".join(line + b"\n" for line in lines)


def test_a_part_without_a_range_is_an_error() -> None:
    rest = response("206 Partial", "Content-Length: 6") + b'":1}\n'
    with (
        RawServer(ok(b'{"id', 'ETag: "a"', length=9), rest) as server,
        pytest.raises(FileError, match="its file changed"),
    ):
        server.read()


def test_a_part_of_the_range_is_a_part_of_the_file() -> None:
    with RawServer(
        ok(b'{"id', 'ETag: "a"', length=9),
        response("206 Partial", "Content-Range: bytes 4-6/9", "Content-Length: 3") + b'":1',
        response("206 Partial", "Content-Range: bytes 7-8/9", "Content-Length: 2") + b"}\n",
    ) as server:
        assert server.read() == b'{"id":1}\n'


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
        FileForm,
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
    file: StoredFile, form: FileForm, cuts: list[Cut], layout: set[Fault], size: int
) -> None:
    file.meets(Form(form), *layout, *cuts)

    assert file.read(size) == b"".join(line + b"\n" for line in form.lines)


# A length that is not declared: the file ends where two responses end.


@EACH_LAYOUT
def test_a_cut_is_noticed_without_a_length(file: StoredFile, layout: list[Fault]) -> None:
    whole = file.meets(*layout).read()

    for at in range(file.bytes_sent):
        cut = CutUnnoticed(at, chunked=at % 2 == 1)  # an empty chunk would be the last
        assert file.meets(cut, *layout).read() == whole, at


@pytest.mark.parametrize("layout", [[], [NoRanges()], [PLAIN, NoRanges()]], ids=names)
def test_a_length_may_never_be_declared(file: StoredFile, layout: list[Fault]) -> None:
    assert file.meets(*layout, then=CutUnnoticed()).read() == file.lines


def test_a_gzip_file_that_always_ends_early_is_an_error(file: StoredFile) -> None:
    assert "truncated gzip data" in str(file.meets(NoRanges(), then=CutUnnoticed(60)).error())


def test_an_empty_file_has_to_declare_its_length(file: StoredFile) -> None:
    error = file.meets(then=CutUnnoticed(0)).error()

    assert "the connection closed, and the length of the file is unknown" in str(error)


def test_a_response_without_chunks_is_not_an_empty_file() -> None:
    empty = response("200 OK", "Transfer-Encoding: chunked") + b"0\r\n\r\n"
    with RawServer(empty, ok(b"a\n")) as server:
        assert server.read() == b"a\n"


def test_a_last_chunk_ends_the_file() -> None:
    chunks = b'4\r\n{"id\r\n5\r\n":1}\n\r\n0\r\n\r\n'
    with RawServer(response("200 OK", "Transfer-Encoding: chunked") + chunks) as server:
        assert server.read() == b'{"id":1}\n'


# Damaged and changed files are errors, never shorter files.


def test_a_file_truncated_at_any_byte_is_an_error(any_zlib: StoredFile) -> None:
    for length in range(1, len(any_zlib.stored)):
        assert any_zlib.meets(Truncated(length)).outcome() is FileError, length


def test_a_file_truncated_between_members_cannot_be_noticed(any_zlib: StoredFile) -> None:
    whole = any_zlib.meets().read()
    half = whole[: len(whole) // 2]
    outcomes = [
        any_zlib.meets(TWO_MEMBERS, Truncated(length)).outcome()
        for length in range(1, len(any_zlib.stored) + 200)
    ]

    short = [outcome for outcome in outcomes if outcome not in (FileError, whole)]
    assert short in ([half], [half + b"\n"])


@pytest.mark.parametrize("members", [1, 2])
def test_a_wrong_byte_changes_nothing_or_is_an_error(any_zlib: StoredFile, members: int) -> None:
    form = Form(FileForm(members=members))
    outcomes = [
        any_zlib.meets(form, Corrupt(at)).outcome() for at in range(2, len(any_zlib.stored))
    ]

    assert set(outcomes) <= {any_zlib.lines, FileError}


@pytest.mark.parametrize("members", [1, 2])
def test_a_wrong_checksum_is_an_error(any_zlib: StoredFile, members: int) -> None:
    error = any_zlib.meets(Form(FileForm(members=members)), WrongChecksum()).error()

    assert "its file is damaged: invalid gzip data or a wrong checksum; rerun the tap" in str(error)


@pytest.mark.parametrize("text", ["x", '{"id":1}\n', "<!-- a page of HTML -->", "\0x", "\x1f\x1f"])
@pytest.mark.parametrize("layout", [[], [Cut(40)], [TWO_MEMBERS]], ids=names)
def test_extra_data_after_the_gzip_data_is_named(
    any_zlib: StoredFile, layout: list[Fault], text: str
) -> None:
    error = any_zlib.meets(*layout, TrailingBytes(text)).error()

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
def test_two_files_are_never_mixed(file: StoredFile, layout: list[Fault]) -> None:
    old = file.meets(*layout).read()
    new = file.meets(*layout, ChangedFile()).read()

    outcomes = [
        file.meets(*layout, Cut(at)).add(ChangedFile(), after=1).outcome()
        for at in range(len(file.stored) - 2)
    ]

    # The parts of two files may happen to be alike; gzip's checksum tells.
    assert set(outcomes) <= {old, new, FileError}
    assert layout == [NoETag()] or set(outcomes[30:]) == {FileError}


def test_a_change_before_the_first_byte_does_not_matter(file: StoredFile) -> None:
    new = file.meets(ChangedFile()).read()

    assert file.meets(Cut(0)).add(ChangedFile(), after=1).read() == new


@pytest.mark.parametrize(
    ("faults", "later", "status"),
    [
        ([], ChangedFile(), 412),
        ([WrongRange(-5)], None, 206),
        ([WrongRange(1)], None, 206),
        ([IgnoresIfMatch()], Truncated(30), 416),
    ],
)
def test_a_change_is_named(
    file: StoredFile, faults: list[Fault], later: Fault | None, status: int
) -> None:
    file.meets(Cut(40), *faults)
    if later is not None:
        file.add(later, after=1)

    assert str(file.error()).startswith("its file changed during the download, so what was read")
    assert file.statuses == [200, status]


# Patience: 15 minutes without a new byte.

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
    assert file.meets(failure, Cut(30), failure, failure).read() == file.lines


AT_POSITION = pytest.mark.parametrize("position", [0, 40])


@TEMPORARY
@AT_POSITION
def test_patience_ends_15_minutes_after_the_last_byte(
    file: StoredFile, failure: Fault, position: int
) -> None:
    file.meets(*[Cut(position)] * bool(position), then=failure)
    started = file.clock.monotonic()

    error = file.error()

    assert f"its download failed at byte {position}: " in str(error)
    assert "; gave up after" in str(error)
    assert str(error).endswith(" s; check the network, then rerun the tap")
    assert file.clock.monotonic() - started == pytest.approx(PATIENCE, abs=10)


def test_a_new_byte_renews_patience(file: StoredFile) -> None:
    file.meets(*[Cut(1), *[Throttled()] * 20] * 3)
    started = file.clock.monotonic()

    assert file.read() == file.lines
    assert file.clock.monotonic() - started > PATIENCE


def test_a_known_byte_does_not_renew_patience(file: StoredFile) -> None:
    assert "at byte 40" in str(file.meets(NoRanges(), Cut(40), then=Cut(40)).error())


def test_the_time_that_the_reader_takes_does_not_count(file: StoredFile) -> None:
    with closing(file.meets(Cut(80), *[Throttled()] * 5).open()) as opened:
        file.clock.sleep(2 * PATIENCE)
        assert b"".join(block.lines for block in opened.blocks()) == file.lines


@pytest.mark.parametrize("status", [503, 429])
def test_retry_after_is_obeyed(file: StoredFile, status: int) -> None:
    file.meets(StorageFailure(status, headers={"Retry-After": "120"})).read()

    first, second = file.world.requests("download")
    assert second.time - first.time == 120


def test_more_than_an_hour_is_not_waited(file: StoredFile) -> None:
    error = file.meets(Throttled(headers={"Retry-After": "3601"})).error()

    told = (
        "the storage responded 503 and asked to retry after 2024-07-01T13:01:01+00:00; rerun the "
        "tap then"
    )
    assert str(error) == f"its download failed at byte 0: {told}"


# URLs: a refused one is replaced.

REFUSALS = pytest.mark.parametrize(
    "refusal",
    [Expired(), *(StorageFailure(status, "ExpiredToken") for status in (400, 401, 404, 410))],
    ids=lambda refusal: refusal.status,
)


@REFUSALS
@pytest.mark.parametrize("layout", [[], [NoRanges()]], ids=names)
def test_a_refused_url_is_replaced(file: StoredFile, layout: list[Fault], refusal: Fault) -> None:
    assert file.meets(*layout, refusal, refusal, Cut(40), refusal).read() == file.lines
    assert file.urls == 4


@REFUSALS
@AT_POSITION
def test_three_refusals_in_a_row_are_an_error(
    file: StoredFile, refusal: Expired, position: int
) -> None:
    error = file.meets(*[Cut(position)] * bool(position), then=refusal).error()

    assert isinstance(error, UrlRefused)
    assert str(error).startswith(
        f"its download failed at byte {position}: the storage refused 3 download URLs in a row, "
        f"the last with {refusal.status}; "
    )
    assert file.statuses[-3:] == [refusal.status] * 3
    assert file.urls == 3


def test_refusals_in_a_row_may_be_far_apart(file: StoredFile) -> None:
    file.meets(Expired(), Expired(), Throttled(), Expired(), Expired())

    assert file.read() == file.lines


def test_a_failure_does_not_replace_the_url(file: StoredFile) -> None:
    file.meets(Throttled(), Cut(40), Reset()).read()

    assert file.urls == 1


def test_an_error_while_a_url_is_replaced_is_passed_on(file: StoredFile) -> None:
    def no_url() -> str:
        raise GeneratorExit

    opened = file.meets(Cut(40), Expired()).open(fresh_url=no_url)

    with pytest.raises(GeneratorExit), closing(opened):
        list(opened.blocks())


@pytest.mark.parametrize("status", [204, 206])
def test_an_unexpected_status_is_an_error(file: StoredFile, status: int) -> None:
    error = file.meets(then=Answer(status, b"" if status == 204 else b"no")).error()

    assert str(error).startswith(
        f"its download failed: the storage responded {status}; rerun the tap"
    )
    assert len(file.statuses) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["{storage}/exports/x", "http://[", "//", "\xff", ""])
def test_a_redirect_is_not_followed(file: StoredFile, location: str, status: int) -> None:
    target = location.format(storage=file.world.simulator.storage_url)

    error = file.meets(then=Redirect(target, status)).error()

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


def test_a_url_that_http_cannot_carry_is_encoded() -> None:
    with RawServer(ok(b"a\n")) as server:
        server.open("?a b=é").close()

    assert server.heads[0].startswith("GET /?a%20b=%C3%A9 HTTP/1.1\r\n")


def test_a_signature_covers_the_url_as_it_is_written(world: World) -> None:
    world.fill(PEOPLE)
    world.simulator.faults.add("poll", OddUrl(), times=None)

    assert len(world.sync(end_date="2024-06-02T00:00:00Z").ids) == 2


# Connections: what is sent, and when they end.


def test_only_the_url_opens_the_file(file: StoredFile) -> None:
    cookie = Answer(503, headers={"Set-Cookie": "a=b; Path=/"})

    file.meets(Cut(40), Expired(), cookie, Throttled()).read()

    assert len(file.headers) == 5
    assert {name.lower() for headers in file.headers for name in headers} == {
        *("host", "user-agent", "accept-encoding", "accept", "connection", "range", "if-match"),
    }
    assert file.headers[0]["User-Agent"] == "the-tap/1.0"
    assert file.headers[0]["Accept-Encoding"] == "identity"


def test_closing_a_file_disconnects() -> None:
    with RawServer(ok(b'{"id":1}\n', length=100), ends=False) as server:
        server.open().close()

    assert len(server.heads) == 1


def test_an_error_disconnects() -> None:
    redirect = response("302 Found", "Content-Length: 100", "Location: /x")
    with RawServer(redirect, ends=False) as server, pytest.raises(FileError, match="302"):
        server.open()


def test_a_malformed_header_is_neither_an_error_nor_logged(
    file: StoredFile, caplog: pytest.LogCaptureFixture
) -> None:
    assert file.meets(MalformedHeader()).read() == file.lines
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
def test_what_waiting_cannot_fix_fails_at_once(
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


# Secrets: an error has no presigned URL, not even in what led to it.


@pytest.mark.parametrize(
    "fault", [Throttled(), Expired(), Redirect("http://["), Reset(), Cut(0), CutUnnoticed(0)]
)
def test_an_error_does_not_hold_the_url(file: StoredFile, fault: Fault) -> None:
    errors = chain_of(file.meets(Cut(40), then=fault).error())

    shown = "\n".join(f"{each!r} {vars(each)}" for each in errors)
    assert "X-Amz" not in shown
    assert "/exports/" not in shown


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and all that led to it."""
    if error is not None:
        yield error
        yield from chain_of(error.__cause__)
        yield from chain_of(error.__context__)
