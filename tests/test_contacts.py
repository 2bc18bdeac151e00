"""Lines of a file as checked contacts, and contacts as RECORD lines."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from singer_sdk.contrib.msgspec import MsgSpecWriter
from singer_sdk.singerlib import RecordMessage

from tap_cometly.contacts import WINDOW_FIELDS, ContactReader, RecordLines, to_record
from tap_cometly.errors import LineError
from tap_cometly.files import Block
from tap_cometly.schema import contacts_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from msgspec import Struct

SCHEMA = contacts_schema({"include_comet_tokens": True, "include_all_emails": True})
TEXTS = ("email", "name", "phone", "location")
ARRAYS = ("comet_tokens", "emails")
FIELDS = ("id", *TEXTS, *ARRAYS)
WINDOW = {
    "created_from": "2024-01-15T05:00:00+00:00",
    "created_until": "2024-01-16T05:00:00+00:00",
}


def block_of(lines: Iterable[bytes], first_line: int = 1) -> Block:
    text = b"".join(line + b"\n" for line in lines)
    return Block(text, first_line, text.count(b"\n"))


def records(contacts: Iterable[Struct]) -> list[dict[str, Any]]:
    return [to_record(contact, {}) for contact in contacts]


def read(*lines: bytes, reader: ContactReader | None = None) -> list[dict[str, Any]]:
    """The contacts of a block of these lines, as records."""
    return records((reader or ContactReader(SCHEMA)).read(block_of(lines)))


def read_one(line: bytes) -> dict[str, Any]:
    [record] = read(line)
    return record


# What a line means, told a second time: with the standard library, slowly, and from the contract.


class _Number(str):
    """A number's JSON text."""

    __slots__ = ()


class _Integer(_Number):
    __slots__ = ()


def meaning(line: bytes) -> dict[str, Any] | None:
    """The record that a line stands for, or None if it is no contact."""
    try:
        fields = json.loads(
            line.decode("utf-8"),
            parse_int=_Integer,
            parse_float=_Number,
            parse_constant=_refuse,
            object_pairs_hook=_encodable,
        )
        if not isinstance(fields, dict) or not isinstance(fields.get("id"), _Integer):
            return None
        record: dict[str, Any] = {"id": int(fields["id"])}
        record |= {name: _as_text(fields.get(name)) for name in TEXTS}
        record |= {name: _as_texts(fields.get(name)) for name in ARRAYS}
    except ValueError:
        return None
    return record


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _encodable(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, if all of it can be written in UTF-8: a lone surrogate cannot."""
    json.dumps(pairs, ensure_ascii=False).encode("utf-8")
    return dict(pairs)


def _as_text(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, str):
        return None if value is None else str(value)
    raise ValueError(value)


def _as_texts(value: object) -> list[str | None] | None:
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    if value is not None:
        raise ValueError(value)
    return None


def told(read_block: Callable[[Block], list[Struct]], block: Block) -> list[dict[str, Any]] | int:
    """The records of a block, or the number of the line that is no contact."""
    try:
        return records(read_block(block))
    except LineError as error:
        match = re.match("line ([0-9]+) of its file ", str(error))
        assert match is not None
        return int(match[1])


def expected(block: Block) -> list[dict[str, Any]] | int:
    found = []
    for number, line in enumerate(block.lines.split(b"\n"), block.first_line):
        if line.strip(b" \t\r"):
            if (record := meaning(line)) is None:
                return number
            found.append(record)
    return found


# JSON as servers write it, and as they do not.

_SPACES = st.sampled_from(["", "", "", " ", "\t", " \r "])
_ODD_CHARACTERS = st.sampled_from(list('\u2028\u2029\x85\x00\x7f\ufeff"\\/{}\n\r\t,:[]é😀'))
_WORDS = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), _ODD_CHARACTERS), max_size=8)
_STRINGS = st.one_of(
    _WORDS.map(json.dumps),
    _WORDS.map(lambda word: json.dumps(word, ensure_ascii=False)),
    _WORDS.map(lambda word: json.dumps(word).replace("/", "\\/")),
    st.sampled_from(
        ['"}\\n"', '"}"', '"\\ud83d\\ude00"', '"\\u0000"', '"\\""', '"\\\\"', '"a}\\\\n"']
    ),
)
_NUMBERS = st.one_of(
    st.sampled_from(["1.50", "1e3", "-0", "0.10", "1E+2", "12345678901234567890", "1e999"]),
    st.from_regex(
        re.compile(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,4})?([eE][-+]?[0-9]{1,2})?", re.ASCII),
        fullmatch=True,
    ),
)
_SCALARS = st.one_of(_STRINGS, _STRINGS, _NUMBERS, st.sampled_from(["true", "false", "null"]))
_INTEGERS = st.one_of(st.integers(), st.integers(2**63 - 2, 2**64 + 2)).map(str)


@st.composite
def _arrays(draw: st.DrawFn, items: st.SearchStrategy[str] = _SCALARS) -> str:
    space = draw(_SPACES)
    return f"[{space}{f'{space},'.join(draw(st.lists(items, max_size=4)))}]"


_ANYTHING = st.one_of(
    _SCALARS,
    _arrays(),
    _arrays(_arrays()),
    st.builds("{{{}:{}}}".format, _STRINGS, _SCALARS),
)


_UNKNOWN = st.one_of(st.sampled_from(['"tags"', '"score"']), _STRINGS).filter(
    lambda name: json.loads(name) not in FIELDS
)


@st.composite
def _lines(draw: st.DrawFn) -> bytes:
    """A line that is a contact, however oddly it is written; now and then a blank one."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from([b"", b" ", b"\t\r", b"\r"]))
    space = draw(_SPACES)
    pairs = [(f'"{name}"', draw(_SCALARS)) for name in draw(st.sets(st.sampled_from(TEXTS)))]
    pairs += [
        (f'"{name}"', draw(st.one_of(st.just("null"), _arrays())))
        for name in draw(st.sets(st.sampled_from(ARRAYS)))
    ]
    if draw(st.integers(0, 3)) == 0:
        pairs += draw(st.lists(st.tuples(_UNKNOWN, _ANYTHING), max_size=2))
    if draw(st.integers(0, 9)) == 0:
        pairs += pairs[:1]  # a key twice
    pairs = draw(st.permutations([*pairs, ('"id"', draw(_INTEGERS))]))
    inside = ",".join(f"{space}{name}{space}:{space}{value}{space}" for name, value in pairs)
    return f"{space}{{{inside}}}{space}".encode() + draw(st.sampled_from([b"", b"", b"\r"]))


_PIECES = st.sampled_from(
    [b'{"id":1', b'{"id":2,"name":"a"}', b',"name":', b',"tags":', b',"emails":[', b'"x"', b"1.50"]
    + [b"\n"] * 3
    + [b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b" ", b"\r", b"null", b"true", b"-", b"0"]
    + [
        b'"\\ud800"',
        b"\xff",
        b"\xc3\xa9",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\x00",
        b'"\\q"',
        b"}\n{",
    ]
)
_BLOCKS = st.one_of(
    st.lists(_PIECES, max_size=30).map(b"".join),
    st.lists(_lines(), max_size=6).map(b"\n".join),
    st.binary(),
    st.text().map(str.encode),
).map(lambda text: block_of([text]))


@st.composite
def _spoiled_blocks(draw: st.DrawFn) -> Block:
    """Contacts with a few bytes taken away, put in or put elsewhere."""
    text = bytearray(b"\n".join(draw(st.lists(_lines(), min_size=1, max_size=4))))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(start + 3, len(text))))
        text[start:end] = draw(st.one_of(_PIECES, st.just(bytes(text[end : end + 20]))))
    return block_of([bytes(text)])


PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For a machine that has other things to do as well."""


class TestFields:
    """What a contact's line becomes."""

    def test_a_contact_has_the_fields_of_the_schema_in_its_order(self) -> None:
        record = read_one(
            b'{"emails":["a@x.io"],"comet_tokens":["t"],"location":"NZ","phone":"+64",'
            b'"name":"Ada","email":"a@x.io","id":7}'
        )

        assert list(record.items()) == [
            ("id", 7),
            ("email", "a@x.io"),
            ("name", "Ada"),
            ("phone", "+64"),
            ("location", "NZ"),
            ("comet_tokens", ["t"]),
            ("emails", ["a@x.io"]),
        ]

    def test_what_is_absent_is_null(self) -> None:
        assert read_one(b'{"id":7}') == {"id": 7, **dict.fromkeys((*TEXTS, *ARRAYS))}

    @pytest.mark.parametrize("text", ["1.50", "1e3", "-0", "1E+2", "12345678901234567890", "true"])
    def test_a_number_or_boolean_becomes_its_exact_json_text(self, text: str) -> None:
        line = f'{{"id":7,"phone": {text} ,"emails":[ {text},null]}}'.encode()

        record = read_one(line)

        assert (record["phone"], record["emails"]) == (text, [text, None])

    def test_elements_of_arrays_may_be_null(self) -> None:
        assert read_one(b'{"id":7,"emails":[null,"a"]}')["emails"] == [None, "a"]

    @pytest.mark.parametrize("number", [0, -1, 2**63, 2**64, 10**30, -(10**30)])
    def test_an_id_may_be_any_integer(self, number: int) -> None:
        assert read_one(b'{"id":%d}' % number)["id"] == number

    def test_of_a_key_given_twice_the_last_counts(self) -> None:
        assert read_one(b'{"id":1,"name":"a","id":2,"name":"b"}')["name"] == "b"

    @pytest.mark.parametrize(
        "character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\0"]
    )
    def test_only_a_newline_ends_a_line(self, character: str) -> None:
        line = json.dumps({"id": 1, "name": character}, ensure_ascii=character < " ").encode()

        assert read_one(line)["name"] == character

    @pytest.mark.parametrize("end", [b"", b"\r", b" ", b"\t"])
    def test_white_space_around_an_object_is_no_matter(self, end: bytes) -> None:
        assert [record["id"] for record in read(b'{"id":1}' + end, b' {"id":2}' + end)] == [1, 2]

    def test_blank_lines_are_skipped(self) -> None:
        assert [record["id"] for record in read(b"", b'{"id":1}', b"\r", b" \t", b'{"id":2}')] == [
            1,
            2,
        ]

    def test_a_block_of_blank_lines_has_no_contacts(self) -> None:
        assert read(b"", b"\r") == []


_NO_OBJECT = "is no JSON object in UTF-8"
_NO_ID = "has no integer 'id'"
_NO_TEXT = "has an object or array in 'name' where a string belongs"
_NO_ARRAY = "has no array in 'emails'"
_NO_CONTACTS = [
    (b'{"id":1,"name":"Secret"', _NO_OBJECT),
    (b'{"id":1,"name":"Secret"}}', _NO_OBJECT),
    (b'{"id":1,"name":"Secret",}', _NO_OBJECT),
    (b'{"id":1,"name":Secret}', _NO_OBJECT),
    (b'{"id":1,"name":NaN,"phone":"Secret"}', _NO_OBJECT),
    (b'{"id":1,"name":01,"phone":"Secret"}', _NO_OBJECT),
    (b'{"id":1,"name":"Secret\\q"}', _NO_OBJECT),
    (b'{"id":1,"name":"Secret\x01"}', _NO_OBJECT),
    (b'{"id":1,"name":"Secret"} {"id":2}', _NO_OBJECT),
    (b'{"id":1,"name":"Secret"}\r{"id":2}', _NO_OBJECT),
    (b'{"id":1,"name":\n"Secret"}', _NO_OBJECT),
    (b'\xef\xbb\xbf{"id":1,"name":"Secret"}', _NO_OBJECT),
    (b'\xff\xfe{"id":1,"name":"Secret"}', _NO_OBJECT),
    (b'{"id":1,"name":"Secret"}\0', _NO_OBJECT),
    (b'{"id":1,"name":"Secret\xff"}', _NO_OBJECT),
    (b'{"id":1,"name":"Secret\xed\xa0\x80"}', _NO_OBJECT),
    (b'{"id":1,"name":"Secret\\ud800"}', _NO_OBJECT),
    (b'{"id":1,"name":"Secret\\udc00\\ud800"}', _NO_OBJECT),
    (b'{"id":1,"emails":["Secret\xff"]}', _NO_OBJECT),
    (b'{"id":1,"tags":"Secret\xff"}', _NO_OBJECT),
    (b'{"id":1,"tags":{"Secret\xff":1}}', _NO_OBJECT),
    (b'{"id":1,"tags":{"a":["Secret\xff"]}}', _NO_OBJECT),
    (b'{"id":1,"tags":"Secret\\ud800"}', _NO_OBJECT),
    (b'{"id":1,"Secret\xff":1}', _NO_OBJECT),
    (b'{"id":1,"tags":01,"name":"Secret"}', _NO_OBJECT),
    (b'{"id":1,"name":"Secret","tags":' + b"[" * 100_000 + b"]" * 100_000 + b"}", _NO_OBJECT),
    (b'[{"id":1,"name":"Secret"}]', _NO_OBJECT),
    (b'"Secret"', _NO_OBJECT),
    (b"null", _NO_OBJECT),
    (b"Secret", _NO_OBJECT),
    (b'{"name":"Secret"}', _NO_ID),
    (b'{"id":null,"name":"Secret"}', _NO_ID),
    (b'{"id":"1","name":"Secret"}', _NO_ID),
    (b'{"id":1.0,"name":"Secret"}', _NO_ID),
    (b'{"id":1e3,"name":"Secret"}', _NO_ID),
    (b'{"id":true,"name":"Secret"}', _NO_ID),
    (b'{"id":[1],"name":"Secret"}', _NO_ID),
    (b'{"id":' + b"9" * 5000 + b',"name":"Secret"}', _NO_ID),
    (b'{"id":1,"name":{"a":"Secret"}}', _NO_TEXT),
    (b'{"id":1,"name":["Secret"]}', _NO_TEXT),
    (b'{"id":1,"emails":"Secret"}', _NO_ARRAY),
    (b'{"id":1,"emails":{"a":"Secret"}}', _NO_ARRAY),
    (b'{"id":1,"emails":1,"name":"Secret"}', _NO_ARRAY),
    (b'{"id":1,"emails":[["Secret"]]}', _NO_TEXT.replace("name", "emails")),
    (b'{"id":1,"emails":[null,{"a":"Secret"}]}', _NO_TEXT.replace("name", "emails")),
]
_NAMES = [line[:30].decode("ascii", "backslashreplace") for line, _ in _NO_CONTACTS]


class TestErrors:
    """Lines that are no contacts."""

    @pytest.mark.parametrize(("line", "why"), _NO_CONTACTS, ids=_NAMES)
    def test_a_line_that_is_no_contact_is_named_by_its_number(self, line: bytes, why: str) -> None:
        block = block_of([b'{"id":1}', b"", line, b'{"id":2}'], first_line=41)

        with pytest.raises(LineError, match=f"^line 43 of its file {why}"):
            ContactReader(SCHEMA).read(block)

    @pytest.mark.parametrize(("line", "why"), _NO_CONTACTS, ids=_NAMES)
    def test_it_is_found_after_its_fields_became_known_too(self, line: bytes, why: str) -> None:
        reader = ContactReader(SCHEMA)
        reader.read(block_of([b'{"id":1,"tags":1}']))

        with pytest.raises(LineError, match=f"^line 1 of its file {why}"):
            reader.read(block_of([line]))

    @pytest.mark.parametrize(("line", "why"), _NO_CONTACTS, ids=_NAMES)
    def test_it_is_never_quoted(self, line: bytes, why: str) -> None:
        del why
        with pytest.raises(LineError) as caught:
            ContactReader(SCHEMA).read(block_of([line]))

        assert "Secret" not in str(caught.value)
        # What came before would quote it: msgspec names keys, a UnicodeDecodeError holds the bytes.
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None

    def test_the_first_bad_line_of_several_is_named(self) -> None:
        with pytest.raises(LineError, match=r"^line 2 "):
            read(b'{"id":1}', b'{"id":null}', b"{")

    def test_an_object_over_two_lines_is_no_contact(self) -> None:
        with pytest.raises(LineError, match=f"^line 2 of its file {_NO_OBJECT}"):
            read(b'{"id":1}', b'{"id":2,', b'"name":"a"}')

    def test_two_in_one_line_do_not_make_up_for_a_line_without_one(self) -> None:
        with pytest.raises(LineError, match=f"^line 1 of its file {_NO_OBJECT}"):
            read(b'{"id":1}{"id":2}', b"")

    def test_two_in_one_line_do_not_make_up_for_one_over_two_lines(self) -> None:
        reader = ContactReader(SCHEMA)
        reader.read(block_of([b'{"id":1,"tags":{}}']))

        with pytest.raises(LineError, match=f"^line 1 of its file {_NO_OBJECT}"):
            reader.read(block_of([b'{"id":1}{"id":2,"tags":', b'{"a":1}}']))


def python_calls(function: Callable[[], object]) -> int:
    """How many Python functions are called: a measure of speed that is always the same."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls


class TestSpeed:
    """Whole blocks at once, wherever they fit the types."""

    LINES = 1000

    def calls(self, line: bytes, reader: ContactReader) -> int:
        block = block_of([line] * self.LINES)
        return python_calls(lambda: reader.read(block))

    @pytest.mark.parametrize("end", [b"", b"\r"])
    def test_a_block_is_read_in_a_few_calls(self, end: bytes) -> None:
        assert self.calls(b'{"id":1,"name":"a"}' + end, ContactReader(SCHEMA)) < self.LINES / 10

    def test_an_unknown_field_costs_speed_but_once(self) -> None:
        reader = ContactReader(SCHEMA)
        line = b'{"id":1,"tags":{"a":[1]}}'

        assert self.calls(line, reader) > self.LINES
        assert self.calls(line, reader) < self.LINES / 10

    def test_an_odd_line_slows_down_few_others(self) -> None:
        odd = [b'{"id":1,"name":%d}' % number for number in range(self.LINES)]
        even = [b'{"id":1,"name":"a"}'] * (self.LINES - 1)
        calls = [
            python_calls(lambda block=block: ContactReader(SCHEMA).read(block))  # type: ignore[misc]
            for block in (block_of(odd), block_of([*even, odd[0]]))
        ]

        assert calls[1] < calls[0] / 2

    def test_deselected_fields_cost_no_calls(self) -> None:
        reader = ContactReader(SCHEMA, selected=lambda name: name != "name")

        assert self.calls(b'{"id":1,"name":"a"}', reader) < self.LINES / 10


class TestUnknownFields:
    """Fields that the schema lacks."""

    def test_they_are_dropped(self) -> None:
        reader = ContactReader(SCHEMA)

        for _ in range(2):
            [record] = read(b'{"id":1,"tags":["a"],"score":1.5}', reader=reader)
            assert tuple(record) == FIELDS

    def test_they_are_told_once_each(self) -> None:
        told: list[str] = []
        reader = ContactReader(SCHEMA, on_unknown_field=told.append)

        read(b'{"id":1,"tags":1}', b'{"id":2,"tags":1,"score":1}', reader=reader)
        read(b'{"id":3,"score":1,"rank":1}', reader=reader)

        assert told == ["tags", "score", "rank"]

    @pytest.mark.parametrize("name", WINDOW_FIELDS)
    def test_a_window_field_in_the_file_is_one(self, name: str) -> None:
        told: list[str] = []
        reader = ContactReader(SCHEMA, on_unknown_field=told.append)

        [record] = read(b'{"id":1,"%b":"2020-01-01"}' % name.encode(), reader=reader)

        assert told == [name]
        assert name not in record

    @pytest.mark.parametrize(
        "name", ["", " ", "a.b", "class", "unknown_0", "__class__", "é", "😀", 'a"b', "a\\b", "\0"]
    )
    def test_they_may_have_any_name(self, name: str) -> None:
        told: list[str] = []
        reader = ContactReader(SCHEMA, on_unknown_field=told.append)
        line = json.dumps({"id": 1, name: {"a": 1}}).encode()

        assert read(line, reader=reader) == read(line, reader=reader) == read(b'{"id":1}')
        assert told == [name]

    def test_data_in_the_place_of_names_fill_no_memory(self) -> None:
        told: list[str] = []
        reader = ContactReader(SCHEMA, on_unknown_field=told.append)

        lines = [b'{"id":1,"%d":1}' % number for number in range(1000)]

        assert read(*lines, reader=reader) == read(*lines, reader=reader)
        assert len(told) == 100


class TestSelection:
    """Fields that nobody wants."""

    @pytest.mark.parametrize("line", [b'{"id":1,"name":"a","phone":"b"}', b'{"id":1,"phone":2}'])
    def test_a_deselected_field_is_left_out(self, line: bytes) -> None:
        reader = ContactReader(SCHEMA, selected=lambda name: name in {"id", "phone"})

        [record] = read(line, reader=reader)

        assert tuple(record) == ("id", "phone")

    @pytest.mark.parametrize(
        "fields", [b'"id":1,"name":{}', b'"id":1,"emails":1', b'"id":1,"name":"\xff"', b'"id":null']
    )
    def test_a_deselected_field_is_checked_all_the_same(self, fields: bytes) -> None:
        reader = ContactReader(SCHEMA, selected=lambda name: name == "phone")

        with pytest.raises(LineError, match=r"^line 1 "):
            read(b"{" + fields + b"}", reader=reader)

    def test_a_field_whose_setting_is_off_is_unknown(self) -> None:
        told: list[str] = []
        properties = {name: SCHEMA["properties"][name] for name in ("id", "name")}
        reader = ContactReader({"properties": properties}, on_unknown_field=told.append)

        [record] = read(b'{"id":1,"name":"a","emails":["b"]}', reader=reader)

        assert record == {"id": 1, "name": "a"}
        assert told == ["emails"]


class TestAnyLines:
    """Properties of all lines, odd ones and broken ones too."""

    @PATIENT
    @given(st.lists(_lines(), max_size=12), st.data())
    def test_blocks_cut_anywhere_give_what_each_line_gives_alone(
        self, lines: list[bytes], data: st.DataObject
    ) -> None:
        cuts = data.draw(st.sets(st.integers(0, len(lines)))) | {0, len(lines)}
        reader = ContactReader(SCHEMA)

        in_blocks = [
            record
            for start, end in pairwise(sorted(cuts))
            for record in read(*lines[start:end], reader=reader)
        ]

        alone = [record for line in lines for record in read(line)]
        assert in_blocks == alone

    @PATIENT
    @given(st.lists(_lines(), max_size=6).map(block_of))
    def test_they_mean_what_the_standard_library_reads(self, block: Block) -> None:
        assert told(ContactReader(SCHEMA).read, block) == expected(block)

    @PATIENT
    @given(st.one_of(_BLOCKS, _spoiled_blocks()))
    @example(block_of([b'{"id":1}{"id":2,"tags":', b'{"a":1}}']))
    @example(block_of([b'{"id":1,"tags":"\xff"}']))
    def test_any_bytes_are_contacts_or_a_line_that_is_none(self, block: Block) -> None:
        reader = ContactReader(SCHEMA)
        reader.read(block_of([b'{"id":1,"tags":1}']))

        outcomes = [told(reader.read, block), told(ContactReader(SCHEMA).read, block)]

        assert outcomes == [expected(block)] * 2


EXTRACTED = datetime(2024, 7, 1, 12, 30, 15, 123456, UTC)
_TEXTS = st.one_of(st.none(), _WORDS, st.sampled_from(["}\n", "}", '"}', "\\", '\\"}\n', "}\\n"]))
_CONTACTS = st.fixed_dictionaries(
    {"id": st.one_of(st.integers(), st.integers(2**63, 2**65))},
    optional={
        **dict.fromkeys(TEXTS, _TEXTS),
        **dict.fromkeys(ARRAYS, st.one_of(st.none(), st.lists(_TEXTS, max_size=3))),
    },
).map(lambda fields: json.dumps(fields).encode())


def as_the_sdk_writes(contacts: Sequence[Struct], window: dict[str, str]) -> bytes:
    """The lines that the SDK's writer makes of the same records."""
    messages = (
        RecordMessage(
            stream="contacts", record=to_record(contact, window), time_extracted=EXTRACTED
        )
        for contact in contacts
    )
    return b"".join(bytes(MsgSpecWriter().format_message(message)) for message in messages)


class TestRecordLines:
    """RECORD messages, as the SDK would write them."""

    @PATIENT
    @given(
        st.lists(_CONTACTS, max_size=5),
        st.sampled_from([WINDOW, {"created_until": WINDOW["created_until"]}, {}]),
        st.sets(st.sampled_from(FIELDS[1:])),
    )
    def test_they_are_what_the_sdk_writes_bit_for_bit(
        self, lines: list[bytes], window: dict[str, str], deselected: set[str]
    ) -> None:
        reader = ContactReader(SCHEMA, selected=lambda name: name not in deselected)
        contacts = reader.read(block_of(lines))

        encoded = RecordLines("contacts", window).encode(contacts, "2024-07-01T12:30:15.123456Z")

        assert encoded == as_the_sdk_writes(contacts, window)

    def test_a_record_has_the_windows_fields_last(self) -> None:
        contacts = ContactReader(SCHEMA).read(block_of([b'{"id":7}']))

        [line] = RecordLines("contacts", WINDOW).encode(contacts, "2024-07-01T12:30:15Z").split()

        message = json.loads(line)
        assert list(message) == ["type", "stream", "record", "time_extracted"]
        assert list(message["record"].items())[-2:] == list(WINDOW.items())

    @pytest.mark.parametrize("text", ["}\n", "}", '"}\n', "\\", "\\}\n", "}\\n", '{"type":"'])
    def test_what_looks_like_the_end_of_a_message_is_none_inside_a_string(self, text: str) -> None:
        lines = [json.dumps({"id": number, "name": text}).encode() for number in (1, 2)]
        contacts = ContactReader(SCHEMA).read(block_of(lines))

        encoded = RecordLines("contacts", WINDOW).encode(contacts, "2024-07-01T12:30:15Z")

        messages = [json.loads(line) for line in encoded.split(b"\n")[:-1]]
        assert [message["record"]["name"] for message in messages] == [text, text]

    def test_no_contacts_are_no_lines(self) -> None:
        assert RecordLines("contacts", WINDOW).encode([], "2024-07-01T12:30:15Z") == b""
