"""The stream as a target sees it: records, schema, and what STATE claims."""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from simulator import Population
from simulator.faults import ExportFails, Form
from simulator.files import FileForm
from tap_cometly.errors import SettingError
from tests.conftest import NOON, contact, contacts_every

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Run, World

JUNE = datetime(2024, 6, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
STATE_AT = "2024-06-20T00:00:00+00:00"


def state_at(bookmark: object, **more: object) -> dict[str, Any]:
    """A state with a bookmark."""
    stream = {"replication_key": "created_until", "replication_key_value": bookmark, **more}
    return {"bookmarks": {"contacts": stream}}


def only(lines: tuple[bytes, ...]) -> Form:
    """A file of just these lines."""
    return Form(FileForm(lines=lines, only_lines=True))


def catalog_of(world: World, **settings: Any) -> dict[str, Any]:
    """The catalog that discovery gives."""
    return world.tap(**settings).catalog_dict


def metadata_of(catalog: dict[str, Any], *breadcrumb: str) -> dict[str, Any]:
    """The metadata of a breadcrumb in the catalog's one stream."""
    (entry,) = catalog["streams"]
    found: dict[str, Any] = next(
        item["metadata"] for item in entry["metadata"] if item["breadcrumb"] == list(breadcrumb)
    )
    return found


TIMES = ("created_from", "created_until")


def times_of(record: dict[str, Any]) -> tuple[datetime, datetime]:
    """Between which times a record's contact was created."""
    first, last = (datetime.fromisoformat(record[field]) for field in TIMES)
    return first, last


class TestRecords:
    """What a contact becomes."""

    def test_every_contact_arrives_once(self, world: World) -> None:
        people = contacts_every(HOUR, JUNE + timedelta(minutes=7), JUNE + timedelta(days=29))
        world.fill(people)

        run = world.sync()

        assert sorted(run.ids) == [person.id for person in people]

    def test_a_record_has_the_fields_of_the_file_and_its_window(self, world: World) -> None:
        person = contact(
            7, JUNE + HOUR, email="a@example.com", name="Zoë", phone="+47 1", location="NO"
        )
        world.fill([person])

        (record,) = world.sync(window_days=1).records

        assert record == {
            "id": 7,
            "email": "a@example.com",
            "name": "Zoë",
            "phone": "+47 1",
            "location": "NO",
            "created_from": "2024-06-01T00:00:00+00:00",
            "created_until": "2024-06-02T00:00:00+00:00",
        }

    def test_a_field_that_the_file_lacks_is_null(self, world: World) -> None:
        world.fill([contact(7, JUNE + HOUR)])
        world.simulator.faults.add("create", only((b'{"id":7}',)))

        assert world.sync().records[0]["email"] is None

    @pytest.mark.parametrize("window_days", [None, 1, 0.25])
    def test_a_contact_was_created_between_the_two_times_of_its_record(
        self, world: World, window_days: float | None
    ) -> None:
        people = contacts_every(timedelta(hours=7), JUNE + timedelta(minutes=7), JUNE + 29 * DAY)
        world.fill(people, timezone="America/New_York")

        run = world.sync(window_days=window_days)

        created = {person.id: person.created_at for person in people}
        assert set(run.ids) == set(created)
        for record in run.records:
            first, last = times_of(record)
            assert first <= created[record["id"]] <= last
            assert window_days is None or last - first <= window_days * DAY

    @pytest.mark.parametrize("timezone", ["UTC", "Asia/Kathmandu", "America/New_York"])
    def test_every_time_is_in_utc_in_one_form(self, world: World, timezone: str) -> None:
        world.fill(contacts_every(12 * HOUR, JUNE, JUNE + 29 * DAY), timezone=timezone)

        run = world.sync(start_date="2024-06-01T00:00:00.5", end_date="2024-06-29T17:30+05:45")

        times = {record[field] for record in run.records for field in TIMES}
        assert len(times) == len(set(run.bookmarks)) + 1
        for time in {*times, *run.bookmarks}:
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", time)

    @pytest.mark.parametrize(("end_inclusive", "times"), [(True, 2), (False, 1)])
    def test_a_contact_of_the_second_where_windows_meet_comes_once_or_twice(
        self, world: World, times: int, *, end_inclusive: bool
    ) -> None:
        """Whichever way Cometly treats the end of an export, nobody falls into a gap."""
        world.fill([contact(1, JUNE + DAY)], end_inclusive=end_inclusive)

        run = world.sync(window_days=1, end_date="2024-06-03T00:00:00Z")

        assert run.ids == [1] * times

    def test_tokens_and_emails_come_when_their_settings_are_on(self, world: World) -> None:
        world.fill([contact(7, JUNE + HOUR, comet_tokens=["new", "old"], emails=["a@b.c"])])

        (record,) = world.sync(include_comet_tokens=True, include_all_emails=True).records

        assert (record["comet_tokens"], record["emails"]) == (["new", "old"], ["a@b.c"])

    def test_an_unknown_field_is_dropped_with_one_warning(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.fill(contacts_every(12 * HOUR, JUNE, JUNE + 9 * DAY))
        line = b'{"id":1,"email":null,"birthday":"x"}'
        world.simulator.faults.add("create", Form(FileForm(lines=(line, line))), times=None)

        run = world.sync(end_date="2024-06-10T00:00:00Z")

        assert "birthday" not in run.records[0]
        assert [r.getMessage() for r in caplog.records if "birthday" in r.getMessage()] == [
            "Contacts have an unknown field 'birthday'; it is dropped"
        ]

    def test_a_line_that_is_no_contact_fails_the_run_without_quoting_it(self, world: World) -> None:
        world.fill([contact(1, JUNE + HOUR)])
        lines = (b'{"id":"x","email":"b@example.com"}',)
        world.simulator.faults.add("create", Form(FileForm(lines=lines)))

        run = world.sync()

        assert str(run.error) == (
            "Export 1 of 2024-06-01T00:00:00+00:00 to 2024-06-02T00:00:00+00:00: line 2 of its "
            "file has no integer 'id', so the file is not read as if it were whole; ask Cometly's "
            "support about this export."
        )


class TestOrder:
    """In which order messages come, and what a STATE line claims."""

    def test_the_schema_comes_first_and_a_state_after_each_window(self, world: World) -> None:
        world.fill(contacts_every(12 * HOUR, JUNE + HOUR, JUNE + 3 * DAY))

        run = world.sync(window_days=1, end_date="2024-06-03T00:00:00Z")

        assert [message["type"] for message in run.messages] == [
            "SCHEMA", "RECORD", "RECORD", "STATE", "RECORD", "RECORD", "STATE",
        ]  # fmt: skip

    def test_the_bookmark_is_the_end_of_the_finished_window(self, world: World) -> None:
        run = world.sync(window_days=1, end_date="2024-06-03T06:00:00Z")

        assert run.bookmarks == [
            "2024-06-02T00:00:00+00:00",
            "2024-06-03T00:00:00+00:00",
            "2024-06-03T06:00:00+00:00",
        ]

    def test_an_empty_window_moves_the_bookmark_too(self, world: World) -> None:
        run = world.sync(end_date="2024-06-02T00:00:00Z")

        assert run.bookmarks == ["2024-06-02T00:00:00+00:00"]

    def test_a_state_holds_the_bookmark_and_nothing_of_the_sdk(self, world: World) -> None:
        run = world.sync(end_date="2024-06-02T00:00:00Z")

        assert run.states == [state_at("2024-06-02T00:00:00+00:00")]

    def test_no_state_comes_in_the_midst_of_a_window(self, world: World) -> None:
        world.fill(contacts_every(timedelta(seconds=4), JUNE, JUNE + DAY - HOUR))
        assert len(world.space.population) > 20_000

        run = world.sync(end_date="2024-06-02T00:00:00Z", stream_maps={"contacts": {"x": "id"}})

        assert [message["type"] for message in run.messages].index("STATE") == len(run.ids) + 1

    def test_a_window_that_fails_is_never_claimed(self, world: World) -> None:
        world.fill(contacts_every(HOUR, JUNE, JUNE + 5 * DAY))
        bad = Form(FileForm(lines=(b'{"id":1}', b"{")))
        world.simulator.faults.add("create", bad, after=2)

        run = world.sync(window_days=1, end_date="2024-06-06T00:00:00Z")

        assert run.error is not None
        assert run.bookmarks == ["2024-06-02T00:00:00+00:00", "2024-06-03T00:00:00+00:00"]

    def test_a_run_goes_on_from_the_last_state(self, world: World) -> None:
        people = contacts_every(HOUR, JUNE + timedelta(minutes=1), JUNE + 5 * DAY)
        world.fill(people)
        bad = Form(FileForm(lines=(b"{",)))
        world.simulator.faults.add("create", bad, after=2)
        broken = world.sync(window_days=1, lookback_days=0)

        resumed = world.sync(broken.states[-1], window_days=1, lookback_days=0)

        assert sorted(broken.ids + resumed.ids) == [person.id for person in people]

    def test_a_window_that_broke_off_comes_again_from_its_start(self, world: World) -> None:
        people = contacts_every(HOUR, JUNE + timedelta(minutes=1), JUNE + 3 * DAY)
        world.fill(people)
        bad = Form(FileForm(lines=(b'{"id":0}',) * 60_000 + (b"{",)))
        world.simulator.faults.add("create", bad, after=1)
        settings: dict[str, Any] = {"window_days": 1, "lookback_days": 0}
        broken = world.sync(**settings)

        resumed = world.sync(broken.states[-1], **settings)

        of_second_day = {person.id for person in people[24:48]}
        assert set(broken.ids) & set(resumed.ids) == of_second_day
        assert set(broken.ids) | set(resumed.ids) == {0, *(person.id for person in people)}


class TestBookmark:
    """How a given state is read, and that it never goes back."""

    def first_window(self, world: World, state: dict[str, Any], **settings: Any) -> str:
        """The start of the first window."""
        world.sync(state, **settings)
        return str(world.windows()[0][0])

    def test_a_run_starts_a_lookback_before_it_at_local_midnight(self, world: World) -> None:
        state = state_at("2024-06-20T10:00:00+00:00")

        assert self.first_window(world, state) == "2024-06-19 00:00:00+00:00"

    @pytest.mark.parametrize(
        "value",
        ["2024-06-20T00:00:00Z", "2024-06-20", "2024-06-20T02:00:00+02:00", "20240620T000000"],
    )
    def test_any_iso_8601_form_is_read(self, world: World, value: str) -> None:
        start = self.first_window(world, state_at(value), lookback_days=0)

        assert start == "2024-06-20 00:00:00+00:00"

    def test_null_is_none(self, world: World) -> None:
        assert self.first_window(world, state_at(None)) == "2024-06-01 00:00:00+00:00"

    @pytest.mark.parametrize("value", ["yesterday", "P1D", 17, True, ["2024-06-20"], "2024-06", ""])
    def test_anything_else_is_refused_before_the_first_request(
        self, world: World, value: object
    ) -> None:
        run = world.sync(state_at(value))

        assert isinstance(run.error, SettingError)
        assert str(value) in str(run.error)
        assert world.simulator.requests == []

    def test_the_lookback_does_not_move_it_back(self, world: World) -> None:
        run = world.sync(
            state_at(STATE_AT),
            lookback_days=3,
            window_days=1,
            end_date="2024-06-21T00:00:00Z",
        )

        assert run.bookmarks == [STATE_AT] * 4 + ["2024-06-21T00:00:00+00:00"]

    def test_without_a_state_everything_is_read_again(self, world: World) -> None:
        people = contacts_every(HOUR, JUNE + HOUR / 2, JUNE + 29 * DAY)
        world.fill(people)
        first = world.sync(end_date="2024-06-30T00:00:00Z")

        again = world.sync(end_date="2024-06-30T00:00:00Z")

        everybody = sorted(person.id for person in people)
        assert (sorted(first.ids), sorted(again.ids)) == (everybody, everybody)
        assert again.bookmarks == first.bookmarks

    @pytest.mark.parametrize(
        ("lookback_days", "found"), [(0, set()), (1, {4}), (2, {3, 4}), (30, {1, 2, 3, 4})]
    )
    def test_who_comes_late_or_changes_is_read_while_the_lookback_reaches_the_creation(
        self, world: World, lookback_days: float, found: set[int]
    ) -> None:
        long_ago, recently = JUNE + HOUR, NOON - 2 * DAY
        world.fill([contact(1, long_ago, name="old"), contact(3, recently, name="old")])
        state = world.sync().states[-1]
        changed = [contact(1, long_ago, name="new"), contact(3, recently, name="new")]
        late = [contact(2, long_ago, name="new"), contact(4, NOON - DAY, name="new")]
        world.space.add([*changed, *late])
        world.clock.sleep(DAY.total_seconds())

        run = world.sync(state, lookback_days=lookback_days)

        assert {(record["id"], record["name"]) for record in run.records} == {
            (number, "new") for number in found
        }

    @pytest.mark.parametrize(
        ("setting", "field"),
        [("include_all_emails", "emails"), ("include_comet_tokens", "comet_tokens")],
    )
    def test_a_field_switched_on_later_makes_no_older_contact_come_again(
        self, world: World, setting: str, field: str
    ) -> None:
        world.fill(contacts_every(DAY, JUNE + HOUR, JUNE + 29 * DAY))
        catalog = catalog_of(world)
        state = world.sync(catalog=catalog).states[-1]
        world.space.add([contact(99, NOON + HOUR, emails=["a@b.c"], comet_tokens=["t"])])
        world.clock.sleep(DAY.total_seconds())

        settings: dict[str, Any] = {"lookback_days": 0, setting: True}
        run = world.sync(state, catalog, **settings)

        assert [record["id"] for record in run.records] == [99]
        assert run.records[0][field] == {"emails": ["a@b.c"], "comet_tokens": ["t"]}[field]

    def test_an_older_form_is_compared_as_an_instant(self, world: World) -> None:
        late = state_at("2024-06-20T02:30:00+02:00")  # a later string, an earlier time

        run = world.sync(late, lookback_days=0, end_date="2024-06-20T01:00:00Z")

        assert run.bookmarks[-1] == "2024-06-20T01:00:00+00:00"

    def test_at_or_after_the_end_the_run_makes_no_request_and_keeps_it(self, world: World) -> None:
        state = state_at("2024-06-20T00:00:00Z")

        run = world.sync(state, end_date=STATE_AT)

        assert (run.error, run.states, world.simulator.requests) == (None, [state], [])

    @pytest.mark.parametrize(
        ("state", "why"),
        [
            (state_at("2024-06-20T00:00:00Z"), "is complete up to the bookmark"),
            (None, "has not begun yet"),
        ],
    )
    def test_a_run_with_nothing_to_do_says_why(
        self, world: World, caplog: pytest.LogCaptureFixture, state: dict[str, Any] | None, why: str
    ) -> None:
        caplog.set_level("INFO")

        world.sync(state, start_date="2024-06-19", end_date="2024-06-19")

        assert f"Nothing to do: the range from start_date on {why}" in caplog.messages

    def test_the_settling_time_ends_a_run(self, world: World) -> None:
        run = world.sync()

        assert datetime.fromisoformat(run.bookmarks[-1]) == NOON - timedelta(minutes=5)

    def test_other_streams_in_the_state_are_kept(self, world: World) -> None:
        state = {"bookmarks": {"deals": {"x": 1}}}

        run = world.sync(state, end_date="2024-06-02T00:00:00Z")

        assert run.states[-1]["bookmarks"]["deals"] == {"x": 1}

    def test_one_for_another_replication_key_is_not_taken(self, world: World) -> None:
        other = {"replication_key": "updated_at", "replication_key_value": STATE_AT}

        start = self.first_window(world, {"bookmarks": {"contacts": other}})

        assert start == "2024-06-01 00:00:00+00:00"


class TestFullTable:
    """A catalog can ask for everything."""

    def catalog(self, world: World) -> dict[str, Any]:
        """A catalog that does."""
        catalog = catalog_of(world)
        catalog["streams"][0]["replication_method"] = "FULL_TABLE"
        return catalog

    def test_metadata_as_singer_specifies_them_ask_for_it_too(self, world: World) -> None:
        catalog = catalog_of(world)
        metadata_of(catalog)["replication-method"] = "FULL_TABLE"

        world.sync(state_at(STATE_AT), catalog)

        assert world.windows()[0][0] == JUNE

    def test_it_starts_at_the_start_date_whatever_the_bookmark(self, world: World) -> None:
        world.sync(state_at(STATE_AT), self.catalog(world))

        assert world.windows()[0][0] == JUNE

    def test_its_states_carry_the_bookmark_as_given(self, world: World) -> None:
        given = state_at("2024-06-20T02:00:00+02:00")

        assert world.sync(given, self.catalog(world)).states == [given]

    def test_it_brings_who_came_late_or_changed_however_long_ago(self, world: World) -> None:
        world.fill([contact(1, JUNE + DAY, name="old")])
        state = world.sync().states[-1]
        world.space.add([contact(1, JUNE + DAY, name="new"), contact(2, JUNE + DAY, name="late")])

        run = world.sync(state, self.catalog(world))

        assert {record["id"]: record["name"] for record in run.records} == {1: "new", 2: "late"}

    def test_who_was_deleted_comes_no_more_and_no_message_says_so(self, world: World) -> None:
        *people, deleted = contacts_every(6 * HOUR, JUNE + HOUR, NOON - HOUR)
        world.fill([*people, deleted])
        first = world.sync()
        assert deleted.id in first.ids
        world.space.population = Population(people)

        incremental = world.sync(first.states[-1])
        full = world.sync(first.states[-1], self.catalog(world))

        assert set(incremental.ids) == {person.id for person in people[-5:]}
        assert set(full.ids) == {person.id for person in people}
        for run in (incremental, full):
            assert {message["type"] for message in run.messages} <= {"SCHEMA", "RECORD", "STATE"}

    def test_it_does_not_even_read_a_bad_bookmark(self, world: World) -> None:
        assert world.sync(state_at("garbage"), self.catalog(world)).error is None


class TestWrongTimeZone:
    """A Space in New York, and the setting `timezone` left at UTC: nothing tells the tap."""

    LATE = contact(1, NOON + HOUR)
    """Created when clocks in New York show 9:00: long past, for a tap that is told 12:00."""

    def test_the_times_of_a_record_are_wrong_by_its_difference(self, world: World) -> None:
        noon = JUNE + 12 * HOUR
        world.fill([contact(1, noon)], timezone="America/New_York")

        run = world.sync(timezone="UTC", window_days=1 / 12, end_date="2024-06-02T00:00:00Z")

        first, last = times_of(run.records[0])
        assert run.error is None
        assert first <= noon - 4 * HOUR <= last < noon

    @pytest.mark.parametrize(
        ("timezone", "lookback_days", "found"),
        [("UTC", 0, []), ("UTC", 1, [1]), ("America/New_York", 0, [1])],
        ids=["wrong, without lookback", "wrong", "right, without lookback"],
    )
    def test_without_a_lookback_contacts_are_missed(
        self, world: World, timezone: str, lookback_days: float, found: list[int]
    ) -> None:
        settings: dict[str, Any] = {"timezone": timezone, "lookback_days": lookback_days}
        world.fill([self.LATE], timezone="America/New_York")
        first = world.sync(**settings)
        assert first.ids == []

        world.clock.sleep(DAY.total_seconds())

        assert world.sync(first.states[-1], **settings).ids == found


class TestBothPaths:
    """Blocks and the SDK's own loop give the same messages."""

    def both(self, world: World, **arguments: Any) -> tuple[Run, Run]:
        """Run in blocks, and record by record as an edited catalog schema makes it."""
        arguments = {"window_days": 1, "end_date": "2024-06-09T00:00:00Z", **arguments}
        catalog = arguments.pop("catalog", None) or catalog_of(world, **arguments)
        edited = json.loads(json.dumps(catalog))
        edited["streams"][0]["schema"]["properties"]["id"]["description"] = "edited"
        return world.sync(catalog=catalog, **arguments), world.sync(catalog=edited, **arguments)

    def lines(self, run: Run) -> list[bytes]:
        """The RECORD and STATE lines, without the time of extraction."""
        return [
            line.partition(b',"time_extracted"')[0]
            for line in run.output.split(b"\n")
            if b'"type":"SCHEMA"' not in line
        ]

    @pytest.mark.parametrize("emails", [False, True])
    @pytest.mark.parametrize("tokens", [False, True])
    def test_for_every_schema(self, world: World, *, tokens: bool, emails: bool) -> None:
        people = contacts_every(HOUR, JUNE, JUNE + 3 * DAY)
        odd = [
            contact(9001, JUNE, name='\u2028 }\n\\"', comet_tokens=[None, "t"], emails=None),
            contact(9002, JUNE, email="", location="\x00", comet_tokens=[], emails=["", None]),
        ]
        world.fill([*people, *odd])

        blocks, records = self.both(world, include_comet_tokens=tokens, include_all_emails=emails)

        assert len(blocks.ids) > len(people)
        assert self.lines(blocks) == self.lines(records)

    def test_for_odd_records(self, world: World) -> None:
        world.fill([contact(1, JUNE)])
        lines = (
            b'{"id":1,"email":1.50,"name":true,"phone":12345678901234567890,"location":1e3}',
            b'{"location":null,"x":{"y":[]},"id":-2}',
            b'{"id":99999999999999999999}',
            b'{"id":4,"email":"\\ud83d\\ude00 \xf0\x9f\x98\x80"}\r',
        )
        world.simulator.faults.add("create", only(lines), times=None)

        blocks, records = self.both(world, end_date="2024-06-02T00:00:00Z")

        assert [record["email"] for record in blocks.records[:4]] == ["1.50", None, None, "😀 😀"]
        assert self.lines(blocks) == self.lines(records)

    @pytest.mark.parametrize("field", ["email", "created_from", "emails"])
    def test_for_a_selection(self, world: World, field: str) -> None:
        world.fill([contact(1, JUNE, email="a@b.c", emails=["a@b.c"])])
        catalog = catalog_of(world, include_all_emails=True)
        metadata_of(catalog, "properties", field)["selected"] = False

        blocks, records = self.both(world, catalog=catalog, include_all_emails=True)

        assert field not in blocks.records[0]
        assert self.lines(blocks) == self.lines(records)

    def test_the_key_and_the_replication_key_cannot_be_deselected(self, world: World) -> None:
        world.fill([contact(1, JUNE)])
        catalog = catalog_of(world)
        for field in ("id", "created_until"):
            metadata_of(catalog, "properties", field)["selected"] = False

        (record,) = world.sync(catalog=catalog).records

        assert {"id", "created_until"} <= set(record)

    def test_a_field_switched_on_later_comes_despite_an_older_catalog(self, world: World) -> None:
        world.fill([contact(1, JUNE, emails=["a@b.c"])])
        catalog = catalog_of(world)

        run = world.sync(catalog=catalog, include_all_emails=True)

        assert run.records[0]["emails"] == ["a@b.c"]
        assert "emails" in run.of_type("SCHEMA")[0]["schema"]["properties"]

    def test_a_field_switched_off_later_goes_despite_an_older_catalog(self, world: World) -> None:
        world.fill([contact(1, JUNE, emails=["a@b.c"])])
        catalog = catalog_of(world, include_all_emails=True)

        run = world.sync(catalog=catalog)

        assert "emails" not in run.records[0]
        assert "emails" not in run.of_type("SCHEMA")[0]["schema"]["properties"]

    def test_a_deselected_stream_makes_no_request(self, world: World) -> None:
        catalog = catalog_of(world)
        metadata_of(catalog)["selected"] = False

        run = world.sync(catalog=catalog)

        assert (run.error, world.simulator.requests) == (None, [])


class TestSdkFeatures:
    """What the SDK promises, and the stream must not break."""

    def test_a_stream_map_changes_records(self, world: World) -> None:
        world.fill([contact(1, JUNE, email="a@b.c", phone="1")])
        stream_map = {"email": "md5(email)", "phone": "__NULL__"}

        (record,) = world.sync(stream_maps={"contacts": stream_map}).records

        assert record["email"] == "5d60d4e28066df254d5452f92c910092"
        assert "phone" not in record

    def test_a_filter_drops_records_but_not_windows(self, world: World) -> None:
        world.fill(contacts_every(12 * HOUR, JUNE + HOUR, JUNE + 3 * DAY))

        run = world.sync(
            stream_maps={"contacts": {"__filter__": "id > 2"}}, end_date="2024-06-04T00:00:00Z"
        )

        assert sorted(run.ids) == [3, 4, 5, 6]
        assert run.bookmarks[-1] == "2024-06-04T00:00:00+00:00"

    def test_an_alias_renames_the_stream(self, world: World) -> None:
        world.fill([contact(1, JUNE)])

        run = world.sync(stream_maps={"contacts": {"__alias__": "people"}})

        assert {message["stream"] for message in run.of_type("RECORD")} == {"people"}

    def test_flattening_leaves_flat_records_alone(self, world: World) -> None:
        world.fill([contact(1, JUNE, emails=["a@b.c"])])

        flat = world.sync(
            flattening_enabled=True, flattening_max_depth=1, include_all_emails=True
        ).records

        assert flat[0]["id"] == 1

    def test_an_edited_catalog_schema_is_obeyed(self, world: World) -> None:
        world.fill([contact(1, JUNE, phone="1")])
        catalog = catalog_of(world)
        del catalog["streams"][0]["schema"]["properties"]["phone"]

        assert "phone" not in world.sync(catalog=catalog).records[0]

    def test_a_trial_writes_one_record_and_no_bookmark(
        self, world: World, capfd: pytest.CaptureFixture[str]
    ) -> None:
        world.fill(contacts_every(HOUR, JUNE + HOUR, JUNE + DAY))

        assert world.tap().run_connection_test()

        kinds = [json.loads(line)["type"] for line in capfd.readouterr().out.splitlines()]
        assert kinds == ["SCHEMA", "RECORD"]


class TestBatch:
    """With `batch_config`, contacts go into files that BATCH lines name."""

    def sync(self, world: World, folder: Path, **settings: Any) -> Run:
        """Run with files in a folder."""
        batch_config = {
            "encoding": {"format": "jsonl", "compression": "gzip"},
            "storage": {"root": folder.as_uri()},
            "batch_size": 10,
        }
        return world.sync(batch_config=batch_config, **settings)

    def read(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """The records in a BATCH message's files."""
        return [
            json.loads(line)
            for url in message["manifest"]
            for line in gzip.open(url2pathname(urlsplit(url).path), "rt", encoding="utf-8")
        ]

    def test_the_files_hold_every_contact(self, world: World, tmp_path: Path) -> None:
        people = contacts_every(HOUR, JUNE + timedelta(minutes=7), JUNE + 4 * DAY)
        world.fill(people)

        run = self.sync(world, tmp_path, end_date="2024-06-05T00:00:00Z")

        records = [record for batch in run.of_type("BATCH") for record in self.read(batch)]
        assert sorted(record["id"] for record in records) == [person.id for person in people]

    def test_a_state_claims_only_what_batches_before_it_name(
        self, world: World, tmp_path: Path
    ) -> None:
        world.fill(contacts_every(HOUR, JUNE + HOUR, JUNE + 4 * DAY))

        run = self.sync(world, tmp_path, window_days=1, end_date="2024-06-05T00:00:00Z")

        named: set[str] = set()
        for message in run.messages:
            if message["type"] == "BATCH":
                named |= {record["created_until"] for record in self.read(message)}
            if message["type"] == "STATE":
                bookmark = message["value"]["bookmarks"]["contacts"]["replication_key_value"]
                assert bookmark == max(named)

    def test_a_window_that_fails_is_not_claimed(self, world: World, tmp_path: Path) -> None:
        world.fill(contacts_every(HOUR, JUNE + HOUR, JUNE + 4 * DAY))
        bad = Form(FileForm(lines=(b'{"id":1}',) * 60_000 + (b"{",)))
        world.simulator.faults.add("create", bad, after=1)

        run = self.sync(world, tmp_path, window_days=1)

        assert sum(len(self.read(batch)) for batch in run.of_type("BATCH")) > 24
        assert run.bookmarks == ["2024-06-02T00:00:00+00:00"]

    def test_stream_maps_and_selection_reach_the_files(self, world: World, tmp_path: Path) -> None:
        world.fill([contact(1, JUNE, email="a@b.c", phone="1", name="Ann")])
        catalog = catalog_of(world)
        metadata_of(catalog, "properties", "name")["selected"] = False
        stream_map = {"email": "md5(email)", "phone": "__NULL__"}

        run = self.sync(world, tmp_path, catalog=catalog, stream_maps={"contacts": stream_map})

        (record,) = self.read(run.of_type("BATCH")[0])
        assert record["email"] == "5d60d4e28066df254d5452f92c910092"
        assert not {"phone", "name"} & set(record)

    @pytest.mark.parametrize("compression", ["none", None])
    def test_files_are_plain_where_no_gzip_is_asked_for(
        self, world: World, tmp_path: Path, compression: str | None
    ) -> None:
        world.fill([contact(1, JUNE, email="a@b.c")])
        encoding = {"format": "jsonl"} | ({"compression": compression} if compression else {})

        run = world.sync(
            batch_config={"encoding": encoding, "storage": {"root": tmp_path.as_uri()}}
        )

        (url,) = run.of_type("BATCH")[0]["manifest"]
        (line,) = Path(url2pathname(urlsplit(url).path)).read_text(encoding="utf-8").splitlines()
        assert json.loads(line)["email"] == "a@b.c"

    def test_the_files_hold_what_record_messages_would(self, world: World, tmp_path: Path) -> None:
        world.fill(contacts_every(HOUR, JUNE, JUNE + DAY))
        bounds: dict[str, Any] = {"end_date": "2024-06-03T00:00:00Z", "window_days": 1}

        run = self.sync(world, tmp_path, **bounds)

        records = [record for batch in run.of_type("BATCH") for record in self.read(batch)]
        assert records == world.sync(**bounds).records

    def test_each_file_has_the_batch_size(self, world: World, tmp_path: Path) -> None:
        world.fill(contacts_every(HOUR, JUNE, JUNE + DAY - HOUR))

        run = self.sync(world, tmp_path, end_date="2024-06-02T00:00:00Z")

        assert [len(self.read(batch)) for batch in run.of_type("BATCH")] == [10, 10, 4]

    def test_maps_that_make_several_streams_are_refused(self, world: World, tmp_path: Path) -> None:
        maps = {"contacts": {"id": "id"}, "copy": {"__source__": "contacts", "id": "id"}}

        run = self.sync(world, tmp_path, stream_maps=maps)

        assert "batch_config" in str(run.error)


class TestProgress:
    """What a person reads while it runs."""

    def test_a_line_for_each_window_and_one_at_the_end(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.fill(
            contacts_every(HOUR, JUNE + HOUR / 2, JUNE + 2 * DAY), timezone="America/New_York"
        )
        caplog.set_level("INFO")

        world.sync(window_days=1, end_date="2024-06-02T00:00:00Z")

        said = [r.getMessage() for r in caplog.records if r.name == "tap-cometly.contacts"]
        assert said[-1].startswith("Complete: 24 contacts in ")
        assert said[-2].startswith("2024-06-01 00:00:00 to 2024-06-01 20:00:00 |        20 ")

    def test_metrics_are_logged(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        world.fill(contacts_every(HOUR, JUNE + HOUR / 2, JUNE + 2 * DAY))
        caplog.set_level("INFO")

        world.sync()

        said = [json.loads(m[8:]) for m in caplog.messages if m.startswith("METRIC: ")]
        assert {point["metric"]: point["value"] for point in said}["record_count"] == 48


class FilesWritten:
    """Notes which files this thread opens for writing, while it is asked to."""

    def __init__(self) -> None:
        """Listen, from now to the end of the process: Python lets nobody stop listening."""
        self.paths: list[str] | None = None
        self._thread = threading.get_ident()
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or self.paths is None or threading.get_ident() != self._thread:
            return
        path, _, flags = arguments
        # Python may keep the code of a module that it loads only now.
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and "__pycache__" not in str(path):
            self.paths.append(str(path))

    def by(self, run: Callable[[], Run]) -> list[str]:
        """The files that a run opens for writing."""
        self.paths = paths = list[str]()
        try:
            assert run().error is None
        finally:
            self.paths = None
        return paths


@pytest.fixture(scope="module")
def files_written() -> FilesWritten:
    """Who notes files."""
    return FilesWritten()


def test_a_run_writes_no_file_but_with_batch_config(
    world: World, files_written: FilesWritten, tmp_path: Path
) -> None:
    world.fill(contacts_every(HOUR, JUNE, JUNE + 9 * DAY))
    batch_config = {"encoding": {"format": "jsonl"}, "storage": {"root": tmp_path.as_uri()}}

    assert files_written.by(world.sync) == []
    assert files_written.by(lambda: world.sync(stream_maps={"contacts": {"x": "id"}})) == []
    assert files_written.by(lambda: world.sync(batch_config=batch_config)) != []


def test_an_export_that_fails_twice_is_halved_and_nothing_is_lost(world: World) -> None:
    people = contacts_every(HOUR, JUNE + timedelta(minutes=7), JUNE + 20 * DAY)
    world.fill(people)
    too_long = timedelta(hours=13)
    world.simulator.faults.add(
        "create", ExportFails(), times=None, when=lambda request: request.window > too_long
    )

    run = world.sync(window_days=2, end_date="2024-06-22T00:00:00Z")

    assert run.error is None
    assert set(run.ids) == {person.id for person in people}
