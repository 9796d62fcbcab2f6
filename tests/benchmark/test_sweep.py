from dataclasses import replace

import pytest

from ffnet_deploy.benchmark.record import OutputCheck, Setting
from ffnet_deploy.benchmark.sweep import OperatingPoint, best_within, frontier, points
from ffnet_deploy.core.errors import OptionError
from tests.benchmark.runs import make_run, rows, run_of


def point(p95: float, throughput: float, name: str = "a") -> OperatingPoint:
    return OperatingPoint(name, Setting(), p95, p95, throughput)


CURVE = [point(10, 100), point(20, 180), point(15, 90), point(40, 200), point(45, 200)]


def test_only_points_that_nothing_beats_are_on_the_curve() -> None:
    assert frontier(CURVE) == [point(10, 100), point(20, 180), point(40, 200)]
    assert frontier([]) == []


@pytest.mark.parametrize(("budget", "throughput"), [(10, 100), (39.9, 180), (1000, 200)])
def test_the_best_point_holds_the_budget(budget: float, throughput: float) -> None:
    best = best_within(CURVE, budget)
    assert best is not None
    assert best.throughput == throughput
    assert best.p95 <= budget


def test_no_point_may_hold_it() -> None:
    assert best_within(CURVE, 9.9) is None


@pytest.mark.parametrize("budget", [0, -1, float("nan"), float("inf")])
def test_budgets_that_are_no_time_are_refused(budget: float) -> None:
    with pytest.raises(OptionError, match="latency budget"):
        best_within(CURVE, budget)


def test_throughput_counts_images() -> None:
    run = run_of([*rows({"a": 10.0}), *rows({"a": 40.0}, Setting(batch=8))])
    one, eight = points(run)
    assert one.throughput == pytest.approx(100, rel=0.02)
    assert eight.throughput == pytest.approx(200, rel=0.02)
    assert one.median < one.p95


def test_a_wrong_output_is_on_no_curve() -> None:
    run = make_run()
    wrong = replace(run.measurements[1], check=OutputCheck("a", 10.0, None, 99.0, False))
    assert [one.candidate for one in points(replace(run, measurements=(run.measurements[0], wrong)))] == ["a"]
