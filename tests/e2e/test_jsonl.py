"""target-jsonl, which only appends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.conftest import contact
from tests.e2e.conftest import SECOND_END, at
from tests.e2e.installed import plugin_program, run
from tests.e2e.rows import fields

if TYPE_CHECKING:
    from pathlib import Path

    from simulator import Contact, Simulator
    from tests.e2e.project import MeltanoProject

CHANGED = contact(910_001, at("2024-06-09T11:00:00Z"), name="changed", email="1@example.com")
BEFORE = contact(CHANGED.id, CHANGED.created_at, name="as it was")
LOADER = "target-jsonl"


def test_the_last_line_of_an_id_is_the_current_contact(
    project: MeltanoProject, space: Simulator, people: list[Contact]
) -> None:
    space.space.add([BEFORE])
    project.run(LOADER)
    space.space.add([CHANGED])

    project.run(LOADER, TAP_COMETLY_END_DATE=SECOND_END)

    lines = read(project.folder / "output" / "contacts.jsonl")
    versions = [line["name"] for line in lines if line["id"] == CHANGED.id]
    now = {one.id: fields(one) for one in [*people, CHANGED]}
    assert {line["id"]: without_window(line) for line in lines} == now
    assert versions == [BEFORE.name, CHANGED.name]
    assert project.bookmark(LOADER) == SECOND_END


def test_the_bookmark_survives_a_full_table_run(project: MeltanoProject) -> None:
    state = {"bookmarks": {"contacts": {"replication_key_value": "2024-06-05T04:00:00+00:00"}}}
    catalog = json.loads(project.tap("--discover").stdout)
    for entry in catalog["streams"][0]["metadata"]:
        if not entry["breadcrumb"]:
            entry["metadata"]["replication-method"] = "FULL_TABLE"
    for name, content in {"state": state, "catalog": catalog}.items():
        (project.folder / f"{name}.json").write_text(json.dumps(content), "utf-8")
    messages = project.tap("--state=state.json", "--catalog=catalog.json").stdout

    target = plugin_program(LOADER, LOADER)
    printed = run([target], cwd=project.folder, env=project.environment, stdin=messages).stdout

    [last] = printed.splitlines()
    contacts = json.loads(last)["bookmarks"]["contacts"]
    assert contacts["replication_key_value"] == "2024-06-05T04:00:00+00:00"


def read(file: Path) -> list[dict[str, Any]]:
    """The objects of a file."""
    with file.open(encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines]


def without_window(line: dict[str, Any]) -> dict[str, Any]:
    """A contact without its window."""
    return {name: value for name, value in line.items() if not name.startswith("created_")}
