"""Settings: defaults, accepted and rejected values, environment variables and warnings."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tap_cometly.errors import TapError
from tap_cometly.settings import Settings, from_environment
from tap_cometly.tap import TapCometly
from tap_cometly.times import format_utc
from tap_cometly.transport import is_safe_url
from tests.conftest import VirtualClock
from tests.generate import SDK_SETTINGS

KEY = "sk_live_51f0c3"
REQUIRED: dict[str, Any] = {"api_key": KEY, "start_date": "2024-01-15T00:00:00Z"}
SCHEMA = TapCometly.config_jsonschema
OPTIONAL = {*SCHEMA["properties"], *SDK_SETTINGS} - {*REQUIRED}
BATCHES: dict[str, Any] = {"encoding": {"format": "jsonl"}, "storage": {"root": "file:///tmp"}}


def read(**settings: Any) -> Settings:
    return TapCometly(config=REQUIRED | settings, clock=VirtualClock()).settings


def rejection(**settings: Any) -> str:
    with pytest.raises(TapError) as rejected:
        TapCometly(config=REQUIRED | settings, clock=VirtualClock())
    assert "\n" not in str(rejected.value)
    return str(rejected.value)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


# Defaults.


def test_settings_that_are_not_set_have_their_defaults() -> None:
    settings = read()

    assert settings.start_date.isoformat() == "2024-01-15T00:00:00+00:00"
    assert settings == Settings(
        api_key=KEY,
        start_date=settings.start_date,
        end_date=None,
        zone=ZoneInfo("UTC"),
        field_options=(),
        lookback_days=1,
        window_seconds=None,
        max_concurrent_exports=25,
        export_timeout_seconds=30 * 60,
        api_url="https://app.cometly.com/public-api/v1",
        user_agent=f"tap-cometly/{TapCometly.get_plugin_version()}",
    )


@pytest.mark.parametrize("name", sorted(OPTIONAL))
def test_a_setting_of_null_has_its_default(name: str) -> None:
    assert read(**{name: None}) == read()


@pytest.mark.parametrize(
    ("name", "value"), [("api_key", None), ("api_key", ""), ("start_date", None)]
)
def test_the_error_says_where_to_set_a_missing_required_setting(
    name: str, value: str | None
) -> None:
    assert rejection(**{name: value}) == (
        f"Setting '{name}' is missing; set it in the --config file, in the environment as "
        f"TAP_COMETLY_{name.upper()} (with --config ENV), or in Meltano."
    )


# Rejected values.

DATE = "a date like 2024-01-15 or 2024-01-15T00:00:00Z, from 1900 on"
ZONE = "an IANA time zone name like America/New_York"
LENGTH = "a number of days, at least one minute (0.000695)"
URL = "an https URL, or http for localhost, 127.0.0.1 or ::1, without user info or a query"
REJECTED: list[tuple[str, str, list[object]]] = [
    ("start_date", DATE, ["yesterday", "", 20240115, "1899-12-31T23:59:59Z"]),
    ("end_date", DATE, ["now", False]),
    ("end_date", "at or after start_date", ["2024-01-14T23:59:59Z", "2024-01-15T01:00:00+02:00"]),
    ("timezone", ZONE, ["Mars/Olympus_Mons", "", "America", "../UTC", "/etc/localtime", "PDT", 5]),
    ("timezone", ZONE, ["localtime", "posixrules", "right/UTC", "UTC+2", "zone\0name"]),
    ("timezone", f"{ZONE}; try America/New_York", ["america/new_york", "America/New_York "]),
    ("timezone", f"{ZONE}; try Europe/Berlin", ["Europa/Berlin", "EUROPE/BERLIN"]),
    ("include_comet_tokens", "true or false", ["true", 1]),
    ("include_all_emails", "true or false", ["no", 0]),
    ("lookback_days", "a number of at least 0", [-1, Decimal("-0.001"), "1", True]),
    ("lookback_days", "a finite number", [math.nan, math.inf]),
    ("window_days", LENGTH, [0, -1, Decimal("0.000694"), "7", True]),
    ("window_days", "a finite number", [math.nan, math.inf, 10**400]),
    ("max_concurrent_exports", "an integer from 1 to 25", [0, 26, Decimal("2.5"), "3", True]),
    ("export_timeout_minutes", "a number above 0", [0, -5, "30", True]),
    ("export_timeout_minutes", "a finite number", [math.nan, math.inf]),
    ("api_url", URL, ["http://app.cometly.com/public-api/v1", "app.cometly.com", "https://", ""]),
    ("api_url", URL, ["https://a.com/#v1", "https://a.com/a b", "https://a.com/\n", 443]),
    ("api_url", "a URL with a valid host name", ["https://a..b", f"https://{'a' * 64}.b"]),
    ("user_agent", "printable ASCII text", ["", " ", "tap\r\nX-Admin: 1", "tap\n", "\u202etap"]),
    ("user_agent", "text", [7]),
    ("flattening_enabled", "true or false", ["x"]),
    ("flattening_max_depth", "an integer of at least 0", [-1]),
    ("flattening_max_key_length", "an integer of at least 1", [0]),
    ("flattening_separator", "text", [5]),
    ("stream_map_config", "an object", [5]),
    ("faker_config", "an object", [True]),
]


@pytest.mark.parametrize(
    ("name", "allowed", "value"),
    [(name, allowed, value) for name, allowed, values in REJECTED for value in values],
)
def test_the_error_has_the_setting_the_value_and_what_is_allowed(
    name: str, allowed: str, value: object
) -> None:
    assert rejection(**{name: value}) == (
        f"Setting '{name}' is invalid: {str(value)!r}; it must be {allowed}."
    )


@pytest.mark.parametrize(
    ("part", "config", "end"),
    [
        ("batch_size", {"batch_size": 0}, "invalid: '0'; it must be an integer of at least 1."),
        ("batch_size", {"batch_size": -5}, "invalid: '-5'; it must be an integer of at least 1."),
        ("batch_size", {"batch_size": "100"}, "invalid: '100'; it must be an integer of"),
        ("batch_size", {"batch_size": None}, "invalid: 'null'; it must be an integer of at"),
        ("storage", {"storage": None}, "invalid: 'null'; it must be an object."),
        ("storage.root", {"storage": {}}, "missing; add it to 'batch_config'."),
        ("storage.root", {"storage": {"root": None}}, "invalid: 'null'; it must be text."),
        ("storage.root", {"storage": {"root": ""}}, "invalid: ''; it must be text."),
        ("storage.params", {"storage": {"root": "s3://b", "params": "s3cret"}}, "invalid: [hidden"),
        ("encoding", {"encoding": None}, "invalid: 'null'; it must be an object."),
        ("encoding.format", {"encoding": {}}, "missing; add it to 'batch_config'."),
        (
            "encoding.format",
            {"encoding": {"format": "csv"}},
            "invalid: 'csv'; it must be jsonl or ",
        ),
        (
            "encoding.compression",
            {"encoding": {"format": "jsonl", "compression": "zip"}},
            "invalid: 'zip'; it must be gzip or none.",
        ),
    ],
)
def test_the_error_names_an_invalid_part_of_batch_config(
    part: str, config: dict[str, Any], end: str
) -> None:
    sentence = rejection(batch_config=BATCHES | config)

    assert sentence.startswith(f"Setting 'batch_config.{part}' is {end}")


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        ({"batch_config": {"storage": {}}}, "Setting 'batch_config.encoding' is missing"),
        ({"batch_config": {"encoding": {}}}, "Setting 'batch_config.storage' is missing"),
        ({"batch_config": BATCHES | {"size": 5}}, "Setting 'batch_config' is invalid: [hidden]"),
        ({"batch_config": '{"storage": "s3cret"}'}, "Setting 'batch_config' is invalid: [hidden]"),
        ({"flattening_enabled": True}, "Setting 'flattening_max_depth' is missing"),
        ({"stream_maps": []}, "Setting 'stream_maps' is invalid: [hidden]"),
        ({"stream_maps": {"contacts": 5}}, "Setting 'stream_maps.contacts' is invalid: '5'"),
        ({"stream_maps": {"contacts": {"x": 5}}}, "Setting 'stream_maps.contacts' is invalid"),
        ({"stream_maps": {"__else__": 5}}, "Setting 'stream_maps.__else__' is invalid: '5'"),
        (
            {"stream_maps": {"contacts": {"__else__": "x"}}},
            "Setting 'stream_maps.contacts.__else__' is invalid: 'x'",
        ),
        (
            {"stream_maps": {"contacts": {"__alias__": "x", "email": "1 +"}}},
            "The stream map contacts.email = '1 +' failed (SyntaxError); correct the expression.",
        ),
        (
            {"stream_maps": {"contacts": {"x": ""}}},
            "The stream map contacts.x = '' failed (IndexError); correct the expression.",
        ),
    ],
)
def test_the_error_names_an_invalid_sdk_setting(settings: dict[str, Any], start: str) -> None:
    sentence = rejection(**settings)

    assert sentence.startswith(start)
    assert "s3cret" not in sentence


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("api_key", f"{KEY}{end}") for end in (" ", "\n", "é", " Bearer")),
        *(("api_key", value) for value in ([KEY], {"key": KEY})),
        ("api_url", f"https://key:{KEY}@app.cometly.com"),
        ("api_url", f"https://app.cometly.com/v1?token={KEY}"),
    ],
)
def test_the_error_hides_a_value_that_may_be_secret(name: str, value: object) -> None:
    sentence = rejection(**{name: value})

    assert sentence.startswith(f"Setting '{name}' is invalid: [hidden]; it must be ")
    assert KEY not in sentence


# Accepted values.


@pytest.mark.parametrize(
    ("name", "value", "attribute", "expected"),
    [
        ("api_key", "a|b~c!12345", "api_key", "a|b~c!12345"),
        ("include_comet_tokens", True, "field_options", ("include_comet_tokens",)),
        ("include_all_emails", True, "field_options", ("include_all_emails",)),
        ("lookback_days", 0, "lookback_days", 0),
        ("lookback_days", Decimal("0.5"), "lookback_days", 0.5),
        ("window_days", 7, "window_seconds", 7 * 86_400),
        ("window_days", Decimal("0.25"), "window_seconds", 6 * 3600),
        ("window_days", 1 / 1440, "window_seconds", 60),
        ("window_days", Decimal("0.0006944444444"), "window_seconds", 60),
        ("window_days", Decimal("1e300"), "window_seconds", 300 * 366 * 86_400),
        ("max_concurrent_exports", 1, "max_concurrent_exports", 1),
        ("export_timeout_minutes", Decimal("0.5"), "export_timeout_seconds", 30),
        ("timezone", "America/New_York", "zone", ZoneInfo("America/New_York")),
        ("timezone", "Etc/GMT+5", "zone", ZoneInfo("Etc/GMT+5")),
        ("api_url", "https://eu.cometly.com/v2/", "api_url", "https://eu.cometly.com/v2"),
        ("api_url", "http://127.0.0.1:8000/", "api_url", "http://127.0.0.1:8000"),
        ("api_url", "http://[::1]:8000", "api_url", "http://[::1]:8000"),
        ("user_agent", "acme etl (ops@acme.io)", "user_agent", "acme etl (ops@acme.io)"),
    ],
)
def test_an_accepted_value_is_converted(
    name: str, value: object, attribute: str, expected: object
) -> None:
    assert getattr(read(**{name: value}), attribute) == expected


@pytest.mark.parametrize(
    ("written", "zone", "instant"),
    [
        ("2024-01-15", "America/New_York", "2024-01-15T05:00:00+00:00"),
        ("2024-07-15T00:00:00", "America/New_York", "2024-07-15T04:00:00+00:00"),
        ("2024-01-15T00:00:00+05:30", "America/New_York", "2024-01-14T18:30:00+00:00"),
        ("1900-01-01", "Pacific/Auckland", "1899-12-31T12:30:00+00:00"),
    ],
)
@pytest.mark.parametrize("name", ["start_date", "end_date"])
def test_dates_without_an_offset_are_read_in_the_spaces_time_zone(
    name: str, written: str, zone: str, instant: str
) -> None:
    settings = read(**{"timezone": zone, "start_date": "1900-01-01", name: written})

    assert format_utc(getattr(settings, name)) == instant


def test_the_end_date_may_be_the_start_date() -> None:
    settings = read(start_date="2024-01-15T00:00:00.9Z", end_date="2024-01-15T00:00:00.1Z")

    assert settings.end_date == settings.start_date


# The environment.


def test_environment_variables_are_converted_to_the_types_of_the_settings() -> None:
    variables = {
        "API_KEY": "1234",
        "START_DATE": "2024",
        "INCLUDE_ALL_EMAILS": "Yes",
        "INCLUDE_COMET_TOKENS": "0",
        "LOOKBACK_DAYS": "0.5",
        "MAX_CONCURRENT_EXPORTS": "2",
        "STREAM_MAPS": '{"contacts": {"x": "id"}}',
        "TIMEZONE": "",
        "WINDOW_DAYS": "a week",
    }
    environment = {f"TAP_COMETLY_{name}": text for name, text in variables.items()}

    assert from_environment(SCHEMA, environment) == {
        "api_key": "1234",
        "start_date": "2024",
        "include_all_emails": True,
        "include_comet_tokens": False,
        "lookback_days": 0.5,
        "max_concurrent_exports": 2,
        "stream_maps": {"contacts": {"x": "id"}},
        "window_days": "a week",
    }


@pytest.mark.parametrize(
    ("name", "text", "start"),
    [
        ("MAX_CONCURRENT_EXPORTS", "many", "Setting 'max_concurrent_exports' is invalid: 'many'"),
        ("INCLUDE_ALL_EMAILS", "banana", "Setting 'include_all_emails' is invalid: 'banana'"),
        pytest.param("STREAM_MAPS", "[" * 100_000, "Setting 'stream_maps' is", id="deep nesting"),
        ("STREAM_MAPS", "{", "Setting 'stream_maps' is invalid: [hidden]; it must be valid JSON "),
    ],
)
def test_the_error_names_the_setting_of_an_invalid_environment_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, start: str
) -> None:
    monkeypatch.setenv(f"TAP_COMETLY_{name}", text)

    with pytest.raises(TapError) as rejected:
        TapCometly(config=REQUIRED, parse_env_config=True)

    assert str(rejected.value).startswith(start)


# Warnings.


def test_unknown_settings_and_variables_log_warnings_before_a_rejection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TAP_COMETLY_TIME_ZONE", "s3cret")
    monkeypatch.setenv("TAP_COMETLY_API_KEY_2", "s3cret")

    rejection(start_dat="s3cret", qqq=1, lookback_days=-1)

    assert sorted(line.partition("unknown ")[2] for line in warnings(caplog)) == [
        "environment variable 'TAP_COMETLY_API_KEY_2'; did you mean 'TAP_COMETLY_API_KEY'?",
        "environment variable 'TAP_COMETLY_TIME_ZONE'; did you mean 'TAP_COMETLY_TIMEZONE'?",
        "setting 'qqq'",
        "setting 'start_dat'; did you mean 'start_date'?",
    ]


def test_an_unknown_variable_logs_a_warning_before_another_one_is_rejected(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TAP_COMETLY_WINDOW_DAY", "1")
    monkeypatch.setenv("TAP_COMETLY_STREAM_MAPS", "{bad")

    with pytest.raises(TapError, match="'stream_maps'"):
        TapCometly(config=REQUIRED, parse_env_config=True)

    assert "'TAP_COMETLY_WINDOW_DAY'" in warnings(caplog)[0]


def test_known_variables_log_no_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("TIMEZONE", "LOGLEVEL", "_SELECT", "BATCH_CONFIG_STORAGE_ROOT", "PIP_URL"):
        monkeypatch.setenv(f"TAP_COMETLY_{name}", "INFO")

    read()

    assert warnings(caplog) == []


def test_a_start_date_in_the_future_logs_a_warning_before_a_rejection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(TapError, match="'end_date'"):
        read(start_date="2204-01-15", end_date="2024-01-15")

    assert warnings(caplog) == ["The start_date is in the future: 2204-01-15T00:00:00+00:00"]


# URLs.

SAFE_URLS = """https://app.cometly.com/public-api/v1 https://storage.example.com:8443/f.gz?sig=a%2Bb
https://10.0.0.1 HTTPS://APP.COMETLY.COM http://127.0.0.1 http://127.0.0.1:8000/v1
http://127.255.255.254 http://[::1]:8000/v1 http://localhost:8000 http://LocalHost"""
UNSAFE_URLS = r"""http://app.cometly.com http://0.0.0.0:8000 http://10.0.0.1 http://128.0.0.1
http://[::] http://126.255.255.255 http://[::2] http://[::ffff:127.0.0.1] http://[::1].evil.com
http://evil.com[::1] http://localhost.evil.com http://localhost. http://evil-localhost http://
http://127.0.0.1.evil.com http://127.0.0.1\.evil.com http://127.1 http://2130706433
http://0x7f.0.0.1 http://127.0.0.1:port http://127.0.0.1:65536 http://127.0.0.1@evil.com
http://user@127.0.0.1 http://@127.0.0.1 https://user:password@app.cometly.com
https:///v1 https://[::1 //127.0.0.1 127.0.0.1 ftp://127.0.0.1 file:///127.0.0.1"""


@pytest.mark.parametrize("url", SAFE_URLS.split())
def test_https_and_plain_http_to_a_loopback_address_are_safe(url: str) -> None:
    assert is_safe_url(url)


@pytest.mark.parametrize("url", [*UNSAFE_URLS.split(), "", "http://127.0.0.1\t.evil.com"])
def test_other_urls_are_not_safe(url: str) -> None:
    assert not is_safe_url(url)
