"""Time as the tap needs it: what time it is, and waiting. Tests pass in a clock of their own."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits."""

    def now(self) -> float:
        """Unix time in seconds."""

    def monotonic(self) -> float:
        """Seconds from some fixed moment; never set back."""

    def sleep(self, seconds: float) -> None:
        """Wait.

        Args:
            seconds: How long; 0 or less does not wait.
        """


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds from some fixed moment; never set back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait.

        Args:
            seconds: How long; 0 or less does not wait.
        """
        if seconds > 0:
            time.sleep(seconds)
