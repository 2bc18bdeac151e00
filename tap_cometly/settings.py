"""The settings: checked against their JSON Schema first, then converted to what the tap works with.

Their titles, descriptions and schema are in `tap`.
"""

from __future__ import annotations

import difflib
import json
import logging
import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from jsonschema import Draft202012Validator

from tap_cometly.errors import MissingSettingError, SettingError, TapError
from tap_cometly.redaction import HIDDEN
from tap_cometly.times import (
    DAY_SECONDS,
    LONGER_THAN_ANY_RANGE_SECONDS,
    MINUTE_SECONDS,
    format_utc,
    read_instant,
)
from tap_cometly.transport import is_possible_host, is_safe_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime, tzinfo

    from jsonschema import ValidationError

DEFAULT_API_URL = "https://app.cometly.com/public-api/v1"
DEFAULT_TIMEZONE = "UTC"
DEFAULT_LOOKBACK_DAYS = 1
DEFAULT_MAX_CONCURRENT_EXPORTS = 25
DEFAULT_EXPORT_TIMEOUT_MINUTES = 30
MAX_CONCURRENT_EXPORTS = 25
OPTIONAL_FIELDS = {
    "comet_tokens": "include_comet_tokens",
    "emails": "include_all_emails",
}
"""Optional fields, and the setting that adds each; the API's option has the setting's name."""

ENVIRONMENT_PREFIX = "TAP_COMETLY_"
_OTHER_VARIABLES = ("TAP_COMETLY_LOGLEVEL", "TAP_COMETLY_PIP_URL")
_BOOLEANS = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}
_NOT_A_ZONE = ("localtime", "posix", "right/")
"""Files among the zones that are not zone names: the local zone, copies, leap-second zones."""
_FIRST_YEAR = 1900
_VISIBLE_ASCII = re.compile(r"[!-~]+")
_HEADER_TEXT = re.compile(r"[!-~]([ -~]*[!-~])?")

_DATE = "a date like 2024-01-15 or 2024-01-15T00:00:00Z, from 1900 on"
_ZONE = "an IANA time zone name like America/New_York"
_URL = "an https URL, or http for localhost, 127.0.0.1 or ::1, without user info or a query"
_WINDOW_DAYS = "a number of days, at least one minute (0.000695)"
_SENTENCES = {
    "start_date": _DATE,
    "end_date": _DATE,
    "timezone": _ZONE,
    "api_url": _URL,
    "window_days": _WINDOW_DAYS,
}
_KINDS = {
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "string": "text",
    "object": "an object",
    "array": "a list",
}

_ELSE: dict[str, Any] = {"properties": {"__else__": {"enum": ["__NULL__", None]}}}
"""The SDK's schema for `__else__` is malformed and crashes on invalid values: checked first."""
_SDK_RULES: dict[str, Any] = {
    "properties": {
        "stream_maps": {**_ELSE, "additionalProperties": _ELSE},
        "batch_config": {
            "required": ["encoding", "storage"],
            "additionalProperties": False,
            "properties": {
                "encoding": {
                    "type": "object",
                    "required": ["format"],
                    "additionalProperties": False,
                    "properties": {
                        "format": {"enum": ["jsonl", "parquet"]},
                        "compression": {"enum": ["gzip", "none", None]},
                    },
                },
                "storage": {
                    "type": "object",
                    "required": ["root"],
                    "additionalProperties": False,
                    "properties": {
                        "root": {"type": "string", "minLength": 1},
                        "prefix": {"type": ["string", "null"]},
                        "params": {"type": ["object", "null"]},
                    },
                },
                "batch_size": {"type": "integer", "minimum": 1},
            },
        },
        "flattening_max_depth": {"type": "integer", "minimum": 0},
        "flattening_max_key_length": {"type": "integer", "minimum": 1},
    },
    "if": {
        "required": ["flattening_enabled"],
        "properties": {"flattening_enabled": {"const": True}},
    },
    "then": {"required": ["flattening_max_depth"]},
}
"""What the SDK expects of its settings but does not say in its schema."""

logger = logging.getLogger("tap-cometly")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The tap's own settings, checked.

    Attributes:
        api_key: Cometly API key of one Space. A secret.
        start_date: Earliest creation time to export; UTC, whole seconds.
        end_date: Latest creation time to export; UTC, whole seconds; None for no bound.
        zone: The Space's time zone.
        field_options: The options of an export that add optional fields.
        lookback_days: How many days before the bookmark are exported again.
        window_seconds: Fixed length of an export window; None for adaptive lengths.
        max_concurrent_exports: Upper limit on exports in flight.
        export_timeout_seconds: How long one export may stay queued or processing.
        api_url: Base URL of the API, without a slash at its end.
        user_agent: The User-Agent header.
    """

    api_key: str
    start_date: datetime
    end_date: datetime | None
    zone: tzinfo
    field_options: tuple[str, ...]
    lookback_days: float
    window_seconds: float | None
    max_concurrent_exports: int
    export_timeout_seconds: float
    api_url: str
    user_agent: str

    @classmethod
    def read(cls, config: Mapping[str, Any], *, default_user_agent: str) -> Settings:
        """Convert settings that passed the check against their schema.

        Args:
            config: The settings as JSON values, without nulls.
            default_user_agent: The User-Agent header if `user_agent` is not set.

        Raises:
            TapError: A setting is missing or invalid.
        """
        zone = read_timezone(config.get("timezone", DEFAULT_TIMEZONE))
        api_key = _api_key(config)
        start_date = _date(config, "start_date", zone)
        if start_date is None:
            raise MissingSettingError("start_date")
        end_date = _date(config, "end_date", zone)
        if end_date is not None and end_date < start_date:
            raise SettingError("end_date", config["end_date"], "at or after start_date")
        timeout_minutes = _finite(config, "export_timeout_minutes", DEFAULT_EXPORT_TIMEOUT_MINUTES)
        return cls(
            api_key=api_key,
            start_date=start_date,
            end_date=end_date,
            zone=zone,
            field_options=tuple(name for name in OPTIONAL_FIELDS.values() if config.get(name)),
            lookback_days=_finite(config, "lookback_days", DEFAULT_LOOKBACK_DAYS),
            window_seconds=_window_seconds(config),
            max_concurrent_exports=int(
                config.get("max_concurrent_exports", DEFAULT_MAX_CONCURRENT_EXPORTS)
            ),
            export_timeout_seconds=timeout_minutes * MINUTE_SECONDS,
            api_url=_api_url(config),
            user_agent=_user_agent(config, default_user_agent),
        )


def from_environment(schema: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Settings from environment variables; an empty variable counts as not set.

    Args:
        schema: The settings' JSON Schema; it decides how each variable is parsed.
        environment: The variables.

    Returns:
        The settings. A value that cannot be parsed stays a string, which the schema rejects.

    Raises:
        SettingError: A variable that must hold a JSON object is not JSON.
    """
    return {
        name: _parsed(name, text, definition.get("type", ()))
        for name, definition in schema["properties"].items()
        if (text := environment.get(ENVIRONMENT_PREFIX + name.upper()))
    }


def _parsed(name: str, text: str, types: Iterable[str]) -> Any:  # noqa: ANN401 - any JSON value
    if "string" in types:
        return text
    if "boolean" in types:
        return _BOOLEANS.get(text.lower(), text)
    try:
        return float(text) if "number" in types else json.loads(text)
    except (ValueError, RecursionError):
        if "integer" in types or "number" in types:
            return text
        raise SettingError(
            name, HIDDEN, "valid JSON if it is set as an environment variable"
        ) from None


def warn_about_unknown(
    config: Mapping[str, Any], environment: Mapping[str, str], schema: Mapping[str, Any]
) -> None:
    """Log a warning for each unknown setting and `TAP_COMETLY_*` variable, without its value."""
    names = sorted(schema["properties"])
    for name in sorted(config.keys() - names):
        logger.warning("Ignoring the unknown setting '%s'%s", name, _suggestion(name, names))
    variables = [ENVIRONMENT_PREFIX + name.upper() for name in names]
    nested = [  # Meltano: "batch_config.storage.root"
        f"{ENVIRONMENT_PREFIX}{name.upper()}_"
        for name in names
        if "object" in schema["properties"][name].get("type", ())
    ]
    known = {*variables, *_OTHER_VARIABLES}
    prefixes = ("TAP_COMETLY__", *nested)  # Meltano's extras: `TAP_COMETLY__SELECT`
    for name in sorted(environment):
        if name.startswith(ENVIRONMENT_PREFIX) and not (name in known or name.startswith(prefixes)):
            suggestion = _suggestion(name, variables)
            logger.warning("Ignoring the unknown environment variable '%s'%s", name, suggestion)


def warn_about_future_start(config: Mapping[str, Any], now: datetime) -> None:
    """Log a warning if `start_date` is in the future; invalid settings are rejected elsewhere."""
    zone, start = config.get("timezone", DEFAULT_TIMEZONE), config.get("start_date")
    if not isinstance(zone, str) or not isinstance(start, str):
        return
    try:
        instant = read_instant(start, read_timezone(zone))
    except SettingError:
        return
    if instant is not None and instant > now:
        logger.warning("The start_date is in the future: %s", format_utc(instant))


def _suggestion(name: str, known: Iterable[str]) -> str:
    closest = difflib.get_close_matches(name, known, 1)
    return f"; did you mean '{closest[0]}'?" if closest else ""


def check_against_schema(config: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    """Validate the settings, the SDK's own too, against their JSON Schemas.

    Args:
        config: The settings as JSON values, without nulls.
        schema: The settings' JSON Schema.

    Raises:
        TapError: One is missing or invalid.
    """
    for rules in (_SDK_RULES, schema):
        for error in Draft202012Validator(rules).iter_errors(config):
            raise _setting_error(error, schema)


def _setting_error(error: ValidationError, schema: Mapping[str, Any]) -> TapError:
    path = [str(part) for part in error.absolute_path]
    rules: Any = error.schema
    if error.validator == "required":
        value: Any = error.instance
        missing = next(name for name in rules["required"] if name not in value)
        return MissingSettingError(".".join([*path, missing]))
    if error.validator == "additionalProperties" and path:
        allowed = f"an object with only the keys {', '.join(rules['properties'])}"
        return SettingError(".".join(path), HIDDEN, allowed)
    definition = schema["properties"].get(path[0], {})
    shown = "null" if error.instance is None else error.instance
    # A text in place of an object may be the object as JSON, secrets included.
    is_text_for_object = isinstance(error.instance, str) and "object" in rules.get("type", ())
    if (
        definition.get("secret")
        or is_text_for_object
        or not isinstance(shown, (str, int, float, Decimal))
    ):
        shown = HIDDEN
    return SettingError(".".join(path), shown, _allowed(path[-1], rules))


def _allowed(name: str, definition: Mapping[str, Any]) -> str:
    """What a schema allows, as the end of the sentence "it must be …"."""
    if name in _SENTENCES:
        return _SENTENCES[name]
    if "enum" in definition:
        return " or ".join(str(value) for value in definition["enum"] if value)
    types = definition.get("type", "")
    kind = next((t for t in ([types] if isinstance(types, str) else types) if t != "null"), "")
    return _KINDS.get(kind, "a value that the Singer SDK documents") + _bounds(definition)


def _bounds(definition: Mapping[str, Any]) -> str:
    low, high = definition.get("minimum"), definition.get("maximum")
    if high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" of at least {low}"
    above = definition.get("exclusiveMinimum")
    return "" if above is None else f" above {above}"


def read_timezone(name: str) -> tzinfo:
    """Look up an IANA time zone.

    Raises:
        SettingError: There is no zone of that name.
    """
    try:
        if not name.startswith(_NOT_A_ZONE):
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    zones = [zone for zone in available_timezones() if not zone.startswith(_NOT_A_ZONE)]
    closest = [zone for zone in zones if zone.lower() == name.lower()]
    closest = closest or difflib.get_close_matches(name, zones, 1, cutoff=0.8)
    raise SettingError("timezone", name, _ZONE + (f"; try {closest[0]}" if closest else ""))


def _api_key(config: Mapping[str, Any]) -> str:
    key: str = config.get("api_key", "")
    if not key:
        raise MissingSettingError("api_key")
    if not _VISIBLE_ASCII.fullmatch(key):
        raise SettingError("api_key", HIDDEN, "a Cometly API key, without spaces")
    return key


def _date(config: Mapping[str, Any], name: str, zone: tzinfo) -> datetime | None:
    if (value := config.get(name)) is None:
        return None
    instant = read_instant(value, zone)
    if instant is None or instant.astimezone(zone).year < _FIRST_YEAR:
        raise SettingError(name, value, _DATE)
    return instant


def _finite(config: Mapping[str, Any], name: str, default: float) -> float:
    """A finite number: JSON may hold NaN, the SDK may pass a `Decimal`."""
    value = config.get(name, default)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SettingError(name, value, "a finite number")
    return number


def _window_seconds(config: Mapping[str, Any]) -> float | None:
    if "window_days" not in config:
        return None
    # Rounded to milliseconds: in days, a minute has no exact decimal form.
    seconds = round(_finite(config, "window_days", 0) * DAY_SECONDS, 3)
    if seconds < MINUTE_SECONDS:
        raise SettingError("window_days", config["window_days"], _WINDOW_DAYS)
    return min(seconds, LONGER_THAN_ANY_RANGE_SECONDS)


def _api_url(config: Mapping[str, Any]) -> str:
    url: str = config.get("api_url", DEFAULT_API_URL)
    if "@" in url or "?" in url:
        raise SettingError("api_url", HIDDEN, _URL)  # may hold credentials
    if not is_safe_url(url) or "#" in url or not _VISIBLE_ASCII.fullmatch(url):
        raise SettingError("api_url", url, _URL)
    if not is_possible_host(urlsplit(url).hostname or ""):
        raise SettingError("api_url", url, "a URL with a valid host name")
    return url.rstrip("/")


def _user_agent(config: Mapping[str, Any], default: str) -> str:
    value: str = config.get("user_agent", default)
    if not _HEADER_TEXT.fullmatch(value):
        raise SettingError("user_agent", value, "printable ASCII text")
    return value
