"""What `tap-cometly --about` says: the tests hold the documents against it."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from typing import Any

SDK_SETTINGS = {
    "batch_config",
    "faker_config",
    "flattening_enabled",
    "flattening_max_depth",
    "flattening_max_key_length",
    "flattening_separator",
    "stream_map_config",
    "stream_maps",
}
"""Settings that come with the Singer SDK, and are described there."""


@functools.cache
def about() -> dict[str, Any]:
    """All of it."""
    command = [sys.executable, "-m", "tap_cometly", "--about", "--format=json"]
    answer = subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    told: dict[str, Any] = json.loads(answer.stdout)
    return told


def all_settings() -> dict[str, dict[str, Any]]:
    """The JSON Schema of each setting, by name."""
    schemas: dict[str, dict[str, Any]] = about()["settings"]["properties"]
    return schemas


def own_settings() -> dict[str, dict[str, Any]]:
    """Those that are the tap's own."""
    return {name: schema for name, schema in all_settings().items() if name not in SDK_SETTINGS}


def kind(schema: dict[str, Any]) -> str:
    """A setting's type in one word.

    Args:
        schema: Its JSON Schema.

    Returns:
        The format, or else the JSON type.
    """
    [json_type] = set(schema["type"]) - {"null"}
    return str(schema.get("format", json_type))
