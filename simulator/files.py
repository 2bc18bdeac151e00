"""An export's file: contacts as gzipped NDJSON, in any layout a store may use."""

from __future__ import annotations

import json
import random
import zlib
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, Final

import msgspec

try:
    from isal import isal_zlib

    _compressobj: Any = isal_zlib.compressobj
except ImportError:  # no wheel for this platform
    _compressobj = zlib.compressobj

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from simulator.population import Contact

_BLOCK_CONTACTS: Final = 10_000
_GZIP: Final = 31  # zlib: with gzip's header and trailer
_encoder = msgspec.json.Encoder()


class FileForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, repr_omit_defaults=True):
    r"""The layout of a file.

    Attributes:
        members: Number of gzip members; one may end inside a line or a character.
        content_encoding: The `Content-Encoding` header, such as `gzip`.
        plain: NDJSON without gzip.
        empty_body: Zero bytes, not even gzip's header.
        lines: Raw lines, without line ends, after those of the contacts.
        only_lines: Raw lines instead of those of the contacts.
        substitutions: Pairs of bytes: the first is replaced by the second wherever it occurs in the
            contacts' lines.
        newline: What ends a line.
        last_newline: Whether the last line has its end too.
        shuffle: A seed to shuffle the contacts by; None: in order of creation.
        escaped: Write non-ASCII characters and slashes as PHP does: `\u00fc`, `\/`.
        modified: The time in gzip's header, in Unix seconds.
    """

    members: int = 1
    content_encoding: str | None = None
    plain: bool = False
    empty_body: bool = False
    lines: tuple[bytes, ...] = ()
    only_lines: bool = False
    substitutions: tuple[tuple[bytes, bytes], ...] = ()
    newline: bytes = b"\n"
    last_newline: bool = True
    shuffle: int | None = None
    escaped: bool = False
    modified: int = 0


def make_file(
    contacts: Iterable[Contact],
    *,
    comet_tokens: bool = False,
    all_emails: bool = False,
    form: FileForm | None = None,
) -> tuple[bytes, int]:
    """The bytes of an export's file and its number of contacts; always the same for the same input.

    Args:
        contacts: Its contacts, in the order of the file.
        comet_tokens: Whether a line has `comet_tokens`.
        all_emails: Whether a line has `emails`.
        form: The layout; by default one gzip member.
    """
    form = form or FileForm()
    if form.empty_body:
        return b"", 0
    if form.only_lines:
        contacts = ()
    if form.shuffle is not None:
        contacts = list(contacts)
        random.Random(form.shuffle).shuffle(contacts)
    counted = _Counted(contacts)
    blocks = _blocks(counted, _LINES[comet_tokens, all_emails], form)
    if form.plain:
        return b"".join(blocks), counted.count
    if form.members == 1:
        return _gzip(blocks, form.modified), counted.count
    text = b"".join(blocks)
    bounds = [len(text) * member // form.members for member in range(form.members + 1)]
    members = (_gzip([text[start:end]], form.modified) for start, end in pairwise(bounds))
    return b"".join(members), counted.count


class _Counted:
    """An iterator that counts contacts."""

    def __init__(self, contacts: Iterable[Contact]) -> None:
        self._contacts = iter(contacts)
        self.count = 0

    def take(self, number: int) -> list[Contact]:
        taken = list(islice(self._contacts, number))
        self.count += len(taken)
        return taken


def _blocks(contacts: _Counted, line: type[_Line], form: FileForm) -> Iterator[bytes]:
    """The NDJSON in blocks, so that a large export is never in memory twice."""
    pending = b""
    while block := contacts.take(_BLOCK_CONTACTS):
        yield pending
        pending = _encoder.encode_lines([line.of(contact) for contact in block])
        if form.escaped:
            pending = b"".join(map(_escaped, pending.splitlines(keepends=True)))
        for old, new in form.substitutions:
            pending = pending.replace(old, new)
        if form.newline != b"\n":
            pending = pending.replace(b"\n", form.newline)
    pending += b"".join(raw + form.newline for raw in form.lines)
    yield pending if form.last_newline else pending.removesuffix(form.newline)


def _escaped(line: bytes) -> bytes:
    text = json.dumps(json.loads(line), separators=(",", ":"))
    return text.replace("/", "\\/").encode() + b"\n"


def _gzip(blocks: Iterable[bytes], modified: int) -> bytes:
    compressor = _compressobj(1, zlib.DEFLATED, _GZIP)
    data = bytearray().join([*map(compressor.compress, blocks), compressor.flush()])
    data[4:8] = modified.to_bytes(4, "little")
    return bytes(data)


class _Line(msgspec.Struct, gc=False):
    """A line of a file, which has no `created_at`."""

    id: int
    email: str | None
    name: str | None
    phone: str | None
    location: str | None

    @classmethod
    def of(cls, person: Contact) -> _Line:
        return cls(person.id, person.email, person.name, person.phone, person.location)


class _LineWithTokens(_Line, gc=False):
    comet_tokens: Sequence[str | None] | None

    @classmethod
    def of(cls, person: Contact) -> _LineWithTokens:
        return cls(
            person.id,
            person.email,
            person.name,
            person.phone,
            person.location,
            person.comet_tokens,
        )


class _LineWithEmails(_Line, gc=False):
    emails: Sequence[str | None] | None

    @classmethod
    def of(cls, person: Contact) -> _LineWithEmails:
        return cls(
            person.id, person.email, person.name, person.phone, person.location, person.emails
        )


class _LineWithBoth(_LineWithTokens, gc=False):
    emails: Sequence[str | None] | None

    @classmethod
    def of(cls, person: Contact) -> _LineWithBoth:
        return cls(
            person.id,
            person.email,
            person.name,
            person.phone,
            person.location,
            person.comet_tokens,
            person.emails,
        )


_LINES: Final[dict[tuple[bool, bool], type[_Line]]] = {
    (False, False): _Line,
    (True, False): _LineWithTokens,
    (False, True): _LineWithEmails,
    (True, True): _LineWithBoth,
}
