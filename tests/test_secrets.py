"""Neither the API key nor queries of download URLs nor contacts reach logs and errors.

The first tests clean texts and log records. Then come runs with every fault and every library at
log level DEBUG, and tests of the requests that carry the key.
"""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from singer_sdk.logging import ConsoleFormatter, StructuredFormatter

from simulator import Contact, Population, Simulator, Space
from simulator.faults import (
    CompletedWithoutUrl,
    Corrupt,
    Cut,
    DownloadUrl,
    Expired,
    ExportFails,
    ExportStuck,
    Layout,
    Redirect,
    Refuse,
    Reset,
    Respond,
    ServerError,
    StorageFailure,
    UnknownStatus,
)
from simulator.files import FileLayout
from tap_cometly.redaction import HIDDEN, REDACTOR, Redactor, clean_all_logs
from tests.conftest import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from simulator.faults import Endpoint, Fault
    from tests.conftest import Run

KEY = "42|aB/c+d=e\"f'g\\h&i"
"""Contains characters that JSON, URLs and Python escape differently."""
SIGNATURE = "5f5fc0ffee5f5fc0ffee/+="
QUERY = f"X-Amz-Date=20240701T1200Z&X-Amz-Expires=900&X-Amz-Signature={quote(SIGNATURE, safe='')}"
URL = f"https://bucket.s3.amazonaws.com/exports/1.ndjson.gz?{QUERY}"
OTHER_QUERY = "sv=2024&sp=r&sig=gh%2fij%2Bkl%3D"
"""A query of a storage other than S3."""

SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in a URL": lambda text: quote(text, safe=""),
    "in a URL, lower case": lambda text: quote(text, safe="").replace("%2F", "%2f"),
    "in a URL in a URL": lambda text: quote(quote(text, safe=""), safe=""),
    "in JSON": lambda text: json.dumps(text)[1:-1],
    "in JSON by PHP": lambda text: json.dumps(text)[1:-1].replace("/", r"\/"),
    "in JSON for HTML": lambda text: json.dumps(text)[1:-1].replace("&", "\\u0026"),
    "in JSON in JSON": lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    "in Python": repr,
}


# Texts.


def redactor(*keys: str) -> Redactor:
    """A redactor that knows some keys and two URLs."""
    cleaner = Redactor()
    for key in keys:
        cleaner.hide_key(key)
    cleaner.hide_url(URL)
    cleaner.hide_url(f"https://storage.example/file?{OTHER_QUERY}#there")
    return cleaner


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize(
    "secret", [KEY, QUERY, OTHER_QUERY, SIGNATURE], ids=["key", "s3", "other", "signature"]
)
def test_a_secret_is_hidden_in_every_spelling(secret: str, spelling: Callable[[str], str]) -> None:
    cleaned = redactor(KEY).clean(f"before {spelling(secret)} after")

    assert cleaned.replace("'", "") == f"before {HIDDEN} after"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        (f"GET <{URL}>: 403", f"GET <{URL.partition('?')[0]}?{HIDDEN}>: 403"),
        (f"The signature {SIGNATURE} expired", f"The signature {HIDDEN} expired"),
        ("It expired at 20240701T1200Z, after 900 s", None),
    ],
)
def test_only_the_query_and_its_long_values_are_hidden(text: str, cleaned: str | None) -> None:
    assert redactor().clean(text) == (cleaned or text)


@pytest.mark.parametrize(
    "text",
    [
        "/exports/2.gz?X-Amz-Algorithm=AWS4&X-Amz-Signature=c0ffee",
        "/exports/2.gz?x-amz-signature=c0ffee&response-content-type=c0ffee",
        "/exports/2.gz?AWSAccessKeyId=c0ffee&Expires=1&Signature=c0ffee",
        "https%3A%2F%2Fbucket%2F2.gz%3FX-Amz-Signature%3Dc0ffee%26X-Amz-Date%3Dc0ffee",
        r"https:\/\/bucket\/2.gz?X-Amz-Date=1\u0026X-Amz-Signature=c0ffee",
        "the part X-Amz-Signature=c0ffee of it",
    ],
)
def test_an_unknown_presigned_query_is_recognized(text: str) -> None:
    cleaned = Redactor().clean(text)

    assert "c0ffee" not in cleaned
    assert HIDDEN in cleaned


def test_a_query_that_contains_the_key_is_hidden_entirely() -> None:
    cleaner = Redactor()
    cleaner.hide_key("the-key")
    cleaner.hide_url("https://a.example/f?token=the-key&sig=c0ffee")

    assert cleaner.clean("f?token=the-key&sig=c0ffee") == f"f?{HIDDEN}"


@pytest.mark.parametrize("url", ["", "?", "no url", "https://[bad/f?a=b", "https://a/f?b"])
def test_a_malformed_url_hides_nothing(url: str) -> None:
    cleaner = Redactor()
    cleaner.hide_url(url)

    assert cleaner.clean("a and b") == "a and b"


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="?=:/%|42")))
@example("Contacts created from 2023-06-01 00:00 to 2023-06-02 00:00 (Europe/Berlin)")
@example("why? because: https://docs.cometly.com/llms.txt?page=1")
def test_a_text_without_secrets_is_unchanged(text: str) -> None:
    assert redactor(KEY).clean(text) == text


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from([KEY, "hidden", "en", URL, QUERY, OTHER_QUERY, SIGNATURE, HIDDEN, "?", " "])
        | st.text(max_size=3)
    ).map("".join)
)
def test_cleaning_is_idempotent(text: str) -> None:
    cleaner = redactor(KEY, "hidden", "en")

    assert cleaner.clean(cleaner.clean(text)) == cleaner.clean(text)


# Log records.


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The log of all libraries at DEBUG, in both formats of the SDK."""
    clean_all_logs()
    REDACTOR.hide_key(KEY)
    logged = io.StringIO()
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    for formatter in (ConsoleFormatter(), StructuredFormatter()):
        handler = logging.StreamHandler(logged)
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield logged
    root.setLevel(level)
    root.handlers[:] = handlers


logger = logging.getLogger("a.library")


def log_an_exception(secret: str) -> None:
    error = ConnectionError(secret)
    try:
        raise error
    except ConnectionError:
        logger.exception("It failed")


def log_a_suppressed_context(secret: str) -> None:
    error = RuntimeError()
    error.__context__, error.__suppress_context__ = ConnectionError(secret), True
    logger.error("It failed", exc_info=error)


@pytest.mark.parametrize("secret", [KEY, URL, SIGNATURE], ids=["key", "url", "signature"])
@pytest.mark.parametrize(
    "log_it",
    [
        lambda secret: logger.debug("It failed: " + secret),  # noqa: G003 - as a library may
        lambda secret: logger.debug("It %s: %s", "failed", {"a": secret}),
        lambda secret: logger.debug("It failed: %d", secret),
        log_an_exception,
        log_a_suppressed_context,
    ],
    ids=["message", "arguments", "wrong arguments", "exception", "context"],
)
def test_a_log_record_is_cleaned(
    log: io.StringIO, log_it: Callable[[str], None], secret: str, capsys: pytest.CaptureFixture[str]
) -> None:
    REDACTOR.hide_url(URL)

    log_it(secret)

    shown = "".join([log.getvalue(), *capsys.readouterr()])
    assert "It failed" in shown
    assert "c0ffee" not in shown
    assert "aB/c" not in shown


def test_a_log_record_without_secrets_is_not_changed(log: io.StringIO) -> None:
    log_an_exception("no secret")

    structured = json.loads(log.getvalue().splitlines()[-1])
    assert structured["exception"]["type"] == "ConnectionError"


def test_a_log_argument_whose_str_fails_is_not_an_error(log: io.StringIO) -> None:
    class Broken:
        def __str__(self) -> str:
            raise LookupError

    logger.debug("%s", Broken())

    assert "Broken" in log.getvalue()


# Runs with faults.

SECRET_KEY = "ctly_k3y|Very/Secret+47=="  # noqa: S105 - not a real key
PERSONAL = ("Zaphodine", "Quetzalcoatl", "heart-of-gold.example", "+479990001", "Sirius")
"""Parts of the contacts' data that occur nowhere else."""
PEOPLE = [
    Contact(
        id=number,
        created_at=datetime(2024, 6, 1, 1, tzinfo=UTC),
        email=f"zaphodine.{number}@heart-of-gold.example",
        name="Zaphodine Quetzalcoatl",
        phone=f"+479990001{number}",
        location="Sirius",
        comet_tokens=[f"token-Sirius-{number}"],
        emails=[f"{number}@heart-of-gold.example"],
    )
    for number in range(1, 60)
]
SETTINGS: dict[str, Any] = {
    "api_key": SECRET_KEY,
    "start_date": "2024-06-01T00:00:00Z",
    "end_date": "2024-06-02T00:00:00Z",
    "include_all_emails": True,
    "include_comet_tokens": True,
}


@pytest.fixture
def secret_world(running_simulator: Simulator) -> World:
    """A Space with the contacts and the key that must not be shown."""
    world = World(running_simulator)
    world.space = Space(Population(PEOPLE), api_key=SECRET_KEY, clock=world.clock.now)
    running_simulator.reset(world.space)
    return world


def sync(world: World, **settings: Any) -> Run:
    return world.sync(**(SETTINGS | settings))


def assert_no_secrets(shown: str, world: World | None = None) -> None:
    downloads = world.requests("download") if world else []
    names = ("X-Amz-Signature", "X-Amz-Security-Token")
    values = [request.query[name] for request in downloads for name in names]
    for secret in (SECRET_KEY, "Secret+47", "Amz-Sig", *values, *PERSONAL):
        assert secret not in shown


def lines(*raw: bytes) -> Layout:
    """A file that ends with these lines."""
    return Layout(FileLayout(lines=raw))


OTHER_URL = "https://a.example/file?token=Sirius-token-of-a-url"
FAULTS: list[tuple[Endpoint, Fault]] = [
    ("create", ServerError(500, f"<p>{SECRET_KEY}</p>")),
    ("create", Refuse(403, "Who is this?", echo=True)),
    ("create", Respond(422, {"message": f"{SECRET_KEY} {SECRET_KEY!r}", "errors": [SECRET_KEY]})),
    ("create", Respond(200, SECRET_KEY.encode())),
    ("create", Redirect(f"https://a.example/?{SECRET_KEY}")),
    ("create", Reset()),
    ("poll", Refuse(404, echo=True)),
    ("poll", Respond(302, b"", {"Location": f"https://a.example/?{SECRET_KEY}"})),
    ("create", ExportFails(f"Failed for Bearer {SECRET_KEY}")),
    (
        "poll",
        Respond(
            200,
            {
                "export_id": 1,
                "status": "failed",
                "download_url": OTHER_URL,
                "message": f"Cannot write {OTHER_URL}.",
            },
        ),
    ),
    ("create", ExportStuck(f"stuck with {SECRET_KEY}")),
    ("create", UnknownStatus(f"waiting for {SECRET_KEY}")),
    ("create", CompletedWithoutUrl()),
    ("create", DownloadUrl(f"http://a.example/f?X-Amz-Signature={SECRET_KEY}")),
    ("create", DownloadUrl("https://127.0.0.1:1/f?sig=se%2fcret-Sirius-query")),
    ("create", DownloadUrl("https://a..b/f?sig=se%2fcret-Sirius-query")),
    ("create", DownloadUrl("https://[bad/f?sig=se%2fcret-Sirius-query")),
    ("download", Cut(100)),
    ("download", Expired()),
    ("download", StorageFailure(400, "ExpiredToken", "{X-Amz-Signature} has expired")),
    ("download", StorageFailure(503, "SlowDown", "{X-Amz-Signature} is too fast")),
    ("download", Reset()),
    ("download", Redirect("https://a.example/?X-Amz-Signature=other-Sirius-query")),
    ("create", Corrupt(200)),
    ("create", lines(b'{"id":"Zaphodine"}')),
    ("create", lines(b'{"id":1,"email":{"Quetzalcoatl":"Sirius"}}')),
    ("create", lines(b'{"id":1,"emails":"1@heart-of-gold.example"}')),
    ("create", lines(b'{"id":1,"name":"Zaphodine\xff"}')),
    ("create", lines(b'{"id":1,"name":"Zaphodine')),
    ("create", lines(b'"%b"' % (b"Sirius" * 3_000_000))),
    ("create", lines(b'{"id":1,"birthday":"Sirius"}')),
]


@pytest.mark.parametrize(
    ("where", "fault"), FAULTS, ids=lambda value: getattr(value, "name", lambda: value)()
)
def test_no_secret_is_shown_after_a_fault(
    secret_world: World, log: io.StringIO, where: Endpoint, fault: Fault
) -> None:
    if where == "download":
        secret_world.simulator.faults.add("download", Cut(150))
    secret_world.simulator.faults.add(where, fault, times=None if where == "download" else 20)

    run = sync(secret_world, export_timeout_minutes=1)

    shown, error = [log.getvalue()], run.error
    while error is not None:
        shown += [*traceback.format_exception_only(error), repr(error), repr(error.args)]
        error = error.__cause__ or error.__context__
    assert "DEBUG" in shown[0]
    assert_no_secrets("\n".join(shown), secret_world)
    assert SECRET_KEY.encode() not in run.output


@pytest.mark.parametrize("structured", [False, True])
def test_no_secret_is_shown_by_the_command(tmp_path: Path, *, structured: bool) -> None:
    log_config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "singer_sdk.logging.StructuredFormatter"}},
        "handlers": {"all": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"level": "DEBUG", "handlers": ["all"]},
    }
    (tmp_path / "log.yml").write_text(json.dumps(log_config))  # YAML too
    environment = os.environ | {"TAP_COMETLY_LOGLEVEL": "DEBUG"}
    if structured:
        environment["SINGER_SDK_LOG_CONFIG"] = "log.yml"
    space = Space(Population(PEOPLE), api_key=SECRET_KEY, queued_seconds=0, processing_seconds=0)
    with Simulator(space) as simulator:
        simulator.faults.add("download", Cut(99))
        simulator.faults.add("create", lines(b'{"id":1,"email":["1@heart-of-gold.example"]}'))
        config = SETTINGS | {"api_url": simulator.api_url}
        (tmp_path / "config.json").write_text(json.dumps(config))
        done = subprocess.run(
            [sys.executable, "-m", "tap_cometly", "--config", "config.json"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    assert ('"level":"debug"' if structured else "DEBUG") in done.stderr
    assert "line 60 has" in done.stderr
    assert_no_secrets(done.stderr)
    assert_no_secrets(done.stdout.partition('"RECORD"')[0])


# Requests that carry the key.


def test_the_key_is_sent_only_to_the_api(
    secret_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = ("machine 127.0.0.1", "machine localhost", "default")
    text = "\n".join(f"{host} login me password netrc" for host in hosts)
    (tmp_path / "netrc").write_text(text)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for fault in (Cut(100), Expired(), Reset(), Cut(200)):
        secret_world.simulator.faults.add("download", fault)

    assert sync(secret_world).error is None

    calls = [*secret_world.requests("create"), *secret_world.requests("poll")]
    assert {request.headers["Authorization"] for request in calls} == {f"Bearer {SECRET_KEY}"}
    downloads = secret_world.requests("download")
    assert len(downloads) == 5
    for request in downloads:
        assert not {"Authorization", "Cookie", "Proxy-Authorization"} & set(request.headers)
        assert SECRET_KEY not in f"{dict(request.headers)} {dict(request.query)}"


def test_plain_http_is_rejected_for_the_api_and_for_downloads(secret_world: World) -> None:
    url = secret_world.simulator.storage_url.replace("127.0.0.1", "127.0.0.1.example")
    assert "'api_url' is invalid" in str(sync(secret_world, api_url=f"{url}/v1").error)

    secret_world.simulator.faults.add("create", DownloadUrl(f"{url}/exports/1"))
    assert "download_url is neither https nor http to localhost" in str(sync(secret_world).error)


def test_plain_http_to_localhost_is_allowed(secret_world: World) -> None:
    api_url = secret_world.simulator.api_url.replace("127.0.0.1", "localhost")

    assert sync(secret_world, api_url=api_url).error is None
