import threading
from collections.abc import Callable

import pytest

from ffnet_deploy.engines.tensorrt.build_progress import BuildPhases, run_stoppable


def test_phases_within_phases_add_up() -> None:
    phases, shares = BuildPhases(), list[float]()
    assert phases.share == 0
    phases.start("build", None, 2)
    for step in range(2):
        phases.start("part", "build", 4)
        for inner in range(4):
            phases.step("part", inner)
            shares.append(phases.share)
        phases.finish("part")
        phases.step("build", step)
    assert shares == [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0]
    assert phases.share == 1.0 and phases.current == "build"
    phases.step("unheard of", 3)
    phases.start("empty", "build", 0)
    assert phases.share == 1.0


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def test_results_and_errors_come_back() -> None:
    assert run_stoppable(lambda: 3, threading.Event()) == 3
    with pytest.raises(ValueError, match="no"):
        run_stoppable(raising(ValueError("no")), threading.Event())


def test_work_runs_in_a_thread_of_its_own() -> None:
    assert run_stoppable(threading.current_thread, threading.Event()) is not threading.current_thread()
