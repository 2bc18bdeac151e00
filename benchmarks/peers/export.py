"""Shared by most peers: creates an export, waits for it and opens its file."""

from __future__ import annotations

import argparse
import json
import time
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import requests

if TYPE_CHECKING:
    from collections.abc import Mapping

_TIMEOUT_SECONDS = 60
_POLL_SECONDS = 0.1


def read_config() -> dict[str, Any]:
    """Read the tap's settings from the file that `--config` names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    arguments, _ = parser.parse_known_args()
    config: dict[str, Any] = json.loads(arguments.config.read_bytes())
    return config


def open_export(config: Mapping[str, Any]) -> IO[bytes]:
    """Create an export, wait for it, and open the gzip file; both dates must be in UTC."""
    url = f"{config['api_url']}/contacts/exports"
    headers = {"Authorization": f"Bearer {config['api_key']}"}
    body = {
        "start_date": _wall_clock(config["start_date"]),
        "end_date": _wall_clock(config["end_date"]),
        "include_comet_tokens": int(config.get("include_comet_tokens", False)),
        "include_all_emails": int(config.get("include_all_emails", False)),
    }
    created = requests.post(url, json=body, headers=headers, timeout=_TIMEOUT_SECONDS)
    created.raise_for_status()
    poll_url = f"{url}/{created.json()['export_id']}"
    while True:
        response = requests.get(poll_url, headers=headers, timeout=_TIMEOUT_SECONDS)
        response.raise_for_status()
        if response.json()["status"] == "completed":
            break
        time.sleep(_POLL_SECONDS)
    file = requests.get(response.json()["download_url"], stream=True, timeout=_TIMEOUT_SECONDS)
    file.raise_for_status()
    return cast("IO[bytes]", file.raw)


def window_fields(config: Mapping[str, Any]) -> dict[str, str]:
    """The two fields that the tap adds to each contact."""
    return {
        "created_from": datetime.fromisoformat(config["start_date"]).isoformat(),
        "created_until": datetime.fromisoformat(config["end_date"]).isoformat(),
    }


def _wall_clock(text: str) -> str:
    return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S")
