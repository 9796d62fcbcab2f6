"""Ranges for Nsight Systems: what is timed carries the name of its candidate in the timeline.

Record them with ``nsys profile -t cuda,nvtx ffnet-bench ... --profile-with nsys``.
"""

from collections.abc import Callable
from enum import Enum

from ffnet_deploy.benchmark.interleaved import Step
from ffnet_deploy.core.errors import MissingPackageError
from ffnet_deploy.core.optional import optional


class Profiler(str, Enum):
    """A profiler from outside that the runs are marked for."""

    NSYS = "nsys"
    """NVIDIA Nsight Systems, by NVTX ranges."""


def range_marker(profiler: Profiler | None) -> tuple[Callable[[Step, str], Step], str | None]:
    """What puts a range of a name around each call of a step for `profiler`, and a note on it for the user.

    Without the package that marks ranges the steps stay as they are, and the note says how to install it.
    """
    if profiler is None:
        return _unmarked, None
    try:
        nvtx = optional("nvtx", extra="nsys", purpose="marking ranges for Nsight Systems")
    except MissingPackageError as error:
        return _unmarked, str(error)

    def marked(step: Step, name: str) -> Step:
        def call() -> float | None:
            nvtx.push_range(name, domain="ffnet-bench")
            try:
                return step()
            finally:
                nvtx.pop_range(domain="ffnet-bench")

        return call

    return marked, "every call lies in an NVTX range, and the clock runs while the range is opened and closed"


def _unmarked(step: Step, name: str) -> Step:
    return step
