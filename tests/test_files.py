"""A stored file as whole lines: every byte once, whatever happens to connections, or an error."""

from __future__ import annotations

import gzip
import itertools
import logging
import socket
import threading
import tracemalloc
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
    Expired,
    Fault,
    Form,
    IgnoresIfMatch,
    NoETag,
    NoRanges,
    Redirect,
    Reset,
    ServerError,
    Stall,
    Throttled,
    Truncated,
    WrongChecksum,
    WrongRange,
)
from simulator.files import FileForm
from tap_cometly.errors import FileError, LineError
from tap_cometly.files import BLOCK_BYTES, FastGzipFile, Storage
from tests.conftest import VirtualClock, World, contact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from simulator import Contact, Simulator
    from tap_cometly.files import Block, ExportFile

DAY = datetime(2024, 6, 1, tzinfo=UTC)
NAMES = ("Zoë 張偉", "😀 }\n{\u2028")
PEOPLE = [
    contact(number, DAY + timedelta(hours=number), name=name, email=f"{number}@example.com")
    for number, name in enumerate(NAMES, 1)
]
MIB = 1024 * 1024
LONGEST_LINE = 16 * MIB


def plain(*lines: bytes, last_newline: bool = True) -> Form:
    """A file without gzip, of these lines instead of contacts."""
    return Form(FileForm(plain=True, lines=lines, only_lines=True, last_newline=last_newline))


PLAIN_PEOPLE = Form(FileForm(plain=True))
TWO_MEMBERS = Form(FileForm(members=2))


class StoredFile:
    """An export's file in the simulated storage, to be read under any faults.

    Attributes:
        clock: What the tap's pauses go by.
        storage_url: Origin of the storage.
        urls: How many URLs of it were asked for since `meets`.
    """

    def __init__(
        self,
        simulator: Simulator,
        contacts: Iterable[Contact] = PEOPLE,
        gzip_file: type[gzip.GzipFile] = FastGzipFile,
        read_timeout_seconds: float = 60,
    ) -> None:
        """Have an export of these contacts completed.

        Args:
            simulator: A running one, which gets a new Space.
            contacts: Who is in the file.
            gzip_file: What the tap reads gzip with.
            read_timeout_seconds: How long the tap bears silence.
        """
        world = World(simulator)
        world.fill(list(contacts))
        self._world = world
        self.clock = world.clock
        self.storage_url = simulator.storage_url
        order = {"start_date": "2024-06-01 00:00:00", "end_date": "2024-06-02 00:00:00"}
        self._export = world.space.create(world.space.read_order(order))
        world.clock.sleep(60)
        self._storage = Storage("the-tap/1.0", world.clock, read_timeout_seconds, gzip_file)
        self.urls = 0

    def url(self) -> str:
        """A fresh URL."""
        self.urls += 1
        answer = self._world.space.poll(self._export, self._world.simulator.storage_url)
        return str(answer["download_url"])

    def meets(self, *faults: Fault, always: Fault | None = None) -> Self:
        """Forget all faults but these.

        Args:
            *faults: Those of a file from the start on; each of the others for one request.
            always: For all requests after those.
        """
        self._world.simulator.faults.clear()
        self._world.simulator.requests.clear()
        self.urls = 0
        for fault in faults:
            self.add(fault)
        if always is not None:
            self._world.simulator.faults.add("download", always, times=None)
        return self

    def add(self, fault: Fault, after: int = 0) -> Self:
        """Add a fault, for a file's from so many requests on."""
        self._world.simulator.faults.add(
            "download", fault, times=None if fault.stays else 1, after=after
        )
        return self

    def open(
        self, url: str | None = None, fresh_url: Callable[[], str] | None = None
    ) -> ExportFile:
        """Begin to read it, by other URLs if so wished."""
        return self._storage.open(url or self.url(), fresh_url or self.url)

    def read(self) -> bytes:
        """All of its lines."""
        with closing(self.open()) as file:
            return b"".join(block.lines for block in file.blocks())

    def outcome(self) -> bytes | type[Exception]:
        """All of its lines, or the kind of error that reading them ended in."""
        try:
            return self.read()
        except (FileError, LineError) as error:
            return type(error)

    @property
    def stored(self) -> bytes:
        """Its bytes as stored, without any fault."""
        return self._world.space.file(self._export).data

    @property
    def statuses(self) -> list[int | None]:
        """How each request since `meets` was answered."""
        return [request.status for request in self._world.requests("download")]

    @property
    def bytes_sent(self) -> int:
        """How many bytes were sent since `meets`; without a cut those of the file."""
        return sum(request.bytes_sent for request in self._world.requests("download"))

    @property
    def headers(self) -> list[dict[str, str]]:
        """The headers of each request since `meets`."""
        return [dict(request.headers) for request in self._world.requests("download")]

    @property
    def ranges(self) -> list[str | None]:
        """The range that each request since `meets` asked for."""
        return [headers.get("Range") for headers in self.headers]


@pytest.fixture
def file(running_simulator: Simulator) -> StoredFile:
    """A small file, gzipped, of two contacts."""
    return StoredFile(running_simulator)


@pytest.fixture(params=[FastGzipFile, gzip.GzipFile], ids=["fast gzip", "standard gzip"])
def any_gzip(request: pytest.FixtureRequest, running_simulator: Simulator) -> StoredFile:
    """The same, for each of the two that may read gzip."""
    return StoredFile(running_simulator, gzip_file=request.param)


class RawServer:
    """Gives these answers as they are, each on a connection of its own, then listens no more.

    Attributes:
        requests: What was asked, head by head.
        hung_up: Is set when the client hangs up during an answer that does not end.
    """

    def __init__(self, *answers: bytes, last_ends: bool = True) -> None:
        """Listen.

        Args:
            *answers: Heads and bodies.
            last_ends: Whether the connection is closed after the last answer too; else the server
                waits for the client to do it.
        """
        self._answers = answers
        self._last_ends = last_ends
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.requests: list[str] = []
        self.hung_up = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/file?X-Amz-Signature=secret"

    def open(self, gzip_file: type[gzip.GzipFile] = FastGzipFile) -> ExportFile:
        storage = Storage("the-tap/1.0", VirtualClock(), gzip_file=gzip_file)
        return storage.open(self.url, lambda: self.url)

    def read(self) -> bytes:
        with closing(self.open()) as file:
            return b"".join(block.lines for block in file.blocks())

    def _serve(self) -> None:
        with self._listener:
            for number, answer in enumerate(self._answers, 1):
                connection, _ = self._listener.accept()
                with connection:
                    connection.settimeout(10)
                    self.requests.append(_head(connection))
                    connection.sendall(answer)
                    is_last = number == len(self._answers)
                    if is_last and not self._last_ends and connection.recv(1) == b"":
                        self.hung_up.set()

    def __enter__(self) -> Self:
        """Answer."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until all is answered."""
        self._thread.join()


def _head(connection: socket.socket) -> str:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    return head.decode()


def ok(body: bytes, *headers: str, length: int | None = None) -> bytes:
    """A 200 whose length is declared, as another one if so wished."""
    declared = len(body) if length is None else length
    return answer("200 OK", f"Content-Length: {declared}", *headers) + body


def answer(status: str, *headers: str) -> bytes:
    """The head of an answer."""
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "\r\n"]).encode()


class TestForms:
    """However a whole file is laid out, its lines are the same."""

    @pytest.mark.parametrize(
        "form",
        [
            FileForm(members=2),
            FileForm(members=50),
            FileForm(content_encoding="gzip"),
            FileForm(content_encoding="gzip", members=3),
            FileForm(last_newline=False),
            FileForm(plain=True),
            FileForm(plain=True, last_newline=False),
            FileForm(plain=True, content_encoding="identity"),
        ],
        ids=repr,
    )
    def test_the_lines_are_the_same(self, any_gzip: StoredFile, form: FileForm) -> None:
        assert any_gzip.meets(Form(form)).read() == gzip.decompress(any_gzip.stored)

    def test_a_file_of_no_contacts_has_no_lines_and_is_no_surprise(
        self, running_simulator: Simulator, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert StoredFile(running_simulator, contacts=[]).read() == b""
        assert caplog.records == []

    def test_a_file_of_no_bytes_has_no_lines_but_a_warning(
        self, file: StoredFile, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert file.meets(Form(FileForm(empty_body=True))).read() == b""
        assert [record.levelname for record in caplog.records] == ["WARNING"]

    @pytest.mark.parametrize("byte", [b"x", b"{", b"\x8b"])
    def test_a_file_may_have_one_byte(self, file: StoredFile, byte: bytes) -> None:
        assert file.meets(plain(byte, last_newline=False)).read() == byte + b"\n"

    def test_it_is_told_by_its_first_bytes_even_if_they_come_one_by_one(
        self, file: StoredFile
    ) -> None:
        assert file.meets(Cut(1)).read() == gzip.decompress(file.stored)

    def test_what_a_file_is_called_is_no_matter(self, file: StoredFile) -> None:
        misleading = Form(FileForm(plain=True, content_encoding="gzip"))

        assert file.meets(misleading).read() == gzip.decompress(file.stored)


class TestBlocks:
    """Whole lines, numbered."""

    LINES = tuple(b'{"id":%d,"name":"\xf0\x9f\x98\x80"}' % number for number in range(20))
    TEXT = b"".join(line + b"\n" for line in LINES)

    def blocks(self, file: StoredFile, size: int) -> list[Block]:
        with closing(file.open()) as opened:
            return list(opened.blocks(size))

    @pytest.mark.parametrize("size", [*range(1, 70), 5000])
    def test_a_block_ends_where_a_line_ends_whatever_its_size(
        self, file: StoredFile, size: int
    ) -> None:
        blocks = self.blocks(file.meets(plain(*self.LINES)), size)

        assert b"".join(block.lines for block in blocks) == self.TEXT
        assert all(block.lines.endswith(b"\n") for block in blocks)

    @pytest.mark.parametrize("size", [1, 30, 64, 100, 5000])
    def test_a_block_knows_the_numbers_of_its_lines(self, file: StoredFile, size: int) -> None:
        blocks = self.blocks(file.meets(plain(*self.LINES, b"", b"\r")), size)

        numbers = [range(block.first_line, block.first_line + block.line_count) for block in blocks]
        assert list(itertools.chain(*numbers)) == list(range(1, 23))
        assert [block.line_count for block in blocks] == [b.lines.count(b"\n") for b in blocks]

    def test_blocks_are_of_bounded_size(self, file: StoredFile) -> None:
        blocks = self.blocks(file.meets(plain(*[b"x" * 99] * 20_000)), BLOCK_BYTES)

        assert len(blocks) > 5
        assert max(len(block.lines) for block in blocks) < BLOCK_BYTES + 100

    @pytest.mark.parametrize("last_newline", [True, False])
    def test_a_line_may_be_as_long_as_16_mib(self, file: StoredFile, *, last_newline: bool) -> None:
        file.meets(plain(b"a", b"x" * LONGEST_LINE, last_newline=last_newline))

        assert len(file.read()) == 2 + LONGEST_LINE + 1

    @pytest.mark.parametrize("last_newline", [True, False])
    def test_a_longer_one_is_no_contact(self, file: StoredFile, *, last_newline: bool) -> None:
        file.meets(plain(b"a", b"x" * (LONGEST_LINE + 1), last_newline=last_newline))

        with pytest.raises(LineError, match=r"^line 2 of its file is longer than 16,777,216 bytes"):
            file.read()


_LINES = st.binary(max_size=60).map(lambda line: line.replace(b"\n", b""))


class TestCuts:
    """A connection may break anywhere; the file goes on where it broke."""

    @pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
    @pytest.mark.parametrize(
        "others",
        [[], [NoRanges()], [NoETag()], [TWO_MEMBERS], [PLAIN_PEOPLE], [PLAIN_PEOPLE, NoRanges()]],
        ids=["ranges", "no ranges", "no ETag", "members", "plain", "plain, no ranges"],
    )
    def test_a_cut_at_any_byte_is_made_good(
        self, file: StoredFile, others: list[Fault], *, reset: bool
    ) -> None:
        whole = file.meets(*others).read()

        for at in range(file.bytes_sent):
            assert file.meets(Cut(at, reset=reset), *others).read() == whole, at

    @pytest.mark.parametrize("others", [[], [NoRanges()]], ids=["ranges", "no ranges"])
    def test_a_cut_at_any_byte_is_made_good_on_a_fresh_url(
        self, file: StoredFile, others: list[Fault]
    ) -> None:
        whole = file.meets().read()

        for at in range(len(file.stored)):
            assert file.meets(Cut(at), Expired(), *others).read() == whole, at
            assert (file.urls, file.statuses[1]) == (2, 403), at

    @pytest.mark.parametrize("step", [1, 2, 3, 7, 20, 100])
    def test_a_file_may_be_cut_again_and_again(self, file: StoredFile, step: int) -> None:
        whole = file.meets().read()
        answers = -(-len(file.stored) // step)

        assert file.meets(always=Cut(step)).read() == whole
        assert file.ranges == [None, *(f"bytes={n * step}-" for n in range(1, answers))]

    @pytest.mark.parametrize("step", [1, 7, 20, 100])
    def test_so_may_one_that_is_always_read_from_its_start(
        self, file: StoredFile, step: int
    ) -> None:
        whole = file.meets().read()
        cuts = [Cut(at) for at in range(step, len(file.stored), step)]

        assert file.meets(NoRanges(), *cuts).read() == whole
        assert set(file.statuses) == {200}

    def test_only_the_rest_is_asked_for_and_of_the_same_file(self, file: StoredFile) -> None:
        file.meets(Cut(40)).read()

        assert file.statuses == [200, 206]
        assert "If-Match" not in file.headers[0]
        assert file.headers[1]["Range"] == "bytes=40-"
        assert file.headers[1]["If-Match"].strip('"').isalnum()

    @pytest.mark.parametrize("at", [0, 1, 2, 40])
    def test_silence_is_a_cut(self, running_simulator: Simulator, at: int) -> None:
        file = StoredFile(running_simulator, read_timeout_seconds=0.1)

        assert file.meets(Stall(at), Stall(at)).read() == gzip.decompress(file.stored)

    @pytest.mark.parametrize(
        "fault", [Reset(), Throttled(), ServerError(500), Expired()], ids=lambda f: f.name()
    )
    def test_a_refusal_is_no_end(self, file: StoredFile, fault: Fault) -> None:
        assert file.meets(fault, Cut(30), fault, fault).read() == gzip.decompress(file.stored)

    def test_a_part_of_the_range_asked_for_is_a_part_of_the_file(self) -> None:
        with RawServer(
            ok(b'{"id', 'ETag: "a"', length=9),
            answer("206 Partial Content", "Content-Range: bytes 4-6/9", "Content-Length: 3")
            + b'":1',
            answer("206 Partial Content", "Content-Range: bytes 7-8/9", "Content-Length: 2")
            + b"}\n",
        ) as server:
            assert server.read() == b'{"id":1}\n'

    def test_without_an_etag_a_gzip_file_is_resumed_all_the_same(self, file: StoredFile) -> None:
        file.meets(NoETag(), Cut(40))

        assert file.read() == gzip.decompress(file.stored)
        assert file.statuses == [200, 206]

    def test_a_weak_etag_matches_nothing_so_a_plain_file_is_read_anew(self) -> None:
        body = b'{"id":1}\n'
        with RawServer(
            ok(body[:4], 'ETag: W/"a"', length=len(body)), ok(body, 'ETag: W/"a"')
        ) as server:
            assert server.read() == body

        assert "Range" not in server.requests[1]

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(
        st.builds(
            FileForm,
            lines=st.lists(_LINES, max_size=30).map(tuple),
            only_lines=st.just(value=True),
            members=st.integers(1, 4),
        ),
        st.lists(st.integers(0, 400), max_size=8).map(lambda places: [Cut(at) for at in places]),
        st.sets(st.sampled_from([NoRanges(), NoETag()])),
        st.integers(1, 300),
    )
    def test_any_file_in_any_blocks_with_any_cuts_has_the_same_lines(
        self, file: StoredFile, form: FileForm, cuts: list[Cut], others: set[Fault], size: int
    ) -> None:
        file.meets(Form(form), *others, *cuts)

        with closing(file.open()) as opened:
            text = b"".join(block.lines for block in opened.blocks(size))

        assert text == b"".join(line + b"\n" for line in form.lines)


class TestLengths:
    """A file of a length that nobody declares ends where two answers end."""

    @pytest.mark.parametrize("chunked", [False, True], ids=["closed", "chunked"])
    @pytest.mark.parametrize(
        "others",
        [[], [NoRanges()], [NoETag()], [TWO_MEMBERS], [PLAIN_PEOPLE], [PLAIN_PEOPLE, NoRanges()]],
        ids=["ranges", "no ranges", "no ETag", "members", "plain", "plain, no ranges"],
    )
    def test_a_cut_at_any_byte_is_noticed(
        self, file: StoredFile, others: list[Fault], *, chunked: bool
    ) -> None:
        whole = file.meets(*others).read()

        for at in range(chunked, file.bytes_sent):  # an empty chunk would be the last
            assert file.meets(CutUnnoticed(at, chunked=chunked), *others).read() == whole, at

    @pytest.mark.parametrize(
        "others",
        [[], [NoRanges()], [TWO_MEMBERS, NoRanges()], [PLAIN_PEOPLE, NoRanges()]],
        ids=["ranges", "no ranges", "members", "plain"],
    )
    def test_it_may_never_be_declared(self, file: StoredFile, others: list[Fault]) -> None:
        whole = file.meets().read()

        assert file.meets(*others, always=CutUnnoticed()).read() == whole

    def test_a_range_declares_it(self, file: StoredFile) -> None:
        whole = file.meets().read()

        assert file.meets(PLAIN_PEOPLE, CutUnnoticed(60), CutUnnoticed(0)).read() == whole

    def test_a_gzip_file_that_always_ends_early_is_not_whole(self, file: StoredFile) -> None:
        file.meets(NoRanges(), always=CutUnnoticed(60))

        with pytest.raises(FileError, match="ends early"):
            file.read()

    def test_no_bytes_are_no_file_unless_that_is_declared(self, file: StoredFile) -> None:
        file.meets(always=CutUnnoticed(0))

        with pytest.raises(FileError, match="nothing said that the file does too"):
            file.read()

    def test_no_bytes_in_chunks_are_declared(self) -> None:
        with RawServer(answer("200 OK", "Transfer-Encoding: chunked") + b"0\r\n\r\n") as server:
            assert server.read() == b""

    def test_chunks_with_their_last_one_are_the_whole_file(self) -> None:
        chunks = b'4\r\n{"id\r\n5\r\n":1}\n\r\n0\r\n\r\n'
        with RawServer(answer("200 OK", "Transfer-Encoding: chunked") + chunks) as server:
            assert server.read() == b'{"id":1}\n'


class TestBrokenFiles:
    """A file that is not whole, or not what was stored, is an error: never a shorter file."""

    def test_a_file_cut_short_in_the_store_is_an_error_at_every_length(
        self, any_gzip: StoredFile
    ) -> None:
        for length in range(1, len(any_gzip.stored)):
            assert any_gzip.meets(Truncated(length)).outcome() is FileError, length

    def test_so_is_one_of_two_members_but_between_them(self, any_gzip: StoredFile) -> None:
        # Each member is a whole gzip file: where one ends, the file may end.
        whole = any_gzip.meets().read()
        half = whole[: len(whole) // 2]
        outcomes = [
            any_gzip.meets(TWO_MEMBERS, Truncated(length)).outcome()
            for length in range(1, len(any_gzip.stored) + 200)
        ]

        short = [outcome for outcome in outcomes if outcome not in (FileError, whole)]
        assert short in ([half], [half + b"\n"])

    @pytest.mark.parametrize("form", [FileForm(), FileForm(members=2)], ids=["one", "two members"])
    def test_a_byte_that_is_wrong_changes_nothing_or_is_an_error(
        self, any_gzip: StoredFile, form: FileForm
    ) -> None:
        whole = any_gzip.meets().read()

        outcomes = [
            any_gzip.meets(Form(form), Corrupt(at)).outcome() for at in range(len(any_gzip.stored))
        ]

        # With wrong first bytes it is no gzip at all, and no contacts either.
        assert all(gzip_is_gone(outcome) for outcome in outcomes[:2])
        assert set(outcomes[2:]) <= {whole, FileError}

    @pytest.mark.parametrize("members", [1, 2])
    def test_so_is_a_wrong_checksum(self, any_gzip: StoredFile, members: int) -> None:
        any_gzip.meets(Form(FileForm(members=members)), WrongChecksum())

        with pytest.raises(FileError, match="damaged"):
            any_gzip.read()

    @pytest.mark.parametrize("rest", [b"x", b"\x1f", b"\x1f\x8b", b'{"id":1}\n'])
    def test_so_is_anything_after_gzip(self, rest: bytes) -> None:
        for gzip_file in (FastGzipFile, gzip.GzipFile):
            with (
                RawServer(ok(gzip.compress(b'{"id":1}\n') + rest)) as server,
                closing(server.open(gzip_file)) as file,
                pytest.raises(FileError),
            ):
                list(file.blocks())


def gzip_is_gone(outcome: object) -> bool:
    return outcome is FileError or (isinstance(outcome, bytes) and not outcome.startswith(b"{"))


class TestChangedFiles:
    """What was read and what comes are one file, or it is an error."""

    @pytest.mark.parametrize(
        "others",
        [
            [],
            [NoRanges()],
            [IgnoresIfMatch()],
            [NoETag()],
            [PLAIN_PEOPLE],
            [PLAIN_PEOPLE, NoRanges()],
            [PLAIN_PEOPLE, IgnoresIfMatch()],
            [PLAIN_PEOPLE, NoETag()],
            [PLAIN_PEOPLE, NoETag(), NoRanges()],
        ],
        ids=lambda faults: ", ".join(fault.name() for fault in faults) or "plainly",
    )
    def test_two_files_are_never_mixed(self, file: StoredFile, others: list[Fault]) -> None:
        old = file.meets().read()
        new = file.meets(ChangedFile()).read()
        assert new != old

        outcomes = [
            file.meets(*others, Cut(at)).add(ChangedFile(), after=1).outcome()
            for at in range(len(file.stored) - 2)
        ]

        # Parts of two files that happen to be alike make one of them, as gzip's checksum tells.
        assert set(outcomes) <= {old, new, FileError}
        assert others == [NoETag()] or set(outcomes[30:]) == {FileError}

    def test_a_change_before_the_first_byte_is_none(self, file: StoredFile) -> None:
        new = file.meets(ChangedFile()).read()

        assert file.meets(Cut(0)).add(ChangedFile(), after=1).read() == new

    def test_a_change_is_told_as_such(self, file: StoredFile) -> None:
        file.meets(Cut(40)).add(ChangedFile(), after=1)

        with pytest.raises(FileError, match="changed while it was read"):
            file.read()
        assert file.statuses == [200, 412]

    @pytest.mark.parametrize("shift", [-5, -1, 1, 5])
    def test_another_range_than_asked_for_is_no_rest(self, file: StoredFile, shift: int) -> None:
        file.meets(Cut(40), WrongRange(shift))

        with pytest.raises(FileError, match="changed while it was read"):
            file.read()

    def test_a_file_that_is_shorter_now_has_changed(self, file: StoredFile) -> None:
        file.meets(Cut(40), IgnoresIfMatch()).add(Truncated(30), after=1)

        with pytest.raises(FileError, match="changed while it was read"):
            file.read()


class TestTries:
    """Eight requests in a row without a new byte, and not one more."""

    REFUSALS = pytest.mark.parametrize(
        "refusal",
        [Throttled(), Expired(), ServerError(500), Reset(), Cut(0), Cut(0, reset=True)],
        ids=repr,
    )

    @REFUSALS
    def test_the_eighth_may_bring_the_file(self, file: StoredFile, refusal: Fault) -> None:
        file.meets(*[refusal] * 7)

        assert file.read() == gzip.decompress(file.stored)

    @REFUSALS
    def test_after_eight_it_is_given_up(self, file: StoredFile, refusal: Fault) -> None:
        file.meets(always=refusal)

        with pytest.raises(FileError, match=r"after 0 bytes: .* at the last of 8 tries"):
            file.read()
        assert len(file.statuses) == 8

    @REFUSALS
    def test_a_new_byte_gives_eight_more(self, file: StoredFile, refusal: Fault) -> None:
        file.meets(*[Cut(1), *[refusal] * 7] * 5)

        assert file.read() == gzip.decompress(file.stored)

    @REFUSALS
    def test_after_eight_in_the_middle_it_is_given_up(
        self, file: StoredFile, refusal: Fault
    ) -> None:
        file.meets(Cut(40), always=refusal)

        with pytest.raises(FileError, match=r"after 40 bytes: .* at the last of 8 tries"):
            file.read()
        assert len(file.statuses) == 1 + 8

    def test_a_known_byte_is_no_new_one(self, file: StoredFile) -> None:
        file.meets(NoRanges(), Cut(40), always=Cut(40))

        with pytest.raises(FileError, match="after 40 bytes"):
            file.read()
        assert len(file.statuses) == 1 + 8

    def test_tries_are_apart_and_ever_further(self, running_simulator: Simulator) -> None:
        file = StoredFile(running_simulator)
        started = file.clock.monotonic()

        assert file.meets(always=Throttled()).outcome() is FileError
        assert file.clock.monotonic() - started > 1

    @pytest.mark.parametrize("status", [400, 401, 404, 410, 204, 206])
    def test_any_other_answer_is_an_error_at_once(self, file: StoredFile, status: int) -> None:
        file.meets(always=Answer(status, b"" if status == 204 else b"no"))

        with pytest.raises(FileError, match=f"the storage answered {status};"):
            file.read()
        assert len(file.statuses) == 1

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("location", ["{storage}/exports/x", "http://[", "//", "\xff", ""])
    def test_a_redirect_is_not_followed_wherever_it_leads(
        self, file: StoredFile, location: str, status: int
    ) -> None:
        leads_to = location.format(storage=file.storage_url)
        file.meets(always=Redirect(leads_to, status))

        with pytest.raises(FileError, match=f"answered {status}, a redirect that the tap does not"):
            file.read()
        assert len(file.statuses) == 1

    def test_what_ends_the_wait_for_a_url_ends_the_file(self, any_gzip: StoredFile) -> None:
        def no_url() -> str:
            raise GeneratorExit

        file = any_gzip.meets(Cut(40), Expired()).open(fresh_url=no_url)

        with pytest.raises(GeneratorExit), closing(file):
            list(file.blocks())


class TestConnections:
    """What goes to the storage, and when it is over."""

    def test_nothing_but_the_url_opens_the_file(
        self, file: StoredFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login me password mine\ndefault login me password x\n")
        monkeypatch.setenv("NETRC", str(netrc))

        file.meets(Cut(40), Expired(), Throttled()).read()

        names = {name.lower() for headers in file.headers for name in headers}
        assert len(file.headers) == 4
        assert names == {
            *("host", "user-agent", "accept-encoding", "accept", "connection"),
            *("range", "if-match"),
        }

    def test_a_name_in_the_url_goes_nowhere(self, file: StoredFile) -> None:
        file.meets()

        file.open(file.url().replace("//", "//me:mine@")).close()

        assert "Authorization" not in file.headers[0]

    def test_a_cookie_is_not_kept(self, file: StoredFile) -> None:
        file.meets(Answer(503, headers={"Set-Cookie": "a=b; Path=/"}), Cut(40)).read()

        assert [headers.get("Cookie") for headers in file.headers] == [None] * 3

    def test_the_tap_names_itself_and_wants_the_file_as_it_is(self, file: StoredFile) -> None:
        file.meets().read()

        assert file.headers[0]["User-Agent"] == "the-tap/1.0"
        assert file.headers[0]["Accept-Encoding"] == "identity"

    def test_closing_a_file_hangs_up(self) -> None:
        with RawServer(ok(b'{"id":1}\n', length=100), last_ends=False) as server:
            file = server.open()
            file.close()
            assert server.hung_up.wait(5), file

    @pytest.mark.parametrize("status", ["404 Not Found", "302 Found"])
    def test_a_refusal_hangs_up(self, status: str) -> None:
        refusal = answer(status, "Content-Length: 100", "Location: /x")
        with RawServer(refusal, last_ends=False) as server:
            with pytest.raises(FileError) as caught:
                server.open()
            assert server.hung_up.wait(5), caught.value


class TestSecrecy:
    """A presigned URL's query opens the file: nobody is told."""

    @pytest.mark.parametrize(
        "fault",
        [
            *(Throttled(), Expired(), Answer(404), Redirect("http://[")),
            *(Reset(), Cut(0), Cut(0, reset=True), CutUnnoticed(0)),
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("begun", [False, True])
    def test_no_error_and_no_log_holds_it(
        self, file: StoredFile, fault: Fault, caplog: pytest.LogCaptureFixture, *, begun: bool
    ) -> None:
        caplog.set_level(logging.DEBUG, "tap_cometly")
        file.meets(*[Cut(40)] * begun, always=fault)

        with pytest.raises(FileError) as caught:
            file.read()

        chain = "\n".join(f"{error!r} {vars(error)}" for error in chain_of(caught.value))
        logged = "\n".join(
            record.getMessage() for record in caplog.records if record.name == "tap_cometly.files"
        )
        assert "X-Amz" not in chain + logged
        assert "/exports/" not in chain + logged

    def test_no_error_of_a_connection_that_cannot_be_made_holds_it(self) -> None:
        with pytest.raises(FileError) as caught:
            Storage("the-tap/1.0", VirtualClock()).open(
                "http://127.0.0.1:1/file?X-Amz-Signature=secret", lambda: ""
            )

        assert [str(error) for error in chain_of(caught.value)] == [str(caught.value)]


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, what it was raised from, and what it was raised amid."""
    if error is not None:
        yield error
        yield from chain_of(error.__cause__)
        yield from chain_of(error.__context__)


class TestMemory:
    """A file of any size takes the same memory."""

    @pytest.mark.parametrize("gzip_file", [FastGzipFile, gzip.GzipFile], ids=["fast", "standard"])
    def test_200_mb_pass_through_a_few_mib(self, gzip_file: type[gzip.GzipFile]) -> None:
        line = b'{"id":1,"email":"ada@example.com","name":"Ada"}\n'
        member = gzip.compress(line * (MIB // len(line)))
        with RawServer(ok(member * 200)) as server:
            tracemalloc.start()
            with closing(server.open(gzip_file)) as file:
                size = sum(len(block.lines) for block in file.blocks())
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()

        assert size > 199 * MIB
        assert peak < 4 * MIB
