"""Pages: links, generated files, commands in the README, the table of dependencies."""

from __future__ import annotations

import importlib.util
import os
import re
import tomllib
from typing import TYPE_CHECKING

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]

from tap_cometly.tap import TapCometly
from tests.generate import ROOT, SDK_SETTINGS, extractor, generated

if TYPE_CHECKING:
    from pathlib import Path

PAGES = sorted(
    page for glob in ("*", "docs/**/*", "benchmarks/*") for page in ROOT.glob(f"{glob}.md")
)
README = (ROOT / "README.md").read_text("utf-8")
MELTANO_YML = (ROOT / "meltano.yml").read_text("utf-8")
PLUGINS = {
    plugin["name"]
    for plugins in yaml.safe_load(MELTANO_YML)["plugins"].values()
    for plugin in plugins
}
OPTIONS = {option for param in TapCometly.get_singer_command().params for option in param.opts}


def headings(page: Path) -> set[str]:
    """The anchors of a page."""
    found = re.findall(r"(?m)^#+ (.+)$", page.read_text("utf-8"))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


def commands(page: str) -> list[str]:
    """The lines of a page's code blocks that run something of this repository."""
    blocks = re.findall(r"(?ms)^```bash\n(.*?)^```$", page) + re.findall(r"(?m)^    (.+)$", page)
    lines = [re.sub(r"\s+#.*", "", line) for block in blocks for line in block.splitlines()]
    return [line for line in lines if re.match(r"\./|(meltano|tap-cometly|\S+ -m) ", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_has_an_existing_file_and_heading(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if not link.startswith("http"):
            path, _, heading = link.partition("#")
            target = (page.parent / path) if path else page
            assert target.exists(), link
            assert not heading or heading in headings(target), link


@pytest.mark.parametrize("name", generated())
def test_generated_files_are_up_to_date(name: str) -> None:
    written = (ROOT / name).read_text("utf-8")

    assert written == generated()[name], "run `python -m tests.generate`"


def test_meltano_yml_and_the_tap_agree_beyond_the_settings() -> None:
    entry = extractor(MELTANO_YML)

    assert entry["capabilities"] == sorted(each.value for each in TapCometly.capabilities)
    assert entry["settings_group_validation"] == [TapCometly.config_jsonschema["required"]]
    TapCometly.append_builtin_config(TapCometly.config_jsonschema)
    assert TapCometly.config_jsonschema["properties"].keys() >= SDK_SETTINGS.keys()


@pytest.mark.parametrize("command", commands(README))
def test_a_command_in_the_readme_exists(command: str) -> None:
    program, *arguments = command.split()

    if program.startswith("./"):
        assert os.access(ROOT / program, os.X_OK)
    elif arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1])
    elif program == "meltano":
        assert {word for word in arguments if word.startswith(("tap-", "target-"))} <= PLUGINS
    else:
        assert {word for word in arguments if word.startswith("--")} <= OPTIONS


def test_contributing_has_a_row_for_each_dependency() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    declared = [re.split(r"[^\w-]", line)[0] for line in project["dependencies"]]
    assert re.findall(r"(?m)^`([\w-]+)` \|", contributing.split("## Dependencies")[1]) == declared
