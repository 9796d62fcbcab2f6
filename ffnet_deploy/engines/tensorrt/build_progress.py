"""A build that can be watched and called off."""

import threading
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from ffnet_deploy.core import stopping
from ffnet_deploy.core.progress import Progress
from ffnet_deploy.engines.tensorrt.variant import has

Result = TypeVar("Result")
_PAUSE = 0.1


class BuildPhases:
    """How far a build is, from the phases that TensorRT reports: each has steps, and phases may lie within a step."""

    def __init__(self) -> None:
        self._phases: dict[str, tuple[str | None, int, int]] = {}

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Phase `name` of so many steps begins, within a step of `parent`."""
        self._phases[name] = (parent, max(steps, 1), 0)

    def step(self, name: str, step: int) -> None:
        """Step number `step` of the phase `name` is done."""
        if name in self._phases:
            parent, steps, _ = self._phases[name]
            self._phases[name] = (parent, steps, min(step + 1, steps))

    def finish(self, name: str) -> None:
        """The phase `name` is over."""
        self._phases.pop(name, None)

    @property
    def share(self) -> float:
        """Share done, 0 to 1."""
        return self._share(None)

    @property
    def current(self) -> str:
        """Name of the phase that began last."""
        return next(reversed(self._phases), "")

    def _share(self, parent: str | None) -> float:
        inner = [(name, steps, done) for name, (above, steps, done) in self._phases.items() if above == parent]
        if not inner:
            return 0.0
        name, steps, done = inner[-1]
        return min((done + self._share(name)) / steps, 1.0)


def progress_monitor(trt: Any, progress: Progress, stop: threading.Event) -> Any:
    """What tells `progress` how far a build is and calls it off when `stop` is set; None where a version has none."""
    if not has(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the base is known only at run time
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases, self.furthest = BuildPhases(), 0.0

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self.phases.start(name, parent, steps)

        def step_complete(self, name: str, step: int) -> bool:
            self.phases.step(name, step)
            self.furthest = max(self.furthest, self.phases.share)
            if not stop.is_set():
                progress(f"building: {self.phases.current.lower()}", self.furthest, 1.0)
            return not stop.is_set()

        def phase_finish(self, name: str) -> None:
            self.phases.finish(name)

    return Monitor()


def run_stoppable(work: Callable[[], Result], stop: threading.Event) -> Result:
    """The result of `work`, run in a thread of its own so that Ctrl-C is heard at once.

    Ctrl-C sets `stop` and waits until `work` has come to its end; a second one waits no longer.
    """
    outcome: list[Result] = []
    failure: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # raised again in the calling thread
            # TensorRT's objects among the locals must go now: at the interpreter's end they would crash it
            traceback.clear_frames(error.__traceback__)
            failure.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name="engine build", daemon=True).start()
    # not Thread.join: interrupted by a signal, Python 3.11's takes a running thread for one that has ended
    try:
        while not done.wait(_PAUSE):
            stopping.check()
    except BaseException:
        stop.set()
        while not done.wait(_PAUSE):
            pass
        raise
    if failure:
        raise failure[0]
    return outcome[0]
