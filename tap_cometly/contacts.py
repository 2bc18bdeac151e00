"""Decodes and checks the lines of a file as contacts, and encodes contacts as RECORD messages.

A block of lines is decoded and encoded in a few calls. A block that cannot be decoded this way is
read line by line: slower, but it accepts more and names the line in errors.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Struct

from tap_cometly.errors import LineError, TapError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from tap_cometly.files import Block

WINDOW_FIELDS = ("created_from", "created_until")
"""Fields that are not read from the file: the bounds of the export's window."""

_MAX_WARNINGS = 100  # beyond that, field names are probably data

_UNKNOWN_FIELD = (
    "Contacts have a field %r that the schema does not have; it is dropped. To keep it, add it to "
    "the stream's schema in the catalog (Meltano: the extractor's \"schema\" extra)."
)
_WINDOW_FIELD = "Contacts have a field %r; it is dropped, as the tap fills it from the window."
_LONE_SURROGATE = (
    "Contacts have text with half a surrogate pair (such as half an emoji); each half is replaced "
    "with U+FFFD."
)

_Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Text = str | None
_Texts = list[str | None] | None

_T = TypeVar("_T")

_RAW_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_RAW_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_STRING = msgspec.json.Decoder(str)
_INTEGER: msgspec.json.Decoder[int] = msgspec.json.Decoder(_Integer)
_ANY = msgspec.json.Decoder()

_LINE_BREAKS = (b'}\n{"id":', b"}\n{", b"}\r\n{")  # the longer a pattern, the faster it is found
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a surrogate pair
    rb"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|.)"
)
_UNSUPPORTED_NAME = re.compile(r'["\\\x00-\x1f]')  # by msgspec

logger = logging.getLogger("tap-cometly")


class ContactReader:
    """Decodes and checks the contacts of a sync; warns once about each thing it drops."""

    def __init__(
        self,
        schema: Mapping[str, Any],
        *,
        selected: Callable[[str], bool] = lambda _: True,
        added: Collection[str] = (),
    ) -> None:
        """Build the decoder.

        `added` names the properties of the schema that come from the catalog; they may hold any
        JSON value. Fields that are not selected are checked too, but left out.
        """
        self._types = {
            name: Any if name in added else _type_of(definition)
            for name, definition in schema["properties"].items()
            if name not in WINDOW_FIELDS
        }
        # Numbered, as a property's name need not be a Python identifier.
        names = {f"field_{index}": name for index, name in enumerate(self._types)}
        self._deselected = [field for field, name in names.items() if not selected(name)]
        self._struct = _contact_struct(self._types, names)
        self._decoder: msgspec.json.Decoder[Struct] = msgspec.json.Decoder(self._struct)
        self._warned: set[tuple[str, ...]] = set()

    def read(self, block: Block) -> list[Struct]:
        """Decode and check contacts; errors name a line by its number, and never quote it."""
        self._warn_about_unknown_fields(block.lines[: block.lines.find(b"\n")])
        contacts = _attempt(self._decoder.decode_lines, block.lines)
        if contacts is None or not _is_one_per_line(contacts, block):
            contacts = [
                self._read_line(line, number)
                for number, line in enumerate(block.lines.split(b"\n"), block.first_line)
                if line.strip(b" \t\r")
            ]
        for field in self._deselected:
            for contact in contacts:
                setattr(contact, field, UNSET)
        return contacts

    def _read_line(self, line: bytes, number: int) -> Struct:
        is_utf8 = _is_utf8(line)
        if is_utf8 and (contact := _attempt(self._decoder.decode, line)) is not None:
            return contact
        fields = self._raw_fields(line)
        if fields is None or not is_utf8:
            raise _line_error(number, "is not a JSON object in UTF-8")
        values = {
            name: _value(bytes(raw), self._types[name], name, number)
            for name, raw in fields.items()
            if name in self._types
        }
        if "id" not in values:
            raise _line_error(number, "has no integer 'id'")
        return msgspec.convert(values, self._struct)

    def _raw_fields(self, line: bytes) -> dict[str, msgspec.Raw] | None:
        """The raw fields of a JSON object, or None; msgspec rejects half a surrogate pair."""
        fields = _attempt(_RAW_OBJECT.decode, line)
        if fields is None:
            fields = _attempt(_RAW_OBJECT.decode, _replace_lone_surrogates(line))
            if fields is not None:
                self._warn_once(_LONE_SURROGATE)
        return fields

    def _warn_about_unknown_fields(self, line: bytes) -> None:
        for name in self._raw_fields(line) or ():
            if name in WINDOW_FIELDS:
                self._warn_once(_WINDOW_FIELD, name)
            elif name not in self._types and len(self._warned) < _MAX_WARNINGS:
                self._warn_once(_UNKNOWN_FIELD, name)

    def _warn_once(self, message: str, *args: str) -> None:
        if (message, *args) not in self._warned:
            self._warned.add((message, *args))
            logger.warning(message, *args)


def to_record(contact: Struct, window_fields: Mapping[str, str]) -> dict[str, Any]:
    """Make a Singer record of a contact: its selected fields, then the window's."""
    return {**msgspec.to_builtins(contact), **window_fields}


class RecordLines:
    r"""Encodes the contacts of one window as RECORD messages.

    All messages of a window have the same beginning and end, so contacts are encoded as one JSON
    line each, split at every `}\n`, and joined by the constant end and beginning.
    This is unambiguous: the encoder escapes line breaks in strings and puts none between tokens.
    """

    def __init__(self, stream: str, window_fields: Mapping[str, str]) -> None:
        """Encode the constant parts; there may be no window fields."""
        self._encoder = msgspec.json.Encoder()
        self._head = b'{"type":"RECORD","stream":%b,"record":' % self._encoder.encode(stream)
        constants = self._encoder.encode(window_fields)
        self._tail = b"," + constants[1:] if window_fields else b"}"

    def encode(self, contacts: Collection[Struct], time_extracted: str) -> bytes:
        """Encode contacts, each with at least one field, as whole lines."""
        if not contacts:
            return b""
        end = b'%b,"time_extracted":"%b"}\n' % (self._tail, time_extracted.encode())
        *records, _ = self._encoder.encode_lines(contacts).split(b"}\n")
        # Only the first and last items change, which avoids copying the whole text.
        records[0] = self._head + records[0]
        records[-1] += end
        return (end + self._head).join(records)

    def encode_records(self, contacts: Collection[Struct]) -> bytes:
        """Encode contacts as bare records, for batch files."""
        return self._encoder.encode_lines(contacts).replace(b"}\n", self._tail + b"\n")


def _type_of(definition: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a type, as msgspec takes it
    if "integer" in definition["type"]:
        return _Integer
    return _Texts if "array" in definition["type"] else _Text


def _contact_struct(types: Mapping[str, Any], names: Mapping[str, str]) -> type[Struct]:
    """Define a struct; `names` maps its attributes to the fields in the file."""
    name = next(filter(_UNSUPPORTED_NAME.search, types), None)
    if name is not None:
        message = f"The catalog's property {name!r} has an unsupported character; remove it."
        raise TapError(message)
    fields: list[Any] = [
        (field, types[name]) if types[name] is _Integer else (field, types[name], None)
        for field, name in names.items()
    ]
    return msgspec.defstruct("Contact", fields, rename=names, gc=False)


def _attempt(decode: Callable[[bytes], _T], data: bytes) -> _T | None:
    """Decode, or return None: no error may carry the exception, which can quote the data."""
    try:
        return decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _is_utf8(data: bytes) -> bool:
    return data.isascii() or _attempt(bytes.decode, data) is not None


def _is_one_per_line(contacts: Collection[Struct], block: Block) -> bool:
    r"""Whether each line of a decoded block is one JSON object in UTF-8.

    `decode_lines` also accepts two objects in a line, and one that spans two. But JSON allows
    `}\n{` only between two outermost objects: if all line breaks look like that, and there are as
    many objects as lines, each line is one. And msgspec does not check the UTF-8 of what it skips.
    """
    return (
        len(contacts) == block.line_count
        and any(block.lines.count(end) + 1 == block.line_count for end in _LINE_BREAKS)
        and _is_utf8(block.lines)
    )


def _replace_lone_surrogates(text: bytes) -> bytes:
    r"""Replace each `\ud800` to `\udfff` that is not part of a pair with `\ufffd`."""
    return _ESCAPE.sub(lambda match: rb"\ufffd" if match["half"] else match[0], text)


def _value(raw: bytes, type_: object, name: str, number: int) -> object:
    """Decode a field's value for what the fast decoder does not accept."""
    if type_ is _Integer:
        if (integer := _attempt(_INTEGER.decode, raw)) is None:
            is_long = raw.removeprefix(b"-").isdigit()
            why = f"has an '{name}' beyond 64 bits" if is_long else f"has no integer '{name}'"
            raise _line_error(number, why)
        return integer
    if raw == b"null":
        return None
    if type_ is Any:
        if (value := _attempt(_ANY.decode, raw)) is None:
            raise _line_error(number, f"has a number in '{name}' that is out of range")
        return value
    if type_ is _Text:
        return _text(raw, name, number)
    if (items := _attempt(_RAW_ARRAY.decode, raw)) is None:
        raise _line_error(number, f"has no array in '{name}'")
    return [_text(bytes(item), name, number) for item in items]


def _text(raw: bytes, name: str, number: int) -> str | None:
    """A string or null; a number or boolean as its JSON text."""
    if raw == b"null":
        return None
    if raw.startswith((b"{", b"[")):
        raise _line_error(number, f"has an object or array in '{name}' where a string belongs")
    return _STRING.decode(raw) if raw.startswith(b'"') else raw.decode()


def _line_error(number: int, why: str) -> LineError:
    return LineError(
        f"line {number} {why}; rerun the tap, and if it fails again, contact Cometly's support "
        "about this export"
    )
