"""Meltano's other commands, and files for other tools."""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]

from simulator.faults import Stall
from tests.about import about
from tests.e2e.conftest import FIRST_END, instant_space
from tests.e2e.installed import (
    CHECK_JSONSCHEMA,
    CHECKOUT,
    SINGER_TOOLS,
    clean_environment,
    environment,
    run,
)
from tests.e2e.project import TAP, MeltanoProject
from tests.generate import hub_definition

if TYPE_CHECKING:
    from pathlib import Path

    from simulator import Simulator

DUCKDB = "target-duckdb"
HUB_FIELDS = {
    "capabilities",
    "definition",
    "description",
    "docs",
    "domain_url",
    "executable",
    "keywords",
    "label",
    "logo_url",
    "maintenance_status",
    "name",
    "namespace",
    "next_steps",
    "pip_url",
    "prereq",
    "repo",
    "settings",
    "settings_group_validation",
    "variant",
}
"""A subset of the fields that MeltanoHub's schema for extractors allows."""


def test_meltano_config_test_accepts_valid_settings(project: MeltanoProject) -> None:
    done = project.meltano("config", "test", TAP)

    assert "Plugin configuration is valid" in done.stdout


def test_meltano_config_test_rejects_a_wrong_key(project: MeltanoProject) -> None:
    done = project.meltano("config", "test", TAP, check=False, TAP_COMETLY_API_KEY="wrong")

    assert done.returncode == 1
    assert "Plugin configuration is invalid" in done.stdout + done.stderr


@pytest.mark.parametrize("date", ["2024-13-01", "2O24-01-01", "3 days ago", "03.04.2024"])
def test_a_mistyped_date_reaches_the_tap_unchanged_and_is_rejected(
    project: MeltanoProject, space: Simulator, date: str
) -> None:
    done = project.run("target-jsonl", check=False, TAP_COMETLY_START_DATE=date)

    assert done.returncode == 1
    assert f"Setting 'start_date' is invalid: '{date}'; it must be" in done.stdout + done.stderr
    assert space.requests == []


def test_an_unquoted_date_in_meltano_yml_is_accepted(project: MeltanoProject) -> None:
    del project.settings["TAP_COMETLY_START_DATE"]
    project.edit_extractor(config={"start_date": dt.date(2024, 6, 1)})
    assert "start_date: 2024-06-01\n" in (project.folder / "meltano.yml").read_text("utf-8")

    project.run("target-jsonl")

    assert project.bookmark("target-jsonl") == FIRST_END


def test_meltano_select_lists_the_fields_and_excludes_one(project: MeltanoProject) -> None:
    project.meltano("select", TAP, "contacts", "*")  # an exclusion alone deselects everything
    project.meltano("select", "--exclude", TAP, "contacts", "phone")

    listed = project.meltano("select", "--list", "--all", TAP).stdout

    assert "[automatic  ] contacts.id" in listed
    assert "[excluded   ] contacts.phone" in listed
    assert "[selected   ] contacts.email" in listed


def test_meltano_invoke_prints_the_about_text_of_the_tap(project: MeltanoProject) -> None:
    output = json.loads(project.meltano("invoke", TAP, "--about", "--format=json").stdout)

    for name in ("name", "description", "capabilities", "settings"):
        assert output[name] == about()[name]


def test_the_bookmark_can_be_rewound_with_meltano_state(project: MeltanoProject) -> None:
    state_id = f"dev:{TAP}-to-target-jsonl"
    project.run("target-jsonl")
    state = project.state(state_id)
    bookmark = state["singer_state"]["bookmarks"]["contacts"]
    assert bookmark["replication_key_value"] == FIRST_END

    bookmark["replication_key_value"] = "2024-06-03T04:00:00+00:00"
    project.meltano("state", "set", "--force", state_id, json.dumps(state))

    assert project.bookmark("target-jsonl") == "2024-06-03T04:00:00+00:00"


def test_a_second_run_at_the_same_time_is_rejected(
    project: MeltanoProject, space: Simulator
) -> None:
    space.faults.add("download", Stall(at=100))
    with project.running("target-jsonl") as first_run:
        space.wait_for_requests("download", timeout=60)
        second = project.run("target-jsonl", check=False)
        first_run.kill_tap()

    assert second.returncode == 1
    assert "already running" in second.stdout + second.stderr


def test_plugin_yml_adds_the_tap_to_any_project(project: MeltanoProject) -> None:
    content = project.read()
    [extractor] = content["plugins"].pop("extractors")
    project.write(content)
    plugin_yml = str(CHECKOUT / "plugin.yml")
    (project.folder / ".env").write_text(f"TAP_COMETLY_PIP_URL='{extractor['pip_url']}'\n")

    project.meltano("add", "--no-install", "--from-ref", plugin_yml, TAP)

    done = project.meltano("config", "test", "--no-install", TAP)
    assert "Plugin configuration is valid" in done.stdout


def test_the_hub_definition_has_only_fields_that_the_hub_allows() -> None:
    command = ["-m", "tests.generate", "--hub", "acme", "https://example.com/acme/tap-cometly"]
    printed = yaml.safe_load(run([sys.executable, *command], cwd=CHECKOUT).stdout)

    assert printed == hub_definition("acme", "https://example.com/acme/tap-cometly")
    assert set(printed) == HUB_FIELDS
    assert printed["capabilities"] == sorted(about()["capabilities"])
    assert [setting["name"] for setting in printed["settings"]] == list(
        about()["settings"]["properties"]
    )


def test_the_logo_is_a_square_without_external_references() -> None:
    logo = (CHECKOUT / "docs" / "logo.svg").read_text("utf-8")

    drawn = ET.fromstring(logo)  # noqa: S314 - our own
    assert drawn.attrib["viewBox"] == "0 0 128 128"
    assert not re.search(r"href|script|url\(|data:", logo)


def test_meltano_config_test_rejects_an_empty_space(
    project: MeltanoProject, space: Simulator
) -> None:
    space.reset(instant_space([]))

    done = project.meltano("config", "test", TAP, check=False)

    assert done.returncode == 1
    assert "Plugin configuration is invalid" in done.stdout + done.stderr


def test_meltano_yml_matches_its_schema() -> None:
    program = environment("check-jsonschema", CHECK_JSONSCHEMA) / "bin" / "check-jsonschema"

    run([program, "--builtin-schema", "vendor.meltano", CHECKOUT / "meltano.yml"])


def test_singer_check_tap_accepts_the_output(project: MeltanoProject, tmp_path: Path) -> None:
    messages = project.tap().stdout
    program = environment("singer-tools", SINGER_TOOLS) / "bin" / "singer-check-tap"

    done = run([program], cwd=tmp_path, env=clean_environment(), stdin=messages)

    assert "The output is valid." in done.stdout
    assert "contacts" in done.stdout
