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
from simulator.presets import PRESETS

if TYPE_CHECKING:
    from simulator.faults import Faults

_PLACES = ("create", "poll", "download")


class _Repetition(msgspec.Struct):
    """The options of every fault."""

    times: int | Literal["all"] = 1
    after: int = 0
    over_hours: float = 0


def add_from_text(faults: Faults, text: str) -> None:
    """Add a fault written as `<where> <name> [option=value ...]`.

    The name is that of a fault or a preset. Options are the fault's own (for `form` those of the
    layout), and `times` (a number or `all`), `after` and `over_hours`: only requests about longer
    windows are affected.

    Args:
        faults: Where to add it.
        text: Such as `download cut at=1000 times=3`; quote a value with blanks.

    Raises:
        ValueError: An unknown fault, a wrong place or an invalid option.
    """
    match shlex.split(text):
        case ["create" | "poll" | "download" as where, name, *pairs]:
            options = dict(_option(pair) for pair in pairs)
        case _:
            message = (
                f"{text!r} is not of the form 'create|poll|download <name> [option=value ...]'"
            )
            raise ValueError(message)
    shared = {key: options.pop(key) for key in _Repetition.__struct_fields__ if key in options}
    try:
        repetition = msgspec.convert(shared, _Repetition)
        fault = _fault(name, options)
    except msgspec.ValidationError as error:
        message = f"{text!r}: {error}"
        raise ValueError(message) from error
    longer = timedelta(hours=repetition.over_hours)
    faults.add(
        where,
        fault,
        times=None if repetition.times == "all" else repetition.times,
        after=repetition.after,
        when=(lambda request: request.window > longer) if longer else None,
    )


def describe() -> str:
    """A list of all faults: where each can be added, its name, its options, what it does."""
    lines = []
    for name, kind in _kinds().items():
        places = "/".join(place for place in _PLACES if place in kind.places)
        options = " ".join(_options(FileForm if kind is Form else kind))
        lines.append(f"{places}: {name} {options}".rstrip())
        lines.append(f"    {(inspect.getdoc(kind) or '').splitlines()[0]}")
    for name, preset in PRESETS.items():
        lines.append(f"{'/'.join(preset.places)}: {name}")
        lines.append(f"    {preset.description} A preset of {preset.fault.name()}.")
    shared = " ".join(_options(_Repetition))
    return "\n".join([*lines, f"Options of all faults: {shared}"])


def _fault(name: str, options: dict[str, object]) -> Fault:
    kinds = _kinds()
    if name in PRESETS:
        preset = PRESETS[name].fault
        kind = type(preset)
        defaults = msgspec.structs.asdict(preset.form if isinstance(preset, Form) else preset)
        options = defaults | options
    elif name in kinds:
        kind = kinds[name]
    else:
        message = f"{name!r} is not a fault; known are {', '.join([*kinds, *PRESETS])}"
        raise ValueError(message)
    return msgspec.convert({"form": options} if kind is Form else options, kind)


def _kinds() -> dict[str, type[Fault]]:
    """Every kind of fault by its name, in the order of their module."""
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
    # msgspec would read text as base64 where bytes belong.
    return key, _encoded(value) if key in {"lines", "newline", "substitutions"} else value


def _encoded(value: object) -> object:
    if isinstance(value, list):
        return [_encoded(item) for item in value]
    return value.encode() if isinstance(value, str) else value


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
