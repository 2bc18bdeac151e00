"""Targets from PyPI that are not in meltano.yml, each in a separate virtualenv, without Meltano."""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from tests.e2e.installed import CHECKOUT, clean_environment, environment, run
from tests.e2e.recipes import meltano_additions

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.destinations import Postgres

PAGE = CHECKOUT / "docs" / "targets.md"
Row = dict[str, Any]


class PipedTarget:
    """A target that reads the tap's messages from stdin.

    Attributes:
        requirement: Its name and version on PyPI.
        section: The section of docs/targets.md with the stream maps that it needs.
    """

    requirement: ClassVar[str]
    section: ClassVar[str]

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        self._config_file = folder / "target.json"
        self._config_file.write_text(json.dumps(config), "utf-8")

    @classmethod
    def meltano_additions(cls) -> dict[str, Any]:
        """The part of meltano.yml that the page adds for this target."""
        return meltano_additions(PAGE, cls.section)

    @classmethod
    def stream_maps(cls) -> dict[str, Any]:
        """The tap's setting `stream_maps` from the page."""
        [extractor] = cls.meltano_additions()["plugins"]["extractors"]
        maps: dict[str, Any] = extractor["config"]["stream_maps"]
        return maps

    @classmethod
    def program(cls, name: str) -> Path:
        """The path of a program, such as `python`, in its virtualenv."""
        return environment(cls.requirement.partition("==")[0], cls.requirement) / "bin" / name

    def command(self) -> list[Any]:
        """The command that runs it, without `--config`."""
        raise NotImplementedError

    def load(self, messages: str) -> str:
        """Load Singer messages; return the last state that the target printed."""
        command = [*self.command(), "--config", self._config_file]
        done = run(command, cwd=self.folder, env=clean_environment(), stdin=messages)
        return done.stdout.splitlines()[-1]

    def rows(self) -> list[Row]:
        """All rows by id."""
        raise NotImplementedError

    def as_stored(self, value: Any) -> Any:  # noqa: ANN401
        """The value that the target stores for a value from the tap."""
        return value


class PipelinewisePostgres(PipedTarget):
    """pipelinewise-target-postgres, which has no option for NUL characters."""

    requirement = "pipelinewise-target-postgres==2.1.2"
    section = "NUL characters"

    def __init__(self, folder: Path, postgres: Postgres) -> None:
        settings = postgres.settings
        config = {
            "host": settings["TARGET_POSTGRES_HOST"],
            "port": int(settings["TARGET_POSTGRES_PORT"]),
            "user": settings["TARGET_POSTGRES_USER"],
            "password": settings["TARGET_POSTGRES_PASSWORD"],
            "dbname": settings["TARGET_POSTGRES_DATABASE"],
            "default_target_schema": "tap_cometly",
        }
        super().__init__(folder, config)
        self._postgres = postgres

    @override
    def command(self) -> list[Any]:
        return [self.program("target-postgres")]

    @override
    def rows(self) -> list[Row]:
        return self._postgres.rows()

    def id_type(self) -> str:
        """The type of the column `id`."""
        return self._postgres.column_types()["id"]

    @override
    def as_stored(self, value: Any) -> Any:
        # Without NUL, with control characters as JSON escapes, and with null for empty text.
        if not isinstance(value, str):
            return value
        text = value.replace("\0", "")
        return "".join(json.dumps(c)[1:-1] if c < " " else c for c in text) or None


class Sqlite(PipedTarget):
    """target-sqlite, with the names that its last release needs and Python 3.10 removed."""

    requirement = "target-sqlite==0.2.0"
    section = "CSV and SQLite"
    _SHIM = """
import collections, collections.abc
vars(collections).update({name: getattr(collections.abc, name) for name in collections.abc.__all__})
from target_sqlite import main
main()
"""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "contacts.db"
        super().__init__(folder, {"database": str(self._file)})

    @override
    def command(self) -> list[Any]:
        return [self.program("python"), "-W", "ignore", "-c", self._SHIM]

    @override
    def rows(self) -> list[Row]:
        return [_with_arrays(row) for row in self._query("select * from contacts order by id")]

    def id_type(self) -> str:
        """The type of the column `id`."""
        [column] = self._query("select type from pragma_table_info('contacts') where name = 'id'")
        return str(column["type"])

    def _query(self, sql: str) -> list[Row]:
        with closing(sqlite3.connect(self._file)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql)]


class Csv(PipedTarget):
    """MeltanoLabs' target-csv with a file for each run; it would replace an existing file."""

    requirement = "meltanolabs-target-csv==0.5.0"
    section = "CSV and SQLite"

    def __init__(self, folder: Path) -> None:
        [loader] = self.meltano_additions()["plugins"]["loaders"]
        assert loader["pip_url"] == self.requirement
        root = str(folder)
        config = {
            name: value.replace("$MELTANO_PROJECT_ROOT", root)
            for name, value in loader["config"].items()
        }
        (folder / "output").mkdir()
        super().__init__(folder, config)

    @override
    def command(self) -> list[Any]:
        return [self.program("target-csv")]

    @override
    def rows(self) -> list[Row]:
        last: dict[int, Row] = {}
        for file in sorted((self.folder / "output").glob("contacts-*.csv")):
            with file.open(encoding="utf-8", newline="") as lines:
                for row in csv.DictReader(lines):
                    read = {name: value or None for name, value in row.items()}
                    last[int(row["id"])] = _with_arrays(read | {"id": int(row["id"])})
        return [last[number] for number in sorted(last)]

    @override
    def as_stored(self, value: Any) -> Any:
        return value or None if isinstance(value, str) else value


def _with_arrays(row: Row) -> Row:
    return row | {"emails": json.loads(row["emails"] or "null")}
