"""The points of a sweep."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from ffnet_deploy.benchmark.record import Setting
from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.errors import OptionError


@dataclass(frozen=True)
class Grid:
    """Every combination of these.

    Attributes:
        batches: images per call; empty: what the contenders are made for.
        sizes: (height, width) in pixels; empty: what the contenders are made for.
        threads: CPU threads within a call; 0: all cores.
        streams: calls in flight at a time.
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
        """(threads, streams) with which the contenders are opened, one after the other."""
        return list(product(self.threads, self.streams))

    def settings(self, contracts: Sequence[Contract], threads: int, streams: int) -> list[Setting]:
        """The points for one opening of contenders with these contracts."""
        batches = self.batches or [_own_batch(contracts)]
        sizes = self.sizes or [_own_size(contracts)]
        return [Setting(batch, *size, threads, streams) for size in sizes for batch in batches]


def _own_batch(contracts: Sequence[Contract]) -> int:
    """The batch of the first contender that takes only one, else the least that all take."""
    fixed = [contract.batch.opt for contract in contracts if contract.batch.is_fixed]
    return fixed[0] if fixed else max(contract.batch.min for contract in contracts)


def _own_size(contracts: Sequence[Contract]) -> tuple[int, int]:
    """The size of the first contender that takes only one, else the typical one of the last.

    The last, because PyTorch, which takes any size, comes first.
    """
    fixed = [contract for contract in contracts if contract.height.is_fixed and contract.width.is_fixed]
    chosen = fixed[0] if fixed else contracts[-1]
    return chosen.height.opt, chosen.width.opt
