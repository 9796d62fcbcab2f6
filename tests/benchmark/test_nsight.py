"""Ranges for Nsight Systems around what is timed, with a stand-in of NVTX that keeps what it is told."""

import sys
from types import SimpleNamespace

import pytest

from ffnet_deploy.benchmark.bench import BenchOptions, bench
from ffnet_deploy.benchmark.candidates import Candidate
from ffnet_deploy.benchmark.nsight import Profiler, range_marker
from ffnet_deploy.benchmark.record import BenchRun, TimingMethod
from ffnet_deploy.benchmark.sweep import Grid
from tests.benchmark.toy_picture import PICTURE
from tests.toy import ToyEngine, contract


class Engine(ToyEngine):
    notes = ()


def run(profiler: Profiler | None) -> BenchRun:
    method = TimingMethod(warmup_ms=0, warmup_runs=1, seconds=0, samples=3, rounds=3, settle_ms=0)
    candidates = [Candidate(name, lambda threads, streams: Engine(contract())) for name in ("first", "second")]
    return bench(candidates, BenchOptions(Grid(), PICTURE, method, profiler=profiler))


def test_each_call_lies_in_a_range_of_its_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    nvtx = SimpleNamespace(
        push_range=lambda name, domain: told.append(f"{domain}: {name}"), pop_range=lambda domain: told.append("end")
    )
    monkeypatch.setitem(sys.modules, "nvtx", nvtx)
    recorded = run(Profiler.NSYS)
    assert set(told[::2]) == {"ffnet-bench: first", "ffnet-bench: second"} and set(told[1::2]) == {"end"}
    assert sum(row.summary is not None for row in recorded.measurements) == 2
    assert any("the clock runs while the range is opened" in warning for warning in recorded.warnings)
    told.clear()
    run(None)
    assert told == []


def test_a_range_ends_where_its_call_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    nvtx = SimpleNamespace(push_range=lambda name, domain: None, pop_range=lambda domain: told.append("end"))
    monkeypatch.setitem(sys.modules, "nvtx", nvtx)
    mark, _ = range_marker(Profiler.NSYS)
    with pytest.raises(ZeroDivisionError):
        mark(lambda: 1 / 0, "broken")()
    assert told == ["end"]


def test_without_the_package_it_is_said_and_times_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvtx", None)
    recorded = run(Profiler.NSYS)
    assert all(row.summary is not None for row in recorded.measurements)
    (warning,) = [one for one in recorded.warnings if "nvtx" in one]
    assert "marking ranges for Nsight Systems needs the package nvtx" in warning and "[nsys]" in warning
