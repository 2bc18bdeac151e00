"""No secret is ever said: neither the API key nor a presigned URL's query."""

from __future__ import annotations

import io
import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from singer_sdk.logging import StructuredFormatter

from simulator.faults import Cut, DownloadUrl, Expired, Refuse, Reset
from tap_cometly.redaction import HIDDEN, REDACTOR, Redactor, clean_all_logs
from tests.conftest import API_KEY, contact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import World

KEY = "42|aB/c+d=e\"f'g\\h&i"
"""Holds what JSON, URLs and Python each spell in their own way."""
QUERY = "X-Amz-Date=20240701T120000Z&X-Amz-Security-Token=a%2Fb%2Bc%3D&X-Amz-Signature=c0ffee"
PRESIGNED = f"https://bucket.s3.amazonaws.com/exports/1.ndjson.gz?{QUERY}"
OTHER_QUERY = "sv=2024&sp=r&sig=gh%2fij%2Bkl%3D"
"""Of another storage than S3."""

SPELLINGS: dict[str, Callable[[str], str]] = {
    "as-it-is": str,
    "url-quoted": lambda text: quote(text, safe=""),
    "url-quoted-in-lower-case": lambda text: quote(text, safe="").replace("%2F", "%2f"),
    "url-quoted-twice": lambda text: quote(quote(text, safe=""), safe=""),
    "json": lambda text: json.dumps(text)[1:-1],
    "json-by-php": lambda text: json.dumps(text)[1:-1].replace("/", r"\/"),
    "json-for-html": lambda text: json.dumps(text)[1:-1].replace("&", "\\u0026"),
    "json-in-json": lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    "repr": repr,
}


@pytest.fixture
def redactor() -> Redactor:
    """One that knows a key and two URLs."""
    redactor = Redactor()
    redactor.hide_key(KEY)
    redactor.hide_url(PRESIGNED)
    redactor.hide_url(f"https://storage.example/file?{OTHER_QUERY}#there")
    return redactor


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A logger of some library, at DEBUG; what it says is in `said(log)`."""
    clean_all_logs()
    REDACTOR.hide_key(KEY)
    logger = logging.Logger("some.library", logging.DEBUG)  # noqa: LOG001 - belongs to no one else
    for formatter in (logging.Formatter(), StructuredFormatter()):
        handler = logging.StreamHandler(io.StringIO())
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    yield logger
    for added in logger.handlers:
        added.close()


def fail(error: Exception) -> NoReturn:
    """Raise it."""
    raise error


def said(log: logging.Logger) -> tuple[str, str]:
    """What a logger has said: to a console, and as structured JSON."""
    plain, structured = (
        handler.stream.getvalue()
        for handler in log.handlers
        if isinstance(handler, logging.StreamHandler)
    )
    return plain, structured


class TestTexts:
    """What becomes of a text."""

    @pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
    @pytest.mark.parametrize("secret", [KEY, QUERY, OTHER_QUERY], ids=["key", "s3", "other"])
    def test_a_secret_is_hidden_however_it_is_spelled(
        self, redactor: Redactor, secret: str, spelling: Callable[[str], str]
    ) -> None:
        cleaned = redactor.clean(f"before {spelling(secret)} after")

        assert cleaned.replace("'", "") == f"before {HIDDEN} after"

    def test_a_url_loses_its_query_alone(self, redactor: Redactor) -> None:
        assert redactor.clean(f"GET <{PRESIGNED}>: 403") == (
            f"GET <https://bucket.s3.amazonaws.com/exports/1.ndjson.gz?{HIDDEN}>: 403"
        )

    @pytest.mark.parametrize(
        "text",
        [
            "/exports/2.gz?X-Amz-Algorithm=AWS4&X-Amz-Signature=c0ffee",
            "/exports/2.gz?x-amz-signature=c0ffee&response-content-type=c0ffee",
            "/exports/2.gz?AWSAccessKeyId=c0ffee&Expires=1&Signature=c0ffee",
            "/exports/2.gz?Expires=1&Signature=c0ffee&Key-Pair-Id=c0ffee",
            "https%3A%2F%2Fbucket%2F2.gz%3FX-Amz-Signature%3Dc0ffee%26X-Amz-Date%3Dc0ffee",
            r"https:\/\/bucket\/2.gz?X-Amz-Date=1\u0026X-Amz-Signature=c0ffee",
            "the part X-Amz-Signature=c0ffee of it",
            "{'X-Amz-Signature=c0ffee'}",
        ],
    )
    def test_a_presigned_query_is_known_by_its_look(self, text: str) -> None:
        cleaned = Redactor().clean(text)

        assert "c0ffee" not in cleaned
        assert HIDDEN in cleaned

    def test_a_key_inside_a_query_does_not_save_the_rest(self) -> None:
        redactor = Redactor()
        redactor.hide_key("the-key")
        redactor.hide_url("https://a.example/f?token=the-key&sig=c0ffee")

        assert redactor.clean("f?token=the-key&sig=c0ffee") == f"f?{HIDDEN}"

    @pytest.mark.parametrize("url", ["", "?", "no url", "https://[bad/f?a=b", "https://a/f?b"])
    def test_any_text_may_be_taken_for_a_url(self, url: str) -> None:
        redactor = Redactor()

        redactor.hide_url(url)

        assert redactor.clean("a and b") == "a and b"

    @given(st.text(st.characters(exclude_characters="?=:/%|42")))
    @example("Contacts created from 2023-06-01 00:00 to 2023-06-02 00:00 (Europe/Berlin)")
    @example('Cometly refused to create an export: it answered 403 and says "No?"; check it.')
    @example("why? because: https://docs.cometly.com/llms.txt?page=1")
    def test_one_without_secrets_is_left_alone(self, text: str) -> None:
        redactor = Redactor()
        redactor.hide_key(KEY)
        redactor.hide_url(PRESIGNED)

        assert redactor.clean(text) == text

    @given(
        st.lists(
            st.sampled_from([KEY, "hidden", "en", PRESIGNED, QUERY, OTHER_QUERY, HIDDEN, "?", " "])
            | st.text(max_size=3)
        ).map("".join)
    )
    def test_cleaning_twice_is_cleaning_once(self, text: str) -> None:
        redactor = Redactor()
        for key in (KEY, "hidden", "en"):
            redactor.hide_key(key)
        redactor.hide_url(PRESIGNED)
        redactor.hide_url(f"https://storage.example/file?{OTHER_QUERY}")

        once = redactor.clean(text)

        assert redactor.clean(once) == once


class TestLogs:
    """Whatever a library logs, at any level."""

    @pytest.mark.parametrize("secret", [KEY, PRESIGNED], ids=["key", "url"])
    def test_a_message_is_cleaned(self, log: logging.Logger, secret: str) -> None:
        log.debug(f"sending {secret}")  # noqa: G004 - as a library may

        for text in said(log):
            assert HIDDEN in text
            assert "c0ffee" not in text
            assert "aB/c" not in text

    @pytest.mark.parametrize("secret", [KEY, PRESIGNED], ids=["key", "url"])
    def test_arguments_are_cleaned(self, log: logging.Logger, secret: str) -> None:
        log.debug("sending %s in %s", {"Authorization": secret}, "time")

        for text in said(log):
            assert HIDDEN in text
            assert "in time" in text
            assert "c0ffee" not in text
            assert "aB/c" not in text

    def test_arguments_that_do_not_fit_are_cleaned(
        self, log: logging.Logger, capsys: pytest.CaptureFixture[str]
    ) -> None:
        log.debug("%d bytes of", PRESIGNED)

        assert "c0ffee" not in "".join([*said(log), *capsys.readouterr()])
        assert all(HIDDEN in text for text in said(log))

    def test_an_argument_that_cannot_be_shown_ends_no_run(self, log: logging.Logger) -> None:
        class Broken:
            def __str__(self) -> str:
                raise LookupError

        log.debug("%s", Broken())

        assert "Broken" in said(log)[0]

    @pytest.mark.parametrize("secret", [KEY, PRESIGNED], ids=["key", "url"])
    def test_an_exception_is_cleaned(self, log: logging.Logger, secret: str) -> None:
        try:
            fail(ConnectionError(secret))
        except ConnectionError:
            log.exception("no luck")

        for text in said(log):
            assert "no luck" in text
            assert "ConnectionError" in text
            assert "c0ffee" not in text
            assert "aB/c" not in text

    def test_what_led_to_an_exception_is_cleaned(self, log: logging.Logger) -> None:
        """Structured logs tell a context even where `from None` hides it."""
        try:
            try:
                fail(ConnectionError(PRESIGNED))
            except ConnectionError:
                message = "the file broke off"
                raise RuntimeError(message) from None
        except RuntimeError:
            log.exception("no luck")

        for text in said(log):
            assert "the file broke off" in text
            assert "c0ffee" not in text

    def test_an_exception_without_secrets_is_left_to_the_formatter(
        self, log: logging.Logger
    ) -> None:
        try:
            fail(ConnectionError())
        except ConnectionError:
            log.exception("no luck")

        assert json.loads(said(log)[1])["exception"]["type"] == "ConnectionError"

    def test_a_record_without_secrets_keeps_its_arguments(self) -> None:
        record = logging.LogRecord("a", logging.INFO, "a.py", 1, "%s of %s", (1, 2), None)

        REDACTOR.clean_record(record)

        assert (record.msg, record.args) == ("%s of %s", (1, 2))


class TestRuns:
    """A whole run, with every library at DEBUG."""

    @pytest.fixture(autouse=True)
    def _at_debug(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)

    def test_urllib3_shows_no_query(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        world.fill([contact(1, datetime(2024, 6, 1, 1, tzinfo=UTC))])
        world.simulator.faults.add("download", Expired())
        world.simulator.faults.add("download", Reset())
        world.simulator.faults.add("download", Cut(20))

        assert world.sync(end_date="2024-06-02T00:00:00Z").error is None

        assert f".ndjson.gz?{HIDDEN} HTTP" in caplog.text
        for request in world.requests("download"):
            assert request.query["X-Amz-Signature"] not in caplog.text
            assert request.query["X-Amz-Security-Token"] not in caplog.text

    def test_a_query_of_another_storage_is_hidden_too(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Libraries spell it in their own way: here `%2f` becomes `%2F`."""
        url = f"{world.simulator.storage_url}/file?{OTHER_QUERY}"
        world.simulator.faults.add("poll", DownloadUrl(url))

        world.sync(end_date="2024-06-02T00:00:00Z")

        assert f'"GET /file?{HIDDEN} HTTP' in caplog.text
        assert "sig=" not in caplog.text

    def test_nothing_shows_the_key(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        world.simulator.faults.add("poll", Refuse(403, "Who is this?", echo=True))

        run = world.sync()

        assert "Who is this?" in str(run.error)
        assert API_KEY not in str(run.error)
        assert API_KEY not in caplog.text
        assert API_KEY.encode() not in run.output

    def test_cometly_may_repeat_a_url(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        world.simulator.faults.add("create", Refuse(422, f"Already made: {PRESIGNED}"))

        run = world.sync()

        assert f"Already made: https://bucket.s3.amazonaws.com/exports/1.ndjson.gz?{HIDDEN}" in str(
            run.error
        )
        assert "c0ffee" not in caplog.text
