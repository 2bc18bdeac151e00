"""An SDK tap without records: shows the cost of the SDK's start-up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_sdk import Stream, Tap
from singer_sdk import typing as th
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterable

    from singer_sdk.helpers.types import Context


class EmptyContacts(Stream):
    """A stream without records."""

    name = "contacts"
    primary_keys = ("id",)
    replication_key = "created_until"
    schema = th.PropertiesList(
        th.Property("id", th.IntegerType(nullable=False), required=True),
        th.Property("created_until", th.DateTimeType(nullable=False)),
    ).to_dict()

    @override
    def get_records(self, context: Context | None) -> Iterable[dict[str, Any]]:
        return ()


class BareTap(Tap):
    """A tap without settings."""

    name = "tap-bare"
    config_jsonschema = th.PropertiesList().to_dict()

    @override
    def discover_streams(self) -> list[EmptyContacts]:
        return [EmptyContacts(self)]


if __name__ == "__main__":
    BareTap.cli()
