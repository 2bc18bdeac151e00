"""docs/errors.md has every sentence that the tap ends with or warns of, as the tap says it.

Each scenario names its row by a part of the row's sentence, makes the tap say it, and compares the
two. A row without a scenario fails, and so does a scenario without a row.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
import pytest

from simulator import Population, Simulator, Space
from simulator.faults import (
    Answer,
    ChangedFile,
    CompletedWithoutUrl,
    Cut,
    CutUnnoticed,
    DownloadUrl,
    ExportFails,
    ExportStuck,
    ExportVanishes,
    Form,
    Hang,
    NoRanges,
    Redirect,
    Refuse,
    Reset,
    ServerError,
    Throttled,
    Truncated,
    UnknownStatus,
    WrongChecksum,
)
from simulator.files import FileForm
from tap_cometly.client import CometlyClient
from tap_cometly.errors import CometlyError, TapError
from tap_cometly.tap import TapCometly
from tests.conftest import API_KEY, contact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulator.faults import Fault, Where
    from tests.conftest import World

DOCUMENT = Path(__file__).parent.parent / "docs" / "errors.md"
JUNE = datetime(2024, 6, 1, 1, tzinfo=UTC)
HOUR = 1 / 24
"""A window that is not halved, in days."""
AN_EXPORT = r"(?:Export \d+|The export) of [\d:T+-]{25} to [\d:T+-]{25}: "
"""What stands before every sentence about an export."""


# The document.


@cache
def rows() -> list[str]:
    """The sentences of all tables, in order."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return re.findall(r"^\| `(.+?)` \| .+ \| .+ \|$", text, re.MULTILINE)


def row_of(part: str) -> str:
    """The row that is just this, or else the only one that has this part."""
    found = [row for row in rows() if row == part] or [row for row in rows() if part in row]
    assert len(found) == 1, f"{len(found)} rows of {DOCUMENT.name} have {part!r}"
    return found[0]


def assert_says(sentence: str, part: str) -> None:
    """Compare a sentence of the tap with the row that has a part."""
    row = row_of(part)
    pattern = ".*".join(map(re.escape, row.split("…")))
    assert re.fullmatch(pattern, sentence), f"{sentence}\nis not as documented:\n{row}"


def test_every_table_row_is_read() -> None:
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    heads = [line for line in lines if line.startswith("| what you see")]
    codes = [line for line in lines if re.match(r"\| `(\d|128 \+ n)` \|", line)]

    assert len(rows()) == sum(line.startswith("| `") for line in lines) - len(codes)
    assert (len(heads), len(codes)) == (10, 4)


def test_every_row_has_a_scenario_and_every_scenario_a_row() -> None:
    assert sorted(set(rows()) - {row_of(part) for part in SCENARIOS}) == []


# Settings and files given.

SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("'api_key' is missing", {"api_key": None}),
    ("'api_key' is not usable", {"api_key": "a key"}),
    ("'start_date' is missing", {"start_date": None}),
    ("…_date' is", {"start_date": "yesterday"}),
    ("…_date' is", {"end_date": "2024-02-30"}),
    ("'end_date' is '…'; it has to be at or after", {"end_date": "2024-05-31"}),
    ("'timezone'", {"timezone": "PDT"}),
    ("'include_…'", {"include_comet_tokens": "yes"}),
    ("'include_…'", {"include_all_emails": 1}),
    ("'lookback_days'", {"lookback_days": -1}),
    ("'window_days'", {"window_days": 0}),
    ("'max_concurrent_exports'", {"max_concurrent_exports": 6}),
    ("'export_timeout_minutes'", {"export_timeout_minutes": 0}),
    ("'api_url' is '…'", {"api_url": "http://cometly.example/v1"}),
    ("'api_url' is not usable", {"api_url": "https://cometly.example/v1?key=1"}),
    ("'user_agent'", {"user_agent": "two\nlines"}),
    ("'…' is '…'; it has to be of", {"flattening_enabled": "x"}),
    ("'…' is not usable (its value is not shown); it has to be of", {"stream_maps": []}),
    ("it has to be as 'tap-cometly --about'", {"stream_maps": {"contacts": 5}}),
    ("'stream_maps' makes no sense", {"stream_maps": {"contacts": {"x": "1 +"}}}),
    (
        "Batch files hold one stream",
        {
            "batch_config": {"encoding": {"format": "jsonl"}, "storage": {"root": "file:///tmp"}},
            "stream_maps": {"copy": {"__source__": "contacts", "id": "id"}, "contacts": {}},
        },
    ),
]


@pytest.mark.parametrize(("part", "settings"), SETTINGS)
def test_a_setting_that_is_refused(world: World, part: str, settings: dict[str, Any]) -> None:
    run = world.sync(**settings)

    assert_says(str(run.error), part)
    assert world.simulator.requests == []


STATES: list[tuple[str, dict[str, Any]]] = [
    ("no Singer state", {"type": "STATE", "value": {"bookmarks": {}}}),
    ("'replication_key_value'", {"bookmarks": {"contacts": {"replication_key_value": "soon"}}}),
]


@pytest.mark.parametrize(("part", "state"), STATES)
def test_a_state_that_is_refused(world: World, part: str, state: dict[str, Any]) -> None:
    run = world.sync(state)

    assert_says(str(run.error), part)
    assert world.simulator.requests == []


JSON_IN_THE_ENVIRONMENT = "has to be JSON in the environment"


def test_an_environment_variable_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAP_COMETLY_STREAM_MAPS", "{")

    with pytest.raises(TapError) as error:
        TapCometly(parse_env_config=True)

    assert_says(str(error.value), JSON_IN_THE_ENVIRONMENT)


CONFIG_FILES: list[tuple[str, str]] = [
    ("config file '…' cannot be read", "nowhere.json"),
    ("config file '…' cannot be read", "."),
    ("config file '…' is no JSON object", "garbled"),
]
FOREIGN_CATALOG = "The catalog has no stream"
GARBLED = "The file of … is no JSON object"
MISUSES: list[tuple[str, list[str]]] = [
    ("Invalid value for", ["--state", "nowhere.json"]),
    ("Invalid value for", ["--catalog", "nowhere.json"]),
    ("No such option", ["--confg", "x"]),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder to work in, with a file that is no JSON."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "garbled").write_text("{,}")
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("part", "path"), CONFIG_FILES)
def test_a_config_file_that_is_refused(part: str, path: str) -> None:
    with pytest.raises(TapError) as error:
        TapCometly.get_singer_command().make_context("tap-cometly", ["--config", path])

    assert_says(str(error.value), part)


@pytest.mark.parametrize("option", ["state", "catalog"])
def test_a_file_that_is_refused(folder: Path, option: str) -> None:
    with (folder / "garbled").open() as file, pytest.raises(TapError) as error:
        TapCometly.invoke(**{option: file})

    assert_says(str(error.value), GARBLED)


@pytest.mark.parametrize(
    "catalog",
    [
        {},
        {"streams": []},
        {"streams": [5]},
        {"streams": [{"tap_stream_id": "contacts", "metadata": [5]}]},
        {"streams": [{"tap_stream_id": "deals", "schema": {"properties": {}}, "metadata": []}]},
    ],
    ids=json.dumps,
)
def test_a_catalog_without_contacts(world: World, catalog: dict[str, Any]) -> None:
    assert_says(str(world.sync(catalog=catalog).error), FOREIGN_CATALOG)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("part", "arguments"), MISUSES)
def test_a_command_line_that_is_refused(part: str, arguments: list[str]) -> None:
    with pytest.raises(click.UsageError) as error:
        TapCometly.get_singer_command().make_context("tap-cometly", arguments)

    assert_says(error.value.format_message(), part)
    assert error.value.exit_code == 2


# Runs that end in a sentence about an export.


@dataclass(frozen=True)
class Trouble:
    """What goes wrong in a run, always and from the start unless something else is said."""

    where: Where
    fault: Fault
    after: int = 0
    times: int | None = None
    then: Trouble | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def add_to(self, world: World) -> None:
        """Let it happen."""
        world.simulator.faults.add(self.where, self.fault, self.times, self.after)
        if self.then is not None:
            self.then.add_to(world)


def lines(*raw: bytes) -> Form:
    """A file of just these lines."""
    return Form(FileForm(lines=raw, only_lines=True))


AN_HOUR = {"window_days": HOUR, "end_date": "2024-06-01T02:00:00Z"}

NO_RANGES = Trouble("create", NoRanges())
A_LOSS_LATE = Trouble(
    "download",
    Cut(20),
    times=1,
    then=Trouble(
        "download", Answer(403), then=Trouble("download", ExportFails(message=""), after=1)
    ),
)
"""The file's connection breaks, its URL has expired, and there is no other."""
A_CHANGE = Trouble("download", Cut(20), then=Trouble("download", ChangedFile(), after=1))
ANOTHER_TRY_IS_SHORTER = Trouble(
    "download", Cut(20), times=1, then=Trouble("download", CutUnnoticed(10), then=NO_RANGES)
)
"""The file comes from its start again, and never reaches the byte where it first broke."""

ENDINGS: list[tuple[str, Trouble]] = [
    # Cometly's API
    ("Cometly could not …", Trouble("create", ServerError())),
    ("Cometly could not …", Trouble("poll", ServerError())),
    ("it answered 401…", Trouble("create", Refuse(401, "Unauthenticated."))),
    ("it answered 401…", Trouble("poll", Answer(401))),
    ("it answered 403…", Trouble("create", Refuse(403))),
    ("it answered 403…", Trouble("poll", Answer(403))),
    ("it answered 404…", Trouble("create", Refuse(404, "No route."))),
    ("if the message does not help", Trouble("create", Refuse(422, "The start_date is odd."))),
    ("it answered …, a redirect", Trouble("create", Redirect("https://cometly.example/"))),
    ("download_url is neither", Trouble("create", DownloadUrl("http://cometly.example/f"))),
    # Exports
    ("and its window is too short", Trouble("create", ExportFails(), settings=AN_HOUR)),
    (
        "while its file was read",
        A_LOSS_LATE,
    ),
    # The file
    ("its file could not be read on", Trouble("download", Cut(0))),
    ("its file could not be read on", Trouble("download", Throttled())),
    ("storage answered …, a redirect", Trouble("download", Redirect("https://a.example/"))),
    ("storage answered …; run the tap", Trouble("download", Answer(404))),
    ("its file ends early", Trouble("create", Truncated(-1))),
    ("its file is damaged", Trouble("create", WrongChecksum())),
    ("its file changed", A_CHANGE),
    # Lines
    ("no JSON object in UTF-8", Trouble("create", lines(b"{"))),
    ("no JSON object in UTF-8", Trouble("create", lines(b'{"id":1,"name":"\xff"}'))),
    ("has no integer 'id'", Trouble("create", lines(b'{"id":"1"}'))),
    ("has an object or array", Trouble("create", lines(b'{"id":1,"name":{}}'))),
    (
        "has no array in",
        Trouble("create", lines(b'{"id":1,"emails":"x"}'), settings={"include_all_emails": True}),
    ),
    ("is longer than", Trouble("create", lines(b'"%b"' % (b"x" * 2**24)))),
]


def end_of_run(world: World, trouble: Trouble) -> str:
    """What a run that meets trouble ends with, after the name of the export."""
    world.fill([contact(number, JUNE, email=f"{number}@example.com") for number in range(1, 50)])
    trouble.add_to(world)
    settings = {"end_date": "2024-06-02T00:00:00Z"} | trouble.settings
    sentence = str(world.sync(**settings).error)
    assert re.match(AN_EXPORT, sentence), sentence
    return re.sub(AN_EXPORT, "", sentence, count=1)


@pytest.mark.parametrize(("part", "trouble"), ENDINGS)
def test_a_run_that_ends(world: World, part: str, trouble: Trouble) -> None:
    assert_says(end_of_run(world, trouble), part)


LOSSES: list[tuple[str, Trouble]] = [
    ("it failed", Trouble("create", ExportFails(message=""), settings=AN_HOUR)),
    ("it failed, and", Trouble("create", ExportFails(), settings=AN_HOUR)),
    ("it vanished", Trouble("poll", Answer(404), settings=AN_HOUR)),
    ("it vanished, and", Trouble("create", ExportVanishes(), settings=AN_HOUR)),
    ("it was not done", Trouble("create", ExportStuck(), settings=AN_HOUR)),
    ("it was not done", Trouble("create", CompletedWithoutUrl(polls=None), settings=AN_HOUR)),
]


@pytest.mark.parametrize(("part", "trouble"), LOSSES)
def test_why_an_export_is_lost(world: World, part: str, trouble: Trouble) -> None:
    why, semicolon, _ = end_of_run(world, trouble).partition("; the one before it was lost too")

    assert semicolon
    assert_says(why, part)


# Causes.

CAUSES: list[tuple[str, Trouble]] = [
    ("could not be made or broke", Trouble("poll", Reset())),
    ("could not be made or broke", Trouble("download", Reset())),
    ("the connection broke", ANOTHER_TRY_IS_SHORTER),
    ("nothing said that the file does too", Trouble("download", CutUnnoticed(0))),
    ("it answered …", Trouble("create", ServerError())),
    ("not shaped as", Trouble("create", Answer(200, b"<html>Log in"))),
    ("was about export", Trouble("poll", Answer(200, {"export_id": 9, "status": "queued"}))),
    ("the storage answered 403, as", Trouble("download", Answer(403))),
    ("the storage answered …", Trouble("download", Throttled())),
]
NO_TLS = "secure connection (TLS)"
NO_PROXY = "proxy refused"
NO_ANSWER = "did not answer in time"


def cause_in(sentence: str) -> str:
    """What stands where the document says that a cause stands."""
    found = re.search(r"could not [^:]*: (.+), at the last of \d+ tries; ", sentence)
    assert found, sentence
    return found[1]


@pytest.mark.parametrize(("part", "trouble"), CAUSES)
def test_a_cause(world: World, part: str, trouble: Trouble) -> None:
    assert_says(cause_in(end_of_run(world, trouble)), part)


def test_a_server_that_speaks_no_tls(world: World) -> None:
    run = world.sync(api_url=world.simulator.api_url.replace("http:", "https:"))

    assert_says(cause_in(str(run.error)), NO_TLS)


def test_a_proxy_that_is_not_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")

    run = world.sync(api_url=world.simulator.api_url.replace("http:", "https:"))

    assert_says(cause_in(str(run.error)), NO_PROXY)


def test_a_server_that_does_not_answer(world: World) -> None:
    world.simulator.faults.add("create", Hang(), times=None)
    client = CometlyClient(world.tap().settings, world.clock, read_timeout_seconds=0.02)

    with pytest.raises(CometlyError) as error:
        client.create_export("2024-06-01 00:00:00", "2024-06-02 00:00:00")

    assert_says(cause_in(str(error.value)), NO_ANSWER)


# Warnings.

UNKNOWN_KEY = {"replication_key": "updated_at", "replication_key_value": "2024-06-01"}
WARNINGS: list[tuple[str, Fault | None, dict[str, Any]]] = [
    ("unknown field", lines(b'{"id":1,"birthday":"x"}'), {}),
    ("Unknown export status", UnknownStatus(), {}),
    ("no bytes at all", Form(FileForm(empty_body=True)), {}),
    ("creating it anew", ExportFails(), {}),
    ("halving its window", ExportFails(), {}),
    ("for the replication key", None, {"bookmarks": {"contacts": UNKNOWN_KEY}}),
]


@pytest.mark.parametrize(("part", "fault", "state"), WARNINGS)
def test_a_warning(
    world: World,
    caplog: pytest.LogCaptureFixture,
    part: str,
    fault: Fault | None,
    state: dict[str, Any],
) -> None:
    if fault is not None:
        world.simulator.faults.add("create", fault, times=2)

    run = world.sync(state, end_date="2024-06-02T00:00:00Z")

    assert run.error is None
    assert_warns(caplog, part)


NO_SETTING = "There is no setting"


def test_an_unknown_setting(world: World, caplog: pytest.LogCaptureFixture) -> None:
    run = world.sync(time_zone="UTC", end_date="2024-06-02T00:00:00Z")

    assert run.error is None
    assert_warns(caplog, NO_SETTING)


def assert_warns(caplog: pytest.LogCaptureFixture, part: str) -> None:
    """Some warning is as the row says that has these words."""
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    pattern = ".*".join(map(re.escape, row_of(part).split("…")))
    assert any(re.fullmatch(pattern, warning) for warning in said), said


# What only a process shows.

STOPPED = "Stopped by"
READER_GONE = "went away before the range was complete"
UNFORESEEN = "An unforeseen error"
CATALOG_READER_GONE = "The reader of the tap's output went away; nothing is lost by that."
MACHINE = "The machine did not let the tap go on"
FULL = Path("/dev/full")
SIGNAL_AT_IMPORT = """
import os, sys
class Signals:
    def find_spec(self, name, *_):
        if name == "singer_sdk":
            os.kill(os.getpid(), int(os.environ["SIGNUM"]))
sys.meta_path.insert(0, Signals())
"""
"""Sends the signal when the tap begins to load the SDK."""
STREAM_MAP = "A stream map failed"
BATCH_FILE = "A batch file could not be written"
PEOPLE = Population.generate(20_000, since=JUNE, until=datetime(2024, 6, 1, 20, tzinfo=UTC))


@dataclass
class Process:
    """The command, and a Space for it that lets nobody wait."""

    simulator: Simulator
    folder: Path

    def start(
        self,
        *arguments: str,
        env: dict[str, str] | None = None,
        stdout: int | IO[bytes] = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Start it."""
        config = {
            "api_key": API_KEY,
            "api_url": self.simulator.api_url,
            "start_date": "2024-06-01",
            "end_date": "2024-06-02",
        }
        (self.folder / "config.json").write_text(json.dumps(config))
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "tap_cometly", "--config", "config.json", *arguments],
            cwd=self.folder,
            env={**os.environ, **(env or {})},
            stdout=stdout,
            stderr=subprocess.PIPE,
        )


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    """The command, ready to start."""
    space = Space(PEOPLE, api_key=API_KEY, queued_seconds=0, processing_seconds=0)
    with Simulator(space) as simulator:
        yield Process(simulator, tmp_path)


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Its exit code, and its last line on stderr without what the log format puts before."""
    with process:
        assert process.stderr
        said = process.stderr.read().decode()
    return process.returncode, said.splitlines()[-1].rpartition(" | ")[2]


def test_a_signal_ends_with_128_and_its_number(process: Process) -> None:
    process.simulator.faults.add("poll", Hang())
    running = process.start()
    process.simulator.wait_until_asked("poll")
    running.send_signal(signal.SIGTERM)

    code, sentence = ended(running)

    assert code == 128 + signal.SIGTERM
    assert_says(sentence, STOPPED)


def test_a_reader_that_goes_away_ends_with_1(process: Process) -> None:
    running = process.start()
    assert running.stdout
    running.stdout.close()

    code, sentence = ended(running)

    assert code == 1
    assert_says(sentence, READER_GONE)


def test_a_reader_of_the_catalog_that_goes_away_ends_with_1(process: Process) -> None:
    running = process.start("--discover")
    assert running.stdout
    running.stdout.close()

    code, sentence = ended(running)

    assert code == 1
    assert_says(sentence, CATALOG_READER_GONE)


@pytest.mark.skipif(not FULL.exists(), reason="this machine has no disk that is always full")
@pytest.mark.parametrize("arguments", [[], ["--discover"]], ids=["run", "discover"])
def test_a_full_disk_ends_with_1(process: Process, arguments: list[str]) -> None:
    with FULL.open("wb") as disk:
        code, sentence = ended(process.start(*arguments, stdout=disk))

    assert code == 1
    assert_says(sentence, MACHINE)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_tap_is_loaded_is_one_sentence(
    process: Process, signum: signal.Signals
) -> None:
    (process.folder / "sitecustomize.py").write_text(SIGNAL_AT_IMPORT)
    env = {"PYTHONPATH": str(process.folder), "SIGNUM": str(int(signum))}

    code, sentence = ended(process.start(env=env))

    assert code == 128 + signum
    assert_says(sentence, STOPPED)


def test_what_is_not_foreseen_ends_with_1(process: Process) -> None:
    (process.folder / "log.yml").write_text("version: of my own")

    code, sentence = ended(process.start(env={"SINGER_SDK_LOG_CONFIG": "log.yml"}))

    assert code == 1
    assert_says(sentence, UNFORESEEN)


def test_a_wrong_command_line_ends_with_2(process: Process) -> None:
    code, sentence = ended(process.start("--state", "nowhere.json"))

    assert code == 2
    assert_says(sentence, "Invalid value for")


def test_a_stream_map_that_does_not_suit_a_contact(world: World) -> None:
    world.fill([contact(1, JUNE)])

    run = world.sync(stream_maps={"contacts": {"email": "md5(email)"}})

    assert_says(str(run.error), STREAM_MAP)


@pytest.mark.parametrize("where", ["taken", "unknown"])
def test_a_batch_file_that_cannot_be_written(world: World, tmp_path: Path, where: str) -> None:
    world.fill([contact(1, JUNE)])
    (tmp_path / "taken").touch()
    root = {"taken": (tmp_path / "taken").as_uri(), "unknown": "foo://bucket"}[where]

    run = world.sync(batch_config={"encoding": {"format": "jsonl"}, "storage": {"root": root}})

    assert_says(str(run.error), BATCH_FILE)


SCENARIOS = [
    *(part for part, _ in SETTINGS),
    *(part for part, _ in STATES),
    *(part for part, _ in CONFIG_FILES),
    *(part for part, _ in MISUSES),
    *(part for part, _ in (*ENDINGS, *LOSSES, *CAUSES)),
    *(part for part, _, _ in WARNINGS),
    *(
        FOREIGN_CATALOG,
        GARBLED,
        NO_SETTING,
        JSON_IN_THE_ENVIRONMENT,
        NO_TLS,
        NO_PROXY,
        NO_ANSWER,
        STOPPED,
        READER_GONE,
        CATALOG_READER_GONE,
        MACHINE,
        UNFORESEEN,
        STREAM_MAP,
        BATCH_FILE,
    ),
]
"""The parts that the scenarios above name their rows by."""
