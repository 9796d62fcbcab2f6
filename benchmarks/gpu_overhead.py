"""What the TensorRT runner itself costs: Python's time per call on a stand-in of CUDA whose calls do nothing.

    python -m benchmarks.gpu_overhead

The recording stand-in of the tests runs until every CUDA graph is captured; then its functions are replaced by ones
that return at once, so that what is left is the runner's own work and the copies between host arrays.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from ffnet_deploy.core.contract import DimensionRange
from ffnet_deploy.core.precision import PrecisionRecord
from ffnet_deploy.engines.bundle import Bundle
from ffnet_deploy.engines.tensorrt import runner
from ffnet_deploy.engines.tensorrt.runner import TensorRTEngine
from ffnet_deploy.engines.tensorrt.variant import Variant
from tests.engines.tensorrt.cuda_standin import CudaStandIn
from tests.engines.tensorrt.trt_standin import TrtStandIn, network
from tests.toy import contract

CALLS = 2000
ROUNDS = 15


class IdleCuda:
    """CUDA's calls, answered at once with success."""

    def __init__(self, made: CudaStandIn) -> None:
        success = made.cudaGetLastError()[0]
        for name in ("cudaSetDevice", "cudaGraphLaunch", "cudaEventRecord", "cudaEventSynchronize"):
            setattr(self, name, lambda *_: (success,))
        self.cudaMemcpyKind = made.cudaMemcpyKind


def microseconds(call: Callable[[], object]) -> float:
    """Time of one call: the fastest of some rounds, which other programs disturb least."""
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for _ in range(CALLS):
            call()
        times.append((time.perf_counter() - begin) / CALLS * 1e6)
    print(f"    spread {min(times):.1f} .. {statistics.median(times):.1f} .. {max(times):.1f} us")
    return min(times)


def measure() -> dict[str, float]:
    """Microseconds per call: `run` of a new output, `run` into `out`, and of the pinned input and output."""
    small = contract(batch=DimensionRange.fixed(1))
    cuda = CudaStandIn()
    trt = TrtStandIn(cuda)
    modules: dict[str, Any] = {"cuda.bindings.runtime": cuda, "tensorrt": trt}
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(sys.modules, modules):
        path = Path(folder) / "toy.engine"
        made = network(small)
        bundle = Bundle(path, trt.plan(made), small, PrecisionRecord(), Variant.TENSORRT, {"a": 1})
        with mock.patch.object(runner, "read_bundle", lambda *_: bundle), TensorRTEngine(path) as engine:
            batch = np.zeros((1, 3, 32, 32), np.float32)
            out = np.empty_like(engine.run(batch))
            engine.run(batch)
            real, engine._cuda._api = engine._cuda._api, IdleCuda(cuda)  # type: ignore[assignment]
            engine._cuda._success = None
            found = {"run": microseconds(lambda: engine.run(batch))}
            found["run(out=)"] = microseconds(lambda: engine.run(batch, out=out))
            with engine.pinned(batch.shape) as pinned:
                found["pinned"] = microseconds(pinned.run)
            engine._cuda._api = real
    return found


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:10s} {value:6.1f} us")
