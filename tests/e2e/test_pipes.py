"""Without Meltano: the tap and a target in a plain pipe, the state in a file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.conftest import contact
from tests.e2e.conftest import SECOND_END, at
from tests.e2e.installed import plugin_program, run
from tests.e2e.rows import expected, loaded

if TYPE_CHECKING:
    from simulator import Contact, Simulator
    from tests.e2e.destinations import Postgres
    from tests.e2e.project import MeltanoProject

CHANGED = contact(6, at("2024-06-09T11:00:00Z"), name="changed", email="6@example.com")
TARGET = "target-postgres"


@pytest.fixture
def piping(project: MeltanoProject, postgres: Postgres) -> MeltanoProject:
    """A folder for config and state, with the settings of tap and target."""
    project.settings |= postgres.settings | {
        "TARGET_POSTGRES_DEFAULT_TARGET_SCHEMA": "tap_cometly",
        "TARGET_POSTGRES_SANITIZE_NULL_TEXT_CHARACTERS": "true",
    }
    return project


def pipe(piping: MeltanoProject, *, primary_key: bool = True) -> None:
    """Do `tap-cometly --state state.json | target-postgres >> state.jsonl`.

    Args:
        piping: Where.
        primary_key: Whether the target is told that contacts have one.
    """
    state = piping.folder / "state.json"
    messages = piping.tap(*(["--state", str(state)] if state.exists() else [])).stdout
    if not primary_key:
        messages = messages.replace('"key_properties":["id"]', '"key_properties":[]')
        assert '"key_properties":[]' in messages
    target = [plugin_program(TARGET, TARGET), "--config=ENV"]
    states = run(target, cwd=piping.folder, env=piping.environment, stdin=messages).stdout
    state.write_text(states.splitlines()[-1], "utf-8")


def sync_twice(
    piping: MeltanoProject, space: Simulator, people: list[Contact], *, primary_key: bool = True
) -> list[Contact]:
    """Sync, change a contact, and sync again up to a later end.

    Args:
        piping: Where.
        space: Its Space.
        people: Who is in it at first.
        primary_key: Whether the target is told that contacts have one.

    Returns:
        Who is in the Space then.
    """
    before = contact(CHANGED.id, CHANGED.created_at, name="as it was")
    space.space.add([before])
    pipe(piping, primary_key=primary_key)
    space.space.add([CHANGED])
    piping.settings["TAP_COMETLY_END_DATE"] = SECOND_END
    pipe(piping, primary_key=primary_key)
    return list({one.id: one for one in [*people, CHANGED]}.values())


def test_second_pipe_goes_on_where_the_first_one_ended(
    piping: MeltanoProject, postgres: Postgres, space: Simulator, people: list[Contact]
) -> None:
    now = sync_twice(piping, space, people)

    state = json.loads((piping.folder / "state.json").read_text("utf-8"))
    assert loaded(postgres) == expected(postgres, now)
    assert state["bookmarks"]["contacts"]["replication_key_value"] == SECOND_END


def test_control_without_a_key_contacts_come_twice_and_that_is_seen(
    piping: MeltanoProject, postgres: Postgres, space: Simulator, people: list[Contact]
) -> None:
    now = sync_twice(piping, space, people, primary_key=False)

    rows = loaded(postgres)
    assert rows != expected(postgres, now)
    assert {row["id"] for row in rows} == {one.id for one in now}
    assert len(rows) > len(now)
