"""Runs a query and prints its rows as a JSON list of objects.

Runs in a loader's virtualenv, which has the database's client: `python query.py KIND LOCATION SQL`.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def connected(kind: str, location: str) -> Iterator[Any]:
    """Connect to a database."""
    if kind == "postgres":
        import psycopg  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

        with psycopg.connect(location, autocommit=True) as connection:
            yield connection
    elif kind == "duckdb":
        import duckdb  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

        with duckdb.connect(location) as connection:
            yield connection
    else:
        import fakesnow  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415
        import snowflake.connector  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

        with fakesnow.patch(db_path=location):
            yield snowflake.connector.connect(database="COMETLY", schema="TAP_COMETLY")


def main() -> None:
    """Run the query in the command-line arguments."""
    kind, location, sql = sys.argv[1:]
    with connected(kind, location) as connection:
        cursor = connection.cursor()
        cursor.execute(sql)
        names = [column[0].lower() for column in cursor.description or []]
        rows = cursor.fetchall() if names else []
    json.dump([dict(zip(names, row, strict=True)) for row in rows], sys.stdout, default=str)


if __name__ == "__main__":
    main()
