"""The tap uses singer-sdk through its public API, with one private override and one import.

The SDK may change both in any release. These tests keep their number from growing.
"""

from __future__ import annotations

import ast
import inspect
from typing import TYPE_CHECKING

from tap_cometly.command import Command
from tap_cometly.messages import MessageWriter
from tap_cometly.state import WindowStateManager
from tap_cometly.streams import ContactsStream
from tap_cometly.tap import TapCometly
from tests.test_project import MODULES, imports

if TYPE_CHECKING:
    from collections.abc import Iterator

PRIVATE_IMPORT = "singer_sdk.streams._state"
PRIVATE_OVERRIDE = "ContactsStream._generate_record_messages"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def names_in(owner: type) -> Iterator[str]:
    """The methods of a class, and the attributes used in them."""
    for node in ast.walk(ast.parse(inspect.getsource(owner))):
        match node:
            case ast.FunctionDef(name=name):
                yield name
            case ast.Attribute(value=ast.Name(id="self" | "cls") | ast.Call(), attr=name):
                yield name


def members_of_the_sdk(owner: type) -> Iterator[str]:
    """The members of a class's bases in the SDK, and the attributes that the bases set."""
    for base in owner.__mro__:
        if base.__module__.startswith("singer_sdk"):
            yield from vars(base)
            for node in ast.walk(ast.parse(inspect.getsource(base))):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                    yield node.attr


def test_one_private_member_of_the_sdk_is_used() -> None:
    used = {
        f"{owner.__name__}.{name}"
        for owner in (TapCometly, Command, ContactsStream, WindowStateManager, MessageWriter)
        for name in {*names_in(owner)} & {*members_of_the_sdk(owner)}
        if is_private(name)
    }

    assert used == {PRIVATE_OVERRIDE}


def test_one_private_module_of_the_sdk_is_imported_when_the_tap_runs() -> None:
    imported = {name for path in MODULES for name in imports(path)}
    private = {name for name in imported if name.startswith("singer_sdk.") and "._" in name}

    assert private == {PRIVATE_IMPORT, f"{PRIVATE_IMPORT}.StreamStateManager"}
