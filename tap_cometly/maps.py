"""Finds the stream map expression that failed, which the SDK's error does not name."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from singer_sdk.mapper import PluginMapper

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from singer_sdk.helpers.types import Record

_SILENT = logging.getLogger(f"{__name__}.silent")
_SILENT.disabled = True


def describe_map_failure(
    config: Mapping[str, Any],
    stream: str,
    schema: dict[str, Any],
    error: Exception,
    record: Record | None = None,
) -> str:
    """Find what failed by applying the expressions one by one.

    Args:
        config: The settings.
        stream: The stream's name.
        schema: Its JSON Schema.
        error: What the SDK raised. Its message may quote the record, if there is one.
        record: The record that failed; None if the maps could not even be set up.

    Returns:
        One sentence that names the property, the expression (the user's own text) and the kind
        of error.
    """
    kind = type(error.__cause__ or error).__name__
    for name, prop, expression, maps in _single_expressions(config.get("stream_maps") or {}):
        try:
            mapper = PluginMapper({**config, "stream_maps": maps}, _SILENT)
            mapper.register_raw_stream_schema(stream, schema, ["id"])
            for stream_map in mapper.stream_maps[stream]:
                if record is not None:
                    stream_map.transform(dict(record))
        except Exception as found:  # noqa: BLE001 - an expression can raise anything
            kind = type(found.__cause__ or found).__name__
            hint = ', and let it handle null, as in "md5(email) if email else None"'
            return (
                f"The stream map {name}.{prop} = {expression!r} failed ({kind}); correct the "
                f"expression{'' if record is None else hint}."
            )
    why = kind if record is not None else str(error).rstrip(".")
    return f"The setting 'stream_maps' is invalid: {why}; check its keys and values."


def _single_expressions(
    stream_maps: Mapping[str, Any],
) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    for name, definition in stream_maps.items():
        if not isinstance(definition, dict):
            continue
        source = {key: value for key, value in definition.items() if key == "__source__"}
        for prop, expression in definition.items():
            if isinstance(expression, str) and prop not in ("__alias__", "__source__", "__else__"):
                yield name, prop, expression, {name: {**source, prop: expression}}
