"""The recipes in docs/ do what they say: their own commands, run against the simulated Space."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from simulator import Population, Simulator, Space
from tests.e2e.conftest import FIRST_END, ZONE, at
from tests.e2e.destinations import DuckDb
from tests.e2e.installed import CHECK_JSONSCHEMA, CHECKOUT, clean_environment, environment, run
from tests.e2e.recipes import RECIPES, bash, blocks, follow
from tests.e2e.rows import expected, loaded, until

if TYPE_CHECKING:
    from pathlib import Path

    from simulator import Contact
    from tests.e2e.destinations import EmulatedSnowflake, Postgres
    from tests.e2e.project import MeltanoProject

ORCHESTRATORS = RECIPES / "orchestrators"
AIRFLOW = "apache-airflow==3.3.2"
DAGSTER = "dagster==1.13.28"


@pytest.fixture
def project(project: MeltanoProject) -> MeltanoProject:
    """A project whose dates are in meltano.yml, where a recipe can change them."""
    for name in ("START_DATE", "END_DATE", "TIMEZONE"):
        del project.settings[f"TAP_COMETLY_{name}"]
    project.edit_extractor(
        config={"start_date": "2024-06-01", "end_date": FIRST_END, "timezone": ZONE}
    )
    return project


@pytest.fixture
def first(people: list[Contact]) -> list[Contact]:
    """Those who are loaded up to the end date."""
    return until(FIRST_END, people)


def test_the_readmes_first_use(project: MeltanoProject, first: list[Contact]) -> None:
    copy_example, *read_contacts = [
        text for kind, text in blocks(CHECKOUT / "README.md") if kind == "bash"
    ]
    shutil.copy(CHECKOUT / ".env.example", project.folder)
    key = project.settings.pop("TAP_COMETLY_API_KEY")

    bash(copy_example, project)
    with (project.folder / ".env").open("a") as settings:
        settings.write(f"TAP_COMETLY_API_KEY={key}\nTAP_COMETLY_TIMEZONE={ZONE}\n")
    *_, told = [bash(commands, project) for commands in read_contacts]

    database = DuckDb(project.folder / "output", "cometly.duckdb")
    assert loaded(database) == expected(database, first)
    assert "10 rows" in told


def test_postgres(project: MeltanoProject, postgres: Postgres, first: list[Contact]) -> None:
    [sql] = [text for kind, text in blocks(RECIPES / "postgres.md") if kind == "sql"]
    postgres.ask(sql)
    project.settings |= postgres.settings
    del project.settings["TARGET_POSTGRES_USER"]
    project.settings["TARGET_POSTGRES_PASSWORD"] = "CHANGE-ME"  # noqa: S105 - the recipe's

    follow("postgres", project)

    assert loaded(postgres) == expected(postgres, first)


def test_snowflake_emulated(
    project: MeltanoProject, snowflake: EmulatedSnowflake, first: list[Contact]
) -> None:
    key = snowflake.settings.pop("TARGET_SNOWFLAKE_PRIVATE_KEY_PATH")
    (project.folder / "snowflake.p8").symlink_to(key)
    project.settings["EMULATED_SNOWFLAKE"] = snowflake.settings["EMULATED_SNOWFLAKE"]

    follow("snowflake", project)

    assert loaded(snowflake) == expected(snowflake, first)


def test_duckdb(project: MeltanoProject, first: list[Contact]) -> None:
    (project.folder / "output").rmdir()

    *_, told = follow("duckdb", project)

    assert f"{len(first)} │" in told


def test_jsonl(project: MeltanoProject, first: list[Contact]) -> None:
    (project.folder / "output").rmdir()

    follow("jsonl", project)

    latest = (project.folder / "output" / "latest.jsonl").read_text("utf-8").split("\n")
    ids = [json.loads(line)["id"] for line in latest[:-1]]
    assert sorted(ids) == sorted(one.id for one in first)


def test_batch_files(project: MeltanoProject, postgres: Postgres, first: list[Contact]) -> None:
    project.settings |= postgres.settings

    follow("batch-files", project)

    assert loaded(postgres) == expected(postgres, first)
    assert list((project.folder / "batches").iterdir()) == []


def test_personal_data(project: MeltanoProject, postgres: Postgres, first: list[Contact]) -> None:
    project.settings |= postgres.settings

    follow("personal-data", project)

    [somebody, *_] = [one for one in first if one.email]
    assert somebody.email
    hashed = hashlib.sha256(f"CHANGE-ME{somebody.email.lower()}".encode()).hexdigest()
    [row] = [row for row in postgres.rows() if row["id"] == somebody.id]
    assert row["email"] == hashed
    assert "phone" not in row
    # The last block, which nothing is run after: a field that is left out.
    listed = project.meltano("select", "--list", "--all", "tap-cometly").stdout
    assert "[excluded   ] contacts.location" in listed
    assert "[selected   ] contacts.name" in listed


def test_many_spaces(
    project: MeltanoProject, postgres: Postgres, space: Simulator, first: list[Contact]
) -> None:
    others = Population.generate(50, seed=1, since=at("2024-06-01T00:00:00Z"), until=at(FIRST_END))
    berlin = Space(
        others,
        api_key="key-of-berlin",
        timezone="Europe/Berlin",
        queued_seconds=0,
        processing_seconds=0,
        creates_per_minute=None,
        polls_per_minute=None,
    )
    key = project.settings.pop("TAP_COMETLY_API_KEY")
    project.settings |= postgres.settings | {"TAP_COMETLY__NEW_YORK_API_KEY": key}
    with Simulator(berlin) as second:
        project.settings |= {
            "TAP_COMETLY__BERLIN_API_KEY": "key-of-berlin",
            "TAP_COMETLY__BERLIN_API_URL": second.api_url,
        }
        *_, told = follow("many-spaces", project)

    for city, people in (("berlin", list(others)), ("new_york", first)):
        [row] = postgres.ask(f"select count(*) as count from cometly_{city}.contacts")  # noqa: S608
        assert row["count"] == len(people)
    assert space.requests
    assert "dev:tap-cometly--berlin-to-target-postgres" in told
    assert told.count(FIRST_END) == 2


def test_schedules(project: MeltanoProject, first: list[Contact]) -> None:
    follow("schedules", project)

    database = DuckDb(project.folder / "output", "cometly.duckdb")
    assert loaded(database) == expected(database, first)


def test_backfills(project: MeltanoProject, space: Simulator, first: list[Contact]) -> None:
    script = "".join(text for kind, text in blocks(RECIPES / "backfills.md") if kind == "bash")
    assert script.index("meltano run tap") < script.index("export")

    *_, told = follow("backfills", project)

    database = DuckDb(project.folder / "output", "cometly.duckdb")
    assert loaded(database) == expected(database, first)
    assert re.findall(r'"replication_key_value": ?"([^"]+)"', told) == [
        FIRST_END,
        "2024-06-08T04:00:00+00:00",
    ]
    assert space.requests


def test_state(project: MeltanoProject, postgres: Postgres, space: Simulator) -> None:
    project.settings |= postgres.settings

    follow("state", project)

    starts = [request.start for request in space.requests if request.kind == "create"]
    rewound_to = at("2024-06-03T04:00:00+00:00")  # less the lookback, at local midnight
    assert starts.count(at("2024-06-01T04:00:00+00:00")) == 2  # the first run, the full refresh
    assert rewound_to in starts
    assert project.bookmark("target-postgres") is None


def test_every_page_with_commands_is_followed_here() -> None:
    here = (CHECKOUT / "tests" / "e2e" / "test_recipes.py").read_text("utf-8")
    pages = [
        page.stem for page in RECIPES.glob("*.md") if any(k == "bash" for k, _ in blocks(page))
    ]

    assert pages
    assert [page for page in pages if f'follow("{page}", project)' not in here] == []


def test_workflow_is_as_its_schema_says() -> None:
    program = environment("check-jsonschema", CHECK_JSONSCHEMA) / "bin" / "check-jsonschema"
    workflow = ORCHESTRATORS / "github-actions.yml"

    run([program, "--builtin-schema", "vendor.github-workflows", workflow])


@pytest.mark.parametrize(
    ("requirement", "file", "shown"),
    [
        (AIRFLOW, "airflow_dag.py", "sorted(module['dag'].task_ids)"),
        (DAGSTER, "dagster_definitions.py", "[a.key.path[-1] for a in module['assets']]"),
    ],
    ids=["airflow", "dagster"],
)
def test_orchestrator_takes_its_file(
    requirement: str, file: str, shown: str, tmp_path: Path
) -> None:
    python = environment(requirement.partition("==")[0], requirement) / "bin" / "python"
    code = f"import runpy; module = runpy.run_path({file!r}); print({shown})"
    env = clean_environment() | {"HOME": str(tmp_path), "AIRFLOW_HOME": str(tmp_path)}

    printed = run([python, "-W", "ignore", "-c", code], cwd=ORCHESTRATORS, env=env).stdout

    assert ast.literal_eval(printed.splitlines()[-1]) in (
        ["load_berlin", "load_new-york"],
        ["cometly_berlin_contacts", "cometly_new_york_contacts"],
    )


def test_crontab_has_a_lock_and_a_command_in_each_line() -> None:
    lines = (ORCHESTRATORS / "crontab").read_text("utf-8").splitlines()
    jobs = [line for line in lines if not re.match(r"#|[A-Z]+=", line)]

    assert jobs
    for job in jobs:
        assert re.fullmatch(
            r"(?:[\d*/,-]+ ){5}cd \S+ && flock -n \S+ meltano run \S+ \S+ >>(\S+) 2>&1"
            r" \|\| tail -n \d+ \1",
            job,
        )


def orchestrated() -> list[Path]:
    """The files for orchestrators."""
    return sorted(file for file in ORCHESTRATORS.iterdir() if file.is_file())


@pytest.mark.parametrize("file", orchestrated(), ids=lambda file: file.name)
def test_orchestrators_run_the_extractors_of_many_spaces(file: Path) -> None:
    assert re.search(r"meltano[\", run]+f?\"?tap-cometly--", file.read_text("utf-8"))
