"""How a run begins and ends: the command line's files, the log level, the last line on stderr."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import IO, Any

import click
from typing_extensions import override

from tap_cometly.errors import TapError
from tap_cometly.redaction import REDACTOR, clean_all_logs
from tap_cometly.signals import STOP, Stopped
from tap_cometly.tap import TapCometly

_LOG_LEVELS = ("TAP_COMETLY_LOGLEVEL", "LOGLEVEL")

logger = logging.getLogger(TapCometly.name)


class Command(TapCometly):
    """All contacts of a Cometly Space, through asynchronous exports."""  # shown by `--about`

    # Files on the command line are read only once, so that they may be pipes.

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(stop=STOP, **kwargs)

    @classmethod
    @override
    def cb_config(cls, ctx: click.Context, param: click.Option, value: tuple[str, ...]) -> Any:
        """Read the files of `--config`; later ones override earlier ones.

        Raises:
            TapError: A file cannot be read or is not a JSON object.
        """
        given = super().cb_config(ctx, param, ("ENV",) if "ENV" in value else ())
        for path in value:
            if path != "ENV":
                given.config.update(_read_config(path))
        return given

    @classmethod
    @override
    def invoke(
        cls, *, state: IO[str] | None = None, catalog: IO[str] | None = None, **kwargs: Any
    ) -> None:
        """Run the tap.

        Raises:
            TapError: A file is not a JSON object.
        """
        super().invoke(
            state=_checked(state, "--state"), catalog=_checked(catalog, "--catalog"), **kwargs
        )


def run() -> int:
    """Run the command line; if it fails, report why in one sentence.

    Returns:
        The exit code.
    """
    clean_all_logs()
    logger.addFilter(lambda record: not record.getMessage().startswith("Skipping parse of env"))
    bad_levels = _drop_bad_log_levels()
    try:
        command = Command.cli  # sets up logging
        logger.disabled = False  # a logging configuration disables existing loggers by default
        for name, level in bad_levels.items():
            logger.warning("Ignoring %s=%s: not a log level like INFO or DEBUG", name, level)
        if sys.stdout is None:
            message = "stdout is closed; run the tap with a target or redirect its output."
            raise TapError(message)  # noqa: TRY301
        exit_code = _invoke(command)
        sys.stdout.flush()
    except Stopped as stopped:
        STOP.handled()
        return _report(str(stopped), stopped.exit_code)
    except click.ClickException as error:
        return _report(error.format_message(), error.exit_code)
    except Exception as error:  # noqa: BLE001 - the last line has to say why
        return _report(_sentence(error))
    return exit_code


def _invoke(command: click.Command) -> int:
    """Run the command without click's `main`, which exits silently when a pipe is closed."""
    try:
        with command.make_context(TapCometly.name, sys.argv[1:]) as context:
            command.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except SystemExit as end:  # the SDK ends `--about` with it
        return int(end.code or 0)
    return 0


def _sentence(error: Exception) -> str:
    if isinstance(error, TapError):
        return str(error)
    if isinstance(error, BrokenPipeError):
        return "The reader of stdout closed the pipe."
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return (
            f"System error: {error.strerror}{where}; fix it, then rerun the tap from the target's "
            "last state."
        )
    # Without the message: it may quote a contact.
    frames = REDACTOR.clean("".join(traceback.format_tb(error.__traceback__)))
    logger.error("Unexpected error:\n%s", frames)
    return f"Unexpected error ({type(error).__name__}); please report it with the lines above."


def _report(sentence: str, exit_code: int = 1) -> int:
    """Write the last line on stderr."""
    one_line = " ".join(REDACTOR.clean(sentence).split())
    logger.critical("%s", one_line)
    try:
        sys.stdout.flush()
    except (OSError, AttributeError):  # else Python reports it again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return exit_code


def _drop_bad_log_levels() -> dict[str, str]:
    """Remove log levels from the environment that the SDK would fail on."""
    known = logging.getLevelNamesMapping()
    bad = {
        name: level
        for name in _LOG_LEVELS
        if (level := os.environ.get(name)) is not None and level.upper() not in known
    }
    for name in bad:
        del os.environ[name]
    return bad


def _read_config(path: str) -> dict[str, Any]:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        message = f"The config file '{path}' cannot be read: {error.strerror}; check --config."
        raise TapError(message) from None
    config = _parse(content, f"config file '{path}'")
    if config is None:
        message = f"The config file '{path}' is empty; it must hold a JSON object."
        raise TapError(message)
    return config


def _checked(file: IO[str] | None, option: str) -> IO[str] | None:
    """Read and check a file; return a copy, or None if it is empty or null."""
    if file is None:
        return None
    content = _parse(file.buffer.read(), f"{option} file")  # type: ignore[attr-defined]
    if content is None:
        return None
    # Replaces lone surrogates, which could not be written.
    text = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace").decode()
    return io.StringIO(text)


def _parse(content: bytes, what: str) -> dict[str, Any] | None:
    """Parse a JSON object in UTF-8, with or without a byte order mark; None if empty or null."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in content[:4]:
        message = f"The {what} is encoded in UTF-16; save it as UTF-8."
        raise TapError(message)
    try:
        text = content.decode("utf-8-sig")
        parsed = json.loads(text) if text.strip() else None
    except (ValueError, RecursionError):
        parsed = []
    if parsed is not None and not isinstance(parsed, dict):
        message = f"The {what} is not a JSON object in UTF-8; check its commas and quotes."
        raise TapError(message)
    return parsed
