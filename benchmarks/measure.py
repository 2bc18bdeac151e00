"""Measures the CPU time, elapsed time and peak memory of processes, and describes the machine.

Imports little, and only from the standard library: on Linux, a process's peak memory includes that
of the process that started it, so this process must stay smaller than those that it measures.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import IO, TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

ROOT = Path(__file__).parent.parent
FOLDER = Path(__file__).parent
ENVIRONMENTS = ROOT / ".venv-benchmarks"

MIB = 2**20
GZIP_WBITS = 31
"""zlib's `wbits` for data with gzip's header and trailer."""
_PEAK_UNIT = 1 if sys.platform == "darwin" else 1024
_START_SECONDS = 120


class Usage(NamedTuple):
    """The resources that a process used.

    Attributes:
        cpu: User and system time in seconds.
        wall: Elapsed seconds.
        peak: Peak memory in MiB.
    """

    cpu: float
    wall: float
    peak: float


class PeerFailed(Exception):  # noqa: N818 - shown in the table
    """A peer could not be installed or run, or missed contacts."""


def medians(usages: Iterable[Usage]) -> Usage:
    """The median of each figure of one or more runs."""
    return Usage(*(median(figures) for figures in zip(*usages, strict=True)))


def run(
    command: Sequence[str],
    *,
    reader: Callable[[IO[bytes]], None] | None = None,
    started: Callable[[int], None] | None = None,
) -> Usage:
    """Run a process until it exits, and measure it.

    Args:
        command: The program and its arguments.
        reader: Reads stdout to the end, in a thread; without it stdout goes to /dev/null.
        started: Called with the process id.

    Raises:
        PeerFailed: The process failed; has the last line of its stderr.
    """
    environment = {name: text for name, text in os.environ.items() if not name.startswith("TAP_")}
    environment["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603 - fixed commands
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if reader else subprocess.DEVNULL,
            stderr=errors,
        )
        if started:
            started(process.pid)
        reading = None
        if reader and process.stdout:
            reading = threading.Thread(target=reader, args=[process.stdout])
            reading.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:  # Ctrl-C or SIGTERM
            process.kill()
            raise
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if reading and process.stdout:
            reading.join()
            process.stdout.close()
        if process.returncode:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines()
            message = lines[-1] if lines else f"exit {process.returncode}"
            raise PeerFailed(message)
    return Usage(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * _PEAK_UNIT / MIB)


def python(environment: str) -> str:
    """The path of Python in a virtualenv; raises PeerFailed if its installation failed."""
    problem = ENVIRONMENTS / f"{environment}.failed"
    if problem.exists():
        message = f"not installed: {problem.read_text(encoding='utf-8').strip()}"
        raise PeerFailed(message)
    return str(ENVIRONMENTS / environment / "bin" / "python")


def versions(environment: str, packages: Sequence[str]) -> dict[str, str]:
    """The versions of Python and of the packages in a virtualenv."""
    program = (
        "import importlib.metadata as m, json, platform, sys\n"
        "found = {'Python': platform.python_version()}\n"
        "found |= {name: m.version(name) for name in sys.argv[1:]}\n"
        "print(json.dumps(found))"
    )
    command = [python(environment), "-c", program, *packages]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: S603 - as above
    found: dict[str, str] = json.loads(done.stdout)
    return found


def machine() -> dict[str, Any]:
    """Describe the machine and its load."""
    processor = platform.processor()
    processors = Path("/proc/cpuinfo")
    if processors.exists():
        lines = processors.read_text(encoding="utf-8").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        processor = models[0] if models else processor
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor or "unknown",
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "load_at_start": round(os.getloadavg()[0], 1),
    }


@contextmanager
def simulator(contacts: int, first: str, last: str) -> Iterator[dict[str, str]]:
    """Run a simulated Space in a separate process.

    Args:
        contacts: Number of contacts.
        first: Date of the earliest contact.
        last: Date after the latest contact.

    Yields:
        The settings `api_url` and `api_key`.

    Raises:
        PeerFailed: It did not start.
    """
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        options = {
            "size": contacts,
            "since": first,
            "until": last,
            "api-port": 0,
            "storage-port": 0,
            "queued-seconds": 0,
            "processing-seconds": 0,
            "creates-per-minute": 0,
            "polls-per-minute": 0,
            "url-lifetime-seconds": 86_400,
            "ready-file": ready,
        }
        command = [python("runner"), "-m", "simulator"]
        command += [f"--{name}={value}" for name, value in options.items()]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)  # noqa: S603
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    message = "the simulator did not start"
                    raise PeerFailed(message)
                time.sleep(0.05)
            space: dict[str, str] = json.loads(ready.read_bytes())
            yield space
        finally:
            process.terminate()
            process.wait()


def export(
    space: Mapping[str, str], first: str, last: str, settings: Mapping[str, object]
) -> Iterator[bytes]:
    """Export contacts, and read the gzip file in pieces.

    Args:
        space: The simulator's `api_url` and `api_key`.
        first: Date of the earliest contact.
        last: Date of the latest contact.
        settings: The tap's settings for optional fields.

    Yields:
        Compressed bytes.
    """
    url = f"{space['api_url']}/contacts/exports"
    window = {"start_date": f"{first} 00:00:00", "end_date": f"{last} 00:00:00"}
    headers = {"Authorization": f"Bearer {space['api_key']}", "Content-Type": "application/json"}
    body = json.dumps({**window, **settings}).encode()
    with _open(urllib.request.Request(url, body, headers)) as response:  # noqa: S310 - loopback
        number = json.load(response)["export_id"]
    with _open(urllib.request.Request(f"{url}/{number}", None, headers)) as response:  # noqa: S310
        file_url = json.load(response)["download_url"]
    with _open(urllib.request.Request(file_url)) as file:  # noqa: S310 - as above
        while piece := file.read(2**16):
            yield piece


def _open(request: urllib.request.Request) -> IO[bytes]:
    response: IO[bytes] = urllib.request.urlopen(request)  # noqa: S310 - as above
    return response


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of a head and rows, with all columns but the first aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        " | ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    rule = " | ".join(
        "-" * width if index == 0 else "-" * (width - 1) + ":" for index, width in enumerate(widths)
    )
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])


def exit_on_sigterm() -> None:
    """Make SIGTERM stop the processes that were started, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def report(text: str) -> None:
    """Print without buffering."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
