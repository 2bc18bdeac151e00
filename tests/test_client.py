"""The two API calls: what is sent, which answers are taken, and what becomes of the others."""

from __future__ import annotations

import itertools
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Literal

import pytest

from simulator.faults import (
    Answer,
    DownloadUrl,
    Hang,
    Redirect,
    Refuse,
    Reset,
    ServerError,
    TooManyRequests,
)
from tap_cometly.client import CometlyClient, ExportStatus, ExportVanished, RateLimited
from tap_cometly.errors import CometlyError
from tap_cometly.transport import backoff_delays as pauses
from tests.conftest import API_KEY, NOON, VirtualClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from simulator.faults import Fault, Where
    from tests.conftest import World

CALLS: tuple[Where, ...] = ("create", "poll")
WINDOW = ("2024-06-01 00:00:00", "2024-06-02 00:00:00")
COMPLETED = {"export_id": 1, "status": "completed"}


def client_of(world: World, read_timeout_seconds: float = 10, **settings: Any) -> CometlyClient:
    """A client with the settings of a tap."""
    return CometlyClient(world.tap(**settings).settings, world.clock, read_timeout_seconds)


def call(client: CometlyClient, kind: Where) -> int | ExportStatus:
    """Create an export, or ask for the first one."""
    return client.create_export(*WINDOW) if kind == "create" else client.get_export(1)


def completed_export(world: World, **settings: Any) -> CometlyClient:
    """A client whose Space has one export, which is completed."""
    client = client_of(world, **settings)
    client.create_export(*WINDOW)
    world.clock.sleep(60)
    return client


class TestWhatIsSent:
    """Method, path, headers and body."""

    def test_a_create_posts_the_window(self, world: World) -> None:
        client_of(world).create_export(*WINDOW)

        (request,) = world.simulator.requests
        assert (request.method, request.path) == ("POST", "/public-api/v1/contacts/exports")
        assert request.json == {"start_date": WINDOW[0], "end_date": WINDOW[1]}

    @pytest.mark.parametrize("option", ["include_comet_tokens", "include_all_emails"])
    def test_an_option_that_is_on_is_sent_as_1(self, world: World, option: str) -> None:
        client_of(world, **{option: True}).create_export(*WINDOW)

        (request,) = world.requests("create")
        assert request.json == {"start_date": WINDOW[0], "end_date": WINDOW[1], option: 1}

    def test_a_poll_gets_the_export_without_a_body(self, world: World) -> None:
        completed_export(world).get_export(1)

        (request,) = world.requests("poll")
        assert (request.method, request.path) == ("GET", "/public-api/v1/contacts/exports/1")
        assert request.headers.get("Content-Length", "0") == "0"

    @pytest.mark.parametrize("kind", CALLS)
    def test_every_call_has_the_documented_headers(self, world: World, kind: Where) -> None:
        call(completed_export(world, user_agent="a tap/1"), kind)

        headers = world.requests(kind)[-1].headers
        assert headers["Authorization"] == f"Bearer {API_KEY}"
        assert headers["Accept"] == "application/json"
        assert headers["Content-Type"] == "application/json"
        assert headers["User-Agent"] == "a tap/1"

    @pytest.mark.parametrize("kind", CALLS)
    def test_netrc_does_not_override_the_key(
        self, world: World, kind: Where, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        netrc = tmp_path / ".netrc"
        netrc.write_text("machine 127.0.0.1 login somebody password secret\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(netrc))

        call(completed_export(world), kind)

        assert world.requests(kind)[-1].headers["Authorization"] == f"Bearer {API_KEY}"


class TestAnswers:
    """What a call makes of an answer that is not an error."""

    @pytest.mark.parametrize("status", [200, 201, 202])
    def test_a_create_gives_the_exports_id(self, world: World, status: int) -> None:
        answer = {"export_id": 7, "status": "queued", "more": ["than", "documented"]}
        world.simulator.faults.add("create", Answer(status, answer))

        assert client_of(world).create_export(*WINDOW) == 7

    def test_0_is_an_id_like_any_other(self, world: World) -> None:
        world.simulator.faults.add("create", Answer(202, {"export_id": 0, "status": "queued"}))

        assert client_of(world).create_export(*WINDOW) == 0

    def test_a_poll_tells_status_and_message(self, world: World) -> None:
        client = client_of(world)
        client.create_export(*WINDOW)

        assert client.get_export(1) == ExportStatus(
            1, "queued", None, "Export is queued. Please check back in a few minutes."
        )

    def test_each_poll_of_a_completed_export_gives_another_url(self, world: World) -> None:
        client = completed_export(world)

        urls = [client.get_export(1).download_url for _ in range(2)]

        assert None not in urls
        assert urls[0] != urls[1]

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"<html>Welcome</html>",
            b'{"export_id": 1, "status": "queued"',
            b"\xff\xfe\xfd",
            b"[" * 100_000,
            b'{"export_id": ' + b"9" * 5000 + b', "status": "queued"}',
            b"null",
            [],
            "7",
            {},
            {"data": {"export_id": 1, "status": "queued"}},
            {"status": "queued"},
            {"export_id": None, "status": "queued"},
            {"export_id": "1", "status": "queued"},
            {"export_id": 1.0, "status": "queued"},
            {"export_id": True, "status": "queued"},
            {"export_id": [1], "status": "queued"},
            {"export_id": 1},
            {"export_id": 1, "status": None},
            {"export_id": 1, "status": 3},
            {"export_id": 1, "status": {"name": "queued"}},
        ],
        ids=lambda body: repr(body)[:40],
    )
    @pytest.mark.parametrize("kind", CALLS)
    def test_one_of_another_shape_is_asked_for_again(
        self, world: World, kind: Where, body: object
    ) -> None:
        client = completed_export(world)
        asked_before = len(world.requests(kind))
        world.simulator.faults.add(kind, Answer(202, body))

        call(client, kind)

        assert len(world.requests(kind)) - asked_before == 2

    @pytest.mark.parametrize(
        "body",
        [
            {"export_id": 2, "status": "completed", "download_url": "https://a.example/f"},
            COMPLETED | {"download_url": 5},
            COMPLETED | {"download_url": ["https://bucket.example/file"]},
        ],
        ids=["another-export", "number-as-url", "list-as-url"],
    )
    def test_a_poll_with_what_cannot_be_is_asked_for_again(
        self, world: World, body: object
    ) -> None:
        client = completed_export(world)
        world.simulator.faults.add("poll", Answer(200, body))

        answer = client.get_export(1)

        assert str(answer.download_url).startswith(world.simulator.storage_url)
        assert len(world.requests("poll")) == 2

    @pytest.mark.parametrize("url", [None, ""])
    def test_completed_without_url_is_an_answer(self, world: World, url: str | None) -> None:
        world.simulator.faults.add("poll", Answer(200, COMPLETED | {"download_url": url}))

        assert completed_export(world).get_export(1).download_url is None

    def test_only_a_completed_export_has_a_url(self, world: World) -> None:
        answer = {"export_id": 1, "status": "processing", "download_url": "https://a.example/f"}
        world.simulator.faults.add("poll", Answer(200, answer))

        assert completed_export(world).get_export(1).download_url is None


class TestRateLimits:
    """A 429 is a request to wait, and no fault."""

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
            ("inf", 60),
            ("1e999", 60),
            ("Mon, 01 Jul 99999 12:00:00 GMT", 60),
            ("Mon, 01 Jul 2024 12:00:00 +99999999999999999999", 60),
        ],
    )
    @pytest.mark.parametrize("kind", CALLS)
    def test_a_429_says_how_long_to_wait(
        self, world: World, kind: Where, retry_after: str | None, seconds: float
    ) -> None:
        client = completed_export(world)
        headers = None if retry_after is None else {"Retry-After": retry_after}
        world.simulator.faults.add(kind, Answer(429, {"message": "Too Many Attempts."}, headers))

        with pytest.raises(RateLimited) as limit:
            call(client, kind)

        assert limit.value.seconds == seconds

    @pytest.mark.parametrize("zone", ["", " -0000"])
    def test_a_date_is_utc_whatever_the_machines_zone(
        self, world: World, zone: str, far_from_utc: None
    ) -> None:
        del far_from_utc
        date = {"Retry-After": f"Mon, 01 Jul 2024 12:00:30{zone}"}
        world.simulator.faults.add("create", Answer(429, b"", date))

        with pytest.raises(RateLimited) as limit:
            client_of(world).create_export(*WINDOW)

        assert limit.value.seconds == 30

    @pytest.mark.parametrize("kind", CALLS)
    @pytest.mark.parametrize("retry_after", [3, "http-date", None])
    def test_a_run_outlasts_any_number_of_them(
        self, world: World, kind: Where, retry_after: Literal["http-date"] | int | None
    ) -> None:
        world.simulator.faults.add(kind, TooManyRequests(retry_after), times=40)

        run = world.sync(end_date="2024-06-03T00:00:00Z")

        assert run.error is None
        assert run.bookmarks[-1] == "2024-06-03T00:00:00+00:00"

    @pytest.mark.parametrize("kind", CALLS)
    def test_a_run_waits_as_long_as_they_say(self, world: World, kind: Where) -> None:
        world.simulator.faults.add(kind, TooManyRequests(retry_after=47), times=3)

        world.sync(end_date="2024-06-02T00:00:00Z")

        times = [request.time for request in world.requests(kind)]
        assert [after - before for before, after in itertools.pairwise(times)] == [47] * 3


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose own zone is nine hours from UTC."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()


TROUBLE = [
    pytest.param(ServerError(500), id="500"),
    pytest.param(ServerError(502), id="502"),
    pytest.param(ServerError(503), id="503"),
    pytest.param(ServerError(504), id="504"),
    pytest.param(Answer(599, {"message": "?"}), id="599"),
    pytest.param(Answer(202, b"<html>"), id="no-json"),
    pytest.param(Answer(202, {"ok": True}), id="another-shape"),
    pytest.param(Reset(), id="reset"),
]


class TestTrouble:
    """What may pass is tried again: 8 requests or 5 minutes."""

    @pytest.mark.parametrize("fault", TROUBLE)
    @pytest.mark.parametrize("kind", CALLS)
    def test_seven_times_does_no_harm(self, world: World, kind: Where, fault: Fault) -> None:
        client = completed_export(world)
        world.simulator.faults.add(kind, fault, times=7)

        call(client, kind)

        assert world.requests(kind)[-1].status in {200, 202}

    @pytest.mark.parametrize("fault", TROUBLE)
    @pytest.mark.parametrize("kind", CALLS)
    def test_eight_times_are_an_error(self, world: World, kind: Where, fault: Fault) -> None:
        client = completed_export(world)
        asked_before = len(world.requests(kind))
        world.simulator.faults.add(kind, fault, times=None)

        with pytest.raises(CometlyError, match=r"Cometly could not .* at the last of 8 tries"):
            call(client, kind)

        assert len(world.requests(kind)) - asked_before == 8

    @pytest.mark.parametrize("kind", CALLS)
    def test_a_server_that_does_not_answer_is_asked_again(self, world: World, kind: Where) -> None:
        completed_export(world)
        world.simulator.faults.add(kind, Hang())

        began = time.perf_counter()

        call(client_of(world, read_timeout_seconds=0.1), kind)

        assert time.perf_counter() - began < 1.5
        assert world.requests(kind)[-1].status in {200, 202}

    def test_nobody_listens(self, world: World) -> None:
        client = client_of(world, api_url="http://127.0.0.1:1/public-api/v1")

        with pytest.raises(CometlyError, match="the connection could not be made or broke"):
            client.create_export(*WINDOW)

    def test_five_minutes_are_the_most(self, world: World) -> None:
        class SlowServer(VirtualClock):
            """The simulator asks for the time once for each request it refuses."""

            def now(self) -> float:
                self.sleep(70)
                return super().now()

        world.clock = SlowServer()
        world.fill([])
        world.simulator.faults.add("create", ServerError(), times=None)
        client = client_of(world)

        with pytest.raises(CometlyError, match="at the last of"):
            client.create_export(*WINDOW)

        times = [request.time for request in world.requests("create")]
        assert 4 <= len(times) <= 5
        assert times[-1] - times[0] <= 300

    def test_pauses_double_up_to_a_minute(self) -> None:
        most = [1, 2, 4, 8, 16, 32, 60, 60, 60]
        drawn = [list(itertools.islice(pauses(), len(most))) for _ in range(200)]

        longest = [max(column) for column in zip(*drawn, strict=True)]

        assert all(0.8 * limit < seen <= limit for seen, limit in zip(longest, most, strict=True))


class TestRefusals:
    """What another try would not change fails at once, in Cometly's words."""

    @pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 408, 409, 410, 422, 451])
    def test_a_refused_create_fails_at_once_with_cometlys_message(
        self, world: World, status: int
    ) -> None:
        world.simulator.faults.add("create", Refuse(status, "Not on a Sunday."), times=None)

        with pytest.raises(CometlyError, match=rf"{status} .*Not on a Sunday\."):
            client_of(world).create_export(*WINDOW)

        assert len(world.requests("create")) == 1

    @pytest.mark.parametrize("status", [400, 401, 403, 409, 422])
    def test_a_refused_poll_fails_at_once_with_cometlys_message(
        self, world: World, status: int
    ) -> None:
        world.simulator.faults.add("poll", Refuse(status, "Not on a Sunday."), times=None)

        with pytest.raises(CometlyError, match=rf"{status} .*Not on a Sunday\."):
            completed_export(world).get_export(1)

        assert len(world.requests("poll")) == 1

    def test_a_poll_of_no_export_says_that_it_vanished(self, world: World) -> None:
        with pytest.raises(ExportVanished, match=r"Export not found\."):
            client_of(world).get_export(12)

        assert len(world.requests("poll")) == 1

    def test_a_wrong_key_is_told_with_the_setting(self, world: World) -> None:
        with pytest.raises(CometlyError, match=r"401 .*Unauthenticated\..*'api_key'"):
            client_of(world, api_key="another").create_export(*WINDOW)

    def test_dates_that_cometly_does_not_take_are_told_in_its_words(self, world: World) -> None:
        with pytest.raises(CometlyError, match=r"422 .*The end_date field must be a date after"):
            client_of(world).create_export(WINDOW[1], WINDOW[0])

    @pytest.mark.parametrize("body", [b"<html>No</html>", b"", {"message": 5}, {"message": " "}])
    def test_one_without_a_message_is_told_all_the_same(self, world: World, body: object) -> None:
        world.simulator.faults.add("create", Answer(403, body))

        with pytest.raises(CometlyError, match="it answered 403; check that the API key may"):
            client_of(world).create_export(*WINDOW)

    def test_a_long_message_is_cut_and_put_on_one_line(self, world: World) -> None:
        world.simulator.faults.add("create", Refuse(422, "No,\r\n\tno.\u2028" * 1000))

        with pytest.raises(CometlyError, match=r"No, no\. No, no\.") as error:
            client_of(world).create_export(*WINDOW)

        assert len(str(error.value)) < 1000
        assert len(str(error.value).splitlines()) == 1

    @pytest.mark.parametrize("kind", CALLS)
    def test_a_message_that_echoes_the_key_is_shown_without_it(
        self, world: World, kind: Where
    ) -> None:
        client = completed_export(world)
        world.simulator.faults.add(kind, Refuse(403, "Who is this?", echo=True))

        with pytest.raises(CometlyError, match=r"Who is this\? \(Bearer \[hidden\]\)") as error:
            call(client, kind)

        assert API_KEY not in str(error.value)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("kind", CALLS)
    def test_a_redirect_is_an_error_and_not_followed(
        self, world: World, kind: Where, status: int
    ) -> None:
        client = completed_export(world)
        asked_before = len(world.simulator.requests)
        location = f"{world.simulator.storage_url}/elsewhere"
        world.simulator.faults.add(kind, Redirect(location, status))

        with pytest.raises(CometlyError, match=f"it answered {status}, a redirect"):
            call(client, kind)

        assert len(world.simulator.requests) - asked_before == 1

    @pytest.mark.parametrize("kind", CALLS)
    def test_plain_http_goes_through_no_proxy(
        self, world: World, kind: Where, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = completed_export(world)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        for name in ("http_proxy", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")

        call(client, kind)  # would fail at that proxy

        assert len(world.requests(kind)) == (2 if kind == "create" else 1)

    def test_where_a_redirect_leads_is_not_even_looked_at(self, world: World) -> None:
        client = completed_export(world)
        world.simulator.faults.add("poll", Redirect("http://["))

        with pytest.raises(CometlyError, match="it answered 302, a redirect"):
            call(client, "poll")


class TestDownloadUrls:
    """Contacts are not read over an open line."""

    @pytest.mark.parametrize(
        "url",
        [
            "http://bucket.example/file?X-Amz-Signature=c0ffee",
            "http://0.0.0.0/file?X-Amz-Signature=c0ffee",
            "http://127.0.0.1.example/file?X-Amz-Signature=c0ffee",
            "http://localhost@bucket.example/file?X-Amz-Signature=c0ffee",
            "https://somebody:c0ffee@bucket.example/file",
            "ftp://bucket.example/file?X-Amz-Signature=c0ffee",
            "file:///etc/passwd?X-Amz-Signature=c0ffee",
            "//bucket.example/file?X-Amz-Signature=c0ffee",
            "https://[bucket/file?X-Amz-Signature=c0ffee",
            "https:///file?X-Amz-Signature=c0ffee",
            "a file, c0ffee",
        ],
    )
    def test_an_unsafe_one_is_refused_and_not_shown(self, world: World, url: str) -> None:
        world.simulator.faults.add("poll", DownloadUrl(url))

        with pytest.raises(CometlyError, match="download_url is neither https nor") as error:
            completed_export(world).get_export(1)

        assert "c0ffee" not in str(error.value)
        assert len(world.requests("poll")) == 1

    @pytest.mark.parametrize(
        "url",
        ["https://bucket.example/file?X-Amz-Signature=c0ffee", "http://[::1]:9/f", "HTTPS://a.b/f"],
    )
    def test_https_and_this_machine_are_safe(self, world: World, url: str) -> None:
        world.simulator.faults.add("poll", DownloadUrl(url))

        assert completed_export(world).get_export(1).download_url == url
