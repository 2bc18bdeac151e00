"""The tap beside its peers: the same simulated export, whole processes, one table of ratios."""

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
    Failed,
    Usage,
    end_in_order,
    export,
    machine,
    middle,
    python,
    run,
    say,
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
_FIRST, _LAST, _EARLY, _CHECKED = "2024-01-01", "2025-01-01", "2024-01-02", "2024-02-01"
_LONGEST_PROBLEM = 80
_GZIP = 31  # zlib's name for "with gzip's header and trailer"
_PACKAGES = {
    "tap": ["tap-cometly", "singer-sdk", "msgspec", "isal", "requests", "simplejson"],
    "singer-python": ["singer-python", "simplejson"],
    "airbyte-cdk": ["airbyte-cdk", "orjson"],
    "dlt": ["dlt", "orjson"],
}


@dataclass(frozen=True)
class Peer:
    """A way to do the tap's job.

    Attributes:
        key: Its short name.
        label: What the table calls it.
        environment: Where it is installed.
        module: What is run; None is the tap itself.
        settings: What it is set to, beside the export's settings.
        options: What its command line has more.
        counts: How one learns how many contacts it read: by its RECORD lines, by the number that it
            prints, or by the files that it writes.
    """

    key: str
    label: str
    environment: str = "tap"
    module: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Sequence[str] = ()
    counts: str = "lines"

    def command(self, config: Path) -> list[str]:
        """Give what is run.

        Args:
            config: The file of its settings.

        Returns:
            A command line.
        """
        interpreter = python(self.environment)
        if self.module is None:
            program = [str(Path(interpreter).with_name("tap-cometly"))]
        else:
            program = [interpreter, "-m", f"benchmarks.peers.{self.module}"]
        return [*program, "--config", str(config), *self.options]


def peers(batches: Path) -> list[Peer]:
    """List the peers, in the order of the table.

    Args:
        batches: The folder for BATCH files.

    Returns:
        Peers.
    """
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
        Peer("textbook-map", "textbook SDK tap, that stream map", module="textbook", settings=md5),
        Peer(TUNED, "SDK tap with msgspec", module="tuned"),
        Peer("unchecked", "SDK tap, msgspec, isal, unchecked", module="unchecked"),
        Peer("singer", "singer-python, loop by hand", "singer-python", "singer_loop"),
        Peer("airbyte", "airbyte-cdk, AsyncRetriever", "airbyte-cdk", "airbyte_async"),
        Peer("dlt", "dlt, extract only", "dlt", "dlt_extract", counts="number"),
        Peer(LIMIT, "limit: decompress, decode", "tap", "limits", {}, ["--decode"], "number"),
        Peer("decompress", "limit: decompress", module="limits", counts="number"),
    ]


@dataclass
class Row:
    """A peer with one kind of records.

    Attributes:
        peer: Who.
        kind: What kind of records.
        problem: Why there are no figures, if there are none.
        runs: Each run over all contacts.
        starts: Each run over a day's contacts that are hardly any: what starting costs.
    """

    peer: Peer
    kind: str
    problem: str = ""
    runs: list[Usage] = field(default_factory=list)
    starts: list[Usage] = field(default_factory=list)

    @property
    def cpu(self) -> float:
        """CPU seconds of a run."""
        return middle(self.runs).cpu

    @property
    def reading(self) -> float:
        """CPU seconds of a run, start-up aside."""
        return self.cpu - middle(self.starts).cpu


class Benchmark:
    """Peers, rounds and what came of them."""

    def __init__(
        self, arguments: argparse.Namespace, space: Mapping[str, str], folder: Path
    ) -> None:
        """Prepare the settings of all runs.

        Args:
            arguments: Of the command line.
            space: Where the simulator is.
            folder: For files that are thrown away.
        """
        self._rounds: int = arguments.rounds
        self._space = space
        self._folder = folder
        self._batches = folder / "batches"
        self._batches.mkdir()
        wanted = arguments.only.split(",") if arguments.only else None
        chosen = [peer for peer in peers(self._batches) if not wanted or peer.key in wanted]
        self.rows = [Row(peer, kind) for kind in KINDS for peer in chosen]
        self._to_check: dict[str, int] = {}

    def measure(self) -> None:
        """Check every peer once, then measure them in turn, round by round."""
        for kind, settings in KINDS.items():
            # So that the simulator makes the large file now, and keeps it.
            for until in (_LAST, _CHECKED):
                self._to_check[kind] = _lines_in(export(self._space, _FIRST, until, settings))
        for row in self.rows:
            try:
                self._check(row)
            except Failed as why:
                row.problem = str(why)
            said = row.problem or "reads every contact"
            say(f"  {row.kind}: {row.peer.label}: {said}")
        for number in range(1, self._rounds + 1):
            say(f"Round {number} of {self._rounds}")
            for row in self.rows:
                if row.problem:
                    continue
                row.starts.append(self._run(row, _EARLY))
                row.runs.append(self._run(row, _LAST))

    def _check(self, row: Row) -> None:
        counted = _Counter(row.peer.counts)
        self._run(row, _CHECKED, counted)
        if row.peer.counts == "files":
            counted.count = sum(_lines_in([file.read_bytes()]) for file in self._batches.iterdir())
        expected = self._to_check[row.kind]
        if counted.count != expected:
            message = f"read {counted.count:,} of {expected:,} contacts"
            raise Failed(message)

    def _run(self, row: Row, until: str, counter: _Counter | None = None) -> Usage:
        for file in self._batches.iterdir():
            file.unlink()
        config = {
            "api_url": self._space["api_url"],
            "api_key": self._space["api_key"],
            "start_date": f"{_FIRST}T00:00:00+00:00",
            "end_date": f"{until}T00:00:00+00:00",
            "window_days": 1000,
            **KINDS[row.kind],
            **row.peer.settings,
        }
        path = self._folder / "config.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        return run(row.peer.command(path), reader=counter)


class _Counter:
    """Reads stdout, and counts contacts."""

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
    decompressor = zlib.decompressobj(wbits=_GZIP)
    return sum(decompressor.decompress(piece).count(b"\n") for piece in pieces)


def report(rows: Sequence[Row], contacts: int) -> str:
    """Lay out the results as one table.

    Args:
        rows: All peers with all kinds of records.
        contacts: How many each read.

    Returns:
        Markdown.
    """
    cells = [
        [
            "",
            "records per CPU s",
            "x textbook",
            "x msgspec",
            "CPU : limit",
            "CPU s",
            "least to most",
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
            usage = middle(row.runs)
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
                    f"{middle(row.starts).cpu:.2f}",
                    f"{usage.wall:.1f}",
                    f"{usage.peak:.0f}",
                ]
            )
    return table(cells)


def _cell(text: str) -> str:
    """The end of an error, which says more than its begin, as a table's cell holds it."""
    return text.rpartition(" | ")[2].replace("|", "/")[-_LONGEST_PROBLEM:]


def _bounds(row: Row) -> tuple[float, float]:
    seconds = [usage.cpu for usage in row.runs]
    return min(seconds), max(seconds)


def _ratio(base: Row | None, row: Row) -> str:
    return f"{base.cpu / row.cpu:.1f}" if base else "-"


def _about(found: Mapping[str, Any], arguments: argparse.Namespace) -> str:
    on = found["machine"]
    packages = "; ".join(
        f"{environment}: " + ", ".join(f"{name} {version}" for name, version in of.items())
        for environment, of in found["versions"].items()
    )
    return (
        f"{arguments.contacts:,} contacts, medians of {arguments.rounds} interleaved rounds, "
        f"{found['date']}. {on['system']}, {on['processor']}, {on['cores']} cores, "
        f"{on['memory_gib']} GiB; load {on['load_at_start']} before, "
        f"{found['load_at_end']} after.\n"
        f"Versions: {packages}."
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/run.sh", description=__doc__)
    parser.add_argument("--contacts", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    keys = ", ".join(peer.key for peer in peers(Path.cwd()))
    parser.add_argument("--only", help=f"Peers, by comma: {keys}; nothing is written then.")
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, write the files."""
    end_in_order()
    arguments = _arguments()
    found: dict[str, Any] = {
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
    say(f"Starting a simulated Space with {arguments.contacts:,} contacts")
    with (
        simulator(arguments.contacts, _FIRST, _LAST) as space,
        tempfile.TemporaryDirectory() as folder,
    ):
        benchmark = Benchmark(arguments, space, Path(folder))
        benchmark.measure()
    found["load_at_end"] = round(os.getloadavg()[0], 1)
    shown = report(benchmark.rows, arguments.contacts)
    about = _about(found, arguments)
    say(f"\n{shown}\n\n{about}")
    if arguments.only:
        return
    found["results"] = [
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
    text = json.dumps(found, indent=1, ensure_ascii=False)
    (FOLDER / "results.json").write_text(f"{text}\n", encoding="utf-8")
    (FOLDER / "results.md").write_text(f"{shown}\n\n{about}\n", encoding="utf-8")
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
            chart.draw(bars, "Contacts per CPU second, the textbook SDK tap = 1"), encoding="utf-8"
        )
    say("Written: results.json, results.md and speed.svg in benchmarks/")


if __name__ == "__main__":
    main()
