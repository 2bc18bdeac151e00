"""Which windows a stopped run does not export again: the table in docs/targets.md.

`python -m pytest -rP tests/e2e/test_stopped.py` prints the measured table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from simulator.faults import Stall, Truncated
from tests.e2e.conftest import at
from tests.e2e.installed import CHECKOUT, clean_environment, plugin_program, run
from tests.e2e.recipes import sections
from tests.e2e.rows import until

if TYPE_CHECKING:
    from simulator import Contact, Simulator
    from tests.e2e.destinations import Destination
    from tests.e2e.project import MeltanoProject

SECTION = sections(CHECKOUT / "docs" / "targets.md")["What a stopped run keeps"]
ENDINGS = ("the tap fails", "SIGTERM to Meltano", "Ctrl-C")
WINDOWS_READ = 8
"""Windows of one day; the run is stopped in the next one."""
LAST_READ = "2024-06-09T04:00:00+00:00"
BATCH_ROWS = "300"

ALL, SOME, NOTHING = "all finished windows", "those in full batches", "nothing"


LOADERS = ("duckdb", "postgres", "snowflake", "jsonl")


def documented() -> dict[tuple[str, str], str]:
    """The table of the page: the windows that are kept, by loader and ending."""
    lines = [line for line in SECTION.splitlines() if line.startswith("|")]
    [header, _, *rows] = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {
        (row[0].split()[0].strip("`"), ending): cell
        for row in rows
        for ending, cell in zip(header[1:], row[1:], strict=True)
    }


def kept(bookmark: str | None) -> str:
    """The windows that the next run does not export again, as the table describes them."""
    if bookmark is None:
        return NOTHING
    return ALL if bookmark == LAST_READ else SOME


@pytest.fixture(params=LOADERS)
def destination(request: pytest.FixtureRequest) -> Destination | None:
    """Each of the databases; None for target-jsonl."""
    return None if request.param == "jsonl" else request.getfixturevalue(request.param)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_stopped_run_keeps_what_the_page_says(
    project: MeltanoProject,
    space: Simulator,
    people: list[Contact],
    destination: Destination | None,
    ending: str,
) -> None:
    loader = destination.loader if destination else "target-jsonl"
    if destination:
        project.settings |= destination.settings
        project.settings[f"{loader.upper().replace('-', '_')}_BATCH_SIZE_ROWS"] = BATCH_ROWS
    fault = Truncated(length=1000) if ending == "the tap fails" else Stall(at=100)
    space.faults.add("download", fault, after=WINDOWS_READ)

    with project.running(loader, TAP_COMETLY_WINDOW_DAYS="1") as run:
        if ending == "the tap fails":
            code = run.wait()
        else:
            space.wait_for_requests("download", WINDOWS_READ + 1, timeout=60)
            run.wait_until_idle()
            code = run.interrupt() if ending == "Ctrl-C" else run.terminate()

    result = kept(project.bookmark(loader))
    if destination:
        rows = len(destination.rows())
    else:
        rows = (project.folder / "output" / "contacts.jsonl").read_text("utf-8").count("\n")
    read = len([one for one in until(LAST_READ, people) if one.created_at != at(LAST_READ)])
    print(f"| {loader} | {ending} | {result} | {rows} of {read} rows | exit {code} |")  # noqa: T201
    assert code != 0
    assert result == documented()[loader, ending]


@pytest.mark.parametrize("loader", ["target-postgres", "target-snowflake"])
def test_the_loader_prints_state_every_five_minutes(loader: str) -> None:
    code = "from singer_sdk import Target; print(Target._MAX_RECORD_AGE_IN_MINUTES)"

    printed = run([plugin_program(loader, "python"), "-c", code], env=clean_environment()).stdout

    assert float(printed) == 5
    assert "five minutes" in SECTION
