"""Discovery, `--version`, `--about`, `--test`, and the SDK's standard tests."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
from singer_sdk.testing import SuiteConfig, get_tap_test_class
from syrupy.extensions.json import JSONSnapshotExtension

from simulator import Population, Simulator, Space
from simulator.faults import Reset
from tap_cometly.tap import TapCometly
from tests.conftest import API_KEY, DAY, HOUR, JUNE, NOON, contact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syrupy.assertion import SnapshotAssertion

    from tests.conftest import Command, World

OPTIONAL = {"include_comet_tokens": "comet_tokens", "include_all_emails": "emails"}
ALL_ON: dict[str, Any] = dict.fromkeys(OPTIONAL, True)


def test_discovery_needs_no_valid_settings(command: Command) -> None:
    result = command("--discover", config={"start_date": "yesterday"})

    assert result.exit_code == 0
    (stream,) = json.loads(result.stdout)["streams"]
    assert (stream["tap_stream_id"], stream["key_properties"]) == ("contacts", ["id"])


def test_discovery_writes_the_expected_catalog(world: World, snapshot: SnapshotAssertion) -> None:
    assert world.tap(**ALL_ON).catalog_dict == snapshot(extension_class=JSONSnapshotExtension)


@pytest.mark.parametrize("names", [[], ["include_comet_tokens"], ["include_all_emails"]])
def test_the_catalog_has_an_optional_field_exactly_when_its_setting_is_on(
    world: World, names: list[str]
) -> None:
    settings = {name: ALL_ON[name] for name in names}
    (stream,) = world.tap(**settings).catalog_dict["streams"]

    fields = {item["breadcrumb"][-1] for item in stream["metadata"] if item["breadcrumb"]}
    assert fields == {*stream["schema"]["properties"]}
    assert fields & {*OPTIONAL.values()} == {OPTIONAL[name] for name in names}


def test_the_version_is_that_of_the_package(command: Command) -> None:
    assert command("--version").stdout.startswith(f"tap-cometly v{version('tap-cometly')},")


def test_about_lists_every_setting_and_marks_the_key_as_secret(command: Command) -> None:
    settings = json.loads(command("--about", "--format", "json").stdout)["settings"]["properties"]
    markdown = command("--about", "--format", "markdown").stdout

    assert [name for name, schema in settings.items() if schema.get("secret")] == ["api_key"]
    assert settings.keys() >= TapCometly.config_jsonschema["properties"].keys()
    assert [name for name in settings if f"| {name} " not in markdown] == []


@pytest.mark.parametrize(
    ("created", "days"), [(NOON - HOUR, [1]), (NOON - 5 * DAY, [1, 10]), (JUNE + HOUR, [1, 10, 20])]
)
def test_connection_test_searches_for_the_newest_contact_in_steps_that_grow_tenfold(
    world: World, caplog: pytest.LogCaptureFixture, created: datetime, days: list[int]
) -> None:
    caplog.set_level("INFO")
    world.fill([contact(1, created), contact(2, created), contact(3, JUNE)])

    run = world.sync(act=TapCometly.run_connection_test, window_days=0.1)

    assert [message["type"] for message in run.messages] == ["SCHEMA", "RECORD"]
    assert [round((end - start) / DAY) for start, end in world.windows()] == days
    assert len(world.requests("download")) == len(days)
    assert caplog.messages[-1] == "Test passed: the settings work, and a contact was read"


def test_connection_test_emits_the_first_contact_that_the_stream_map_keeps(world: World) -> None:
    world.fill([contact(number, NOON - HOUR) for number in (1, 2, 3)])
    keep_two = {"contacts": {"__filter__": "id == 2"}}

    run = world.sync(act=TapCometly.run_connection_test, stream_maps=keep_two)

    assert [record["id"] for record in run.records] == [2]


def test_connection_test_survives_an_outage_after_its_first_step(world: World) -> None:
    world.simulator.faults.add("create", Reset(), times=8, after=1)

    assert world.sync(act=TapCometly.run_connection_test).error is None


def test_connection_test_passes_for_a_range_without_contacts(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    run = world.sync(act=TapCometly.run_connection_test, start_date="1900-01-01T00:00:00Z")

    assert (run.error, [message["type"] for message in run.messages]) == (None, ["SCHEMA"])
    end = "Test passed: the settings work; the range has no contacts to emit"
    assert caplog.messages[-1] == end
    assert world.windows()[0][1] > NOON - HOUR
    assert world.windows()[-1][0] == datetime(1900, 1, 1, tzinfo=UTC)


def free_port() -> int:
    """A free port; the SDK's tests need their settings before any fixture runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


SUITE_PORT = free_port()


@pytest.fixture(scope="module")
def suite_space() -> Iterator[None]:
    """A Space in real time for the SDK's standard tests."""
    people = Population.generate(50, since=JUNE, until=JUNE + 2 * DAY)
    with Simulator(
        Space(people, api_key=API_KEY, queued_seconds=0, processing_seconds=0), api_port=SUITE_PORT
    ):
        yield


@pytest.mark.usefixtures("suite_space")
class TestSdkSuite(
    get_tap_test_class(  # type: ignore[misc]
        TapCometly,
        config={
            "api_key": API_KEY,
            "api_url": f"http://127.0.0.1:{SUITE_PORT}/public-api/v1",
            "start_date": "2024-06-01",
            "end_date": "2024-06-04",
            **ALL_ON,
        },
        suite_config=SuiteConfig(),
    )
):
    """The SDK's standard tests."""
