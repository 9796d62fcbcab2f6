"""The time of each layer of an engine."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.engines.tensorrt.flavour import load
from ffnet_deploy.engines.tensorrt.runner import TensorRTEngine, TensorRTOptions


def layer_times(
    path: Path, batch: NDArray[np.generic], repeats: int = 50, warmup: int = 5, options: TensorRTOptions | None = None
) -> dict[str, list[float]]:
    """Milliseconds of each layer, in the order of the engine, for each of `repeats` runs of `batch`.

    Profiling slows an engine down and hides CUDA graphs: the sum is more than the latency.

    Raises:
        As `TensorRTEngine` and its `run`.
    """
    times: dict[str, list[float]] = {}
    with TensorRTEngine(path, replace(options or TensorRTOptions(), contexts=1, cuda_graph=False)) as engine:
        engine.attach_profiler(_collector(load(engine.flavour), times))
        for _ in range(warmup):
            engine.run(batch)
        times.clear()
        for _ in range(repeats):
            engine.run(batch)
    return times


def _collector(trt: Any, times: dict[str, list[float]]) -> Any:
    class Collector(trt.IProfiler):  # type: ignore[misc]  # the base is known only at run time
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times.setdefault(layer_name, []).append(float(ms))

    return Collector()
