"""Clocks: the host's, and in tests a simulated one."""

import time
from typing import Protocol


class Clock(Protocol):
    """Something that tells the time."""

    def now(self) -> int:
        """Nanoseconds since some moment."""
        ...


class HostClock:
    """The host's clock of the highest resolution; it never runs backwards."""

    now = staticmethod(time.perf_counter_ns)
