import gc
import threading
import time

import numpy as np
import pytest

from ffnet_deploy.benchmark.interleaved import Workload, run_interleaved
from ffnet_deploy.benchmark.record import TimingMethod, TimingScope, Verdict
from ffnet_deploy.benchmark.statistics import ratio
from ffnet_deploy.core.errors import OptionError
from tests.benchmark.simulated import NOISES, SimulatedClock, drifting, steady

METHOD = TimingMethod(warmup_ms=200, seconds=3, samples=50, rounds=50)


def test_at_least_the_time_and_the_number_of_samples_are_taken() -> None:
    clock = SimulatedClock()
    workloads = [Workload("fast", [clock.step(steady(0.1), 0)]), Workload("slow", [clock.step(steady(400), 1)])]
    fast, slow = run_interleaved(workloads, METHOD, clock).samples
    for track in (fast, slow):
        assert track.count >= 50
        assert len(track.rounds) >= 50
        assert track.wall_ns >= 3e9
        assert track.wall_ns == pytest.approx(sum(map(sum, track.rounds)) * 1e6, rel=1e-6)
    assert fast.count == pytest.approx(30_000, rel=0.1)
    assert slow.count == 50


def test_a_candidate_is_warm_before_its_first_sample() -> None:
    clock = SimulatedClock()
    begun: list[float] = []

    def step() -> None:
        begun.append(clock.nanoseconds / 1e6)
        clock.nanoseconds += 1e6 if clock.nanoseconds >= 200e6 else 50e6  # slow until 200 ms have passed

    (track,) = run_interleaved(
        [Workload("cold", [step])], TimingMethod(seconds=0.1, samples=10, rounds=5), clock
    ).samples
    assert max(map(max, track.rounds)) == 1
    assert track.count >= 100
    few = run_interleaved(
        [Workload("counted", [step])], TimingMethod(warmup_ms=0, warmup_runs=7, seconds=0, samples=1, rounds=1), clock
    )
    assert few.samples[0].count == 1


def test_candidates_take_turns_in_an_order_that_changes() -> None:
    clock, calls = SimulatedClock(), []

    def named(name: str) -> Workload:
        def step() -> None:
            calls.append(name)
            clock.nanoseconds += 60e6

        return Workload(name, [step])

    run_interleaved(
        [named(name) for name in "abc"],
        TimingMethod(warmup_ms=0, warmup_runs=1, seconds=0, samples=10, rounds=10),
        clock,
    )
    turns = ["".join(calls[start : start + 3]) for start in range(3, len(calls), 3)]
    assert len(turns) == 10
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert len(set(turns)) > 2


@pytest.mark.parametrize("runs", [4, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("noise", sorted(NOISES))
def test_nothing_is_faster_than_itself(noise: str, runs: int) -> None:
    verdicts = []
    for seed in range(runs):
        clock = SimulatedClock()
        workloads = [Workload(name, [clock.step(NOISES[noise](20), 100 * seed + i)]) for i, name in enumerate("ab")]
        first, second = run_interleaved(workloads, TimingMethod(seconds=1, seed=seed), clock).samples
        found = ratio(second.milliseconds, first.milliseconds, "a", seed)
        assert found is not None
        verdicts.append(found.verdict)
    assert verdicts == [Verdict.SAME] * runs


def test_drift_hits_all_candidates_alike() -> None:
    clock = SimulatedClock()
    workloads = [
        Workload("a", [clock.step(drifting(20), 0)]),
        Workload("b", [clock.step(lambda r, t: 1.1 * drifting(20)(r, t), 1)]),
    ]
    first, second = run_interleaved(workloads, METHOD, clock).samples
    found = ratio(second.milliseconds, first.milliseconds, "a")
    assert found is not None
    assert found.interval is not None
    assert 1.1 in found.interval
    assert found.interval.high - found.interval.low < 0.05


def test_a_device_that_vanishes_leaves_its_samples_and_the_others() -> None:
    clock = SimulatedClock()
    healthy, left = clock.step(steady(10), 0), [20]

    def vanishing() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("CUDA error: device lost\nand much more")
        clock.nanoseconds += 10e6

    method = TimingMethod(warmup_ms=0, warmup_runs=2, seconds=0.5, samples=50, settle_ms=0)
    gone, stays = run_interleaved([Workload("gone", [vanishing]), Workload("stays", [healthy])], method, clock).samples
    assert gone.error == "RuntimeError: CUDA error: device lost"
    assert gone.count == 18
    assert (stays.error, stays.count >= 50) == (None, True)


def test_one_that_fails_at_once_is_left_out() -> None:
    def failing() -> None:
        raise ValueError

    (track,) = run_interleaved([Workload("broken", [failing])], METHOD, SimulatedClock()).samples
    assert (track.error, track.count) == ("ValueError", 0)


def test_stopping_by_hand_keeps_the_samples() -> None:
    clock, left = SimulatedClock(), [30]

    def step() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        clock.nanoseconds += 10e6

    result = run_interleaved([Workload("a", [step])], TimingMethod(warmup_ms=0, warmup_runs=1, settle_ms=0), clock)
    assert result.interrupted
    assert result.samples[0].count == 29
    assert gc.isenabled()


def test_streams_run_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=120)

    def step() -> None:
        if threading.current_thread() is not threading.main_thread():  # the warm-up is one after the other
            meeting.wait()
            time.sleep(0.01)

    method = TimingMethod(warmup_ms=0, warmup_runs=1, seconds=0, samples=12, rounds=2, settle_ms=0)
    (track,) = run_interleaved([Workload("a", [step] * 3)], method).samples
    assert track.error is None
    assert [len(one) for one in track.rounds] == [6, 6]
    assert track.wall_ns / 1e6 < sum(map(sum, track.rounds))


def test_device_times_are_kept_beside_the_hosts() -> None:
    clock = SimulatedClock()

    def step() -> float:
        clock.nanoseconds += 10e6
        return 8.0

    method = TimingMethod(warmup_ms=0, warmup_runs=1, seconds=0, samples=4, rounds=2, settle_ms=0, queue=2)
    (track,) = run_interleaved([Workload("gpu", [step], calls=2)], method, clock).samples
    assert track.milliseconds == ((5.0, 5.0), (5.0, 5.0))
    assert track.device_milliseconds == ((8.0, 8.0), (8.0, 8.0))


def test_the_garbage_collector_waits() -> None:
    seen: list[bool] = []
    run_interleaved(
        [Workload("a", [lambda: seen.append(gc.isenabled())])],
        TimingMethod(warmup_ms=0, seconds=0, samples=3, rounds=3),
    )
    assert set(seen) == {False}
    assert gc.isenabled()


def test_progress_counts_rounds() -> None:
    clock, told = SimulatedClock(), []
    run_interleaved(
        [Workload("a", [clock.step(steady(5), 0)])],
        TimingMethod(seconds=0, samples=4, rounds=4),
        clock,
        lambda stage, done, total: told.append((done, total)),
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("option", "value"),
    [("samples", 0), ("rounds", 0), ("warmup_runs", 0), ("queue", 0), ("seconds", -1.0), ("warmup_ms", float("nan"))],
)
def test_methods_that_measure_nothing_are_refused(option: str, value: float) -> None:
    with pytest.raises(OptionError, match=option):
        TimingMethod(**{option: value})


def test_copies_are_not_queued() -> None:
    with pytest.raises(OptionError, match="network alone"):
        TimingMethod(scope=TimingScope.DEVICE, queue=4)


def test_samples_are_those_of_the_clock() -> None:
    clock = SimulatedClock()
    times = iter(np.arange(1, 100, dtype=float))
    (track,) = run_interleaved(
        [Workload("a", [clock.step(lambda random, now: next(times), 0)])],
        TimingMethod(warmup_ms=0, warmup_runs=3, seconds=0, samples=6, rounds=3, settle_ms=0),
        clock,
    ).samples
    assert track.milliseconds == ((4.0, 5.0), (6.0, 7.0), (8.0, 9.0))
