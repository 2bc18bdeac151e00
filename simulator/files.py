"""Export files: contacts as gzipped NDJSON, in any layout that a storage may use."""

from __future__ import annotations

import json
import random
import zlib
from functools import cache
from itertools import islice, pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec

try:
    from isal import isal_zlib

    _compressobj: Any = isal_zlib.compressobj
except ImportError:  # no wheel for this platform
    _compressobj = zlib.compressobj

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from simulator.population import Contact

_BLOCK_CONTACTS: Final = 10_000
_GZIP: Final = 31  # zlib: with gzip's header and trailer
_encoder = msgspec.json.Encoder()


class FileLayout(msgspec.Struct, frozen=True, forbid_unknown_fields=True, repr_omit_defaults=True):
    r"""The layout of a file.

    Attributes:
        members: Number of gzip members; they may end inside a line or a character.
        content_encoding: The `Content-Encoding` header, such as `gzip`.
        plain: NDJSON without gzip.
        empty_body: Zero bytes, without even a gzip header.
        lines: Raw lines to append, without newlines.
        only_lines: Leave out the contacts.
        substitutions: Pairs of old and new bytes, replaced in the lines of the contacts.
        newline: The line terminator.
        last_newline: Whether the last line has a terminator.
        shuffle: A seed to shuffle the contacts by; None: in order of creation.
        escaped: Escape non-ASCII characters and slashes as PHP does: `\u00fc`, `\/`.
        modified: The time in the gzip header, in Unix seconds.
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
    layout: FileLayout | None = None,
) -> tuple[bytes, int]:
    """The bytes of a file and its number of contacts; deterministic.

    Args:
        contacts: The contacts, in the order of the file.
        comet_tokens: Whether to include `comet_tokens`.
        all_emails: Whether to include `emails`.
        layout: The layout; by default one gzip member.
    """
    layout = layout or FileLayout()
    if layout.empty_body:
        return b"", 0
    if layout.only_lines:
        contacts = ()
    if layout.shuffle is not None:
        contacts = list(contacts)
        random.Random(layout.shuffle).shuffle(contacts)
    counted = _Counted(contacts)
    line = _line(*["comet_tokens"] * comet_tokens, *["emails"] * all_emails)
    blocks = _blocks(counted, line, layout)
    if layout.plain:
        return b"".join(blocks), counted.count
    if layout.members == 1:
        return _gzip(blocks, layout.modified), counted.count
    text = b"".join(blocks)
    bounds = [len(text) * member // layout.members for member in range(layout.members + 1)]
    members = (_gzip([text[start:end]], layout.modified) for start, end in pairwise(bounds))
    return b"".join(members), counted.count


class _Counted:
    """An iterator over contacts that counts them."""

    def __init__(self, contacts: Iterable[Contact]) -> None:
        self._contacts = iter(contacts)
        self.count = 0

    def take(self, number: int) -> list[Contact]:
        taken = list(islice(self._contacts, number))
        self.count += len(taken)
        return taken


def _blocks(
    contacts: _Counted, line: Callable[[Contact], msgspec.Struct], layout: FileLayout
) -> Iterator[bytes]:
    """The NDJSON in blocks, to keep only one copy of a large export in memory."""
    pending = b""
    while block := contacts.take(_BLOCK_CONTACTS):
        yield pending
        pending = _encoder.encode_lines([*map(line, block)])
        if layout.escaped:
            pending = b"".join(map(_escaped, pending.splitlines(keepends=True)))
        for old, new in layout.substitutions:
            pending = pending.replace(old, new)
        if layout.newline != b"\n":
            pending = pending.replace(b"\n", layout.newline)
    pending += b"".join(raw + layout.newline for raw in layout.lines)
    yield pending if layout.last_newline else pending.removesuffix(layout.newline)


def _escaped(line: bytes) -> bytes:
    text = json.dumps(json.loads(line), separators=(",", ":"))
    return text.replace("/", "\\/").encode() + b"\n"


def _gzip(blocks: Iterable[bytes], modified: int) -> bytes:
    compressor = _compressobj(1, zlib.DEFLATED, _GZIP)
    data = bytearray().join([*map(compressor.compress, blocks), compressor.flush()])
    data[4:8] = modified.to_bytes(4, "little")
    return bytes(data)


@cache
def _line(*optional_fields: str) -> Callable[[Contact], msgspec.Struct]:
    """A function that makes a line of a contact, with the optional fields after the others."""
    fields = ("id", "email", "name", "phone", "location", *optional_fields)
    line = msgspec.defstruct("Line", fields, gc=False)
    values = attrgetter(*fields)
    return lambda contact: line(*values(contact))
