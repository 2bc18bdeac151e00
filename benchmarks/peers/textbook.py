"""A tap as the SDK's guide describes it: a stream with `get_records`, `json.loads` per line."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any, ClassVar

from singer_sdk import Stream, Tap
from singer_sdk import typing as th
from typing_extensions import override

from benchmarks.peers.export import open_export, window_fields

if TYPE_CHECKING:
    from collections.abc import Iterable

    from singer_sdk.helpers.types import Context

_OPTIONAL = {"comet_tokens": "include_comet_tokens", "emails": "include_all_emails"}
_PROPERTIES: list[th.Property[Any]] = [
    th.Property("id", th.IntegerType(nullable=False), required=True),
    th.Property("email", th.StringType),
    th.Property("name", th.StringType),
    th.Property("phone", th.StringType),
    th.Property("location", th.StringType),
    th.Property("comet_tokens", th.ArrayType(th.StringType)),
    th.Property("emails", th.ArrayType(th.StringType)),
    th.Property("created_from", th.DateTimeType(nullable=False)),
    th.Property("created_until", th.DateTimeType(nullable=False)),
]


class TextbookContacts(Stream):
    """The contacts of one export."""

    name = "contacts"
    primary_keys = ("id",)
    replication_key = "created_until"

    def __init__(self, tap: Tap) -> None:
        properties = [
            one
            for one in _PROPERTIES
            if one.name not in _OPTIONAL or tap.config.get(_OPTIONAL[one.name])
        ]
        super().__init__(tap, schema=th.PropertiesList(*properties).to_dict())

    @override
    def get_records(self, context: Context | None) -> Iterable[dict[str, Any]]:
        constants = window_fields(self.config)
        with gzip.GzipFile(fileobj=open_export(self.config)) as lines:
            for line in lines:
                yield {**json.loads(line), **constants}


class TextbookTap(Tap):
    """A tap with the SDK's defaults."""

    name = "tap-textbook"
    config_jsonschema = th.PropertiesList(
        th.Property("api_key", th.StringType, required=True, secret=True),
        th.Property("start_date", th.DateTimeType, required=True),
        th.Property("end_date", th.DateTimeType, required=True),
        th.Property("include_comet_tokens", th.BooleanType, default=False),
        th.Property("include_all_emails", th.BooleanType, default=False),
        th.Property("api_url", th.StringType, required=True),
    ).to_dict()
    stream_class: ClassVar[type[TextbookContacts]] = TextbookContacts

    @override
    def discover_streams(self) -> list[TextbookContacts]:
        return [self.stream_class(self)]


if __name__ == "__main__":
    TextbookTap.cli()
