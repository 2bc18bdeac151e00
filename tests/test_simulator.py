"""What the simulated Space promises, seen from outside: over HTTP, as a tap would."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import itertools
import json
import re
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from simulator import Contact, Population, Simulator, Space
from simulator.faults import (
    Answer,
    ChangedFile,
    CompletedWithoutUrl,
    Corrupt,
    Cut,
    CutUnnoticed,
    DownloadUrl,
    Expired,
    ExportFails,
    ExportStuck,
    ExportVanishes,
    Fault,
    Faults,
    Form,
    Hang,
    IgnoresIfMatch,
    NoETag,
    NoRanges,
    Redirect,
    Refuse,
    Reset,
    ServerError,
    Stall,
    Throttled,
    TooManyRequests,
    Truncated,
    UnknownStatus,
    WrongChecksum,
    WrongRange,
)
from simulator.files import FileForm, make_file
from simulator.fault_syntax import add_from_text, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from simulator.faults import Where

NOON = datetime(2024, 1, 15, 12, tzinfo=UTC)
JANUARY = ("2024-01-01 00:00:00", "2024-02-01 00:00:00")
TIMEOUT = 10.0
EVERYWHERE: tuple[Where, ...] = ("create", "poll", "download")


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self, start: datetime) -> None:
        """Begin at an aware instant."""
        self.time = start.timestamp()

    def __call__(self) -> float:
        """Tell the time in Unix seconds."""
        return self.time

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.time += seconds


class Client:
    """Speaks to a simulator as plainly as can be."""

    def __init__(self, simulator: Simulator) -> None:
        """Speak with the right key, and nothing of this machine's settings."""
        self.simulator = simulator
        self.session = requests.Session()
        self.session.trust_env = False
        self.headers = {"Authorization": "Bearer simulated-key", "Accept": "application/json"}

    def create(
        self, start: str = JANUARY[0], end: str = JANUARY[1], **options: object
    ) -> requests.Response:
        """Create an export."""
        return self.post({"start_date": start, "end_date": end, **options})

    def post(self, body: object) -> requests.Response:
        """Create an export with this very body."""
        return self.session.post(
            f"{self.simulator.api_url}/contacts/exports",
            json=body,
            headers=self.headers,
            timeout=TIMEOUT,
            allow_redirects=False,
        )

    def poll(self, export_id: object = 1, timeout: float = TIMEOUT) -> requests.Response:
        """Ask how an export is doing."""
        return self.session.get(
            f"{self.simulator.api_url}/contacts/exports/{export_id}",
            headers=self.headers,
            timeout=timeout,
            allow_redirects=False,
        )

    def url(self, start: str = JANUARY[0], end: str = JANUARY[1], **options: object) -> str:
        """Create an export, and give its download URL."""
        export_id = self.create(start, end, **options).json()["export_id"]
        return str(self.poll(export_id).json()["download_url"])

    def download(self, url: str, **headers: str) -> requests.Response:
        """Ask for a file; `If_Match` is the header `If-Match`."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.get(url, headers=names, timeout=TIMEOUT, allow_redirects=False)

    def asker(self, where: Where) -> Callable[[], requests.Response]:
        """Give a function that makes a good request of a kind."""
        url = self.url()
        askers: dict[Where, Callable[[], requests.Response]] = {
            "create": self.create,
            "poll": self.poll,
            "download": lambda: self.download(url),
        }
        return askers[where]

    def contacts(
        self, start: str = JANUARY[0], end: str = JANUARY[1], **options: object
    ) -> list[dict[str, Any]]:
        """Export a window, and give its lines."""
        return lines(self.download(self.url(start, end, **options)).content)

    def ids(self, start: str, end: str) -> list[int]:
        """Export a window, and give the ids in it."""
        return [contact["id"] for contact in self.contacts(start, end)]


def lines(file: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(file).split(b"\n") if line]


def people(*created_at: datetime) -> Population:
    return Population(Contact(number, moment) for number, moment in enumerate(created_at, start=1))


def space(population: Population | None = None, **rules: Any) -> Space:
    """Give a Space that has no limits and makes exports at once, but for the rules given."""
    at_once: dict[str, Any] = {
        "queued_seconds": 0,
        "processing_seconds": 0,
        "creates_per_minute": None,
        "polls_per_minute": None,
    }
    return Space(Population() if population is None else population, **{**at_once, **rules})


def raw_download(url: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes, bool]:
    """Read a download to its end; give answer and bytes, and whether the end came too early."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
        response = connection.getresponse()
        try:
            return response, response.read(), False
        except http.client.IncompleteRead as error:
            return response, error.partial, True
    finally:
        connection.close()


SOME = Population.generate(200, since=datetime(2024, 1, 1, tzinfo=UTC), until=NOON)


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    with Simulator(space()) as running:
        yield running


@pytest.fixture
def client(server: Simulator) -> Iterator[Client]:
    """Speak to a Space of 200 people, with no limits, exports made at once and no faults."""
    server.reset(space(SOME))
    speaker = Client(server)
    with speaker.session:
        yield speaker


# People


def test_the_same_seed_makes_the_same_people() -> None:
    assert list(Population.generate(500, seed=7)) == list(Population.generate(500, seed=7))
    assert list(Population.generate(500, seed=7)) != list(Population.generate(500, seed=8))


def test_people_are_in_order_of_creation_within_the_bounds() -> None:
    since, until = datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 2, 0, 30, tzinfo=UTC)
    times = [contact.created_at for contact in Population.generate(500, 0, since, until)]
    assert len(times) == 500
    assert times == sorted(times)
    assert since <= times[0]
    assert times[-1] < until
    assert {time.microsecond == 0 for time in times} == {True, False}


def test_ids_mostly_rise_but_not_always() -> None:
    ids = [contact.id for contact in Population.generate(1000)]
    assert sorted(ids) == list(range(1, 1001))
    rising = sum(first < second for first, second in itertools.pairwise(ids))
    assert 500 < rising < 999


def test_a_space_grows_and_sleeps_at_night() -> None:
    population = Population.generate(20_000)
    years = Counter(contact.created_at.year for contact in population)
    hours = Counter(contact.created_at.hour for contact in population)
    assert years[2025] > 1.3 * years[2024]
    assert hours[12] > 5 * hours[0]


def test_people_are_as_odd_as_people_are() -> None:
    everybody = list(Population.generate(5000))
    names = "".join(contact.name or "" for contact in everybody)
    for oddity in '\u2028\u0085"\\\t\n🦊花л':
        assert oddity in names
    for field in ("email", "name", "phone", "location"):
        nulls = sum(getattr(contact, field) is None for contact in everybody)
        assert 0 < nulls < 2500
    assert {len(contact.comet_tokens or ()) for contact in everybody} == {0, 1, 2, 3, 4, 5}
    assert {len(contact.emails or ()) for contact in everybody} == {0, 1, 2, 3}


def test_the_main_email_comes_first_and_tokens_differ() -> None:
    for contact in Population.generate(1000):
        tokens = contact.comet_tokens or ()
        assert len(set(tokens)) == len(tokens)
        if contact.email is not None:
            assert (contact.emails or ())[0] == contact.email


def test_a_population_is_asked_by_its_bounds() -> None:
    second = timedelta(seconds=1)
    three = people(NOON, NOON + second, NOON + 2 * second)
    assert [person.id for person in three.between(NOON, NOON + 2 * second)] == [1, 2]
    until_the_end = three.between(NOON, NOON + 2 * second, end_inclusive=True)
    assert [person.id for person in until_the_end] == [1, 2, 3]


@pytest.mark.parametrize("known", [people(NOON, NOON), Population.generate(2)])
def test_adding_makes_another_population(known: Population) -> None:
    changed = known.plus([Contact(1, NOON, name="Changed"), Contact(9, NOON)])
    assert {person.id for person in changed} == {1, 2, 9}
    assert len(changed) == 3
    assert [person.name for person in changed if person.id == 1] == ["Changed"]
    assert len(known) == len(list(known)) == 2


def test_two_people_with_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="same id"):
        Population([Contact(1, NOON), Contact(1, NOON)])


def test_a_creation_time_needs_a_zone() -> None:
    with pytest.raises(TypeError):
        Population([Contact(1, NOON.replace(tzinfo=None))])


# Files

MARY = Contact(
    1, NOON, "mary@example.com", "Mary\u2028", None, "US", ["new", "old"], ["mary@example.com"]
)
BASIC = {
    "id": 1,
    "email": "mary@example.com",
    "name": "Mary\u2028",
    "phone": None,
    "location": "US",
}


@pytest.mark.parametrize(
    ("flags", "more"),
    [
        ({}, {}),
        ({"comet_tokens": True}, {"comet_tokens": ["new", "old"]}),
        ({"all_emails": True}, {"emails": ["mary@example.com"]}),
        (
            {"comet_tokens": True, "all_emails": True},
            {"comet_tokens": ["new", "old"], "emails": ["mary@example.com"]},
        ),
    ],
)
def test_a_line_has_the_fields_asked_for(flags: dict[str, Any], more: Mapping[str, object]) -> None:
    data, count = make_file([MARY], **flags)
    assert lines(data) == [{**BASIC, **more}]
    assert count == 1


def test_the_same_contacts_make_the_same_bytes() -> None:
    assert make_file(SOME) == make_file(SOME)


def test_a_file_without_contacts_is_an_empty_gzip() -> None:
    assert gzip.decompress(make_file([])[0]) == b""


def test_members_together_are_the_file() -> None:
    whole, _ = make_file(SOME)
    data, _ = make_file(SOME, form=FileForm(members=3))
    first_member = zlib.decompressobj(wbits=31)
    first_member.decompress(data)
    assert first_member.unused_data
    assert gzip.decompress(data) == gzip.decompress(whole)


def test_a_file_may_be_plain_or_of_no_bytes() -> None:
    assert make_file(SOME, form=FileForm(plain=True))[0] == gzip.decompress(make_file(SOME)[0])
    assert make_file(SOME, form=FileForm(empty_body=True))[0] == b""


def test_raw_lines_stand_after_the_contacts_or_instead() -> None:
    form = FileForm(plain=True, lines=(b"{broken", b"\xff"))
    assert make_file([Contact(1, NOON)], form=form)[0].endswith(b"}\n{broken\n\xff\n")
    alone = FileForm(plain=True, lines=(b"{}",), only_lines=True)
    assert make_file(SOME, form=alone)[0] == b"{}\n"


def test_lines_end_as_one_likes() -> None:
    form = FileForm(plain=True, newline=b"\r\n", last_newline=False)
    data, _ = make_file([Contact(1, NOON), Contact(2, NOON)], form=form)
    assert data.count(b"\r\n") == data.count(b"\n") == 1
    assert data.endswith(b"}")


def test_a_file_may_be_escaped_as_php_does_it() -> None:
    person = Contact(1, NOON, name="Zoë\u2028 \N{FOX FACE}/")
    data, _ = make_file([person], form=FileForm(plain=True, escaped=True))
    assert rb'"name":"Zo\u00eb\u2028 \ud83e\udd8a\/"' in data
    assert json.loads(data)["name"] == person.name


def test_a_shuffled_file_has_the_same_lines_in_another_order() -> None:
    straight, shuffled = (
        make_file(SOME, form=FileForm(plain=True, shuffle=seed))[0].split(b"\n")
        for seed in (None, 1)
    )
    assert shuffled != straight
    assert sorted(shuffled) == sorted(straight)


# The API


@pytest.mark.parametrize("authorization", [None, "Bearer other", "simulated-key", "Bearer é"])
def test_no_call_without_the_key(client: Client, authorization: str | None) -> None:
    client.headers.pop("Authorization")
    if authorization is not None:
        client.headers["Authorization"] = authorization.encode().decode("latin-1")
    for response in (client.create(), client.poll()):
        assert response.status_code == 401
        assert response.json() == {"message": "Unauthenticated."}
        assert "X-RateLimit-Limit" not in response.headers


def test_an_export_is_queued_first(client: Client) -> None:
    response = client.create()
    assert response.status_code == 202
    assert response.json() == {"export_id": 1, "status": "queued"}
    assert client.create().json()["export_id"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start_date": None}, "The start_date field is required."),
        ({"end_date": ""}, "The end_date field is required."),
        ({"start_date": 20240101}, "The start_date field must match the format Y-m-d H:i:s."),
        ({"end_date": "2024-02-01"}, "The end_date field must match the format Y-m-d H:i:s."),
        (
            {"end_date": "2024-02-01T00:00:00"},
            "The end_date field must match the format Y-m-d H:i:s.",
        ),
        (
            {"end_date": "2024-02-01 00:00:00Z"},
            "The end_date field must match the format Y-m-d H:i:s.",
        ),
        (
            {"end_date": "2024-02-01 00:00:00\n"},
            "The end_date field must match the format Y-m-d H:i:s.",
        ),
        (
            {"end_date": "٢٠٢٤-02-01 00:00:00"},
            "The end_date field must match the format Y-m-d H:i:s.",
        ),
        ({"end_date": "2024-02-30 00:00:00"}, "The end_date field must be a valid date."),
        ({"end_date": "2024-02-01 24:00:00"}, "The end_date field must be a valid date."),
        ({"end_date": "2024-02-01 23:59:60"}, "The end_date field must be a valid date."),
        ({"end_date": JANUARY[0]}, "The end_date field must be a date after start_date."),
        (
            {"end_date": "2023-12-31 23:59:59"},
            "The end_date field must be a date after start_date.",
        ),
        ({"include_comet_tokens": 2}, "The include_comet_tokens field must be true or false."),
        ({"include_comet_tokens": "1"}, "The include_comet_tokens field must be true or false."),
        ({"include_all_emails": None}, "The include_all_emails field must be true or false."),
        ({"include_all_emails": 1.0}, "The include_all_emails field must be true or false."),
    ],
)
def test_a_bad_order_is_refused_by_the_field(
    client: Client, change: Mapping[str, object], message: str
) -> None:
    body = {"start_date": JANUARY[0], "end_date": JANUARY[1], **change}
    response = client.post(body)
    assert response.status_code == 422
    assert response.json() == {"message": message, "errors": {next(iter(change)): [message]}}
    assert not client.simulator.space.exports


@pytest.mark.parametrize("body", [{}, [], None, "text"])
def test_of_several_errors_the_first_is_told_and_the_others_are_counted(
    client: Client, body: object
) -> None:
    response = client.post(body)
    assert response.status_code == 422
    assert response.json()["message"] == "The start_date field is required. (and 1 more error)"


def test_a_body_that_is_no_json_has_no_fields(client: Client) -> None:
    for body, content_type in (
        (b"{", "application/json"),
        (json.dumps({"start_date": JANUARY[0]}).encode(), "text/plain"),
    ):
        response = client.session.post(
            f"{client.simulator.api_url}/contacts/exports",
            data=body,
            headers={**client.headers, "Content-Type": content_type},
            timeout=TIMEOUT,
        )
        assert response.status_code == 422
        assert "start_date" in response.json()["message"]


@pytest.mark.parametrize(("flag", "wanted"), [(1, True), (True, True), (0, False), (False, False)])
def test_flags_are_numbers_or_booleans(client: Client, *, flag: object, wanted: bool) -> None:
    first = client.contacts(include_comet_tokens=flag, include_all_emails=flag)[0]
    assert ("comet_tokens" in first) is wanted
    assert ("emails" in first) is wanted


def test_an_export_goes_through_its_life_by_the_clock(client: Client) -> None:
    clock = Clock(datetime(2024, 1, 15, 10, 30, tzinfo=UTC))
    client.simulator.reset(space(queued_seconds=10, processing_seconds=212, clock=clock))
    client.create()
    created = {"export_id": 1, "created_at": "2024-01-15T10:30:00Z"}
    clock.advance(9.9)
    assert client.poll().json() == created | {
        "status": "queued",
        "message": "Export is queued. Please check back in a few minutes.",
    }
    clock.advance(0.1)
    assert client.poll().json() == created | {
        "status": "processing",
        "message": "Export is being processed. Please check back in a few minutes.",
    }
    clock.advance(388)
    answer = client.poll().json()
    assert answer.pop("download_url").startswith(client.simulator.storage_url + "/exports/")
    assert answer == created | {
        "status": "completed",
        "completed_at": "2024-01-15T10:33:42Z",
        "expires_at": "2024-01-15T10:51:38Z",
    }


def test_with_no_delay_the_first_poll_finds_it_completed(client: Client) -> None:
    client.create()
    assert client.poll().json()["status"] == "completed"


@pytest.mark.parametrize("number", ["2", "0", "99999999999999999999"])
def test_an_unknown_export_is_not_found(client: Client, number: str) -> None:
    client.create()
    response = client.poll(number)
    assert response.status_code == 404
    assert response.json() == {"message": "Export not found."}


def test_any_other_path_is_not_found(client: Client) -> None:
    response = client.session.get(f"{client.simulator.api_url}/contacts", timeout=TIMEOUT)
    assert response.status_code == 404
    assert "could not be found" in response.json()["message"]
    [request] = client.simulator.requests
    assert (request.kind, request.window) == ("other", timedelta())


# Limits


def test_five_creates_a_minute_and_no_more(client: Client) -> None:
    clock = Clock(NOON)
    client.simulator.reset(space(creates_per_minute=5, clock=clock))
    remaining = [client.create().headers["X-RateLimit-Remaining"] for _ in range(5)]
    assert remaining == ["4", "3", "2", "1", "0"]
    clock.advance(12.5)
    response = client.create()
    assert response.status_code == 429
    assert response.json() == {"message": "Too Many Attempts."}
    assert response.headers["X-RateLimit-Limit"] == "5"
    assert response.headers["X-RateLimit-Remaining"] == "0"
    assert response.headers["Retry-After"] == "48"
    clock.advance(47.4)
    assert client.create().headers["Retry-After"] == "1"
    clock.advance(0.1)
    assert client.create().headers["X-RateLimit-Remaining"] == "4"


def test_a_minute_begins_at_the_first_request_after_the_last(client: Client) -> None:
    clock = Clock(NOON)
    client.simulator.reset(space(creates_per_minute=1, clock=clock))
    client.create()
    clock.advance(100)
    client.create()
    clock.advance(59)
    assert client.create().status_code == 429


def test_each_endpoint_has_its_own_limit(client: Client) -> None:
    client.simulator.reset(space(creates_per_minute=1, polls_per_minute=2, clock=Clock(NOON)))
    assert client.create().status_code == 202
    assert client.create().status_code == 429
    assert [client.poll().status_code for _ in range(3)] == [200, 200, 429]


def test_a_refused_order_costs_quota_too(client: Client) -> None:
    client.simulator.reset(space(creates_per_minute=1, clock=Clock(NOON)))
    assert client.post({}).headers["X-RateLimit-Remaining"] == "0"
    assert client.create().status_code == 429


def test_without_a_limit_there_are_no_such_headers(client: Client) -> None:
    assert not [name for name in client.create().headers if name.startswith("X-RateLimit")]


# Who is in an export


@pytest.mark.parametrize(("end_inclusive", "ids"), [(True, [1, 2]), (False, [1])])
def test_the_end_belongs_to_the_window_or_not(
    client: Client, *, end_inclusive: bool, ids: list[int]
) -> None:
    end = datetime(2024, 1, 15, 23, 59, 59, tzinfo=UTC)
    three = people(datetime(2024, 1, 15, tzinfo=UTC), end, end + timedelta(milliseconds=412))
    client.simulator.reset(space(three, end_inclusive=end_inclusive))
    assert client.ids("2024-01-15 00:00:00", "2024-01-15 23:59:59") == ids


def test_dates_are_wall_clock_times_of_the_space(client: Client) -> None:
    midnight_in_chicago = datetime(2024, 1, 15, 6, tzinfo=UTC)
    second = timedelta(seconds=1)
    client.simulator.reset(
        space(
            people(midnight_in_chicago - second, midnight_in_chicago),
            timezone="America/Chicago",
        )
    )
    assert client.ids("2024-01-15 00:00:00", "2024-01-15 12:00:00") == [2]


# On 2024-10-27 in Berlin 02:00 to 03:00 comes twice: from 00:00 and from 01:00 UTC.
FIRST_TIME = datetime(2024, 10, 27, 0, 30, tzinfo=UTC)
SECOND_TIME = datetime(2024, 10, 27, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(("fold", "ids"), [(0, [1, 2]), (1, [2])])
def test_a_repeated_hour_is_read_as_its_first_or_second(
    client: Client, fold: int, ids: list[int]
) -> None:
    rules = {"timezone": "Europe/Berlin", "fold": fold}
    client.simulator.reset(space(people(FIRST_TIME, SECOND_TIME), **rules))
    assert client.ids("2024-10-27 02:15:00", "2024-10-27 04:00:00") == ids


@pytest.mark.parametrize(("wall_clock_comparison", "ids"), [(False, [1]), (True, [1, 2])])
def test_a_store_of_local_times_cannot_tell_the_two_hours_apart(
    client: Client, *, wall_clock_comparison: bool, ids: list[int]
) -> None:
    rules = {"timezone": "Europe/Berlin", "wall_clock_comparison": wall_clock_comparison}
    client.simulator.reset(space(people(FIRST_TIME, SECOND_TIME), **rules))
    assert client.ids("2024-10-27 01:00:00", "2024-10-27 02:45:00") == ids


@pytest.mark.parametrize(("end_inclusive", "ids"), [(True, [1, 2]), (False, [1])])
def test_a_store_of_local_times_keeps_to_the_rule_of_the_end(
    client: Client, *, end_inclusive: bool, ids: list[int]
) -> None:
    second = timedelta(seconds=1)
    three = people(NOON, NOON + second, NOON + 2 * second)
    rules = {"wall_clock_comparison": True, "end_inclusive": end_inclusive}
    client.simulator.reset(space(three, **rules))
    assert client.ids("2024-01-15 12:00:00", "2024-01-15 12:00:01") == ids


@pytest.mark.parametrize("fold", [0, 1])
def test_a_skipped_time_is_read_with_the_offset_before_it(client: Client, fold: int) -> None:
    # On 2024-03-31 in Berlin 02:30 does not exist; PHP takes it for 03:30, which is 01:30 UTC.
    change = datetime(2024, 3, 31, 1, 29, 59, tzinfo=UTC)
    rules = {"timezone": "Europe/Berlin", "fold": fold}
    client.simulator.reset(space(people(change, change + timedelta(seconds=1)), **rules))
    assert client.ids("2024-03-31 02:30:00", "2024-03-31 12:00:00") == [2]


@pytest.mark.parametrize("timezone", ["America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize("wall_clock_comparison", [False, True])
def test_the_whole_calendar_can_be_asked_for(
    client: Client, *, timezone: str, wall_clock_comparison: bool
) -> None:
    rules: dict[str, Any] = {"timezone": timezone, "wall_clock_comparison": wall_clock_comparison}
    client.simulator.reset(space(people(NOON), **rules))
    assert client.ids("0001-01-01 00:00:00", "9999-12-31 23:59:59") == [1]


@pytest.mark.parametrize("wall_clock_comparison", [False, True])
def test_who_is_created_later_does_not_exist_yet(
    client: Client, *, wall_clock_comparison: bool
) -> None:
    clock = Clock(NOON)
    day = timedelta(days=1)
    rules = {"clock": clock, "wall_clock_comparison": wall_clock_comparison}
    client.simulator.reset(space(people(NOON - day, NOON + day), **rules))
    assert client.ids(*JANUARY) == [1]
    clock.advance(2 * 86_400)
    assert client.ids(*JANUARY) == [1, 2]


def test_a_file_shows_the_space_as_it_was_when_the_export_completed(client: Client) -> None:
    clock = Clock(NOON + timedelta(hours=1))
    known = Population([Contact(1, NOON, name="Before")])
    client.simulator.reset(space(known, processing_seconds=60, clock=clock))
    client.create()
    client.simulator.space.add([Contact(2, NOON, name="In time")])
    clock.advance(60)
    client.simulator.space.add([Contact(1, NOON, name="After"), Contact(3, NOON)])
    file = client.download(client.poll().json()["download_url"]).content
    assert [(line["id"], line["name"]) for line in lines(file)] == [(1, "Before"), (2, "In time")]
    client.create()
    clock.advance(60)
    file = client.download(client.poll(2).json()["download_url"]).content
    names = {line["id"]: line["name"] for line in lines(file)}
    assert names == {1: "After", 2: "In time", 3: None}


def test_an_export_has_everybody_of_its_window(client: Client) -> None:
    expected = [contact.id for contact in SOME]
    assert client.ids(*JANUARY) == expected
    half = datetime(2024, 1, 10, tzinfo=UTC)
    expected = [contact.id for contact in SOME if contact.created_at >= half]
    assert client.ids("2024-01-10 00:00:00", JANUARY[1]) == expected


# The storage


def test_a_file_has_the_headers_of_s3(client: Client) -> None:
    response = client.download(client.url())
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "binary/octet-stream"
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["Content-Length"] == str(len(response.content))
    digest = hashlib.md5(response.content, usedforsecurity=False).hexdigest()
    assert response.headers["ETag"] == f'"{digest}"'
    assert "Content-Encoding" not in response.headers


def test_each_poll_signs_another_url_of_the_same_file(client: Client) -> None:
    client.create()
    first, second = (urlsplit(client.poll().json()["download_url"]) for _ in range(2))
    assert first.path == second.path
    assert first.path.startswith("/exports/")
    assert first.path.endswith(".ndjson.gz")
    queries = [parse_qs(url.query) for url in (first, second)]
    assert queries[0]["X-Amz-Signature"] != queries[1]["X-Amz-Signature"]
    assert queries[0]["X-Amz-Expires"] == ["900"]
    contents = {client.download(url.geturl()).content for url in (first, second)}
    assert len(contents) == 1


def test_a_url_dies_after_its_lifetime(client: Client) -> None:
    clock = Clock(NOON)
    client.simulator.reset(space(SOME, clock=clock))
    url = client.url()
    clock.advance(899)
    assert client.download(url).status_code == 200
    clock.advance(1)
    response = client.download(url)
    assert response.status_code == 403
    assert response.headers["Content-Type"].startswith("application/xml")
    assert "<Code>AccessDenied</Code><Message>Request has expired</Message>" in response.text
    assert client.download(client.poll().json()["download_url"]).status_code == 200


def test_a_forged_url_is_refused(client: Client) -> None:
    url = client.url()
    for forged in (
        url[:-1] + ("0" if url[-1] != "0" else "1"),
        url.replace("X-Amz-Expires=900", "X-Amz-Expires=9000"),
        url.split("?")[0],
    ):
        response = client.download(forged)
        assert response.status_code == 403
        assert "SignatureDoesNotMatch" in response.text


def test_a_download_with_an_authorization_is_refused(client: Client) -> None:
    response = client.download(client.url(), Authorization="Bearer simulated-key")
    assert response.status_code == 400
    assert "Only one auth mechanism allowed" in response.text


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-", slice(0, None)),
        ("bytes=100-", slice(100, None)),
        ("bytes=100-199", slice(100, 200)),
        ("bytes=100-999999", slice(100, None)),
        ("bytes=-7", slice(-7, None)),
    ],
)
def test_a_range_is_given(client: Client, asked: str, part: slice) -> None:
    url = client.url()
    whole = client.download(url).content
    response = client.download(url, Range=asked)
    assert response.status_code == 206
    assert response.content == whole[part]
    start = range(len(whole))[part].start
    end = start + len(response.content) - 1
    assert response.headers["Content-Range"] == f"bytes {start}-{end}/{len(whole)}"


@pytest.mark.parametrize("asked", ["bytes=-", "bytes=9-3", "lines=1-2", "bytes=0-1,3-4"])
def test_a_range_that_is_none_is_ignored(client: Client, asked: str) -> None:
    url = client.url()
    response = client.download(url, Range=asked)
    assert response.status_code == 200
    assert response.content == client.download(url).content


def test_a_range_beyond_the_end_is_refused(client: Client) -> None:
    url = client.url()
    size = len(client.download(url).content)
    response = client.download(url, Range=f"bytes={size}-")
    assert response.status_code == 416
    assert response.headers["Content-Range"] == f"bytes */{size}"


def test_there_is_nothing_else_in_the_storage(client: Client) -> None:
    for path in ("/", "/exports/other.ndjson.gz?X-Amz-Signature=0"):
        response = client.download(client.simulator.storage_url + path)
        assert response.status_code in (403, 404)
        assert response.headers["Content-Type"].startswith("application/xml")
    assert [request.kind for request in client.simulator.requests] == ["other", "download"]


def test_conditions_on_the_etag_are_kept(client: Client) -> None:
    url = client.url()
    etag = client.download(url).headers["ETag"]
    assert client.download(url, If_Match=etag, Range="bytes=5-").status_code == 206
    assert client.download(url, If_Range=etag, Range="bytes=5-").status_code == 206
    assert client.download(url, If_Range='"other"', Range="bytes=5-").status_code == 200
    failed = client.download(url, If_Match='"other"', Range="bytes=5-")
    assert failed.status_code == 412
    assert "PreconditionFailed" in failed.text


def test_head_gives_the_headers_alone(client: Client) -> None:
    url = client.url()
    response = client.session.head(url, timeout=TIMEOUT)
    whole = client.download(url)
    assert response.status_code == 200
    assert response.headers["Content-Length"] == str(len(whole.content))
    assert response.headers["ETag"] == whole.headers["ETag"]
    assert response.content == b""


def test_head_meets_no_fault_of_a_transfer(client: Client) -> None:
    url = client.url()
    client.simulator.faults.add("download", Cut(1))
    assert client.session.head(url, timeout=TIMEOUT).status_code == 200
    assert raw_download(url)[2]


def test_a_file_larger_than_a_write_arrives_whole(client: Client) -> None:
    many = Population.generate(60_000, until=NOON)
    client.simulator.reset(space(many))
    received = client.download(client.url("2024-01-01 00:00:00", "2024-02-01 00:00:00")).content
    assert len(received) > 2**20
    assert len(lines(received)) == 60_000
    assert client.simulator.requests[-1].bytes_sent == len(received)


# Faults of requests


@pytest.mark.parametrize("where", EVERYWHERE)
def test_a_server_error_is_a_page_of_html(client: Client, where: Where) -> None:
    ask = client.asker(where)
    client.simulator.faults.add(where, ServerError(502))
    response = ask()
    assert response.status_code == 502
    assert response.headers["Content-Type"].startswith("text/html")
    assert ask().ok


def test_too_many_requests_may_be_told_in_three_ways(client: Client) -> None:
    clock = Clock(NOON)
    client.simulator.reset(space(clock=clock, creates_per_minute=5))
    for fault in (TooManyRequests(7), TooManyRequests("http-date"), TooManyRequests(None)):
        client.simulator.faults.add("create", fault)
    responses = [client.create() for _ in range(3)]
    assert [response.status_code for response in responses] == [429, 429, 429]
    seconds, date, nothing = (response.headers.get("Retry-After", "") for response in responses)
    assert seconds == "7"
    assert parsedate_to_datetime(date) == NOON + timedelta(seconds=2)
    assert nothing == ""
    assert {response.headers.get("X-RateLimit-Remaining") for response in responses} == {"0"}
    assert client.create().status_code == 202


def test_cometly_may_refuse_and_quote_the_key(client: Client) -> None:
    client.simulator.faults.add("create", Refuse(409, "Conflict."))
    client.simulator.faults.add("create", Refuse(401, "Bad key", echo=True))
    assert (client.create().status_code, client.create().json()) == (
        409,
        {"message": "Bad key (Bearer simulated-key)"},
    )


@pytest.mark.parametrize(
    ("body", "received"),
    [(b"\x00", b"\x00"), ("[", b"["), ({"a": 1}, b'{"a":1}'), (None, b"null"), (7, b"7")],
)
def test_any_answer_can_be_given(client: Client, body: object, received: bytes) -> None:
    client.simulator.faults.add("poll", Answer(202, body, {"X-Odd": "yes"}))
    response = client.poll()
    assert (response.status_code, response.content) == (202, received)
    assert response.headers["X-Odd"] == "yes"


@pytest.mark.parametrize("where", EVERYWHERE)
def test_a_redirect_leads_elsewhere(client: Client, where: Where) -> None:
    ask = client.asker(where)
    client.simulator.faults.add(where, Redirect("http://other.example/", 307))
    response = ask()
    assert response.status_code == 307
    assert response.headers["Location"] == "http://other.example/"


def test_a_reset_create_makes_no_export(client: Client) -> None:
    client.simulator.faults.add("create", Reset())
    with pytest.raises(requests.ConnectionError, match="reset"):
        client.create()
    assert not client.simulator.space.exports
    assert client.simulator.requests[0].status is None


def test_a_create_may_be_accepted_and_the_answer_lost(client: Client) -> None:
    client.simulator.faults.add("create", Reset(accepted=True))
    with pytest.raises(requests.ConnectionError, match="reset"):
        client.create()
    assert list(client.simulator.space.exports) == [1]


def test_a_hanging_request_gets_no_answer(client: Client) -> None:
    client.create()
    client.simulator.faults.add("poll", Hang())
    with pytest.raises(requests.ReadTimeout):
        client.poll(timeout=0.1)
    assert client.poll().status_code == 200


def test_a_fault_comes_after_some_requests_for_some_requests_when_they_fit(client: Client) -> None:
    client.simulator.faults.add(
        "poll", ServerError(), times=2, after=1, when=lambda request: request.export_id == 2
    )
    client.create()
    client.create()
    statuses = [client.poll(number).status_code for number in (1, 2, 1, 2, 2, 1, 2)]
    assert statuses == [200, 200, 200, 503, 503, 200, 200]


def test_faults_come_in_the_order_they_were_added(client: Client) -> None:
    client.simulator.faults.add("create", TooManyRequests(), times=2)
    client.simulator.faults.add("create", ServerError())
    assert [client.create().status_code for _ in range(4)] == [429, 429, 503, 202]


def test_a_fault_without_times_is_for_ever_until_cleared(client: Client) -> None:
    client.simulator.faults.add("create", ServerError(), times=None)
    assert {client.create().status_code for _ in range(5)} == {503}
    client.simulator.faults.clear()
    assert client.create().status_code == 202


def test_a_fault_is_refused_where_it_cannot_happen() -> None:
    with pytest.raises(ValueError, match="cut cannot happen at 'create'"):
        Faults().add("create", Cut(1))
    with pytest.raises(ValueError, match="no place"):
        Faults().add("upload", Cut(1))  # type: ignore[arg-type]


# Faults of exports


def test_an_export_fails(client: Client) -> None:
    client.simulator.faults.add("create", ExportFails("Out of memory."))
    client.create()
    client.create()
    answer = client.poll(1).json()
    assert (answer["status"], answer["message"]) == ("failed", "Out of memory.")
    assert "download_url" not in answer
    assert client.poll(1).json()["status"] == "failed"
    assert client.poll(2).json()["status"] == "completed"


def test_every_export_longer_than_a_day_fails(client: Client) -> None:
    client.simulator.faults.add(
        "create",
        ExportFails(),
        times=None,
        when=lambda request: request.window > timedelta(days=1),
    )
    client.create("2024-01-01 00:00:00", "2024-01-02 00:00:00")
    client.create("2024-01-01 00:00:00", "2024-01-02 00:00:01")
    client.create("2024-01-01 00:00:00", "2024-03-01 00:00:00")
    statuses = [client.poll(number).json()["status"] for number in (1, 2, 3)]
    assert statuses == ["completed", "failed", "failed"]


def test_an_export_fails_only_when_it_would_be_completed(client: Client) -> None:
    clock = Clock(NOON)
    client.simulator.reset(space(processing_seconds=5, clock=clock))
    client.simulator.faults.add("create", ExportFails())
    client.create()
    assert client.poll().json()["status"] == "processing"
    clock.advance(5)
    assert client.poll().json()["status"] == "failed"


def test_an_export_is_stuck(client: Client) -> None:
    clock = Clock(NOON)
    client.simulator.reset(space(clock=clock))
    client.simulator.faults.add("create", ExportStuck())
    client.create()
    clock.advance(1e6)
    assert client.poll().json()["status"] == "processing"


def test_an_export_vanishes(client: Client) -> None:
    client.simulator.faults.add("create", ExportVanishes(from_poll=2))
    client.create()
    assert [client.poll().status_code for _ in range(3)] == [200, 404, 404]


def test_an_export_may_vanish_under_a_download(client: Client) -> None:
    client.simulator.faults.add("download", ExportVanishes())
    url = client.url()
    assert client.download(url).status_code == 200
    assert client.poll().status_code == 404


def test_an_export_has_a_status_nobody_knows(client: Client) -> None:
    client.simulator.faults.add("create", UnknownStatus("archiving", polls=2))
    client.create()
    statuses = [client.poll().json()["status"] for _ in range(3)]
    assert statuses == ["archiving", "archiving", "completed"]


def test_an_export_is_completed_but_has_no_url_yet(client: Client) -> None:
    client.simulator.faults.add("create", CompletedWithoutUrl(polls=1))
    client.create()
    first, second = client.poll().json(), client.poll().json()
    assert (first["status"], "download_url" in first) == ("completed", False)
    assert "download_url" in second


def test_a_download_url_leads_where_it_should_not(client: Client) -> None:
    client.simulator.faults.add("create", DownloadUrl("http://elsewhere.example/file"))
    assert client.url() == "http://elsewhere.example/file"


# Faults of downloads


@pytest.mark.parametrize("at", [0, 1, 1000])
def test_a_body_is_cut(client: Client, at: int) -> None:
    url = client.url()
    whole = client.download(url).content
    client.simulator.faults.add("download", Cut(at))
    response, received, too_early = raw_download(url)
    assert response.headers["Content-Length"] == str(len(whole))
    assert (received, too_early) == (whole[:at], True)
    assert client.simulator.requests[-1].bytes_sent == at
    assert client.download(url).content == whole


def test_a_cut_counts_from_the_start_of_the_range(client: Client) -> None:
    url = client.url()
    whole = client.download(url).content
    client.simulator.faults.add("download", Cut(10))
    response, received, _ = raw_download(url, Range="bytes=500-")
    assert response.status == HTTPStatus.PARTIAL_CONTENT
    assert received == whole[500:510]


def test_a_body_is_cut_by_a_reset(client: Client) -> None:
    url = client.url()
    client.simulator.faults.add("download", Cut(1000, reset=True))
    with client.session.get(url, stream=True, timeout=TIMEOUT) as response:
        assert len(response.raw.read(1000)) == 1000
        with pytest.raises(Exception, match="reset by peer"):
            response.raw.read(1)


@pytest.mark.parametrize("at", [0, 1000, None])
def test_a_cut_goes_unnoticed_without_a_length(client: Client, at: int | None) -> None:
    url = client.url()
    whole = client.download(url).content
    client.simulator.faults.add("download", CutUnnoticed(at))
    response, received, too_early = raw_download(url)
    assert response.headers["Content-Length"] is None
    assert response.headers["Transfer-Encoding"] is None
    assert (received, too_early) == (whole[:at], False)


def test_a_chunked_body_ends_without_its_last_chunk(client: Client) -> None:
    url = client.url()
    whole = client.download(url).content
    client.simulator.faults.add("download", CutUnnoticed(1000, chunked=True))
    response, received, too_early = raw_download(url)
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert (received, too_early) == (whole[:1000], True)


def test_a_body_falls_silent(client: Client) -> None:
    url = client.url()
    client.simulator.faults.add("download", Stall(1000))
    with client.session.get(url, stream=True, timeout=0.1) as response:
        assert len(response.raw.read(1000)) == 1000
        with pytest.raises(Exception, match="timed out"):
            response.raw.read(1)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [(Expired(), 403, "Request has expired"), (Throttled(), 503, "<Code>SlowDown</Code>")],
)
def test_the_storage_refuses(client: Client, fault: Fault, status: int, code: str) -> None:
    url = client.url()
    client.simulator.faults.add("download", fault)
    response = client.download(url)
    assert response.status_code == status
    assert response.headers["Content-Type"].startswith("application/xml")
    assert code in response.text
    assert client.download(url).status_code == 200


def test_another_range_is_given_than_asked_for(client: Client) -> None:
    url = client.url()
    client.simulator.faults.add("download", WrongRange(shift=-3))
    whole = client.download(url)
    assert whole.status_code == 200
    response = client.download(url, Range="bytes=100-")
    assert response.headers["Content-Range"].startswith("bytes 97-")
    assert response.content == whole.content[97:]


def test_ranges_are_ignored(client: Client) -> None:
    client.simulator.faults.add("download", NoRanges())
    url = client.url()
    first, second = (client.download(url, Range="bytes=100-") for _ in range(2))
    assert first.status_code == second.status_code == 200
    assert "Accept-Ranges" not in first.headers
    assert first.content == second.content


def test_a_file_has_no_etag(client: Client) -> None:
    client.simulator.faults.add("download", NoETag())
    response = client.download(client.url(), If_Match='"any"')
    assert response.status_code == 200
    assert "ETag" not in response.headers


@pytest.mark.parametrize("size", [1, 200])
def test_a_file_changes_between_two_requests(client: Client, size: int) -> None:
    client.simulator.reset(space(Population.generate(size, until=NOON)))
    client.simulator.faults.add("download", ChangedFile(), after=1)
    url = client.url()
    first, second, third = (client.download(url) for _ in range(3))
    assert first.content != second.content == third.content
    assert first.headers["ETag"] != second.headers["ETag"]
    by_id = [sorted(line["id"] for line in lines(file.content)) for file in (first, second)]
    assert by_id[0] == by_id[1]
    assert client.download(url, If_Match=first.headers["ETag"]).status_code == 412


def test_a_range_of_a_changed_file_is_given_all_the_same(client: Client) -> None:
    client.simulator.faults.add("download", IgnoresIfMatch())
    assert client.download(client.url(), If_Match='"o"', Range="bytes=1-").status_code == 206


@pytest.mark.parametrize("length", [0, 500, -4])
def test_a_stored_file_is_short(client: Client, length: int) -> None:
    url = client.url()
    whole = client.download(url).content
    client.simulator.faults.add("download", Truncated(length))
    response = client.download(url)
    assert response.content == whole[:length]
    assert response.headers["Content-Length"] == str(len(whole[:length]))


def test_a_byte_is_wrong(client: Client) -> None:
    url = client.url()
    whole = client.download(url).content
    client.simulator.faults.add("download", Corrupt(700))
    response = client.download(url)
    spoiled = response.content
    assert [at for at in range(len(whole)) if whole[at] != spoiled[at]] == [700]
    digest = hashlib.md5(spoiled, usedforsecurity=False).hexdigest()
    assert response.headers["ETag"] == f'"{digest}"'


def test_only_the_checksum_is_wrong(client: Client) -> None:
    client.simulator.faults.add("download", WrongChecksum())
    spoiled = client.download(client.url()).content
    with pytest.raises(gzip.BadGzipFile, match="CRC"):
        gzip.decompress(spoiled)
    assert zlib.decompressobj(wbits=-15).decompress(spoiled[10:]).endswith(b"}\n")


def test_a_file_has_another_form(client: Client) -> None:
    form = FileForm(members=2, content_encoding="gzip")
    client.simulator.faults.add("download", Form(form))
    response = client.download(client.url())
    assert response.headers["Content-Encoding"] == "gzip"
    expected = make_file(SOME, form=form)[0]
    assert response.headers["Content-Length"] == str(len(expected))


def test_an_empty_body_is_declared_as_such(client: Client) -> None:
    client.simulator.faults.add("download", Form(FileForm(empty_body=True)))
    response = client.download(client.url())
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["Content-Length"] == "0"


def test_faults_of_a_file_stay_with_it_and_join(client: Client) -> None:
    client.simulator.faults.add("download", Form(FileForm(plain=True)))
    client.simulator.faults.add("download", NoRanges())
    client.simulator.faults.add("download", Cut(50))
    first, second = client.url(), client.url()
    assert raw_download(first)[2]
    response = client.download(first, Range="bytes=1-")
    assert response.status_code == 200
    assert response.content == make_file(SOME, form=FileForm(plain=True))[0]
    assert client.download(second, Range="bytes=1-").status_code == 206


def test_a_fault_that_stays_counts_files_not_downloads(client: Client) -> None:
    client.simulator.faults.add("download", NoRanges(), times=2)
    urls = [client.url() for _ in range(3)]
    statuses = [
        [client.download(url, Range="bytes=1-").status_code for _ in range(2)] for url in urls
    ]
    assert statuses == [[200, 200], [200, 200], [206, 206]]


def test_a_refused_download_meets_no_fault(client: Client) -> None:
    url = client.url()
    client.simulator.faults.add("download", Throttled())
    assert client.download(url, Authorization="Bearer x").status_code == 400
    assert client.download(url).status_code == 503


# Faults as text


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("create too-many-requests retry_after=2 times=5", [429] * 5 + [202]),
        ("create too-many-requests retry_after=http-date after=1", [202, 429, 202]),
        ("create server-error status=500 html='<p>Oh no</p>' times=2", [500, 500, 202]),
        ("create refuse status=401 message='No, no' echo=true times=all", [401] * 6),
        ("create server-error over_hours=24 times=2", [503, 503, 202]),
        ("create server-error over_hours=9999", [202, 202]),
    ],
)
def test_a_fault_can_be_written_as_text(client: Client, text: str, status: list[int]) -> None:
    add_from_text(client.simulator.faults, text)
    assert [client.create().status_code for _ in status] == status


def test_a_form_can_be_written_as_text(client: Client) -> None:
    add_from_text(
        client.simulator.faults,
        r"""download form plain=true only_lines=true lines='["{}","x"]' newline='"\r\n"'""",
    )
    assert client.download(client.url()).content == b"{}\r\nx\r\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not of the form"),
        ("download", "not of the form"),
        ("upload cut at=1", "not of the form"),
        ("download cat at=1", "'cat' is no fault; known are server-error, "),
        ("download cut", "missing required field `at`"),
        ("download cut at=ten", "Expected `int`, got `str` - at `$.at`"),
        ("download cut at=1 on=2", "unknown field `on`"),
        ("download cut at=1 times=often", "times"),
        ("create cut at=1", "cut cannot happen at 'create'"),
    ],
)
def test_a_text_that_is_no_fault_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        add_from_text(Faults(), text)


def test_every_fault_is_described() -> None:
    description = describe()
    for kind in (Answer, ChangedFile, CutUnnoticed, ExportFails, Form, Hang, WrongRange):
        assert f": {kind.name()}" in description


# The server


def test_what_was_asked_is_recorded(client: Client) -> None:
    clock = Clock(NOON)
    client.simulator.reset(space(SOME, clock=clock, timezone="Europe/Berlin"))
    url = client.url("2024-01-01 00:00:00", "2024-01-02 00:00:00")
    clock.advance(5)
    client.download(url, Range="bytes=3-")
    create, poll, download = client.simulator.requests
    assert (create.kind, create.method, create.status) == ("create", "POST", 202)
    assert create.json == {"start_date": "2024-01-01 00:00:00", "end_date": "2024-01-02 00:00:00"}
    assert create.headers["authorization"] == "Bearer simulated-key"
    assert create.start == datetime(2023, 12, 31, 23, tzinfo=UTC)
    assert create.window == timedelta(days=1)
    assert (poll.kind, poll.path, poll.export_id) == (
        "poll",
        "/public-api/v1/contacts/exports/1",
        1,
    )
    assert poll.said == "completed"
    assert (download.kind, download.status, download.export_id) == ("download", 206, 1)
    assert download.time == NOON.timestamp() + 5
    assert "X-Amz-Signature" in download.query
    assert download.headers["Range"] == "bytes=3-"
    assert download.bytes_sent > 100


def test_one_can_wait_for_a_request(client: Client) -> None:
    client.create()
    client.simulator.faults.add("poll", Hang())
    with pytest.raises(requests.ReadTimeout):
        client.poll(timeout=0.05)
    client.simulator.wait_until_asked("poll")
    asker = threading.Thread(target=client.create)
    asker.start()
    client.simulator.wait_until_asked("create", 2)
    asker.join()
    with pytest.raises(TimeoutError, match="fewer than 3 create requests"):
        client.simulator.wait_until_asked("create", 3, timeout=0.01)


def test_an_overview_tells_what_was_asked(client: Client) -> None:
    client.contacts(*JANUARY)
    client.simulator.faults.add("create", ServerError())
    client.create()
    origin = client.simulator.api_url.removesuffix("/public-api/v1")
    overview = client.session.get(f"{origin}/simulator", timeout=TIMEOUT).json()
    assert overview["space"]["contacts"] == 200
    assert {"kind": "create", "status": 503, "count": 1} in overview["requests"]
    assert sum(answers["count"] for answers in overview["requests"]) == 4
    [export] = overview["exports"]
    assert export["contacts"] == 200
    assert export["status"] == "completed"
    assert export["start_date"] == "2024-01-01T00:00:00+00:00"


def test_a_reset_simulator_is_as_new(client: Client) -> None:
    client.create()
    client.simulator.faults.add("create", ServerError(), times=None)
    ports = client.simulator.api_url, client.simulator.storage_url
    client.simulator.reset(space(people(NOON)))
    assert client.simulator.requests == []
    assert client.create().json()["export_id"] == 1
    assert (client.simulator.api_url, client.simulator.storage_url) == ports


def test_stopping_breaks_off_what_hangs() -> None:
    with Simulator(space(SOME)) as simulator, requests.Session() as session:
        client = Client(simulator)
        client.session = session
        url = client.url()
        simulator.faults.add("download", Stall(10))
        with session.get(url, stream=True, timeout=TIMEOUT) as response:
            simulator.stop()
            with pytest.raises(Exception, match=r"reset|IncompleteRead|broken"):
                response.raw.read(100)


def test_stopping_does_not_wait_for_a_client_that_does_not_read() -> None:
    more_than_buffers_hold = bytes(32 * 2**20)
    with Simulator(space()) as simulator, requests.Session() as session:
        simulator.faults.add("poll", Answer(200, more_than_buffers_hold))
        url = f"{simulator.api_url}/contacts/exports/1"
        with session.get(url, stream=True, timeout=TIMEOUT):
            began = time.monotonic()
            simulator.stop()
            assert time.monotonic() - began < 0.5


def test_a_stopped_simulator_listens_no_more() -> None:
    simulator = Simulator(space())
    simulator.start()
    simulator.stop()
    simulator.stop()
    with requests.Session() as session, pytest.raises(requests.ConnectionError, match="refused"):
        session.get(simulator.api_url, timeout=TIMEOUT)


def test_a_taken_port_is_an_error(server: Simulator) -> None:
    port = urlsplit(server.api_url).port or 0
    with pytest.raises(OSError, match=str(port)):
        Simulator(space(), api_port=port).start()


# The command line


@contextmanager
def run(*options: str) -> Iterator[subprocess.Popen[str]]:
    """Run it, and do not leave it behind when the test fails."""
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "simulator", "--api-port=0", "--storage-port=0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(output: Iterable[str], end: str) -> str:
    lines_read = []
    for line in output:
        lines_read.append(line)
        if end in line:
            break
    return "".join(lines_read)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_space_is_started_and_stopped_by_hand(tmp_path: Path, stop: signal.Signals) -> None:
    ready_file = tmp_path / "ready.json"
    with run(
        "--size=300",
        "--api-key=by-hand",
        "--timezone=Europe/Berlin",
        "--processing-seconds=0",
        "--queued-seconds=0",
        "--creates-per-minute=0",
        "--verbose",
        "--fault=create server-error",
        f"--ready-file={ready_file}",
    ) as process:
        assert process.stdout is not None
        greeting = read_until(process.stdout, "Ctrl-C")
        origin = greeting.split("API")[1].split()[0]
        assert "300 contacts" in greeting
        config = json.loads(greeting[greeting.index("{") : greeting.index("}") + 1])
        headers = {"Authorization": "Bearer by-hand"}
        body = {"start_date": "2000-01-01 00:00:00", "end_date": "2100-01-01 00:00:00"}
        with requests.Session() as session:
            url = f"{origin}/contacts/exports"
            failed = session.post(url, json=body, headers=headers, timeout=TIMEOUT)
            assert failed.status_code == 503
            accepted = session.post(url, json=body, headers=headers, timeout=TIMEOUT)
            assert accepted.status_code == 202
            answer = session.get(f"{url}/1", headers=headers, timeout=TIMEOUT).json()
            file = session.get(answer["download_url"], timeout=TIMEOUT).content
        # The last days of the population have not come yet.
        assert 200 < len(lines(file)) < 300
        ready = json.loads(ready_file.read_text(encoding="utf-8"))
        assert ready == config | {"storage_url": ready["storage_url"]}
        assert config["api_url"] == origin
        assert (config["api_key"], config["timezone"]) == ("by-hand", "Europe/Berlin")
        process.send_signal(stop)
        rest, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, errors) == (0, "")
    assert "create" in rest
    assert "503" in rest
    assert "[server-error]" in rest
    assert "poll export 1" in rest
    assert "200 completed" in rest


@pytest.mark.parametrize(
    ("option", "status", "message"),
    [
        ("--list-faults", 0, "download: cut at=…"),
        ("--fault=download cat", 2, "'cat' is no fault"),
        ("--timezone=Mars/Olympus", 2, "'Mars/Olympus' is not an IANA time zone"),
        ("--until=1999-01-01", 2, "--until must be after --since"),
    ],
)
def test_the_command_line_explains_itself(option: str, status: int, message: str) -> None:
    with run(option) as process:
        output, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == status
    assert message in output + errors


def test_a_taken_port_is_told_and_nothing_is_ready(server: Simulator, tmp_path: Path) -> None:
    ready_file = tmp_path / "ready.json"
    ready_file.write_text("of an earlier run", encoding="utf-8")
    port = urlsplit(server.api_url).port
    with run(f"--api-port={port}", f"--ready-file={ready_file}") as process:
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert str(port) in errors
    assert "Traceback" not in errors
    assert not ready_file.exists()
