"""Taking samples: warm-up, then rounds in which every candidate has its turn, so that drift hits all alike.

Source: what NVIDIA's trtexec does (warm-up by time, at least a duration and a number of runs, percentiles, spread),
with the candidates interleaved in random order.
"""

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Protocol

import numpy as np

from ffnet_deploy.benchmark.record import Samples, TimingMethod
from ffnet_deploy.core.progress import Progress, no_progress

Step = Callable[[], float | None]
"""One call of a candidate, complete when it returns; gives the device's own time in milliseconds where it has one."""

_MOST_RUNS = 2000
"""Runs in one turn at most: beyond, a turn is longer than the disturbances that turns are to share."""
_PATIENCE = 20
"""Times as many rounds as asked for, at most, where the warm-up was misleading about how long a run takes."""
_NANO = 1e6
"""Nanoseconds in a millisecond."""


class Clock(Protocol):
    """Something that tells the time."""

    def now(self) -> int:
        """Nanoseconds since some moment."""
        ...


class HostClock:
    """The host's clock of the highest resolution; it never runs backwards."""

    now = staticmethod(time.perf_counter_ns)


@dataclass(frozen=True)
class Workload:
    """What is called to time a candidate.

    Attributes:
        name: Name of the candidate.
        steps: One call per stream; streams run at the same time, each in a thread of its own.
        calls: Number of runs of the network in a step; samples are divided by it.
    """

    name: str
    steps: Sequence[Step]
    calls: int = 1


@dataclass
class CandidateSamples:
    """The samples of one candidate, one list for each round.

    Attributes:
        name: Name of the candidate.
        rounds: Times by the host's clock, milliseconds.
        device: Times of the same calls by the device's events, milliseconds; empty lists where there are none.
        wall_ns: Duration of the counted turns, nanoseconds.
        error: Why it ended early.
    """

    name: str
    rounds: list[list[float]] = field(default_factory=list)
    device: list[list[float]] = field(default_factory=list)
    wall_ns: int = 0
    error: str | None = None

    @property
    def count(self) -> int:
        """Number of samples."""
        return sum(len(one) for one in self.rounds)

    @property
    def milliseconds(self) -> tuple[Samples, ...]:
        """Host times as the record keeps them."""
        return _frozen(self.rounds)

    @property
    def device_milliseconds(self) -> tuple[Samples, ...]:
        """Device times as the record keeps them; empty where there are none."""
        return _frozen(self.device) if any(self.device) else ()


@dataclass(frozen=True)
class InterleavedRun:
    """The samples of all candidates.

    Attributes:
        samples: Samples of each candidate, in the order of the workloads.
        interrupted: Whether the run was stopped early.
    """

    samples: tuple[CandidateSamples, ...]
    interrupted: bool = False


@dataclass(frozen=True)
class _Pace:
    """Number of counted and uncounted calls in each turn of a workload."""

    counted: int
    uncounted: int


def run_interleaved(
    workloads: Sequence[Workload],
    method: TimingMethod,
    clock: Clock | None = None,
    progress: Progress = no_progress,
    stage: str = "timing",
) -> InterleavedRun:
    """Time `workloads` against each other.

    A workload whose call fails is left out from then on; its samples are kept, and the others go on. A run that is
    stopped by hand keeps the samples of all; the `KeyboardInterrupt` is not raised again.
    """
    clock = clock or HostClock()
    taken = tuple(CandidateSamples(workload.name) for workload in workloads)
    try:
        with _no_collection():
            paces = [_warm_up(workload, own, method, clock) for workload, own in zip(workloads, taken, strict=True)]
            _run_rounds(workloads, taken, paces, method, clock, progress, stage)
    except KeyboardInterrupt:
        return InterleavedRun(taken, interrupted=True)
    return InterleavedRun(taken)


def _run_rounds(
    workloads: Sequence[Workload],
    taken: Sequence[CandidateSamples],
    paces: Sequence[_Pace | None],
    method: TimingMethod,
    clock: Clock,
    progress: Progress,
    stage: str,
) -> None:
    order = np.random.default_rng(method.seed)
    for done in range(method.rounds * _PATIENCE):
        if done >= method.rounds and all(
            one.error is not None or (one.count >= method.samples and one.wall_ns >= method.seconds * 1000 * _NANO)
            for one in taken
        ):
            return
        for index in order.permutation(len(workloads)):
            pace = paces[index]
            if pace is not None and taken[index].error is None:
                _take_turn(workloads[index], taken[index], pace, clock)
        progress(stage, min(done + 1, method.rounds), method.rounds)


def _warm_up(workload: Workload, taken: CandidateSamples, method: TimingMethod, clock: Clock) -> _Pace | None:
    """Run `workload` until it is warm. Returns its pace, or None where it fails."""
    times: list[float] = []
    begin = clock.now()
    try:
        while len(times) < max(method.warmup_runs, 1) or clock.now() - begin < method.warmup_ms * _NANO:
            start = clock.now()
            for step in workload.steps:
                step()
            times.append((clock.now() - start) / _NANO / len(workload.steps))
    except Exception as error:  # what devices and runtimes raise shares no base
        taken.error = _reason(error)
        return None
    # the fastest run: what disturbs the warm-up makes runs longer, never shorter
    return _pace(max(min(times), 1e-6), method)


def _pace(fastest: float, method: TimingMethod) -> _Pace:
    """The pace of a workload whose call takes `fastest` milliseconds."""
    by_time = math.ceil(method.seconds * 1000 / method.rounds / fastest)
    by_count = math.ceil(method.samples / method.rounds)
    settling = math.ceil(method.settle_ms / fastest) if fastest < method.settle_ms else 0
    return _Pace(min(max(by_time, by_count), max(_MOST_RUNS, by_count)), min(settling, _MOST_RUNS))


def _take_turn(workload: Workload, taken: CandidateSamples, pace: _Pace, clock: Clock) -> None:
    samples: list[float] = []
    device: list[float] = []
    taken.rounds.append(samples)
    taken.device.append(device)
    try:
        for _ in range(pace.uncounted):
            workload.steps[0]()
        begin = clock.now()
        try:
            if len(workload.steps) == 1:
                _run(workload.steps[0], pace.counted, clock, samples, device)
            else:
                _run_together(workload.steps, pace.counted, clock, samples, device)
        finally:
            taken.wall_ns += clock.now() - begin
            if workload.calls > 1:
                samples[:] = [sample / workload.calls for sample in samples]
    except Exception as error:  # what devices and runtimes raise shares no base
        taken.error = _reason(error)


def _run(step: Step, runs: int, clock: Clock, samples: list[float], device: list[float]) -> None:
    now = clock.now
    for _ in range(runs):
        start = now()
        own = step()
        samples.append((now() - start) / _NANO)
        if own is not None:
            device.append(own)


def _run_together(steps: Sequence[Step], runs: int, clock: Clock, samples: list[float], device: list[float]) -> None:
    """`_run` of every step at the same time; the runs are shared out."""
    stop = Event()

    def work(step: Step) -> None:
        for _ in range(math.ceil(runs / len(steps))):
            if stop.is_set():
                return
            _run(step, 1, clock, samples, device)

    with ThreadPoolExecutor(len(steps)) as pool:
        try:
            for one in [pool.submit(work, step) for step in steps]:
                one.result()
        except BaseException:  # Ctrl-C too: without it the others would go on to their end
            stop.set()
            raise


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector, whose pauses would land in samples at random, from running in the block."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _frozen(rounds: list[list[float]]) -> tuple[Samples, ...]:
    return tuple(tuple(round(value, 6) for value in one) for one in rounds)
