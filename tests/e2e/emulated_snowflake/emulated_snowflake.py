"""The real target-snowflake on fakesnow, an emulation of Snowflake with DuckDB.

The target loads every row through the user stage (`@~/…`), which fakesnow 0.12.1 lacks: PUT, then
MERGE or COPY from a SELECT over the staged files, then REMOVE. This module adds them. PUT copies
the target's files; MERGE and COPY keep the target's columns, casts, deduplication and join, and
read a table of the staged lines instead of the stage. fakesnow runs all other statements; those
that use the user stage are rejected.

The tests show that the stream loads through the target's files and statements, but not that
Snowflake accepts them: this was not tested with a real Snowflake, and the login is ignored.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import fakesnow  # type: ignore[import-not-found, unused-ignore]
from fakesnow.cursor import (  # type: ignore[import-not-found, unused-ignore]
    FakeSnowflakeCursor as Cursor,
)

_FLAGS = re.IGNORECASE | re.DOTALL
_PUT = re.compile(r"\s*put\s+'(?P<file>[^']+)'\s+'@~/(?P<path>[^']+)'\s*", _FLAGS)
_REMOVE = re.compile(r"\s*remove\s+'@~/(?P<path>[^']+)'\s*", _FLAGS)
_MERGE = re.compile(
    r"(?P<head>\s*merge\s+into\s+(?P<table>\S+)\s.*?\susing\s+)"
    r"\((?P<select>select\s.+?)\sfrom\s+'@~/(?P<path>[^']+)'\s*\(file_format\s*=>\s*[^)]+\)"
    r"(?P<deduplicate>\s*qualify\s.+?=\s*1)\)(?P<tail>\s+s\s+on\s.*)",
    _FLAGS,
)
_COPY = re.compile(
    r"\s*copy\s+into\s+(?P<table>\S+)\s+(?P<columns>\(.+?\))\s+from\s+"
    r"\((?P<select>select\s.+?)\sfrom\s+'@~/(?P<path>[^']+)'\)\s*"
    r"file_format\s*=\s*\(format_name=.+\)\s*",
    _FLAGS,
)
_DROP_FILE_FORMAT = re.compile(
    r"\s*drop\s+file\s+format\s+if\s+exists\s+\S+?\.\"?(?P<name>[^.\"]+)\"?\s*", _FLAGS
)

_fakesnow_execute = Cursor.execute


class UserStage:
    """The files of the user stage `@~`, in a folder, and the statements that use them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def execute(
        self,
        cursor: Any,  # noqa: ANN401
        command: str,
        params: Any = None,  # noqa: ANN401
        *args: Any,
        **kwargs: Any,
    ) -> Any:  # noqa: ANN401
        """Run a statement, here or in fakesnow; return the cursor with its result.

        Raises:
            NotImplementedError: The statement uses the user stage in a way that is not emulated.
        """
        sql = command
        if isinstance(params, dict) and "%(" in sql:
            sql, _ = cursor._rewrite_with_params(sql, params)  # noqa: SLF001 - as in fakesnow
        if match := _PUT.fullmatch(sql):
            return self._put(cursor, match)
        if match := _REMOVE.fullmatch(sql):
            shutil.rmtree(self._staged(match), ignore_errors=True)
            return _fakesnow_execute(cursor, "select 'removed' as status")
        if match := _MERGE.fullmatch(sql):
            return self._merge(cursor, match)
        if match := _COPY.fullmatch(sql):
            return self._copy(cursor, match)
        if match := _DROP_FILE_FORMAT.fullmatch(sql):
            cursor._duck_conn.execute(  # noqa: SLF001
                "delete from _fs_global._fs_information_schema._fs_file_formats where name = ?",
                [match["name"]],
            )
            return _fakesnow_execute(cursor, "select 'dropped' as status")
        if "@~" in sql:
            message = f"not emulated: {sql}"
            raise NotImplementedError(message)
        return _fakesnow_execute(cursor, command, params, *args, **kwargs)

    def _staged(self, match: re.Match[str]) -> Path:
        return self._folder / match["path"].strip("/")

    def _put(self, cursor: Any, match: re.Match[str]) -> Any:  # noqa: ANN401
        path = match["file"]
        file = unquote(urlparse(path).path) if path.startswith("file:") else path
        self._staged(match).mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, self._staged(match))
        return _fakesnow_execute(cursor, "select 'UPLOADED' as status")

    def _merge(self, cursor: Any, match: re.Match[str]) -> Any:  # noqa: ANN401
        schema = self._load(cursor, match)
        select = match["select"].replace("$1:", "line:")
        newest_first = re.sub(r"seq8\(\)", "number", match["deduplicate"], flags=re.IGNORECASE)
        # fakesnow turns MERGE into a full outer join, where DuckDB allows no subquery.
        _fakesnow_execute(
            cursor,
            f"create or replace table {schema}.staged_rows as "
            f"{select} from {schema}.staged_lines {newest_first}",
        )
        _fakesnow_execute(cursor, f"{match['head']}{schema}.staged_rows{match['tail']}")
        return self._clear(cursor, schema)

    def _copy(self, cursor: Any, match: re.Match[str]) -> Any:  # noqa: ANN401
        schema = self._load(cursor, match)
        select = match["select"].replace("$1:", "line:")
        _fakesnow_execute(
            cursor,
            f"insert into {match['table']} {match['columns']} {select} from {schema}.staged_lines",
        )
        rows = cursor.rowcount
        self._clear(cursor, schema)
        return _fakesnow_execute(
            cursor,
            f"select '@~' as file, 'LOADED' as status, {rows} as parsed, {rows} as loaded",
        )

    def _load(self, cursor: Any, match: re.Match[str]) -> str:  # noqa: ANN401
        """Load the staged lines into a numbered table; return the name of its schema."""
        files = sorted(str(file) for file in self._staged(match).iterdir())
        schema = match["table"].rpartition(".")[0]
        _fakesnow_execute(cursor, f"use schema {schema}")  # fakesnow needs one
        cursor._duck_conn.execute(  # noqa: SLF001
            f"create or replace table {schema}.staged_lines as "  # noqa: S608
            "select row_number() over () as number, json as line "
            "from read_json_objects(?, format = 'newline_delimited')",
            [files],
        )
        return schema

    def _clear(self, cursor: Any, schema: str) -> Any:  # noqa: ANN401
        """Drop the tables without changing the cursor's result."""
        for table in ("staged_lines", "staged_rows"):
            cursor._duck_conn.execute(f"drop table if exists {schema}.{table}")  # noqa: SLF001
        return cursor


def main() -> None:
    """Run target-snowflake; the emulated databases are in the folder `EMULATED_SNOWFLAKE`."""
    with (
        tempfile.TemporaryDirectory() as folder,
        fakesnow.patch(db_path=os.environ["EMULATED_SNOWFLAKE"]),
    ):
        stage = UserStage(Path(folder))

        def execute(cursor: Any, command: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            return stage.execute(cursor, command, *args, **kwargs)

        Cursor.execute = execute
        # Imported only now, because it imports functions that fakesnow replaces.
        from target_snowflake.target import (  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415
            TargetSnowflake,
        )

        sys.argv[0] = "target-snowflake"
        TargetSnowflake.cli()


if __name__ == "__main__":
    main()
