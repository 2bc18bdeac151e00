"""BATCH messages with targets that support them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import SECOND_END
from tests.e2e.rows import expected, loaded

if TYPE_CHECKING:
    from pathlib import Path

    from simulator import Contact
    from tests.e2e.destinations import Destination
    from tests.e2e.project import MeltanoProject


@pytest.fixture(params=["postgres", "snowflake"])
def destination(request: pytest.FixtureRequest) -> Destination:
    """Each of the databases whose loader supports BATCH."""
    database: Destination = request.getfixturevalue(request.param)
    return database


def test_batch_files_load_the_same_rows_as_records(
    project: MeltanoProject, destination: Destination, people: list[Contact], tmp_path: Path
) -> None:
    files = tmp_path / "files"
    files.mkdir()
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

    assert loaded(destination) == expected(destination, people, "emails")
    assert project.bookmark(destination.loader) == SECOND_END
