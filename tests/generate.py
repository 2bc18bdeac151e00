"""Writes all files that repeat settings or fields: `python -m tests.generate`.

Settings come from `tap_cometly/tap.py`, fields from `schemas/contacts.json`. They are written to
the tables in `README.md`, to `.env.example` and to the extractor in `meltano.yml`; `plugin.yml` is
written from that extractor.

`python -m tests.generate --hub VARIANT REPOSITORY` prints a definition for MeltanoHub.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from tap_cometly.contacts import WINDOW_FIELDS
from tap_cometly.settings import OPTIONAL_FIELDS
from tap_cometly.streams import ContactsStream
from tap_cometly.tap import TapCometly

ROOT = Path(__file__).parent.parent
SDK_SETTINGS = {
    "stream_maps": (
        "object",
        "Stream maps",
        "Renames, drops or hashes fields, and filters records.",
    ),
    "stream_map_config": ("object", "Stream map values", "Values for stream map expressions."),
    "faker_config": (
        "object",
        "Faker",
        "Seed and locale of `fake` in stream map expressions. Needs the package `faker`.",
    ),
    "flattening_enabled": ("boolean", "Flatten", "Turns nested properties into columns."),
    "flattening_max_depth": ("integer", "Flattening depth", "How many levels to flatten."),
    "flattening_max_key_length": (
        "integer",
        "Flattened name length",
        "Maximum length of a flattened property's name.",
    ),
    "flattening_separator": (
        "string",
        "Flattening separator",
        "Separates the parts of a flattened property's name.",
    ),
    "batch_config": (
        "object",
        "Batch files",
        "Encoding and storage of batch files, for targets that read BATCH messages.",
    ),
}
"""Kind, label and description, which differ between versions of the SDK."""

_KINDS = {
    "date-time": "string",  # Meltano would parse a date, and accept "3 days ago"
    "number": "integer",  # Meltano cannot pass on a decimal from the environment
    "uri": "string",
}
_EXAMPLES = {"start_date": "2024-01-01", "end_date": "2025-01-01", "window_days": "30"}
_ALWAYS_NEEDED = {"api_key", "start_date", "timezone"}
_HUB: dict[str, Any] = {
    "maintenance_status": "beta",
    "keywords": ["api", "contacts", "marketing", "attribution", "meltano_sdk"],
    "domain_url": "https://www.cometly.com",
    "logo_url": "/assets/logos/extractors/cometly.svg",
    "definition": "extracts every contact of a Cometly Space.",
    "prereq": "A Cometly API key, and the name of the Space's time zone.",
    "next_steps": "Run `meltano config test tap-cometly`: it reads one contact.",
}
"""Keys that only the definition for MeltanoHub has; docs/logo.svg is submitted with it."""


def own_settings() -> dict[str, dict[str, Any]]:
    """The JSON Schema of each of the tap's own settings."""
    properties: dict[str, dict[str, Any]] = TapCometly.config_jsonschema["properties"]
    return {name: schema for name, schema in properties.items() if name not in SDK_SETTINGS}


def generated() -> dict[str, str]:
    """The content of each generated file, by its name in the repository."""
    meltano_yml = _with_settings((ROOT / "meltano.yml").read_text("utf-8"))
    readme = (ROOT / "README.md").read_text("utf-8")
    readme = _between_markers(readme, "settings", _settings_table())
    readme = _between_markers(readme, "fields", _fields_table())
    return {
        ".env.example": _env_example(),
        "README.md": readme,
        "meltano.yml": meltano_yml,
        "plugin.yml": _plugin_yml(extractor(meltano_yml)),
    }


def extractor(meltano_yml: str) -> dict[str, Any]:
    """The tap's entry in a `meltano.yml`."""
    [entry] = yaml.safe_load(meltano_yml)["plugins"]["extractors"]
    return dict(entry)


def hub_definition(variant: str, repository: str) -> dict[str, Any]:
    """The tap's definition for MeltanoHub.

    Args:
        variant: The name of the variant.
        repository: The URL of its public repository.
    """
    entry = extractor((ROOT / "meltano.yml").read_text("utf-8"))
    origin = {
        "variant": variant,
        "repo": repository,
        "docs": f"{repository}#readme",
        "pip_url": f"git+{repository}.git",
    }
    return _HUB | entry | origin


def _kind(schema: dict[str, Any]) -> str:
    [json_type] = set(schema["type"]) - {"null"}
    return str(schema.get("format", json_type))


def _table(*rows: tuple[str, ...]) -> str:
    head, *body = [" | ".join(row).rstrip() + "\n" for row in rows]
    return head + " | ".join(["---"] * len(rows[0])) + "\n" + "".join(body)


def _settings_table() -> str:
    required = TapCometly.config_jsonschema["required"]
    rows = []
    for name, schema in own_settings().items():
        kind = _kind(schema).replace("uri", "URL") + (", secret" if schema.get("secret") else "")
        default = schema.get("default")
        shown = default if isinstance(default, str) else json.dumps(default)
        default = "required" if name in required else "" if default is None else f"`{shown}`"
        rows.append((f"`{name}`", kind, default, schema["description"]))
    return _table(("setting", "type", "default", "meaning"), *rows)


def _fields_table() -> str:
    """Fields with the same type and note share a row."""
    schema = json.loads((ROOT / "schemas" / "contacts.json").read_text("utf-8"))
    rows: dict[tuple[str, str], list[str]] = {}
    for name, definition in schema["properties"].items():
        [kind] = set(definition["type"]) - {"null"}
        kind = {"array": "array of strings"}.get(kind, definition.get("format", kind))
        nullable = " or null" if "null" in definition["type"] else ""
        rows.setdefault((kind + nullable, _note(name, definition)), []).append(f"`{name}`")
    return _table(
        ("field", "type", "note"),
        *((", ".join(names), kind, note) for (kind, note), names in rows.items()),
    )


def _note(field: str, definition: dict[str, Any]) -> str:
    if field in ContactsStream.primary_keys:
        return "primary key"
    if field in WINDOW_FIELDS:
        return "export window in which the contact was created, UTC"
    setting = OPTIONAL_FIELDS.get(field)
    return f"{definition['description']} Requires `{setting}`." if setting else ""


def _between_markers(text: str, name: str, content: str) -> str:
    begin, end = f"<!-- generated: {name} -->\n", "<!-- end -->"
    before, marker, rest = text.partition(begin)
    assert marker, f"README.md has no marker {begin}"
    _, marker, after = rest.partition(end)
    assert marker, f"README.md has no marker {end} after {begin}"
    return before + begin + "\n" + content + "\n" + end + after


def _env_example() -> str:
    text = (
        "# The tap's settings as environment variables. Copy to `.env`, which Meltano reads.\n"
        "# Generated by `python -m tests.generate`.\n"
    )
    for name, schema in own_settings().items():
        default = schema.get("default", "")
        value = _EXAMPLES.get(name, default if isinstance(default, str) else json.dumps(default))
        description = textwrap.fill(
            schema["description"], 98, initial_indent="# ", subsequent_indent="# "
        )
        comment = "" if name in _ALWAYS_NEEDED else "# "
        text += f"\n{description}\n{comment}TAP_COMETLY_{name.upper()}={value}\n"
    return text


def _meltano_settings() -> list[dict[str, Any]]:
    own = [
        {
            "name": name,
            "kind": _KINDS.get(_kind(schema), _kind(schema)),
            "value": schema.get("default"),
            "label": schema["title"],
            "description": schema["description"],
            "sensitive": schema.get("secret"),
        }
        for name, schema in own_settings().items()
    ]
    sdk = [
        {"name": name, "kind": kind, "label": label, "description": description}
        for name, (kind, label, description) in SDK_SETTINGS.items()
    ]
    return [
        {key: value for key, value in setting.items() if value is not None}
        for setting in [*own, *sdk]
    ]


def _as_yaml(content: object, width: int = 100) -> str:
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=width)
    return text


def _with_settings(meltano_yml: str) -> str:
    """Replace the extractor's list of settings; keep every other line."""
    found = re.search(
        r"(?m)^  - name: tap-cometly\n(?:    .*\n)*?    settings:\n(?P<list>(?:    [- ].*\n)+)",
        meltano_yml,
    )
    assert found, "meltano.yml has no settings of tap-cometly"
    settings = textwrap.indent(_as_yaml(_meltano_settings(), width=96), "    ")
    return meltano_yml[: found.start("list")] + settings + meltano_yml[found.end("list") :]


def _plugin_yml(entry: dict[str, Any]) -> str:
    content = {"plugin_type": "extractors", **entry, "pip_url": "${TAP_COMETLY_PIP_URL}"}
    head = (
        "# For `meltano add --from-ref`; see docs/recipes/README.md.\n"
        "# Generated by `python -m tests.generate`.\n"
    )
    return head + _as_yaml(content)


def main() -> None:
    """Write the files, or print a definition for MeltanoHub."""
    if sys.argv[1:2] == ["--hub"]:
        sys.stdout.write(_as_yaml(hub_definition(*sys.argv[2:])))
        return
    for name, text in generated().items():
        (ROOT / name).write_text(text, "utf-8", newline="\n")


if __name__ == "__main__":
    main()
