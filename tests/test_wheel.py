"""What is installed is whole: a wheel brings its schema, its types and its command along."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built as a release is."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(  # noqa: S603
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel and nothing else of this checkout."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(folder), str(wheel)], check=True)  # noqa: S603
    return folder


def test_the_installed_tap_finds_its_schema(installed: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tap_cometly", "--discover"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )

    schema = json.loads(run.stdout)["streams"][0]["schema"]
    source = json.loads((ROOT / "schemas" / "contacts.json").read_text(encoding="utf-8"))
    optional = {"comet_tokens", "emails"}
    assert set(schema["properties"]) == set(source["properties"]) - optional


def test_the_installed_tap_is_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", "import tap_cometly; print(tap_cometly.__file__)"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert Path(run.stdout.strip()).is_relative_to(installed)


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    names = {Path(name).parts[0] for name in zipfile.ZipFile(wheel).namelist()}

    assert {name for name in names if not name.endswith(".dist-info")} == {"tap_cometly"}


@pytest.mark.parametrize("name", ["tap_cometly/py.typed", "tap_cometly/schemas/contacts.json"])
def test_the_wheel_has_what_is_not_python(wheel: Path, name: str) -> None:
    assert name in zipfile.ZipFile(wheel).namelist()


def test_the_wheel_brings_the_command(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (entry_points,) = [n for n in archive.namelist() if n.endswith("entry_points.txt")]

    assert "tap-cometly = tap_cometly.__main__:main" in archive.read(entry_points).decode()
