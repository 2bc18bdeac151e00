"""Reading and checking the lines of an export's file, and writing RECORD lines."""

from __future__ import annotations

import gc
import json
import re
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from singer_sdk.contrib.msgspec import MsgSpecWriter
from singer_sdk.singerlib import RecordMessage

from tap_cometly.contacts import WINDOW_FIELDS, ContactReader, RecordLines, to_record
from tap_cometly.errors import LineError, TapError
from tap_cometly.files import Block
from tap_cometly.settings import OPTIONAL_FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

SCHEMA = json.loads((Path(__file__).parents[1] / "schemas" / "contacts.json").read_text("utf-8"))
TEXTS = ("email", "name", "phone", "location")
ARRAYS = tuple(OPTIONAL_FIELDS)
FIELDS = ("id", *TEXTS, *ARRAYS)
WINDOW = {"created_from": "2024-01-15T05:00:00+00:00", "created_until": "2024-01-16T05:00:00+00:00"}
TIME = "2024-07-01T12:30:15.123456Z"
Log = pytest.LogCaptureFixture
NO_DEADLINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
REPLACEMENT = "\ufffd"  # replaces a lone surrogate


def reader(*added: str, deselected: Collection[str] = ()) -> ContactReader:
    """A reader for a catalog with some added and some deselected properties."""
    schema = {"properties": SCHEMA["properties"] | {name: {} for name in added}}
    return ContactReader(schema, selected=lambda name: name not in deselected, added=added)


def block_of(*lines: bytes, first_line: int = 1) -> Block:
    text = b"".join(line + b"\n" for line in lines)
    return Block(text, first_line, text.count(b"\n"))


def read(*lines: bytes, by: ContactReader | None = None) -> list[dict[str, Any]]:
    """The contacts in these lines, as records without the window fields."""
    return [to_record(contact, {}) for contact in (by or reader()).read(block_of(*lines))]


def ids(*lines: bytes) -> list[int]:
    return [record["id"] for record in read(*lines)]


class TestFields:
    """The record of a contact's line."""

    def test_a_contact_has_the_fields_of_the_schema_in_its_order(self) -> None:
        [record] = read(
            b'{"emails":["a@x.io"],"comet_tokens":["t"],"location":"NZ","phone":"+64",'
            b'"name":"Ada","email":"a@x.io","id":7}'
        )

        assert tuple(record) == FIELDS
        assert list(record.values())[:7] == [7, "a@x.io", "Ada", "+64", "NZ", ["t"], ["a@x.io"]]

    def test_an_absent_field_is_null(self) -> None:
        assert read(b'{"id":7}') == [{"id": 7, **dict.fromkeys((*TEXTS, *ARRAYS))}]

    @pytest.mark.parametrize("text", ["1.50", "1e3", "-0", "1E+2", "12345678901234567890", "true"])
    def test_a_number_or_boolean_in_place_of_a_string_keeps_its_json_text(self, text: str) -> None:
        [record] = read(f'{{"id":7,"phone": {text} ,"emails":[ {text},null]}}'.encode())

        assert (record["phone"], record["emails"]) == (text, [text, None])

    def test_elements_of_arrays_may_be_null(self) -> None:
        assert read(b'{"id":7,"emails":[null,"a"]}')[0]["emails"] == [None, "a"]

    @pytest.mark.parametrize("number", [0, -1, 2**63 - 1, -(2**63)])
    def test_an_id_is_an_integer_of_64_bits(self, number: int) -> None:
        assert ids(b'{"id":%d}' % number) == [number]

    def test_the_last_of_two_equal_keys_wins(self) -> None:
        assert read(b'{"id":1,"name":"a","id":2,"name":"b"}')[0]["name"] == "b"

    @pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c", "\0"])
    def test_only_a_newline_ends_a_line(self, character: str) -> None:
        line = json.dumps({"id": 1, "name": character}, ensure_ascii=character < " ").encode()

        assert read(line)[0]["name"] == character

    @pytest.mark.parametrize("end", [b"", b"\r", b" ", b"\t"])
    def test_white_space_around_an_object_is_allowed(self, end: bytes) -> None:
        assert ids(b'{"id":1}' + end, b' {"id":2}' + end) == [1, 2]

    def test_blank_lines_are_skipped(self) -> None:
        assert ids(b"", b'{"id":1}', b"\r", b" \t", b'{"id":2}') == [1, 2]
        assert ids(b"", b"\r") == []


ODD_NAMES = ["", " ", "a.b", "class", "field_0", "__class__", "é", "😀"]


class TestCatalog:
    """Properties that a catalog adds or deselects."""

    @pytest.mark.parametrize(
        "text", ['"a"', "1.5", "-3", "true", "null", "[1,[null]]", '{"a":{"b":[]}}', str(10**30)]
    )
    def test_an_added_field_may_hold_any_json_value(self, text: str) -> None:
        [record] = read(f'{{"id":1,"score":{text}}}'.encode(), by=reader("score"))

        assert record["score"] == json.loads(text)

    def test_an_absent_added_field_is_null(self) -> None:
        assert read(b'{"id":1}', by=reader("score"))[0]["score"] is None

    @pytest.mark.parametrize("name", ODD_NAMES)
    @pytest.mark.parametrize("phone", ['"b"', "64"], ids=["at once", "line by line"])
    def test_an_added_field_may_have_any_name(self, name: str, phone: str) -> None:
        line = f'{{"id":1,"phone":{phone},{json.dumps(name)}:2}}'.encode()

        assert read(line, by=reader(name))[0][name] == 2

    @pytest.mark.parametrize("name", ['a"b', "a\\b", "\n"])
    def test_an_added_name_that_msgspec_does_not_support_is_rejected(self, name: str) -> None:
        with pytest.raises(TapError, match=f"^The catalog's property {re.escape(repr(name))} has"):
            reader(name)

    def test_window_fields_are_never_read_from_the_file(self) -> None:
        line = b'{"id":1,"created_from":"2020-01-01"}'

        assert tuple(read(line, by=reader(*WINDOW_FIELDS))[0]) == FIELDS

    @pytest.mark.parametrize("name", [*FIELDS, "score"])
    @pytest.mark.parametrize("line", [b'{"id":1,"phone":"b"}', b'{"id":1,"phone":2,"score":3}'])
    def test_a_deselected_field_is_left_out(self, name: str, line: bytes) -> None:
        [record] = read(line, by=reader("score", deselected=[name]))

        assert set(record) == {*FIELDS, "score"} - {name}

    @pytest.mark.parametrize(
        "fields", [b'"id":1,"name":{}', b'"id":1,"emails":1', b'"id":1,"name":"\xff"', b'"id":null']
    )
    def test_a_deselected_field_is_checked(self, fields: bytes) -> None:
        with pytest.raises(LineError):
            read(b"{" + fields + b"}", by=reader(deselected=FIELDS))


class TestUnknownFields:
    """Fields that the schema does not have."""

    def test_an_unknown_field_is_dropped(self) -> None:
        assert read(b'{"id":1,"tags":["a"],"score":1.5}') == read(b'{"id":1}')

    def test_the_warning_names_the_field_and_says_how_to_keep_it(self, caplog: Log) -> None:
        read(b'{"id":1,"created_at":"2024-01-15"}')

        [message] = caplog.messages
        assert message == (
            "Contacts have a field 'created_at' that the schema does not have; it is dropped. To "
            "keep it, add it to the stream's schema in the catalog (Meltano: the extractor's "
            '"schema" extra).'
        )

    def test_the_first_line_of_each_block_is_checked(self, caplog: Log) -> None:
        one = reader()

        for name in (b"tags", b"score", b"tags"):
            read(b'{"id":1,"%b":1}' % name, b'{"id":2,"rank":1}', by=one)

        assert [message.split("'")[1] for message in caplog.messages] == ["tags", "score"]

    @pytest.mark.parametrize("name", WINDOW_FIELDS)
    def test_a_field_with_a_window_fields_name_is_dropped(self, name: str, caplog: Log) -> None:
        assert read(b'{"id":1,"%b":1}' % name.encode()) == read(b'{"id":1}')
        assert f"'{name}'; it is dropped, as the tap fills it from the window." in caplog.text

    @pytest.mark.parametrize("name", [*ODD_NAMES, 'a"b', "a\\b", "a\nb"])
    def test_an_unknown_field_may_have_any_name(self, name: str, caplog: Log) -> None:
        assert read(json.dumps({"id": 1, name: {}}).encode()) == read(b'{"id":1}')
        assert f"Contacts have a field {name!r} that" in caplog.text

    def test_the_number_of_warnings_is_limited(self, caplog: Log) -> None:
        one = reader()

        for number in range(1000):
            read(b'{"id":1,"%d":1}' % number, by=one)

        assert len(caplog.messages) == 100


class TestLoneSurrogates:
    r"""Escapes like `\ud83d` without their other half, which UTF-8 cannot encode."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (r"\uDE00A\ud83d", f"{REPLACEMENT}A{REPLACEMENT}"),
            (r"\ud83d\uD83D\uDE00\ude00", f"{REPLACEMENT}😀{REPLACEMENT}"),
            (r"\\ud83d\\\ud83d\u0041", rf"\ud83d\{REPLACEMENT}A"),
        ],
    )
    def test_a_lone_surrogate_is_replaced_in_every_string(self, text: str, expected: str) -> None:
        line = f'{{"id":1,"name":"{text}","emails":["{text}"],"score":{{"{text}":"{text}"}}}}'

        [record] = read(line.encode(), by=reader("score"))

        assert record["name"] == expected
        assert record["emails"] == [expected]
        assert record["score"] == {expected: expected}

    @NO_DEADLINE
    @given(st.lists(st.sampled_from([r"\ud83d", r"\ude00", "\\\\", r"\"", r"\n", "ud83d", "é"])))
    def test_text_with_lone_surrogates_is_read_like_json_loads(self, pieces: list[str]) -> None:
        text = f'"{"".join(pieces)}"'

        assert read(f'{{"id":1,"name":{text}}}'.encode())[0]["name"] == scrub(json.loads(text))

    def test_lone_surrogates_log_one_warning(self, caplog: Log) -> None:
        one = reader()

        for _ in range(2):
            read(b'{"id":1}', b'{"id":2,"name":"\\ud83d"}', b'{"id":3,"name":"\\ud83d"}', by=one)

        [message] = caplog.messages
        assert message.endswith("(such as half an emoji); each half is replaced with U+FFFD.")

    def test_a_surrogate_pair_logs_no_warning(self, caplog: Log) -> None:
        assert read(b'{"id":1,"phone":1,"name":"\\ud83d\\ude00"}')[0]["name"] == "😀"
        assert caplog.messages == []


NOT_AN_OBJECT = "is not a JSON object in UTF-8"
NO_ID = "has no integer 'id'"
LONG_ID = "has an 'id' beyond 64 bits"
NOT_TEXT = "has an object or array in '{}' where a string belongs"
NO_ARRAY = "has no array in 'emails'"
TOO_LARGE = "has a number in 'score' that is out of range"
NOT_CONTACTS = [
    (b'{"id":1,"name":"Secret"', NOT_AN_OBJECT),
    (b'{"id":1,"name":Secret}', NOT_AN_OBJECT),
    (b'{"id":1,"name":NaN,"phone":"Secret"}', NOT_AN_OBJECT),
    (b'{"id":1,"name":"Secret","tags":01}', NOT_AN_OBJECT),
    (b'{"id":1,"name":"Secret\\q"}', NOT_AN_OBJECT),
    (b'{"id":1,"name":"Secret"}\r{"id":2}', NOT_AN_OBJECT),
    (b'{"id":1,"name":\n"Secret"}', NOT_AN_OBJECT),
    (b'\xef\xbb\xbf{"id":1,"name":"Secret"}', NOT_AN_OBJECT),
    (b'{"id":1,"name":"Secret\xff"}', NOT_AN_OBJECT),
    (b'{"id":1,"name":"Secret\xed\xa0\x80"}', NOT_AN_OBJECT),
    (b'{"id":1,"name":"Secret\xed\xa0\x80\\ud800"}', NOT_AN_OBJECT),
    (b'{"id":1,"score":"Secret\xff"}', NOT_AN_OBJECT),
    (b'{"id":1,"tags":"Secret\xff"}', NOT_AN_OBJECT),
    (b'{"id":1,"Secret\xff":1}', NOT_AN_OBJECT),
    (b'{"id":1,"name":"Secret","tags":' + b"[" * 100_000 + b"]" * 100_000 + b"}", NOT_AN_OBJECT),
    (b'[{"id":1,"name":"Secret"}]', NOT_AN_OBJECT),
    (b"null", NOT_AN_OBJECT),
    (b"\f", NOT_AN_OBJECT),
    (b'{"name":"Secret"}', NO_ID),
    (b'{"id":null,"name":"Secret"}', NO_ID),
    (b'{"id":"1","name":"Secret"}', NO_ID),
    (b'{"id":1.0,"name":"Secret"}', NO_ID),
    (b'{"id":true,"name":"Secret"}', NO_ID),
    (b'{"id":9223372036854775808,"name":"Secret"}', LONG_ID),
    (b'{"id":-9223372036854775809,"name":"Secret"}', LONG_ID),
    (b'{"id":' + b"9" * 5000 + b',"name":"Secret"}', LONG_ID),
    (b'{"id":1,"name":{"a":"Secret"}}', NOT_TEXT.format("name")),
    (b'{"id":1,"emails":[["Secret"]]}', NOT_TEXT.format("emails")),
    (b'{"id":1,"emails":"Secret"}', NO_ARRAY),
    (b'{"id":1,"score":["Secret",1e999]}', TOO_LARGE),
    (b'{"id":1,"name":"Secret","score":' + b"9" * 5000 + b"}", TOO_LARGE),
]


class TestErrors:
    """Lines that are not contacts."""

    @pytest.mark.parametrize(("line", "why"), NOT_CONTACTS)
    def test_the_error_has_the_number_of_an_invalid_line(self, line: bytes, why: str) -> None:
        block = block_of(b'{"id":1}', b"", line, b'{"id":null}', first_line=41)

        with pytest.raises(LineError, match=f"^line 43 {why}; rerun the tap, and if it fails"):
            reader("score").read(block)

    @pytest.mark.parametrize("line", [line for line, _ in NOT_CONTACTS])
    def test_an_error_never_quotes_the_contact(self, line: bytes) -> None:
        with pytest.raises(LineError) as caught:
            read(line, by=reader("score"))

        assert "Secret" not in str(caught.value)
        # msgspec's exceptions quote keys, a UnicodeDecodeError contains the bytes.
        assert caught.value.__cause__ is caught.value.__context__ is None

    @pytest.mark.parametrize(
        "second", [b'{"id":2,"tags":\n{"a":1}}', b'{"id":2,"tags":\n{"id":1}}', b'{"id":2}\n']
    )
    def test_two_objects_in_a_line_are_an_error_even_if_the_next_has_none(
        self, second: bytes
    ) -> None:
        with pytest.raises(LineError, match=f"^line 1 {NOT_AN_OBJECT}"):
            read(b'{"id":1}' + second)

    def test_an_object_over_two_lines_is_not_a_contact(self) -> None:
        with pytest.raises(LineError, match=f"^line 2 {NOT_AN_OBJECT}"):
            read(b'{"id":1}', b'{"id":2,', b'"name":"a"}')


def python_calls(function: Callable[[], object]) -> int:
    """The number of calls of Python functions: a measure of speed that does not vary."""
    events: list[str] = []
    gc.collect()
    gc.disable()  # a collection may call finalizers
    sys.setprofile(lambda _frame, event, _argument: events.append(event))
    try:
        function()
    finally:
        sys.setprofile(None)
        gc.enable()
    return events.count("call")


class TestSpeed:
    """A block is read in a few calls, regardless of its number of lines."""

    @pytest.mark.parametrize(
        "rest",
        [b"}", b"}\r", b',"name":"\xc3\xa9"}', b',"tags":{"a":[1]}}', b',"score":{"a":[1]}}'],
        ids=["plain", "with a carriage return", "deselected", "unknown field", "added field"],
    )
    def test_the_number_of_python_calls_does_not_grow_with_the_lines(self, rest: bytes) -> None:
        one, block = reader("score", deselected=["name"]), block_of(*[b'{"id":1' + rest] * 1000)

        one.read(block)  # logs its warning

        assert python_calls(lambda: one.read(block)) < 100

    def test_the_order_of_keys_does_not_affect_speed(self) -> None:
        one, block = reader(), block_of(*[b'{"name":"a","id":1}', b'{"id":2}'] * 500)

        assert python_calls(lambda: one.read(block)) < 100

    def test_an_odd_line_does_not_slow_down_other_lines(self) -> None:
        odd, even = b'{"id":1,"name":2}', b'{"id":1,"name":"a"}'
        one, block, odd_block = reader(), block_of(*[even] * 999, odd), block_of(*[odd] * 1000)

        calls = python_calls(lambda: one.read(block))

        assert calls < python_calls(lambda: one.read(odd_block)) / 2


def scrub(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """A JSON value whose lone surrogates are replaced by means of the standard library."""
    text = json.dumps(json.loads(json.dumps(value)), ensure_ascii=False)
    return json.loads(re.sub("[\ud800-\udfff]", REPLACEMENT, text))


def as_text(value: Any) -> str | None:  # noqa: ANN401 - a JSON scalar
    return scrub(value) if value is None or isinstance(value, str) else json.dumps(value)


def outcome(block: Block) -> list[dict[str, Any]] | int:
    """The records of a block, or the number of the line that is not a contact."""
    try:
        return [to_record(contact, {}) for contact in reader("score").read(block)]
    except LineError as error:
        return int(str(error).split()[1])


ODD_TEXT = st.sampled_from(["}\n", "}", '"}\n', '\\"}\n', "}\\n", '{"id":1}', "\u2028", "é\x85\0"])
TEXT = st.one_of(st.text(), st.text(st.sampled_from("\ud83d\ude00\\u")), ODD_TEXT)
SCALAR = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(-1e300, 1e300), TEXT)
ARRAY = st.one_of(st.none(), st.lists(SCALAR, max_size=3))
ANY = st.one_of(SCALAR, ARRAY, st.dictionaries(TEXT, ARRAY, max_size=2))
CONTACT = st.fixed_dictionaries(
    {"id": st.integers(-(2**63), 2**63 - 1)},
    optional=dict.fromkeys(TEXTS, SCALAR)
    | dict.fromkeys(ARRAYS, ARRAY)
    | dict.fromkeys(["score", "tags"], ANY),
)
LINE = CONTACT.map(lambda contact: json.dumps(contact).encode())
PIECE = st.one_of(
    st.sampled_from([bytes([byte]) for byte in b'{}[],:"\\ \r\n-0\x00\xff']),
    st.sampled_from(
        [b'{"id":1', b',"name":', b',"tags":', b'"x"', b"1.50", b"}\n{", b"true", b"\n"]
    ),
    st.sampled_from([b'"\\ud800"', b"\\q", "é\ufeff".encode(), b"\xed\xa0\x80"]),
)


@st.composite
def corrupted_lines(draw: st.DrawFn) -> bytes:
    """Lines with a few bytes replaced, removed or inserted."""
    text = bytearray(b"\n".join(draw(st.lists(st.one_of(LINE, PIECE), max_size=5))))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        text[start : start + draw(st.integers(0, 3))] = draw(PIECE)
    return bytes(text)


class TestAnyLines:
    """Property tests with valid, unusual and corrupted lines."""

    @NO_DEADLINE
    @given(st.lists(CONTACT, max_size=5), st.sampled_from([(",", ":"), (" ,", " : ")]))
    def test_contacts_are_what_json_loads_returns(
        self, contacts: list[dict[str, Any]], separators: tuple[str, str]
    ) -> None:
        lines = [json.dumps(contact, separators=separators).encode() for contact in contacts]

        assert outcome(block_of(*lines)) == [
            {"id": contact["id"]}
            | {name: as_text(contact.get(name)) for name in TEXTS}
            | {name: (a := contact.get(name)) and [as_text(i) for i in a] for name in ARRAYS}
            | {"score": scrub(contact.get("score"))}
            for contact in contacts
        ]

    @NO_DEADLINE
    @given(st.one_of(corrupted_lines(), st.binary()))
    @example(b'{"id":1}\n{"id":2,"tags":"\xff"}')
    def test_a_block_is_read_like_its_lines_one_by_one(self, text: bytes) -> None:
        one_by_one: list[dict[str, Any]] | int = []
        for number, line in enumerate(text.split(b"\n"), 1):
            if isinstance(one_by_one, list):
                found = outcome(block_of(line, first_line=number))
                one_by_one = one_by_one + found if isinstance(found, list) else found

        assert outcome(block_of(text)) == one_by_one

    @NO_DEADLINE
    @given(st.one_of(corrupted_lines(), st.binary()).map(lambda text: text.replace(b"\n", b" ")))
    def test_json_loads_accepts_every_accepted_line(self, line: bytes) -> None:
        if outcome(block_of(line)) not in (1, []):
            assert json.loads(line)["id"] in range(-(2**63), 2**63)


class TestRecordLines:
    """RECORD messages, equal to those of the SDK."""

    @NO_DEADLINE
    @given(
        st.lists(LINE, max_size=5),
        st.sampled_from([WINDOW, {"created_until": WINDOW["created_until"]}, {}]),
        st.sets(st.sampled_from([*FIELDS[1:], "score"])),
    )
    def test_record_lines_equal_the_sdks_byte_for_byte(
        self, lines: list[bytes], window: dict[str, str], deselected: set[str]
    ) -> None:
        contacts = reader("score", deselected=deselected).read(block_of(*lines))
        time, sdk = datetime.fromisoformat(TIME), MsgSpecWriter()

        encoded = RecordLines("contacts", window).encode(contacts, TIME)

        assert encoded == b"".join(
            bytes(sdk.format_message(RecordMessage("contacts", record, time_extracted=time)))
            for record in (to_record(contact, window) for contact in contacts)
        )

    def test_the_windows_fields_come_last_in_a_record(self) -> None:
        contacts = reader().read(block_of(b'{"id":7}'))

        message = json.loads(RecordLines("contacts", WINDOW).encode(contacts, TIME))

        assert list(message) == ["type", "stream", "record", "time_extracted"]
        assert list(message["record"].items())[-2:] == list(WINDOW.items())

    def test_encode_records_returns_records_without_messages(self) -> None:
        contacts = reader().read(block_of(b'{"id":1,"name":"}\\n"}', b'{"id":2}'))

        bare = RecordLines("contacts", WINDOW).encode_records(contacts)

        assert [*map(json.loads, bare.splitlines())] == [to_record(c, WINDOW) for c in contacts]

    def test_no_contacts_are_no_lines(self) -> None:
        assert RecordLines("contacts", WINDOW).encode([], TIME) == b""
