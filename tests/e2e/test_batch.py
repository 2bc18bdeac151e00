"""BATCH: contacts handed over in files, to the targets that read them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import FIRST_END, SECOND_END
from tests.e2e.rows import expected, loaded, until

if TYPE_CHECKING:
    from pathlib import Path

    from simulator import Contact
    from tests.e2e.destinations import Destination
    from tests.e2e.project import MeltanoProject


@pytest.fixture(
    params=[
        pytest.param("postgres", marks=pytest.mark.xdist_group("postgres")),
        pytest.param("snowflake", marks=pytest.mark.xdist_group("snowflake")),
    ]
)
def destination(request: pytest.FixtureRequest) -> Destination:
    """Each of the databases whose loader reads files."""
    made: Destination = request.getfixturevalue(request.param)
    return made


def test_files_are_loaded_like_records(
    project: MeltanoProject, destination: Destination, people: list[Contact], tmp_path: Path
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    # The loader for PostgreSQL does not replace a NUL that comes in a file, and cannot load it.
    people_loaded = [one for one in people if one.name is None or "\0" not in one.name]
    project.settings |= destination.settings | {
        "TAP_COMETLY_INCLUDE_ALL_EMAILS": "true",
        "TAP_COMETLY_BATCH_CONFIG": json.dumps(
            {
                "encoding": {"format": "jsonl", "compression": "gzip"},
                "storage": {"root": files.as_uri()},
                "batch_size": 300,
            }
        ),
    }

    project.run(destination.loader)
    project.run(destination.loader, TAP_COMETLY_END_DATE=SECOND_END)

    assert loaded(destination) == expected(destination, people_loaded, "emails")
    assert project.bookmark(destination.loader) == SECOND_END
    assert until(FIRST_END, people) != people
