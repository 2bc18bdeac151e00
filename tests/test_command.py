"""The command `tap-cometly`: exit codes, files, log, and the last line on stderr."""

from __future__ import annotations

import json
import os
import re
import resource
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
    """A Space in real time, without waits or rate limits."""
    world.clock = SystemClock()
    no_waits = dict.fromkeys(("queued_seconds", "processing_seconds"), 0)
    no_limits = dict.fromkeys(("creates_per_minute", "polls_per_minute"))
    world.fill(contacts_every(HOUR, JUNE, JUNE + DAY - HOUR), **no_waits, **no_limits)
    return world


# Exit codes.


def test_a_complete_run_exits_with_0(command: Command, real_time: World) -> None:
    result = command(config=real_time.config(end_date="2024-06-02"))

    assert result.exit_code == 0
    assert result.stdout.count('"RECORD"') == 24
    assert result.last_line.startswith("Complete: 24 contacts in ")
    assert "METRIC" not in result.stderr


def test_a_failed_run_exits_with_1_and_a_one_line_error(command: Command, real_time: World) -> None:
    result = command(config=real_time.config(api_key="another-key"))

    assert result.exit_code == 1
    assert re.match(r"The export of \S+ to \S+: .+ 401: ", result.last_line)
    assert "Traceback" not in result.stderr
    assert "unhandled" not in result.stderr


@pytest.mark.parametrize("mode", ["--test", "--test=schema", "--discover"])
def test_test_and_discovery_exit_with_0_in_any_order_of_options(
    command: Command, mode: str
) -> None:
    Path("config").write_text(json.dumps(NOTHING_TO_SYNC), "utf-8")

    for arguments in ([mode, "--config", "config"], ["--config", "config", mode]):
        result = command(*arguments)

        assert (result.exit_code, "ERROR" in result.stderr) == (0, False)
        assert '"contacts"' in result.stdout


@pytest.mark.parametrize(
    ("config", "state"),
    [(NOTHING_TO_SYNC | {"window_days": 0}, {}), (NOTHING_TO_SYNC, {"bookmarks": 5})],
    ids=["setting", "state"],
)
def test_an_invalid_value_exits_with_1_before_any_output(
    command: Command, config: dict[str, Any], state: dict[str, Any]
) -> None:
    Path("state.json").write_text(json.dumps(state), "utf-8")

    result = command("--state", "state.json", config=config)

    assert (result.exit_code, result.stdout) == (1, "")
    assert re.match(r"(Setting 'window_days'|The --state file) ", result.last_line)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments", [["--confg", "x"], ["--state", "missing.json"], ["--catalog", "missing.json"]]
)
def test_a_bad_command_line_exits_with_2_and_names_the_option(
    command: Command, arguments: list[str]
) -> None:
    result = command(*arguments)

    assert result.exit_code == 2
    assert re.search(rf"['\s]{arguments[0]}['\s]", result.last_line)


def test_an_unexpected_error_exits_with_1_and_is_not_quoted(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("log.yml").write_text("version: quoted", "utf-8")
    monkeypatch.setenv("SINGER_SDK_LOG_CONFIG", "log.yml")

    result = command(config=NOTHING_TO_SYNC)

    assert result.exit_code == 1
    assert result.last_line == (
        "Unexpected error (ValueError); please report it with the lines above."
    )
    assert ", in dictConfig\n" in result.stderr
    assert "quoted" not in result.stderr


# Files.


def arguments(**contents: bytes) -> Iterator[str]:
    """Write files with these contents; yield the arguments that name them."""
    contents = {"config": json.dumps(NOTHING_TO_SYNC).encode(), **contents}
    for name, content in contents.items():
        Path(name).write_bytes(content)
        yield from (f"--{name}", name)


def test_every_file_may_be_a_named_pipe(command: Command) -> None:
    contents = {"config": NOTHING_TO_SYNC, "state": STATE, "catalog": None}
    contents["catalog"] = json.loads(command("--discover").stdout)
    for name, content in contents.items():
        os.mkfifo(name)
        write = threading.Thread(target=Path(name).write_text, args=(json.dumps(content), "utf-8"))
        write.daemon = True
        write.start()

    result = command(*(argument for name in contents for argument in (f"--{name}", name)))

    assert (result.exit_code, json.loads(result.stdout.splitlines()[0])["value"]) == (0, STATE)


def test_a_file_may_begin_with_a_byte_order_mark(command: Command) -> None:
    catalog = command("--discover").stdout
    texts = {"config": json.dumps(NOTHING_TO_SYNC), "state": json.dumps(STATE), "catalog": catalog}

    result = command(*arguments(**{name: text.encode("utf-8-sig") for name, text in texts.items()}))

    assert result.exit_code == 0
    assert '"STATE"' in result.stdout


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
    ids=["comma", "array", "bytes", "depth", "UTF-16", "UTF-16 without BOM"],
)
def test_the_error_names_a_file_that_is_not_a_json_object_in_utf_8(
    command: Command, option: str, content: bytes, why: str
) -> None:
    result = command(*arguments(**{option[2:]: content}))

    assert (result.exit_code, result.stdout) == (1, "")
    assert why in result.last_line
    assert option.removeprefix("--") in result.last_line


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (
            "missing.json",
            "The config file 'missing.json' cannot be read: No such file or directory",
        ),
        (".", "The config file '.' cannot be read: Is a directory; check --config."),
        (os.devnull, f"The config file '{os.devnull}' is empty; it must hold a JSON object."),
    ],
)
def test_the_error_names_an_unreadable_config_file(command: Command, path: str, why: str) -> None:
    result = command("--config", path)

    assert result.exit_code == 1
    assert result.last_line.startswith(why)


def test_lone_surrogates_in_a_state_do_not_matter(command: Command) -> None:
    state = json.dumps({"bookmarks": {**STATE["bookmarks"], "deals": {"x": "\ud800"}}})

    result = command(*arguments(state=state.encode()))

    assert (result.exit_code, '"STATE"' in result.stdout) == (0, True)


@pytest.mark.parametrize("content", [b"", b"\n", b"null", b"{}"])
def test_an_empty_state_file_means_no_state(command: Command, content: bytes) -> None:
    result = command(*arguments(state=content))

    assert (result.exit_code, result.stdout.count('"STATE"')) == (0, 0)


def test_later_config_files_and_the_environment_override_earlier_ones(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("first").write_text(json.dumps(NOTHING_TO_SYNC | {"lookback_days": -1}), "utf-8")
    Path("second").write_text('{"lookback_days": 1, "timezone": "PDT"}', "utf-8")
    monkeypatch.setenv("TAP_COMETLY_TIMEZONE", "UTC")

    both = ("--config", "first", "--config", "second")
    assert "'timezone'" in command(*both).last_line
    assert command(*both, "--config", "ENV").exit_code == 0


def test_a_dotenv_file_is_not_read(command: Command) -> None:
    Path(".env").write_text(f"TAP_COMETLY_API_KEY={API_KEY}\n", "utf-8")

    assert command("--config", "ENV").last_line.startswith("Setting 'api_key' is missing; ")


# The log.


@pytest.mark.parametrize("name", ["LOGLEVEL", "TAP_COMETLY_LOGLEVEL"])
@pytest.mark.parametrize("level", ["", "verbose"])
def test_an_invalid_log_level_is_ignored_with_a_warning(
    command: Command, monkeypatch: pytest.MonkeyPatch, name: str, level: str
) -> None:
    monkeypatch.setenv(name, level)

    result = command(config=NOTHING_TO_SYNC)

    assert result.exit_code == 0
    assert f"Ignoring {name}={level}: not a log level like INFO or DEBUG" in result.stderr
    assert "| INFO " in result.stderr


def test_tap_cometly_loglevel_overrides_loglevel(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGLEVEL", "DEBUG")
    monkeypatch.setenv("TAP_COMETLY_LOGLEVEL", "warning")

    assert command(config=NOTHING_TO_SYNC).stderr == ""


def test_the_error_is_shown_with_a_custom_logging_configuration(tmp_path: Path) -> None:
    handlers = {"stderr": {"class": "logging.StreamHandler"}}
    configuration = {"version": 1, "handlers": handlers, "root": {"handlers": ["stderr"]}}
    path = tmp_path / "logging.yml"
    path.write_text(json.dumps(configuration))

    result = subprocess.run(
        [sys.executable, "-m", "tap_cometly"],
        env={"SINGER_SDK_LOG_CONFIG": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "Setting 'api_key' is missing" in result.stderr


# stdout.


@contextmanager
def closed_pipe() -> Iterator[IO[str]]:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w", encoding="utf-8") as stdout:
        yield stdout


def full_disk() -> IO[str]:
    return Path("/dev/full").open("w", encoding="utf-8")


NO_TARGET = "The target closed the pipe before the range was complete; "
NO_READER = "The reader of stdout closed the pipe."
FULL_DISK = "System error: No space left on device; fix it, then rerun the tap "


@pytest.mark.parametrize(
    ("open_stdout", "start"), [(closed_pipe, NO_TARGET), (full_disk, FULL_DISK)]
)
def test_a_run_that_cannot_write_to_stdout_exits_with_1_and_a_one_line_error(
    command: Command, monkeypatch: pytest.MonkeyPatch, open_stdout: OpenStdout, start: str
) -> None:
    with open_stdout() as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        result = command(config=NOTHING_TO_SYNC)
        monkeypatch.undo()

    assert result.exit_code == 1
    assert result.last_line.startswith(start)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("open_stdout", "start"), [(closed_pipe, NO_READER), (full_disk, FULL_DISK)]
)
def test_discovery_that_cannot_write_to_stdout_exits_with_1_and_a_one_line_error(
    open_stdout: OpenStdout, start: str
) -> None:
    discovery = [sys.executable, "-m", "tap_cometly", "--discover"]
    with open_stdout() as stdout:
        result = subprocess.run(  # noqa: S603
            discovery, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
        )

    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].rpartition(" | ")[2].startswith(start)
    assert "Traceback" not in result.stderr


def test_a_closed_stdout_exits_with_1_and_a_one_line_error() -> None:
    script = f"exec {sys.executable} -m tap_cometly --discover >&-"

    result = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)  # noqa: S603, S607

    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].endswith(
        "| stdout is closed; run the tap with a target or redirect its output."
    )


def test_a_file_on_a_full_disk_ends_with_a_whole_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    with (tmp_path / "stdout").open("w", encoding="utf-8") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        writer = MessageWriter(StopRequest())
        writer.write_lines(b"a\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                writer.write_lines(b"a line of 21 letters\n" * 1000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert (tmp_path / "stdout").read_bytes() == b"a\n" + b"a line of 21 letters\n" * 47


def test_writing_waits_for_a_full_non_blocking_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
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
