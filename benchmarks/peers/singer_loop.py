"""A tap with its own loop over singer-python, the SDK's predecessor."""

from __future__ import annotations

import gzip
import json

import singer  # type: ignore[import-not-found]

from benchmarks.peers.export import open_export, read_config, window_fields

_TEXT: object = {"type": ["string", "null"]}
_TEXTS: object = {"type": ["array", "null"], "items": _TEXT}
_TIME: object = {"type": "string", "format": "date-time"}


def main() -> None:
    """Write SCHEMA, a RECORD for each contact, and STATE."""
    config = read_config()
    constants = window_fields(config)
    properties: dict[str, object] = {"id": {"type": "integer"}}
    properties |= dict.fromkeys(("email", "name", "phone", "location"), _TEXT)
    if config.get("include_comet_tokens"):
        properties["comet_tokens"] = _TEXTS
    if config.get("include_all_emails"):
        properties["emails"] = _TEXTS
    properties |= dict.fromkeys(constants, _TIME)
    singer.write_schema("contacts", {"type": "object", "properties": properties}, ["id"])
    with gzip.GzipFile(fileobj=open_export(config)) as lines:
        for line in lines:
            record = {**json.loads(line), **constants}
            singer.write_record("contacts", record, time_extracted=singer.utils.now())
    bookmark = {"contacts": {"created_until": constants["created_until"]}}
    singer.write_state({"bookmarks": bookmark})


if __name__ == "__main__":
    main()
