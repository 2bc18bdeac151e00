"""dlt's extract step: writes contacts to files in its working folder, a thousand at a time."""

from __future__ import annotations

import gzip
import sys
import tempfile
from itertools import islice
from typing import TYPE_CHECKING, Any

import dlt  # type: ignore[import-not-found]
from dlt.common import json  # type: ignore[import-not-found]

from benchmarks.peers.export import open_export, read_config, window_fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PAGE = 1000


def contacts(config: Mapping[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Read the contacts in pages, as dlt's guide recommends."""
    constants = window_fields(config)
    with gzip.GzipFile(fileobj=open_export(config)) as lines:
        while page := [{**json.loadb(line), **constants} for line in islice(lines, _PAGE)]:
            yield page


def main() -> None:
    """Extract the contacts and print their number."""
    config = read_config()
    with tempfile.TemporaryDirectory() as folder:
        pipeline = dlt.pipeline("contacts", pipelines_dir=folder, destination="dummy")
        resource = dlt.resource(contacts(config), name="contacts", primary_key="id")
        info = pipeline.extract(resource)
        (metrics,) = info.metrics.values()
        sys.stdout.write(f"{metrics[0]['table_metrics']['contacts'].items_count}\n")


if __name__ == "__main__":
    main()
