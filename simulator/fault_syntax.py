"""Faults as text, for the command line: `download cut at=1000 times=3`."""

from __future__ import annotations

import inspect
import shlex
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import msgspec

from simulator import faults as fault_module
from simulator.faults import ApiFault, DownloadFault, ExportFault, Fault, FileFault, Layout
from simulator.files import FileLayout
from simulator.presets import PRESETS

if TYPE_CHECKING:
    from simulator.faults import Faults

_BASES = {Fault, ApiFault, DownloadFault, ExportFault, FileFault}


class _CommonOptions(msgspec.Struct):
    """The options of all faults."""

    times: int | Literal["all"] = 1
    after: int = 0
    longer_than_hours: float = 0


def add_from_text(faults: Faults, text: str) -> None:
    """Add a fault written as `<endpoint> <name> [option=value ...]`.

    The name is that of a fault or a preset. The options are those of the fault (of `FileLayout` for
    `layout`), and `times` (a number or `all`), `after` and `longer_than_hours`, which matches only
    exports with longer windows.

    Args:
        faults: The faults to add it to.
        text: For example `download cut at=1000 times=3`; values with spaces need quotes.

    Raises:
        ValueError: The fault, the endpoint or an option is invalid.
    """
    match shlex.split(text):
        case ["create" | "poll" | "download" as endpoint, name, *pairs]:
            options = dict(_option(pair) for pair in pairs)
        case _:
            message = (
                f"{text!r} is not of the form 'create|poll|download <name> [option=value ...]'"
            )
            raise ValueError(message)
    shared = {key: options.pop(key) for key in _CommonOptions.__struct_fields__ if key in options}
    try:
        common = msgspec.convert(shared, _CommonOptions)
        fault = _fault(name, options)
    except msgspec.ValidationError as error:
        message = f"{text!r}: {error}"
        raise ValueError(message) from error
    longer = timedelta(hours=common.longer_than_hours)
    faults.add(
        endpoint,
        fault,
        times=None if common.times == "all" else common.times,
        after=common.after,
        when=(lambda request: request.window > longer) if longer else None,
    )


def describe() -> str:
    """A list of all faults: their endpoints, names, options and descriptions."""
    lines = []
    for name, fault_class in _classes().items():
        options = " ".join(_options(FileLayout if fault_class is Layout else fault_class))
        lines.append(f"{'/'.join(fault_class.endpoints)}: {name} {options}".rstrip())
        lines.append(f"    {(inspect.getdoc(fault_class) or '').splitlines()[0]}")
    for name, preset in PRESETS.items():
        lines.append(f"{'/'.join(preset.endpoints)}: {name}")
        lines.append(f"    {preset.description} A preset of {preset.fault.name()}.")
    return "\n".join([*lines, f"Options of all faults: {' '.join(_options(_CommonOptions))}"])


def _fault(name: str, options: dict[str, object]) -> Fault:
    classes = _classes()
    if name in PRESETS:
        preset = PRESETS[name].fault
        fault_class = type(preset)
        defaults = msgspec.structs.asdict(preset.layout if isinstance(preset, Layout) else preset)
        options = defaults | options
    elif name in classes:
        fault_class = classes[name]
    else:
        message = f"{name!r} is not a fault; choose from {', '.join([*classes, *PRESETS])}"
        raise ValueError(message)
    return msgspec.convert({"layout": options} if fault_class is Layout else options, fault_class)


def _classes() -> dict[str, type[Fault]]:
    """The fault classes by name, in the order of their module."""
    return {
        fault_class.name(): fault_class
        for fault_class in vars(fault_module).values()
        if isinstance(fault_class, type)
        and issubclass(fault_class, Fault)
        and fault_class not in _BASES
    }


def _option(pair: str) -> tuple[str, object]:
    """Parse a value as JSON; if it is not valid JSON, it is a string."""
    key, _, text = pair.partition("=")
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        value = text
    # msgspec would decode these strings as base64.
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
    text = value.decode() if isinstance(value, bytes) else value
    return msgspec.json.encode(text).decode()
