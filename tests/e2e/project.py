"""A Meltano project of a test's own: the checkout's meltano.yml, no state, installed plugins."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from tests.e2e.installed import meltano, meltano_file, meltano_project, plugin_program, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TAP = "tap-cometly"


class MeltanoProject:
    """A project in a folder of its own.

    Attributes:
        folder: The project's folder.
        settings: Environment variables that every command gets.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        """Lay it out.

        Args:
            folder: For the project; it is not there yet.
            **settings: Environment variables.
        """
        self.folder = folder
        self.settings = settings
        installed = meltano_project() / ".meltano"
        (folder / ".meltano").mkdir(parents=True)
        (folder / "output").mkdir()
        (folder / "tmp").mkdir()
        shutil.copy(installed / "meltano.db", folder / ".meltano")
        for kind in ("extractors", "loaders"):
            (folder / ".meltano" / kind).symlink_to(installed / kind)
        self.write(meltano_file())

    def read(self) -> dict[str, Any]:
        """What meltano.yml holds."""
        content: dict[str, Any] = yaml.safe_load((self.folder / "meltano.yml").read_text("utf-8"))
        return content

    def write(self, content: dict[str, Any]) -> None:
        """Write meltano.yml.

        Args:
            content: What it is to hold.
        """
        text = yaml.safe_dump(content, sort_keys=False)
        (self.folder / "meltano.yml").write_text(text, "utf-8")

    def edit_extractor(self, **keys: Any) -> None:
        """Change the extractor's entry in meltano.yml, as a user would.

        Args:
            **keys: What it is to hold besides.
        """
        content = self.read()
        content["plugins"]["extractors"][0].update(keys)
        self.write(content)

    @property
    def environment(self) -> dict[str, str]:
        """All environment variables of its commands: nothing of the tests' own but the path."""
        return {
            "PATH": f"{meltano().parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.folder / "tmp"),
            "TMPDIR": str(self.folder / "tmp"),
            "PYTHONUTF8": "1",
            "MELTANO_AUTO_INSTALL": "false",  # all is there, and nothing else is to be fetched
            "MELTANO_CLI_LOG_FORMAT": "uncolored",
            **self.settings,
        }

    def meltano(
        self, *arguments: str, check: bool = True, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run Meltano.

        Args:
            *arguments: Its arguments.
            check: Whether it has to succeed.
            **settings: More environment variables.

        Returns:
            What it printed, and its exit code.
        """
        return run(
            [meltano(), *arguments],
            cwd=self.folder,
            env=self.environment | settings,
            check=check,
        )

    def run(
        self, loader: str, *options: str, check: bool = True, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Do `meltano run tap-cometly …`.

        Args:
            loader: Where to.
            *options: Of `meltano run`.
            check: Whether it has to succeed.
            **settings: More environment variables.

        Returns:
            What it printed, and its exit code.
        """
        return self.meltano("run", *options, TAP, loader, check=check, **settings)

    @contextlib.contextmanager
    def killing_tap(self, loader: str, **settings: str) -> Iterator[KillableRun]:
        """Do `meltano run tap-cometly …` so that the tap can be killed.

        Args:
            loader: Where to.
            **settings: More environment variables.

        Yields:
            The run; it is over afterwards.
        """
        pid_file, script = self.folder / "tap.pid", self.folder / "tap"
        script.write_text(
            f'#!/bin/sh\necho $$ >"{pid_file}"\nexec {plugin_program(TAP, TAP)} "$@"\n'
        )
        script.chmod(0o755)
        before = self.read()
        self.edit_extractor(executable=str(script))
        process = subprocess.Popen(  # noqa: S603
            [meltano(), "run", TAP, loader],
            cwd=self.folder,
            env=self.environment | settings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield KillableRun(process, pid_file)
        finally:
            process.wait()
            self.write(before)

    def state(self, state_id: str) -> dict[str, Any]:
        """What Meltano keeps under a state's id.

        Args:
            state_id: Such as `dev:tap-cometly-to-target-duckdb`.
        """
        state: dict[str, Any] = json.loads(self.meltano("state", "get", state_id).stdout)
        return state

    def bookmark(self, loader: str) -> str | None:
        """The bookmark that Meltano keeps for a loader.

        Args:
            loader: Its name.

        Returns:
            The time, or None if there is no bookmark.
        """
        state = self.state(f"dev:{TAP}-to-{loader}").get("singer_state", {})
        value: str | None = (
            state.get("bookmarks", {}).get("contacts", {}).get("replication_key_value")
        )
        return value

    def tap(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the tap by itself, with the project's settings from the environment.

        Args:
            *arguments: Its arguments, besides `--config`.
            check: Whether it has to succeed.

        Returns:
            What it printed, and its exit code.
        """
        return run(
            [plugin_program(TAP, TAP), "--config=ENV", *arguments],
            cwd=self.folder,
            env=self.environment,
            check=check,
        )


class KillableRun:
    """A run of Meltano that goes on."""

    def __init__(self, process: subprocess.Popen[bytes], pid_file: Path) -> None:
        """Know the processes.

        Args:
            process: Meltano's.
            pid_file: Where the tap's number is.
        """
        self._process = process
        self._pid_file = pid_file

    def kill_tap(self) -> int:
        """Kill the tap, which gets no chance to write or tell anything.

        Returns:
            Meltano's exit code.
        """
        os.kill(int(self._pid_file.read_text()), signal.SIGKILL)
        return self._process.wait()
