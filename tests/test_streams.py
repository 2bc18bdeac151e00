"""The stream's output: records, order of messages, stream maps, batch files, log."""

from __future__ import annotations

import gzip
import json
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from simulator.faults import ExportFails, Layout
from simulator.files import FileLayout
from tests.conftest import DAY, HOUR, JUNE, Run, contact, contacts_every
from tests.test_schema import metadata

if TYPE_CHECKING:
    from pathlib import Path

    from tap_cometly.tap import TapCometly
    from tests.conftest import World

BROKEN = Layout(FileLayout(lines=(b'{"id":0}', b"{")))
"""Contact 0 and a line that is not JSON follow the contacts of the file."""


def times_of(record: dict[str, Any]) -> tuple[datetime, datetime]:
    first, last = (datetime.fromisoformat(record[f"created_{end}"]) for end in ("from", "until"))
    return first, last


class TestRecords:
    """The record of a contact."""

    def test_a_record_has_the_fields_of_the_file_and_its_window(self, world: World) -> None:
        fields = {"email": "a@example.com", "name": "Zoë", "phone": "+47 1", "location": "NO"}
        world.fill([contact(7, JUNE + HOUR, comet_tokens=["new", "old"], emails=["a"], **fields)])
        a_day: dict[str, Any] = {"window_days": 1, "end_date": "2024-06-02T00:00:00Z"}
        optional: dict[str, Any] = {"include_comet_tokens": True, "include_all_emails": True}

        record = {"id": 7, **fields}
        window = {
            "created_from": "2024-06-01T00:00:00+00:00",
            "created_until": "2024-06-02T00:00:00+00:00",
        }
        assert world.sync(**a_day).records == [record | window]
        arrays = {"comet_tokens": ["new", "old"], "emails": ["a"]}
        assert world.sync(**a_day, **optional).records == [record | arrays | window]

    @pytest.mark.parametrize("window_days", [None, 1, 0.25])
    def test_every_contact_was_created_between_the_two_times_of_its_record(
        self, world: World, window_days: float | None
    ) -> None:
        people = contacts_every(7 * HOUR, JUNE + timedelta(minutes=7), JUNE + 9 * DAY)
        world.fill(people, timezone="America/New_York")

        run = world.sync(window_days=window_days, end_date="2024-06-10")

        created = {person.id: person.created_at for person in people}
        assert set(run.ids) == set(created)
        for record in run.records:
            first, last = times_of(record)
            assert first <= created[record["id"]] <= last
            assert window_days is None or last - first <= window_days * DAY

    @pytest.mark.parametrize("timezone", ["UTC", "Asia/Kathmandu", "America/New_York"])
    def test_every_time_has_one_format_in_utc(self, world: World, timezone: str) -> None:
        world.fill(contacts_every(12 * HOUR, JUNE, JUNE + 29 * DAY), timezone=timezone)

        run = world.sync(start_date="2024-06-01T00:00:00.5", end_date="2024-06-29T17:30+05:45")

        times = {record[f"created_{end}"] for record in run.records for end in ("from", "until")}
        assert len(times) == len(set(run.bookmarks)) + 1
        for time in {*times, *run.bookmarks}:
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", time)

    @pytest.mark.parametrize(("end_inclusive", "times"), [(True, 2), (False, 1)])
    def test_a_contact_on_a_window_boundary_repeats_only_if_ends_are_inclusive(
        self, world: World, times: int, *, end_inclusive: bool
    ) -> None:
        world.fill([contact(1, JUNE + DAY)], end_inclusive=end_inclusive)

        run = world.sync(window_days=1, end_date="2024-06-03T00:00:00Z")

        assert run.ids == [1] * times


class TestOrder:
    """The order of RECORD and STATE messages."""

    def test_the_schema_comes_first_and_a_state_after_each_window(self, world: World) -> None:
        world.fill(contacts_every(12 * HOUR, JUNE + HOUR, JUNE + 3 * DAY))

        run = world.sync(window_days=1, end_date="2024-06-03T00:00:00Z")

        assert [message["type"] for message in run.messages] == [
            "SCHEMA", "RECORD", "RECORD", "STATE", "RECORD", "RECORD", "STATE",
        ]  # fmt: skip

    def test_no_state_is_written_within_a_window(self, world: World) -> None:
        world.fill(contacts_every(HOUR, JUNE, JUNE + DAY - HOUR))

        def sync(tap: TapCometly) -> None:
            for stream in tap.streams.values():
                stream.STATE_MSG_FREQUENCY = 5  # records after which the SDK would write one
            tap.sync_all()

        maps = {"contacts": {"x": "id"}}
        run = world.sync(act=sync, end_date="2024-06-02T00:00:00Z", stream_maps=maps)

        types = [message["type"] for message in run.messages]
        assert types == ["SCHEMA", *["RECORD"] * 24, "STATE"]

    def test_a_failed_window_is_exported_again_from_its_start(self, world: World) -> None:
        people = contacts_every(HOUR, JUNE + timedelta(minutes=1), JUNE + 3 * DAY)
        world.fill(people)
        long_lines = (b'{"id":0,"name":"%s"}' % (b"x" * 1000),) * 1000
        world.simulator.faults.add("create", Layout(FileLayout(lines=(*long_lines, b"{"))), after=1)
        settings: dict[str, Any] = {"window_days": 1, "lookback_days": 0}

        broken = world.sync(**settings)
        resumed = world.sync(broken.states[-1], **settings)

        assert str(broken.error).startswith(
            "Export 2 of 2024-06-02T00:00:00+00:00 to 2024-06-03T00:00:00+00:00: line 1025 "
        )
        assert broken.bookmarks == ["2024-06-02T00:00:00+00:00"]
        assert set(broken.ids) & set(resumed.ids) == {person.id for person in people[24:48]}
        assert {*broken.ids, *resumed.ids} == {0, *(person.id for person in people)}

    def test_a_window_that_is_split_has_every_contact(self, world: World) -> None:
        people = contacts_every(HOUR, JUNE + timedelta(minutes=7), JUNE + 4 * DAY)
        world.fill(people)
        world.simulator.faults.add(
            "create", ExportFails(), times=None, when=lambda request: request.window > 13 * HOUR
        )

        run = world.sync(window_days=2, end_date="2024-06-06T00:00:00Z")

        assert run.error is None
        assert set(run.ids) == {person.id for person in people}


class TestBothPaths:
    """Contacts are written in blocks, or one by one with an edited schema: the same lines."""

    def both(self, world: World, **arguments: Any) -> tuple[Run, Run]:
        arguments = {"window_days": 1, "end_date": "2024-06-05T00:00:00Z", **arguments}
        catalog = arguments.pop("catalog", None) or world.tap(**arguments).catalog_dict
        edited = json.loads(json.dumps(catalog))
        edited["streams"][0]["schema"]["properties"]["id"]["description"] = "edited"
        runs = world.sync(catalog=catalog, **arguments), world.sync(catalog=edited, **arguments)
        lines = [
            [
                line.partition(b',"time_extracted"')[0]
                for line in run.output.splitlines()
                if b'"type":"SCHEMA"' not in line
            ]
            for run in runs
        ]
        assert lines[0] == lines[1]
        return runs

    @pytest.mark.parametrize("emails", [False, True])
    @pytest.mark.parametrize("tokens", [False, True])
    def test_both_paths_write_the_same_lines_for_every_schema(
        self, world: World, *, tokens: bool, emails: bool
    ) -> None:
        people = contacts_every(HOUR, JUNE, JUNE + 3 * DAY)
        odd = [
            contact(9001, JUNE, name='\u2028 }\n\\"', comet_tokens=[None, "t"], emails=None),
            contact(9002, JUNE, email="", location="\x00", comet_tokens=[], emails=["", None]),
        ]
        world.fill([*people, *odd])

        blocks, _ = self.both(world, include_comet_tokens=tokens, include_all_emails=emails)

        assert set(blocks.ids) == {person.id for person in (*people, *odd)}

    def test_both_paths_write_the_same_lines_for_odd_values(self, world: World) -> None:
        world.fill([contact(1, JUNE)])
        lines = (
            b'{"id":1,"email":1.50,"name":true,"phone":12345678901234567890,"location":1e3}',
            b'{"location":null,"x":{"y":[]},"id":-2}',
            b'{"id":9223372036854775807}',
            b'{"id":4,"email":"\\ud83d\\ude00 \xf0\x9f\x98\x80"}\r',
        )
        form = Layout(FileLayout(lines=lines, only_lines=True))
        world.simulator.faults.add("create", form, times=None)

        blocks, _ = self.both(world, end_date="2024-06-02T00:00:00Z")

        assert [record["email"] for record in blocks.records[:4]] == ["1.50", None, None, "😀 😀"]

    @pytest.mark.parametrize("field", ["email", "created_from", "emails"])
    def test_both_paths_write_the_same_lines_for_selections(self, world: World, field: str) -> None:
        world.fill([contact(1, JUNE, email="a@b.c", emails=["a@b.c"])])
        catalog = world.tap(include_all_emails=True).catalog_dict
        metadata(catalog, "properties", field)["selected"] = False

        blocks, _ = self.both(world, catalog=catalog, include_all_emails=True)

        assert field not in blocks.records[0]


class TestMaps:
    """Stream maps and flattening."""

    def test_a_map_changes_and_removes_properties_and_renames_the_stream(
        self, world: World
    ) -> None:
        world.fill([contact(1, JUNE, email="a@b.c", phone="1")])
        stream_map = {"email": "md5(email)", "phone": "__NULL__", "__alias__": "people"}

        (message,) = world.sync(stream_maps={"contacts": stream_map}).of_type("RECORD")

        assert message["stream"] == "people"
        assert message["record"]["email"] == "5d60d4e28066df254d5452f92c910092"
        assert "phone" not in message["record"]

    def test_the_bookmark_moves_over_filtered_records(self, world: World) -> None:
        world.fill(contacts_every(12 * HOUR, JUNE + HOUR, JUNE + 3 * DAY))

        run = world.sync(
            stream_maps={"contacts": {"__filter__": "id > 2"}}, end_date="2024-06-04T00:00:00Z"
        )

        assert sorted(run.ids) == [3, 4, 5, 6]
        assert run.bookmarks[-1] == "2024-06-04T00:00:00+00:00"

    def test_flattening_does_not_change_flat_records(self, world: World) -> None:
        world.fill([contact(1, JUNE, email="a@b.c")])

        (record,) = world.sync(flattening_enabled=True, flattening_max_depth=1).records

        assert [record] == world.sync().records

    @pytest.mark.parametrize(
        ("stream_maps", "what"),
        [
            ({"contacts": {"x": "id", "email": "md5(email)"}}, "contacts.email = 'md5(email)' fai"),
            ({"contacts": {"x": "nope(email)"}}, "contacts.x = 'nope(email)' failed (FunctionNotD"),
            ({"contacts": {"__filter__": "phone + 1"}}, "contacts.__filter__ = 'phone + 1' failed"),
            (
                {"copy": {"__source__": "contacts", "id": "id", "y": "name.a"}},
                "copy.y = 'name.a' failed (AttributeDoesNotExist)",
            ),
        ],
    )
    def test_the_error_names_property_and_expression_of_a_failed_map(
        self, world: World, stream_maps: dict[str, Any], what: str
    ) -> None:
        world.fill([contact(1, JUNE, phone="s3cret", name="s3cret")])

        run = world.sync(stream_maps=stream_maps)

        assert str(run.error).startswith(f"The stream map {what}")
        assert "s3cret" not in str(run.error)
        assert run.states == []


class TestBatch:
    """With `batch_config`, contacts are in files that BATCH messages list."""

    def sync(self, world: World, folder: Path, batch_size: float = 10, **settings: Any) -> Run:
        batch_config = {
            "encoding": {"format": "jsonl", "compression": "gzip"},
            "storage": {"root": folder.as_uri()},
            "batch_size": batch_size,
        }
        return world.sync(batch_config=batch_config, **settings)

    def read(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            json.loads(line)
            for url in message["manifest"]
            for line in gzip.open(url2pathname(urlsplit(url).path), "rt", encoding="utf-8")
        ]

    def test_files_of_the_batch_size_hold_the_records_of_a_window_before_its_state(
        self, world: World, tmp_path: Path
    ) -> None:
        world.fill(contacts_every(HOUR, JUNE, JUNE + DAY + HOUR))
        bounds: dict[str, Any] = {"end_date": "2024-06-03T00:00:00Z", "window_days": 1}

        run = self.sync(world, tmp_path, **bounds)

        files = [self.read(batch) for batch in run.of_type("BATCH")]
        assert [record for file in files for record in file] == world.sync(**bounds).records
        assert [len(file) for file in files] == [10, 10, 5, 2]
        assert [message["type"] for message in run.messages] == [
            "SCHEMA", "BATCH", "BATCH", "BATCH", "STATE", "BATCH", "STATE",
        ]  # fmt: skip

    def test_the_batch_size_may_be_written_with_a_fraction_of_zero(
        self, world: World, tmp_path: Path
    ) -> None:
        world.fill(contacts_every(HOUR, JUNE, JUNE + DAY / 2))

        run = self.sync(world, tmp_path, end_date="2024-06-02T00:00:00Z", batch_size=10.0)

        assert [len(self.read(batch)) for batch in run.of_type("BATCH")] == [10, 3]

    def test_a_failed_window_does_not_move_the_bookmark(self, world: World, tmp_path: Path) -> None:
        world.fill(contacts_every(HOUR, JUNE + HOUR, JUNE + 4 * DAY))
        world.simulator.faults.add("create", BROKEN, after=1)

        run = self.sync(world, tmp_path, window_days=1)

        assert run.error is not None
        assert run.bookmarks == ["2024-06-02T00:00:00+00:00"]

    def test_stream_maps_and_selection_apply_to_files(self, world: World, tmp_path: Path) -> None:
        world.fill([contact(1, JUNE, email="a@b.c", phone="1", name="Ann")])
        catalog = world.tap().catalog_dict
        metadata(catalog, "properties", "name")["selected"] = False
        stream_map = {"email": "md5(email)", "phone": "__NULL__"}

        run = self.sync(world, tmp_path, catalog=catalog, stream_maps={"contacts": stream_map})

        (record,) = self.read(run.of_type("BATCH")[0])
        assert record["email"] == "5d60d4e28066df254d5452f92c910092"
        assert not {"phone", "name"} & set(record)

    @pytest.mark.parametrize("compression", [{"compression": "none"}, {}])
    def test_files_are_plain_unless_gzip_is_set(
        self, world: World, tmp_path: Path, compression: dict[str, str]
    ) -> None:
        world.fill([contact(1, JUNE, email="a@b.c")])
        encoding, storage = {"format": "jsonl", **compression}, {"root": tmp_path.as_uri()}

        world.sync(batch_config={"encoding": encoding, "storage": storage})

        (path,) = tmp_path.iterdir()
        assert json.loads(path.read_text("utf-8"))["email"] == "a@b.c"

    @pytest.mark.parametrize("root", ["taken", "foo://bucket"])
    @pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
    def test_a_file_that_cannot_be_written_names_the_setting(
        self, world: World, tmp_path: Path, root: str, file_format: str
    ) -> None:
        world.fill([contact(1, JUNE)])
        (tmp_path / "taken").touch()
        root = (tmp_path / root).as_uri() if root == "taken" else root

        encoding = {"format": file_format}

        run = world.sync(batch_config={"encoding": encoding, "storage": {"root": root}})

        assert str(run.error).startswith("A batch file could not be written: ")
        assert str(run.error).endswith("; check the setting 'batch_config'.")

    def test_maps_that_make_several_streams_are_rejected(
        self, world: World, tmp_path: Path
    ) -> None:
        maps = {"contacts": {"id": "id"}, "copy": {"__source__": "contacts", "id": "id"}}

        run = self.sync(world, tmp_path, stream_maps=maps)

        assert str(run.error).startswith("Batch files hold one stream")
        assert world.simulator.requests == []


class TestLog:
    """The log of a run."""

    def test_info_has_the_range_a_line_for_each_window_and_the_end(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.fill(contacts_every(HOUR, JUNE, JUNE + DAY), timezone="America/New_York")
        caplog.set_level("INFO")

        world.sync(window_days=1, end_date="2024-06-02T00:00:00Z")

        lines = [record.getMessage() for record in caplog.records if record.name == "tap-cometly"]
        assert lines[-4].startswith("Contacts created from 2024-05-31 20:00:00 to 2024-06-01 20:0")
        assert lines[-3].startswith("2024-05-31 20:00:00 to 2024-06-01 00:00:00 |         5 conta")
        assert lines[-2].startswith("2024-06-01 00:00:00 to 2024-06-01 20:00:00 |        21 conta")
        assert lines[-1].startswith("Complete: 26 contacts in ")

    def test_debug_has_the_metrics_of_the_sdk(
        self, world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.fill(contacts_every(HOUR, JUNE + HOUR / 2, JUNE + 2 * DAY))
        monkeypatch.setenv("TAP_COMETLY_LOGLEVEL", "DEBUG")
        caplog.set_level("DEBUG")

        world.sync()

        points = [json.loads(m[8:]) for m in caplog.messages if m.startswith("METRIC: ")]
        assert {point["metric"]: point["value"] for point in points}["record_count"] == 48
