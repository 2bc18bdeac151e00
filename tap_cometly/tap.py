"""`TapCometly`: settings for Singer and Meltano, discovery, and the given catalog and state."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from singer_sdk import Tap
from singer_sdk import typing as th
from singer_sdk.helpers.capabilities import PluginCapabilities, TapCapabilities
from typing_extensions import override

from tap_cometly.errors import TapError
from tap_cometly.maps import describe_map_failure
from tap_cometly.messages import MessageWriter
from tap_cometly.redaction import REDACTOR, clean_all_logs
from tap_cometly.schema import contacts_schema, read_catalog
from tap_cometly.settings import (
    DEFAULT_API_URL,
    DEFAULT_EXPORT_TIMEOUT_MINUTES,
    DEFAULT_LOOKBACK_DAYS,
    DEFAULT_MAX_CONCURRENT_EXPORTS,
    DEFAULT_TIMEZONE,
    MAX_CONCURRENT_EXPORTS,
    OPTIONAL_FIELDS,
    Settings,
    check_against_schema,
    from_environment,
    warn_about_future_start,
    warn_about_unknown,
)
from tap_cometly.signals import StopRequest, blocked
from tap_cometly.state import read_state, warn_about_future_bookmark
from tap_cometly.streams import ContactsStream
from tap_cometly.times import SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from singer_sdk.helpers.capabilities import CapabilitiesEnum

    from tap_cometly.times import Clock


class TapCometly(Tap):
    """All contacts of a Cometly Space, through asynchronous exports."""

    name = "tap-cometly"
    capabilities: ClassVar[list[CapabilitiesEnum]] = [
        TapCapabilities.CATALOG,
        TapCapabilities.STATE,
        TapCapabilities.DISCOVER,
        PluginCapabilities.ABOUT,
        PluginCapabilities.STREAM_MAPS,
        PluginCapabilities.FLATTENING,
        PluginCapabilities.BATCH,
        PluginCapabilities.STRUCTURED_LOGGING,
    ]
    config_jsonschema = th.PropertiesList(
        th.Property(
            "api_key",
            th.StringType,
            required=True,
            secret=True,
            title="API key",
            description="Cometly API key. It belongs to one Space.",
        ),
        th.Property(
            "start_date",
            th.DateTimeType,
            required=True,
            title="Start date",
            description=(
                "Earliest creation time to export. Without an offset it is read in `timezone`."
            ),
        ),
        th.Property(
            "timezone",
            th.StringType,
            default=DEFAULT_TIMEZONE,
            title="Time zone",
            description=(
                "The Space's time zone, as set in Cometly (IANA name). Cometly reads export dates "
                "in it."
            ),
        ),
        th.Property(
            "end_date",
            th.DateTimeType,
            title="End date",
            description=(
                "Latest creation time to export, for bounded backfills. Without an offset it is "
                "read in `timezone`."
            ),
        ),
        *(
            th.Property(
                setting,
                th.BooleanType,
                default=False,
                title=f"Include {field.replace('_', ' ')}",
                description=f"Adds the field `{field}`.",
            )
            for field, setting in OPTIONAL_FIELDS.items()
        ),
        th.Property(
            "lookback_days",
            th.NumberType(minimum=0),
            default=DEFAULT_LOOKBACK_DAYS,
            title="Lookback in days",
            description=(
                "Days before the bookmark that each run exports again, to catch late and changed "
                "contacts."
            ),
        ),
        th.Property(
            "window_days",
            th.NumberType(exclusive_minimum=0),
            title="Window length in days",
            description=(
                "Fixed length of an export window, at least one minute. Without it the length "
                "follows the number of contacts."
            ),
        ),
        th.Property(
            "max_concurrent_exports",
            th.IntegerType(minimum=1, maximum=MAX_CONCURRENT_EXPORTS),
            default=DEFAULT_MAX_CONCURRENT_EXPORTS,
            title="Maximum concurrent exports",
            description=(
                "Maximum number of exports in flight: created, but not yet fully read. "
                f"1 to {MAX_CONCURRENT_EXPORTS}."
            ),
        ),
        th.Property(
            "export_timeout_minutes",
            th.NumberType(exclusive_minimum=0),
            default=DEFAULT_EXPORT_TIMEOUT_MINUTES,
            title="Export timeout in minutes",
            description=(
                "Time limit for one export, counted from its creation or from the completion of "
                "the export before it, whichever is later."
            ),
        ),
        th.Property(
            "api_url",
            th.URIType,
            default=DEFAULT_API_URL,
            title="API URL",
            description="Base URL of the Cometly API. HTTP is allowed only for localhost.",
        ),
        th.Property(
            "user_agent",
            th.StringType,
            title="User agent",
            description="User-Agent header; `tap-cometly/<version>` by default.",
        ),
    ).to_dict()

    def __init__(  # noqa: PLR0913 - all keyword-only
        self,
        *,
        config: dict[str, Any] | None = None,
        catalog: dict[str, Any] | None = None,
        state: dict[str, Any] | None = None,
        parse_env_config: bool = False,
        validate_config: bool = True,
        clock: Clock | None = None,
        stop: StopRequest | None = None,
        **kwargs: Any,
    ) -> None:
        """Check the settings, the catalog and the state.

        Args:
            config: The settings as JSON values.
            catalog: A given catalog as JSON.
            state: A given state as JSON.
            parse_env_config: Whether the environment's settings override them.
            validate_config: Whether invalid settings are an error; discovery tolerates them.
            clock: Tells the time, and waits; the machine's by default.
            stop: Handles signals; a new one by default.
            **kwargs: The SDK's other arguments.

        Raises:
            TapError: A setting, the catalog or the state is invalid.
        """
        clean_all_logs()
        self.clock: Clock = clock or SystemClock()
        self.stop = stop or StopRequest()
        self._settings: Settings | None = None
        self.append_builtin_config(self.config_jsonschema)
        if validate_config:
            warn_about_unknown(config or {}, os.environ, self.config_jsonschema)
            warn_about_future_bookmark(state, self._now())
        merged = dict(config or {})
        if parse_env_config:
            merged |= from_environment(self.config_jsonschema, os.environ)
        settings = {name: value for name, value in merged.items() if value is not None}
        if isinstance(api_key := settings.get("api_key"), str) and api_key:
            REDACTOR.hide_key(api_key)
        if validate_config:
            warn_about_future_start(settings, self._now())
            check_against_schema(settings, self.config_jsonschema)
            user_agent = f"{self.name}/{self.plugin_version}"
            self._settings = Settings.read(settings, default_user_agent=user_agent)
        with blocked():  # the SDK's own signal handlers write a state and exit with 0
            try:
                super().__init__(
                    config=settings,
                    catalog=None if catalog is None else read_catalog(catalog, settings),
                    state=state,
                    validate_config=False,
                    message_writer=MessageWriter(self.stop),
                    **kwargs,
                )
            finally:
                self.stop.install()
        # METRIC lines are for machines: at INFO only if a log configuration handles them.
        if not (self.metrics_logger.handlers or self.logger.isEnabledFor(logging.DEBUG)):
            self.metrics_logger.setLevel(logging.WARNING)

    @property
    def settings(self) -> Settings:
        """The checked settings; discovery alone may have none."""
        assert self._settings  # noqa: S101
        return self._settings

    @override
    def setup_mapper(self) -> None:
        try:
            super().setup_mapper()
        except Exception as error:  # noqa: BLE001 - an expression can raise anything
            schema = contacts_schema(self.config)
            raise TapError(
                describe_map_failure(self.config, ContactsStream.name, schema, error)
            ) from None

    @override
    def discover_streams(self) -> Sequence[ContactsStream]:
        writer: Any = self.message_writer
        return [ContactsStream(self, settings=self._settings, clock=self.clock, writer=writer)]

    @override
    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(read_state(state))
        for stream in self.streams.values():
            if isinstance(stream, ContactsStream) and stream.is_incremental:
                stream.state_manager.read_bookmark()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now(), UTC)
