"""Runs the commands of docs/recipes against the simulated Space."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from simulator import Population, Simulator
from simulator.faults import Layout
from simulator.files import FileLayout
from tests.e2e.conftest import FIRST_END, ZONE, at, instant_space
from tests.e2e.destinations import DuckDb
from tests.e2e.installed import CHECK_JSONSCHEMA, CHECKOUT, clean_environment, environment, run
from tests.e2e.project import MeltanoProject
from tests.e2e.recipes import RECIPES, bash, blocks, follow, meltano_additions, merged
from tests.e2e.rows import expected, loaded, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulator import Contact
    from tests.e2e.destinations import Destination, EmulatedSnowflake, Postgres
    from tests.e2e.s3 import S3Server

ORCHESTRATORS = RECIPES / "orchestrators"
PAGES = [*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md")]
WITH_KEYS = sorted(page for page in PAGES if "YOUR-KEY" in page.read_text("utf-8"))
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


def test_the_commands_of_the_readme_load_every_contact(
    project: MeltanoProject, first: list[Contact]
) -> None:
    copy_example, *read_contacts = [
        text for kind, text in blocks(CHECKOUT / "README.md") if kind == "bash"
    ]
    shutil.copy(CHECKOUT / ".env.example", project.folder)
    key = project.settings.pop("TAP_COMETLY_API_KEY")

    bash(copy_example, project)
    with (project.folder / ".env").open("a") as settings:
        settings.write(f"TAP_COMETLY_API_KEY={key}\nTAP_COMETLY_TIMEZONE={ZONE}\n")
    *_, output = [bash(commands, project) for commands in read_contacts]

    database = DuckDb(project.folder / "output", "cometly.duckdb")
    assert loaded(database) == expected(database, first)
    assert "10 rows" in output


def test_the_own_project_recipe_adds_a_valid_tap(tmp_path: Path, people: list[Contact]) -> None:
    key = "1|simulated"
    commands = "".join(text for kind, text in blocks(RECIPES / "README.md") if kind == "bash")
    for name, value in {"/path/to/tap-cometly": str(CHECKOUT), "YOUR-KEY": key}.items():
        assert name in commands
        commands = commands.replace(name, value)
    # The plugins are installed once for all tests.
    for command in ("meltano add", "meltano config test"):
        assert command in commands
        commands = commands.replace(command, f"{command} --no-install")
    *before, test = commands.splitlines(keepends=True)

    with Simulator(instant_space(people, api_key=key)) as space:
        parent = MeltanoProject(tmp_path / "parent", TAP_COMETLY_API_URL=space.api_url)
        (parent.folder / "meltano.yml").unlink()  # a project cannot be created inside another one
        bash("".join(before), parent)
        parent.link_plugins(parent.folder / "cometly")
        output = bash(f"cd cometly\n{test}", parent)

    assert "Plugin configuration is valid" in output


def test_the_postgres_recipe_loads_every_contact(
    project: MeltanoProject, postgres: Postgres, first: list[Contact]
) -> None:
    as_the_recipes_role(project, postgres)

    follow("postgres", project, query=administrator(postgres))

    assert loaded(postgres) == expected(postgres, first)


def as_the_recipes_role(project: MeltanoProject, postgres: Postgres) -> None:
    """Make the loader use the role from the PostgreSQL recipe."""
    project.settings |= postgres.settings
    del project.settings["TARGET_POSTGRES_USER"]
    project.settings["TARGET_POSTGRES_PASSWORD"] = "CHANGE-ME"  # noqa: S105 - the recipe's


def administrator(postgres: Postgres) -> Callable[[str], object]:
    """Runs the SQL of recipes; another test may have created the role already."""

    def query(sql: str) -> object:
        if postgres.query("select rolname from pg_roles where rolname = 'cometly_loader'"):
            sql = re.sub(r"(?m)^create role .+$", "", sql)
        return postgres.query(sql)

    return query


def test_the_snowflake_recipe_loads_every_contact_into_emulated_snowflake(
    project: MeltanoProject, snowflake: EmulatedSnowflake, first: list[Contact]
) -> None:
    key = snowflake.settings.pop("TARGET_SNOWFLAKE_PRIVATE_KEY_PATH")
    (project.folder / "snowflake.p8").symlink_to(key)
    project.settings["EMULATED_SNOWFLAKE"] = snowflake.settings["EMULATED_SNOWFLAKE"]

    follow("snowflake", project)

    assert loaded(snowflake) == expected(snowflake, first)


def test_the_duckdb_recipe_counts_every_contact(
    project: MeltanoProject, first: list[Contact]
) -> None:
    (project.folder / "output").rmdir()

    *_, output = follow("duckdb", project)

    assert f"{len(first)} │" in output


def test_the_jsonl_recipe_writes_one_line_for_each_contact(
    project: MeltanoProject, first: list[Contact]
) -> None:
    (project.folder / "output").rmdir()

    follow("jsonl", project)

    latest = (project.folder / "output" / "latest.jsonl").read_text("utf-8").split("\n")
    ids = [json.loads(line)["id"] for line in latest[:-1]]
    assert sorted(ids) == sorted(one.id for one in first)


def test_the_batch_files_recipe_loads_every_contact_and_leaves_no_files(
    project: MeltanoProject, postgres: Postgres, first: list[Contact]
) -> None:
    project.settings |= postgres.settings

    follow("batch-files", project, section="")

    assert loaded(postgres) == expected(postgres, first)
    assert list((project.folder / "batches").iterdir()) == []


def test_the_batch_files_recipe_loads_every_contact_through_emulated_s3(
    project: MeltanoProject, postgres: Postgres, s3_server: S3Server, first: list[Contact]
) -> None:
    bucket = "cometly-recipe"
    s3_server.make_bucket(bucket)
    project.settings |= postgres.settings | s3_server.settings
    [extractor] = meltano_additions(RECIPES / "batch-files.md", "S3")["plugins"]["extractors"]
    storage = extractor["config"]["batch_config"]["storage"]
    assert storage["root"].startswith("s3://YOUR-BUCKET/")
    storage["root"] = f"s3://{bucket}/cometly"
    project.write(merged(project.read(), {"plugins": {"extractors": [extractor]}}))
    [commands] = [text for kind, text in blocks(RECIPES / "batch-files.md", "S3") if kind == "bash"]

    bash(commands, project)

    assert loaded(postgres) == expected(postgres, first)
    assert s3_server.keys(bucket)


def test_the_personal_data_recipe_hashes_emails_and_removes_phones(
    project: MeltanoProject, postgres: Postgres, first: list[Contact]
) -> None:
    project.settings |= postgres.settings
    project.run("target-postgres")  # rows from before the map

    follow("personal-data", project, query=postgres.query)

    plain = {one.email for one in first if one.email}
    [somebody, *_] = [one for one in first if one.email]
    assert somebody.email
    hashed = hashlib.sha256(f"CHANGE-ME{somebody.email.lower()}".encode()).hexdigest()
    rows = {row["id"]: row for row in postgres.rows()}
    assert rows[somebody.id]["email"] == hashed
    assert plain.isdisjoint(row["email"] for row in rows.values())
    assert "phone" not in postgres.column_types()
    # The last block deselects a field, but does not run the tap.
    listed = project.meltano("select", "--list", "--all", "tap-cometly").stdout
    assert "[excluded   ] contacts.location" in listed
    assert "[selected   ] contacts.name" in listed


def test_an_exclusion_alone_selects_nothing(project: MeltanoProject) -> None:
    project.edit_extractor(select=["!contacts.phone"])

    listed = project.meltano("select", "--list", "--all", "tap-cometly").stdout

    assert "[selected" not in listed
    assert "[automatic" not in listed.partition("Selected properties")[2]


@pytest.mark.parametrize("kind", ["postgres", "duckdb"])
def test_the_new_fields_recipe_adds_a_column(
    project: MeltanoProject, space: Simulator, kind: str, request: pytest.FixtureRequest
) -> None:
    database: Destination = request.getfixturevalue(kind)
    project.settings |= database.settings
    line = b'{"id":7,"created_at":"2024-06-01T12:00:00+02:00"}'
    space.faults.add("create", Layout(FileLayout(lines=(line,))))

    project.write(merged(project.read(), meltano_additions(RECIPES / "new-fields.md", "")))
    [commands] = [text for kind, text in blocks(RECIPES / "new-fields.md") if kind == "bash"]
    bash(commands.replace("target-postgres", database.loader), project)

    rows = {row["id"]: row for row in database.rows()}
    assert rows.pop(7)["created_at"] == "2024-06-01T10:00:00+00:00"
    assert {row["created_at"] for row in rows.values()} == {None}


def test_the_many_spaces_recipe_loads_each_space_into_its_own_schema(
    project: MeltanoProject, postgres: Postgres, first: list[Contact]
) -> None:
    others = list(
        Population.generate(50, seed=1, since=at("2024-06-01T00:00:00Z"), until=at(FIRST_END))
    )
    berlin = instant_space(others, api_key="key-of-berlin", timezone="Europe/Berlin")
    as_the_recipes_role(project, postgres)
    follow("postgres", project, query=administrator(postgres))
    key = project.settings.pop("TAP_COMETLY_API_KEY")
    with Simulator(berlin) as second:
        project.settings |= {
            "COMETLY_KEY_NEW_YORK": key,
            "COMETLY_KEY_BERLIN": "key-of-berlin",
            "TAP_COMETLY__BERLIN_API_URL": second.api_url,
        }
        *_, output = follow("many-spaces", project, query=postgres.query)

    for city, people in (("berlin", others), ("new_york", first)):
        [row] = postgres.query(f"select count(*) as count from cometly_{city}.contacts")  # noqa: S608
        assert row["count"] == len(people)
    assert output.count(FIRST_END) == 2


def test_a_space_without_a_key_fails_even_if_its_parent_has_one(
    project: MeltanoProject, space: Simulator
) -> None:
    assert project.settings["TAP_COMETLY_API_KEY"]
    project.write(merged(project.read(), meltano_additions(RECIPES / "many-spaces.md", "")))

    done = project.meltano("run", "tap-cometly--berlin", "target-jsonl", check=False)

    assert done.returncode == 1
    assert "Setting 'api_key'" in done.stdout + done.stderr
    assert space.requests == []


def test_the_schedules_recipe_loads_every_contact(
    project: MeltanoProject, first: list[Contact]
) -> None:
    follow("schedules", project)

    database = DuckDb(project.folder / "output", "cometly.duckdb")
    assert loaded(database) == expected(database, first)


def with_start_date_in_env_file(project: MeltanoProject) -> None:
    """Set the start date in `.env`, as in the README."""
    project.edit_extractor(config={"end_date": FIRST_END, "timezone": ZONE})
    (project.folder / ".env").write_text("TAP_COMETLY_START_DATE=2024-06-01\n")


def test_the_backfills_recipe_loads_older_contacts_with_a_separate_bookmark(
    project: MeltanoProject, space: Simulator, first: list[Contact]
) -> None:
    with_start_date_in_env_file(project)

    *_, output = follow("backfills", project, section="Older contacts alongside the daily sync")

    database = DuckDb(project.folder / "output", "cometly.duckdb")
    starts = [request.start for request in space.requests if request.kind == "create"]
    assert loaded(database) == expected(database, first)
    assert starts[0] == at("2024-06-08T04:00:00+00:00")
    assert re.findall(r'"replication_key_value": ?"([^"]+)"', output) == [
        FIRST_END,
        "2024-06-08T04:00:00+00:00",
    ]


def test_the_backfills_recipe_loads_a_long_first_run_in_pieces(
    project: MeltanoProject, postgres: Postgres, space: Simulator, first: list[Contact]
) -> None:
    with_start_date_in_env_file(project)
    project.settings |= postgres.settings

    follow("backfills", project, section="A long first run")

    ends = [request.end for request in space.requests if request.kind == "create"]
    assert loaded(postgres) == expected(postgres, first)
    assert {at(f"2024-06-0{day}T04:00:00+00:00") for day in (3, 5, 7)} < set(ends)
    assert project.bookmark("target-postgres") == FIRST_END


def test_the_state_recipe_rewinds_and_clears_the_bookmark(
    project: MeltanoProject, postgres: Postgres, space: Simulator
) -> None:
    project.settings |= postgres.settings

    follow("state", project)

    starts = [request.start for request in space.requests if request.kind == "create"]
    rewound_to = at("2024-06-03T04:00:00+00:00")  # one day before, at midnight
    assert starts.count(at("2024-06-01T04:00:00+00:00")) == 2  # the first run, the full refresh
    assert rewound_to in starts
    assert project.bookmark("target-postgres") is None


def test_every_page_with_commands_has_a_test() -> None:
    here = (CHECKOUT / "tests" / "e2e" / "test_recipes.py").read_text("utf-8")
    pages = [
        page.stem for page in RECIPES.glob("*.md") if any(k == "bash" for k, _ in blocks(page))
    ]

    assert pages
    assert [page for page in pages if not re.search(rf'"{page}(\.md)?"', here)] == []


@pytest.mark.parametrize("page", WITH_KEYS, ids=lambda page: page.name)
def test_the_keys_on_a_page_are_quoted_for_the_shell(page: Path) -> None:
    assert not re.search(r"(?<![\"'])YOUR-KEY", page.read_text("utf-8"))


def test_the_workflow_matches_its_schema() -> None:
    program = environment("check-jsonschema", CHECK_JSONSCHEMA) / "bin" / "check-jsonschema"
    workflow = ORCHESTRATORS / "github-actions.yml"

    run([program, "--builtin-schema", "vendor.github-workflows", workflow])


@pytest.mark.parametrize(
    ("requirement", "file", "names", "expected_names"),
    [
        (
            AIRFLOW,
            "airflow_dag.py",
            "sorted(module['dag'].task_ids)",
            ["load_berlin", "load_new-york"],
        ),
        (
            DAGSTER,
            "dagster_definitions.py",
            "[a.key.path[-1] for a in module['assets']]",
            ["cometly_berlin_contacts", "cometly_new_york_contacts"],
        ),
    ],
    ids=["airflow", "dagster"],
)
def test_the_orchestrator_loads_its_file(
    requirement: str, file: str, names: str, expected_names: list[str], tmp_path: Path
) -> None:
    python = environment(requirement.partition("==")[0], requirement) / "bin" / "python"
    code = f"import runpy; module = runpy.run_path({file!r}); print({names})"
    env = clean_environment() | {"HOME": str(tmp_path), "AIRFLOW_HOME": str(tmp_path)}

    printed = run([python, "-W", "ignore", "-c", code], cwd=ORCHESTRATORS, env=env).stdout

    assert ast.literal_eval(printed.splitlines()[-1]) == expected_names


def test_each_line_of_the_crontab_has_a_lock_and_a_command() -> None:
    lines = (ORCHESTRATORS / "crontab").read_text("utf-8").splitlines()
    jobs = [line for line in lines if not re.match(r"#|[A-Z]+=", line)]

    assert jobs
    for job in jobs:
        assert re.fullmatch(
            r"(?:[\d*/,-]+ ){5}cd \S+ && flock -n \S+ meltano run \S+ \S+ >>(\S+) 2>&1"
            r" \|\| tail -n \d+ \1",
            job,
        )


@pytest.mark.parametrize(
    "file", sorted(filter(Path.is_file, ORCHESTRATORS.iterdir())), ids=lambda file: file.name
)
def test_each_orchestrator_runs_the_extractors_of_many_spaces(file: Path) -> None:
    assert re.search(r"meltano[\", run]+f?\"?tap-cometly--", file.read_text("utf-8"))
