"""Measures the tap's CPU time and memory by export size, in hard cases, and at start-up."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
import time
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import IO, TYPE_CHECKING, Any

from benchmarks.files import API_KEY, File, FileServer
from benchmarks.measure import (
    FOLDER,
    GZIP_WBITS,
    MIB,
    Usage,
    exit_on_sigterm,
    export,
    machine,
    medians,
    python,
    report,
    run,
    simulator,
    table,
    versions,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MEMBER_CONTACTS = 10_000
_SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
_RUNS = {10_000: 9, 100_000: 5, 1_000_000: 3}
_START_RUNS = 9
_MICROSECONDS = 1e6
_WIDE = {"include_comet_tokens": True, "include_all_emails": True}
_PACKAGES = ["tap-cometly", "singer-sdk", "msgspec", "isal"]
_DATES = ("2024-01-01", "2025-01-01")
_EXPORT = {"start_date": "2024-01-01T00:00:00+00:00", "end_date": "2024-12-31T00:00:00+00:00"}


@dataclass(frozen=True)
class Read:
    """A run of the tap over a file.

    Attributes:
        usage: Of the whole process.
        reading: CPU seconds from the download request to the end of the process.
    """

    usage: Usage
    reading: float


class Scale:
    """Measurements of the tap, with temporary files in a folder."""

    def __init__(self, files: FileServer, folder: Path) -> None:
        self._files = files
        self._folder = folder
        self._tap = str(Path(python("tap")).with_name("tap-cometly"))
        self._bare = [python("tap"), "-m", "benchmarks.peers.bare"]
        self.loaded = medians([run([*self._bare, "--version"]) for _ in range(3)]).peak

    def read(
        self,
        file: File,
        settings: Mapping[str, object] | None = None,
        reader: Callable[[IO[bytes]], None] | None = None,
    ) -> Read:
        """Run the tap over a file, with additional settings; `reader` reads its output."""
        path = self._write("config", {**self._access(), "window_days": 1000, **(settings or {})})
        self._files.serve(file)

        def started(process_id: int) -> None:
            self._files.reader = process_id

        usage = run([self._tap, "--config", path], reader=reader, started=started)
        return Read(usage, usage.cpu - (self._files.cpu_at_request or 0))

    def start_ups(self) -> list[list[str]]:
        """The table of the start-up, compared with an SDK tap that does nothing."""
        bookmark = {"replication_key": "created_until", "replication_key_value": "2025-01-01"}
        state = self._write("state", {"bookmarks": {"contacts": bookmark}})
        config = self._write("config", self._access())
        empty = self._write("empty", {})
        cases = {
            "--version": (["--version"], ["--version"]),
            "--discover": (["--discover"], ["--discover"]),
            "a run with nothing to do": (
                ["--config", config, "--state", state],
                ["--config", empty, "--state", state],
            ),
        }
        rows = [["start-up", "CPU s", "bare SDK tap", "ratio", "wall s", "bare wall s"]]
        for name, (options, bare) in cases.items():
            pairs = [
                (run([self._tap, *options]), run([*self._bare, *bare])) for _ in range(_START_RUNS)
            ]
            tap, base = (medians(usages) for usages in zip(*pairs, strict=True))
            rows.append(
                [
                    name,
                    f"{tap.cpu:.3f}",
                    f"{base.cpu:.3f}",
                    f"{tap.cpu / base.cpu:.2f}",
                    f"{tap.wall:.2f}",
                    f"{base.wall:.2f}",
                ]
            )
        return rows

    def sizes(
        self, kind: str, member: bytes, largest: int, settings: Mapping[str, object]
    ) -> list[list[str]]:
        """The table of CPU time and memory by number of contacts.

        Args:
            kind: The table's first head.
            member: A gzip member with _MEMBER_CONTACTS contacts.
            largest: The largest number of contacts to measure.
            settings: The tap's settings for these contacts.
        """
        tiny = File(gzip.compress(b'{"id":1}\n'), 1)
        tail = median(self.read(tiny, settings).reading for _ in range(_START_RUNS))
        rows = [[kind, "CPU, µs per contact", "vs 10,000", "peak MiB", "above the SDK"]]
        first = 0.0
        for size in _SIZES:
            if size > largest:
                break
            file = File(member, size // _MEMBER_CONTACTS)
            reads = [self.read(file, settings) for _ in range(_RUNS.get(size, 1))]
            cpu = (median(one.reading for one in reads) - tail) / size * _MICROSECONDS
            first = first or cpu
            peak = max(one.usage.peak for one in reads)
            rows.append([f"{size:,}", f"{cpu:.2f}", f"{cpu / first:.2f}", *self._memory(peak)])
            report(f"  {kind}: {size:,}")
        return rows

    def hard_cases(self, member: bytes) -> list[list[str]]:
        """The table of memory in cases that may need more of it."""
        ten = File(member, 10)
        maps = {"contacts": {"email": "md5(email) if email else None"}}
        with tempfile.TemporaryDirectory() as folder:
            batch = {
                "encoding": {"format": "jsonl", "compression": "gzip"},
                "storage": {"root": Path(folder).as_uri()},
            }
            reads = {
                "100,000 contacts, fast reader": self.read(ten),
                "the same, read at 10 MiB per second": self.read(ten, reader=_slow),
                "the same, a stream map": self.read(ten, {"stream_maps": maps}),
                "the same, BATCH files": self.read(ten, {"batch_config": batch}),
                "12 exports of 100,000, 5 in flight": self.read(
                    ten, {"window_days": 31, "max_concurrent_exports": 5}
                ),
                "one line of 15 MiB, then 100,000": self.read(
                    File(_long_line(15) + member * 10, 1)
                ),
            }
        rows = [["memory", "peak MiB", "above the SDK", "CPU s", "wall s"]]
        for name, read in reads.items():
            usage = read.usage
            rows.append([name, *self._memory(usage.peak), f"{usage.cpu:.2f}", f"{usage.wall:.1f}"])
        return rows

    def _access(self) -> dict[str, object]:
        return {**_EXPORT, "api_url": self._files.api_url, "api_key": API_KEY}

    def _memory(self, peak: float) -> list[str]:
        return [f"{peak:.0f}", f"{peak - self.loaded:+.0f}"]

    def _write(self, name: str, content: Mapping[str, object]) -> str:
        path = self._folder / f"{name}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return str(path)


def _slow(stdout: IO[bytes]) -> None:
    while os.read(stdout.fileno(), 2**16):
        time.sleep(2**16 / (10 * MIB))


def _make_member(space: Mapping[str, str], settings: Mapping[str, object]) -> bytes:
    """A gzip member with the contacts of the simulator."""
    return b"".join(export(space, *_DATES, settings))


def _long_line(mebibytes: int) -> bytes:
    """A gzip member with one long line, compressed in pieces to keep this process small."""
    compressor = zlib.compressobj(wbits=GZIP_WBITS)
    parts = [b'{"id":1,"name":"', *[b"x" * MIB] * mebibytes, b'"}\n']
    return b"".join([*map(compressor.compress, parts), compressor.flush()])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/run.sh scale", description=__doc__)
    parser.add_argument("--largest", type=int, default=_SIZES[-1], help="Contacts per file.")
    return parser.parse_args()


def main() -> None:
    """Measure, print the tables, and write scale.md."""
    exit_on_sigterm()
    largest = _arguments().largest
    host: dict[str, Any] = machine()
    with simulator(_MEMBER_CONTACTS, *_DATES) as space:
        narrow, wide = _make_member(space, {}), _make_member(space, _WIDE)
    with FileServer() as files, tempfile.TemporaryDirectory() as folder:
        scale = Scale(files, Path(folder))
        report("Start-up")
        tables = [scale.start_ups()]
        report("Sizes")
        tables.append(scale.sizes("5 fields", narrow, largest, {}))
        tables.append(scale.sizes("with tokens and e-mails", wide, largest, _WIDE))
        report("Memory")
        tables.append(scale.hard_cases(narrow))
        loaded = scale.loaded
    packages = ", ".join(f"{name} {of}" for name, of in versions("tap", _PACKAGES).items())
    about = (
        f"{datetime.now(UTC).date()}. {host['system']}, {host['processor']}, {host['cores']} "
        f"cores, {host['memory_gib']} GiB; load {host['load_at_start']} before, "
        f"{os.getloadavg()[0]:.1f} after. {packages}.\n"
        f"Peak of the interpreter with the SDK loaded (`--version` of a bare SDK tap): "
        f"{loaded:.0f} MiB.\n"
        f"CPU per contact: from the download request to the end of the process, minus the same "
        f"for a file of one contact."
    )
    text = "\n\n".join([*map(table, tables), about])
    report(f"\n{text}")
    (FOLDER / "scale.md").write_text(f"{text}\n", encoding="utf-8")
    report("Wrote benchmarks/scale.md")


if __name__ == "__main__":
    main()
