"""Signals: each ends the run soon, but never in the middle of a write.

Python runs a signal handler between any two bytecodes. The handler raises `Stopped`, except while
something is written: then the signal is recorded, and `Stopped` is raised when the write is done.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_REPEAT_SECONDS = 0.5
_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Stopped(BaseException):
    """A signal ends the run. Not an `Exception`, so that no error handling catches it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.exit_code = 128 + signum  # as shells report a process that a signal ended

    def __str__(self) -> str:
        """One sentence for the user."""
        name = signal.Signals(self.args[0]).name
        return (
            f"Stopped by {name} before the range was complete; rerun the tap from the "
            "target's last state: no contact will be missed."
        )


class StopRequest:
    """Turns signals into `Stopped`, outside of writes.

    Python discards an exception that a handler raises inside a `__del__` method or a weak
    reference's callback. So a timer raises `Stopped` again until it is handled.
    """

    def __init__(self) -> None:
        self._signum: int | None = None
        self._deferring = False

    def install(self) -> None:
        """Handle SIGINT, SIGTERM and SIGHUP from now on; SIGHUP stays ignored under `nohup`.

        Only the main thread can: elsewhere this does nothing, like the SDK.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in _SIGNALS:
            if signum in (signal.SIGINT, signal.SIGTERM) or (
                signal.getsignal(signum) is not signal.SIG_IGN
            ):
                signal.signal(signum, self.handle)

    def handle(self, signum: int, frame: FrameType | None = None) -> None:  # noqa: ARG002
        """Record a signal, and end the run unless something is being written.

        A second SIGINT or SIGTERM ends the process at once.

        Raises:
            Stopped: Nothing is being written.
        """
        self._signum = signum
        sys.unraisablehook = _ignore_unraisable
        for other in _SIGNALS:
            ends_at_once = other in (signal.SIGINT, signal.SIGTERM)
            signal.signal(other, signal.SIG_DFL if ends_at_once else signal.SIG_IGN)
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, self._repeat)
            signal.setitimer(signal.ITIMER_REAL, _REPEAT_SECONDS, _REPEAT_SECONDS)
        self._raise_unless_deferring()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let a write finish: a signal that comes in this block takes effect at its end.

        Raises:
            Stopped: A signal came.
        """
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        self._raise_unless_deferring()

    def handled(self) -> None:
        """Stop the timer: `Stopped` has ended the run."""
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _repeat(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._raise_unless_deferring()

    def _raise_unless_deferring(self) -> None:
        if self._signum is not None and not self._deferring:
            raise Stopped(self._signum)


@contextmanager
def blocked() -> Iterator[None]:
    """Block signals until the end of the block, for code that replaces signal handlers."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ignore_unraisable(_: object) -> None:
    """Print no "Exception ignored in …": the signal may interrupt the making of an object."""


STOP = StopRequest()
"""The process's own, installed before the slow imports."""
