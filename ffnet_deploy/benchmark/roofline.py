"""How fast a layer could be at most: its operations and memory traffic against what the device can do.

Source: Williams, Waterman, Patterson, Roofline: an insightful visual performance model, CACM 52(4), 2009.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import prod

import numpy as np

from ffnet_deploy.benchmark.record import Peaks

Shape = tuple[int, ...]

_WEIGHT_INPUT = {"QLinearConv": 3}
"""Position of the weights among the inputs of a convolution; 1 for the others."""
_FREE = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Shape", "Constant"})
"""Operators that move no data."""

_PRODUCTS = (
    (256, 256, 256),
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 1024, 2048),
    (16384, 64, 256),
    (4096, 256, 256),
)
"""Rows, inner side and columns of the matrix products that are timed."""
_COPIES = (128 << 10, 1 << 20, 8 << 20, 64 << 20)
"""Bytes of the arrays that are copied and added."""
_REPEATS = 5


@dataclass(frozen=True)
class Cost:
    """What a layer has to do at least.

    Attributes:
        flops: Number of operations: two for a multiply-add, one for each value of what is no product.
        bytes: Number of bytes, each read or written once; None: unknown.
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
        name: Name as the driver gives it, without the maker's names before it.
        fp32: Operations per second outside tensor cores.
        fp16: Operations per second in tensor cores; bfloat16 has the same.
        int8: Operations per second in tensor cores; float8 has the same where there is such.
        bandwidth: Memory bandwidth in bytes per second.
        source: Document that states these figures.
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
    """What this CPU reaches on all its cores: the largest of several sizes and forms.

    Float32 matrix products, square ones and the tall ones that 1x1 convolutions are; copies and sums of arrays from
    those that lie in caches to those that do not.
    """
    random = np.random.default_rng(0)
    flops, traffic = 0.0, 0.0
    for rows, inner, columns in _PRODUCTS:
        left, right = (random.random(shape, dtype=np.float32) for shape in ((rows, inner), (inner, columns)))
        out = np.empty((rows, columns), np.float32)
        seconds = _fastest(partial(np.matmul, left, right, out=out))
        flops = max(flops, 2.0 * rows * inner * columns / seconds)
    for size in _COPIES:
        source, target = np.ones(size // 4, np.float32), np.empty(size // 4, np.float32)
        traffic = max(traffic, 2.0 * size / _fastest(partial(np.copyto, target, source)))
        traffic = max(traffic, 3.0 * size / _fastest(partial(np.add, source, source, out=target)))
    return Peaks(
        flops,
        traffic,
        f"measured here, the largest of {len(_PRODUCTS)} float32 matrix products and {2 * len(_COPIES)} copies and "
        "sums (numpy)",
    )


def _fastest(call: Callable[[], object]) -> float:
    """Seconds of the fastest of some calls."""
    times = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def raised(peaks: Peaks, costs: Sequence[tuple[float, Cost]]) -> Peaks:
    """`peaks`, or what layers reached where that is more: a limit that something exceeds is none.

    Runtimes may do with fewer operations than are counted (Winograd), or in a faster type than the peak's.

    Args:
        peaks: as measured or stated.
        costs: milliseconds and cost of each layer that is long enough to be timed well.
    """
    flops = max((cost.flops / ms * 1e3 for ms, cost in costs), default=0.0)
    traffic = max(((cost.bytes or 0.0) / ms * 1e3 for ms, cost in costs), default=0.0)
    if flops <= peaks.flops and traffic <= peaks.bytes:
        return peaks
    return Peaks(max(flops, peaks.flops), max(traffic, peaks.bytes), f"{peaks.source}; raised to what layers reached")
