"""The simulated Space: what Cometly and S3 document, and a test of each fault."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import signal
import subprocess
import sys
import zlib
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
import requests

from simulator import Contact, Population, Simulator, Space, faults
from simulator.fault_syntax import add_from_text, describe
from simulator.files import FileLayout, make_file
from simulator.presets import FATAL, PRESETS, RECOVERABLE
from tests.conftest import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from simulator.faults import Endpoint, Fault

NOON = datetime(2024, 1, 15, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
FALL_BACK = datetime(2023, 10, 29, 0, 30, tzinfo=UTC)  # 02:30 in Berlin, as is one hour later
SPRING_FORWARD = datetime(2023, 3, 26, 1, 30, tzinfo=UTC)  # 03:30 in Berlin; 02:30 is skipped
JANUARY = ("2024-01-01 00:00:00", "2024-02-01 00:00:00")
STATUSES = {
    name: preset.fault.status
    for name, preset in PRESETS.items()
    if isinstance(preset.fault, faults.Respond | faults.Refuse | faults.StorageFailure)
}
SOME = Population.generate(200, since=datetime(2024, 1, 1, tzinfo=UTC), until=NOON)


class Client:
    """A client of a Space with a virtual clock, 200 contacts, no rate limits and no waits."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.session = requests.Session()
        self.session.trust_env = False
        self.headers = {"Authorization": "Bearer simulated-key"}
        self.serve(SOME)

    def serve(self, population: Population, **rules: Any) -> None:
        self.clock = VirtualClock(NOON)
        no_waits = {"queued_seconds": 0, "processing_seconds": 0}
        no_limits = {"creates_per_minute": None, "polls_per_minute": None}
        clock = {"clock": self.clock.now, "sleep": self.clock.sleep}
        self.simulator.reset(Space(population, **(no_waits | no_limits | clock | rules)))

    def get(self, url: str, **headers: str) -> requests.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.get(url, headers=names, timeout=10, allow_redirects=False)

    def create(
        self, start: object = JANUARY[0], end: object = JANUARY[1], **options: object
    ) -> requests.Response:
        body = {"start_date": start, "end_date": end, **options}
        url = f"{self.simulator.api_url}/contacts/exports"
        return self.session.post(url, json=body, headers=self.headers, timeout=10)

    def poll(self, export_id: int = 1) -> requests.Response:
        return self.get(f"{self.simulator.api_url}/contacts/exports/{export_id}", **self.headers)

    def statuses(self, *export_ids: int) -> list[str]:
        return [self.poll(export_id).json()["status"] for export_id in export_ids]

    def url(self, *window: str, **options: object) -> str:
        export_id = self.create(*window, **options).json()["export_id"]
        return str(self.poll(export_id).json()["download_url"])

    def file(self, *window: str, **options: object) -> bytes:
        return gzip.decompress(self.get(self.url(*window, **options)).content)

    def ids(self, *window: str) -> list[int]:
        return [json.loads(line)["id"] for line in self.file(*window).splitlines()]

    def fault(self, endpoint: Endpoint, fault: Fault, **rule: Any) -> None:
        self.simulator.faults.add(endpoint, fault, **rule)


def contacts(*created_at: datetime) -> Population:
    return Population(Contact(number, moment) for number, moment in enumerate(created_at, start=1))


def raw_get(url: str) -> tuple[http.client.HTTPResponse, bytes, bool]:
    """Request a URL unchanged; returns the response, its body and whether the body was cut."""
    host, path = urlsplit(url).netloc, url[url.index("/", 8) :]
    with closing(http.client.HTTPConnection(host, timeout=10)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        try:
            return response, response.read(), False
        except http.client.IncompleteRead as error:
            return response, error.partial, True


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    with Simulator(Space(Population())) as running:
        yield running


@pytest.fixture
def client(server: Simulator) -> Iterator[Client]:
    client = Client(server)
    with client.session:
        yield client


class TestContacts:
    """The contacts of a Space and of its exports."""

    def test_the_same_seed_gives_the_same_contacts(self) -> None:
        assert list(Population.generate(50, seed=7)) == list(Population.generate(50, seed=7))
        assert list(Population.generate(50, seed=7)) != list(Population.generate(50, seed=8))

    def test_generated_contacts_have_unusual_characters_in_names(self) -> None:
        names = "".join(contact.name or "" for contact in Population.generate(5000))
        assert [char for char in '\u2028\u0085"\\\t\n🦊花л' if char not in names] == []

    def test_a_line_has_the_requested_fields(self, client: Client) -> None:
        flags = {"include_comet_tokens": 1, "include_all_emails": True}
        plain, full = (
            json.loads(client.file(**options)[:400].splitlines()[0]) for options in ({}, flags)
        )
        assert list(plain) == ["id", "email", "name", "phone", "location"]
        assert list(full) == [*plain, "comet_tokens", "emails"]

    @pytest.mark.parametrize(("end_inclusive", "ids"), [(True, [1, 2]), (False, [1])])
    @pytest.mark.parametrize("local", [True, False])
    def test_a_contact_created_at_the_end_date_is_exported_if_the_end_is_inclusive(
        self, client: Client, *, end_inclusive: bool, local: bool, ids: list[int]
    ) -> None:
        three = contacts(NOON - SECOND, NOON, NOON + SECOND / 2)
        client.serve(three, wall_clock_comparison=local, end_inclusive=end_inclusive)
        client.clock.sleep(1)
        assert client.ids(JANUARY[0], "2024-01-15 12:00:00") == ids

    @pytest.mark.parametrize(
        ("first", "rules", "start", "ids"),
        [
            (FALL_BACK, {"fold": 0}, "2023-10-29 02:15:00", [1, 2]),
            (FALL_BACK, {"fold": 1}, "2023-10-29 02:15:00", [2]),
            (FALL_BACK, {"fold": 1}, "2023-10-29 02:45:00", []),
            (FALL_BACK, {"fold": 1, "wall_clock_comparison": True}, "2023-10-29 02:15:00", [1, 2]),
            (SPRING_FORWARD, {"fold": 1}, "2023-03-26 02:30:00", [1, 2]),
            (SPRING_FORWARD, {"fold": 1}, "2023-03-26 03:30:01", [2]),
        ],
    )
    def test_dates_of_a_request_are_local_times_of_the_space(
        self, client: Client, first: datetime, rules: dict[str, Any], start: str, ids: list[int]
    ) -> None:
        both = contacts(first, first + timedelta(hours=1))
        client.serve(both, timezone="Europe/Berlin", **rules)
        assert client.ids(start, "2023-12-31 00:00:00") == ids

    def test_a_file_has_the_contacts_that_exist_when_the_export_completes(
        self, client: Client
    ) -> None:
        client.serve(contacts(NOON, NOON + timedelta(hours=1)), processing_seconds=60)
        client.create()
        client.simulator.space.add([Contact(3, NOON)])
        client.clock.sleep(60)
        client.simulator.space.add([Contact(4, NOON)])
        file = gzip.decompress(client.get(client.poll().json()["download_url"]).content)
        assert sorted(json.loads(line)["id"] for line in file.splitlines()) == [1, 3]


class TestApi:
    """What Cometly documents, and what Laravel does."""

    @pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer other"}])
    def test_a_request_without_a_valid_key_is_refused(
        self, client: Client, headers: dict[str, str]
    ) -> None:
        client.headers = headers
        for response in (client.create(), client.poll()):
            assert (response.status_code, response.json()) == (401, {"message": "Unauthenticated."})

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("start_date", None, "The start_date field is required."),
            ("end_date", "2024-02-01", "The end_date field must match the format Y-m-d H:i:s."),
            ("end_date", "2024-02-30 00:00:00", "The end_date field must be a valid date."),
            ("end_date", JANUARY[0], "The end_date field must be a date after start_date."),
            ("include_all_emails", "1", "The include_all_emails field must be true or false."),
        ],
    )
    def test_an_invalid_field_is_refused_with_a_message(
        self, client: Client, field: str, value: object, message: str
    ) -> None:
        body: dict[str, object] = {"start": JANUARY[0], "end": JANUARY[1]}
        response = client.create(**(body | {field.removesuffix("_date"): value}))
        assert response.status_code == 422
        assert response.json() == {"message": message, "errors": {field: [message]}}

    def test_an_export_is_queued_then_processed_then_completed(self, client: Client) -> None:
        client.serve(SOME, queued_seconds=10, processing_seconds=212)
        assert client.create().json() == {"export_id": 1, "status": "queued"}
        queued = client.poll().json()
        client.clock.sleep(10)
        processing = client.poll().json()
        client.clock.sleep(388)
        completed = client.poll().json()
        created = {"export_id": 1, "created_at": "2024-01-15T12:00:00Z"}
        wait = "Please check back in a few minutes."
        assert queued == created | {"status": "queued", "message": f"Export is queued. {wait}"}
        assert processing["message"] == f"Export is being processed. {wait}"
        assert completed == created | {
            "status": "completed",
            "completed_at": "2024-01-15T12:03:42Z",
            "download_url": completed["download_url"],
            "expires_at": "2024-01-15T12:21:38Z",
        }

    def test_an_unknown_export_is_not_found(self, client: Client) -> None:
        response = client.poll(2)
        assert (response.status_code, response.json()) == (404, {"message": "Export not found."})

    def test_creates_and_polls_are_limited_per_minute(self, client: Client) -> None:
        client.serve(SOME, creates_per_minute=2, polls_per_minute=1)
        first, second, refused = (client.create() for _ in range(3))
        remaining = [response.headers["X-RateLimit-Remaining"] for response in (first, second)]
        assert (remaining, refused.headers["Retry-After"]) == (["1", "0"], "60")
        assert (refused.status_code, refused.json()) == (429, {"message": "Too Many Attempts."})
        assert [client.poll().status_code for _ in range(2)] == [200, 429]
        client.clock.sleep(60)
        assert client.create().status_code == 202

    def test_workers_limit_how_many_exports_are_processed_in_parallel(self, client: Client) -> None:
        client.serve(SOME, workers=2, queued_seconds=1, processing_seconds=10)
        for _ in range(3):
            client.create()
        client.clock.sleep(1)
        assert client.statuses(1, 2, 3) == ["processing", "processing", "queued"]
        client.clock.sleep(10)
        assert client.statuses(1, 2, 3) == ["completed", "completed", "processing"]
        client.clock.sleep(10)
        assert client.poll(3).json()["completed_at"] == "2024-01-15T12:00:21Z"

    def test_the_processing_time_can_depend_on_the_number_of_contacts(self, client: Client) -> None:
        client.serve(SOME, processing_seconds=5, seconds_per_contact=0.5)
        client.create()
        client.clock.sleep(200)
        assert client.poll().json()["completed_at"] == "2024-01-15T12:01:45Z"

    @pytest.mark.parametrize("status", [409, 422, 423])
    def test_exports_in_flight_can_be_limited(self, client: Client, status: int) -> None:
        limit = {"max_exports_in_flight": 1, "in_flight_refusal": status}
        client.serve(SOME, processing_seconds=10, **limit)
        statuses = [client.create().status_code for _ in range(2)]
        client.clock.sleep(10)
        assert [*statuses, client.create().status_code] == [202, status, 202]

    def test_the_length_of_a_range_can_be_limited(self, client: Client) -> None:
        client.serve(SOME, max_range_days=7, timezone="Europe/Berlin")
        week = client.create("2023-10-25 00:00:00", "2023-11-01 00:00:00")
        longer = client.create("2023-10-25 00:00:00", "2023-11-01 00:00:01")
        message = "The date range must not be longer than 7 days."
        assert (week.status_code, longer.status_code) == (202, 422)
        assert longer.json() == {"message": message, "errors": {"end_date": [message]}}


class TestStorage:
    """What S3 documents."""

    def test_a_download_has_the_headers_of_s3(self, client: Client) -> None:
        response = client.get(client.url())
        assert response.headers["Content-Type"] == "binary/octet-stream"
        assert response.headers["Accept-Ranges"] == "bytes"
        assert response.headers["Content-Length"] == str(len(response.content))

    def test_each_poll_returns_a_new_url_of_the_same_file(self, client: Client) -> None:
        client.create()
        first, second = (client.poll().json()["download_url"] for _ in range(2))
        assert first != second
        assert client.get(first).content == client.get(second).content

    def test_a_url_expires_after_its_lifetime(self, client: Client) -> None:
        url = client.url()
        client.clock.sleep(899)
        assert client.get(url).status_code == 200
        client.clock.sleep(1)
        assert "<Code>AccessDenied</Code><Message>Request has expired" in client.get(url).text

    @pytest.mark.parametrize("change", ["Expires=900/Expires=9000", "host/%68ost", "&X-Amz-Si/&x"])
    def test_a_modified_url_is_refused(self, client: Client, change: str) -> None:
        old, _, new = change.partition("/")
        response, body, _ = raw_get(client.url().replace(old, new))
        assert response.status == 403
        assert b"SignatureDoesNotMatch" in body

    def test_a_download_with_an_authorization_header_is_refused(self, client: Client) -> None:
        response = client.get(client.url(), Authorization="Bearer simulated-key")
        assert response.status_code == 400
        assert "Only one auth mechanism allowed" in response.text

    def test_a_range_can_be_requested(self, client: Client) -> None:
        url = client.url()
        whole = client.get(url).content
        response = client.get(url, Range="bytes=9-")
        assert (response.status_code, response.content) == (206, whole[9:])
        assert response.headers["Content-Range"] == f"bytes 9-{len(whole) - 1}/{len(whole)}"

    def test_a_range_beyond_the_end_is_refused(self, client: Client) -> None:
        response = client.get(client.url(), Range="bytes=999999-")
        assert response.status_code == 416
        assert response.headers["Content-Range"].startswith("bytes */")

    def test_if_match_is_checked_against_the_etag(self, client: Client) -> None:
        url = client.url()
        etag = client.get(url).headers["ETag"]
        assert client.get(url, If_Match=etag, Range="bytes=5-").status_code == 206
        assert client.get(url, If_Match='"other"').status_code == 412


class TestFaultsOfRequests:
    """Faults that affect one request."""

    @pytest.mark.parametrize("name", STATUSES)
    def test_a_preset_responds_with_its_status(self, client: Client, name: str) -> None:
        endpoint, url = PRESETS[name].endpoints[0], client.url()
        client.fault(endpoint, PRESETS[name].fault)
        if endpoint == "create":
            client.create()
        else:
            client.get(url if endpoint == "download" else client.poll().url)
        assert STATUSES[name] in [request.status for request in client.simulator.requests[2:]]

    def test_a_422_can_have_the_reason_only_in_errors(self, client: Client) -> None:
        client.fault("create", PRESETS["unprocessable-old"].fault)
        response = client.create().json()
        assert response["message"] == "The given data was invalid."
        assert "7 days" in response["errors"]["end_date"][0]

    def test_a_storage_error_is_xml(self, client: Client) -> None:
        client.fault("download", PRESETS["expired-token"].fault)
        assert "<Error><Code>ExpiredToken</Code><Message>" in client.get(client.url()).text

    @pytest.mark.parametrize(
        ("fault", "retry_after"),
        [
            (faults.TooManyRequests(7), "7"),
            (faults.TooManyRequests(None), None),
            (faults.TooManyRequests("http-date"), "Mon, 15 Jan 2024 12:00:02 GMT"),
            (PRESETS["long-rate-limit"].fault, "7200"),
            (PRESETS["long-maintenance"].fault, "7200"),
        ],
    )
    def test_retry_after_can_be_set(self, client: Client, fault: Fault, retry_after: str) -> None:
        client.fault("poll", fault)
        assert client.poll().headers.get("Retry-After") == retry_after

    @pytest.mark.parametrize("name", ["unreadable-create", "create-without-id"])
    def test_a_create_can_succeed_with_an_invalid_response(self, client: Client, name: str) -> None:
        client.fault("create", PRESETS[name].fault)
        assert "export_id" not in client.create().text
        assert list(client.simulator.space.exports) == [1]

    @pytest.mark.parametrize("accepted", [False, True])
    def test_a_reset_create_can_succeed(self, client: Client, *, accepted: bool) -> None:
        client.fault("create", faults.Reset(accepted=accepted))
        with pytest.raises(requests.ConnectionError, match="reset"):
            client.create()
        assert len(client.simulator.space.exports) == accepted

    def test_a_refusal_can_contain_the_key(self, client: Client) -> None:
        client.fault("create", faults.Refuse(401, "Bad key", echo=True))
        assert client.create().json() == {"message": "Bad key (Bearer simulated-key)"}

    def test_a_request_can_be_redirected(self, client: Client) -> None:
        client.fault("poll", faults.Redirect("http://other.example/", 307))
        assert client.poll().headers["Location"] == "http://other.example/"

    @pytest.mark.parametrize("fault", [faults.Hang(), faults.Stall(40)])
    def test_a_hanging_connection_stays_open(self, client: Client, fault: Fault) -> None:
        url = client.url()
        client.fault("download", fault)
        with pytest.raises(requests.RequestException, match="timed out"):
            client.session.get(url, timeout=0.1)

    def test_a_slow_api_response_advances_the_clock_of_the_space(self, client: Client) -> None:
        client.fault("poll", faults.Drip(seconds=60))
        url = f"{client.simulator.api_url}/contacts/exports/1"
        with client.session.get(url, stream=True, timeout=10) as response:
            assert response.raw.read(16) == b"{" + b" " * 15
        assert client.clock.now() >= NOON.timestamp() + 14 * 60

    def test_the_first_bytes_of_a_download_can_be_slow(self, client: Client) -> None:
        url = client.url()
        client.fault("download", faults.Drip(seconds=60, count=3))
        assert client.get(url).content == client.get(url).content
        assert client.clock.now() == NOON.timestamp() + 180

    @pytest.mark.parametrize("endpoint", ["poll", "download"])
    def test_a_header_can_be_malformed(self, client: Client, endpoint: Endpoint) -> None:
        urls = {"download": client.url(), "poll": f"{client.simulator.api_url}/contacts/exports/1"}
        client.fault(endpoint, faults.MalformedHeader())
        response, body, _ = raw_get(urls[endpoint])
        assert response.headers.defects
        assert body == client.get(urls[endpoint]).content

    def test_a_storage_error_can_contain_secrets_of_the_url(self, client: Client) -> None:
        url = client.url()
        client.fault("download", PRESETS["token-in-error"].fault)
        client.fault("download", PRESETS["signature-in-error"].fault)
        quoted = [re.findall(r"The \w+ (\S{60,}) ", client.get(url).text)[0] for _ in range(2)]
        assert [value in unquote(url) for value in quoted] == [True, True]

    @pytest.mark.parametrize(
        ("fault", "noticed"),
        [
            (faults.Cut(40), True),
            (faults.WithoutLength(40), False),
            (faults.WithoutLength(40, chunked=True), True),
        ],
    )
    def test_a_download_can_be_cut(self, client: Client, fault: Fault, *, noticed: bool) -> None:
        client.fault("download", fault)
        _, body, cut = raw_get(client.url())
        assert (len(body), cut) == (40, noticed)

    def test_a_wrong_range_affects_only_range_requests(self, client: Client) -> None:
        url = client.url()
        client.fault("download", faults.WrongRange(2))
        assert client.get(url).status_code == 200
        assert client.get(url, Range="bytes=5-").headers["Content-Range"].startswith("bytes 7-")

    def test_a_fault_counts_only_matching_requests(self, client: Client) -> None:
        rule = {"times": 2, "after": 1, "when": lambda request: request.export_id == 2}
        client.fault("poll", faults.ServerError(), **rule)
        client.create()
        client.create()
        statuses = [client.poll(number).status_code for number in (1, 2, 1, 2, 2, 1, 2)]
        assert statuses == [200, 200, 200, 503, 503, 200, 200]


class TestFaultsOfExports:
    """Faults that affect an export or its file."""

    @pytest.mark.parametrize(
        ("fault", "expected"),
        [
            (faults.ExportFails(), ["processing", "failed", "failed"]),
            (faults.ExportStuck(), ["processing", "processing", "processing"]),
            (faults.ExportVanishes(from_poll=2), ["processing", 404, 404]),
            (faults.ExportNotYetFound(polls=2), [404, 404, "completed"]),
            (faults.ExportNotYetFound(seconds=15), [404, 404, "completed"]),
            (faults.UnknownStatus(polls=2), ["archiving", "archiving", "completed"]),
            (faults.StatusCase(), ["PROCESSING", "COMPLETED", "COMPLETED"]),
            (faults.StatusCase("title"), ["Processing", "Completed", "Completed"]),
        ],
    )
    def test_polls_return_the_status_of_the_fault(
        self, client: Client, fault: Fault, expected: list[object]
    ) -> None:
        client.serve(SOME, processing_seconds=10)
        client.fault("create", fault)
        client.create()
        seen = []
        for _ in range(3):
            response = client.poll()
            seen.append(response.json().get("status", response.status_code))
            client.clock.sleep(10)
        assert seen == expected

    @pytest.mark.parametrize(("polls", "urls"), [(2, [False, False, True]), (None, [False] * 3)])
    def test_a_completed_export_can_have_no_url(
        self, client: Client, polls: int | None, urls: list[bool]
    ) -> None:
        client.fault("create", faults.CompletedWithoutUrl(polls))
        client.create()
        assert ["download_url" in client.poll().json() for _ in range(3)] == urls

    def test_an_export_can_have_another_url(self, client: Client) -> None:
        client.fault("poll", faults.DownloadUrl("http://other.example/"))
        assert client.url() == "http://other.example/"

    def test_an_unusual_url_is_refused_if_the_client_normalizes_it(self, client: Client) -> None:
        client.fault("create", faults.OddUrl())
        url = client.url()
        assert re.search(r"/exports/\w+%2D.*%2endjson\.gz\?.*%2f.*%7E", url)
        assert raw_get(url)[0].status == 200
        assert "SignatureDoesNotMatch" in client.get(url).text

    @pytest.mark.parametrize(
        "fault", [faults.Truncated(-4), faults.Corrupt(-20), faults.WrongChecksum()]
    )
    def test_a_file_can_be_truncated_or_corrupt(self, client: Client, fault: Fault) -> None:
        client.fault("create", fault)
        with pytest.raises((EOFError, OSError, zlib.error)):
            client.file()

    def test_bytes_can_follow_the_gzip_data(self, client: Client) -> None:
        client.fault("create", faults.TrailingBytes("after"))
        decompressor = zlib.decompressobj(wbits=31)
        decompressor.decompress(client.get(client.url()).content)
        assert decompressor.unused_data == b"after"

    def test_a_file_can_change_between_downloads(self, client: Client) -> None:
        client.fault("download", faults.ChangedFile(), after=1)
        url = client.url()
        first, second = (gzip.decompress(client.get(url).content) for _ in range(2))
        assert first != second
        assert sorted(first.splitlines()) == sorted(second.splitlines())

    @pytest.mark.parametrize(
        ("fault", "status"),
        [(faults.NoRanges(), 412), (faults.NoETag(), 206), (faults.IgnoresIfMatch(), 206)],
    )
    def test_the_storage_can_ignore_ranges_etags_and_conditions(
        self, client: Client, fault: Fault, status: int
    ) -> None:
        client.fault("create", fault)
        response = client.get(client.url(), If_Match='"other"', Range="bytes=1-")
        assert response.status_code == status

    @pytest.mark.parametrize(
        ("layout", "content"),
        [
            (FileLayout(empty_body=True), b""),
            (FileLayout(plain=True, lines=(b"{", b"\xff"), only_lines=True), b"{\n\xff\n"),
            (FileLayout(plain=True, lines=(b"a", b"b"), only_lines=True, newline=b"|"), b"a|b|"),
            (FileLayout(plain=True, lines=(b"x",), only_lines=True, last_newline=False), b"x"),
        ],
    )
    def test_a_file_can_have_another_layout(self, layout: FileLayout, content: bytes) -> None:
        assert make_file(SOME, layout=layout)[0] == content

    @pytest.mark.parametrize("layout", [FileLayout(members=3), FileLayout(escaped=True)])
    def test_the_layout_does_not_change_the_contacts(self, layout: FileLayout) -> None:
        lines = gzip.decompress(make_file(SOME, layout=layout)[0]).splitlines()
        assert [json.loads(line)["name"] for line in lines] == [contact.name for contact in SOME]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("lone-surrogate", rb'"name":"\ud83d'),
            ("unknown-field", b',"profile_field_1":"blue"}'),
            ("number-for-text", b'"phone":1.50'),
            ("huge-id", b'{"id":92233720368547758071'),
            ("broken-line", b"}\n{\n"),
        ],
    )
    def test_a_preset_can_change_the_lines(self, client: Client, name: str, text: bytes) -> None:
        client.fault("create", PRESETS[name].fault)
        assert text in client.file()


class TestFaultsAsText:
    """Faults on the command line."""

    @pytest.mark.parametrize(("endpoint", "fault"), [*RECOVERABLE, *FATAL])
    def test_every_listed_fault_is_valid_and_described(
        self, endpoint: Endpoint, fault: Fault
    ) -> None:
        faults.Faults().add(endpoint, fault)
        assert re.search(rf"(?m)^[\w/]+: {fault.name()}( |$)", describe())

    @pytest.mark.parametrize(
        ("text", "statuses"),
        [
            ("create too-many-requests retry_after=2 times=2", [429, 429, 202]),
            ("create server-error status=500 html='<p>Oh no</p>' after=1", [202, 500, 202]),
            ("create server-error longer_than_hours=24 times=all", [503, 503, 503]),
            ("create server-error longer_than_hours=9999", [202, 202]),
            ("create conflict status=423", [423, 202]),
        ],
    )
    def test_a_fault_can_be_text(self, client: Client, text: str, statuses: list[int]) -> None:
        add_from_text(client.simulator.faults, text)
        assert [client.create().status_code for _ in statuses] == statuses

    def test_a_layout_can_be_text(self, client: Client) -> None:
        text = r"""create layout only_lines=true lines='["{}","x"]' newline='"\r\n"'"""
        add_from_text(client.simulator.faults, text)
        assert client.file() == b"{}\r\nx\r\n"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("upload cut at=1", "not of the form"),
            ("download cat at=1", "'cat' is not a fault; choose from server-error, "),
            ("download cut", "missing required field `at`"),
            ("download cut at=1 on=2", "unknown field `on`"),
            ("create cut at=1", "cut cannot be added to 'create'"),
        ],
    )
    def test_an_invalid_fault_is_rejected(self, text: str, message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)):
            add_from_text(faults.Faults(), text)


class TestServer:
    """The server, its request log and its command."""

    def test_requests_are_logged(self, client: Client) -> None:
        client.get(client.url(), Range="bytes=3-")
        create, poll, download = client.simulator.requests
        assert (create.kind, create.status, create.window) == ("create", 202, timedelta(days=31))
        assert (poll.kind, poll.export_id, poll.export_status) == ("poll", 1, "completed")
        assert (download.kind, download.status) == ("download", 206)
        assert download.headers["range"] == "bytes=3-"

    def test_waiting_for_requests_has_a_timeout(self, client: Client) -> None:
        client.create()
        client.simulator.wait_for_requests("create")
        with pytest.raises(TimeoutError, match="fewer than 3 create requests"):
            client.simulator.wait_for_requests("create", 3, timeout=0.01)

    def test_the_overview_counts_requests(self, client: Client) -> None:
        client.create()
        overview = client.get(client.simulator.api_url.replace("public-api/v1", "simulator")).json()
        assert overview["requests"] == [{"kind": "create", "status": 202, "count": 1}]

    def test_a_stopped_simulator_refuses_connections(self) -> None:
        with Simulator(Space(Population())) as simulator:
            simulator.stop()
            with pytest.raises(requests.ConnectionError, match="refused"):
                requests.get(simulator.api_url, timeout=10)

    @pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
    def test_the_command_serves_until_a_signal(self, tmp_path: Path, stop: signal.Signals) -> None:
        ready_file = tmp_path / "ready.json"
        options = "--api-port=0 --storage-port=0 --workers=1 --max-exports-in-flight=1"
        more = ["--in-flight-refusal=423", "--verbose", "--fault=create maintenance"]
        command = [sys.executable, "-m", "simulator", *options.split(), *more]
        command.append(f"--ready-file={ready_file}")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
            try:
                assert process.stdout is not None
                assert any("Ctrl-C" in line for line in process.stdout)
                ready = json.loads(ready_file.read_text(encoding="utf-8"))
                url = f"{ready['api_url']}/contacts/exports"
                headers = {"Authorization": f"Bearer {ready['api_key']}"}
                body = dict(zip(("start_date", "end_date"), JANUARY, strict=True))
                for _ in range(3):
                    requests.post(url, json=body, headers=headers, timeout=10)
                process.send_signal(stop)
                output, _ = process.communicate(timeout=10)
            finally:
                process.kill()
        statuses = re.findall(r" create.*?: (\d+)", output)
        assert (process.returncode, statuses) == (0, ["503", "202", "423"])

    @pytest.mark.parametrize(
        ("option", "status", "message"),
        [
            ("--list-faults", 0, "download: cut at=…"),
            ("--fault=download cat", 2, "'cat' is not a fault"),
            ("--timezone=Mars/Olympus", 2, "'Mars/Olympus' is not an IANA time zone"),
            ("--until=1999-01-01", 2, "--until must be after --since"),
        ],
    )
    def test_the_command_explains_its_options(self, option: str, status: int, message: str) -> None:
        command = [sys.executable, "-m", "simulator", option]
        run = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)  # noqa: S603
        assert run.returncode == status
        assert message in run.stdout + run.stderr
