"""The tap and a target without Meltano: a pipe, and the state in a file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.e2e.installed import plugin_program, run

if TYPE_CHECKING:
    from tests.e2e.destinations import Destination
    from tests.e2e.project import MeltanoProject


def pipe(project: MeltanoProject, destination: Destination, *, primary_key: bool = True) -> None:
    """Run `tap-cometly --state state.json | target >> states; tail -1 states > state.json`."""
    state = project.folder / "state.json"
    messages = project.tap(*(["--state", str(state)] if state.exists() else [])).stdout
    if not primary_key:
        messages = messages.replace('"key_properties":["id"]', '"key_properties":[]')
        assert '"key_properties":[]' in messages
    config = project.folder / "target.json"
    config.write_text(json.dumps(destination.config), "utf-8")
    target = [plugin_program(destination.loader, destination.loader), "--config", config]
    states = run(target, cwd=project.folder, env=project.environment, stdin=messages).stdout
    state.write_text(states.splitlines()[-1], "utf-8")
