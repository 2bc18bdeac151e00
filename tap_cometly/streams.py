"""The stream `contacts`: its schema, its bookmark, and the order RECORD … STATE.

The bookmark belongs to windows, not to records: it is the end of the last window whose records are
all handed over. So the SDK's own bookkeeping, which follows records, is switched off, and a STATE
line goes out here and nowhere else (but for the one with which the SDK repeats the given state at
the start).

`tests/test_sdk.py` lists the SDK's private members that are overridden or used, and guards them.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from singer_sdk import Stream
from singer_sdk.batch import Batcher
from singer_sdk.exceptions import AbortedSyncFailedException, AbortedSyncPausedException
from singer_sdk.helpers.conform import TypeConformanceLevel
from singer_sdk.mapper import SameRecordTransform
from singer_sdk.schema.source import SchemaDirectory, StreamSchema
from singer_sdk.singerlib import Schema
from singer_sdk.singerlib.catalog import REPLICATION_FULL_TABLE
from singer_sdk.singerlib.encoding.simple import StateMessage

from tap_cometly.batches import write_jsonl
from tap_cometly.client import CometlyClient
from tap_cometly.contacts import WINDOW_FIELDS, ContactReader, RecordLines, to_record
from tap_cometly.errors import SettingError, TapError
from tap_cometly.exports import Exports, error_context
from tap_cometly.files import Storage
from tap_cometly.progress import Progress
from tap_cometly.times import format_utc, read_instant
from tap_cometly.windows import WindowPlan, sync_range

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping
    from importlib.resources.abc import Traversable

    from msgspec import Struct
    from singer_sdk.helpers._batch import BaseBatchFileEncoding, BatchConfig
    from singer_sdk.helpers.types import Context, Record
    from singer_sdk.singerlib import RecordMessage

    from tap_cometly.exports import Export
    from tap_cometly.messages import MessageWriter
    from tap_cometly.tap import TapCometly
    from tap_cometly.windows import Window

_TRIAL_ENDS = (AbortedSyncFailedException, AbortedSyncPausedException)
"""What the SDK ends a trial run (`--test`) with."""
_EXPECTED_ENDS = (TapError, *_TRIAL_ENDS)
"""These and errors with a message for the user."""

OPTIONAL_FIELDS = {
    "comet_tokens": "include_comet_tokens",
    "emails": "include_all_emails",
}
"""Fields that are there exactly when their setting is on."""


def schema_directory() -> Traversable:
    """Where the JSON Schemas are: in an installed package, or beside the package in a checkout."""
    inside = resources.files("tap_cometly") / "schemas"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "schemas"


class ContactsSchema(StreamSchema):
    """`schemas/contacts.json`, without the optional fields whose setting is off."""

    def get_stream_schema(self, stream: Any, stream_class: type[Any]) -> dict[str, Any]:  # noqa: ANN401
        """The schema for a stream's settings.

        Args:
            stream: The stream.
            stream_class: Its class.

        Returns:
            A JSON Schema.
        """
        schema = super().get_stream_schema(stream, stream_class)
        properties = {
            name: definition
            for name, definition in schema["properties"].items()
            if name not in OPTIONAL_FIELDS or stream.config.get(OPTIONAL_FIELDS[name]) is True
        }
        return {**schema, "properties": properties}


class ContactsStream(Stream):
    """Every contact of a Space, by windows of creation time."""

    name = "contacts"
    primary_keys = ("id",)
    replication_key = "created_until"
    schema: ClassVar[StreamSchema] = ContactsSchema(SchemaDirectory(schema_directory()))

    def __init__(self, tap: TapCometly) -> None:
        """Belong to a tap.

        Args:
            tap: The tap, with its settings, clock, stop request and message writer.
        """
        super().__init__(tap)
        self._tap: TapCometly
        vars(self)["schema"] = self.schema  # once: the SDK asks for it at every record
        self._bookmark: datetime | None = None

    # What a window's contacts become: lines, SDK messages or batch files.

    def _sync_records(
        self, context: Context | None = None, *, write_messages: bool = True
    ) -> Generator[dict[str, Any], None, None]:
        """Write the contacts: in blocks, or one by one where something asks for that."""
        try:
            if write_messages and context is None and self._takes_blocks():
                self._sync_blocks()
            else:
                yield from super()._sync_records(context, write_messages=write_messages)
        except _TRIAL_ENDS:
            self.logger.info("The trial is over: a contact was read, so the settings work")
            raise
        finally:
            self._writer.flush()

    def _takes_blocks(self) -> bool:
        """Whether nothing asks for single records: no map, limit, version or edited schema."""
        stream_map, *more_maps = self.stream_maps
        return (
            not more_maps
            and type(stream_map) is SameRecordTransform
            and stream_map.stream_alias == self.name
            and not stream_map.flattening_enabled
            and self._schema_is_unedited
            and self.ABORT_AT_RECORD_COUNT is None
            and self._stream_version is None
        )

    @cached_property
    def _schema_is_unedited(self) -> bool:
        """Whether a catalog, if there is one, has the schema that discovery gave it."""
        return self.effective_schema in (self.schema, Schema.from_dict(self.schema).to_dict())

    def _sync_blocks(self) -> None:
        with self.get_record_counter() as counter, self.get_sync_timer():
            for export in self._exports():
                lines = RecordLines(self.name, self._window_fields(export.window))
                for contacts in self._contacts(export):
                    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
                    self._writer.write_lines(lines.encode(contacts, now))
                    counter.increment(len(contacts))

    def get_records(self, context: Context | None) -> Iterator[dict[str, Any]]:  # noqa: ARG002
        """The contacts one by one, for the SDK's own loop.

        Args:
            context: Not used: the stream has no partitions.

        Yields:
            Records.
        """
        for export in self._exports():
            window_fields = self._window_fields(export.window)
            for contacts in self._contacts(export):
                for contact in contacts:
                    yield to_record(contact, window_fields)

    def get_batches(
        self,
        batch_config: BatchConfig,
        context: Context | None = None,  # noqa: ARG002
    ) -> Iterable[tuple[BaseBatchFileEncoding, list[str]]]:
        """The contacts in files, which end where a window ends: so may a STATE line.

        Args:
            batch_config: Where and how to write the files.
            context: Not used: the stream has no partitions.

        Yields:
            The files' encoding and locations.

        Raises:
            TapError: Stream maps would make several streams of one, or a file could not be
                written.
        """
        if len(self.stream_maps) > 1:
            message = (
                "Batch files hold one stream, and the setting 'stream_maps' makes several of it; "
                "leave out 'batch_config', or those maps."
            )
            raise TapError(message)
        with self.get_record_counter() as counter, self.get_sync_timer():
            for export in self._exports():
                try:
                    for manifest in self._batch_files(export, batch_config):
                        yield batch_config.encoding, manifest
                except ImportError as error:  # such as pyarrow, for parquet
                    message = (
                        f"A batch file could not be written: {error}; check the setting "
                        "'batch_config'."
                    )
                    raise TapError(message) from None
                counter.increment(export.contacts)

    def _batch_files(self, export: Export, batch_config: BatchConfig) -> Iterator[list[str]]:
        """Write an export's contacts into files, and give the locations of each."""
        name = f"{self.tap_name}--{self.name}"
        if batch_config.encoding.format != "jsonl":
            records = chain.from_iterable(self._mapped_records(export))
            return Batcher(self.tap_name, self.name, batch_config).get_batches(records)
        if self._takes_blocks():
            lines = RecordLines(self.name, self._window_fields(export.window))
            return write_jsonl(self._contacts(export), lines.encode_records, batch_config, name)
        encode = msgspec.json.Encoder(decimal_format="number").encode_lines
        return write_jsonl(self._mapped_records(export), encode, batch_config, name)

    def _mapped_records(self, export: Export) -> Iterator[list[Record]]:
        """The contacts as RECORD messages would hold them: the SDK's batches know no maps."""
        window_fields = self._window_fields(export.window)
        for contacts in self._contacts(export):
            yield [
                message.record
                for contact in contacts
                for message in self._generate_record_messages(to_record(contact, window_fields))
            ]

    def _generate_record_messages(self, record: Record) -> Generator[RecordMessage, None, None]:
        """The RECORD messages of a contact; one for each stream map.

        Raises:
            TapError: A stream map does not suit it. What the map says of it stays unsaid.
        """
        try:
            yield from super()._generate_record_messages(record)
        except Exception as error:  # noqa: BLE001 - an expression can raise anything
            message = (
                f"A stream map failed on a contact ({type(error).__name__}); check the setting "
                "'stream_maps': fields may be null, as in \"md5(email) if email else None\"."
            )
            raise TapError(message) from None

    def get_batch_config(self, config: Mapping[str, Any]) -> BatchConfig | None:
        """The batch configuration; none for a trial of a few records.

        Args:
            config: The settings.

        Returns:
            Where and how to write files, or None for RECORD messages.
        """
        return None if self.ABORT_AT_RECORD_COUNT is not None else super().get_batch_config(config)

    @property
    def TYPE_CONFORMANCE_LEVEL(self) -> TypeConformanceLevel:  # type: ignore[override]  # noqa: N802
        """None needed, as contacts are checked already; unless a catalog's schema was edited."""
        if self._schema_is_unedited:
            return TypeConformanceLevel.NONE
        return TypeConformanceLevel.RECURSIVE

    # Windows, exports and files, from the bookmark to the end of the range.

    def _exports(self) -> Iterator[Export]:
        """The exports of this sync; asking for the next one finishes the window of the last."""
        settings, clock = self._tap.settings, self._tap.clock
        if self.ABORT_AT_RECORD_COUNT is not None:  # a trial needs no exports ahead
            settings = replace(settings, max_concurrent_exports=1)
        self._bookmark = self._read_bookmark()
        sync = sync_range(
            start_date=settings.start_date,
            end_date=settings.end_date,
            bookmark=self._bookmark,
            lookback_days=settings.lookback_days,
            now=datetime.fromtimestamp(clock.now(), UTC),
            zone=settings.zone,
        )
        if sync is None:
            why = "is complete up to the bookmark" if self._bookmark else "has not begun yet"
            self.logger.info("Nothing to do: the range from start_date on %s", why)
            return
        progress = Progress(*sync, settings.zone, clock.monotonic())
        self.logger.info("%s", progress.opening())
        plan = WindowPlan(*sync, settings.zone, settings.window_seconds)
        exports = Exports(
            plan,
            CometlyClient(settings, clock),
            Storage(settings.user_agent, clock),
            clock,
            settings,
        )
        for export in self._tap.stop.drawn_interruptibly(iter(exports)):
            yield export
            self._finish(export.window)
            now = clock.monotonic()
            self.logger.info("%s", progress.window_done(export.window, export.contacts, now))
        self.logger.info("%s", progress.closing(clock.monotonic()))

    def _contacts(self, export: Export) -> Iterator[list[Struct]]:
        """The contacts of an export's file, in blocks; counts them."""
        reader = ContactReader(
            self.schema,
            selected=lambda field: self.mask["properties", field],
            on_unknown_field=self._tap.warn_of_unknown_field,
        )
        with error_context(export):
            # By `map`, which forgets a block as soon as its contacts are read.
            contacts_of_blocks = map(reader.read, export.blocks())
            for contacts in self._tap.stop.drawn_interruptibly(contacts_of_blocks):
                export.contacts += len(contacts)
                yield contacts

    def _window_fields(self, window: Window) -> dict[str, str]:
        bounds = dict(
            zip(WINDOW_FIELDS, (format_utc(window.start), format_utc(window.end)), strict=True)
        )
        return {name: value for name, value in bounds.items() if self.mask["properties", name]}

    # The bookmark.

    @property
    def _is_incremental(self) -> bool:
        return self.replication_method != REPLICATION_FULL_TABLE

    def _read_bookmark(self) -> datetime | None:
        """The end of the last window that an earlier run finished.

        Raises:
            SettingError: It is no date-time.
        """
        state = self.stream_state
        value = state.get("replication_key_value")
        if not self._is_incremental or value is None:
            return None
        if state.get("replication_key", self.replication_key) != self.replication_key:
            self.logger.warning(
                "The state's bookmark is for the replication key '%s', not '%s': starting anew",
                state["replication_key"],
                self.replication_key,
            )
            return None
        bookmark = read_instant(value, UTC) if isinstance(value, str) else None
        if bookmark is None:
            allowed = "an ISO 8601 date-time like 2024-01-15T00:00:00+00:00, or null"
            raise SettingError("replication_key_value", value, allowed, kind="The state's bookmark")
        return bookmark

    def _finish(self, window: Window) -> None:
        """Claim a window whose contacts are all handed over."""
        if not self._is_incremental:
            return
        if self._bookmark is None or window.end > self._bookmark:
            self._bookmark = window.end
            self.stream_state["replication_key"] = self.replication_key
            self.stream_state["replication_key_value"] = format_utc(window.end)
        self._tap.write_message(StateMessage(value=self.tap_state))

    @property
    def _writer(self) -> MessageWriter:
        return self._tap.message_writer  # type: ignore[return-value]

    def log(self, message: str, *args: Any, level: int = logging.INFO, **kwargs: Any) -> None:
        """Log, but for the SDK's claim that an expected end of a run is an unhandled error.

        Args:
            message: The message.
            *args: Its arguments.
            level: Its level.
            **kwargs: As for any logger.
        """
        if level < logging.ERROR or not isinstance(sys.exception(), _EXPECTED_ENDS):
            super().log(message, *args, level=level, **kwargs)

    # The SDK's bookkeeping by records, switched off.

    def _process_record(
        self,
        record: Record,
        child_context: Context | None = None,
        partition_context: Context | None = None,
    ) -> None:
        """Nothing: the stream has neither children nor partitions."""

    def get_replication_key_signpost(self, context: Context | None = None) -> None:
        """None: a bookmark is never later than the end of a finished window.

        Args:
            context: Not used: the stream has no partitions.
        """

    def _write_starting_replication_value(self, context: Context | None) -> None:
        """Nothing: the bookmark is read once, when the sync starts."""

    def _increment_stream_state(
        self, latest_record: Record, *, context: Context | None = None
    ) -> None:
        """Nothing: a record moves no bookmark."""

    def _write_state_message(self) -> None:
        """Nothing: the SDK would write STATE in the midst of a window too."""
