"""The private members of the Singer SDK that the tap overrides or uses: all of them, as they were.

The SDK may change these without a word. Whoever raises its version, and finds a test here red,
reads what changed, compares it with what the tap's override replaces, and renews the digest.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from singer_sdk import Stream, Tap
from singer_sdk.configuration import _dict_config
from singer_sdk.contrib.msgspec import MsgSpecWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parent.parent / "tap_cometly"

PRIVATE = {
    # The loop over records, and what it does for each: replaced, or called for single records.
    "Stream._sync_records": "8928dc7f50e9",
    "Stream._generate_record_messages": "9b5f9fbcdedb",
    # The bookkeeping by records: switched off.
    "Stream._process_record": "8529b9f3ce2f",
    "Stream._increment_stream_state": "cabc0edb2fd4",
    "Stream._write_starting_replication_value": "0a24e5d05cd5",
    "Stream._write_state_message": "f82ecd8d1698",
    # Settings, their errors, and signals: replaced by what the contract wants.
    "Tap._validate_config": "0584b9e347e3",
    "Tap._env_var_config": "4e00272a5767",
    "Tap._handle_termination": "2bb79ae47769",
}
"""Members that the tap overrides, by the digest of the SDK's own version."""

PRIVATE_DATA = {
    "Stream._stream_version",
    "Stream._tap",
    "Tap._config",
    "Tap._env_var_prefix",
}
"""Attributes that the tap reads."""

RELIED_ON = {
    # When these write STATE, and in what order they call the members above.
    "Stream.sync": "6b4262dcdddf",
    "Stream._sync_batches": "a42df0f3a087",
    "Stream._write_record_message": "292b7bed3988",
    "Stream._finalize_state": "e08e1d0714a9",
    "Tap.sync_all": "e4412393757b",
}
"""Members that the tap leaves alone but that its promises about STATE depend on."""


def _digest(member: str) -> str:
    owner, name = member.split(".")
    found: Any = inspect.getattr_static({"Stream": Stream, "Tap": Tap}[owner], name)
    source = inspect.getsource(getattr(found, "fget", found))
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def _names_in_the_tap() -> set[str]:
    """Every attribute that the tap's code defines or names, as an attribute or a string."""
    names = set()
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                names.add(node.attr)
            elif isinstance(node, ast.FunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value)
    return names


def _private_members(owner: type) -> Iterator[str]:
    """The private members of an SDK class: those of its body, and those its methods set."""
    for base in owner.__mro__:
        if not base.__module__.startswith("singer_sdk"):
            continue
        for node in ast.walk(ast.parse(Path(inspect.getfile(base)).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                yield node.attr
        yield from vars(base)


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize(("member", "digest"), [*PRIVATE.items(), *RELIED_ON.items()])
def test_the_sdk_did_not_change_what_the_tap_replaces_or_relies_on(
    member: str, digest: str
) -> None:
    assert _digest(member) == digest, f"singer-sdk changed {member}: read this file's first lines"


def test_all_private_members_of_the_sdk_that_the_tap_touches_are_listed() -> None:
    touched = {
        f"{owner.__name__}.{name}"
        for owner in (Stream, Tap)
        for name in _names_in_the_tap() & set(_private_members(owner))
        if _is_private(name)
    }

    # Both classes keep their settings in `_config`.
    assert touched - {"Stream._config"} == {*PRIVATE, *PRIVATE_DATA}


@pytest.mark.parametrize("member", sorted(PRIVATE_DATA))
def test_attributes_that_the_tap_reads_are_still_set_by_the_sdk(member: str) -> None:
    owner, name = member.split(".")

    assert name in set(_private_members({"Stream": Stream, "Tap": Tap}[owner]))


def test_the_sdks_message_writer_still_formats_messages_apart_from_writing_them() -> None:
    assert callable(MsgSpecWriter.format_message)


def test_the_private_names_that_the_tap_imports_from_the_sdk_are_these() -> None:
    imported = {
        f"{node.module}.{alias.name}"
        for path in PACKAGE.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("singer_sdk")
        for alias in node.names
        if "._" in f"{node.module}.{alias.name}"
    }

    assert imported == {
        "singer_sdk.configuration._dict_config.TRUTHY",
        "singer_sdk.helpers._batch.BaseBatchFileEncoding",  # for a type
        "singer_sdk.helpers._batch.BatchConfig",  # for a type
        "singer_sdk.plugin_base._ConfigInput",
    }


def test_the_sdk_still_takes_these_words_for_true_in_the_environment() -> None:
    assert _dict_config.TRUTHY == ("true", "1", "yes", "on")
