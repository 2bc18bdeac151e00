"""The command `tap-cometly`: settings, discovery, and the one sentence that a run ends with."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from singer_sdk.testing import SuiteConfig, get_tap_test_class
from syrupy.extensions.json import JSONSnapshotExtension

from simulator import Population, Simulator, Space
from simulator.faults import Refuse
from tap_cometly.tap import TapCometly
from tests.conftest import API_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from syrupy.assertion import SnapshotAssertion

    from tests.conftest import World

    Command = Callable[..., subprocess.CompletedProcess[str]]


def quick_space() -> Space:
    """A Space in real time that lets nobody wait."""
    people = Population.generate(
        50, since=datetime(2024, 6, 1, tzinfo=UTC), until=datetime(2024, 6, 3, tzinfo=UTC)
    )
    return Space(
        people,
        api_key=API_KEY,
        queued_seconds=0,
        processing_seconds=0,
        creates_per_minute=None,
        polls_per_minute=None,
    )


@pytest.fixture
def space() -> Iterator[Simulator]:
    """A Space in real time, where 50 people appeared in June 2024."""
    with Simulator(quick_space()) as simulator:
        yield simulator


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs the installed command with settings in a file, in an environment of its own."""

    def run(
        *arguments: str, config: object = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        if config is not None:
            path = tmp_path / "config.json"
            path.write_text(config if isinstance(config, str) else json.dumps(config))
            arguments = ("--config", str(path), *arguments)
        return subprocess.run(  # noqa: S603
            [sys.executable, "-m", "tap_cometly", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "NO_COLOR": "1", **(env or {})},
        )

    return run


def settings_for(space: Simulator, **more: object) -> dict[str, object]:
    """Settings for a Space, bounded to a few days."""
    return {
        "api_key": API_KEY,
        "api_url": space.api_url,
        "start_date": "2024-06-01",
        "end_date": "2024-06-04",
        **more,
    }


def last_line(run: subprocess.CompletedProcess[str]) -> str:
    """The last line on stderr, without what the logging format puts before it."""
    return run.stderr.rstrip("\n").rpartition("\n")[2].rpartition(" | ")[2]


def test_a_trial_says_nothing_of_errors(command: Command, space: Simulator) -> None:
    run = command("--test", config=settings_for(space))

    assert run.returncode == 0
    assert "ERROR" not in run.stderr


def test_a_trial_ends_with_the_good_news(command: Command, space: Simulator) -> None:
    run = command("--test", config=settings_for(space))

    assert last_line(run) == "The trial is over: a contact was read, so the settings work"


def test_a_trial_creates_no_exports_ahead(command: Command, space: Simulator) -> None:
    command("--test", config=settings_for(space, window_days=0.1))

    kinds = [request.kind for request in space.requests]
    assert kinds.count("create") == kinds.count("download") > 0


def test_a_misspelt_setting_is_warned_of_without_its_value(
    command: Command, space: Simulator
) -> None:
    run = command(config=settings_for(space, time_zone="America/New_York"))

    assert "WARNING" in run.stderr
    assert "There is no setting 'time_zone'; it has no effect" in run.stderr
    assert "New_York" not in run.stderr


def test_a_complete_run_exits_with_0(command: Command, space: Simulator) -> None:
    run = command(config=settings_for(space))

    assert run.returncode == 0
    assert sum('"RECORD"' in line for line in run.stdout.splitlines()) == 50


def test_settings_come_from_the_environment_too(command: Command, space: Simulator) -> None:
    env = {
        f"TAP_COMETLY_{name.upper()}": str(value)
        for name, value in settings_for(
            space, include_all_emails="true", window_days="0.5", max_concurrent_exports=2
        ).items()
    }

    run = command("--config", "ENV", env=env)

    assert run.returncode == 0
    assert '"emails":[' in run.stdout


def test_no_env_file_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TAP_COMETLY_API_KEY=key\n")
    # By `-c`, as the SDK would then look into the working folder.
    code = "from tap_cometly.__main__ import main; main()"

    run = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code, "--config", "ENV"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert last_line(run).startswith("Setting 'api_key' is missing; ")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"api_key": None},
            (
                "Setting 'api_key' is missing; it has to be the API key of your Cometly Space; "
                "put it into the file of --config, or as TAP_COMETLY_API_KEY into the environment "
                "(for --config ENV) or Meltano's .env."
            ),
        ),
        (
            {"api_key": "key with spaces"},
            (
                "Setting 'api_key' is not usable (its value is not shown); it has to be "
                "a Cometly API key, without spaces."
            ),
        ),
        (
            {"timezone": "Mars/Olympus"},
            (
                "Setting 'timezone' is 'Mars/Olympus'; it has to be "
                "an IANA time zone name like America/New_York."
            ),
        ),
        (
            {"end_date": "2024-05-31"},
            "Setting 'end_date' is '2024-05-31'; it has to be at or after start_date.",
        ),
        (
            {"window_days": 0.0001},
            (
                "Setting 'window_days' is '0.0001'; it has to be "
                "a number of days, at least one minute (0.000695)."
            ),
        ),
        (
            {"api_url": "http://example.com"},
            (
                "Setting 'api_url' is 'http://example.com'; it has to be an https URL, or http to "
                "this machine (localhost, 127.0.0.1, ::1), without a query."
            ),
        ),
        (
            {"batch_config": {"encoding": {"format": "csv"}, "storage": {"root": "file:///tmp"}}},
            (
                "Setting 'batch_config.encoding.format' is 'csv'; it has to be "
                'of enum ["jsonl", "parquet"].'
            ),
        ),
    ],
)
def test_a_bad_setting_is_one_sentence(
    command: Command, space: Simulator, settings: dict[str, object], sentence: str
) -> None:
    run = command(config=settings_for(space, **settings))

    assert (run.returncode, run.stdout, last_line(run)) == (1, "", sentence)
    assert "Traceback" not in run.stderr
    assert space.requests == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MAX_CONCURRENT_EXPORTS", "many"),
        ("LOOKBACK_DAYS", "one"),
        ("INCLUDE_ALL_EMAILS", "banana"),
    ],
)
def test_a_bad_environment_variable_is_one_sentence(command: Command, name: str, text: str) -> None:
    env = {"TAP_COMETLY_API_KEY": "a-key", "TAP_COMETLY_START_DATE": "2024-06-01"}

    run = command("--config", "ENV", env={**env, f"TAP_COMETLY_{name}": text})

    assert run.returncode == 1
    assert last_line(run).startswith(f"Setting '{name.lower()}' is '{text}'; it has to be ")


@pytest.mark.parametrize("config", ['{"api_key": "k",}', "[]", ""])
def test_a_config_file_that_is_no_object_is_one_sentence(command: Command, config: str) -> None:
    run = command(config=config)

    assert run.returncode == 1
    assert last_line(run).endswith("is no JSON object; check its commas and quotes.")


def test_a_missing_config_file_is_one_sentence(command: Command) -> None:
    run = command("--config", "nowhere.json")

    assert (run.returncode, last_line(run)) == (
        1,
        "The config file 'nowhere.json' cannot be read: No such file or directory; check --config.",
    )


@pytest.mark.parametrize("option", ["--state", "--catalog"])
@pytest.mark.parametrize("content", ["{", "[1]", '"x"'])
def test_a_garbled_file_is_one_sentence(
    command: Command, space: Simulator, tmp_path: Path, option: str, content: str
) -> None:
    (tmp_path / "file.json").write_text(content)

    run = command(option, "file.json", config=settings_for(space))

    assert (run.returncode, last_line(run)) == (
        1,
        f"The file of {option} is no JSON object; give the tap one, or none at all.",
    )


@pytest.mark.parametrize(
    "state",
    [{"type": "STATE", "value": {"bookmarks": {}}}, {"bookmarks": []}, {"bookmarks": {"x": 1}}],
)
def test_a_state_of_another_shape_is_one_sentence(
    command: Command, space: Simulator, tmp_path: Path, state: dict[str, Any]
) -> None:
    (tmp_path / "state.json").write_text(json.dumps(state))

    run = command("--state", "state.json", config=settings_for(space))

    assert run.returncode == 1
    assert last_line(run).startswith("The file of --state holds no Singer state; ")


@pytest.mark.parametrize("state", ["{}", "null", ""])
def test_an_empty_state_is_none(
    command: Command, space: Simulator, tmp_path: Path, state: str
) -> None:
    (tmp_path / "state.json").write_text(state)

    assert command("--state", "state.json", config=settings_for(space)).returncode == 0


def test_a_refusal_ends_the_run_with_cometlys_words(command: Command, space: Simulator) -> None:
    run = command(config=settings_for(space, api_key="another"))

    assert run.returncode == 1
    assert last_line(run).startswith(
        "The export of 2024-06-01T00:00:00+00:00 to 2024-06-02T00:00:00+00:00: Cometly refused to "
        "create an export: it answered 401 and says "
    )
    assert "Traceback" not in run.stderr
    assert "unhandled" not in run.stderr


def test_an_unknown_option_is_one_sentence(command: Command) -> None:
    run = command("--confg", "x")

    assert run.returncode == 2
    assert "No such option" in last_line(run)


def test_a_closed_pipe_is_one_sentence(space: Simulator, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(settings_for(space)))
    read_end, write_end = os.pipe()
    os.close(read_end)

    run = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "tap_cometly", "--config", str(config)],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write_end)

    assert run.returncode == 1
    assert last_line(run).startswith("The reader of the tap's output went away")
    assert "Traceback" not in run.stderr


def test_the_api_key_is_in_no_output_even_at_debug(command: Command, space: Simulator) -> None:
    space.faults.add("poll", Refuse(echo=True), after=1)

    run = command(config=settings_for(space), env={"TAP_COMETLY_LOGLEVEL": "DEBUG"})

    assert run.returncode == 1
    assert "DEBUG" in run.stderr
    for secret in (API_KEY, "X-Amz-Signature"):
        assert secret not in run.stdout + run.stderr


class TestDiscovery:
    """What the tap tells of itself without any setting."""

    def test_discovery_needs_no_settings(self, command: Command) -> None:
        run = command("--discover")

        assert run.returncode == 0
        (stream,) = json.loads(run.stdout)["streams"]
        assert (stream["tap_stream_id"], stream["key_properties"], stream["replication_key"]) == (
            "contacts",
            ["id"],
            "created_until",
        )

    @pytest.mark.parametrize("emails", [False, True])
    @pytest.mark.parametrize("tokens", [False, True])
    def test_the_catalog_follows_the_settings(
        self, world: World, snapshot: SnapshotAssertion, *, tokens: bool, emails: bool
    ) -> None:
        tap = world.tap(include_comet_tokens=tokens, include_all_emails=emails)

        assert tap.catalog_dict == snapshot(extension_class=JSONSnapshotExtension)

    def test_version(self, command: Command) -> None:
        assert command("--version").stdout.startswith("tap-cometly v")

    def test_about_hides_nothing_but_the_secret(self, command: Command) -> None:
        about = json.loads(command("--about", "--format", "json").stdout)

        assert [
            name
            for name, definition in about["settings"]["properties"].items()
            if definition.get("secret")
        ] == ["api_key"]

    def test_about_in_markdown_lists_every_setting(self, command: Command) -> None:
        text = command("--about", "--format", "markdown").stdout

        assert all(f"| {name} " in text for name in TapCometly.config_jsonschema["properties"])


@pytest.fixture(scope="module")
def suite_space() -> Iterator[Simulator]:
    """A Space for the SDK's own tests."""
    with Simulator(quick_space(), api_port=SUITE_PORT) as simulator:
        yield simulator


def free_port() -> int:
    """A port that nobody listens on: the SDK's tests want their settings before any fixture."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


SUITE_PORT = free_port()
SUITE_CONFIG = {
    "api_key": API_KEY,
    "api_url": f"http://127.0.0.1:{SUITE_PORT}/public-api/v1",
    "start_date": "2024-06-01",
    "end_date": "2024-06-04",
    "include_comet_tokens": True,
    "include_all_emails": True,
}


@pytest.mark.usefixtures("suite_space")
class TestSdkSuite(
    get_tap_test_class(TapCometly, config=SUITE_CONFIG, suite_config=SuiteConfig())  # type: ignore[misc]
):
    """The SDK's standard tests."""
