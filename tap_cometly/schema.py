"""The stream's JSON Schema: `schemas/contacts.json` adapted to settings and a given catalog."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singer_sdk.singerlib import Catalog, Metadata, Schema, StreamMetadata
from singer_sdk.singerlib.catalog import REPLICATION_FULL_TABLE, REPLICATION_INCREMENTAL

from tap_cometly.errors import TapError
from tap_cometly.settings import OPTIONAL_FIELDS
from tap_cometly.state import REPLICATION_KEY, STREAM

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable

    from singer_sdk.singerlib import CatalogEntry

PRIMARY_KEYS = ("id",)
_KEYS = (*PRIMARY_KEYS, REPLICATION_KEY)


def contacts_schema(config: Mapping[str, Any]) -> dict[str, Any]:
    """The stream's schema for settings that may be invalid.

    Returns:
        `schemas/contacts.json` without the optional fields whose setting is off, and without
        `$schema`, as some targets accept draft 4 only.
    """
    text = (_directory() / "contacts.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    del schema["$schema"]
    for name, setting in OPTIONAL_FIELDS.items():
        if config.get(setting) is not True:
            del schema["properties"][name]
    return schema


def _directory() -> Traversable:
    """In an installed package the schemas are inside it, in a checkout beside it."""
    inside = resources.files("tap_cometly") / "schemas"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "schemas"


def read_catalog(given: Mapping[str, Any], config: Mapping[str, Any]) -> Catalog:
    """Read a given catalog, and bring its stream in line with the current settings.

    Catalogs are made by discovery, kept, and edited by people or Meltano; the settings may have
    changed since.

    Args:
        given: A catalog as JSON.
        config: The settings.

    Returns:
        The catalog with the replication method that its metadata asks for, and exactly the
        optional fields of the schema.

    Raises:
        TapError: It is not a catalog of this tap, or asks for another replication method or key.
    """
    schema = contacts_schema(config)
    try:
        catalog = Catalog.from_dict(_with_schemas(given, schema))
        entry = catalog.get_stream(STREAM)
        if entry is not None:
            _set_replication(entry, _metadata(given))
    except (AttributeError, KeyError, TypeError, ValueError):
        entry = None
    if entry is None:
        message = (
            f"The --catalog file has no usable stream '{STREAM}'; create one with --discover, "
            "or leave --catalog out."
        )
        raise TapError(message)
    _follow_settings(entry, schema)
    return catalog


def _with_schemas(given: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Give entries with an empty or missing schema the stream's own."""
    streams = [
        entry if (entry.get("schema") or {}).get("properties") else {**entry, "schema": schema}
        for entry in given["streams"]
    ]
    return {**given, "streams": streams}


def _metadata(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The stream's metadata, where the Singer specification has users choose the replication.

    The SDK prefers the values of the entry itself, which are those of discovery.
    """
    for entry in given["streams"]:
        if STREAM in (entry.get("tap_stream_id"), entry.get("stream")):
            for item in entry.get("metadata") or []:
                if not item.get("breadcrumb"):
                    return item.get("metadata") or {}
    return {}


def _set_replication(entry: CatalogEntry, metadata: Mapping[str, Any]) -> None:
    method = (
        metadata.get("replication-method")
        or entry.replication_method
        or metadata.get("forced-replication-method")
        or REPLICATION_INCREMENTAL
    )
    method = str(method).upper()
    if method not in (REPLICATION_INCREMENTAL, REPLICATION_FULL_TABLE):
        message = (
            f"The catalog asks for the replication method '{method}' for '{STREAM}'; it must be "
            f"{REPLICATION_INCREMENTAL} or {REPLICATION_FULL_TABLE}."
        )
        raise TapError(message)
    for key in (metadata.get("replication-key"), entry.replication_key):
        if key not in (None, REPLICATION_KEY):
            message = (
                f"The catalog asks for the replication key '{key}' for '{STREAM}'; it must be "
                f"'{REPLICATION_KEY}'."
            )
            raise TapError(message)
    entry.replication_method, entry.replication_key = method, REPLICATION_KEY


def _follow_settings(entry: CatalogEntry, schema: Mapping[str, Any]) -> None:
    entry.schema.schema = None  # no `$schema`: see contacts_schema
    entry.stream, entry.key_properties = STREAM, PRIMARY_KEYS
    if () not in entry.metadata:  # the SDK selects nothing then, unless there is no metadata at all
        entry.metadata[()] = StreamMetadata(selected=True)
    fields: dict[str, Schema] = entry.schema.properties or {}
    for name in (*_KEYS, *OPTIONAL_FIELDS):
        breadcrumb = ("properties", name)
        if name not in schema["properties"]:
            fields.pop(name, None)
            entry.metadata.pop(breadcrumb, None)
            continue
        if name in _KEYS:  # always selected, even if deselected in the catalog
            entry.metadata[breadcrumb] = Metadata(inclusion=Metadata.InclusionType.AUTOMATIC)
        elif name not in fields:
            entry.metadata[breadcrumb] = Metadata(inclusion=Metadata.InclusionType.AVAILABLE)
        if name not in fields:
            fields[name] = Schema.from_dict(schema["properties"][name])
