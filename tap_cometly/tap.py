"""`TapCometly`: the settings as Singer and Meltano see them, discovery, and what it is given."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import IO, TYPE_CHECKING, Any, ClassVar

from singer_sdk import Tap
from singer_sdk import typing as th
from singer_sdk.configuration._dict_config import TRUTHY
from singer_sdk.exceptions import MapExpressionError, StreamMapConfigError
from singer_sdk.helpers.capabilities import PluginCapabilities, TapCapabilities
from singer_sdk.plugin_base import JSONSchemaValidator, _ConfigInput

from tap_cometly.catalogs import follow_settings, read_catalog
from tap_cometly.errors import HIDDEN, SettingError, TapError
from tap_cometly.messages import MessageWriter
from tap_cometly.redaction import REDACTOR, clean_all_logs
from tap_cometly.settings import (
    DEFAULT_API_URL,
    DEFAULT_EXPORT_TIMEOUT_MINUTES,
    DEFAULT_LOOKBACK_DAYS,
    DEFAULT_MAX_CONCURRENT_EXPORTS,
    DEFAULT_TIMEZONE,
    MOST_CONCURRENT_EXPORTS,
    Settings,
)
from tap_cometly.signals import StopRequest
from tap_cometly.streams import OPTIONAL_FIELDS, ContactsStream
from tap_cometly.times import SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    import click
    from singer_sdk.helpers.capabilities import CapabilitiesEnum
    from singer_sdk.singerlib import Catalog

    from tap_cometly.times import Clock

_FALSY = ("false", "0", "no", "off")
_LONGEST_RULE = 100
"""A longer part of a JSON Schema is no part of a sentence."""


class TapCometly(Tap):
    """Every contact of a Cometly Space, by asynchronous exports."""

    name = "tap-cometly"
    message_writer_class = MessageWriter
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
                "IANA name of the Space's time zone, in which Cometly reads the dates of an "
                "export. It must be the one that is set in Cometly."
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
        th.Property(
            "include_comet_tokens",
            th.BooleanType,
            default=False,
            title="Include comet tokens",
            description="Adds the field `comet_tokens`: the last 5 tokens, newest first.",
        ),
        th.Property(
            "include_all_emails",
            th.BooleanType,
            default=False,
            title="Include all e-mail addresses",
            description="Adds the field `emails`: all of them, those of merged profiles included.",
        ),
        th.Property(
            "lookback_days",
            th.NumberType(minimum=0),
            default=DEFAULT_LOOKBACK_DAYS,
            title="Lookback in days",
            description=(
                "How far before its bookmark each incremental run exports again, for contacts "
                "that came late or changed."
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
            th.IntegerType(minimum=1, maximum=MOST_CONCURRENT_EXPORTS),
            default=DEFAULT_MAX_CONCURRENT_EXPORTS,
            title="Exports at a time",
            description=(
                "How many exports may be in flight: created, and their file not yet wholly read. "
                f"1 to {MOST_CONCURRENT_EXPORTS}."
            ),
        ),
        th.Property(
            "export_timeout_minutes",
            th.NumberType(exclusive_minimum=0),
            default=DEFAULT_EXPORT_TIMEOUT_MINUTES,
            title="Export time-out in minutes",
            description="How long one export may stay queued or processing after its creation.",
        ),
        th.Property(
            "api_url",
            th.URIType,
            default=DEFAULT_API_URL,
            title="API URL",
            description="Base URL of the Cometly API. Plain http only to this very machine.",
        ),
        th.Property(
            "user_agent",
            th.StringType,
            title="User agent",
            description="What the tap calls itself to Cometly: `tap-cometly/<version>` by default.",
        ),
    ).to_dict()

    def __init__(
        self,
        *args: Any,
        catalog: dict[str, Any] | Catalog | None = None,
        clock: Clock | None = None,
        **kwargs: Any,
    ) -> None:
        """Check the settings and the state.

        Args:
            *args: As for any tap.
            catalog: The catalog, as JSON or parsed.
            clock: Tells the time and waits; the machine's clock by default.
            **kwargs: As for any tap.

        Raises:
            SettingError: A setting or the state is not as it has to be.
        """
        clean_all_logs()
        self.clock: Clock = clock or SystemClock()
        self.stop = StopRequest()
        self.settings: Settings
        self._unknown_fields: set[str] = set()
        if isinstance(catalog, dict):
            catalog = read_catalog(catalog, ContactsStream.name)
        super().__init__(*args, catalog=catalog, **kwargs)

    def setup_mapper(self) -> None:
        """Bring a given catalog in line with the settings before the SDK reads it.

        Raises:
            TapError: The stream maps make no sense.
        """
        if self.input_catalog and (entry := self.input_catalog.get_stream(ContactsStream.name)):
            follow_settings(entry, ContactsStream(self).schema, OPTIONAL_FIELDS)
        try:
            super().setup_mapper()
        except (MapExpressionError, StreamMapConfigError) as error:
            why = str(error).rstrip(".")
            message = f"The setting 'stream_maps' makes no sense: {why}; correct the expression."
            raise TapError(message) from None

    def discover_streams(self) -> Sequence[ContactsStream]:
        """The one stream; needs neither network nor valid settings.

        Returns:
            `contacts`.
        """
        return [ContactsStream(self)]

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over a state after a look at its shape.

        Args:
            state: What `--state` holds.

        Raises:
            TapError: It is no Singer state.
        """
        bookmarks = state.get("bookmarks", {})
        streams = bookmarks.values() if isinstance(bookmarks, dict) else [None]
        if state and ("value" in state or not all(isinstance(one, dict) for one in streams)):
            message = (
                "The file of --state holds no Singer state; give the tap the value of a STATE "
                'line, like {"bookmarks": {"contacts": {…}}}, or none at all.'
            )
            raise TapError(message)
        super().load_state(state)

    def warn_of_unknown_field(self, field: str) -> None:
        """Warn once of a field that contacts have and the stream does not.

        Args:
            field: Its name.
        """
        if field not in self._unknown_fields:
            self._unknown_fields.add(field)
            self.logger.warning("Contacts have an unknown field '%s'; it is dropped", field)

    # Settings.

    def _validate_config(self, *, raise_errors: bool = True) -> list[str]:
        """Check every setting; the SDK's own message would name none."""
        if isinstance(api_key := self._config.get("api_key"), str) and api_key:
            REDACTOR.hide_key(api_key)
        try:
            user_agent = f"{self.name}/{self.plugin_version}"
            self.settings = Settings.read(self._config, default_user_agent=user_agent)
            self._check_sdk_settings()
        except SettingError as error:
            if raise_errors:
                raise
            return [str(error)]
        return []

    def _check_sdk_settings(self) -> None:
        """Check the settings that the SDK adds, and fill in defaults; warn of unknown ones."""
        self.append_builtin_config(self.config_jsonschema)
        for name in sorted(self._config.keys() - self.config_jsonschema["properties"].keys()):
            self.logger.warning("There is no setting '%s'; it has no effect", name)
        for error in JSONSchemaValidator(self.config_jsonschema).iter_errors(self._config):
            name = ".".join(str(part) for part in error.absolute_path) or "config"
            shown = error.instance if isinstance(error.instance, (str, int)) else HIDDEN
            rule = json.dumps(error.validator_value, default=str)
            allowed = f"of {error.validator} {rule}"
            if len(rule) > _LONGEST_RULE:
                allowed = "as 'tap-cometly --about' and the Singer SDK's documentation say"
            raise SettingError(name, shown, allowed)

    @property
    def _env_var_config(self) -> dict[str, Any]:
        """Settings from the environment; what cannot be read stays text and is refused by name."""
        config: dict[str, Any] = {}
        self.append_builtin_config(self.config_jsonschema)
        for name, schema in self.config_jsonschema["properties"].items():
            kinds = schema.get("type", ())
            # Not by the SDK, which looks for a `.env` too, upward from where it is installed.
            if text := os.environ.get(f"{self._env_var_prefix}{name.upper()}"):
                config[name] = text if "string" in kinds else _from_text(name, text, kinds)
        return config

    # The command line.

    @classmethod
    def cb_config(
        cls, ctx: click.Context, param: click.Option, value: tuple[str, ...]
    ) -> _ConfigInput:
        """Read the config files.

        Args:
            ctx: The command's context.
            param: The option `--config`.
            value: Its values: paths, or `ENV`.

        Returns:
            What they hold.

        Raises:
            TapError: A file is missing or no JSON object.
        """
        for path in value:
            if path != "ENV":
                _check_config_file(path)
        return super().cb_config(ctx, param, value)

    @classmethod
    def invoke(
        cls,
        *,
        state: IO[str] | None = None,
        catalog: IO[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Run the tap.

        Args:
            state: File of `--state`.
            catalog: File of `--catalog`.
            **kwargs: As for any tap.

        Raises:
            TapError: A file is no JSON object.
        """
        super().invoke(
            state=_json_file(state, "--state"), catalog=_json_file(catalog, "--catalog"), **kwargs
        )

    def _handle_termination(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Note a signal; the SDK would write a state in mid-window and exit 0."""
        # What the signal finds half built would complain on stderr on its way out.
        sys.unraisablehook = _say_nothing
        self.stop.request(signum)


def _say_nothing(_: object) -> None:
    """Stand in for a hook that would print a traceback."""


def _from_text(name: str, text: str, kinds: Sequence[str]) -> Any:  # noqa: ANN401
    """A setting's value from the text of an environment variable."""
    if "boolean" in kinds:
        known = {**dict.fromkeys(TRUTHY, True), **dict.fromkeys(_FALSY, False)}
        return known.get(text.lower(), text)
    try:
        if "integer" in kinds:
            return int(text)
        if "number" in kinds:
            return float(text)
        return json.loads(text)
    except ValueError:
        if {"integer", "number"} & set(kinds):
            return text
        raise SettingError(name, HIDDEN, "JSON in the environment variable") from None


def _check_config_file(path: str) -> None:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - a path from the command line
            config = json.load(file)
    except OSError as error:
        message = f"The config file '{path}' cannot be read: {error.strerror}; check --config."
        raise TapError(message) from None
    except ValueError:
        config = None
    if not isinstance(config, dict):
        message = f"The config file '{path}' is no JSON object; check its commas and quotes."
        raise TapError(message)


def _json_file(file: IO[str] | None, option: str) -> IO[str] | None:
    """The same file, after a look whether it holds a JSON object (or null, which is none)."""
    if file is None:
        return None
    try:
        text = file.read()
        content = json.loads(text) if text.strip() else None
    except ValueError:
        content = []
    if content is None:
        return None
    if not isinstance(content, dict):
        message = f"The file of {option} is no JSON object; give the tap one, or none at all."
        raise TapError(message)
    return io.StringIO(text)
