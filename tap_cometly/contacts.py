"""Lines of a file as checked contacts, and contacts as the bytes of RECORD messages.

Pure: no HTTP, no time, no Singer SDK. Contacts travel in blocks: a block is decoded into typed
structs and encoded again in a few calls, whatever the number of lines. A block that does not fit
the types is done again line by line, tolerant where the tap's contract is, exact in its errors.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from tap_cometly.errors import LineError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from tap_cometly.files import Block

WINDOW_FIELDS = ("created_from", "created_until")
"""Fields that are not in the file: the bounds of the export's window."""

_MOST_UNKNOWN_FIELDS = 100
"""Told of and remembered; more are no fields but data in the wrong place."""

_Text = str | None
_Texts = list[str | None] | None

_NO_STRUCT_FIELD = re.compile(r'["\\\x00-\x1f]')
"""Characters that msgspec does not take in a struct's JSON names."""

_T = TypeVar("_T")

_RAW_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_RAW_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_STRING = msgspec.json.Decoder(str)
_INTEGER = msgspec.json.Decoder(int)


class ContactReader:
    """Decodes and checks contacts.

    The struct of a contact has the fields of the stream's schema in its order, but for those of
    the window. Fields that are not selected are checked like the others and then left out.
    """

    def __init__(
        self,
        schema: Mapping[str, Any],
        *,
        selected: Callable[[str], bool] = lambda _: True,
        on_unknown_field: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Build the struct of a contact.

        Args:
            schema: The stream's JSON Schema.
            selected: Tells of a field whether it is wanted.
            on_unknown_field: Is told, once each, the names of fields that the schema lacks.
        """
        self._types = {
            name: _type_of(definition)
            for name, definition in schema["properties"].items()
            if name not in WINDOW_FIELDS
        }
        self._deselected = [name for name in self._types if not selected(name)]
        self._unknown: list[str] = []
        self._on_unknown_field = on_unknown_field
        self._build_struct()

    def _build_struct(self) -> None:
        """Make a decoder that knows the schema's fields and the unknown ones met so far."""
        fields: list[Any] = []
        for name, type_ in self._types.items():
            kind = type_ | UnsetType if name in self._deselected else type_
            fields.append((name, kind) if type_ is int else (name, kind, None))
        # Numbered and renamed: a JSON name need not be a Python one. What cannot even be a
        # struct's JSON name stays unknown, and its lines stay slow.
        unknown = {
            f"unknown_{index}": name
            for index, name in enumerate(self._unknown)
            if not _NO_STRUCT_FIELD.search(name)
        }
        fields += [(attribute, Any, UNSET) for attribute in unknown]
        self._struct = msgspec.defstruct(
            "Contact", fields, rename=unknown, forbid_unknown_fields=True, kw_only=True, gc=False
        )
        self._left_out = [*self._deselected, *unknown]
        self._decoder: msgspec.json.Decoder[Struct] = msgspec.json.Decoder(self._struct)

    def read(self, block: Block) -> list[Struct]:
        """Decode and check the contacts of a block.

        Args:
            block: Lines of an export's file.

        Returns:
            The contacts, in the block's order.

        Raises:
            LineError: A line is no contact; names its number, never its content.
        """
        contacts = _attempt(self._decoder.decode_lines, block.lines)
        if contacts is None or not len(contacts) == block.line_count == _objects_apart(block.lines):
            return self._read_line_by_line(block)
        self._leave_out(contacts)
        return contacts

    def _read_line_by_line(self, block: Block) -> list[Struct]:
        known = len(self._unknown)
        contacts = [
            self._read_line(line, number)
            for number, line in enumerate(block.lines.split(b"\n"), block.first_line)
            if line.strip(b" \t\r")
        ]
        self._leave_out(contacts)
        if len(self._unknown) > known:  # so that the next blocks fit again
            self._build_struct()
        return contacts

    def _read_line(self, line: bytes, number: int) -> Struct:
        contact = _attempt(self._decoder.decode, line)
        if contact is not None:
            return contact
        fields = _attempt(_RAW_OBJECT.decode, line)
        if fields is None or _attempt(bytes.decode, line) is None:
            raise _not_a_contact(number, "is no JSON object in UTF-8")
        values = {}
        for name, raw in fields.items():
            if name in self._types:
                values[name] = self._value(name, bytes(raw), number)
            else:
                self._meet_unknown(name)
        if "id" not in values:
            raise _not_a_contact(number, "has no integer 'id'")
        return self._struct(**values)

    def _value(self, name: str, raw: bytes, number: int) -> object:
        type_ = self._types[name]
        if type_ is int:
            integer = _attempt(_INTEGER.decode, raw)
            if integer is None:
                raise _not_a_contact(number, f"has no integer '{name}'")
            return integer
        if type_ is _Text or raw == b"null":
            return _text(raw, name, number)
        items = _attempt(_RAW_ARRAY.decode, raw)
        if items is None:
            raise _not_a_contact(number, f"has no array in '{name}'")
        return [_text(bytes(item), name, number) for item in items]

    def _meet_unknown(self, name: str) -> None:
        if name not in self._unknown and len(self._unknown) < _MOST_UNKNOWN_FIELDS:
            self._unknown.append(name)
            self._on_unknown_field(name)

    def _leave_out(self, contacts: list[Struct]) -> None:
        for name in self._left_out:
            for contact in contacts:
                setattr(contact, name, UNSET)


def to_record(contact: Struct, window_fields: Mapping[str, str]) -> dict[str, Any]:
    """A contact as a Singer record.

    Args:
        contact: A contact, as `ContactReader` gives it.
        window_fields: What goes into `created_from` and `created_until`.

    Returns:
        The record: the selected fields in the schema's order, then the window's.
    """
    fields = {
        name: value
        for name in contact.__struct_fields__
        if (value := getattr(contact, name)) is not UNSET
    }
    return {**fields, **window_fields}


class RecordLines:
    r"""Encodes the contacts of one window as RECORD messages.

    All messages of a window begin and end alike, so a block of contacts is encoded as one JSON
    line each, cut at every `}\n`, and joined by the constant end of a message, a line break and the
    constant begin of the next. This is unambiguous: the encoder escapes line breaks in strings
    and puts none between tokens.
    """

    def __init__(self, stream: str, window_fields: Mapping[str, str]) -> None:
        """Prepare the constant parts.

        Args:
            stream: The stream's name.
            window_fields: What goes into `created_from` and `created_until`; may be empty.
        """
        self._encoder = msgspec.json.Encoder()
        self._head = b'{"type":"RECORD","stream":%b,"record":' % self._encoder.encode(stream)
        constants = self._encoder.encode(window_fields)
        self._tail = b"," + constants[1:] if window_fields else b"}"

    def encode(self, contacts: Collection[Struct], time_extracted: str) -> bytes:
        r"""Encode contacts.

        Args:
            contacts: Contacts, as `ContactReader` gives them; each with at least one field.
            time_extracted: When they were read, RFC 3339.

        Returns:
            Whole lines, each ended by `\n`.
        """
        if not contacts:
            return b""
        end = b'%b,"time_extracted":"%b"}\n' % (self._tail, time_extracted.encode())
        *records, _ = self._encoder.encode_lines(contacts).split(b"}\n")
        # At the ends of the list, as a copy of the whole would cost more.
        records[0] = self._head + records[0]
        records[-1] += end
        return (end + self._head).join(records)

    def encode_records(self, contacts: Collection[Struct]) -> bytes:
        r"""Encode contacts as bare records, for batch files.

        Args:
            contacts: As for `encode`.

        Returns:
            Whole lines, each ended by `\n`.
        """
        return self._encoder.encode_lines(contacts).replace(b"}\n", self._tail + b"\n")


def _type_of(definition: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a type, as msgspec takes it
    """The Python type of a field, from its JSON Schema."""
    kinds = definition["type"]
    if "integer" in kinds:
        return int
    return _Texts if "array" in kinds else _Text


def _attempt(decode: Callable[[bytes], _T], data: bytes) -> _T | None:
    """What a decoder makes of some bytes, or None.

    The exception, which may quote them, ends here and is not even the context of a later one.
    """
    try:
        return decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _objects_apart(lines: bytes) -> int:
    r"""How many lines there are, if each begins and ends with an object; fewer if not.

    `decode_lines` also takes two objects in a line, and one that spans two. But JSON allows
    `}\n{` only between two objects of the outermost level; so if all line breaks look like
    that, and there are as many objects as lines, every line is one object.
    """
    return (lines.count(b"}\n{") or lines.count(b"}\r\n{")) + 1


def _text(raw: bytes, name: str, number: int) -> str | None:
    """A string or null; a number or boolean as its JSON text."""
    if raw == b"null":
        return None
    if raw.startswith((b"{", b"[")):
        raise _not_a_contact(number, f"has an object or array in '{name}' where a string belongs")
    return _STRING.decode(raw) if raw.startswith(b'"') else raw.decode()


def _not_a_contact(number: int, why: str) -> LineError:
    return LineError(
        f"line {number} of its file {why}, so the file is not read as if it were whole; "
        "ask Cometly's support about this export"
    )
