"""Emulated S3: the server of moto, on localhost."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from typing import Self

from tests.e2e.installed import MOTO, clean_environment, environment

_RUNNING = "Running on "


class S3Server:
    """Buckets in memory, at `url`; a context manager."""

    def __enter__(self) -> Self:
        """Start the server."""
        program = environment("moto", *MOTO) / "bin" / "moto_server"
        self._process = subprocess.Popen(  # noqa: S603
            [program, "-H", "127.0.0.1", "-p", "0"],
            env=clean_environment() | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        assert self._process.stderr
        line = next(line for line in self._process.stderr if _RUNNING in line)
        self.url = line.partition(_RUNNING)[2].strip()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server."""
        self._process.terminate()
        self._process.communicate()

    def make_bucket(self, name: str) -> None:
        """Create a bucket."""
        request = urllib.request.Request(f"{self.url}/{name}", method="PUT")  # noqa: S310
        with urllib.request.urlopen(request) as response:  # noqa: S310
            response.read()

    def keys(self, bucket: str) -> list[str]:
        """The names of a bucket's objects."""
        with urllib.request.urlopen(f"{self.url}/{bucket}") as response:  # noqa: S310
            return re.findall(r"<Key>(.+?)</Key>", response.read().decode())

    @property
    def settings(self) -> dict[str, str]:
        """Environment variables that make AWS clients use this server."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "emulated",
            "AWS_SECRET_ACCESS_KEY": "emulated",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
