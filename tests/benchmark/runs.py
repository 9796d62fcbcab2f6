"""Runs as the benchmark writes them, from samples of known distributions."""

from dataclasses import replace

import numpy as np

from ffnet_deploy.benchmark.interleaved import CandidateSamples
from ffnet_deploy.benchmark.profiling import TimedLayer, TimedLayers, profile
from ffnet_deploy.benchmark.record import (
    BenchRun,
    CandidateInfo,
    CpuState,
    DeviceState,
    GpuState,
    Missing,
    OutputCheck,
    Peaks,
    Setting,
    TimingMethod,
    TimingResult,
)
from ffnet_deploy.benchmark.results import Findings, timing_result
from ffnet_deploy.benchmark.roofline import Cost

CPU = CpuState("a processor", 2, (0, 1), "performance", 3000.0, (0.1, 0.2, 0.3))
GPU = GpuState(0, "NVIDIA H200", "570.1", 1980, 3201, 300.5, 41, ("power cap",), 1 << 30, 140 << 30, 2)
METHOD = TimingMethod()


def track(
    name: str, median: float, seed: int = 0, spread: float = 0.03, rounds: int = 50, each: int = 2
) -> CandidateSamples:
    random = np.random.default_rng([seed, len(name), sum(map(ord, name))])
    samples = np.round(median * np.exp(random.normal(0, spread, (rounds, each))), 6)
    return CandidateSamples(name, samples.tolist(), [[] for _ in range(rounds)], int(samples.sum() * 1e6))


def rows(times: dict[str, float], setting: Setting | None = None, seed: int = 0) -> list[TimingResult]:
    """A measurement for each candidate with its median, the first being the baseline."""
    tracks = [track(name, median, seed) for name, median in times.items()]
    return [timing_result(one, tracks[0], Findings(), setting or Setting(), METHOD) for one in tracks]


def run_of(measurements: list[TimingResult]) -> BenchRun:
    names = dict.fromkeys(row.candidate for row in measurements)
    return BenchRun(
        created="2026-01-02T03:04:05+00:00",
        method=METHOD,
        candidates=tuple(CandidateInfo(name, f"engine of {name}", "fp32", "toy") for name in names),
        measurements=tuple(measurements),
        missing=(),
        before=DeviceState(CPU),
        after=DeviceState(CPU),
        environment={"python": "3.11"},
        versions={"numpy": "2.0"},
    )


def make_run(times: dict[str, float] | None = None, seed: int = 0) -> BenchRun:
    return run_of(rows(times or {"a": 10.0, "b": 12.0}, seed=seed))


def with_everything() -> BenchRun:
    """A run that uses every entry of the format."""
    run = make_run()
    layers = [TimedLayer("/decode_head/x/Conv", "Conv", 1.5, Cost(2e6, 1e5)), TimedLayer("copy", "Copy", 0.5)]
    row = replace(
        run.measurements[1],
        device_ms=((1.0, 2.0), (3.0,)),
        device_summary=run.measurements[0].summary,
        check=OutputCheck("a", 99.5, 1e-5, 99.0, True),
        profile=profile(TimedLayers("a profiler", 10, layers), Peaks(1e12, 1e11, "a data sheet")),
        error="RuntimeError: gone",
    )
    return replace(
        run,
        measurements=(run.measurements[0], row),
        missing=(Missing("c", "not installed"),),
        before=DeviceState(CPU, (GPU,), ("a note",)),
        warnings=("beware",),
        interrupted=True,
    )
