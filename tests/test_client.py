"""The two API calls: requests, responses, retries and errors."""

from __future__ import annotations

import itertools
import logging
import re
import time
from contextlib import suppress
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest

from simulator.faults import (
    DownloadUrl,
    Drip,
    Hang,
    MalformedHeader,
    Redirect,
    Refuse,
    Reset,
    Respond,
    ServerError,
    StatusCase,
)
from tap_cometly.client import (
    CometlyClient,
    CreateRefused,
    ExportNotFound,
    ExportStatus,
    RateLimited,
)
from tap_cometly.errors import CometlyError
from tap_cometly.transport import Backoff, RequestFailed
from tests.conftest import API_KEY, NOON, VirtualClock, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from simulator.faults import Endpoint, Fault

WINDOW = ("2024-06-01 00:00:00", "2024-06-02 00:00:00")
QUEUED = {"export_id": 1, "status": "queued"}
COMPLETED = {"export_id": 1, "status": "completed"}
RETRY_SECONDS = 15 * 60


class Call:
    """One of the two calls, to a Space whose export 1 is completed; the client is new."""

    def __init__(self, world: World, kind: Endpoint, **settings: Any) -> None:
        world.fill([], sleep=world.clock.sleep)
        request = world.space.parse_export_request({"start_date": WINDOW[0], "end_date": WINDOW[1]})
        world.space.create(request)
        world.clock.sleep(60)
        self.world = world
        self.client = CometlyClient(replace(world.tap().settings, **settings), world.clock, 0.2)
        self.kind = kind

    def __call__(self) -> int | ExportStatus:
        """Make the call."""
        if self.kind == "create":
            return self.client.create_export(*WINDOW)
        return self.client.get_export(1)

    def with_faults(self, *faults: Fault, then: Fault | None = None) -> Call:
        """Add faults for one request each, and one for all later requests."""
        for fault in faults:
            self.world.simulator.faults.add(self.kind, fault)
        if then is not None:
            self.world.simulator.faults.add(self.kind, then, times=None)
        return self

    def error(self, kind: type[Exception] = CometlyError) -> Any:  # noqa: ANN401
        """Make the call, and return its error."""
        with pytest.raises(kind) as error:
            self()
        return error.value

    def requests(self) -> list[Any]:
        """Make the call, which may fail, and return its requests."""
        with suppress(CometlyError, RateLimited):
            self()
        return self.world.requests(self.kind)

    def seconds(self) -> float:
        """Make the call, and return the seconds until it gives up."""
        started = self.world.clock.monotonic()
        assert "gave up after" in str(self.error())
        return self.world.clock.monotonic() - started


@pytest.fixture
def create(world: World) -> Call:
    return Call(world, "create")


@pytest.fixture
def poll(world: World) -> Call:
    return Call(world, "poll")


@pytest.fixture(params=["create", "poll"])
def call(request: pytest.FixtureRequest, world: World) -> Call:
    return Call(world, request.param)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without proxy and CA bundle variables."""
    names = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    for name in (*names, *map(str.upper, names), "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


# Requests.


@pytest.mark.parametrize("enabled", [(), ("include_comet_tokens",), ("include_all_emails",)])
def test_a_create_posts_the_window_and_enabled_options(
    world: World, enabled: tuple[str, ...]
) -> None:
    (request,) = Call(world, "create", field_options=enabled).requests()

    assert (request.method, request.path) == ("POST", "/public-api/v1/contacts/exports")
    window = {"start_date": WINDOW[0], "end_date": WINDOW[1]}
    assert request.json == window | dict.fromkeys(enabled, 1)


def test_a_poll_gets_the_export_without_a_body(poll: Call) -> None:
    (request,) = poll.requests()

    assert (request.method, request.path) == ("GET", "/public-api/v1/contacts/exports/1")
    assert request.headers.get("Content-Length", "0") == "0"


@pytest.mark.parametrize("kind", ["create", "poll"])
def test_every_call_has_the_documented_headers(world: World, kind: Endpoint) -> None:
    (request,) = Call(world, kind, user_agent="a tap/1").requests()

    assert request.headers["Authorization"] == f"Bearer {API_KEY}"
    assert request.headers["Accept"] == "application/json"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["User-Agent"] == "a tap/1"


def test_plain_http_does_not_use_a_proxy(call: Call, environment: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy"):
        environment.setenv(name, "http://127.0.0.1:1")

    assert call()  # would fail at that proxy


# Responses.


@pytest.mark.parametrize("status", [200, 201, 202])
@pytest.mark.parametrize("export_id", [0, 7, 2**60])
def test_a_create_returns_the_id(create: Call, status: int, export_id: int) -> None:
    answer = QUEUED | {"export_id": export_id, "more": ["than", "documented"]}

    assert create.with_faults(Respond(status, answer))() == export_id


def test_a_poll_returns_status_message_and_times(poll: Call) -> None:
    poll.client.create_export(*WINDOW)

    export = poll.client.get_export(2)

    message = "Export is queued. Please check back in a few minutes."
    assert (export.status, export.message) == ("queued", message)
    assert export.created_at is not None
    assert export.created_at.timestamp() == NOON.timestamp() + 60
    assert poll.client.get_export(1).completed_at is not None


@pytest.mark.parametrize("fault", [StatusCase("upper"), StatusCase("title")])
def test_a_status_may_have_any_letter_case(poll: Call, fault: Fault) -> None:
    export = poll.with_faults(fault).client.get_export(1)

    assert export.status == "completed"
    assert export.download_url


@pytest.mark.parametrize(
    "answer",
    [
        COMPLETED,
        COMPLETED | {"download_url": None},
        COMPLETED | {"download_url": ""},
        QUEUED | {"download_url": "https://bucket.example/file"},
    ],
    ids=repr,
)
def test_a_missing_or_early_download_url_is_none(poll: Call, answer: object) -> None:
    assert poll.with_faults(Respond(200, answer)).client.get_export(1).download_url is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Welcome</html>",
        b'{"export_id": 1, "status": "queued"',
        b"\xff\xfe\xfd",
        b"[" * 100_000,
        b'{"export_id": ' + b"9" * 5000 + b', "status": "queued"}',
        b'{"export_id": 1, "status": "queued"}'.ljust(1024 * 1024 + 1),
        b"null",
        [],
        "7",
        {},
        {"data": QUEUED},
        {"status": "queued"},
        *(QUEUED | {"export_id": value} for value in ("1", 1.0, True, None, 2)),
        {"export_id": 1},
        *(QUEUED | {"status": value} for value in (None, 3, {"name": "queued"})),
        *(COMPLETED | {"download_url": value} for value in (5, ["https://a.example/file"])),
    ],
    ids=lambda body: repr(body)[:40].replace("\\", ""),
)
def test_an_invalid_response_is_retried(poll: Call, body: object) -> None:
    assert len(poll.with_faults(Respond(200, body)).requests()) == 2


def test_a_response_of_1_mib_is_read(poll: Call) -> None:
    body = b'{"export_id": 1, "status": "queued"}'.ljust(1024 * 1024)

    assert len(poll.with_faults(Respond(200, body)).requests()) == 1


def test_a_malformed_header_is_ignored_and_not_logged(
    call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    assert call.with_faults(MalformedHeader())()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# Rate limits.


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("7", 7),
        ("1.5", 1.5),
        ("3600", 3600),
        (formatdate(NOON.timestamp() + 60 + 30, usegmt=True), 30),
        (formatdate(NOON.timestamp() - 30, usegmt=True), 1),
        ("0", 1),
        ("-20", 1),
        (None, 60),
        ("", 60),
        ("soon", 60),
        ("nan", 60),
        ("1e999", 60),
        ("Mon, 01 Jul 99999 12:00:00 GMT", 60),
        ("Mon, 01 Jul 2024 12:00:00 +99999999999999999999", 60),
    ],
)
def test_a_429_raises_rate_limited_with_the_seconds_to_wait(
    call: Call, retry_after: str | None, seconds: float
) -> None:
    headers = None if retry_after is None else {"Retry-After": retry_after}
    call.with_faults(Respond(429, {"message": "Too Many Attempts."}, headers))

    assert call.error(RateLimited).seconds == seconds


@pytest.mark.parametrize("zone", ["", " -0000"])
@pytest.mark.usefixtures("far_from_utc")
def test_a_date_in_retry_after_is_read_in_utc(create: Call, zone: str) -> None:
    date = {"Retry-After": f"Mon, 01 Jul 2024 12:01:30{zone}"}

    assert create.with_faults(Respond(429, b"", date)).error(RateLimited).seconds == 30


def test_a_429_restarts_the_15_minutes(poll: Call) -> None:
    poll.with_faults(*[ServerError()] * 20, Respond(429), then=ServerError()).error(RateLimited)

    assert poll.seconds() == pytest.approx(RETRY_SECONDS, abs=1)


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A system time zone that is nine hours from UTC."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()


# Retries.


@pytest.mark.parametrize(
    "fault",
    [
        *(ServerError(status) for status in (500, 502, 503, 504, 599)),
        *(Respond(status, {"message": "Later."}) for status in (408, 425)),
        *(Reset(), Hang(), Drip(5)),
    ],
    ids=lambda fault: f"{fault.name()} {getattr(fault, 'status', '')}",
)
def test_a_temporary_failure_is_retried(call: Call, fault: Fault) -> None:
    assert call.with_faults(fault, fault)()


@pytest.mark.parametrize(
    "fault", [ServerError(), Respond(408), Reset(), Respond(200, b"<html>")], ids=repr
)
def test_a_call_gives_up_after_15_minutes(poll: Call, fault: Fault) -> None:
    poll()

    assert poll.with_faults(then=fault).seconds() == pytest.approx(RETRY_SECONDS, abs=1)


def test_a_call_with_slow_responses_gives_up_after_15_minutes(poll: Call) -> None:
    assert RETRY_SECONDS <= poll.with_faults(then=Drip(5)).seconds() < RETRY_SECONDS + 120


@pytest.mark.parametrize(
    "fault",
    [
        Respond(200, b"<html>"),
        Respond(202, b"{}", {"Content-Encoding": "gzip"}),
        Respond(202, b"{", {"Content-Length": "50"}),
        Drip(5),
    ],
    ids=repr,
)
def test_a_create_with_unreadable_responses_is_attempted_three_times(
    create: Call, fault: Fault
) -> None:
    assert len(create.with_faults(then=fault).requests()) == 3


def test_the_first_call_gives_up_after_a_minute_without_a_response(call: Call) -> None:
    assert call.with_faults(then=Reset()).seconds() == pytest.approx(60, abs=1)


def test_any_response_extends_the_limit_to_15_minutes(create: Call) -> None:
    create.with_faults(Reset(), Reset(), ServerError(), then=Reset())

    assert create.seconds() == pytest.approx(RETRY_SECONDS, abs=1)


def test_backoff_delays_are_random_and_grow_to_a_minute() -> None:
    limits = (1, 2, 4, 8, 16, 32, 60, 60)
    backoffs = [Backoff(VirtualClock()) for _ in range(100)]

    for limit in limits:
        delays = [each.next_delay(RequestFailed("failed"), RETRY_SECONDS) or 0 for each in backoffs]
        assert 0.7 * limit < max(delays) <= limit


@pytest.mark.parametrize("retry_after", ["120", "Mon, 01 Jul 2024 12:03:00 GMT"])
@pytest.mark.parametrize("status", [503, 500, 408, 425])
def test_retry_after_is_obeyed(poll: Call, status: int, retry_after: str) -> None:
    first, second = poll.with_faults(Respond(status, b"", {"Retry-After": retry_after})).requests()

    assert second.time - first.time == 120


def test_a_retry_after_of_0_still_backs_off(poll: Call) -> None:
    requests = poll.with_faults(then=Respond(503, b"", {"Retry-After": "0"})).requests()

    assert len(requests) < 60


def test_a_retry_after_of_an_hour_is_obeyed_once(poll: Call) -> None:
    requests = poll.with_faults(then=Respond(503, b"", {"Retry-After": "3600"})).requests()

    assert [after.time - before.time for before, after in itertools.pairwise(requests)] == [3600]


@pytest.mark.parametrize(
    ("retry_after", "moment"),
    [
        ("3601", "2024-07-01T13:01:01+00:00"),
        ("Tue, 02 Jul 2024 06:00:00 GMT", "2024-07-02T06:00:00+00:00"),
        ("1e300", "9999-01-01T00:00:00+00:00"),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_after_of_more_than_an_hour_is_an_error(
    call: Call, status: int, retry_after: str, moment: str
) -> None:
    error = call.with_faults(Respond(status, b"", {"Retry-After": retry_after})).error()

    end = f": the API responded {status} and asked to retry after {moment}; rerun the tap then"
    assert str(error).endswith(end)
    assert len(call.world.requests(call.kind)) == 1


# Errors after the last retry.


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (ServerError(502), "the API responded 502"),
        (Reset(), "the connection was interrupted"),
        (Hang(), "the request timed out"),
        (Drip(59), "the response took too long"),
        (Respond(200), "the response was not an export as Cometly documents it"),
        (Respond(200, QUEUED | {"export_id": 9}), "the response was for export 9, not 1"),
        (Respond(200, b"x" * 40, {"Content-Encoding": "gzip"}), "the response was unreadable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_error_says_why_responses_are_unusable(poll: Call, fault: Fault, reason: str) -> None:
    assert re.fullmatch(
        rf"could not poll the export: {reason}; gave up after \d+ attempts in [\d,]+ s; check "
        "the network, Cometly's status page and, if it is set, 'api_url', then rerun the tap",
        str(poll.with_faults(then=fault).error()),
    )


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1", "the connection could not be made"),
        ("https://127.0.0.1:1", "the connection could not be made"),
        ("https://{api}", "the TLS connection failed"),
        ("https://no-such-host.invalid", "the host name could not be resolved"),
    ],
)
@pytest.mark.usefixtures("environment")
def test_the_error_says_why_the_connection_failed(world: World, url: str, reason: str) -> None:
    api = world.simulator.api_url.removeprefix("http://")

    error = Call(world, "create", api_url=url.format(api=api)).error()

    assert str(error).startswith(f"could not create the export: {reason}; gave up after")


def test_the_error_names_an_unreachable_proxy(
    world: World, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("https_proxy", "http://127.0.0.1:1")

    error = Call(world, "create", api_url="https://api.example").error()

    assert "the proxy could not be reached or refused to connect; gave up after" in str(error)


# Errors that a retry cannot fix.


def immediate_error(world: World, api_url: str) -> str:
    """The error of a call that fails without waiting."""
    call = Call(world, "create", api_url=api_url)
    started = world.clock.now()
    error = call.error()
    assert world.clock.now() == started
    return str(error)


@pytest.mark.parametrize(
    "host", ["a" * 64 + ".example", "a..b", ".example", "*.example", "e\u0301\u200d.example"]
)
@pytest.mark.usefixtures("environment")
def test_an_invalid_host_name_fails_without_a_retry(world: World, host: str) -> None:
    error = immediate_error(world, f"https://{host}/v1")

    assert error.endswith(f"the setting 'api_url' has an invalid host name: {host!r}")


@pytest.mark.parametrize(
    "value",
    [
        *("http://", "http://user:secret@", "ftp://proxy.example", "http://proxy.example:http"),
        *("http://proxy.example:99999", "https://[::1", "socks5://127.0.0.1:1"),
        *("http://" + "a" * 64, "http://a b"),
    ],
)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_an_unusable_proxy_setting_fails_without_a_retry(
    world: World, environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(name, value)

    error = immediate_error(world, "https://api.example")

    assert f"could not create the export: {name} is not a usable proxy URL" in error
    assert value not in error


@pytest.mark.parametrize("file", ["missing.pem", "no-certificates.pem"])
@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_an_unusable_ca_bundle_fails_without_a_retry(
    world: World, environment: pytest.MonkeyPatch, tmp_path: Path, name: str, file: str
) -> None:
    (tmp_path / "no-certificates.pem").write_text("-")
    environment.setenv(name, str(tmp_path / file))

    error = immediate_error(world, "https://127.0.0.1:1")

    assert f"{name} does not name a file or folder of CA certificates; correct it" in error


# 4xx and redirects.


@pytest.mark.parametrize("status", [400, 401, 402, 403, 405, 409, 410, 422, 423, 451])
def test_a_4xx_fails_at_once_with_cometlys_message(call: Call, status: int) -> None:
    error = call.with_faults(Refuse(status, "Not allowed.")).error()

    assert f'the API responded {status}: "Not allowed."; ' in str(error)
    is_special = status in {409, 422, 423} and call.kind == "create"
    assert isinstance(error, CreateRefused) == is_special
    assert getattr(error, "status", status) == status


@pytest.mark.parametrize(
    ("answer", "quoted"),
    [
        ({"message": "No.", "errors": {"a": ["Odd a."], "b": ["Odd b."]}}, "No. Odd a. Odd b."),
        (
            {"message": "Odd a. (and 1 more)", "errors": {"a": ["Odd a."]}},
            "Odd a. (and 1 more)",
        ),
        ({"message": "No.", "errors": {"a": "Odd a.", "b": [5, None]}}, "No. Odd a."),
        ({"message": None, "errors": ["Odd."]}, "Odd."),
        ({"message": "No,\r\n\tno.\u2028", "errors": 5}, "No, no."),
        ({"message": "n" * 500}, "n" * 500),
        ({"message": "n" * 501}, "n" * 500 + "…"),
    ],
    ids=lambda value: repr(value)[:50].replace("\\", ""),
)
def test_the_error_quotes_cometlys_message_and_its_details(
    create: Call, answer: object, quoted: str
) -> None:
    error = create.with_faults(Respond(422, answer)).error()

    assert f'422: "{quoted}"; if the cause is unclear' in str(error)


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "check the setting 'api_key'"),
        (403, "check that the API key may export contacts and that the subscription is active"),
        (404, "check the setting 'api_url'"),
        (418, "if the cause is unclear, contact Cometly's support and quote this line"),
    ],
)
@pytest.mark.parametrize("body", [{}, {"message": 5}, {"message": " "}, [], b'"no"'], ids=repr)
def test_a_4xx_without_a_message_says_what_to_check(
    create: Call, status: int, body: object, advice: str
) -> None:
    error = create.with_faults(Respond(status, body)).error()

    assert str(error) == f"could not create the export: the API responded {status}; {advice}"


@pytest.mark.parametrize("body", [b"<html>Blocked</html>", b"", b"1".ljust(2**21)], ids=len)
@pytest.mark.parametrize("status", [401, 403, 409])
def test_a_4xx_that_is_not_json_is_attributed_to_a_firewall_or_proxy(
    call: Call, status: int, body: bytes
) -> None:
    error = call.with_faults(Respond(status, body)).error()

    assert f"response {status} is not JSON, so probably from a firewall or proxy" in str(error)
    assert not isinstance(error, CreateRefused)


@pytest.mark.parametrize(("body", "message"), [(b"", ""), ({"message": "Gone."}, "Gone.")])
def test_a_404_to_a_poll_raises_export_not_found(poll: Call, body: object, message: str) -> None:
    assert str(poll.with_faults(Respond(404, body)).error(ExportNotFound)) == message


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["{storage}/elsewhere", "http://["])
def test_a_redirect_is_not_followed(call: Call, status: int, location: str) -> None:
    target = location.format(storage=call.world.simulator.storage_url)

    error = call.with_faults(Redirect(target, status)).error()

    assert f"{status}, a redirect, which the tap does not follow; check the" in str(error)
    assert len(call.world.simulator.requests) == 1


# Download URLs.


def test_an_unsafe_url_is_rejected_and_not_shown(poll: Call) -> None:
    url = "http://bucket.example/file?X-Amz-Signature=c0ffee"

    error = poll.with_faults(DownloadUrl(url)).error()

    assert str(error).startswith("Cometly's download_url is neither https nor http to localhost")
    assert "c0ffee" not in str(error)


def test_an_https_url_is_returned_unchanged(poll: Call) -> None:
    url = "https://bucket.example/file?X-Amz-Signature=c0ffee"

    assert poll.with_faults(DownloadUrl(url)).client.get_export(1).download_url == url
