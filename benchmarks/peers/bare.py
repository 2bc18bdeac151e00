"""An SDK tap that does nothing: what starting the SDK costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_sdk import Stream, Tap
from singer_sdk import typing as th

if TYPE_CHECKING:
    from collections.abc import Iterable

    from singer_sdk.helpers.types import Context


class Nothing(Stream):
    """No contacts at all."""

    name = "contacts"
    primary_keys = ("id",)
    replication_key = "created_until"
    schema = th.PropertiesList(
        th.Property("id", th.IntegerType(nullable=False), required=True),
        th.Property("created_until", th.DateTimeType(nullable=False)),
    ).to_dict()

    def get_records(self, context: Context | None) -> Iterable[dict[str, Any]]:  # noqa: ARG002
        """Read nothing.

        Args:
            context: Not used.

        Returns:
            No records.
        """
        return ()


class BareTap(Tap):
    """A tap without settings."""

    name = "tap-bare"
    config_jsonschema = th.PropertiesList().to_dict()

    def discover_streams(self) -> list[Nothing]:
        """Give the one stream.

        Returns:
            `contacts`.
        """
        return [Nothing(self)]


if __name__ == "__main__":
    BareTap.cli()
