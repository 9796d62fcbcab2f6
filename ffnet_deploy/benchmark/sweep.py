"""The settings of a sweep, and what it found: throughput against latency, and the best point within a budget."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from ffnet_deploy.benchmark.record import BenchRun, Setting
from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.errors import OptionError


@dataclass(frozen=True)
class Grid:
    """Every combination of these.

    Attributes:
        batches: Numbers of images per call; empty: what the candidates are made for.
        sizes: (height, width) in pixels; empty: what the candidates are made for.
        threads: CPU threads within a call; 0: all cores.
        streams: Numbers of calls in flight at a time.
    """

    batches: Sequence[int] = ()
    sizes: Sequence[tuple[int, int]] = ()
    threads: Sequence[int] = (0,)
    streams: Sequence[int] = (1,)

    def __post_init__(self) -> None:
        if not self.threads or min(self.threads) < 0:
            raise OptionError(f"threads must be 0 (all cores) or more: got {list(self.threads)}")
        for name, values in (("batch sizes", self.batches), ("streams", self.streams)):
            if any(value < 1 for value in values) or not (values or name == "batch sizes"):
                raise OptionError(f"{name} must be at least 1: got {list(values)}")

    @property
    def openings(self) -> list[tuple[int, int]]:
        """(threads, streams) with which the candidates are opened, one after the other."""
        return list(product(self.threads, self.streams))

    def settings(self, contracts: Sequence[Contract], threads: int, streams: int) -> list[Setting]:
        """The points for one opening of candidates with these contracts."""
        # unless named: the batch of the first candidate that takes only one, else the least that all take
        fixed = [contract.batch.opt for contract in contracts if contract.batch.is_fixed]
        batches = self.batches or [fixed[0] if fixed else max(contract.batch.min for contract in contracts)]
        sizes = self.sizes or [_own_size(contracts)]
        return [Setting(batch, *size, threads, streams) for size in sizes for batch in batches]


def _own_size(contracts: Sequence[Contract]) -> tuple[int, int]:
    """The size of the first candidate that takes only one, else the typical one of the last.

    The last, because PyTorch, which takes any size, comes first.
    """
    fixed = [contract for contract in contracts if contract.height.is_fixed and contract.width.is_fixed]
    chosen = fixed[0] if fixed else contracts[-1]
    return chosen.height.opt, chosen.width.opt


@dataclass(frozen=True)
class OperatingPoint:
    """A point of the curve.

    Attributes:
        candidate: Name of the candidate.
        setting: Batch size, input size, threads and streams.
        median: Median latency of a call in milliseconds.
        p95: Latency in milliseconds that 95 % of the calls hold; a latency budget is compared with it.
        throughput: Images per second.
    """

    candidate: str
    setting: Setting
    median: float
    p95: float
    throughput: float


def points(run: BenchRun) -> list[OperatingPoint]:
    """Every measurement that has samples and the right output."""
    return [
        OperatingPoint(row.candidate, row.setting, row.summary.median, row.summary.p95, row.throughput)
        for row in run.measurements
        if row.summary is not None and row.throughput is not None and (row.check is None or row.check.passed)
    ]


def frontier(candidates: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    """The points that no other one beats in both latency and throughput, by rising latency."""
    best: list[OperatingPoint] = []
    for point in sorted(candidates, key=lambda one: (one.p95, -one.throughput)):
        if not best or point.throughput > best[-1].throughput:
            best.append(point)
    return best


def best_within(candidates: Sequence[OperatingPoint], budget_ms: float) -> OperatingPoint | None:
    """The point of the highest throughput whose 95th percentile of latency is within `budget_ms`; None: there is none.

    Raises:
        OptionError: the budget is no time.
    """
    if not 0 < budget_ms < float("inf"):
        raise OptionError(f"a latency budget is a time in milliseconds above 0: got {budget_ms}")
    fitting = [point for point in candidates if point.p95 <= budget_ms]
    return max(fitting, key=lambda point: point.throughput, default=None)
