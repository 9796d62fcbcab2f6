import gc
import threading
import time

import numpy as np
import pytest

from ffnet_deploy.benchmark.method import Entry, race
from ffnet_deploy.benchmark.record import Content, Method, Verdict
from ffnet_deploy.benchmark.statistics import ratio
from ffnet_deploy.core.errors import OptionError
from tests.benchmark.simulated import NOISES, SimulatedClock, drifting, steady

METHOD = Method(warmup_ms=200, seconds=3, samples=50, rounds=50)


def test_at_least_the_time_and_the_number_of_samples_are_taken() -> None:
    clock = SimulatedClock()
    entries = [Entry("fast", [clock.step(steady(0.1), 0)]), Entry("slow", [clock.step(steady(400), 1)])]
    fast, slow = race(entries, METHOD, clock).tracks
    for track in (fast, slow):
        assert track.count >= 50
        assert len(track.rounds) >= 50
        assert track.wall_ns >= 3e9
        assert track.wall_ns == pytest.approx(sum(map(sum, track.rounds)) * 1e6, rel=1e-6)
    assert fast.count == pytest.approx(30_000, rel=0.1)
    assert slow.count == 50


def test_a_contender_is_warm_before_its_first_sample() -> None:
    clock = SimulatedClock()
    begun: list[float] = []

    def step() -> None:
        begun.append(clock.nanoseconds / 1e6)
        clock.nanoseconds += 1e6 if clock.nanoseconds >= 200e6 else 50e6  # slow until 200 ms have passed

    (track,) = race([Entry("cold", [step])], Method(seconds=0.1, samples=10, rounds=5), clock).tracks
    assert max(map(max, track.rounds)) == 1
    assert track.count >= 100
    few = race([Entry("counted", [step])], Method(warmup_ms=0, warmup_runs=7, seconds=0, samples=1, rounds=1), clock)
    assert few.tracks[0].count == 1


def test_contenders_take_turns_in_an_order_that_changes() -> None:
    clock, calls = SimulatedClock(), []

    def named(name: str) -> Entry:
        def step() -> None:
            calls.append(name)
            clock.nanoseconds += 60e6

        return Entry(name, [step])

    race([named(name) for name in "abc"], Method(warmup_ms=0, warmup_runs=1, seconds=0, samples=10, rounds=10), clock)
    turns = ["".join(calls[start : start + 3]) for start in range(3, len(calls), 3)]
    assert len(turns) == 10
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert len(set(turns)) > 2


@pytest.mark.parametrize("noise", sorted(NOISES))
def test_nothing_is_faster_than_itself_in_20_runs(noise: str) -> None:
    verdicts = []
    for seed in range(20):
        clock = SimulatedClock()
        entries = [Entry(name, [clock.step(NOISES[noise](20), 100 * seed + i)]) for i, name in enumerate("ab")]
        first, second = race(entries, Method(seconds=1, seed=seed), clock).tracks
        found = ratio(second.milliseconds, first.milliseconds, "a", seed)
        assert found is not None
        verdicts.append(found.verdict)
    assert verdicts == [Verdict.SAME] * 20


def test_drift_hits_all_contenders_alike() -> None:
    clock = SimulatedClock()
    entries = [
        Entry("a", [clock.step(drifting(20), 0)]),
        Entry("b", [clock.step(lambda r, t: 1.1 * drifting(20)(r, t), 1)]),
    ]
    first, second = race(entries, METHOD, clock).tracks
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

    method = Method(warmup_ms=0, warmup_runs=2, seconds=0.5, samples=50, settle_ms=0)
    gone, stays = race([Entry("gone", [vanishing]), Entry("stays", [healthy])], method, clock).tracks
    assert gone.error == "RuntimeError: CUDA error: device lost"
    assert gone.count == 18
    assert (stays.error, stays.count >= 50) == (None, True)


def test_one_that_fails_at_once_is_out_of_the_race() -> None:
    def failing() -> None:
        raise ValueError

    (track,) = race([Entry("broken", [failing])], METHOD, SimulatedClock()).tracks
    assert (track.error, track.count) == ("ValueError", 0)


def test_stopping_by_hand_keeps_the_samples() -> None:
    clock, left = SimulatedClock(), [30]

    def step() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        clock.nanoseconds += 10e6

    result = race([Entry("a", [step])], Method(warmup_ms=0, warmup_runs=1, settle_ms=0), clock)
    assert result.interrupted
    assert result.tracks[0].count == 29
    assert gc.isenabled()


def test_streams_run_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=20)

    def step() -> None:
        if threading.current_thread() is not threading.main_thread():  # the warm-up is one after the other
            meeting.wait()
            time.sleep(0.01)

    method = Method(warmup_ms=0, warmup_runs=1, seconds=0, samples=12, rounds=2, settle_ms=0)
    (track,) = race([Entry("a", [step] * 3)], method).tracks
    assert track.error is None
    assert [len(one) for one in track.rounds] == [6, 6]
    assert track.wall_ns / 1e6 < sum(map(sum, track.rounds))


def test_device_times_are_kept_beside_the_hosts() -> None:
    clock = SimulatedClock()

    def step() -> float:
        clock.nanoseconds += 10e6
        return 8.0

    method = Method(warmup_ms=0, warmup_runs=1, seconds=0, samples=4, rounds=2, settle_ms=0, queue=2)
    (track,) = race([Entry("gpu", [step], calls=2)], method, clock).tracks
    assert track.milliseconds == ((5.0, 5.0), (5.0, 5.0))
    assert track.device_milliseconds == ((8.0, 8.0), (8.0, 8.0))


def test_the_garbage_collector_waits() -> None:
    seen: list[bool] = []
    race([Entry("a", [lambda: seen.append(gc.isenabled())])], Method(warmup_ms=0, seconds=0, samples=3, rounds=3))
    assert set(seen) == {False}
    assert gc.isenabled()


def test_progress_counts_rounds() -> None:
    clock, told = SimulatedClock(), []
    race(
        [Entry("a", [clock.step(steady(5), 0)])],
        Method(seconds=0, samples=4, rounds=4),
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
        Method(**{option: value})


def test_copies_are_not_queued() -> None:
    with pytest.raises(OptionError, match="network alone"):
        Method(content=Content.TRANSFERS, queue=4)


def test_samples_are_those_of_the_clock() -> None:
    clock = SimulatedClock()
    times = iter(np.arange(1, 100, dtype=float))
    (track,) = race(
        [Entry("a", [clock.step(lambda random, now: next(times), 0)])],
        Method(warmup_ms=0, warmup_runs=3, seconds=0, samples=6, rounds=3, settle_ms=0),
        clock,
    ).tracks
    assert track.milliseconds == ((4.0, 5.0), (6.0, 7.0), (8.0, 9.0))
