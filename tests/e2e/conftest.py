"""A new simulated Space, Meltano project and empty databases for each test."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from simulator import Population, Simulator, Space
from tests.conftest import API_KEY, contact
from tests.e2e.destinations import DuckDb, EmulatedSnowflake, Postgres
from tests.e2e.postgres import PostgresServer, find_programs
from tests.e2e.project import MeltanoProject
from tests.e2e.s3 import S3Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulator import Contact
    from tests.e2e.destinations import Destination

ZONE = "America/New_York"
START = "2024-06-01T04:00:00+00:00"
"""Local midnight."""
FIRST_END = "2024-06-10T12:00:00+00:00"
SECOND_END = "2024-06-12T12:00:00+00:00"
LOOKED_BACK_TO = "2024-06-09T04:00:00+00:00"
"""Start of the second run: the local midnight at least one day before FIRST_END."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder as `e2e` and `slow`."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.slow)


def at(text: str) -> datetime:
    """Parse a time."""
    return datetime.fromisoformat(text)


ODD = [
    contact(900_001, at("2024-06-02T10:00:00Z"), name="with a \0 in it", email="nul@example.com"),
    contact(900_002, at("2024-06-02T11:00:00Z"), emails=None, comet_tokens=None),
    contact(900_003, at("2024-06-02T12:00:00Z"), emails=["a@b.example", None, 'q"\\,{}@c.example']),
    contact(900_004, at("2024-06-02T13:00:00Z"), name="Žofie 🦊 \u2028 'O''Neil' \\N \"x\",\t\n"),
    contact(900_005, at("2024-06-02T14:00:00Z"), name="", email="", phone=" ", location="NULL"),
]
"""Contacts with values that files and databases often break."""


@pytest.fixture
def people() -> list[Contact]:
    """Contacts of the Space; some are created after the end of the first run."""
    generated = Population.generate(1_000, since=at(START), until=at(SECOND_END))
    return [*generated, *ODD]


def instant_space(people: list[Contact], *, api_key: str = API_KEY, timezone: str = ZONE) -> Space:
    """A Space without delays and rate limits."""
    return Space(
        Population(people),
        api_key=api_key,
        timezone=timezone,
        queued_seconds=0,
        processing_seconds=0,
        creates_per_minute=None,
        polls_per_minute=None,
    )


@pytest.fixture
def space(people: list[Contact]) -> Iterator[Simulator]:
    """A running simulator with the contacts of `people`."""
    with Simulator(instant_space(people)) as simulator:
        yield simulator


@pytest.fixture
def project(space: Simulator, tmp_path: Path) -> MeltanoProject:
    """A Meltano project that exports the Space up to FIRST_END."""
    return MeltanoProject(
        tmp_path / "project",
        TAP_COMETLY_API_KEY=API_KEY,
        TAP_COMETLY_API_URL=space.api_url,
        TAP_COMETLY_START_DATE="2024-06-01",
        TAP_COMETLY_END_DATE=FIRST_END,
        TAP_COMETLY_TIMEZONE=ZONE,
    )


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL server."""
    with PostgresServer(find_programs()) as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """Emulated S3."""
    with S3Server() as server:
        yield server


@pytest.fixture
def postgres(postgres_server: PostgresServer, tmp_path: Path) -> Postgres:
    """An empty PostgreSQL database."""
    return Postgres(postgres_server, tmp_path.name)


@pytest.fixture
def duckdb(tmp_path: Path) -> DuckDb:
    """The path of a DuckDB file that does not exist yet."""
    return DuckDb(tmp_path)


@pytest.fixture
def snowflake(tmp_path: Path) -> EmulatedSnowflake:
    """An emulated Snowflake without databases."""
    (tmp_path / "snowflake").mkdir()
    return EmulatedSnowflake(tmp_path / "snowflake")


@pytest.fixture(params=["postgres", "duckdb", "snowflake"])
def destination(request: pytest.FixtureRequest) -> Destination:
    """Each of the databases."""
    database: Destination = request.getfixturevalue(request.param)
    return database
