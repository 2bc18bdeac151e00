"""The databases that contacts are loaded into, and queries on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from tests.e2e.installed import clean_environment, plugin_program, run

if TYPE_CHECKING:
    from tests.e2e.postgres import PostgresServer

_QUERY = Path(__file__).parent / "query.py"


class Destination:
    """A database for one test, empty at first.

    Attributes:
        kind: Its name in `query.py`.
        loader: The plugin that loads into it.
        types: The database's types of some columns.
        pipe_settings: Additional settings of the loader in a pipe.
        location: Its URL or path, for `query.py`.
        settings: The loader's settings, as environment variables.
    """

    kind: ClassVar[str]
    loader: ClassVar[str]
    types: ClassVar[dict[str, str]]
    pipe_settings: ClassVar[dict[str, Any]] = {}

    def __init__(self, location: str, **settings: str) -> None:
        self.location = location
        self.settings = settings

    @property
    def config(self) -> dict[str, Any]:
        """The loader's config file for a pipe."""
        prefix = f"{self.loader.upper().replace('-', '_')}_"
        config = {
            name.removeprefix(prefix).lower(): int(value) if name.endswith("_PORT") else value
            for name, value in self.settings.items()
            if name.startswith(prefix)
        }
        return config | {"default_target_schema": "tap_cometly", **self.pipe_settings}

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Run a query; return its rows, with column names in lower case."""
        python = plugin_program(self.loader, "python")
        command = [python, "-W", "ignore", _QUERY, self.kind, self.location, sql]
        rows: list[dict[str, Any]] = json.loads(run(command, env=clean_environment()).stdout)
        return rows

    def rows(self) -> list[dict[str, Any]]:
        """All rows of the contacts table by id, without the columns that loaders add."""
        return [
            {
                name: _read(name, value)
                for name, value in row.items()
                if not name.startswith("_sdc_")
            }
            for row in self.query("select * from tap_cometly.contacts order by id")
        ]

    def column_types(self) -> dict[str, str]:
        """The database's type of each column of the contacts table."""
        columns = self.query(
            "select column_name as name, data_type as type from information_schema.columns "
            "where upper(table_schema) = 'TAP_COMETLY' and upper(table_name) = 'CONTACTS'"
        )
        return {column["name"].lower(): column["type"] for column in columns}

    def as_stored(self, text: str) -> str | None:
        """The text that this database stores for a text from the tap."""
        return text


def _read(name: str, value: Any) -> Any:  # noqa: ANN401
    """Convert a value back: databases drop the zone of times and store arrays as JSON."""
    if name.startswith("created_") and value is not None:
        return value.replace(" ", "T") + "+00:00"
    if name in {"emails", "comet_tokens"} and isinstance(value, str):
        return json.loads(value)
    return value


class Postgres(Destination):
    """A database of a real PostgreSQL server."""

    kind = "postgres"
    loader = "target-postgres"
    types: ClassVar = {
        "id": "bigint",
        "email": "text",
        "emails": "ARRAY",
        "created_until": "timestamp without time zone",
    }
    pipe_settings: ClassVar = {"sanitize_null_text_characters": True}

    def __init__(self, server: PostgresServer, name: str) -> None:
        super().__init__(server.url("postgres"))
        self.query(f'create database "{name}"')
        super().__init__(
            server.url(name),
            TARGET_POSTGRES_HOST="127.0.0.1",
            TARGET_POSTGRES_PORT=str(server.port),
            TARGET_POSTGRES_USER="loader",
            TARGET_POSTGRES_PASSWORD=server.password,
            TARGET_POSTGRES_DATABASE=name,
        )

    @override
    def as_stored(self, text: str) -> str | None:
        # The loader replaces NUL, which PostgreSQL does not allow.
        return text.replace("\0", "\ufffd")


class DuckDb(Destination):
    """A DuckDB file."""

    kind = "duckdb"
    loader = "target-duckdb"
    types: ClassVar = {
        "id": "BIGINT",
        "email": "VARCHAR",
        "emails": "JSON",
        "created_until": "TIMESTAMP",
    }
    pipe_settings: ClassVar = {"add_metadata_columns": True, "primary_key_required": False}

    def __init__(self, folder: Path, name: str = "contacts.duckdb") -> None:
        file = str(folder / name)
        super().__init__(file, TARGET_DUCKDB_PATH=file)

    @override
    def as_stored(self, text: str) -> str | None:
        # The loader writes CSV files, in which empty text becomes null.
        return text or None


class EmulatedSnowflake(Destination):
    """A database of emulated Snowflake, which may differ from Snowflake."""

    kind = "snowflake"
    loader = "target-snowflake"
    types: ClassVar = {
        "id": "NUMBER",
        "email": "TEXT",
        "emails": "VARIANT",
        "created_until": "TIMESTAMP_NTZ",
    }

    def __init__(self, folder: Path) -> None:
        key = folder / "snowflake.p8"
        key.write_text(_new_key(), "utf-8")
        super().__init__(
            str(folder),
            EMULATED_SNOWFLAKE=str(folder),
            TARGET_SNOWFLAKE_ACCOUNT="emulated",
            TARGET_SNOWFLAKE_USER="LOADER",
            TARGET_SNOWFLAKE_PRIVATE_KEY_PATH=str(key),
            TARGET_SNOWFLAKE_DATABASE="COMETLY",
            TARGET_SNOWFLAKE_WAREHOUSE="LOADING",
            TARGET_SNOWFLAKE_ROLE="LOADER",
        )


_MAKE_KEY = """
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import rsa
key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
pem = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
print(pem.decode())
"""


def _new_key() -> str:
    """A new private key; the target reads it, the emulation ignores it."""
    python = plugin_program("target-snowflake", "python")
    return run([python, "-c", _MAKE_KEY], env=clean_environment()).stdout
