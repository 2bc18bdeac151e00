"""What must not be seen is not: the API key, download URLs' queries, and contacts' data.

Runs with everything that can go wrong, every library at DEBUG, and the two ways in which the SDK
writes logs. `test_redaction.py` has the details of how texts are cleaned.
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

import pytest
from singer_sdk.logging import ConsoleFormatter, StructuredFormatter

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
    Form,
    NoRanges,
    Redirect,
    Refuse,
    Reset,
    ServerError,
    Throttled,
    TooManyRequests,
    Truncated,
    UnknownStatus,
    WrongChecksum,
    WrongRange,
)
from simulator.files import FileForm
from tests.conftest import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from simulator.faults import Fault, Where
    from tests.conftest import Run

SECRET_KEY = "ctly_k3y|Very/Secret+47=="  # noqa: S105 - of no Space
PERSONAL = ("Zaphodine", "Quetzalcoatl", "heart-of-gold.example", "+479990001", "Sirius")
"""Words of the contacts' data that stand nowhere else."""
JUNE = datetime(2024, 6, 1, 1, tzinfo=UTC)
PEOPLE = [
    Contact(
        id=number,
        created_at=JUNE,
        email=f"zaphodine.{number}@heart-of-gold.example",
        name="Zaphodine Quetzalcoatl",
        phone=f"+479990001{number}",
        location="Sirius",
        comet_tokens=[f"token-Sirius-{number}"],
        emails=[f"{number}@heart-of-gold.example"],
    )
    for number in range(1, 60)
]
TO_JUNE_2 = {"end_date": "2024-06-02T00:00:00Z", "start_date": "2024-06-01T00:00:00Z"}


@pytest.fixture
def secret_world(running_simulator: Simulator) -> World:
    """A Space of distinctive people, with a distinctive key."""
    world = World(running_simulator)
    world.space = Space(Population(PEOPLE), api_key=SECRET_KEY, clock=world.clock.now)
    running_simulator.reset(world.space)
    return world


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that any library logs at DEBUG, in both formats of the SDK."""
    said = io.StringIO()
    root = logging.getLogger()
    level = root.level
    handlers = []
    for formatter in (ConsoleFormatter(), StructuredFormatter()):
        handler = logging.StreamHandler(said)
        handler.setFormatter(formatter)
        handlers.append(handler)
        root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield said
    root.setLevel(level)
    for handler in handlers:
        root.removeHandler(handler)


def sync(world: World, **settings: Any) -> Run:
    """Run with the distinctive key."""
    return world.sync(**({"api_key": SECRET_KEY} | TO_JUNE_2 | settings))


def told(error: BaseException | None) -> str:
    """All that an exception says, and those that led to it, shown or not."""
    texts = []
    while error is not None:
        texts += [*traceback.format_exception_only(error), repr(error), repr(error.args)]
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


def queries(world: World) -> list[str]:
    """What makes the download URLs of a Space secret."""
    return [
        request.query[name]
        for request in world.requests("download")
        for name in ("X-Amz-Signature", "X-Amz-Security-Token")
        if name in request.query
    ]


def lines(*raw: bytes) -> Form:
    """A file that has these lines too."""
    return Form(FileForm(lines=raw))


MISHAPS: list[tuple[Where, Fault]] = [
    ("create", ServerError(500, f"<p>{SECRET_KEY}</p>")),
    ("create", Refuse(403, "Who is this?", echo=True)),
    ("create", Answer(422, {"message": f"Bad key {SECRET_KEY} ({SECRET_KEY!r})"})),
    ("create", Answer(200, SECRET_KEY.encode())),
    ("create", Redirect(f"https://a.example/?{SECRET_KEY}")),
    ("create", Reset()),
    ("create", TooManyRequests()),
    ("poll", Refuse(401, echo=True)),
    ("poll", Refuse(404, echo=True)),
    ("poll", ServerError()),
    ("poll", Reset()),
    ("poll", Answer(302, b"", {"Location": f"https://a.example/?{SECRET_KEY}"})),
    ("create", ExportFails(f"Failed for Bearer {SECRET_KEY}")),
    ("create", ExportStuck(f"stuck with {SECRET_KEY}")),
    ("create", ExportVanishes()),
    ("create", UnknownStatus(f"waiting for {SECRET_KEY}")),
    ("create", CompletedWithoutUrl()),
    ("create", DownloadUrl(f"http://a.example/f?X-Amz-Signature={SECRET_KEY}")),
    ("create", DownloadUrl("https://127.0.0.1:1/f?sig=se%2fcret-Sirius-query")),
    ("create", DownloadUrl("https://[bad/f?sig=se%2fcret-Sirius-query")),
    ("download", Cut(100)),
    ("download", Cut(0, reset=True)),
    ("download", CutUnnoticed(100)),
    ("download", Expired()),
    ("download", Throttled()),
    ("download", Reset()),
    ("download", Redirect("https://a.example/?X-Amz-Signature=other-Sirius-query")),
    ("download", Answer(400, b"Zaphodine")),
    ("download", WrongRange()),
    ("create", NoRanges()),
    ("create", ChangedFile()),
    ("create", Truncated(-5)),
    ("create", Corrupt(200)),
    ("create", WrongChecksum()),
    ("create", lines(b'{"id":"Zaphodine"}')),
    ("create", lines(b'{"id":1,"email":{"Quetzalcoatl":"Sirius"}}')),
    ("create", lines(b'{"id":1,"emails":"1@heart-of-gold.example"}')),
    ("create", lines(b'{"id":1,"name":"Zaphodine\xff"}')),
    ("create", lines(b'{"id":1,"name":"Zaphodine')),
    ("create", lines(b'"%b"' % (b"Sirius" * 3_000_000))),
    ("create", lines(b'{"id":1,"birthday":"Sirius"}')),
]


@pytest.mark.parametrize(
    ("where", "fault"), MISHAPS, ids=lambda value: getattr(value, "name", lambda: value)()
)
def test_nothing_is_seen_whatever_goes_wrong(
    secret_world: World, log: io.StringIO, where: Where, fault: Fault
) -> None:
    world = secret_world
    if where == "download":
        world.simulator.faults.add("download", Cut(150))
    world.simulator.faults.add(where, fault, times=20)

    options = {"include_all_emails": True, "include_comet_tokens": True}
    run = sync(world, **options, export_timeout_minutes=1)

    said = log.getvalue() + told(run.error)
    assert "DEBUG" in said
    for secret in (SECRET_KEY, "Secret+47", *queries(world), *PERSONAL):
        assert secret not in said
    for secret in (SECRET_KEY, *queries(world)):
        assert secret.encode() not in run.output


class TestWhereThingsGo:
    """Who is sent what."""

    @pytest.fixture(autouse=True)
    def _home_with_credentials(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A home whose `.netrc` has a password for every host here."""
        lines = (f"machine {host} login me password netrc" for host in ("127.0.0.1", "localhost"))
        (tmp_path / ".netrc").write_text("\n".join([*lines, "default login me password netrc"]))
        (tmp_path / ".netrc").chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))

    @pytest.fixture
    def elsewhere(self) -> Iterator[Simulator]:
        """Where redirects lead; it would even know the key."""
        with Simulator(Space(Population(PEOPLE), api_key=SECRET_KEY)) as simulator:
            yield simulator

    def test_the_key_goes_to_the_api(self, secret_world: World) -> None:
        sync(secret_world)

        asked = [*secret_world.requests("create"), *secret_world.requests("poll")]
        assert {request.headers["Authorization"] for request in asked} == {f"Bearer {SECRET_KEY}"}

    def test_nothing_but_the_url_goes_to_the_storage(self, secret_world: World) -> None:
        for fault in (Cut(100), Expired(), Reset(), Cut(200)):
            secret_world.simulator.faults.add("download", fault)

        run = sync(secret_world)

        assert run.error is None
        asked = secret_world.requests("download")
        assert len(asked) == 5
        for request in asked:
            assert not {"Authorization", "Cookie", "Proxy-Authorization"} & set(request.headers)
            assert SECRET_KEY not in str(dict(request.headers))
            assert SECRET_KEY not in str(dict(request.query))

    def test_a_cookie_of_the_storage_is_not_sent_back(self, secret_world: World) -> None:
        cookie = {"Set-Cookie": "session=1; Path=/"}
        secret_world.simulator.faults.add("download", Answer(503, b"", cookie))

        sync(secret_world)

        assert ["Cookie" in r.headers for r in secret_world.requests("download")] == [False] * 2

    @pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
    @pytest.mark.parametrize("where", ["create", "poll", "download"])
    def test_no_redirect_is_followed(
        self, secret_world: World, elsewhere: Simulator, where: Where, status: int
    ) -> None:
        origin = elsewhere.storage_url if where == "download" else elsewhere.api_url
        secret_world.simulator.faults.add(
            where, Redirect(f"{origin}/contacts/exports", status), times=None
        )

        run = sync(secret_world)

        assert "a redirect that the tap does not follow" in str(run.error)
        assert elsewhere.requests == []

    @pytest.mark.parametrize("host", ["cometly.example", "0.0.0.0", "127.0.0.1.example"])  # noqa: S104
    def test_no_key_is_sent_over_plain_http(self, secret_world: World, host: str) -> None:
        run = sync(secret_world, api_url=f"http://{host}/public-api/v1")

        assert "Setting 'api_url' is" in str(run.error)

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_but_to_this_machine(self, secret_world: World, host: str) -> None:
        here = secret_world.simulator.api_url.replace("127.0.0.1", host)

        assert sync(secret_world, api_url=here).error is None

    def test_no_file_is_fetched_over_plain_http(
        self, secret_world: World, elsewhere: Simulator
    ) -> None:
        url = elsewhere.storage_url.replace("127.0.0.1", "0.0.0.0")  # noqa: S104 - leads here too
        secret_world.simulator.faults.add("create", DownloadUrl(f"{url}/exports/1"))

        run = sync(secret_world)

        assert "Cometly's download_url is neither https nor on this machine" in str(run.error)
        assert elsewhere.requests == []


class TestTheCommand:
    """A process of its own, as Meltano starts it: all its output, at DEBUG."""

    @pytest.fixture
    def run(self, tmp_path: Path) -> Iterator[Callable[..., str]]:
        """Run the command with faults; give all of its output but for the records."""
        space = Space(
            Population(PEOPLE), api_key=SECRET_KEY, queued_seconds=0, processing_seconds=0
        )

        def run(*faults: tuple[Where, Fault, int], env: dict[str, str], **settings: Any) -> str:
            for where, fault, after in faults:
                simulator.faults.add(where, fault, after=after)
            config = {"api_key": SECRET_KEY, "api_url": simulator.api_url} | TO_JUNE_2 | settings
            (tmp_path / "config.json").write_text(json.dumps(config))
            done = subprocess.run(
                [sys.executable, "-m", "tap_cometly", "--config", "config.json"],
                cwd=tmp_path,
                env={**os.environ, "TAP_COMETLY_LOGLEVEL": "DEBUG", **env},
                capture_output=True,
                text=True,
                check=False,
            )
            out = [line for line in done.stdout.splitlines() if '"RECORD"' not in line]
            return "\n".join([*out, done.stderr])

        with Simulator(space) as simulator:
            yield run

    @pytest.fixture
    def structured(self, tmp_path: Path) -> dict[str, str]:
        """The environment for structured logs."""
        handler = {
            "class": "logging.StreamHandler",
            "formatter": "json",
            "stream": "ext://sys.stderr",
        }
        logs = {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": "singer_sdk.logging.StructuredFormatter"}},
            "handlers": {"all": handler},
            "root": {"level": "DEBUG", "handlers": ["all"]},
        }
        (tmp_path / "log.yml").write_text(json.dumps(logs))  # YAML too
        return {"SINGER_SDK_LOG_CONFIG": "log.yml"}

    def assert_discreet(self, output: str) -> None:
        """Nothing is seen."""
        for secret in (SECRET_KEY, "Secret+47", "Amz-Sig", "session-1", *PERSONAL):
            assert secret not in output

    def test_a_run_that_fails(self, run: Callable[..., str]) -> None:
        output = run(("download", Expired(), 0), ("poll", Refuse(echo=True), 1), env={})

        assert "DEBUG" in output
        assert "it answered 403" in output
        self.assert_discreet(output)

    def test_a_run_that_fails_with_structured_logs(
        self, run: Callable[..., str], structured: dict[str, str]
    ) -> None:
        bad_line = lines(b'{"id":1,"email":["1@heart-of-gold.example"]}')

        output = run(("download", Cut(99), 0), ("create", bad_line, 0), env=structured)

        assert '"level":"debug"' in output.lower().replace(" ", "")
        assert "line 60 of its file" in output
        self.assert_discreet(output)

    def test_a_stream_map_that_fails(self, run: Callable[..., str]) -> None:
        output = run(env={}, stream_maps={"contacts": {"number": "int(email)"}})

        assert "A stream map failed on a contact (ValueError)" in output
        self.assert_discreet(output)
