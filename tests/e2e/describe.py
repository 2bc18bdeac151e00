"""Describes the tap for Meltano, by what `tap-cometly --about` says.

`python -m tests.e2e.describe > plugin.yml` writes the file for `meltano add --from-ref`.
`python -m tests.e2e.describe --hub VARIANT REPO` prints a definition for MeltanoHub.
"""

from __future__ import annotations

import sys
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from tests.about import about, all_settings, kind, own_settings
from tests.e2e.installed import meltano_file

_HEADER = """\
# For projects without the hub: meltano add --from-ref plugin.yml tap-cometly; see docs/recipes/.
# Written by `python -m tests.e2e.describe > plugin.yml`.
"""
_KINDS = {
    "boolean": "boolean",
    "date-time": "string",  # of another kind Meltano makes a date of anything
    "integer": "integer",
    "number": "integer",  # Meltano cannot pass on a decimal from the environment
    "object": "object",
    "string": "string",
    "uri": "string",
}
_HUB = {
    "maintenance_status": "beta",
    "keywords": ["api", "contacts", "marketing", "attribution", "meltano_sdk"],
    "domain_url": "https://www.cometly.com",
    "logo_url": "/assets/logos/extractors/cometly.svg",
    "definition": "extracts every contact of a Cometly Space.",
    "prereq": "A Cometly API key, and the name of the Space's time zone.",
    "next_steps": "Run `meltano config test tap-cometly`: it reads one contact.",
}
"""What a definition for the hub holds besides; docs/logo.svg is submitted with it."""


def plugin() -> dict[str, Any]:
    """The tap as any description has it."""
    return {
        "name": about()["name"],
        "namespace": about()["name"].replace("-", "_"),
        "label": "Cometly",
        "description": about()["description"],
        "executable": about()["name"],
        "capabilities": sorted(about()["capabilities"]),
        "settings_group_validation": [about()["settings"]["required"]],
        "settings": [_setting(name, schema) for name, schema in all_settings().items()],
    }


def for_add() -> dict[str, Any]:
    """For `meltano add --from-ref`; where the tap comes from is the user's to say."""
    return {"plugin_type": "extractors", "pip_url": "${TAP_COMETLY_PIP_URL}", **plugin()}


def for_hub(variant: str, repository: str) -> dict[str, Any]:
    """For MeltanoHub.

    Args:
        variant: Whose the tap is.
        repository: The URL of its public repository.
    """
    origin = {
        "variant": variant,
        "repo": repository,
        "docs": f"{repository}#readme",
        "pip_url": f"git+{repository}.git",
    }
    return plugin() | origin | _HUB


def _setting(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    described = {
        "name": name,
        "kind": _KINDS[kind(schema)],
        "value": schema.get("default"),
        "label": schema["title"],
        "description": _description(name),
        "sensitive": schema.get("secret"),
    }
    return {key: value for key, value in described.items() if value is not None}


def _description(name: str) -> str:
    """The tap's own words, or for a setting of the SDK those of meltano.yml."""
    if name in own_settings():
        return str(own_settings()[name]["description"])
    [extractor] = meltano_file()["plugins"]["extractors"]
    [setting] = [setting for setting in extractor["settings"] if setting["name"] == name]
    return str(setting["description"])


def as_yaml(content: dict[str, Any]) -> str:
    """A description as a file.

    Args:
        content: The description.
    """
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    return text


def main() -> None:
    """Print a description."""
    if sys.argv[1:2] == ["--hub"]:
        sys.stdout.write(as_yaml(for_hub(*sys.argv[2:])))
    else:
        sys.stdout.write(_HEADER + as_yaml(for_add()))


if __name__ == "__main__":
    main()
