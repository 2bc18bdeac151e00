"""`meltano run` into databases whose loaders update rows by key."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from simulator.faults import Stall
from tests.conftest import contact
from tests.e2e.conftest import (
    FIRST_END,
    LOOKED_BACK_TO,
    SECOND_END,
    START,
    at,
)
from tests.e2e.rows import expected, loaded, until

if TYPE_CHECKING:
    from simulator import Contact, Simulator
    from tests.e2e.destinations import Destination
    from tests.e2e.project import MeltanoProject

NEW = contact(910_001, at("2024-06-11T10:00:00Z"), name="new")
LATE = contact(910_002, at("2024-06-09T10:00:00Z"), name="late, but inside the lookback")
CHANGED = contact(910_003, at("2024-06-09T11:00:00Z"), name="changed inside the lookback")
CHANGED_LONG_AGO = contact(910_004, at("2024-06-05T11:00:00Z"), name="changed long ago")
BEFORE = [
    contact(910_003, CHANGED.created_at, name="as it was", email="3@example.com"),
    contact(910_004, CHANGED_LONG_AGO.created_at, name="as it was", email="4@example.com"),
]
HASH_SEED = "salt"


@pytest.fixture
def people(people: list[Contact]) -> list[Contact]:
    """All contacts, with two that will change."""
    return [*people, *BEFORE]


@pytest.fixture
def loading(project: MeltanoProject, destination: Destination) -> MeltanoProject:
    """The project with the settings of the database's loader."""
    project.settings |= destination.settings
    return project


def test_the_first_run_loads_every_field_of_every_contact(
    loading: MeltanoProject, destination: Destination, people: list[Contact]
) -> None:
    loading.run(
        destination.loader,
        TAP_COMETLY_INCLUDE_ALL_EMAILS="true",
        TAP_COMETLY_INCLUDE_COMET_TOKENS="true",
    )

    rows = loaded(destination)
    assert rows == expected(destination, until(FIRST_END, people), "emails", "comet_tokens")
    assert {type(row["id"]) for row in rows} == {int}
    assert {name: destination.column_types()[name] for name in destination.types} == (
        destination.types
    )


def test_the_windows_are_in_utc_and_contain_their_contacts(
    loading: MeltanoProject, destination: Destination, people: list[Contact]
) -> None:
    loading.run(destination.loader)

    rows = destination.rows()
    created = {one.id: one.created_at for one in people}
    assert min(row["created_from"] for row in rows) == START
    assert max(row["created_until"] for row in rows) == FIRST_END
    outside = [
        row
        for row in rows
        if not at(row["created_from"]) <= created[row["id"]] <= at(row["created_until"])
    ]
    assert outside == []


def test_the_second_run_updates_the_lookback_and_adds_new_contacts(
    loading: MeltanoProject, destination: Destination, space: Simulator, people: list[Contact]
) -> None:
    loading.run(destination.loader)
    assert loading.bookmark(destination.loader) == FIRST_END

    space.space.add([NEW, LATE, CHANGED, CHANGED_LONG_AGO])
    space.requests.clear()
    loading.run(destination.loader, TAP_COMETLY_END_DATE=SECOND_END)

    [first, *_] = [request.start for request in space.requests if request.kind == "create"]
    now = {one.id: one for one in [*people, NEW, LATE, CHANGED]}  # without CHANGED_LONG_AGO
    assert first == at(LOOKED_BACK_TO)
    assert loaded(destination) == expected(destination, list(now.values()))
    assert loading.bookmark(destination.loader) == SECOND_END


def test_a_full_refresh_loads_changes_of_any_age(
    loading: MeltanoProject, destination: Destination, space: Simulator, people: list[Contact]
) -> None:
    loading.run(destination.loader)
    space.space.add([LATE, CHANGED, CHANGED_LONG_AGO])

    loading.run(destination.loader, "--full-refresh")

    now = {one.id: one for one in [*people, LATE, CHANGED, CHANGED_LONG_AGO]}
    assert loaded(destination) == expected(destination, until(FIRST_END, list(now.values())))
    assert loading.bookmark(destination.loader) == FIRST_END


def test_the_run_after_a_killed_run_loads_the_missing_contacts(
    loading: MeltanoProject, destination: Destination, space: Simulator, people: list[Contact]
) -> None:
    space.faults.add("download", Stall(at=100), after=2)
    with loading.running(destination.loader, TAP_COMETLY_WINDOW_DAYS="1") as run:
        space.wait_for_requests("download", 3, timeout=60)
        assert run.kill_tap() != 0

    loading.run(destination.loader, TAP_COMETLY_WINDOW_DAYS="1")

    assert loaded(destination) == expected(destination, until(FIRST_END, people))
    assert loading.bookmark(destination.loader) == FIRST_END


def test_a_deselected_field_has_no_column(
    loading: MeltanoProject, destination: Destination
) -> None:
    loading.edit_extractor(select=["*.*", "!contacts.phone"])

    loading.run(destination.loader)

    columns = destination.column_types()
    assert "phone" not in columns
    assert "email" in columns


def test_a_stream_map_hashes_and_removes_personal_data(
    loading: MeltanoProject, destination: Destination, people: list[Contact]
) -> None:
    loading.edit_extractor(
        config={
            "stream_maps": {
                "contacts": {
                    "email": "sha256(config['seed'] + email) if email else None",
                    "phone": "__NULL__",  # Meltano removes a null
                }
            },
            "stream_map_config": {"seed": HASH_SEED},
        }
    )

    loading.run(destination.loader)

    rows = expected(destination, until(FIRST_END, people))
    for row in rows:
        del row["phone"]
        email = row["email"]
        row["email"] = hashlib.sha256(f"{HASH_SEED}{email}".encode()).hexdigest() if email else None
    assert loaded(destination) == rows


def test_a_field_enabled_later_becomes_a_column(
    loading: MeltanoProject, destination: Destination, people: list[Contact]
) -> None:
    loading.run(destination.loader)

    loading.run(
        destination.loader,
        TAP_COMETLY_END_DATE=SECOND_END,
        TAP_COMETLY_INCLUDE_ALL_EMAILS="true",
    )

    rows = expected(destination, people, "emails")
    exported_again = {one.id for one in people if one.created_at >= at(LOOKED_BACK_TO)}
    for row in rows:
        if row["id"] not in exported_again:
            row["emails"] = None
    assert loaded(destination) == rows
