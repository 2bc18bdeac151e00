"""The tuned tap without the SDK's type conversion and with a faster gzip library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from isal.igzip import GzipFile
from singer_sdk.helpers.conform import TypeConformanceLevel
from typing_extensions import override

from benchmarks.peers.export import open_export, window_fields
from benchmarks.peers.tuned import TunedContacts, TunedTap

if TYPE_CHECKING:
    from collections.abc import Iterable

    from singer_sdk.helpers.types import Context


class UncheckedContacts(TunedContacts):
    """Assumes that the file matches the schema."""

    TYPE_CONFORMANCE_LEVEL = TypeConformanceLevel.NONE

    @override
    def get_records(self, context: Context | None) -> Iterable[dict[str, Any]]:
        constants = window_fields(self.config)
        decoder = msgspec.json.Decoder(dict[str, Any])
        with GzipFile(fileobj=open_export(self.config)) as lines:  # type: ignore[no-untyped-call]
            for line in lines:
                yield {**decoder.decode(line), **constants}


class UncheckedTap(TunedTap):
    """As fast as the SDK's loop gets without use of private members."""

    name = "tap-unchecked"
    stream_class = UncheckedContacts


if __name__ == "__main__":
    UncheckedTap.cli()
