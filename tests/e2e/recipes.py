"""Reads the recipes: which files they change and which commands they run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from tests.e2e.installed import CHECKOUT, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.project import MeltanoProject

RECIPES = CHECKOUT / "docs" / "recipes"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = "# meltano.yml\n"


def blocks(page: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a page: kind and text.

    Args:
        page: A Markdown file.
    """
    return _BLOCK.findall(page.read_text("utf-8"))


def follow(page: str, project: MeltanoProject) -> list[str]:
    """Do what a recipe says, in order.

    Args:
        page: Its name, without `.md`.
        project: Where.

    Returns:
        What each block of commands printed.
    """
    printed = []
    for kind, text in blocks(RECIPES / f"{page}.md"):
        if kind == "yaml" and text.startswith(_FILE):
            project.write(merged(project.read(), yaml.safe_load(text)))
        if kind == "bash":
            printed.append(bash(text, project))
    assert printed
    return printed


def bash(commands: str, project: MeltanoProject) -> str:
    """Do what a block says.

    Args:
        commands: Lines for bash.
        project: Where.

    Returns:
        What they printed.
    """
    script = ["bash", "-euo", "pipefail", "-c", commands]
    return run(script, cwd=project.folder, env=project.environment).stdout


def merged(old: Any, new: Any) -> Any:  # noqa: ANN401
    """Put a part of a meltano.yml into a whole one, as a user would.

    Args:
        old: The whole, or a piece of it.
        new: The part; plugins go by name, anything else replaces what is there.

    Returns:
        The whole with the part.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        together = {name: merged(old.get(name), value) for name, value in new.items()}
        return old | together
    if isinstance(old, list) and isinstance(new, list) and isinstance(new[0], dict):
        by_name = {plugin["name"]: plugin for plugin in old}
        for plugin in new:
            by_name[plugin["name"]] = merged(by_name.get(plugin["name"]), plugin)
        return list(by_name.values())
    return new
