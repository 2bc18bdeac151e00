"""Output of `tap-cometly --about`."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from typing import Any


@functools.cache
def about() -> dict[str, Any]:
    """The output of `--about --format=json`."""
    command = [sys.executable, "-m", "tap_cometly", "--about", "--format=json"]
    printed = subprocess.run(command, check=True, capture_output=True).stdout  # noqa: S603
    content: dict[str, Any] = json.loads(printed)
    return content
