"""The private members of the Singer SDK that the tap relies on: few, and all listed here."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from singer_sdk import Stream, Tap
from singer_sdk.contrib.msgspec import MsgSpecWriter
from singer_sdk.mapper import PluginMapper
from singer_sdk.streams._state import StreamStateManager

from tap_cometly.streams import ContactsStream
from tap_cometly.tap import TapCometly

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parent.parent / "tap_cometly"


def trees() -> Iterator[ast.Module]:
    """The tap's modules."""
    for path in sorted(PACKAGE.glob("*.py")):
        yield ast.parse(path.read_text(encoding="utf-8"))


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module that are not for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from runtime_nodes(node)


def private_members(owner: type) -> set[str]:
    """The private members of an SDK class: those of its body, and those its methods set."""
    found = set()
    for base in owner.__mro__:
        if base.__module__.startswith("singer_sdk"):
            path = Path(inspect.getfile(base))
            found |= {
                node.attr
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            }
            found |= set(vars(base))
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def test_one_private_member_of_the_sdk_is_overridden() -> None:
    overridden = {
        f"{ours.__name__}.{name}"
        for ours, theirs in ((ContactsStream, Stream), (TapCometly, Tap))
        for name in vars(ours).keys() & private_members(theirs)
        if callable(vars(ours)[name])
    }

    assert overridden == {"ContactsStream._generate_record_messages"}


def test_one_private_module_of_the_sdk_is_imported_at_run_time() -> None:
    imported = {
        node.module
        for tree in trees()
        for node in runtime_nodes(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("singer_sdk")
        if "._" in (node.module or "")
    }

    assert imported == {"singer_sdk.streams._state"}


def test_what_the_tap_relies_on_is_still_there() -> None:
    assert callable(Stream._generate_record_messages)  # noqa: SLF001
    assert callable(MsgSpecWriter.format_message)
    assert callable(PluginMapper.register_raw_stream_schema)
    assert "state_manager" in vars(Stream)
    assert {"finalize_state", "increment_state", "write_starting_replication_value"} <= set(
        vars(StreamStateManager)
    )
