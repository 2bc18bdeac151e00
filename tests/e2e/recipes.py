"""Parses the recipes and follows them: applies their changes and runs their commands."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from tests.e2e.installed import CHECKOUT, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.project import MeltanoProject

RECIPES = CHECKOUT / "docs" / "recipes"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = "# meltano.yml\n"


def sections(page: Path) -> dict[str, str]:
    """The sections of a page by second-level heading; the text before the first one under ""."""
    parts = re.split(r"(?m)^## (.*)\n", "## \n" + page.read_text("utf-8"))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def blocks(page: Path, section: str | None = None) -> list[tuple[str, str]]:
    """The language and text of each fenced block of a page."""
    found: list[tuple[str, str]] = _BLOCK.findall(
        page.read_text("utf-8") if section is None else sections(page)[section]
    )
    return found


def meltano_additions(page: Path, section: str) -> dict[str, Any]:
    """The part of meltano.yml that a section of a page adds."""
    parts = [yaml.safe_load(text) for kind, text in blocks(page, section) if kind == "yaml"]
    whole: dict[str, Any] = functools.reduce(merged, parts, {})
    return whole


def follow(
    page: str,
    project: MeltanoProject,
    *,
    section: str | None = None,
    query: Callable[[str], object] | None = None,
) -> list[str]:
    """Follow a recipe; return the output of each Bash block. Without `query`, SQL is skipped."""
    outputs = []
    for kind, text in blocks(RECIPES / f"{page}.md", section):
        if kind == "yaml" and text.startswith(_FILE):
            project.write(merged(project.read(), yaml.safe_load(text)))
        if kind == "sql" and query:
            query(text)
        if kind == "bash":
            outputs.append(bash(text, project))
    assert outputs
    return outputs


def bash(commands: str, project: MeltanoProject) -> str:
    """Run a Bash block in a project; return its output."""
    script = ["bash", "-euo", "pipefail", "-c", commands]
    return run(script, cwd=project.folder, env=project.environment).stdout


def merged(old: Any, new: Any) -> Any:  # noqa: ANN401
    """Merge a part of meltano.yml into another; plugins are merged by name."""
    if isinstance(old, dict) and isinstance(new, dict):
        together = {name: merged(old.get(name), value) for name, value in new.items()}
        return old | together
    if isinstance(old, list) and isinstance(new, list) and isinstance(new[0], dict):
        by_name = {plugin["name"]: plugin for plugin in old}
        for plugin in new:
            by_name[plugin["name"]] = merged(by_name.get(plugin["name"]), plugin)
        return list(by_name.values())
    return new
