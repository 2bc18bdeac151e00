"""The tuned tap, with the SDK's conforming of types switched off and a faster gzip as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from isal.igzip import GzipFile
from singer_sdk.helpers.conform import TypeConformanceLevel

from benchmarks.peers.export import open_export, window_fields
from benchmarks.peers.tuned import TunedContacts, TunedTap

if TYPE_CHECKING:
    from collections.abc import Iterable

    from singer_sdk.helpers.types import Context


class UncheckedContacts(TunedContacts):
    """Trusts that the file has the types of the schema."""

    TYPE_CONFORMANCE_LEVEL = TypeConformanceLevel.NONE

    def get_records(self, context: Context | None) -> Iterable[dict[str, Any]]:  # noqa: ARG002
        """Read the contacts of the export.

        Args:
            context: Not used.

        Yields:
            Records.
        """
        constants = window_fields(self.config)
        decoder = msgspec.json.Decoder(dict[str, Any])
        with GzipFile(fileobj=open_export(self.config)) as lines:  # type: ignore[no-untyped-call]
            for line in lines:
                yield {**decoder.decode(line), **constants}


class UncheckedTap(TunedTap):
    """As fast as the SDK's own loop goes without touching its private members."""

    name = "tap-unchecked"
    stream_class = UncheckedContacts


if __name__ == "__main__":
    UncheckedTap.cli()
