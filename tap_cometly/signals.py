"""A signal is a request: it ends a wait at once, but never a write.

Python runs a signal's handler between any two bytecodes, also in the midst of a write. So the
handler only notes the signal, unless the tap is in a stretch that it declared interruptible:
there nothing is written and what was begun may be dropped, so the handler raises.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

_T = TypeVar("_T")


class Stopped(BaseException):
    """The run ends because of a signal. Not an `Exception`: nothing may take it for a fault."""

    def __init__(self, signum: int) -> None:
        """Name the signal.

        Args:
            signum: Its number.
        """
        super().__init__(signum)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """As shells report a program that a signal ended: 128 plus the signal's number."""
        return 128 + self.signum

    def __str__(self) -> str:
        """One sentence for the user."""
        name = signal.Signals(self.signum).name
        return (
            f"Stopped by {name} before the range was complete; start again from the last state "
            "that the target kept, and no contact is missed."
        )


class StopRequest:
    """Remembers whether a signal asked the run to end."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self._signum: int | None = None
        self._interruptible = False

    def request(self, signum: int) -> None:
        """Ask the run to end; a signal handler calls this.

        Args:
            signum: The signal's number.

        Raises:
            Stopped: The tap is in an interruptible stretch.
        """
        self._signum = signum
        if self._interruptible:
            self._interruptible = False
            raise Stopped(signum)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A stretch that writes nothing: a signal before or in it ends it.

        Raises:
            Stopped: A signal asked for it.
        """
        self._interruptible = True
        try:
            if self._signum is not None:
                raise Stopped(self._signum)
            yield
        finally:
            self._interruptible = False

    def drawn_interruptibly(self, items: Iterator[_T]) -> Iterator[_T]:
        """Draw items, each in an interruptible stretch of its own.

        Args:
            items: Where to draw from.

        Yields:
            The items.

        Raises:
            Stopped: A signal asked for it.
        """
        while True:
            with self.interruptible():
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item
