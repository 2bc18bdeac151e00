"""The command line as a whole: how a run ends, and the one sentence that says why."""

from __future__ import annotations

import logging
import os
import sys
import traceback

import click
from singer_sdk.exceptions import ConfigValidationError

from tap_cometly.errors import TapError
from tap_cometly.redaction import REDACTOR, clean_all_logs
from tap_cometly.signals import Stopped
from tap_cometly.tap import TapCometly


def run() -> int:
    """Run the command line, and say in one sentence why if not all was done.

    Returns:
        The exit code.
    """
    clean_all_logs()
    try:
        exit_code = _run_command()
        sys.stdout.flush()
    except Stopped as stopped:
        return _last_words(str(stopped), stopped.exit_code)
    except click.ClickException as error:
        return _last_words(error.format_message(), error.exit_code)
    except Exception as error:  # noqa: BLE001 - whatever it is, it ends in one sentence
        return _last_words(_why(error))
    return exit_code


def _why(error: Exception) -> str:
    """Why the run ends, in one sentence; of what nobody foresaw, the place as well."""
    if isinstance(error, (TapError, ConfigValidationError)):
        return str(error)
    if isinstance(error, BrokenPipeError):
        return "The reader of the tap's output went away; nothing is lost by that."
    if isinstance(error, OSError) and error.strerror:
        return (
            f"The machine did not let the tap go on: {error.strerror}; mend that, and start again "
            "from the last state that the target kept."
        )
    # Not the message: who knows what it quotes.
    frames = REDACTOR.clean("".join(traceback.format_tb(error.__traceback__)))
    logging.getLogger(TapCometly.name).error("Unforeseen error:\n%s", frames)
    return (
        f"An unforeseen error ended the run ({type(error).__name__}); please report it with the "
        "lines above."
    )


def _run_command() -> int:
    """Run the command line; not by click's `main`, which ends silently when a pipe is closed."""
    try:
        command = TapCometly.cli
        with command.make_context(TapCometly.name, sys.argv[1:]) as context:
            command.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except SystemExit as end:  # so the SDK ends `--about`
        return int(end.code or 0)
    return 0


def _last_words(sentence: str, exit_code: int = 1) -> int:
    """Say why the run ends, as the last line on stderr."""
    one_line = " ".join(REDACTOR.clean(sentence).split())
    logging.getLogger(TapCometly.name).critical("%s", one_line)
    try:
        sys.stdout.flush()
    except OSError:  # else Python would complain of it on its way out
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return exit_code
