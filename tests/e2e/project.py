"""A Meltano project for one test: this checkout's meltano.yml, installed plugins and no state."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from tests.e2e.installed import meltano, meltano_file, meltano_project, plugin_program, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TAP = "tap-cometly"
_RUN_SECONDS = 120
"""A run that should stop but hangs is killed after this time."""
_IDLE_CHECKS = 10


class MeltanoProject:
    """A project in a new folder.

    Attributes:
        folder: The project's folder.
        settings: Environment variables that every command gets.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.settings = settings
        installed = meltano_project() / ".meltano"
        (folder / ".meltano").mkdir(parents=True)
        (folder / "output").mkdir()
        (folder / "tmp").mkdir()
        shutil.copy(installed / "meltano.db", folder / ".meltano")
        self.link_plugins(folder)
        self.write(meltano_file())

    @staticmethod
    def link_plugins(folder: Path) -> None:
        """Link the installed plugins into a project."""
        for kind in ("extractors", "loaders"):
            (folder / ".meltano" / kind).symlink_to(meltano_project() / ".meltano" / kind)

    def read(self) -> dict[str, Any]:
        """The content of meltano.yml."""
        content: dict[str, Any] = yaml.safe_load((self.folder / "meltano.yml").read_text("utf-8"))
        return content

    def write(self, content: dict[str, Any]) -> None:
        """Write meltano.yml."""
        text = yaml.safe_dump(content, sort_keys=False)
        (self.folder / "meltano.yml").write_text(text, "utf-8")

    def edit_extractor(self, **keys: Any) -> None:
        """Change the extractor's entry in meltano.yml, as a user would."""
        content = self.read()
        content["plugins"]["extractors"][0].update(keys)
        self.write(content)

    @property
    def environment(self) -> dict[str, str]:
        """All environment variables of its commands; only PATH is inherited."""
        return {
            "PATH": f"{meltano().parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.folder / "tmp"),
            "TMPDIR": str(self.folder / "tmp"),
            "PYTHONUTF8": "1",
            "MELTANO_CLI_LOG_FORMAT": "uncolored",
            **self.settings,
        }

    def meltano(
        self, *arguments: str, check: bool = True, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a Meltano command."""
        return run(
            [meltano(), *arguments],
            cwd=self.folder,
            env=self.environment | settings,
            check=check,
        )

    def run(
        self, loader: str, *options: str, check: bool = True, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `meltano run tap-cometly …`."""
        return self.meltano("run", *options, TAP, loader, check=check, **settings)

    @contextlib.contextmanager
    def running(self, loader: str, **settings: str) -> Iterator[RunInProgress]:
        """Start `meltano run tap-cometly …` in a new process group; wait for it at the end."""
        before = self.read()
        self._record_process_ids(loader)
        command = [str(part) for part in (meltano(), "run", TAP, loader)]
        # pytest may ignore SIGINT (in a background job), and child processes would inherit that.
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(  # noqa: S603
            command,
            cwd=self.folder,
            env=self.environment | settings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            start_new_session=True,
        )
        signal.signal(signal.SIGINT, handler)
        run = RunInProgress(process, self.folder, loader)
        watchdog = threading.Timer(_RUN_SECONDS, os.killpg, (process.pid, signal.SIGKILL))
        watchdog.start()
        try:
            yield run
        finally:
            run.wait()
            watchdog.cancel()
            self.write(before)

    def _record_process_ids(self, loader: str) -> None:
        """Make the plugins write their process ids into files."""
        content = self.read()
        for plugin in [plugin for kind in content["plugins"].values() for plugin in kind]:
            name = plugin["name"]
            if name in {TAP, loader}:
                program = plugin_program(name, plugin["executable"])
                script = self.folder / f"{name}.sh"
                pid_file = self.folder / f"{name}.pid"
                script.write_text(f'#!/bin/sh\necho $$ >"{pid_file}"\nexec {program} "$@"\n')
                script.chmod(0o755)
                plugin["executable"] = str(script)
        self.write(content)

    def state(self, state_id: str) -> dict[str, Any]:
        """The state that Meltano stores under an id such as `dev:tap-cometly-to-target-duckdb`."""
        state: dict[str, Any] = json.loads(self.meltano("state", "get", state_id).stdout)
        return state

    def bookmark(self, loader: str) -> str | None:
        """The bookmark that Meltano stores for a loader; None if there is none."""
        state = self.state(f"dev:{TAP}-to-{loader}").get("singer_state", {})
        value: str | None = (
            state.get("bookmarks", {}).get("contacts", {}).get("replication_key_value")
        )
        return value

    def tap(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the tap without Meltano, with the project's settings from the environment."""
        return run(
            [plugin_program(TAP, TAP), "--config=ENV", *arguments],
            cwd=self.folder,
            env=self.environment,
            check=check,
        )


class RunInProgress:
    """A run of Meltano, with its tap and its loader, that can be stopped.

    Attributes:
        log: The log of Meltano and its plugins.
    """

    def __init__(self, process: subprocess.Popen[str], folder: Path, loader: str) -> None:
        self._process = process
        self._folder = folder
        self._loader = loader
        self.log = ""

    def wait_until_idle(self) -> None:
        """Wait until the loader has read all input and waits for more."""
        idle = 0
        while idle < _IDLE_CHECKS:
            syscall = Path(f"/proc/{self._pid(self._loader)}/syscall").read_text().split()
            idle = idle + 1 if syscall[1:2] == ["0x0"] else 0  # waits in read(0, …)
            time.sleep(0.02)

    def wait(self) -> int:
        """Wait until Meltano exits; return its exit code."""
        assert self._process.stdout
        if not self._process.stdout.closed:
            with self._process.stdout:
                self.log += self._process.stdout.read()
        return self._process.wait()

    def kill_tap(self) -> int:
        """Send SIGKILL to the tap only; return Meltano's exit code."""
        os.kill(self._pid(TAP), signal.SIGKILL)
        return self.wait()

    def terminate(self) -> int:
        """Send SIGTERM to Meltano only, as most orchestrators do; return its exit code."""
        return self._stop_all(self._process.terminate)

    def interrupt(self) -> int:
        """Send SIGINT to the process group, as Ctrl-C does; return Meltano's exit code."""
        return self._stop_all(lambda: os.killpg(self._process.pid, signal.SIGINT))

    def _pid(self, plugin: str) -> int:
        return int((self._folder / f"{plugin}.pid").read_text())

    def _stop_all(self, stop: Callable[[], None]) -> int:
        # Meltano may exit before its plugins, which are not children of this process.
        plugins = [os.pidfd_open(self._pid(plugin)) for plugin in (TAP, self._loader)]
        stop()
        code = self.wait()
        for plugin in plugins:
            select.select([plugin], [], [])  # readable once the process has exited
            os.close(plugin)
        return code
