"""What each setting takes, what it is without being set, and how a bad value is refused."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from tap_cometly.errors import SettingError
from tap_cometly.settings import Settings
from tap_cometly.times import read_instant
from tap_cometly.transport import is_safe_url

if TYPE_CHECKING:
    from datetime import datetime

KEY = "sk_live_51f0c3"
REQUIRED: dict[str, Any] = {"api_key": KEY, "start_date": "2024-01-15T00:00:00Z"}
NEW_YORK = ZoneInfo("America/New_York")
UTC = ZoneInfo("UTC")


def read(**config: Any) -> Settings:
    """The settings with the required ones filled in."""
    return Settings.read({**REQUIRED, **config}, default_user_agent="tap-cometly/1.2.3")


def refusal(**config: Any) -> str:
    """The sentence with which settings are refused."""
    with pytest.raises(SettingError) as refused:
        read(**config)
    return str(refused.value)


def text(instant: datetime | None) -> str | None:
    """An instant as its text in UTC, with the fraction of a second if there is one."""
    return None if instant is None else instant.isoformat().replace("+00:00", "Z")


# Defaults, and what is required.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("end_date", None),
        ("zone", UTC),
        ("include_comet_tokens", False),
        ("include_all_emails", False),
        ("lookback_days", 1),
        ("window_seconds", None),
        ("max_concurrent_exports", 3),
        ("export_timeout_seconds", 30 * 60),
        ("api_url", "https://app.cometly.com/public-api/v1"),
        ("user_agent", "tap-cometly/1.2.3"),
    ],
)
def test_a_setting_that_is_not_set_has_its_default(name: str, value: object) -> None:
    assert getattr(read(), name) == value


@pytest.mark.parametrize(
    "name",
    [
        "end_date",
        "timezone",
        "include_comet_tokens",
        "include_all_emails",
        "lookback_days",
        "window_days",
        "max_concurrent_exports",
        "export_timeout_minutes",
        "api_url",
        "user_agent",
    ],
)
def test_a_setting_that_is_null_has_its_default(name: str) -> None:
    assert read(**{name: None}) == read()


@pytest.mark.parametrize("name", ["api_key", "start_date"])
def test_a_required_setting_that_is_missing_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match=f"^Setting '{name}' is missing; it has to be "):
        Settings.read(
            {key: value for key, value in REQUIRED.items() if key != name}, default_user_agent="x"
        )


@pytest.mark.parametrize("name", ["api_key", "start_date"])
def test_a_required_setting_that_is_null_is_missing(name: str) -> None:
    assert refusal(**{name: None}).startswith(f"Setting '{name}' is missing; it has to be ")


# Bad values: the sentence names the setting, the value and what is allowed.

A_DATE_TIME = "an ISO 8601 date-time like 2024-01-15T00:00:00Z, from 1900 on"
A_ZONE = "an IANA time zone name like America/New_York"
A_LOOKBACK = "a number of days, 0 or more"
A_LENGTH = "a number of days, at least one minute (0.000695)"
ONE_TO_FIVE = "a whole number from 1 to 5"
MINUTES = "a number of minutes above 0"
A_URL = "an https URL, or http to this machine (localhost, 127.0.0.1, ::1), without a query"
PLAIN_TEXT = "plain printable text, as a header has it"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("start_date", "yesterday", A_DATE_TIME),
        ("start_date", "", A_DATE_TIME),
        ("start_date", 20240115, A_DATE_TIME),
        ("start_date", "1899-12-31T23:59:59Z", A_DATE_TIME),
        ("end_date", "now", A_DATE_TIME),
        ("end_date", False, A_DATE_TIME),
        ("end_date", "2024-01-14T23:59:59Z", "at or after start_date"),
        ("timezone", "Mars/Olympus_Mons", A_ZONE),
        ("timezone", "", A_ZONE),
        ("timezone", "America", A_ZONE),
        ("timezone", "America/New_York ", A_ZONE),
        ("timezone", "../UTC", A_ZONE),
        ("timezone", "/etc/localtime", A_ZONE),
        ("timezone", "localtime", A_ZONE),
        ("timezone", "posixrules", A_ZONE),
        ("timezone", "right/UTC", A_ZONE),
        ("timezone", "UTC+2", A_ZONE),
        ("timezone", "zone\0name", A_ZONE),
        ("timezone", 5, A_ZONE),
        ("include_comet_tokens", "true", "true or false"),
        ("include_comet_tokens", 1, "true or false"),
        ("include_all_emails", "no", "true or false"),
        ("include_all_emails", 0, "true or false"),
        ("lookback_days", -1, A_LOOKBACK),
        ("lookback_days", Decimal("-0.001"), A_LOOKBACK),
        ("lookback_days", "1", A_LOOKBACK),
        ("lookback_days", True, A_LOOKBACK),
        ("lookback_days", math.nan, A_LOOKBACK),
        ("lookback_days", math.inf, A_LOOKBACK),
        ("lookback_days", Decimal("NaN"), A_LOOKBACK),
        ("lookback_days", [1], A_LOOKBACK),
        ("window_days", 0, A_LENGTH),
        ("window_days", -1, A_LENGTH),
        ("window_days", Decimal("0.000694"), A_LENGTH),
        ("window_days", "7", A_LENGTH),
        ("window_days", True, A_LENGTH),
        ("window_days", math.nan, A_LENGTH),
        ("window_days", math.inf, A_LENGTH),
        ("window_days", 10**400, A_LENGTH),
        ("max_concurrent_exports", 0, ONE_TO_FIVE),
        ("max_concurrent_exports", 6, ONE_TO_FIVE),
        ("max_concurrent_exports", Decimal("2.5"), ONE_TO_FIVE),
        ("max_concurrent_exports", "3", ONE_TO_FIVE),
        ("max_concurrent_exports", True, ONE_TO_FIVE),
        ("export_timeout_minutes", 0, MINUTES),
        ("export_timeout_minutes", -5, MINUTES),
        ("export_timeout_minutes", "30", MINUTES),
        ("export_timeout_minutes", True, MINUTES),
        ("export_timeout_minutes", math.nan, MINUTES),
        ("export_timeout_minutes", math.inf, MINUTES),
        ("api_url", "http://app.cometly.com/public-api/v1", A_URL),
        ("api_url", "app.cometly.com", A_URL),
        ("api_url", "ftp://app.cometly.com", A_URL),
        ("api_url", "https://", A_URL),
        ("api_url", "https://app.cometly.com/#v1", A_URL),
        ("api_url", "https://app.cometly.com/a b", A_URL),
        ("api_url", "https://app.cometly.com/\n", A_URL),
        ("api_url", "", A_URL),
        ("api_url", 443, A_URL),
        ("user_agent", "", PLAIN_TEXT),
        ("user_agent", " ", PLAIN_TEXT),
        ("user_agent", "tap\r\nX-Admin: 1", PLAIN_TEXT),
        ("user_agent", "tap\n", PLAIN_TEXT),
        ("user_agent", "\u202etap", PLAIN_TEXT),
        ("user_agent", 7, PLAIN_TEXT),
    ],
)
def test_a_bad_value_is_refused_by_name_value_and_what_is_allowed(
    name: str, value: object, allowed: str
) -> None:
    assert refusal(**{name: value}) == (
        f"Setting '{name}' is {str(value)!r}; it has to be {allowed}."
    )


@pytest.mark.parametrize(
    "key",
    [f"{KEY} ", f"{KEY}\n", f"Bearer {KEY}", f"{KEY}é", [KEY], {"key": KEY}],
    ids=["space", "line-break", "two-words", "not-ascii", "list", "object"],
)
def test_a_bad_api_key_is_refused_and_not_shown(key: object) -> None:
    sentence = refusal(api_key=key)

    assert sentence.startswith("Setting 'api_key' is not usable (its value is not shown); ")
    assert KEY not in sentence


def test_an_empty_api_key_is_missing() -> None:
    assert refusal(api_key="").startswith("Setting 'api_key' is missing; ")


@pytest.mark.parametrize(
    "url", ["https://key:s3cret@app.cometly.com", "https://app.cometly.com/v1?token=s3cret"]
)
def test_an_api_url_that_may_hold_a_secret_is_refused_and_not_shown(url: str) -> None:
    sentence = refusal(api_url=url)

    assert sentence.startswith("Setting 'api_url' is not usable (its value is not shown); ")
    assert "s3cret" not in sentence


def test_a_refusal_is_one_line_whatever_the_value() -> None:
    assert "\n" not in refusal(user_agent="one\ntwo")


# Good values.


@pytest.mark.parametrize(
    ("name", "value", "attribute", "expected"),
    [
        ("api_key", "a|b~c!", "api_key", "a|b~c!"),
        ("include_comet_tokens", True, "include_comet_tokens", True),
        ("include_all_emails", True, "include_all_emails", True),
        ("include_all_emails", False, "include_all_emails", False),
        ("lookback_days", 0, "lookback_days", 0),
        ("lookback_days", Decimal("0.5"), "lookback_days", 0.5),
        ("lookback_days", 36_500, "lookback_days", 36_500),
        ("window_days", 7, "window_seconds", 7 * 86_400),
        ("window_days", Decimal("0.25"), "window_seconds", 6 * 3600),
        ("window_days", 1 / 1440, "window_seconds", 60),
        ("window_days", Decimal("0.0006944444444"), "window_seconds", 60),
        ("max_concurrent_exports", 1, "max_concurrent_exports", 1),
        ("max_concurrent_exports", 5, "max_concurrent_exports", 5),
        ("export_timeout_minutes", Decimal("0.5"), "export_timeout_seconds", 30),
        ("export_timeout_minutes", 120, "export_timeout_seconds", 7200),
        ("timezone", "America/New_York", "zone", NEW_YORK),
        ("timezone", "Etc/GMT+5", "zone", ZoneInfo("Etc/GMT+5")),
        ("api_url", "https://eu.cometly.com/v2", "api_url", "https://eu.cometly.com/v2"),
        ("api_url", "https://eu.cometly.com/v2/", "api_url", "https://eu.cometly.com/v2"),
        ("api_url", "http://127.0.0.1:8000/", "api_url", "http://127.0.0.1:8000"),
        ("user_agent", "acme etl (ops@acme.io)", "user_agent", "acme etl (ops@acme.io)"),
    ],
)
def test_a_good_value_is_taken(name: str, value: object, attribute: str, expected: object) -> None:
    assert getattr(read(**{name: value}), attribute) == expected


def test_a_window_longer_than_the_calendar_is_taken() -> None:
    century_seconds = 100 * 366 * 86_400

    length = read(window_days=Decimal("1e300")).window_seconds

    assert length is not None
    assert century_seconds < length < 10**11


# Dates in settings.


def test_dates_without_an_offset_are_read_in_the_time_zone_of_the_space() -> None:
    settings = read(
        timezone="America/New_York", start_date="2024-01-15T00:00:00", end_date="2024-07-15"
    )

    assert (text(settings.start_date), text(settings.end_date)) == (
        "2024-01-15T05:00:00Z",
        "2024-07-15T04:00:00Z",
    )


def test_dates_with_an_offset_are_not_read_in_the_time_zone_of_the_space() -> None:
    settings = read(timezone="America/New_York", start_date="2024-01-15T00:00:00+05:30")

    assert text(settings.start_date) == "2024-01-14T18:30:00Z"


def test_an_end_date_may_be_the_start_date() -> None:
    settings = read(start_date="2024-01-15T00:00:00.9Z", end_date="2024-01-15T00:00:00.1Z")

    assert settings.end_date == settings.start_date


def test_dates_are_compared_as_instants() -> None:
    sentence = refusal(start_date="2024-01-15T00:00:00Z", end_date="2024-01-15T01:00:00+02:00")

    assert sentence == (
        "Setting 'end_date' is '2024-01-15T01:00:00+02:00'; it has to be at or after start_date."
    )


def test_an_end_date_at_the_end_of_the_calendar_means_no_end() -> None:
    end_date = read(timezone="America/New_York", end_date="9999-12-31T23:59:59").end_date

    assert end_date is not None
    assert end_date.year >= 9998


def test_a_start_date_of_1900_is_taken_in_any_time_zone() -> None:
    for zone in ("Pacific/Auckland", "America/Los_Angeles"):
        assert read(timezone=zone, start_date="1900-01-01").start_date.year in (1899, 1900)


@pytest.mark.parametrize(
    ("written", "instant"),
    [
        pytest.param("2024-01-15T05:00:00Z", "2024-01-15T05:00:00Z", id="Z"),
        pytest.param("2024-01-15T05:00:00+00:00", "2024-01-15T05:00:00Z", id="zero-offset"),
        pytest.param("2024-01-15T05:00:00-05:00", "2024-01-15T10:00:00Z", id="west"),
        pytest.param("2024-01-15T05:00:00+0530", "2024-01-14T23:30:00Z", id="without-colon"),
        pytest.param("2024-01-15T05:00:00+14", "2024-01-14T15:00:00Z", id="hours-only"),
        pytest.param("2024-01-15 05:00:00Z", "2024-01-15T05:00:00Z", id="space-for-T"),
        pytest.param("2024-01-15T05:30", "2024-01-15T10:30:00Z", id="without-seconds"),
        pytest.param("20240115T053000Z", "2024-01-15T05:30:00Z", id="basic-format"),
        pytest.param("2024-015T05:30:00Z", "2024-01-15T05:30:00Z", id="day-of-the-year"),
        pytest.param("2024-W03-1T05:30:00Z", "2024-01-15T05:30:00Z", id="day-of-the-week"),
        pytest.param("2024-01-15", "2024-01-15T05:00:00Z", id="date"),
        pytest.param("20240115", "2024-01-15T05:00:00Z", id="basic-date"),
        pytest.param("2024-07-15", "2024-07-15T04:00:00Z", id="date-in-summer"),
        pytest.param("2024-01-15T05:00:00.999Z", "2024-01-15T05:00:00Z", id="fraction"),
        pytest.param("2024-01-15T05:00:00,999999999Z", "2024-01-15T05:00:00Z", id="comma"),
        pytest.param("1969-12-31T23:59:59.9Z", "1969-12-31T23:59:59Z", id="fraction-before-1970"),
        pytest.param("2024-11-03T01:30:00", "2024-11-03T05:30:00Z", id="repeated:-the-earlier"),
        pytest.param("2024-03-10T02:30:00", "2024-03-10T07:00:00Z", id="skipped:-the-change"),
    ],
)
def test_date_times_in_new_york(written: str, instant: str) -> None:
    assert text(read_instant(written, NEW_YORK)) == instant


def test_a_date_whose_midnight_is_skipped_is_the_first_instant_of_the_day() -> None:
    found = read_instant("2024-03-10", ZoneInfo("America/Havana"))

    assert text(found) == "2024-03-10T05:00:00Z"


@pytest.mark.parametrize(
    "written",
    [
        "",
        "now",
        "today",
        "1705276800",
        "2024",
        "2024-01",
        "2024-W03",
        "2024-W00-1",
        "2024-02-30",
        "2023-366",
        "0000-01-01",
        "2024-1-5",
        "2024/01/15",
        "15.01.2024",
        "05:00",
        "T05:00:00Z",
        "P1D",
        "2024-01-15/2024-01-16",
        "2024-01-15/P1D",
        "2024-01-15T00:00:00Z/P1DT2H",
        "R3/2024-01-15/P1D",
        "2024-01-15T",
        "2024-01-15T25:00:00Z",
        "2024-01-15T05:00:00Zulu",
        "2024-01-15T05:00:00 America/New_York",
        "2024-01-15T05:00:00+24:00",
        "2024-01-15T05:00:00+99:99",
        "2024-01-15\n",
        " 2024-01-15",
        "\u0662\u0660\u0662\u0664-01-15",
    ],
)
def test_anything_else_is_no_date_time(written: str) -> None:
    assert read_instant(written, NEW_YORK) is None


@pytest.mark.parametrize(
    "written",
    [
        "0001-01-01T00:00:00+14:00",
        "0001-01-01",
        "9999-12-31",
        "9999-12-31T23:59:59-14:00",
    ],
)
def test_a_bookmark_may_lie_anywhere_in_the_calendar(written: str) -> None:
    found = read_instant(written, UTC)

    assert found is not None
    assert abs(found.year - int(written[:4])) <= 1


# Plain http.


@pytest.mark.parametrize(
    "url",
    [
        "https://app.cometly.com/public-api/v1",
        "https://storage.example.com:8443/file.gz?signature=a%2Bb",
        "https://10.0.0.1",
        "HTTPS://APP.COMETLY.COM",
        "http://127.0.0.1",
        "http://127.0.0.1:8000/v1",
        "http://127.255.255.254",
        "http://[::1]:8000/v1",
        "http://localhost:8000",
        "http://LocalHost",
    ],
)
def test_https_and_plain_http_to_a_loopback_address_are_safe(url: str) -> None:
    assert is_safe_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://app.cometly.com",
        "http://0.0.0.0:8000",
        "http://10.0.0.1",
        "http://128.0.0.1",
        "http://126.255.255.255",
        "http://[::]",
        "http://[::2]",
        "http://[::ffff:127.0.0.1]",
        "http://[::1].evil.com",
        "http://evil.com[::1]",
        "http://localhost.evil.com",
        "http://localhost.",
        "http://evil-localhost",
        "http://127.0.0.1.evil.com",
        "http://127.0.0.1\t.evil.com",
        "http://127.0.0.1\\.evil.com",
        "http://127.1",
        "http://2130706433",
        "http://0x7f.0.0.1",
        "http://127.0.0.1:port",
        "http://127.0.0.1:65536",
        "http://127.0.0.1@evil.com",
        "http://user@127.0.0.1",
        "http://@127.0.0.1",
        "https://user:password@app.cometly.com",
        "http://",
        "https:///v1",
        "https://[::1",
        "//127.0.0.1",
        "127.0.0.1",
        "ftp://127.0.0.1",
        "file:///127.0.0.1",
        "",
    ],
)
def test_no_other_url_is_safe(url: str) -> None:
    assert not is_safe_url(url)
