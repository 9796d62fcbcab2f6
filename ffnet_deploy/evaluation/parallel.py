"""One data set scored by several processes: a pool on this machine, or those that torchrun started."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

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


def evaluate_in_processes(
    open_engine: Callable[[], Engine],
    dataset: Dataset,
    options: EvaluateOptions,
    processes: int,
    contract: Contract,
    progress: Progress = no_progress,
) -> Evaluation:
    """Score `dataset` in a pool of processes, each with an engine of its own.

    Args:
        open_engine: Opens the engine; it is pickled.
        dataset: Images.
        options: How to score.
        processes: Number of processes.
        contract: Of the network.
        progress: Told of the images done.

    Raises:
        Whatever `evaluate` raises in one of them.
    """
    context = multiprocessing.get_context("spawn")  # runtimes do not survive a fork
    done = 0
    parts: dict[int, Evaluation] = {}
    with context.Pool(processes, _ignore_interrupts) as pool:  # leaving the block ends the processes
        work = partial(_score_part, open_engine, dataset, options, processes)
        for number, found in pool.imap_unordered(work, range(processes)):
            parts[number] = found
            done += found.images
            progress(f"scoring in {processes} processes", done, len(dataset.limited(options.limit)))
    return merge([parts[number] for number in range(processes)], contract)


def _score_part(
    open_engine: Callable[[], Engine], dataset: Dataset, options: EvaluateOptions, processes: int, number: int
) -> tuple[int, Evaluation]:
    with open_engine() as engine:
        return number, evaluate(engine, dataset, part_of(options, number, processes))


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends its pool
