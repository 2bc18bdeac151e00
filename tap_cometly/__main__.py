"""Entry point of the command `tap-cometly`."""

from __future__ import annotations

import sys
from typing import NoReturn

from tap_cometly.signals import STOP, Stopped


def main() -> NoReturn:
    """Run the command line; exit with 0 only if the range is complete."""
    STOP.install()
    try:
        from tap_cometly.command import run  # noqa: PLC0415 - slow, and a signal may come meanwhile

        exit_code = run()
    except Stopped as stopped:
        STOP.handled()
        exit_code = stopped.exit_code
        if sys.stderr is not None:
            sys.stderr.write(f"{stopped}\n")
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
