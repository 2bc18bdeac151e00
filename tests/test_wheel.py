"""The sdist and the wheel of a release are complete."""

from __future__ import annotations

import email
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tap_cometly.settings import OPTIONAL_FIELDS

if TYPE_CHECKING:
    from email.message import Message

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def build(what: str, source: Path, folder: Path) -> Path:
    """Build a distribution with the installed backend, without the network.

    Args:
        what: `sdist` or `wheel`.
        source: The folder to build from.
        folder: The folder for the result.

    Returns:
        The file.
    """
    options = ["--no-isolation", f"--{what}", "--outdir", str(folder)]
    subprocess.run(  # noqa: S603
        [sys.executable, "-m", "build", *options, str(source)], check=True, capture_output=True
    )
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of this checkout."""
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked sdist."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (top,) = folder.iterdir()
    return top


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist as a release is."""
    return build("wheel", unpacked, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the installed wheel."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(folder), str(wheel)], check=True)  # noqa: S603
    return folder


def about(wheel: Path, name: str) -> str:
    """The text of a file in the wheel's `.dist-info`.

    Args:
        wheel: The wheel.
        name: The name of the file.
    """
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [n for n in archive.namelist() if n.endswith(f".dist-info/{name}")]
        return archive.read(path).decode()


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """The metadata of the wheel."""
    return email.message_from_string(about(wheel, "METADATA"))


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
    assert set(schema["properties"]) == source["properties"].keys() - OPTIONAL_FIELDS.keys()


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
    names = zipfile.ZipFile(wheel).namelist()

    modules = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("tap_cometly/*.py")}
    extras = {"tap_cometly/py.typed", "tap_cometly/schemas/contacts.json"}
    assert {name for name in names if ".dist-info/" not in name} == modules | extras


def test_the_wheel_has_the_command(wheel: Path) -> None:
    assert "tap-cometly = tap_cometly.__main__:main" in about(wheel, "entry_points.txt")


def test_the_wheel_has_the_license(wheel: Path, metadata: Message) -> None:
    assert metadata["License-Expression"] == PROJECT["license"]
    assert about(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text("utf-8")


def test_the_wheels_metadata_matches_pyproject(metadata: Message) -> None:
    def named(requirement: str) -> str:
        return re.split(r"[^\w-]", requirement)[0]

    assert metadata["Name"] == PROJECT["name"]
    assert metadata["Summary"] == PROJECT["description"]
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert metadata.get_all("Classifier") == PROJECT["classifiers"]
    assert metadata.get_all("Provides-Extra") == list(PROJECT["optional-dependencies"])
    required = [
        named(line) for line in metadata.get_all("Requires-Dist", []) if "extra" not in line
    ]
    assert required == [named(line) for line in PROJECT["dependencies"]]
    urls = [f"{label}, {url}" for label, url in PROJECT.get("urls", {}).items()]
    assert metadata.get_all("Project-URL", []) == urls
    assert metadata.get_payload() == (ROOT / "README.md").read_text("utf-8")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_the_sdist_has_the_whole_repository_and_nothing_else(unpacked: Path) -> None:
    def listed(*options: str) -> set[str]:
        command = ["git", "-C", str(ROOT), "ls-files", "-z", *options]
        answer = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
        return {name for name in answer.stdout.split("\0") if name and (ROOT / name).exists()}

    files = [path for path in unpacked.rglob("*") if path.is_file()]
    names = {path.relative_to(unpacked).as_posix() for path in files}
    assert listed() - names == set()
    assert names - listed("--cached", "--others", "--exclude-standard") == {"PKG-INFO"}


def test_twine_accepts_sdist_and_wheel(sdist: Path, wheel: Path) -> None:
    twine = [sys.executable, "-m", "twine", "check", "--strict"]
    check = subprocess.run(  # noqa: S603
        [*twine, str(sdist), str(wheel)], capture_output=True, text=True, check=False
    )

    assert check.returncode == 0, check.stdout + check.stderr
