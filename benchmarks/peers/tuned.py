"""The textbook tap with msgspec, which takes one line of code each to read and to write."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import msgspec
from singer_sdk.contrib.msgspec import MsgSpecWriter
from typing_extensions import override

from benchmarks.peers.export import open_export, window_fields
from benchmarks.peers.textbook import TextbookContacts, TextbookTap

if TYPE_CHECKING:
    from collections.abc import Iterable

    from singer_sdk.helpers.types import Context


class TunedContacts(TextbookContacts):
    """Decodes lines with msgspec."""

    @override
    def get_records(self, context: Context | None) -> Iterable[dict[str, Any]]:
        constants = window_fields(self.config)
        decoder = msgspec.json.Decoder(dict[str, Any])
        with gzip.GzipFile(fileobj=open_export(self.config)) as lines:
            for line in lines:
                yield {**decoder.decode(line), **constants}


class TunedTap(TextbookTap):
    """Writes messages with the SDK's msgspec writer."""

    name = "tap-tuned"
    message_writer_class = MsgSpecWriter
    stream_class = TunedContacts


if __name__ == "__main__":
    TunedTap.cli()
