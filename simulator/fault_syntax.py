"""Faults as text, for the command line: `download cut at=1000 times=3`."""

from __future__ import annotations

import inspect
import shlex
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import msgspec

from simulator import faults as vocabulary
from simulator.faults import ExportFault, Fault, FileFault, Form
from simulator.files import FileForm

if TYPE_CHECKING:
    from simulator.faults import Faults


class _Often(msgspec.Struct):
    """The options that every fault has."""

    times: int | Literal["all"] = 1
    after: int = 0
    over_hours: float = 0


def add_from_text(faults: Faults, text: str) -> None:
    """Add a fault written as `<where> <name> [option=value ...]`.

    Options are the fault's own (for `form` those of a layout), and with every fault `times` (a
    number or `all`), `after` and `over_hours`: only requests about a longer window meet it.

    Args:
        faults: Where to add it.
        text: Such as `download cut at=1000 times=3`; a value with blanks stands in quotes.

    Raises:
        ValueError: The text names no fault, no place, or an option that does not fit.
    """
    match shlex.split(text):
        case ["create" | "poll" | "download" as where, name, *pairs]:
            options = dict(_option(pair) for pair in pairs)
        case _:
            message = (
                f"{text!r} is not of the form 'create|poll|download <name> [option=value ...]'"
            )
            raise ValueError(message)
    kind = _kinds().get(name)
    if kind is None:
        message = f"{name!r} is no fault; known are {', '.join(_kinds())}"
        raise ValueError(message)
    shared = {key: options.pop(key) for key in _Often.__struct_fields__ if key in options}
    try:
        often = msgspec.convert(shared, _Often)
        fault = msgspec.convert({"form": options} if kind is Form else options, kind)
    except msgspec.ValidationError as error:
        message = f"{text!r}: {error}"
        raise ValueError(message) from error
    longer = timedelta(hours=often.over_hours)
    faults.add(
        where,
        fault,
        times=None if often.times == "all" else often.times,
        after=often.after,
        when=(lambda request: request.window > longer) if longer else None,
    )


def describe() -> str:
    """List every kind of fault: where it can be, its name, its options, and what it does."""
    lines = []
    for name, kind in _kinds().items():
        places = "/".join(place for place in ("create", "poll", "download") if place in kind.places)
        options = " ".join(_options(FileForm if kind is Form else kind))
        lines.append(f"{places}: {name} {options}".rstrip())
        lines.append(f"    {(inspect.getdoc(kind) or '').splitlines()[0]}")
    shared = " ".join(_options(_Often))
    return "\n".join([*lines, f"With each of them: {shared}"])


def _kinds() -> dict[str, type[Fault]]:
    """Give every kind of fault by its name, in the order of their module."""
    return {
        kind.name(): kind
        for kind in vars(vocabulary).values()
        if isinstance(kind, type)
        and issubclass(kind, Fault)
        and kind not in {Fault, ExportFault, FileFault}
    }


def _option(pair: str) -> tuple[str, object]:
    """Read a value as JSON (a number, true, false, null, a list); anything else is text."""
    key, _, text = pair.partition("=")
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        value = text
    # What msgspec converts to bytes must be bytes: it would take text for base64.
    match key, value:
        case "newline", str():
            value = value.encode()
        case "lines", list():
            value = [str(line).encode() for line in value]
    return key, value


def _options(struct: type[msgspec.Struct]) -> list[str]:
    return [
        f"{field.name}=…"
        if field.default is msgspec.NODEFAULT
        else f"[{field.name}={_as_text(field.default)}]"
        for field in msgspec.structs.fields(struct)
    ]


def _as_text(value: object) -> str:
    plain = value.decode() if isinstance(value, bytes) else value
    return msgspec.json.encode(plain).decode()
