"""Who, since when and how: the settings, checked and typed.

Reads what Singer hands over (a mapping of JSON values) into one object that the other modules
can trust. The settings' titles and descriptions stand in `tap`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tap_cometly.errors import HIDDEN, MISSING, SettingError
from tap_cometly.times import DAY_SECONDS, MINUTE_SECONDS, read_instant
from tap_cometly.transport import is_safe_url

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, tzinfo

DEFAULT_API_URL = "https://app.cometly.com/public-api/v1"
DEFAULT_TIMEZONE = "UTC"
DEFAULT_LOOKBACK_DAYS = 1
DEFAULT_MAX_CONCURRENT_EXPORTS = 25
DEFAULT_EXPORT_TIMEOUT_MINUTES = 30
MOST_CONCURRENT_EXPORTS = 25
"""As many as Cometly creates in five minutes."""

_NO_ZONES = ("localtime", "posix", "right/")
"""Stand beside the zones on many machines: its own zone, copies, clocks with leap seconds."""
_FIRST_YEAR = 1900
_LONGER_THAN_ANY_RANGE_SECONDS = 300 * 366 * DAY_SECONDS
_DATE_TIME = "an ISO 8601 date-time like 2024-01-15T00:00:00Z, from 1900 on"
_VISIBLE_ASCII = re.compile(r"[!-~]+")
_HEADER_TEXT = re.compile(r"[!-~]([ -~]*[!-~])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The tap's own settings, checked.

    Attributes:
        api_key: Cometly API key of one Space. A secret.
        start_date: Earliest creation time to export; UTC, whole seconds.
        end_date: Latest creation time to export; UTC, whole seconds; None for no bound.
        zone: The Space's time zone.
        include_comet_tokens: Whether contacts carry `comet_tokens`.
        include_all_emails: Whether contacts carry `emails`.
        lookback_days: How many days before the bookmark are exported again.
        window_seconds: Fixed length of an export window; None for adaptive lengths.
        max_concurrent_exports: How many exports may be in flight.
        export_timeout_seconds: How long one export may stay queued or processing.
        api_url: Base URL of the API, without a slash at its end.
        user_agent: What the tap calls itself to Cometly.
    """

    api_key: str
    start_date: datetime
    end_date: datetime | None
    zone: tzinfo
    include_comet_tokens: bool
    include_all_emails: bool
    lookback_days: float
    window_seconds: float | None
    max_concurrent_exports: int
    export_timeout_seconds: float
    api_url: str
    user_agent: str

    @classmethod
    def read(cls, config: Mapping[str, Any], *, default_user_agent: str) -> Settings:
        """Check the settings and give them their types.

        Args:
            config: The settings as JSON values; a setting that is absent or null has its default.
            default_user_agent: What the tap calls itself unless `user_agent` says otherwise.

        Returns:
            The settings.

        Raises:
            SettingError: A required setting is missing, or one has a value it cannot have.
        """
        api_key = _api_key(config)
        zone = read_timezone(config.get("timezone"))
        start_date = _read_date(config, "start_date", zone)
        if start_date is None:
            raise SettingError("start_date", MISSING, _DATE_TIME)
        end_date = _read_date(config, "end_date", zone)
        if end_date is not None and end_date < start_date:
            raise SettingError("end_date", config["end_date"], "at or after start_date")
        return cls(
            api_key=api_key,
            start_date=start_date,
            end_date=end_date,
            zone=zone,
            include_comet_tokens=_boolean(config, "include_comet_tokens"),
            include_all_emails=_boolean(config, "include_all_emails"),
            lookback_days=_lookback_days(config),
            window_seconds=_window_seconds(config),
            max_concurrent_exports=_max_concurrent_exports(config),
            export_timeout_seconds=_export_timeout_minutes(config) * MINUTE_SECONDS,
            api_url=_api_url(config),
            user_agent=_user_agent(config, default_user_agent),
        )


def read_timezone(name: object) -> tzinfo:
    """Look up an IANA time zone.

    Args:
        name: Its name; None for the default, UTC.

    Returns:
        The zone.

    Raises:
        SettingError: There is no zone of that name.
    """
    try:
        if name is None:
            return ZoneInfo(DEFAULT_TIMEZONE)
        if isinstance(name, str) and not name.startswith(_NO_ZONES):
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise SettingError("timezone", name, "an IANA time zone name like America/New_York")


def _api_key(config: Mapping[str, Any]) -> str:
    key = config.get("api_key")
    if key in (None, ""):
        raise SettingError("api_key", MISSING, "the API key of your Cometly Space")
    if not isinstance(key, str) or not _VISIBLE_ASCII.fullmatch(key):
        raise SettingError("api_key", HIDDEN, "a Cometly API key, without spaces")
    return key


def _read_date(config: Mapping[str, Any], name: str, zone: tzinfo) -> datetime | None:
    value = config.get(name)
    if value is None:
        return None
    instant = read_instant(value, zone) if isinstance(value, str) else None
    if instant is None or instant.astimezone(zone).year < _FIRST_YEAR:
        raise SettingError(name, value, _DATE_TIME)
    return instant


def _boolean(config: Mapping[str, Any], name: str) -> bool:
    value = config.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise SettingError(name, value, "true or false")
    return value


def _number(
    config: Mapping[str, Any], name: str, default: float | None, allowed: str
) -> float | None:
    value = config.get(name)
    if value is None:
        return default
    # singer-sdk reads fractions in JSON as Decimal.
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise SettingError(name, value, allowed)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SettingError(name, value, allowed)
    return number


def _lookback_days(config: Mapping[str, Any]) -> float:
    allowed = "a number of days, 0 or more"
    days = _number(config, "lookback_days", DEFAULT_LOOKBACK_DAYS, allowed)
    if days is None or days < 0:
        raise SettingError("lookback_days", config["lookback_days"], allowed)
    return days


def _window_seconds(config: Mapping[str, Any]) -> float | None:
    allowed = "a number of days, at least one minute (0.000695)"
    days = _number(config, "window_days", None, allowed)
    if days is None:
        return None
    # To the millisecond: a minute is no finite decimal fraction of a day.
    seconds = round(days * DAY_SECONDS, 3)
    if seconds < MINUTE_SECONDS:
        raise SettingError("window_days", config["window_days"], allowed)
    return min(seconds, _LONGER_THAN_ANY_RANGE_SECONDS)


def _max_concurrent_exports(config: Mapping[str, Any]) -> int:
    value = config.get("max_concurrent_exports")
    if value is None:
        return DEFAULT_MAX_CONCURRENT_EXPORTS
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not 1 <= value <= MOST_CONCURRENT_EXPORTS:
        allowed = f"a whole number from 1 to {MOST_CONCURRENT_EXPORTS}"
        raise SettingError("max_concurrent_exports", value, allowed)
    return int(value)


def _export_timeout_minutes(config: Mapping[str, Any]) -> float:
    allowed = "a number of minutes above 0"
    minutes = _number(config, "export_timeout_minutes", DEFAULT_EXPORT_TIMEOUT_MINUTES, allowed)
    if minutes is None or minutes <= 0:
        raise SettingError("export_timeout_minutes", config["export_timeout_minutes"], allowed)
    return minutes


def _api_url(config: Mapping[str, Any]) -> str:
    url = config.get("api_url")
    if url is None:
        return DEFAULT_API_URL
    allowed = "an https URL, or http to this machine (localhost, 127.0.0.1, ::1), without a query"
    if not isinstance(url, str):
        raise SettingError("api_url", url, allowed)
    if "@" in url or "?" in url:
        raise SettingError("api_url", HIDDEN, allowed)  # may hold credentials
    if not is_safe_url(url) or "#" in url or not _VISIBLE_ASCII.fullmatch(url):
        raise SettingError("api_url", url, allowed)
    return url.rstrip("/")


def _user_agent(config: Mapping[str, Any], default: str) -> str:
    value = config.get("user_agent")
    if value is None:
        return default
    if not isinstance(value, str) or not _HEADER_TEXT.fullmatch(value):
        raise SettingError("user_agent", value, "plain printable text, as a header has it")
    return value
