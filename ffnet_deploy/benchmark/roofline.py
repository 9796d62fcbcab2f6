"""How fast a layer could be at most: its operations and memory traffic against what the device can do.

Source: Williams, Waterman, Patterson, Roofline: an insightful visual performance model, CACM 52(4), 2009.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from ffnet_deploy.benchmark.record import Peaks

Shape = tuple[int, ...]

_WEIGHT_INPUT = {"QLinearConv": 3}
"""Position of the weights among the inputs of a convolution; 1 for the others."""
_FREE = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Shape", "Constant"})
"""Operators that move no data."""

_SIDE = 1024
_COPY_BYTES = 128 << 20
_REPEATS = 5


@dataclass(frozen=True)
class Cost:
    """What a layer has to do at least.

    Attributes:
        flops: operations, two for a multiply-add; one for each value of what is no product.
        bytes: read and written once each; None: unknown.
    """

    flops: float
    bytes: float | None


@dataclass(frozen=True)
class TensorSize:
    """Shape and bytes per value of a layer's input or output."""

    shape: Shape
    itemsize: int

    @property
    def bytes(self) -> int:
        """Of the whole tensor."""
        return prod(self.shape) * self.itemsize


def cost(operator: str, inputs: Sequence[TensorSize], outputs: Sequence[TensorSize]) -> Cost:
    """The cost of a layer from the shapes of its tensors, weights among the inputs as ONNX has them."""
    if operator in _FREE or not outputs:
        return Cost(0.0, 0.0)
    values = prod(outputs[0].shape)
    each = 1
    if "Conv" in operator:
        weight = inputs[_WEIGHT_INPUT.get(operator, 1)].shape
        each = 2 * prod(weight[1:])
    elif "MatMul" in operator or "Gemm" in operator:
        each = 2 * inputs[0].shape[-1]
    return Cost(float(values * each), float(sum(tensor.bytes for tensor in (*inputs, *outputs))))


@dataclass(frozen=True)
class KnownGpu:
    """A GPU's peaks as its maker states them, dense (without sparsity).

    Attributes:
        name: as the driver gives it, without the maker's names before it.
        fp32: operations per second, outside tensor cores.
        fp16: operations per second in tensor cores; bfloat16 alike.
        int8: operations per second in tensor cores; float8 alike where there is such.
        bandwidth: of the memory, bytes per second.
        source: document.
    """

    name: str
    fp32: float
    fp16: float
    int8: float
    bandwidth: float
    source: str

    def peaks(self, precision: str) -> Peaks:
        """The peaks in `precision`."""
        flops = {"fp32": self.fp32, "fp16": self.fp16, "bf16": self.fp16}.get(precision, self.int8)
        return Peaks(flops, self.bandwidth, f"{self.source}, {self.name}, {precision}, dense")


KNOWN_GPUS = (
    KnownGpu("H200", 67e12, 989e12, 1979e12, 4.8e12, "NVIDIA H200 data sheet (SXM)"),
    KnownGpu("H100 80GB HBM3", 67e12, 989e12, 1979e12, 3.35e12, "NVIDIA H100 data sheet (SXM)"),
    KnownGpu("A100-SXM4-80GB", 19.5e12, 312e12, 624e12, 2.039e12, "NVIDIA A100 data sheet"),
    KnownGpu("A100-SXM4-40GB", 19.5e12, 312e12, 624e12, 1.555e12, "NVIDIA A100 data sheet"),
    KnownGpu("L40S", 91.6e12, 362e12, 733e12, 0.864e12, "NVIDIA L40S data sheet"),
    KnownGpu("L4", 30.3e12, 121e12, 242e12, 0.3e12, "NVIDIA L4 data sheet"),
    KnownGpu("T4", 8.1e12, 65e12, 130e12, 0.32e12, "NVIDIA T4 data sheet"),
    KnownGpu("RTX 4090", 82.6e12, 330.3e12, 660.6e12, 1.008e12, "NVIDIA Ada GPU architecture white paper"),
    KnownGpu("RTX 3090", 35.6e12, 142e12, 284e12, 0.936e12, "NVIDIA Ampere GA102 white paper"),
)


def known_gpu(name: str) -> KnownGpu | None:
    """The entry for the GPU called `name` by its driver; not that of its laptop or cut-down relatives."""
    bare = re.sub(r"NVIDIA |GeForce |Tesla ", "", name)
    return next((gpu for gpu in KNOWN_GPUS if gpu.name == bare), None)


def peaks_of(gpu: str | None, precision: str) -> Peaks | None:
    """The peaks of a GPU by its name, or of this CPU where `gpu` is None; None for a GPU that is not known."""
    if gpu is None:
        return measured_cpu_peaks()
    known = known_gpu(gpu)
    return None if known is None else known.peaks(precision)


@lru_cache(maxsize=1)
def measured_cpu_peaks() -> Peaks:
    """What this CPU reaches, best of some tries: a float32 matrix product and a copy of memory, on all its cores."""
    left = np.random.default_rng(0).random((_SIDE, _SIDE), dtype=np.float32)
    source = np.ones(_COPY_BYTES // 8, np.float64)
    target = np.empty_like(source)
    product = _fastest(lambda: np.matmul(left, left))
    copy = _fastest(lambda: np.copyto(target, source))
    return Peaks(
        flops=2 * _SIDE**3 / product,
        bytes=2 * _COPY_BYTES / copy,
        source=f"measured here: float32 matrix product of side {_SIDE}, copy of {_COPY_BYTES >> 20} MiB (numpy)",
    )


def _fastest(call: Callable[[], object]) -> float:
    """Seconds of the fastest of some calls."""
    times = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)
