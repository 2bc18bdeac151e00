"""Airbyte's declarative CDK: a manifest with an AsyncRetriever, one job for the window."""

from __future__ import annotations

import json
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from airbyte_cdk.entrypoint import launch  # type: ignore[import-not-found]
from airbyte_cdk.sources.declarative.concurrent_declarative_source import (  # type: ignore[import-not-found]
    ConcurrentDeclarativeSource,
)

from benchmarks.peers.export import read_config, window_fields

_TEXT = {"type": ["string", "null"]}
_TEXTS = {"type": ["array", "null"], "items": _TEXT}
_TIME = {"type": "string", "format": "date-time"}


def _requester(method: str, path: str, **more: object) -> dict[str, Any]:
    return {
        "type": "HttpRequester",
        "url_base": "{{ config['api_url'] }}",
        "path": path,
        "http_method": method,
        "authenticator": {"type": "BearerAuthenticator", "api_token": "{{ config['api_key'] }}"},
        **more,
    }


def _field(name: str) -> dict[str, Any]:
    return {"type": "DpathExtractor", "field_path": [name]}


def _export_request(config: dict[str, Any]) -> dict[str, Any]:
    return {
        name: datetime.fromisoformat(config[name]).strftime("%Y-%m-%d %H:%M:%S")
        for name in ("start_date", "end_date")
    } | {
        name: int(config.get(name, False))
        for name in ("include_comet_tokens", "include_all_emails")
    }


def _stream(config: dict[str, Any]) -> dict[str, Any]:
    constants = window_fields(config)
    properties: dict[str, Any] = {"id": {"type": "integer"}}
    properties |= dict.fromkeys(("email", "name", "phone", "location"), _TEXT)
    properties |= dict.fromkeys(("comet_tokens", "emails"), _TEXTS)
    properties |= dict.fromkeys(constants, _TIME)
    return {
        "type": "DeclarativeStream",
        "name": "contacts",
        "primary_key": ["id"],
        "schema_loader": {
            "type": "InlineSchemaLoader",
            "schema": {"type": "object", "properties": properties},
        },
        "transformations": [
            {
                "type": "AddFields",
                "fields": [
                    {"type": "AddedFieldDefinition", "path": [name], "value": value}
                    for name, value in constants.items()
                ],
            }
        ],
        "retriever": {
            "type": "AsyncRetriever",
            "record_selector": {
                "type": "RecordSelector",
                "extractor": {"type": "DpathExtractor", "field_path": []},
            },
            "status_mapping": {
                "type": "AsyncJobStatusMap",
                "running": ["queued", "processing"],
                "completed": ["completed"],
                "failed": ["failed"],
                "timeout": ["timeout"],
            },
            "status_extractor": _field("status"),
            "download_target_extractor": _field("download_url"),
            "creation_requester": _requester(
                "POST", "/contacts/exports", request_body_json=_export_request(config)
            ),
            "polling_requester": _requester(
                "GET", "/contacts/exports/{{ creation_response['export_id'] }}"
            ),
            "download_requester": {
                "type": "HttpRequester",
                "url_base": "{{ download_target }}",
                "path": "",
                "http_method": "GET",
            },
            "download_decoder": {"type": "GzipDecoder", "decoder": {"type": "JsonlDecoder"}},
        },
    }


def main() -> None:
    """Run `read --config … --catalog …`, as a connector's container does."""
    config = read_config()
    stream = _stream(config)
    manifest = {
        "version": "7.39.1",
        "type": "DeclarativeSource",
        "check": {"type": "CheckStream", "stream_names": ["contacts"]},
        "streams": [stream],
        "spec": {"type": "Spec", "connection_specification": {"type": "object", "properties": {}}},
    }
    catalog = {
        "streams": [
            {
                "stream": {
                    "name": "contacts",
                    "json_schema": stream["schema_loader"]["schema"],
                    "supported_sync_modes": ["full_refresh"],
                },
                "sync_mode": "full_refresh",
                "destination_sync_mode": "overwrite",
            }
        ]
    }
    with tempfile.TemporaryDirectory() as folder:
        config_file, catalog_file = Path(folder) / "config.json", Path(folder) / "catalog.json"
        config_file.write_text(json.dumps(config), encoding="utf-8")
        catalog_file.write_text(json.dumps(catalog), encoding="utf-8")
        source = ConcurrentDeclarativeSource(
            catalog=None, config=config, state=None, source_config=manifest
        )
        arguments = ["read", "--config", str(config_file), "--catalog", str(catalog_file)]
        launch(source, [*arguments, *(["--debug"] if "--debug" in sys.argv else [])])


if __name__ == "__main__":
    main()
