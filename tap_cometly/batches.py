"""Contacts in JSON Lines files, for targets that read BATCH messages.

The SDK's own writer encodes record by record, and ignores the setting for compression.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

try:
    from isal import igzip as gzip
except ImportError:  # no wheel for this platform
    import gzip  # type: ignore[no-redef]

from tap_cometly.errors import TapError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from singer_sdk.helpers._batch import BatchConfig

    _T = TypeVar("_T")


def write_jsonl(
    blocks: Iterable[list[_T]],
    encode: Callable[[list[_T]], bytes],
    batch_config: BatchConfig,
    name: str,
) -> Iterator[list[str]]:
    r"""Write records into files of `batch_size` records each, the last one smaller.

    Args:
        blocks: Records, in blocks of any size.
        encode: Encodes records as lines, each ended by `\n`.
        batch_config: Where to write, how many records a file has, whether it is compressed.
        name: What the files' names begin with; a unique id and a number follow.

    Yields:
        The URL of each file once it is written, as a one-item list (the manifest).
    """
    prefix = f"{batch_config.storage.prefix or ''}{name}-{uuid4()}"
    number = 0
    lines = bytearray()
    size = room = batch_config.batch_size
    for block in blocks:
        rest = block
        while rest:
            part, rest = rest[:room], rest[room:]
            lines += encode(part)
            room -= len(part)
            if not room:
                number += 1
                yield [_store(bytes(lines), batch_config, f"{prefix}-{number}")]
                lines.clear()
                room = size
    if lines:
        yield [_store(bytes(lines), batch_config, f"{prefix}-{number + 1}")]


def explained(batches: Iterable[list[str]]) -> Iterator[list[str]]:
    """The batches of the SDK's writer, with an error of a library explained.

    Yields:
        The batches.

    Raises:
        TapError: A file could not be written.
    """
    try:
        yield from batches
    except TapError:
        raise
    except Exception as error:  # noqa: BLE001 - libraries raise their own
        why = str(error) if isinstance(error, (ImportError, OSError)) else ""
        raise _not_written(why, error) from None  # other messages may quote a contact


def _not_written(why: str, error: Exception) -> TapError:
    why = why or type(error).__name__
    return TapError(f"A batch file could not be written: {why}; check the setting 'batch_config'.")


def _store(lines: bytes, batch_config: BatchConfig, name: str) -> str:
    """Write a file and return its URL.

    Raises:
        TapError: It could not be written.
    """
    compressed = batch_config.encoding.compression == "gzip"
    filename = f"{name}.json.gz" if compressed else f"{name}.json"
    try:
        with batch_config.storage.open(filename, "wb") as file:
            file.write(gzip.compress(lines) if compressed else lines)
    except Exception as error:  # noqa: BLE001 - storage libraries raise their own
        raise _not_written(getattr(error, "strerror", None) or str(error), error) from None
    return batch_config.storage.get_url(filename)
