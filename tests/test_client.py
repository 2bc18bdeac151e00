"""The two API calls: what is sent, what answers mean, what is retried and for how long."""

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
    Answer,
    DownloadUrl,
    Drip,
    Hang,
    MalformedHeader,
    Redirect,
    Refuse,
    Reset,
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

    from simulator.faults import Fault, Where

WINDOW = ("2024-06-01 00:00:00", "2024-06-02 00:00:00")
QUEUED = {"export_id": 1, "status": "queued"}
COMPLETED = {"export_id": 1, "status": "completed"}
PATIENCE = 15 * 60


class Call:
    """One of the two calls, to a Space whose export 1 is completed."""

    def __init__(self, world: World, kind: Where, **settings: Any) -> None:
        """Set this world up; nothing has answered the client yet."""
        world.fill([], sleep=world.clock.sleep)
        world.space.create(world.space.read_order({"start_date": WINDOW[0], "end_date": WINDOW[1]}))
        world.clock.sleep(60)
        self.world = world
        self.client = CometlyClient(replace(world.tap().settings, **settings), world.clock, 0.2)
        self.kind = kind

    def __call__(self) -> int | ExportStatus:
        """Make the call."""
        if self.kind == "create":
            return self.client.create_export(*WINDOW)
        return self.client.get_export(1)

    def meets(self, *faults: Fault, then: Fault | None = None) -> Call:
        """Add faults for one request each, and one for all requests after those."""
        for fault in faults:
            self.world.simulator.faults.add(self.kind, fault)
        if then is not None:
            self.world.simulator.faults.add(self.kind, then, times=None)
        return self

    def error(self, kind: type[Exception] = CometlyError) -> Any:  # noqa: ANN401
        """Make the call, and return the error that it ends in."""
        with pytest.raises(kind) as error:
            self()
        return error.value

    def requests(self) -> list[Any]:
        """Make the call, and return its requests, however it ends."""
        with suppress(CometlyError, RateLimited):
            self()
        return self.world.requests(self.kind)

    def seconds(self) -> float:
        """Make the call, and return the time until it gives up."""
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
def either(request: pytest.FixtureRequest, world: World) -> Call:
    return Call(world, request.param)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without proxies and CA bundles, to set them in."""
    names = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    for name in (*names, *map(str.upper, names), "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


# What is sent.


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
def test_every_call_has_the_documented_headers(world: World, kind: Where) -> None:
    (request,) = Call(world, kind, user_agent="a tap/1").requests()

    assert request.headers["Authorization"] == f"Bearer {API_KEY}"
    assert request.headers["Accept"] == "application/json"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["User-Agent"] == "a tap/1"


def test_plain_http_does_not_use_a_proxy(either: Call, environment: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy"):
        environment.setenv(name, "http://127.0.0.1:1")

    assert either()  # would fail at that proxy


# What answers mean.


@pytest.mark.parametrize("status", [200, 201, 202])
@pytest.mark.parametrize("export_id", [0, 7, 2**60])
def test_a_create_returns_the_id(create: Call, status: int, export_id: int) -> None:
    answer = QUEUED | {"export_id": export_id, "more": ["than", "documented"]}

    assert create.meets(Answer(status, answer))() == export_id


def test_a_poll_returns_what_cometly_says(poll: Call) -> None:
    poll.client.create_export(*WINDOW)

    export = poll.client.get_export(2)

    message = "Export is queued. Please check back in a few minutes."
    assert (export.status, export.message) == ("queued", message)
    assert export.created_at is not None
    assert export.created_at.timestamp() == NOON.timestamp() + 60


def test_each_poll_of_a_completed_export_returns_another_url(poll: Call) -> None:
    first, second = poll.client.get_export(1), poll.client.get_export(1)

    assert None not in (first.completed_at, first.download_url, second.download_url)
    assert first.download_url != second.download_url


@pytest.mark.parametrize("fault", [StatusCase("upper"), StatusCase("title")])
def test_the_letter_case_of_a_status_does_not_matter(poll: Call, fault: Fault) -> None:
    export = poll.meets(fault).client.get_export(1)

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
def test_a_url_may_be_missing_or_come_too_early(poll: Call, answer: object) -> None:
    assert poll.meets(Answer(200, answer)).client.get_export(1).download_url is None


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
def test_an_unreadable_answer_is_retried(poll: Call, body: object) -> None:
    assert len(poll.meets(Answer(200, body)).requests()) == 2


def test_an_answer_of_1_mib_is_read(poll: Call) -> None:
    body = b'{"export_id": 1, "status": "queued"}'.ljust(1024 * 1024)

    assert len(poll.meets(Answer(200, body)).requests()) == 1


def test_a_malformed_header_is_neither_an_error_nor_logged(
    either: Call, caplog: pytest.LogCaptureFixture
) -> None:
    assert either.meets(MalformedHeader())()
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
def test_a_429_asks_to_wait(either: Call, retry_after: str | None, seconds: float) -> None:
    headers = None if retry_after is None else {"Retry-After": retry_after}
    either.meets(Answer(429, {"message": "Too Many Attempts."}, headers))

    assert either.error(RateLimited).seconds == seconds


@pytest.mark.parametrize("zone", ["", " -0000"])
@pytest.mark.usefixtures("far_from_utc")
def test_an_http_date_is_in_utc(create: Call, zone: str) -> None:
    date = {"Retry-After": f"Mon, 01 Jul 2024 12:01:30{zone}"}

    assert create.meets(Answer(429, b"", date)).error(RateLimited).seconds == 30


def test_the_call_after_a_429_has_all_its_patience(poll: Call) -> None:
    poll.meets(*[ServerError()] * 20, Answer(429), then=ServerError()).error(RateLimited)

    assert poll.seconds() == pytest.approx(PATIENCE, abs=1)


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose own zone is nine hours from UTC."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()


# What is retried, and for how long.


@pytest.mark.parametrize(
    "fault",
    [
        *(ServerError(status) for status in (500, 502, 503, 504, 599)),
        *(Answer(status, {"message": "Later."}) for status in (408, 425)),
        *(Reset(), Hang(), Drip(20)),
    ],
    ids=lambda fault: f"{fault.name()} {getattr(fault, 'status', '')}",
)
def test_a_temporary_failure_is_retried(either: Call, fault: Fault) -> None:
    assert either.meets(fault, fault)()


@pytest.mark.parametrize(
    "fault", [ServerError(), Answer(408), Reset(), Answer(200, b"<html>")], ids=repr
)
def test_patience_ends_after_15_minutes(poll: Call, fault: Fault) -> None:
    poll()

    assert poll.meets(then=fault).seconds() == pytest.approx(PATIENCE, abs=1)


def test_a_dripping_answer_does_not_hold_a_call(either: Call) -> None:
    assert either.meets(then=Drip(10)).seconds() >= PATIENCE


def test_an_unreadable_create_is_attempted_three_times(create: Call) -> None:
    assert len(create.meets(then=Answer(200, b"<html>")).requests()) == 3


def test_patience_is_one_minute_while_nothing_has_answered(either: Call) -> None:
    assert either.meets(then=Reset()).seconds() == pytest.approx(60, abs=1)


def test_any_answer_extends_patience(create: Call) -> None:
    create.meets(Reset(), Reset(), ServerError(), then=Reset())

    assert create.seconds() == pytest.approx(PATIENCE, abs=1)


def test_pauses_are_random_and_grow_to_a_minute() -> None:
    limits = (1, 2, 4, 8, 16, 32, 60, 60)
    backoffs = [Backoff(VirtualClock()) for _ in range(100)]

    for limit in limits:
        pauses = [each.next_delay(RequestFailed("it"), PATIENCE) or 0 for each in backoffs]
        assert 0.7 * limit < max(pauses) <= limit


@pytest.mark.parametrize("retry_after", ["120", "Mon, 01 Jul 2024 12:03:00 GMT"])
@pytest.mark.parametrize("status", [503, 500, 408, 425])
def test_retry_after_is_obeyed(poll: Call, status: int, retry_after: str) -> None:
    first, second = poll.meets(Answer(status, b"", {"Retry-After": retry_after})).requests()

    assert second.time - first.time == 120


def test_a_retry_after_of_0_still_backs_off(poll: Call) -> None:
    requests = poll.meets(then=Answer(503, b"", {"Retry-After": "0"})).requests()

    assert len(requests) < 60


def test_an_hour_is_waited_and_followed_by_another_attempt(poll: Call) -> None:
    requests = poll.meets(then=Answer(503, b"", {"Retry-After": "3600"})).requests()

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
def test_more_than_an_hour_is_not_waited(
    either: Call, status: int, retry_after: str, moment: str
) -> None:
    error = either.meets(Answer(status, b"", {"Retry-After": retry_after})).error()

    told = f": the API responded {status} and asked to retry after {moment}; rerun the tap then"
    assert str(error).endswith(told)
    assert len(either.world.requests(either.kind)) == 1


# Why there was no usable answer, in the sentence that a call ends with.


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (ServerError(502), "the API responded 502"),
        (Reset(), "the connection was interrupted"),
        (Hang(), "the request timed out"),
        (Drip(59), "the response took too long"),
        (Answer(200), "the response was not an export as Cometly documents it"),
        (Answer(200, QUEUED | {"export_id": 9}), "the response was for export 9, not 1"),
        (Answer(200, b"x" * 40, {"Content-Encoding": "gzip"}), "the response was unreadable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_answer_that_is_not_usable(poll: Call, fault: Fault, reason: str) -> None:
    assert re.fullmatch(
        rf"could not poll the export: {reason}; gave up after \d+ attempts in [\d,]+ s; check "
        "the network, Cometly's status page and, if it is set, 'api_url', then rerun the tap",
        str(poll.meets(then=fault).error()),
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
def test_a_connection_that_cannot_be_made(world: World, url: str, reason: str) -> None:
    api = world.simulator.api_url.removeprefix("http://")

    error = Call(world, "create", api_url=url.format(api=api)).error()

    assert str(error).startswith(f"could not create the export: {reason}; gave up after")


def test_a_proxy_that_is_not_there(world: World, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("https_proxy", "http://127.0.0.1:1")

    error = Call(world, "create", api_url="https://api.example").error()

    assert "the proxy could not be reached or refused to connect; gave up after" in str(error)


# What waiting cannot fix.


def immediate_error(world: World, api_url: str) -> str:
    """What a call ends with at once."""
    call = Call(world, "create", api_url=api_url)
    started = world.clock.now()
    error = call.error()
    assert world.clock.now() == started
    return str(error)


@pytest.mark.parametrize(
    "host", ["a" * 64 + ".example", "a..b", ".example", "*.example", "e\u0301\u200d.example"]
)
@pytest.mark.usefixtures("environment")
def test_an_impossible_host_name(world: World, host: str) -> None:
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
def test_an_unusable_proxy_setting(
    world: World, environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(name, value)

    error = immediate_error(world, "https://api.example")

    assert f"could not create the export: {name} is not a usable proxy URL" in error
    assert value not in error


@pytest.mark.parametrize("file", ["missing.pem", "no-certificates.pem"])
@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_an_unusable_ca_bundle(
    world: World, environment: pytest.MonkeyPatch, tmp_path: Path, name: str, file: str
) -> None:
    (tmp_path / "no-certificates.pem").write_text("-")
    environment.setenv(name, str(tmp_path / file))

    error = immediate_error(world, "https://127.0.0.1:1")

    assert f"{name} does not name a file or folder of CA certificates; correct it" in error


# Refusals.


@pytest.mark.parametrize("status", [400, 401, 402, 403, 405, 409, 410, 422, 423, 451])
def test_a_4xx_fails_at_once_with_cometlys_message(either: Call, status: int) -> None:
    error = either.meets(Refuse(status, "Not on a Sunday.")).error()

    assert f'the API responded {status}: "Not on a Sunday."; ' in str(error)
    is_special = status in {409, 422, 423} and either.kind == "create"
    assert isinstance(error, CreateRefused) == is_special
    assert getattr(error, "status", status) == status


@pytest.mark.parametrize(
    ("answer", "said"),
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
def test_the_details_in_errors_are_said_too(create: Call, answer: object, said: str) -> None:
    error = create.meets(Answer(422, answer)).error()

    assert f'422: "{said}"; if the cause is unclear' in str(error)


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
def test_a_refusal_without_a_message_says_what_to_check(
    create: Call, status: int, body: object, advice: str
) -> None:
    error = create.meets(Answer(status, body)).error()

    assert str(error) == f"could not create the export: the API responded {status}; {advice}"


@pytest.mark.parametrize("body", [b"<html>Blocked</html>", b"", b"1".ljust(2**21)], ids=len)
@pytest.mark.parametrize("status", [401, 403, 409])
def test_a_4xx_that_is_not_json_did_not_come_from_the_api(
    either: Call, status: int, body: bytes
) -> None:
    error = either.meets(Answer(status, body)).error()

    assert f"response {status} is not JSON, so probably from a firewall or proxy" in str(error)
    assert not isinstance(error, CreateRefused)


@pytest.mark.parametrize(("body", "said"), [(b"", ""), ({"message": "Gone."}, "Gone.")])
def test_a_404_to_a_poll_means_that_the_export_vanished(
    poll: Call, body: object, said: str
) -> None:
    assert str(poll.meets(Answer(404, body)).error(ExportNotFound)) == said


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["{storage}/elsewhere", "http://["])
def test_a_redirect_is_not_followed(either: Call, status: int, location: str) -> None:
    target = location.format(storage=either.world.simulator.storage_url)

    error = either.meets(Redirect(target, status)).error()

    assert f"{status}, a redirect, which the tap does not follow; check the" in str(error)
    assert len(either.world.simulator.requests) == 1


# Download URLs.


@pytest.mark.parametrize(
    "url",
    [
        "http://bucket.example/file?X-Amz-Signature=c0ffee",
        "https://somebody:c0ffee@bucket.example/file",
        "file:///etc/passwd?X-Amz-Signature=c0ffee",
        "https://[bucket/file?X-Amz-Signature=c0ffee",
        "a file, c0ffee",
    ],
)
def test_an_unsafe_url_is_rejected_and_not_shown(poll: Call, url: str) -> None:
    error = poll.meets(DownloadUrl(url)).error()

    assert str(error).startswith("Cometly's download_url is neither https nor http to localhost")
    assert "c0ffee" not in str(error)


@pytest.mark.parametrize(
    "url",
    ["https://bucket.example/file?X-Amz-Signature=c0ffee", "http://[::1]:9/f", "HTTPS://a.b/f"],
)
def test_https_and_localhost_are_safe(poll: Call, url: str) -> None:
    assert poll.meets(DownloadUrl(url)).client.get_export(1).download_url == url
