"""The stream `contacts`: SCHEMA, then RECORD messages and a STATE line for each window."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec
from singer_sdk import Stream
from singer_sdk.batch import Batcher
from singer_sdk.helpers.conform import TypeConformanceLevel
from singer_sdk.mapper import SameRecordTransform
from singer_sdk.singerlib import Schema
from singer_sdk.singerlib.catalog import REPLICATION_FULL_TABLE
from singer_sdk.singerlib.encoding.simple import StateMessage
from typing_extensions import override

from tap_cometly.batches import explained, write_jsonl
from tap_cometly.contacts import WINDOW_FIELDS, ContactReader, RecordLines, to_record
from tap_cometly.errors import TapError
from tap_cometly.maps import describe_map_failure
from tap_cometly.schema import PRIMARY_KEYS, contacts_schema
from tap_cometly.state import REPLICATION_KEY, STREAM, WindowStateManager
from tap_cometly.sync import newest_first, windows_of_contacts
from tap_cometly.times import format_utc

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping

    from msgspec import Struct
    from singer_sdk import Tap
    from singer_sdk.helpers._batch import BaseBatchFileEncoding, BatchConfig
    from singer_sdk.helpers.types import Context, Record
    from singer_sdk.metrics import Counter
    from singer_sdk.singerlib import RecordMessage

    from tap_cometly.messages import MessageWriter
    from tap_cometly.settings import Settings
    from tap_cometly.times import Clock
    from tap_cometly.windows import Window


class ContactsStream(Stream):
    """Every contact of a Space, by windows of creation time."""

    name = STREAM
    primary_keys = PRIMARY_KEYS
    replication_key = REPLICATION_KEY

    def __init__(
        self, tap: Tap, *, settings: Settings | None, clock: Clock, writer: MessageWriter
    ) -> None:
        """Prepare the stream.

        Args:
            tap: The tap.
            settings: Its settings; None if they are invalid, which discovery tolerates.
            clock: Tells the time, and waits.
            writer: Writes to stdout.
        """
        super().__init__(tap, schema=contacts_schema(tap.config))
        self._settings = settings
        self._clock = clock
        self._writer = writer
        self._state = WindowStateManager(
            tap_name=tap.name, stream_name=self.name, tap_state=tap.state
        )

    @property
    @override
    def state_manager(self) -> WindowStateManager:
        return self._state

    @property
    @override
    def partitions(self) -> None:
        return None  # not even those of a foreign state

    @property
    def is_incremental(self) -> bool:
        """Whether the stream reads and moves a bookmark."""
        return self.replication_method != REPLICATION_FULL_TABLE

    # Windows, and the bookmark.

    def _windows(self) -> Iterator[tuple[Window, Iterator[list[Struct]]]]:
        """Windows and their contacts; asking for the next window finishes the one before."""
        assert self._settings  # noqa: S101 - only discovery has none
        bookmark = self._state.bookmark  # none for FULL_TABLE: it is not read
        windows = windows_of_contacts(self._settings, bookmark, self._reader, self._clock)
        for window, contacts in windows:
            yield window, contacts
            if self.is_incremental:
                self._state.advance(window.end)
                self._write_state()
        if self.tap_state and not self.is_incremental:
            self._write_state()

    def _write_state(self) -> None:
        self._writer.write_message(StateMessage(value=self.tap_state))

    @cached_property
    def _reader(self) -> ContactReader:
        own, given = self.schema["properties"], self.effective_schema["properties"]
        added = {name: given[name] for name in given if name not in own}
        return ContactReader(
            {**self.schema, "properties": {**own, **added}},
            selected=lambda field: self.mask["properties", field],
            added=added,
        )

    def _window_fields(self, window: Window) -> dict[str, str]:
        values = (format_utc(window.start), format_utc(window.end))
        bounds = dict(zip(WINDOW_FIELDS, values, strict=True))
        return {name: value for name, value in bounds.items() if self.mask["properties", name]}

    # Contacts as RECORD messages.

    @override
    def get_records(self, context: Context | None) -> Iterator[dict[str, Any]]:
        """Write contacts in blocks if possible, else hand them to the SDK's loop as records.

        Yields:
            Records; none if they are written here.
        """
        try:
            if self.ABORT_AT_RECORD_COUNT == 1:  # `--test`
                yield from self._newest_record()
            elif self._can_write_blocks():
                self._write_blocks()
            else:
                for window, contacts in self._windows():
                    yield from self._records(window, contacts)
        finally:
            self._writer.flush()

    def _can_write_blocks(self) -> bool:
        """Whether nothing needs single records: no map, limit, version or edited schema."""
        stream_map, *more_maps = self.stream_maps
        return (
            not more_maps
            and type(stream_map) is SameRecordTransform
            and stream_map.stream_alias == self.name
            and not stream_map.flattening_enabled
            and self._schema_is_unedited
            and self.ABORT_AT_RECORD_COUNT is None
            and (self.is_incremental or not self.emit_activate_version_messages)
        )

    @cached_property
    def _schema_is_unedited(self) -> bool:
        """Whether a given catalog, if there is one, has the schema of discovery."""
        return self.effective_schema in (self.schema, Schema.from_dict(self.schema).to_dict())

    def _write_blocks(self) -> None:
        counter = self.get_record_counter()
        for window, blocks in self._windows():
            lines = RecordLines(self.name, self._window_fields(window))
            for contacts in _counted(blocks, counter):
                now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
                self._writer.write_lines(lines.encode(contacts, now))

    def _records(self, window: Window, blocks: Iterator[list[Struct]]) -> Iterator[dict[str, Any]]:
        window_fields = self._window_fields(window)
        for contact in chain.from_iterable(blocks):
            yield to_record(contact, window_fields)

    def _newest_record(self) -> Iterator[dict[str, Any]]:
        assert self._settings  # noqa: S101 - only discovery has none
        for window, blocks in newest_first(self._settings, self._reader, self._clock):
            for record in self._records(window, blocks):
                if any(self._generate_record_messages(dict(record))):  # no map's filter drops it
                    yield record
                    self.logger.info("Test passed: the settings work, and a contact was read")
                    return
        self.logger.info("Test passed: the settings work; the range has no contacts to emit")

    @override
    def get_record_counter(self, **kwargs: Any) -> Counter:
        """One counter per sync, for the SDK's loop and for blocks."""
        return self._record_counter

    @cached_property
    def _record_counter(self) -> Counter:
        return super().get_record_counter()

    @override
    def generate_child_contexts(
        self, record: Record, context: Context | None
    ) -> Iterable[Context | None]:
        return ()  # the SDK would evaluate a map's filter here too, outside the error handling

    @override
    def _generate_record_messages(self, record: Record) -> Generator[RecordMessage, None, None]:
        """The RECORD messages of a contact; one for each stream map.

        Raises:
            TapError: A stream map failed. Its own message may quote the contact.
        """
        try:
            yield from super()._generate_record_messages(record)
        except Exception as error:  # noqa: BLE001 - an expression can raise anything
            schema = self.effective_schema
            raise TapError(
                describe_map_failure(self.config, self.name, schema, error, record)
            ) from None

    @property
    def TYPE_CONFORMANCE_LEVEL(self) -> TypeConformanceLevel:  # type: ignore[override]  # noqa: N802
        """Off, as contacts are already checked, unless the catalog's schema was edited."""
        if self._schema_is_unedited:
            return TypeConformanceLevel.NONE
        return TypeConformanceLevel.RECURSIVE

    # Contacts as batch files.

    @override
    def get_batch_config(self, config: Mapping[str, Any]) -> BatchConfig | None:
        """The batch configuration; none if the number of records is limited, as by `--test`."""
        batch_config = super().get_batch_config(config)
        if batch_config is None or self.ABORT_AT_RECORD_COUNT is not None:
            return None
        batch_config.batch_size = int(batch_config.batch_size)  # JSON may say 2.0
        return batch_config

    @override
    def get_batches(
        self, batch_config: BatchConfig, context: Context | None = None
    ) -> Iterable[tuple[BaseBatchFileEncoding, list[str]]]:
        """The contacts in files, each of one window, so that a STATE line may follow any file.

        Raises:
            TapError: Stream maps split the stream into several, or a file could not be written.
        """
        if len(self.stream_maps) > 1:
            message = (
                "Batch files hold one stream, and the setting 'stream_maps' makes several; remove "
                "'batch_config' or those maps."
            )
            raise TapError(message)
        with self.get_record_counter() as counter:
            for window, blocks in self._windows():
                contacts = _counted(blocks, counter)
                for manifest in self._batch_files(window, contacts, batch_config):
                    yield batch_config.encoding, manifest

    def _batch_files(
        self, window: Window, contacts: Iterator[list[Struct]], batch_config: BatchConfig
    ) -> Iterator[list[str]]:
        """Write a window's contacts into files, and yield the locations of each."""
        name = f"{self.tap_name}--{self.name}"
        if batch_config.encoding.format != "jsonl":
            records = chain.from_iterable(self._mapped_records(window, contacts))
            batches = Batcher(self.tap_name, self.name, batch_config).get_batches(records)
            return explained(batches)
        if self._can_write_blocks():
            lines = RecordLines(self.name, self._window_fields(window))
            return write_jsonl(contacts, lines.encode_records, batch_config, name)
        encode = msgspec.json.Encoder(decimal_format="number").encode_lines
        return write_jsonl(self._mapped_records(window, contacts), encode, batch_config, name)

    def _mapped_records(
        self, window: Window, blocks: Iterator[list[Struct]]
    ) -> Iterator[list[Record]]:
        """The records of RECORD messages, in blocks: the SDK does not apply maps to batches."""
        window_fields = self._window_fields(window)
        for contacts in blocks:
            yield [
                message.record
                for contact in contacts
                for message in self._generate_record_messages(to_record(contact, window_fields))
            ]

    # The log.

    @property
    @override
    def logger(self) -> logging.Logger:
        return logging.getLogger(self.tap_name)

    @override
    def log(self, message: str, *args: Any, level: int = logging.INFO, **kwargs: Any) -> None:
        """Log, except the SDK's "unhandled error" for an error with a message for the user."""
        if level < logging.ERROR or not isinstance(sys.exception(), TapError):
            self.logger.log(level, message, *args, **kwargs)


def _counted(blocks: Iterator[list[Struct]], counter: Counter) -> Iterator[list[Struct]]:
    for contacts in blocks:
        counter.increment(len(contacts))
        yield contacts
