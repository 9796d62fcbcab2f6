"""What the benchmark itself costs: samples of an engine that does nothing for 0.1 ms.

python benchmarks/overhead.py
"""

import statistics
import time

from ffnet_deploy.benchmark.interleaved import Workload, run_interleaved
from ffnet_deploy.benchmark.record import TimingMethod

IDLE_NS = 100_000
OWN: list[int] = []


def idle() -> None:
    """Do nothing for 0.1 ms, and note how long that really took."""
    begin = time.perf_counter_ns()
    while time.perf_counter_ns() - begin < IDLE_NS:
        pass
    OWN.append(time.perf_counter_ns() - begin)


def main() -> None:
    """Print what a sample holds beyond the engine, and what passes between samples."""
    (track,) = run_interleaved([Workload("idle", [idle])], TimingMethod(seconds=3)).samples
    counted = sum(map(sum, track.rounds)) * 1e6
    own = OWN[-track.count :]
    inside = statistics.median(
        sample * 1e6 - mine for sample, mine in zip([one for row in track.rounds for one in row], own, strict=True)
    )
    between = (track.wall_ns - counted) / track.count
    print(f"{track.count} samples of {statistics.median(own) / 1000:.1f} us")
    print(f"inside a sample, beyond the engine: {inside / 1000:.2f} us (median)")
    print(f"between samples: {between / 1000:.2f} us (mean)")


if __name__ == "__main__":
    main()
