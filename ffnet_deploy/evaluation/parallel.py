"""One data set scored by several processes: a pool on this machine, or those that torchrun started."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.evaluation.datasets import Dataset
from ffnet_deploy.evaluation.evaluate import EvaluateOptions, Evaluation, evaluate, merge


@dataclass(frozen=True)
class World:
    """The processes that torchrun started together.

    Attributes:
        rank: Number of this one.
        size: Number of all.
        local_rank: Number of this one on its machine, which is that of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def of_environment(cls) -> "World":
        """As torchrun says in RANK, WORLD_SIZE and LOCAL_RANK; one process alone where it did not."""
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        return cls(*(int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))


def part_of(options: EvaluateOptions, number: int, parts: int) -> EvaluateOptions:
    """`options` for the images of one part; a state file gets a name of its own."""
    state = options.state
    if state is not None:
        state = state.with_name(f"{state.name}.{number}of{parts}")
    return replace(options, part=(number, parts), state=state)


def evaluate_in_world(
    engine: Engine, dataset: Dataset, options: EvaluateOptions, world: World, progress: Progress = no_progress
) -> Evaluation | None:
    """Score this process's share of `dataset`, and give the whole evaluation to rank 0 and None to the others.

    Raises:
        MissingPackageError: PyTorch, whose gloo carries the results, is not installed.
        Whatever `evaluate` raises.
    """
    torch = optional("torch", extra="convert", purpose="scoring under torchrun")
    distributed = torch.distributed
    distributed.init_process_group("gloo")
    try:
        found = evaluate(engine, dataset, part_of(options, world.rank, world.size), progress)
        gathered: list[Evaluation | None] = [None] * world.size
        distributed.all_gather_object(gathered, found)
    finally:
        distributed.destroy_process_group()
    parts = [part for part in gathered if part is not None]
    return merge(parts, engine.contract) if world.rank == 0 else None


@dataclass(frozen=True)
class PoolEngine:
    """What the engines of a pool are, as one of them describes it: this process opens none.

    Attributes:
        contract: What they take and give.
        name: Runtime and device, for people.
        notes: What to know of their results.
    """

    contract: Contract
    name: str
    notes: tuple[str, ...]


class EnginePool:
    """Processes on this machine, each with an engine of its own, that share the images of a data set.

    Args:
        open_engine: Opens the engine; it is pickled.
        processes: Number of processes.

    Raises:
        Whatever `open_engine` raises.
    """

    def __init__(self, open_engine: Callable[[], Engine], processes: int) -> None:
        self._processes = processes
        context = multiprocessing.get_context("spawn")  # runtimes do not survive a fork
        self._pool = context.Pool(processes, _begin, (open_engine,))
        try:
            self.engine: PoolEngine = self._pool.apply(_describe)
        except BaseException:
            self._pool.terminate()
            raise

    def evaluate(self, dataset: Dataset, options: EvaluateOptions, progress: Progress = no_progress) -> Evaluation:
        """Score `dataset`; `progress` is called with the images done.

        Raises:
            Whatever `evaluate` raises in one of the processes.
        """
        done = 0
        parts: dict[int, Evaluation] = {}
        work = partial(_score_part, dataset, options, self._processes)
        for number, found in self._pool.imap_unordered(work, range(self._processes)):
            parts[number] = found
            done += found.images
            progress(f"scoring in {self._processes} processes", done, len(dataset.limited(options.limit)))
        return merge([parts[number] for number in range(self._processes)], self.engine.contract)

    def __enter__(self) -> "EnginePool":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.terminate()


class _Worker:
    """What a process of a pool keeps: how to open its engine, and the engine once it is needed."""

    open_engine: Callable[[], Engine]

    @cached_property
    def engine(self) -> Engine:
        return self.open_engine()


_worker = _Worker()


def _begin(open_engine: Callable[[], Engine]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends its pool
    _worker.open_engine = open_engine


def _describe() -> PoolEngine:
    return PoolEngine(_worker.engine.contract, _worker.engine.name, _worker.engine.notes)


def _score_part(dataset: Dataset, options: EvaluateOptions, processes: int, number: int) -> tuple[int, Evaluation]:
    return number, evaluate(_worker.engine, dataset, part_of(options, number, processes))
