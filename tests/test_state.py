"""The bookmark: reading a state, moving the bookmark, and FULL_TABLE."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from simulator import Population
from tap_cometly.errors import SettingError, TapError
from tap_cometly.times import format_utc
from tests.conftest import DAY, HOUR, JUNE, NOON, contact, contacts_every

if TYPE_CHECKING:
    from tests.conftest import World

JUNE_20 = datetime.fromisoformat("2024-06-20T00:00:00+00:00")
STATE: dict[str, Any] = {
    "bookmarks": {
        "contacts": {
            "replication_key": "created_until",
            "replication_key_value": "2024-06-20T00:00:00+00:00",
        }
    }
}

SHAPES: list[object] = [{"a": 1}, [{"context": {"a": 1}}], [], {}, None, 5]


def state_at(bookmark: object, **more: object) -> dict[str, Any]:
    stream = {"replication_key": "created_until", "replication_key_value": bookmark, **more}
    return {"bookmarks": {"contacts": stream}}


def start_of(world: World, state: dict[str, Any]) -> datetime:
    """Where a run without lookback starts."""
    run = world.sync(state, lookback_days=0, end_date="2024-06-21T00:00:00Z")
    assert run.error is None
    return world.windows()[0][0]


# Reading a state.


@pytest.mark.parametrize(
    "bookmark",
    ["2024-06-20T00:00:00Z", "2024-06-20", "2024-06-20T02:00:00+02:00", "20240620T000000"],
)
def test_a_bookmark_may_be_any_iso_8601_date(world: World, bookmark: str) -> None:
    world.fill([], timezone="America/New_York")

    assert start_of(world, state_at(bookmark)) == JUNE_20


@pytest.mark.parametrize(
    "bookmark", ["yesterday", "P1D", 17, True, ["2024-06-20"], "2024-06", "", {}]
)
def test_an_invalid_bookmark_is_rejected_before_output_and_requests(
    world: World, bookmark: object
) -> None:
    run = world.sync(state_at(bookmark))

    assert isinstance(run.error, SettingError)
    assert str(run.error) == (
        f"The state's bookmark 'replication_key_value' is invalid: {str(bookmark)!r}; it must be "
        "an ISO 8601 date-time like 2024-01-15T00:00:00+00:00, or null."
    )
    assert (run.output, world.simulator.requests) == (b"", [])


@pytest.mark.parametrize(
    "state",
    [
        {"singer_state": STATE},
        {**STATE, "currently_syncing": "contacts"},
        {"bookmarks": {**STATE["bookmarks"], "deals": 5, "leads": None}},
        *(state_at("2024-06-20", partitions=shape) for shape in SHAPES),
        *(state_at("2024-06-20", progress_markers=shape) for shape in SHAPES),
        state_at("2024-06-20", starting_replication_value="2024-06-25", more=[{}]),
        {"bookmarks": {"contacts": {"replication_key_value": "2024-06-20"}}},
        state_at("2024-06-20", replication_key=None),
    ],
    ids=repr,
)
def test_other_keys_in_a_state_are_ignored(world: World, state: dict[str, Any]) -> None:
    assert start_of(world, state) == JUNE_20


def test_bookmarks_of_other_streams_are_kept(world: World) -> None:
    state = {"bookmarks": {**STATE["bookmarks"], "deals": {"x": 1}}}

    run = world.sync(state)

    assert run.states[-1]["bookmarks"]["deals"] == {"x": 1}


@pytest.mark.parametrize(
    ("state", "warning"),
    [
        ({}, None),
        ({"singer_state": {}}, None),
        ({"bookmarks": {}}, None),
        (state_at(None), None),
        ({"bookmarks": {"deals": {}}}, "The state has no bookmark for 'contacts'; starting from "),
        (
            state_at("2024-06-20", replication_key="updated_at"),
            "The state's bookmark is for the replication key 'updated_at', not 'created_until'; ",
        ),
    ],
)
def test_a_state_without_a_bookmark_starts_at_start_date(
    world: World, caplog: pytest.LogCaptureFixture, state: dict[str, Any], warning: str | None
) -> None:
    assert start_of(world, state) == JUNE
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == (warning is not None)
    assert not warnings or warnings[0].startswith(str(warning))


@pytest.mark.parametrize(
    "state",
    [
        {"type": "STATE", "value": STATE},
        {"value": STATE},
        {"bookmark": {}},
        {"bookmarks": []},
        {"bookmarks": None},
        {"bookmarks": {"contacts": "2024-06-20"}},
        {"singer_state": STATE, "completed": True},
        {"singer_state": "x"},
        {"singer_state": {"contacts": {}}},
    ],
    ids=repr,
)
def test_an_invalid_state_is_rejected_before_output_and_requests(
    world: World, state: dict[str, Any]
) -> None:
    run = world.sync(state)

    assert isinstance(run.error, TapError)
    assert str(run.error).startswith("The --state file is not a Singer state; ")
    assert (run.output, world.simulator.requests) == (b"", [])


@pytest.mark.parametrize("settings", [{}, {"lookback_days": -1}], ids=["valid", "rejected"])
def test_a_bookmark_in_the_future_logs_a_warning(
    world: World, caplog: pytest.LogCaptureFixture, settings: dict[str, Any]
) -> None:
    world.sync(state_at(format_utc(NOON + DAY)), **settings)

    warning = "The bookmark is in the future: 2024-07-02T12:00:00+00:00"
    assert caplog.messages.count(warning) == 1


# Starting from a bookmark.


def test_a_run_starts_a_lookback_before_its_bookmark(world: World) -> None:
    world.sync(state_at("2024-06-20T10:00:00+00:00"), end_date="2024-06-21T00:00:00Z")

    assert world.windows()[0][0] == JUNE_20 - DAY


@pytest.mark.parametrize(
    ("lookback_days", "found"), [(0, set()), (1, {4}), (2, {3, 4}), (30, {1, 2, 3, 4})]
)
def test_late_and_changed_contacts_are_found_if_created_within_the_lookback(
    world: World, lookback_days: float, found: set[int]
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
    ("state", "reason"),
    [(STATE, "bookmark"), (state_at("2024-06-01T00:00:00Z"), "start_date"), (None, "start_date")],
)
def test_with_nothing_to_sync_no_request_is_made_and_the_state_is_kept(
    world: World, caplog: pytest.LogCaptureFixture, state: dict[str, Any] | None, reason: str
) -> None:
    caplog.set_level("INFO")

    run = world.sync(state, start_date="2024-06-20", end_date="2024-06-20")

    assert (run.error, run.states, world.simulator.requests) == (None, [state] if state else [], [])
    assert caplog.messages[-1].startswith(
        f"Nothing to sync: the {reason} (2024-06-20T00:00:00+00:00)"
    )


# Moving the bookmark.


def test_the_bookmark_moves_to_the_end_of_each_window_even_if_it_is_empty(world: World) -> None:
    run = world.sync(window_days=14.5)

    assert run.states == [
        state_at(format_utc(end))
        for end in (JUNE + 14 * DAY, JUNE + 28 * DAY, NOON - timedelta(minutes=5))
    ]


def test_the_lookback_does_not_move_the_bookmark_back(world: World) -> None:
    run = world.sync(STATE, lookback_days=3, window_days=1, end_date="2024-06-21T00:00:00Z")

    kept = STATE["bookmarks"]["contacts"]["replication_key_value"]
    assert run.bookmarks == [kept] * 4 + ["2024-06-21T00:00:00+00:00"]


def test_bookmarks_are_compared_as_instants(world: World) -> None:
    later_text = state_at("2024-06-20T02:30:00+02:00")

    run = world.sync(later_text, lookback_days=0, end_date="2024-06-20T01:00:00Z")

    assert run.bookmarks[-1] == "2024-06-20T01:00:00+00:00"


# FULL_TABLE.


def full_table(world: World) -> dict[str, Any]:
    catalog: dict[str, Any] = world.tap().catalog_dict
    catalog["streams"][0]["replication_method"] = "FULL_TABLE"
    return catalog


def test_full_table_starts_at_start_date_and_does_not_change_the_bookmark(world: World) -> None:
    world.fill(contacts_every(DAY, JUNE + HOUR, NOON))
    given = state_at("2024-06-20T02:00:00+02:00")

    run = world.sync(given, full_table(world))

    assert world.windows()[0][0] == JUNE
    assert run.states == [given, given]
    assert (run.messages[0]["type"], run.messages[-1]["type"]) == ("STATE", "STATE")


def test_full_table_without_a_state_writes_none(world: World) -> None:
    run = world.sync(None, full_table(world))

    assert (run.error, run.states) == (None, [])


def test_full_table_does_not_read_a_bad_bookmark(world: World) -> None:
    assert world.sync(state_at("garbage"), full_table(world)).error is None


def test_full_table_finds_late_and_changed_contacts_and_misses_deleted_ones(world: World) -> None:
    world.fill([contact(1, JUNE + DAY, name="old"), contact(3, NOON - HOUR)])
    state = world.sync().states[-1]
    world.space.population = Population(
        [contact(1, JUNE + DAY, name="new"), contact(2, JUNE + DAY, name="late")]
    )

    run = world.sync(state, full_table(world))

    assert {record["id"]: record["name"] for record in run.records} == {1: "new", 2: "late"}
    assert {message["type"] for message in run.messages} == {"SCHEMA", "RECORD", "STATE"}
