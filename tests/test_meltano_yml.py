"""meltano.yml describes the tap as the tap describes itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]

from tests.about import about, all_settings, kind, own_settings

PROJECT = yaml.safe_load((Path(__file__).parent.parent / "meltano.yml").read_text("utf-8"))
[EXTRACTOR] = PROJECT["plugins"]["extractors"]
SETTINGS: dict[str, dict[str, Any]] = {
    setting["name"]: setting for setting in EXTRACTOR["settings"]
}
KINDS = {
    "boolean": "boolean",
    "date-time": "string",  # of another kind Meltano makes a date of anything
    "integer": "integer",
    "number": "integer",  # Meltano cannot pass on a decimal from the environment
    "object": "object",
    "string": "string",
    "uri": "string",
}


def test_project_needs_no_hub_and_tells_nobody() -> None:
    assert "version" not in PROJECT
    assert PROJECT["requires_meltano"] == ">=4.0"
    assert PROJECT["send_anonymous_usage_stats"] is False
    for plugins in PROJECT["plugins"].values():
        for plugin in plugins:
            assert plugin["namespace"] == plugin["name"].replace("-", "_")
            assert plugin["executable"] == plugin["name"]


def test_extractor_is_this_checkout() -> None:
    assert EXTRACTOR["name"] == about()["name"]
    assert EXTRACTOR["description"] == about()["description"]
    assert EXTRACTOR["pip_url"] == "-e ."


def test_capabilities() -> None:
    assert EXTRACTOR["capabilities"] == sorted(about()["capabilities"])


def test_settings_are_all_there_in_order() -> None:
    assert list(SETTINGS) == list(all_settings())
    assert EXTRACTOR["settings_group_validation"] == [about()["settings"]["required"]]


@pytest.mark.parametrize("name", all_settings())
def test_setting(name: str) -> None:
    setting, schema = SETTINGS[name], all_settings()[name]
    assert setting["kind"] == KINDS[kind(schema)]
    assert setting["label"] == schema["title"]
    assert setting.get("value") == schema.get("default")
    assert setting.get("sensitive", False) is schema.get("secret", False)


@pytest.mark.parametrize("name", own_settings())
def test_description(name: str) -> None:
    assert SETTINGS[name]["description"] == own_settings()[name]["description"]


@pytest.mark.parametrize("loader", PROJECT["plugins"]["loaders"], ids=lambda loader: loader["name"])
def test_loaders_are_pinned_and_load_into_a_schema_of_the_tap(loader: dict[str, Any]) -> None:
    assert re.match(r"[a-z-]+==[0-9.]+( |$)", loader["pip_url"])
    values = {setting["name"]: setting.get("value") for setting in loader["settings"]}
    if loader["name"] != "target-jsonl":
        assert values["default_target_schema"] == "$MELTANO_EXTRACT__LOAD_SCHEMA"
