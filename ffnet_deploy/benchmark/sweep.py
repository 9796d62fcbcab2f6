"""Throughput against latency: which contender at which setting gives the most images within a budget of time."""

from collections.abc import Sequence
from dataclasses import dataclass

from ffnet_deploy.benchmark.record import BenchRun, Setting
from ffnet_deploy.core.errors import OptionError


@dataclass(frozen=True)
class Point:
    """A point of the curve.

    Attributes:
        contender: its name.
        setting: where in the sweep.
        median: latency of a call, milliseconds.
        p95: latency that 95 % of the calls hold, milliseconds: what a budget is held against.
        throughput: images per second.
    """

    contender: str
    setting: Setting
    median: float
    p95: float
    throughput: float


def points(run: BenchRun) -> list[Point]:
    """Every measurement that has samples and the right output."""
    return [
        Point(row.contender, row.setting, row.summary.median, row.summary.p95, row.throughput)
        for row in run.measurements
        if row.summary is not None and row.throughput is not None and (row.check is None or row.check.passed)
    ]


def frontier(candidates: Sequence[Point]) -> list[Point]:
    """The points that no other one beats in both latency and throughput, by rising latency."""
    best: list[Point] = []
    for point in sorted(candidates, key=lambda one: (one.p95, -one.throughput)):
        if not best or point.throughput > best[-1].throughput:
            best.append(point)
    return best


def best_within(candidates: Sequence[Point], budget_ms: float) -> Point | None:
    """The point of the highest throughput whose 95th percentile of latency is within `budget_ms`; None: there is none.

    Raises:
        OptionError: the budget is no time.
    """
    if not 0 < budget_ms < float("inf"):
        raise OptionError(f"a latency budget is a time in milliseconds above 0: got {budget_ms}")
    fitting = [point for point in candidates if point.p95 <= budget_ms]
    return max(fitting, key=lambda point: point.throughput, default=None)
