"""The tap and a target without Meltano: a pipe, and the state in a file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.conftest import contact
from tests.e2e.conftest import SECOND_END, at
from tests.e2e.pipes import pipe
from tests.e2e.rows import expected, loaded

if TYPE_CHECKING:
    from simulator import Contact, Simulator
    from tests.e2e.destinations import Postgres
    from tests.e2e.project import MeltanoProject

CHANGED = contact(6, at("2024-06-09T11:00:00Z"), name="changed", email="6@example.com")


def test_the_second_pipe_continues_from_the_bookmark_of_the_first(
    project: MeltanoProject, postgres: Postgres, space: Simulator, people: list[Contact]
) -> None:
    space.space.add([contact(CHANGED.id, CHANGED.created_at, name="as it was")])
    pipe(project, postgres)
    space.space.add([CHANGED])
    project.settings["TAP_COMETLY_END_DATE"] = SECOND_END
    pipe(project, postgres)

    now = list({one.id: one for one in [*people, CHANGED]}.values())
    state = json.loads((project.folder / "state.json").read_text("utf-8"))
    assert loaded(postgres) == expected(postgres, now)
    assert state["bookmarks"]["contacts"]["replication_key_value"] == SECOND_END
