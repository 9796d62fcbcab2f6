"""Taking samples: warm-up, then rounds in which every contender has its turn, so that drift hits all alike.

Source: what NVIDIA's trtexec does (warm-up by time, at least a duration and a number of runs, percentiles, spread),
with the contenders interleaved in random order.
"""

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event

import numpy as np

from ffnet_deploy.benchmark.clock import Clock, HostClock
from ffnet_deploy.benchmark.record import Method, Samples
from ffnet_deploy.core.progress import Progress, no_progress

Step = Callable[[], float | None]
"""One call of a contender, complete when it returns; gives the device's own time in milliseconds where it has one."""

"""Called with the number of rounds done and of all."""

_MOST_RUNS = 2000
"""Runs in one turn at most: beyond, a turn is longer than the disturbances that turns are to share."""
_PATIENCE = 20
"""Times as many rounds as asked for, at most, where the warm-up was misleading about how long a run takes."""
_NANO = 1e6
"""Nanoseconds in a millisecond."""


@dataclass(frozen=True)
class Entry:
    """A contender in the race.

    Attributes:
        name: its name.
        steps: what it does, once for each stream; streams run at the same time in threads of their own.
        calls: of the network in a step; samples are divided by it.
    """

    name: str
    steps: Sequence[Step]
    calls: int = 1


@dataclass
class Track:
    """The samples of one contender, one list for each round.

    Attributes:
        name: of the contender.
        rounds: host times, milliseconds.
        device: the device's own times of the same runs, milliseconds; empty lists where there are none.
        wall_ns: time of the counted turns, nanoseconds.
        error: why it ended early.
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
class Race:
    """The samples of all contenders.

    Attributes:
        tracks: in the order of the entries.
        interrupted: stopped by hand.
    """

    tracks: tuple[Track, ...]
    interrupted: bool = False


@dataclass(frozen=True)
class _Pace:
    """How often an entry runs in each of its turns."""

    counted: int
    uncounted: int


def race(
    entries: Sequence[Entry],
    method: Method,
    clock: Clock | None = None,
    progress: Progress = no_progress,
    stage: str = "timing",
) -> Race:
    """Time `entries` against each other.

    An entry whose call fails leaves the race; its samples are kept, and the others go on. So are those of all when the
    race is stopped by hand (`KeyboardInterrupt`), which is not raised again.
    """
    clock = clock or HostClock()
    tracks = tuple(Track(entry.name) for entry in entries)
    try:
        with _no_collection():
            paces = [_warm_up(entry, track, method, clock) for entry, track in zip(entries, tracks, strict=True)]
            _run_rounds(entries, tracks, paces, method, clock, progress, stage)
    except KeyboardInterrupt:
        return Race(tracks, interrupted=True)
    return Race(tracks)


def _run_rounds(
    entries: Sequence[Entry],
    tracks: Sequence[Track],
    paces: Sequence[_Pace | None],
    method: Method,
    clock: Clock,
    progress: Progress,
    stage: str,
) -> None:
    order = np.random.default_rng(method.seed)
    for done in range(method.rounds * _PATIENCE):
        if done >= method.rounds and all(_enough(track, method) for track in tracks):
            return
        for index in order.permutation(len(entries)):
            pace = paces[index]
            if pace is not None and tracks[index].error is None:
                _take_turn(entries[index], tracks[index], pace, clock)
        progress(stage, min(done + 1, method.rounds), method.rounds)


def _enough(track: Track, method: Method) -> bool:
    return track.error is not None or (track.count >= method.samples and track.wall_ns >= method.seconds * 1000 * _NANO)


def _warm_up(entry: Entry, track: Track, method: Method, clock: Clock) -> _Pace | None:
    """Run `entry` until it is warm; how it is to be paced, or None where it fails."""
    times: list[float] = []
    begin = clock.now()
    try:
        while len(times) < max(method.warmup_runs, 1) or clock.now() - begin < method.warmup_ms * _NANO:
            start = clock.now()
            for step in entry.steps:
                step()
            times.append((clock.now() - start) / _NANO / len(entry.steps))
    except Exception as error:  # what devices and runtimes raise shares no base
        track.error = _reason(error)
        return None
    # the fastest run: what disturbs the warm-up makes runs longer, never shorter
    return _pace(max(min(times), 1e-6), method)


def _pace(fastest: float, method: Method) -> _Pace:
    """The pace of an entry whose call takes `fastest` milliseconds."""
    by_time = math.ceil(method.seconds * 1000 / method.rounds / fastest)
    by_count = math.ceil(method.samples / method.rounds)
    settling = math.ceil(method.settle_ms / fastest) if fastest < method.settle_ms else 0
    return _Pace(min(max(by_time, by_count), max(_MOST_RUNS, by_count)), min(settling, _MOST_RUNS))


def _take_turn(entry: Entry, track: Track, pace: _Pace, clock: Clock) -> None:
    samples: list[float] = []
    device: list[float] = []
    track.rounds.append(samples)
    track.device.append(device)
    try:
        for _ in range(pace.uncounted):
            entry.steps[0]()
        begin = clock.now()
        try:
            if len(entry.steps) == 1:
                _run(entry.steps[0], pace.counted, clock, samples, device)
            else:
                _run_together(entry.steps, pace.counted, clock, samples, device)
        finally:
            track.wall_ns += clock.now() - begin
            if entry.calls > 1:
                samples[:] = [sample / entry.calls for sample in samples]
    except Exception as error:  # what devices and runtimes raise shares no base
        track.error = _reason(error)


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
