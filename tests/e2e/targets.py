"""Targets from PyPI that are not in meltano.yml, each in its own environment, without Meltano."""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar

from tests.e2e.installed import CHECKOUT, clean_environment, environment, run
from tests.e2e.recipes import described

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.destinations import Postgres

PAGE = CHECKOUT / "docs" / "targets.md"
Row = dict[str, Any]


class PipedTarget:
    """A target that reads a tap's messages from a pipe.

    Attributes:
        requirement: What pip installs.
        section: The section of docs/targets.md with the stream maps that it needs.
    """

    requirement: ClassVar[str]
    section: ClassVar[str]

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        """Write its config file."""
        self.folder = folder
        self._config_file = folder / "target.json"
        self._config_file.write_text(json.dumps(config), "utf-8")

    @classmethod
    def described(cls) -> dict[str, Any]:
        """What the page adds to meltano.yml for this target."""
        return described(PAGE, cls.section)

    @classmethod
    def stream_maps(cls) -> dict[str, Any]:
        """The tap's setting `stream_maps` on the page."""
        [extractor] = cls.described()["plugins"]["extractors"]
        maps: dict[str, Any] = extractor["config"]["stream_maps"]
        return maps

    @classmethod
    def program(cls, name: str) -> Path:
        """The path of a program, such as `python`, in its environment."""
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
        """All rows, by id."""
        raise NotImplementedError

    def id_type(self) -> str:
        """The database's type of the column `id`."""
        raise NotImplementedError

    def kept(self, value: Any) -> Any:  # noqa: ANN401
        """How the target stores a value that the tap writes."""
        return value


class PipelinewisePostgres(PipedTarget):
    """pipelinewise-target-postgres, which has no option for NUL characters."""

    requirement = "pipelinewise-target-postgres==2.1.2"
    section = "NUL characters"

    def __init__(self, folder: Path, postgres: Postgres) -> None:
        """Load into a database."""
        given = postgres.settings
        config = {
            "host": given["TARGET_POSTGRES_HOST"],
            "port": int(given["TARGET_POSTGRES_PORT"]),
            "user": given["TARGET_POSTGRES_USER"],
            "password": given["TARGET_POSTGRES_PASSWORD"],
            "dbname": given["TARGET_POSTGRES_DATABASE"],
            "default_target_schema": "tap_cometly",
        }
        super().__init__(folder, config)
        self._postgres = postgres

    def command(self) -> list[Any]:
        """What runs it."""
        return [self.program("target-postgres")]

    def rows(self) -> list[Row]:
        """All rows, by id."""
        return self._postgres.rows()

    def id_type(self) -> str:
        """The type of the column `id`."""
        return self._postgres.column_types()["id"]

    def kept(self, value: Any) -> Any:  # noqa: ANN401
        """No NUL; control characters as their JSON escapes; an empty text is null."""
        if not isinstance(value, str):
            return value
        text = value.replace("\0", "")
        return "".join(json.dumps(c)[1:-1] if c < " " else c for c in text) or None


class Sqlite(PipedTarget):
    """target-sqlite; its last release needs names that Python 3.10 removed, so they are added."""

    requirement = "target-sqlite==0.2.0"
    section = "CSV and SQLite"
    _SHIM = """
import collections, collections.abc
vars(collections).update({name: getattr(collections.abc, name) for name in collections.abc.__all__})
from target_sqlite import main
main()
"""

    def __init__(self, folder: Path) -> None:
        """Load into a file."""
        self._file = folder / "contacts.db"
        super().__init__(folder, {"database": str(self._file)})

    def command(self) -> list[Any]:
        """What runs it."""
        return [self.program("python"), "-W", "ignore", "-c", self._SHIM]

    def rows(self) -> list[Row]:
        """All rows, by id."""
        return [_with_arrays(row) for row in self._ask("select * from contacts order by id")]

    def id_type(self) -> str:
        """The type of the column `id`."""
        [column] = self._ask("select type from pragma_table_info('contacts') where name = 'id'")
        return str(column["type"])

    def _ask(self, sql: str) -> list[Row]:
        with closing(sqlite3.connect(self._file)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql)]


class Csv(PipedTarget):
    """MeltanoLabs' target-csv with a file for each run; with one file it would replace that."""

    requirement = "meltanolabs-target-csv==0.5.0"
    section = "CSV and SQLite"

    def __init__(self, folder: Path) -> None:
        """Load into files, with the settings of the page."""
        [loader] = self.described()["plugins"]["loaders"]
        assert loader["pip_url"] == self.requirement
        root = str(folder)
        config = {
            name: value.replace("$MELTANO_PROJECT_ROOT", root)
            for name, value in loader["config"].items()
        }
        (folder / "output").mkdir()
        super().__init__(folder, config)

    def command(self) -> list[Any]:
        """What runs it."""
        return [self.program("target-csv")]

    def rows(self) -> list[Row]:
        """The last row of each id, as the page says."""
        last: dict[int, Row] = {}
        for file in sorted((self.folder / "output").glob("contacts-*.csv")):
            with file.open(encoding="utf-8", newline="") as lines:
                for row in csv.DictReader(lines):
                    read = {name: value or None for name, value in row.items()}
                    last[int(row["id"])] = _with_arrays(read | {"id": int(row["id"])})
        return [last[number] for number in sorted(last)]

    def id_type(self) -> str:
        """CSV has no types."""
        return "text"

    def kept(self, value: Any) -> Any:  # noqa: ANN401
        """An empty text looks like null."""
        return value or None if isinstance(value, str) else value


def _with_arrays(row: Row) -> Row:
    return row | {"emails": json.loads(row["emails"] or "null")}
