"""Targets that are not in meltano.yml: the table in docs/targets.md."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.conftest import contact
from tests.e2e.conftest import SECOND_END, at, instant_space
from tests.e2e.installed import ProgramFailed
from tests.e2e.rows import fields
from tests.e2e.targets import PAGE, Csv, PipedTarget, PipelinewisePostgres, Sqlite

if TYPE_CHECKING:
    from pathlib import Path

    from simulator import Contact, Simulator
    from tests.e2e.destinations import Postgres
    from tests.e2e.project import MeltanoProject

BEFORE = contact(910_003, at("2024-06-09T11:00:00Z"), name="as it was", email="3@example.com")
CHANGED = contact(BEFORE.id, BEFORE.created_at, name="changed", emails=["4@example.com"])
NEW = contact(910_001, at("2024-06-11T10:00:00Z"), name="new")
ID_TYPES = {"postgres": "bigint", "sqlite": "BIGINT"}


@pytest.fixture
def people(people: list[Contact]) -> list[Contact]:
    """All contacts, with one that will change."""
    return [*people, BEFORE]


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> PipedTarget:
    """The target of this name."""
    folder = tmp_path / "target"
    folder.mkdir()
    if request.param == "postgres":
        postgres: Postgres = request.getfixturevalue("postgres")
        return PipelinewisePostgres(folder, postgres)
    return Sqlite(folder) if request.param == "sqlite" else Csv(folder)


def sync(project: MeltanoProject, target: PipedTarget) -> str | None:
    """Run `tap-cometly --state state.json | target`; return the bookmark that the target prints."""
    project.settings |= {
        "TAP_COMETLY_INCLUDE_ALL_EMAILS": "true",
        "TAP_COMETLY_STREAM_MAPS": json.dumps(target.stream_maps()),
    }
    state = project.folder / "state.json"
    messages = project.tap(*(["--state", str(state)] if state.exists() else [])).stdout
    state.write_text(target.load(messages), "utf-8")
    contacts = json.loads(state.read_text("utf-8"))["bookmarks"]["contacts"]
    bookmark: str | None = contacts["replication_key_value"]
    return bookmark


@pytest.mark.parametrize("target", [*ID_TYPES, "csv"], indirect=True)
def test_two_runs_load_every_field_of_every_contact(
    project: MeltanoProject, space: Simulator, people: list[Contact], target: PipedTarget
) -> None:
    sync(project, target)
    space.space.add([NEW, CHANGED])
    project.settings["TAP_COMETLY_END_DATE"] = SECOND_END
    bookmark = sync(project, target)

    now = {one.id: one for one in [*people, NEW, CHANGED]}
    names = fields(NEW, "emails")
    rows = [{name: row[name] for name in names} for row in target.rows()]
    assert rows == [
        {name: target.as_stored(value) for name, value in fields(now[number], "emails").items()}
        for number in sorted(now)
    ]
    assert bookmark == SECOND_END


@pytest.mark.parametrize("target", ID_TYPES, indirect=True)
def test_the_id_column_has_the_type_on_the_page(
    project: MeltanoProject, target: PipelinewisePostgres | Sqlite, request: pytest.FixtureRequest
) -> None:
    sync(project, target)

    kind = request.node.callspec.params["target"]
    name = target.requirement.replace("==", " ")
    [line] = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith(f"| {name}")]
    assert target.id_type() == ID_TYPES[kind]
    assert target.id_type().lower() in line


def test_without_the_map_a_nul_in_an_array_fails_the_load(
    project: MeltanoProject, space: Simulator, postgres: Postgres, tmp_path: Path
) -> None:
    odd = contact(1, at("2024-06-02T10:00:00Z"), emails=["a\0@example.com"])
    space.reset(instant_space([odd]))
    project.settings["TAP_COMETLY_INCLUDE_ALL_EMAILS"] = "true"
    target = PipelinewisePostgres(tmp_path, postgres)

    with pytest.raises(ProgramFailed, match=r"unsupported Unicode escape sequence"):
        target.load(project.tap().stdout)
