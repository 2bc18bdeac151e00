"""The command `tap-cometly`, from its first moment to its exit code."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

from tap_cometly.signals import Stopped


def main() -> NoReturn:
    """Run the command line; end with 0 only when all was done, else with one sentence why not."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _stop)
    try:
        from tap_cometly.command import run  # noqa: PLC0415 - takes long enough for a signal to come

        exit_code = run()
    except Stopped as stopped:
        sys.stderr.write(f"{stopped}\n")
        exit_code = stopped.exit_code
    sys.exit(exit_code)


def _stop(signum: int, _: object) -> NoReturn:
    """End the run: until there is a tap, which has a handler of its own, nothing can be cut."""
    raise Stopped(signum)


if __name__ == "__main__":
    main()
