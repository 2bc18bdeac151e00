"""What a given catalog asks for, where the SDK does not see it.

A catalog is made by discovery, kept, and edited by hand or by Meltano; the settings may have
changed since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_sdk.singerlib import Catalog, Metadata, Schema

from tap_cometly.errors import TapError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from singer_sdk.singerlib import CatalogEntry


def read_catalog(catalog: Mapping[str, Any], stream: str) -> Catalog:
    """Read a given catalog.

    Args:
        catalog: A catalog as JSON.
        stream: The stream that it has to have, selected or not.

    Returns:
        The catalog, its replication methods as metadata ask for.

    Raises:
        TapError: It is no catalog, or none of this tap.
    """
    try:
        read = Catalog.from_dict(_with_asked_replication(catalog))
    except (AttributeError, KeyError, TypeError, ValueError):
        read = Catalog()
    if read.get_stream(stream) is None:
        message = (
            f"The catalog has no stream '{stream}' as this tap knows it; make one with --discover, "
            "or leave --catalog out."
        )
        raise TapError(message)
    return read


def _with_asked_replication(catalog: Mapping[str, Any]) -> dict[str, Any]:
    """Put the replication methods that metadata ask for where the SDK looks for them.

    Singer's specification has users write `replication-method` into a stream's metadata; the SDK
    reads only the entry itself, where discovery wrote its own suggestion.

    Args:
        catalog: A catalog as JSON.

    Returns:
        The catalog with `replication_method` set in the entries whose metadata have one.
    """
    streams = catalog.get("streams", [])
    return {**catalog, "streams": [{**entry, **_asked_replication(entry)} for entry in streams]}


def _asked_replication(entry: Mapping[str, Any]) -> dict[str, str]:
    for item in entry.get("metadata") or []:
        if not item.get("breadcrumb"):
            method = item.get("metadata", {}).get("replication-method")
            return {"replication_method": method} if method else {}
    return {}


def follow_settings(
    entry: CatalogEntry, schema: Mapping[str, Any], optional: Collection[str]
) -> None:
    """Give a catalog's stream the optional fields that today's settings ask for, and no others.

    Args:
        entry: The stream's entry; is changed.
        schema: The stream's JSON Schema under today's settings.
        optional: Fields that come and go with a setting.
    """
    fields = entry.schema.properties
    if fields is None:
        return
    for name in optional:
        breadcrumb = ("properties", name)
        if name not in schema["properties"]:
            fields.pop(name, None)
            entry.metadata.pop(breadcrumb, None)
        elif name not in fields:
            fields[name] = Schema.from_dict(schema["properties"][name])
            entry.metadata[breadcrumb] = Metadata(inclusion=Metadata.InclusionType.AVAILABLE)
