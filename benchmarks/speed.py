"""Compares the tap with its peers: whole processes that read the same simulated export."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from benchmarks import chart
from benchmarks.measure import (
    ENVIRONMENTS,
    FOLDER,
    GZIP_WBITS,
    PeerFailed,
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
    from collections.abc import Iterable, Mapping, Sequence

TEXTBOOK, TUNED, LIMIT = "textbook", "tuned", "decode"
KINDS = {
    "5 fields": {},
    "with tokens and e-mails": {"include_comet_tokens": True, "include_all_emails": True},
}
_START, _END, _ONE_DAY, _ONE_MONTH = "2024-01-01", "2025-01-01", "2024-01-02", "2024-02-01"
_LONGEST_PROBLEM = 80
_PACKAGES = {
    "tap": ["tap-cometly", "singer-sdk", "msgspec", "isal", "requests", "simplejson"],
    "singer-python": ["singer-python", "simplejson"],
    "airbyte-cdk": ["airbyte-cdk", "orjson"],
    "dlt": ["dlt", "orjson"],
}


@dataclass(frozen=True)
class Peer:
    """A program that reads the contacts of an export.

    Attributes:
        key: Short name, for `--only`.
        label: Name in the table.
        environment: The virtualenv in which it is installed.
        module: Module of benchmarks.peers; None for the tap itself.
        settings: Settings in addition to those of the export.
        options: Additional command-line options.
        counts: How the contacts are counted: its RECORD lines, the number that it prints, or the
            lines of the files that it writes.
    """

    key: str
    label: str
    environment: str = "tap"
    module: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Sequence[str] = ()
    counts: str = "lines"

    def command(self, config: Path) -> list[str]:
        """The command that runs it with a config file."""
        interpreter = python(self.environment)
        if self.module is None:
            program = [str(Path(interpreter).with_name("tap-cometly"))]
        else:
            program = [interpreter, "-m", f"benchmarks.peers.{self.module}"]
        return [*program, "--config", str(config), *self.options]


def peers(batches: Path) -> list[Peer]:
    """All peers in the order of the table, with the folder for BATCH files."""
    md5 = {"stream_maps": {"contacts": {"email": "md5(email) if email else None"}}}
    batch = {
        "batch_config": {
            "encoding": {"format": "jsonl", "compression": "gzip"},
            "storage": {"root": batches.as_uri()},
        }
    }
    return [
        Peer("tap", "tap-cometly"),
        Peer("map", "tap-cometly, a stream map (md5)", settings=md5),
        Peer("batch", "tap-cometly, BATCH files", settings=batch, counts="files"),
        Peer(TEXTBOOK, "textbook SDK tap", module="textbook"),
        Peer("textbook-map", "textbook SDK tap, same stream map", module="textbook", settings=md5),
        Peer(TUNED, "SDK tap with msgspec", module="tuned"),
        Peer("unchecked", "SDK tap, msgspec, isal, unchecked", module="unchecked"),
        Peer("singer", "singer-python, own loop", "singer-python", "singer_loop"),
        Peer("airbyte", "airbyte-cdk, AsyncRetriever", "airbyte-cdk", "airbyte_async"),
        Peer("dlt", "dlt, extract only", "dlt", "dlt_extract", counts="number"),
        Peer(LIMIT, "limit: decompress, decode", "tap", "limits", {}, ["--decode"], "number"),
        Peer("decompress", "limit: decompress", module="limits", counts="number"),
    ]


@dataclass
class Row:
    """The results of a peer for one kind of records.

    Attributes:
        peer: The peer.
        kind: Key of KINDS.
        problem: Why there are no figures; empty if there are any.
        runs: Runs over all contacts.
        starts: Runs over one day, which show the cost of start-up.
    """

    peer: Peer
    kind: str
    problem: str = ""
    runs: list[Usage] = field(default_factory=list)
    starts: list[Usage] = field(default_factory=list)

    @property
    def cpu(self) -> float:
        """Median CPU seconds of a run."""
        return medians(self.runs).cpu

    @property
    def reading(self) -> float:
        """Median CPU seconds of a run without start-up."""
        return self.cpu - medians(self.starts).cpu


class Benchmark:
    """Runs the peers against a simulated Space, with temporary files in a folder."""

    def __init__(
        self, arguments: argparse.Namespace, space: Mapping[str, str], folder: Path
    ) -> None:
        self._rounds: int = arguments.rounds
        self._space = space
        self._folder = folder
        self._batches = folder / "batches"
        self._batches.mkdir()
        only = arguments.only.split(",") if arguments.only else None
        selected = [peer for peer in peers(self._batches) if not only or peer.key in only]
        self.rows = [Row(peer, kind) for kind in KINDS for peer in selected]
        self._expected: dict[str, int] = {}

    def measure(self) -> None:
        """Check every peer once, then measure them in turn, round by round."""
        for kind, settings in KINDS.items():
            # The export up to _END makes the simulator generate and cache the large file now.
            for until in (_END, _ONE_MONTH):
                self._expected[kind] = _lines_in(export(self._space, _START, until, settings))
        for row in self.rows:
            try:
                self._check(row)
            except PeerFailed as error:
                row.problem = str(error)
            report(f"  {row.kind}: {row.peer.label}: {row.problem or 'reads every contact'}")
        for number in range(1, self._rounds + 1):
            report(f"Round {number} of {self._rounds}")
            for row in self.rows:
                if row.problem:
                    continue
                row.starts.append(self._run(row, _ONE_DAY))
                row.runs.append(self._run(row, _END))

    def _check(self, row: Row) -> None:
        counter = _Counter(row.peer.counts)
        self._run(row, _ONE_MONTH, counter)
        if row.peer.counts == "files":
            counter.count = sum(_lines_in([file.read_bytes()]) for file in self._batches.iterdir())
        expected = self._expected[row.kind]
        if counter.count != expected:
            message = f"read {counter.count:,} of {expected:,} contacts"
            raise PeerFailed(message)

    def _run(self, row: Row, until: str, counter: _Counter | None = None) -> Usage:
        for file in self._batches.iterdir():
            file.unlink()
        config = {
            "api_url": self._space["api_url"],
            "api_key": self._space["api_key"],
            "start_date": f"{_START}T00:00:00+00:00",
            "end_date": f"{until}T00:00:00+00:00",
            "window_days": 1000,
            **KINDS[row.kind],
            **row.peer.settings,
        }
        path = self._folder / "config.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        return run(row.peer.command(path), reader=counter)


class _Counter:
    """Reads stdout and counts the contacts."""

    def __init__(self, counts: str) -> None:
        self._counts = counts
        self.count = 0

    def __call__(self, stdout: IO[bytes]) -> None:
        for line in stdout:
            if self._counts == "number":
                self.count = int(line)
            else:
                self.count += b'"RECORD"' in line[:64]


def _lines_in(pieces: Iterable[bytes]) -> int:
    decompressor = zlib.decompressobj(wbits=GZIP_WBITS)
    return sum(decompressor.decompress(piece).count(b"\n") for piece in pieces)


def results_table(rows: Sequence[Row], contacts: int) -> str:
    """The results as one Markdown table; every run read `contacts` contacts."""
    cells = [
        [
            "",
            "records per CPU s",
            "x textbook",
            "x msgspec",
            "CPU / limit",
            "CPU s",
            "min to max",
            "start-up",
            "wall s",
            "peak MiB",
        ]
    ]
    for kind in KINDS:
        of_kind = [row for row in rows if row.kind == kind]
        measured = {row.peer.key: row for row in of_kind if row.runs}
        cells.append([f"**{kind}**", *[""] * 9])
        for row in of_kind:
            if not row.runs:
                cells.append([f"{row.peer.label}: {_cell(row.problem)}", *["-"] * 9])
                continue
            usage = medians(row.runs)
            limit = measured.get(LIMIT)
            cells.append(
                [
                    row.peer.label,
                    f"{contacts / usage.cpu:,.0f}",
                    _ratio(measured.get(TEXTBOOK), row),
                    _ratio(measured.get(TUNED), row),
                    f"{row.reading / limit.reading:.1f}" if limit else "-",
                    f"{usage.cpu:.2f}",
                    "{:.2f} to {:.2f}".format(*_bounds(row)),
                    f"{medians(row.starts).cpu:.2f}",
                    f"{usage.wall:.1f}",
                    f"{usage.peak:.0f}",
                ]
            )
    return table(cells)


def _cell(text: str) -> str:
    """The end of an error message, without the column separator."""
    return text.rpartition(" | ")[2].replace("|", "/")[-_LONGEST_PROBLEM:]


def _bounds(row: Row) -> tuple[float, float]:
    seconds = [usage.cpu for usage in row.runs]
    return min(seconds), max(seconds)


def _ratio(base: Row | None, row: Row) -> str:
    return f"{base.cpu / row.cpu:.1f}" if base else "-"


def _about(results: Mapping[str, Any], arguments: argparse.Namespace) -> str:
    host = results["machine"]
    packages = "; ".join(
        f"{environment}: " + ", ".join(f"{name} {version}" for name, version in of.items())
        for environment, of in results["versions"].items()
    )
    return (
        f"{arguments.contacts:,} contacts, medians of {arguments.rounds} interleaved rounds, "
        f"{results['date']}. {host['system']}, {host['processor']}, {host['cores']} cores, "
        f"{host['memory_gib']} GiB; load {host['load_at_start']} before, "
        f"{results['load_at_end']} after.\n"
        f"Versions: {packages}."
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/run.sh", description=__doc__)
    parser.add_argument("--contacts", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    keys = ", ".join(peer.key for peer in peers(Path.cwd()))
    parser.add_argument("--only", help=f"Comma-separated peers ({keys}); writes no files.")
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, and write the files."""
    exit_on_sigterm()
    arguments = _arguments()
    results: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "contacts": arguments.contacts,
        "rounds": arguments.rounds,
        "machine": machine(),
        "versions": {
            name: versions(name, packages)
            for name, packages in _PACKAGES.items()
            if not (ENVIRONMENTS / f"{name}.failed").exists()
        },
    }
    report(f"Starting a simulated Space with {arguments.contacts:,} contacts")
    with (
        simulator(arguments.contacts, _START, _END) as space,
        tempfile.TemporaryDirectory() as folder,
    ):
        benchmark = Benchmark(arguments, space, Path(folder))
        benchmark.measure()
    results["load_at_end"] = round(os.getloadavg()[0], 1)
    text = f"{results_table(benchmark.rows, arguments.contacts)}\n\n{_about(results, arguments)}\n"
    report(f"\n{text}")
    if arguments.only:
        return
    results["results"] = [
        {
            "peer": row.peer.key,
            "label": row.peer.label,
            "records": row.kind,
            "problem": row.problem,
            "runs": [usage._asdict() for usage in row.runs],
            "starts": [usage._asdict() for usage in row.starts],
        }
        for row in benchmark.rows
    ]
    (FOLDER / "results.md").write_text(text, encoding="utf-8")
    text = json.dumps(results, indent=1, ensure_ascii=False)
    (FOLDER / "results.json").write_text(f"{text}\n", encoding="utf-8")
    bars = {
        kind: {
            row.peer.label: base.cpu / row.cpu
            for row in benchmark.rows
            if row.kind == kind and row.runs and row.peer.key != "decompress"
        }
        for kind in KINDS
        for base in benchmark.rows
        if base.kind == kind and base.peer.key == TEXTBOOK and base.runs
    }
    if bars:
        (FOLDER / "speed.svg").write_text(
            chart.draw(bars, "Contacts per CPU second (textbook SDK tap = 1)"), encoding="utf-8"
        )
    report("Wrote results.json, results.md and speed.svg in benchmarks/")


if __name__ == "__main__":
    main()
