"""README.md and .env.example have every setting as the tap has it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tap_cometly.tap import TapCometly
from tests.about import SDK_SETTINGS, about, kind, own_settings

CHECKOUT = Path(__file__).parent.parent
README = (CHECKOUT / "README.md").read_text("utf-8")
EXAMPLE = (CHECKOUT / ".env.example").read_text("utf-8")
ROWS = {
    name: tuple(cell.strip() for cell in cells.split(" | "))
    for name, cells in re.findall(
        r"(?m)^\| `(\w+)` \| (.+) \|$", README.split("## Settings")[1].split("\n## ")[0]
    )
}
VARIABLES = dict(re.findall(r"(?m)^(?:# )?TAP_COMETLY_(\w+)=(.*)$", EXAMPLE))


def test_readme_lists_every_setting_in_order() -> None:
    assert list(ROWS) == list(own_settings())


@pytest.mark.parametrize("name", own_settings())
def test_readme_describes_setting(name: str) -> None:
    schema = own_settings()[name]
    kind_told, default_told, meaning = ROWS[name]
    words = {"uri": "URL"}.get(kind(schema), kind(schema))
    assert kind_told == words + (", secret" if schema.get("secret") else "")
    assert default_told == default(name, schema)
    assert meaning == schema["description"]


def default(name: str, schema: dict[str, Any]) -> str:
    """A setting's default as the README shows it.

    Args:
        name: The setting.
        schema: Its JSON Schema.

    Returns:
        The value in code, `required` or `none`.
    """
    if name in about()["settings"]["required"]:
        return "required"
    value = schema.get("default")
    if value is None:
        return "none"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def test_readme_names_the_settings_of_the_sdk() -> None:
    assert {name for name in SDK_SETTINGS if f"`{name}`" in README} == SDK_SETTINGS


def test_readme_lists_every_field_of_the_stream_in_order() -> None:
    schema = json.loads((CHECKOUT / "schemas" / "contacts.json").read_text("utf-8"))
    table = README.split("## The stream `contacts`")[1].split("\n## ")[0]
    cells = [row.split(" | ")[0] for row in re.findall(r"(?m)^\| (`.+) \|$", table)]

    assert re.findall(r"`(\w+)`", " ".join(cells)) == list(schema["properties"])


def test_readme_names_only_files_that_there_are() -> None:
    names = re.findall(r"`((?:\w+/)+(?:\w+\.\w+)?|\.?\w+\.(?:py|sh|yml|example))`", README)
    assert names
    made_by_a_run = {"output/cometly.duckdb"}
    missing = [name for name in {*names} - made_by_a_run if not (CHECKOUT / name).exists()]
    assert missing == []


def test_example_has_every_setting() -> None:
    assert sorted(VARIABLES) == sorted(name.upper() for name in own_settings())


def test_example_is_taken_once_the_key_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(f"TAP_COMETLY_{name}", value or "a-key")
    config = TapCometly(parse_env_config=True).config
    for name, schema in own_settings().items():
        if name in {"timezone", "lookback_days", "max_concurrent_exports", "api_url"}:
            assert config[name] == schema["default"], f".env.example, {name}"


def test_example_sets_only_what_everybody_needs() -> None:
    needed = re.findall(r"(?m)^TAP_COMETLY_(\w+)=", EXAMPLE)
    assert needed == ["API_KEY", "START_DATE", "TIMEZONE"]
