"""Runs the commands of docs/recipes against the simulated Space."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from simulator import Population, Simulator
from simulator.faults import Form
from simulator.files import FileForm
from tests.e2e.conftest import FIRST_END, ZONE, at, instant_space
from tests.e2e.destinations import DuckDb
from tests.e2e.installed import CHECK_JSONSCHEMA, CHECKOUT, clean_environment, environment, run
from tests.e2e.project import MeltanoProject
from tests.e2e.recipes import RECIPES, bash, blocks, described, follow, merged
from tests.e2e.rows import expected, loaded, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from simulator import Contact
    from tests.e2e.destinations import Destination, EmulatedSnowflake, Postgres
    from tests.e2e.s3 import S3Server

ORCHESTRATORS = RECIPES / "orchestrators"
PAGES = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md")])
AIRFLOW = "apache-airflow==3.3.2"
DAGSTER = "dagster==1.13.28"


@pytest.fixture
def project(project: MeltanoProject) -> MeltanoProject:
    """A project with its dates in meltano.yml, so that a recipe can change them."""
    for name in ("START_DATE", "END_DATE", "TIMEZONE"):
        del project.settings[f"TAP_COMETLY_{name}"]
    project.edit_extractor(
        config={"start_date": "2024-06-01", "end_date": FIRST_END, "timezone": ZONE}
    )
    return project


@pytest.fixture
def first(people: list[Contact]) -> list[Contact]:
    """The contacts that are loaded up to the end date."""
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


def test_own_project(tmp_path: Path, people: list[Contact]) -> None:
    key = "1|simulated"
    commands = "".join(text for kind, text in blocks(RECIPES / "README.md") if kind == "bash")
    for name, value in {"/path/to/tap-cometly": str(CHECKOUT), "YOUR-KEY": key}.items():
        assert name in commands
        commands = commands.replace(name, value)
    # The plugins are there already, and shared with all tests.
    for command in ("meltano add", "meltano config test"):
        assert command in commands
        commands = commands.replace(command, f"{command} --no-install")
    *before, test = commands.splitlines(keepends=True)

    with Simulator(instant_space(people, api_key=key)) as space:
        parent = MeltanoProject(tmp_path / "parent", TAP_COMETLY_API_URL=space.api_url)
        (parent.folder / "meltano.yml").unlink()  # a project cannot be created inside another one
        bash("".join(before), parent)
        parent.link_plugins(parent.folder / "cometly")
        told = bash(f"cd cometly\n{test}", parent)

    assert "Plugin configuration is valid" in told


def test_postgres(project: MeltanoProject, postgres: Postgres, first: list[Contact]) -> None:
    as_the_recipes_role(project, postgres)

    follow("postgres", project, ask=administrator(postgres))

    assert loaded(postgres) == expected(postgres, first)


def as_the_recipes_role(project: MeltanoProject, postgres: Postgres) -> None:
    """Make the loader use the role of the recipe for PostgreSQL."""
    project.settings |= postgres.settings
    del project.settings["TARGET_POSTGRES_USER"]
    project.settings["TARGET_POSTGRES_PASSWORD"] = "CHANGE-ME"  # noqa: S105 - the recipe's


def administrator(postgres: Postgres) -> Callable[[str], object]:
    """Runs the SQL of recipes; another test may have created the role already."""

    def ask(sql: str) -> object:
        if postgres.ask("select rolname from pg_roles where rolname = 'cometly_loader'"):
            sql = re.sub(r"(?m)^create role .+$", "", sql)
        return postgres.ask(sql)

    return ask


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

    follow("batch-files", project, section="")

    assert loaded(postgres) == expected(postgres, first)
    assert list((project.folder / "batches").iterdir()) == []


def test_batch_files_on_emulated_s3(
    project: MeltanoProject, postgres: Postgres, s3_server: S3Server, first: list[Contact]
) -> None:
    bucket = "cometly-recipe"
    s3_server.make_bucket(bucket)
    project.settings |= postgres.settings | s3_server.settings
    [extractor] = described(RECIPES / "batch-files.md", "S3")["plugins"]["extractors"]
    storage = extractor["config"]["batch_config"]["storage"]
    assert storage["root"].startswith("s3://YOUR-BUCKET/")
    storage["root"] = f"s3://{bucket}/cometly"
    project.write(merged(project.read(), {"plugins": {"extractors": [extractor]}}))
    [commands] = [text for kind, text in blocks(RECIPES / "batch-files.md", "S3") if kind == "bash"]

    bash(commands, project)

    assert loaded(postgres) == expected(postgres, first)
    assert s3_server.keys(bucket)


def test_personal_data(project: MeltanoProject, postgres: Postgres, first: list[Contact]) -> None:
    project.settings |= postgres.settings
    project.run("target-postgres")  # as it was before the map

    follow("personal-data", project, ask=postgres.ask)

    plain = {one.email for one in first if one.email}
    [somebody, *_] = [one for one in first if one.email]
    assert somebody.email
    hashed = hashlib.sha256(f"CHANGE-ME{somebody.email.lower()}".encode()).hexdigest()
    rows = {row["id"]: row for row in postgres.rows()}
    assert rows[somebody.id]["email"] == hashed
    assert plain.isdisjoint(row["email"] for row in rows.values())
    assert "phone" not in postgres.column_types()
    # The last block leaves out a field; no run follows it.
    listed = project.meltano("select", "--list", "--all", "tap-cometly").stdout
    assert "[excluded   ] contacts.location" in listed
    assert "[selected   ] contacts.name" in listed


def test_an_exclusion_alone_selects_nothing(project: MeltanoProject) -> None:
    project.edit_extractor(select=["!contacts.phone"])

    listed = project.meltano("select", "--list", "--all", "tap-cometly").stdout

    assert "[selected" not in listed
    assert "[automatic" not in listed.partition("Selected properties")[2]


@pytest.mark.parametrize("kind", ["postgres", "duckdb"])
def test_new_fields(
    project: MeltanoProject, space: Simulator, kind: str, request: pytest.FixtureRequest
) -> None:
    database: Destination = request.getfixturevalue(kind)
    project.settings |= database.settings
    line = b'{"id":7,"created_at":"2024-06-01T12:00:00+02:00"}'
    space.faults.add("create", Form(FileForm(lines=(line,))))

    project.write(merged(project.read(), described(RECIPES / "new-fields.md", "")))
    [commands] = [text for kind, text in blocks(RECIPES / "new-fields.md") if kind == "bash"]
    bash(commands.replace("target-postgres", database.loader), project)

    rows = {row["id"]: row for row in database.rows()}
    assert rows.pop(7)["created_at"] == "2024-06-01T10:00:00+00:00"
    assert {row["created_at"] for row in rows.values()} == {None}


def test_many_spaces(project: MeltanoProject, postgres: Postgres, first: list[Contact]) -> None:
    others = list(
        Population.generate(50, seed=1, since=at("2024-06-01T00:00:00Z"), until=at(FIRST_END))
    )
    berlin = instant_space(others, api_key="key-of-berlin", timezone="Europe/Berlin")
    as_the_recipes_role(project, postgres)
    follow("postgres", project, ask=administrator(postgres))
    key = project.settings.pop("TAP_COMETLY_API_KEY")
    with Simulator(berlin) as second:
        project.settings |= {
            "COMETLY_KEY_NEW_YORK": key,
            "COMETLY_KEY_BERLIN": "key-of-berlin",
            "TAP_COMETLY__BERLIN_API_URL": second.api_url,
        }
        *_, told = follow("many-spaces", project, ask=postgres.ask)

    for city, people in (("berlin", others), ("new_york", first)):
        [row] = postgres.ask(f"select count(*) as count from cometly_{city}.contacts")  # noqa: S608
        assert row["count"] == len(people)
    assert told.count(FIRST_END) == 2


def test_a_space_whose_key_is_missing_fails_although_its_parent_has_one(
    project: MeltanoProject, space: Simulator
) -> None:
    assert project.settings["TAP_COMETLY_API_KEY"]
    project.write(merged(project.read(), described(RECIPES / "many-spaces.md", "")))

    done = project.meltano("run", "tap-cometly--berlin", "target-jsonl", check=False)

    assert done.returncode == 1
    assert "Setting 'api_key'" in done.stdout + done.stderr
    assert space.requests == []


def test_schedules(project: MeltanoProject, first: list[Contact]) -> None:
    follow("schedules", project)

    database = DuckDb(project.folder / "output", "cometly.duckdb")
    assert loaded(database) == expected(database, first)


def with_start_date_in_env_file(project: MeltanoProject) -> None:
    """Set the start date in `.env`, as the README does."""
    project.edit_extractor(config={"end_date": FIRST_END, "timezone": ZONE})
    (project.folder / ".env").write_text("TAP_COMETLY_START_DATE=2024-06-01\n")


def test_backfills(project: MeltanoProject, space: Simulator, first: list[Contact]) -> None:
    with_start_date_in_env_file(project)

    *_, told = follow("backfills", project, section="Older contacts alongside the daily sync")

    database = DuckDb(project.folder / "output", "cometly.duckdb")
    starts = [request.start for request in space.requests if request.kind == "create"]
    assert loaded(database) == expected(database, first)
    assert starts[0] == at("2024-06-08T04:00:00+00:00")
    assert re.findall(r'"replication_key_value": ?"([^"]+)"', told) == [
        FIRST_END,
        "2024-06-08T04:00:00+00:00",
    ]


def test_a_long_first_run_in_pieces(
    project: MeltanoProject, postgres: Postgres, space: Simulator, first: list[Contact]
) -> None:
    with_start_date_in_env_file(project)
    project.settings |= postgres.settings

    follow("backfills", project, section="A long first run")

    ends = [request.end for request in space.requests if request.kind == "create"]
    assert loaded(postgres) == expected(postgres, first)
    assert {at(f"2024-06-0{day}T04:00:00+00:00") for day in (3, 5, 7)} < set(ends)
    assert project.bookmark("target-postgres") == FIRST_END


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
    assert [page for page in pages if not re.search(rf'"{page}(\.md)?"', here)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_keys_are_quoted_as_they_may_hold_what_a_shell_reads(page: Path) -> None:
    assert not re.search(r"(?<![\"'])YOUR-KEY", page.read_text("utf-8"))


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
