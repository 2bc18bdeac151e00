"""The SQL, the Containerfile and the state backends in docs/deployment.md."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib.metadata import PathDistribution
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from tests.conftest import contact
from tests.e2e.conftest import FIRST_END, LOOKED_BACK_TO, SECOND_END, ZONE, at
from tests.e2e.installed import CHECKOUT, clean_environment, environment, meltano, run
from tests.e2e.pipes import pipe
from tests.e2e.project import MeltanoProject
from tests.e2e.recipes import blocks, sections

if TYPE_CHECKING:
    from pathlib import Path

    from simulator import Contact, Simulator
    from tests.e2e.destinations import Destination, Postgres
    from tests.e2e.s3 import S3Server

PAGE = CHECKOUT / "docs" / "deployment.md"
DOCKERFILE_PARSE = "dockerfile-parse==2.0.1"
BEFORE = contact(910_003, at("2024-06-09T11:00:00Z"), name="as it was", email="3@example.com")
CHANGED = contact(BEFORE.id, BEFORE.created_at, name="changed")


def sql(section: str) -> str:
    """The SQL of a section of the page."""
    [text] = [text for kind, text in blocks(PAGE, section) if kind == "sql"]
    return text


@pytest.fixture(params=["postgres", "duckdb"])
def appended(
    request: pytest.FixtureRequest, project: MeltanoProject, space: Simulator
) -> Destination:
    """A database after two runs that only append, so some contacts have two rows."""
    database: Destination = request.getfixturevalue(request.param)
    space.space.add([BEFORE])
    project.settings["TAP_COMETLY_WINDOW_DAYS"] = "1"
    pipe(project, database, primary_key=False)
    space.space.add([CHANGED])
    project.settings["TAP_COMETLY_END_DATE"] = SECOND_END
    pipe(project, database, primary_key=False)
    return database


def test_the_view_has_the_last_row_of_each_contact_and_its_day_in_the_spaces_zone(
    appended: Destination, people: list[Contact]
) -> None:
    appended.query(sql("One row for each contact"))

    rows = appended.query("select id, name, created_day from tap_cometly.latest_contacts")
    now = {one.id: one for one in [*people, CHANGED]}
    zone = ZoneInfo(ZONE)
    assert {row["id"]: (row["name"], row["created_day"]) for row in rows} == {
        one.id: (
            appended.as_stored(one.name) if one.name is not None else None,
            str(one.created_at.astimezone(zone).date()),
        )
        for one in now.values()
    }
    assert len(rows) == len(now)


def test_without_the_view_contacts_in_the_lookback_are_duplicated(
    appended: Destination, people: list[Contact]
) -> None:
    count = Counter(row["id"] for row in appended.query("select id from tap_cometly.contacts"))

    twice = [one for one in people if LOOKED_BACK_TO < one.created_at.isoformat() < FIRST_END]
    assert twice
    assert {count[one.id] for one in twice} == {2}


@pytest.mark.parametrize("kind", ["postgres", "duckdb"])
def test_the_alert_detects_stale_contacts(
    project: MeltanoProject, kind: str, request: pytest.FixtureRequest
) -> None:
    database: Destination = request.getfixturevalue(kind)
    pipe(project, database)
    assert database.query(sql("Alerts")) == [{"stale": True}]

    database.query("update tap_cometly.contacts set created_until = now() at time zone 'UTC'")

    assert database.query(sql("Alerts")) == [{"stale": False}]


def test_the_containerfile_can_be_parsed(tmp_path: Path) -> None:
    [(_, text)] = [block for block in blocks(PAGE, "Container") if block[0] == "dockerfile"]
    (tmp_path / "Dockerfile").write_text(text, "utf-8")
    code = (
        "import json; from dockerfile_parse import DockerfileParser; "
        "print(json.dumps([part['instruction'] for part in DockerfileParser('.').structure]))"
    )
    python = environment("dockerfile-parse", DOCKERFILE_PARSE) / "bin" / "python"

    printed = run([python, "-W", "ignore", "-c", code], cwd=tmp_path, env=clean_environment())

    known = {"ARG", "CMD", "COMMENT", "COPY", "ENTRYPOINT", "ENV", "FROM", "RUN", "USER", "WORKDIR"}
    instructions = json.loads(printed.stdout)
    assert set(instructions) == known
    assert len(text.splitlines()) <= 22


def test_meltano_has_the_extras_that_the_page_names() -> None:
    [metadata] = (meltano().parents[1]).glob("lib/python*/site-packages/meltano-*.dist-info")
    extras = PathDistribution(metadata).metadata.get_all("Provides-Extra") or []

    named = set(re.findall(r"meltano\[(\w+)\]", PAGE.read_text("utf-8")))
    assert named == {"azure", "gcs", "postgres", "s3"}
    assert named <= set(extras)


def backend(variable: str, scheme: str) -> str:
    """The location of a state backend on the page."""
    [location] = re.findall(rf"`{variable}=({scheme}:[^`]+)`", sections(PAGE)["State"])
    return str(location)


def bookmark_on_another_machine(folder: Path, project: MeltanoProject) -> str | None:
    """Run in one project; return the bookmark in another project with the same settings."""
    project.run("target-jsonl")
    return MeltanoProject(folder, **project.settings).bookmark("target-jsonl")


def test_the_state_can_be_stored_in_postgresql(
    project: MeltanoProject, postgres: Postgres, tmp_path: Path
) -> None:
    location = backend("MELTANO_DATABASE_URI", r"postgresql\+psycopg")
    scheme = location.partition("://")[0]
    uri = postgres.location.replace("postgresql", scheme, 1)
    project.settings["MELTANO_DATABASE_URI"] = uri

    assert bookmark_on_another_machine(tmp_path / "other", project) == FIRST_END


def test_the_state_can_be_stored_in_emulated_s3(
    project: MeltanoProject, s3_server: S3Server, tmp_path: Path
) -> None:
    s3_server.make_bucket("cometly-state")
    location = backend("MELTANO_STATE_BACKEND_URI", "s3")
    project.settings |= s3_server.settings | {
        "MELTANO_STATE_BACKEND_URI": location.replace("//bucket/", "//cometly-state/"),
        "MELTANO_STATE_BACKEND_S3_ENDPOINT_URL": s3_server.url,
    }

    assert bookmark_on_another_machine(tmp_path / "other", project) == FIRST_END
