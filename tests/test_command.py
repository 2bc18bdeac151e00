"""The command `tap-cometly`: files, log level, exit codes and last line on stderr."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from tap_cometly.messages import MessageWriter
from tap_cometly.signals import StopRequest
from tap_cometly.times import SystemClock
from tests.conftest import API_KEY, DAY, HOUR, JUNE, contacts_every

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Command, World

NOTHING_TO_SYNC = {
    "api_key": API_KEY,
    "start_date": "2024-06-01",
    "end_date": "2024-06-01",
    "api_url": "http://127.0.0.1:1",
}
STATE = {"bookmarks": {"contacts": {"replication_key_value": "2024-06-01T00:00:00+00:00"}}}
FILES = ["--config", "--state", "--catalog"]
OpenStdout = Callable[[], AbstractContextManager[IO[str]]]


@pytest.fixture
def real_time(world: World) -> World:
    """A Space in real time, without waits."""
    world.clock = SystemClock()
    no_waits = dict.fromkeys(("queued_seconds", "processing_seconds"), 0)
    no_limits = dict.fromkeys(("creates_per_minute", "polls_per_minute"))
    world.fill(contacts_every(HOUR, JUNE, JUNE + DAY - HOUR), **no_waits, **no_limits)
    return world


# Exit codes.


def test_a_complete_run_ends_with_0(command: Command, real_time: World) -> None:
    ended = command(config=real_time.config(end_date="2024-06-02"))

    assert ended.exit_code == 0
    assert ended.stdout.count('"RECORD"') == 24
    assert ended.last_line.startswith("Complete: 24 contacts in ")
    assert "METRIC" not in ended.stderr


def test_a_failed_run_ends_with_1_and_one_sentence(command: Command, real_time: World) -> None:
    ended = command(config=real_time.config(api_key="another-key"))

    assert ended.exit_code == 1
    assert re.match(r"The export of \S+ to \S+: .+ 401: ", ended.last_line)
    assert "Traceback" not in ended.stderr
    assert "unhandled" not in ended.stderr


@pytest.mark.parametrize("mode", ["--test", "--test=schema", "--discover"])
def test_other_modes_end_with_0_wherever_their_option_is(command: Command, mode: str) -> None:
    Path("config").write_text(json.dumps(NOTHING_TO_SYNC), "utf-8")

    for arguments in ([mode, "--config", "config"], ["--config", "config", mode]):
        ended = command(*arguments)

        assert (ended.exit_code, "ERROR" in ended.stderr) == (0, False)
        assert '"contacts"' in ended.stdout


@pytest.mark.parametrize(
    ("config", "state"),
    [(NOTHING_TO_SYNC | {"window_days": 0}, {}), (NOTHING_TO_SYNC, {"bookmarks": 5})],
    ids=["setting", "state"],
)
def test_a_rejected_value_ends_the_run_before_it_writes_anything(
    command: Command, config: dict[str, Any], state: dict[str, Any]
) -> None:
    Path("state.json").write_text(json.dumps(state), "utf-8")

    ended = command("--state", "state.json", config=config)

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert re.match(r"(Setting 'window_days'|The --state file) ", ended.last_line)
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "arguments", [["--confg", "x"], ["--state", "nowhere.json"], ["--catalog", "nowhere.json"]]
)
def test_a_bad_command_line_ends_with_2_and_names_the_option(
    command: Command, arguments: list[str]
) -> None:
    ended = command(*arguments)

    assert ended.exit_code == 2
    assert f"'{arguments[0]}'" in ended.last_line


def test_an_unexpected_error_ends_with_1_and_is_not_quoted(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("log.yml").write_text("version: quoted", "utf-8")
    monkeypatch.setenv("SINGER_SDK_LOG_CONFIG", "log.yml")

    ended = command(config=NOTHING_TO_SYNC)

    assert ended.exit_code == 1
    assert ended.last_line == (
        "Unexpected error (ValueError); please report it with the lines above."
    )
    assert ", in dictConfig\n" in ended.stderr
    assert "quoted" not in ended.stderr


# Files.


def arguments(**contents: bytes) -> Iterator[str]:
    """Files with these contents, as arguments."""
    contents = {"config": json.dumps(NOTHING_TO_SYNC).encode(), **contents}
    for name, content in contents.items():
        Path(name).write_bytes(content)
        yield from (f"--{name}", name)


def test_every_file_is_read_once_so_it_may_be_a_pipe(command: Command) -> None:
    contents = {"config": NOTHING_TO_SYNC, "state": STATE, "catalog": None}
    contents["catalog"] = json.loads(command("--discover").stdout)
    for name, content in contents.items():
        os.mkfifo(name)
        write = threading.Thread(target=Path(name).write_text, args=(json.dumps(content), "utf-8"))
        write.daemon = True
        write.start()

    ended = command(*(argument for name in contents for argument in (f"--{name}", name)))

    assert (ended.exit_code, json.loads(ended.stdout.splitlines()[0])["value"]) == (0, STATE)


def test_a_file_may_begin_with_a_byte_order_mark(command: Command) -> None:
    catalog = command("--discover").stdout
    texts = {"config": json.dumps(NOTHING_TO_SYNC), "state": json.dumps(STATE), "catalog": catalog}

    ended = command(*arguments(**{name: text.encode("utf-8-sig") for name, text in texts.items()}))

    assert ended.exit_code == 0
    assert '"STATE"' in ended.stdout


@pytest.mark.parametrize("option", FILES)
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"api_key": "k",}', "is not a JSON object in UTF-8; check its commas and quotes."),
        (b"[1]", "is not a JSON object in UTF-8"),
        (b'{"\xff": 1}', "is not a JSON object in UTF-8"),
        (b"[" * 100_000, "is not a JSON object in UTF-8"),
        ('{"api_key": "k"}'.encode("utf-16"), "is encoded in UTF-16; save it as UTF-8."),
        ('{"api_key": "k"}'.encode("utf-16-le"), "is encoded in UTF-16"),
    ],
    ids=["comma", "array", "bytes", "depth", "UTF-16", "UTF-16 without a mark"],
)
def test_a_file_that_is_not_a_json_object_in_utf_8_is_named(
    command: Command, option: str, content: bytes, why: str
) -> None:
    ended = command(*arguments(**{option[2:]: content}))

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert why in ended.last_line
    assert option.removeprefix("--") in ended.last_line


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (
            "nowhere.json",
            "The config file 'nowhere.json' cannot be read: No such file or directory",
        ),
        (".", "The config file '.' cannot be read: Is a directory; check --config."),
        (os.devnull, f"The config file '{os.devnull}' is empty; it must hold a JSON object."),
    ],
)
def test_a_config_file_that_cannot_be_read_is_named(command: Command, path: str, why: str) -> None:
    ended = command("--config", path)

    assert ended.exit_code == 1
    assert ended.last_line.startswith(why)


@pytest.mark.parametrize("content", [b"", b"\n", b"null", b"{}"])
def test_an_empty_state_is_none(command: Command, content: bytes) -> None:
    ended = command(*arguments(state=content))

    assert (ended.exit_code, ended.stdout.count('"STATE"')) == (0, 0)


def test_later_config_files_and_the_environment_override_earlier_ones(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("first").write_text(json.dumps(NOTHING_TO_SYNC | {"lookback_days": -1}), "utf-8")
    Path("second").write_text('{"lookback_days": 1, "timezone": "PDT"}', "utf-8")
    monkeypatch.setenv("TAP_COMETLY_TIMEZONE", "UTC")

    both = ("--config", "first", "--config", "second")
    assert "'timezone'" in command(*both).last_line
    assert command(*both, "--config", "ENV").exit_code == 0


def test_no_env_file_is_read(command: Command) -> None:
    Path(".env").write_text(f"TAP_COMETLY_API_KEY={API_KEY}\n", "utf-8")

    assert command("--config", "ENV").last_line.startswith("Setting 'api_key' is missing; ")


# The log.


@pytest.mark.parametrize("name", ["LOGLEVEL", "TAP_COMETLY_LOGLEVEL"])
@pytest.mark.parametrize("level", ["", "verbose"])
def test_a_bad_log_level_counts_as_none_with_a_warning(
    command: Command, monkeypatch: pytest.MonkeyPatch, name: str, level: str
) -> None:
    monkeypatch.setenv(name, level)

    ended = command(config=NOTHING_TO_SYNC)

    assert ended.exit_code == 0
    assert f"Ignoring {name}={level}: not a log level like INFO or DEBUG" in ended.stderr
    assert "| INFO " in ended.stderr


def test_the_log_level_of_the_tap_overrides_that_of_all_taps(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGLEVEL", "DEBUG")
    monkeypatch.setenv("TAP_COMETLY_LOGLEVEL", "warning")

    assert command(config=NOTHING_TO_SYNC).stderr == ""


def test_a_logging_configuration_does_not_hide_why_the_run_failed(tmp_path: Path) -> None:
    handlers = {"stderr": {"class": "logging.StreamHandler"}}
    configuration = {"version": 1, "handlers": handlers, "root": {"handlers": ["stderr"]}}
    path = tmp_path / "logging.yml"
    path.write_text(json.dumps(configuration))

    ended = subprocess.run(
        [sys.executable, "-m", "tap_cometly"],
        env={"SINGER_SDK_LOG_CONFIG": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "Setting 'api_key' is missing" in ended.stderr


# stdout.


@contextmanager
def closed_pipe() -> Iterator[IO[str]]:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w", encoding="utf-8") as stdout:
        yield stdout


def full_disk() -> IO[str]:
    return Path("/dev/full").open("w", encoding="utf-8")


TARGET = "The target closed the pipe before the range was complete; "
READER = "The reader of stdout closed the pipe."
DISK = "System error: No space left on device; fix it, then rerun the tap "


@pytest.mark.parametrize(("open_stdout", "start"), [(closed_pipe, TARGET), (full_disk, DISK)])
def test_a_stdout_that_takes_no_more_ends_a_run_with_one_sentence(
    command: Command, monkeypatch: pytest.MonkeyPatch, open_stdout: OpenStdout, start: str
) -> None:
    with open_stdout() as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        ended = command(config=NOTHING_TO_SYNC)
        monkeypatch.undo()

    assert ended.exit_code == 1
    assert ended.last_line.startswith(start)
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(("open_stdout", "start"), [(closed_pipe, READER), (full_disk, DISK)])
def test_a_stdout_that_takes_no_more_ends_discovery_with_one_sentence(
    open_stdout: OpenStdout, start: str
) -> None:
    discovery = [sys.executable, "-m", "tap_cometly", "--discover"]
    with open_stdout() as stdout:
        ended = subprocess.run(  # noqa: S603
            discovery, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
        )

    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].rpartition(" | ")[2].startswith(start)
    assert "Traceback" not in ended.stderr


def test_a_closed_stdout_ends_the_run_with_one_sentence() -> None:
    script = f"exec {sys.executable} -m tap_cometly --discover >&-"

    ended = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)  # noqa: S603, S607

    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].endswith(
        "| stdout is closed; run the tap with a target or redirect its output."
    )


def test_a_full_non_blocking_pipe_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    lines = b"".join(b"%d\n" % number for number in range(100_000))

    with (
        ThreadPoolExecutor() as pool,
        os.fdopen(read_end, "rb") as reader,
        os.fdopen(write_end, "w", encoding="utf-8") as stdout,
    ):
        monkeypatch.setattr("sys.stdout", stdout)
        read = pool.submit(reader.read, len(lines))
        MessageWriter(StopRequest()).write_lines(lines)

        assert read.result() == lines
