"""Bias correction: what quantisation adds to the mean of a convolution's output is taken out of its bias.

Rounding and clipping do not average out: weights of one output channel err to one side, and clipping only ever takes
away. The expected error of each output channel is measured on calibration images, in float arithmetic, and subtracted
from the bias, which stays in the unquantised type. Source: Nagel et al., arXiv 1906.04721, section 4.2.

A convolution is linear, so the mean of its output follows from the mean of what each tap of the kernel sees, before and
after rounding: no convolution has to be run for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ffnet_deploy.calib.channel_groups import own_bias
from ffnet_deploy.calib.collect import Images, collect
from ffnet_deploy.calib.options import CalibrationOptions
from ffnet_deploy.calib.plan import Plan
from ffnet_deploy.calib.qdq import rounded, rounded_weight, scale_of
from ffnet_deploy.core.precision import Precision
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.precision.graph_index import Conv, GraphIndex, attribute, set_initializer

_CHUNK = 1 << 16
"""Values rounded at once: they stay in a processor's cache."""

Shifts = dict[str, NDArray[np.float64]]
"""By name of convolution, the mean error of each output channel (unquantised less quantised)."""


@dataclass(frozen=True)
class Windows:
    """Where the taps of a kernel look, along one axis.

    Attributes:
        kernel: Number of taps.
        stride: Step between outputs.
        padding: Number of zeros before the first value, and after the last.
        dilation: Step between taps.
    """

    kernel: int
    stride: int
    padding: tuple[int, int]
    dilation: int

    def outputs(self, size: int) -> int:
        """Number of outputs for `size` values."""
        return (size + sum(self.padding) - self.dilation * (self.kernel - 1) - 1) // self.stride + 1


@cache
def seen_by_taps(windows: Windows, size: int) -> NDArray[np.float32]:
    """How many outputs look at each of `size` values with each tap, 0 or 1: float32 (size, kernel)."""
    seen = np.zeros((size, windows.kernel), np.float32)
    for tap in range(windows.kernel):
        positions = tap * windows.dilation - windows.padding[0] + windows.stride * np.arange(windows.outputs(size))
        seen[positions[(positions >= 0) & (positions < size)], tap] = 1
    return seen


def windows_of(conv: Conv) -> tuple[Windows, Windows]:
    """The windows of `conv` along height and width."""
    pads, strides = attribute(conv.node, "pads", [0] * 4), attribute(conv.node, "strides", [1, 1])
    dilations = attribute(conv.node, "dilations", [1, 1])
    height, width = (
        Windows(conv.shape[2 + axis], strides[axis], (pads[axis], pads[axis + 2]), dilations[axis]) for axis in (0, 1)
    )
    return height, width


class TapSums:
    """What each tap of some convolutions sees of one tensor, summed over positions and images, exact and rounded.

    Args:
        convs: that read the tensor.
        scale: of its quantisation.
        precision: INT8 or FP8.
    """

    def __init__(self, convs: Sequence[Conv], scale: NDArray[np.float32], precision: Precision) -> None:
        self._windows = {conv.name: windows_of(conv) for conv in convs}
        self._scale, self._precision = scale, precision
        self._sums: dict[tuple[Windows, Windows], list[NDArray[np.float64]]] = {}
        self._positions: dict[tuple[Windows, Windows], int] = {}

    def update(self, values: NDArray[np.float32]) -> None:
        """Take in a finite tensor (batch, channels, height, width)."""
        step = max(_CHUNK // (values.shape[2] * values.shape[3]), 1)
        for windows in dict.fromkeys(self._windows.values()):
            height, width = windows
            positions = values.shape[0] * height.outputs(values.shape[2]) * width.outputs(values.shape[3])
            self._positions[windows] = self._positions.get(windows, 0) + positions
        for image in values:
            for start in range(0, len(image), step):
                self._add(image[start : start + step], start, values.shape[1])

    def _add(self, exact: NDArray[np.float32], start: int, channels: int) -> None:
        both = exact, rounded(exact, self._scale, self._precision)
        for height, width in dict.fromkeys(self._windows.values()):
            shape = channels, height.kernel, width.kernel
            totals = self._sums.setdefault((height, width), [np.zeros(shape), np.zeros(shape)])
            above, beside = seen_by_taps(height, exact.shape[1]), seen_by_taps(width, exact.shape[2])
            for total, values in zip(totals, both, strict=True):
                total[start : start + len(exact)] += above.T @ (values @ beside)

    def means(self, conv: Conv) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean of what each tap of `conv` sees, float64 (channels, kernel height, kernel width): exact, rounded."""
        windows = self._windows[conv.name]
        exact, quantised = self._sums[windows]
        return exact / self._positions[windows], quantised / self._positions[windows]


def mean_errors(
    model: onnx.ModelProto,
    plan: Plan,
    thresholds: Mapping[str, float],
    options: CalibrationOptions,
    images: Images,
    progress: Progress = no_progress,
) -> Shifts:
    """The mean error of each convolution of `plan` over `images`, each fed what the unquantised network feeds it.

    Args:
        model: unquantised.
        plan: of this model.
        thresholds: of the tensors that the plan quantises.
        options: how the network is quantised.
        images: network inputs.
        progress: called with the images done.
    """
    readers: dict[str, list[Conv]] = {}
    for conv in plan.convs:
        readers.setdefault(conv.input, []).append(conv)
    precision = options.precision
    sums = {name: TapSums(convs, scale_of(thresholds[name], precision), precision) for name, convs in readers.items()}
    collect(model, sums, images, "measuring the error of biases", progress)
    graph, shifts = GraphIndex(model), {}
    for conv in plan.convs:
        weight = graph.array(conv.weight)
        exact, quantised = sums[conv.input].means(conv)
        seen = rounded_weight(weight, precision, options.hardware)
        error = _response(conv, weight, exact) - _response(conv, seen, quantised)
        shifts[conv.name] = error
    return shifts


def _response(conv: Conv, weight: NDArray[Any], taps: NDArray[np.float64]) -> NDArray[np.float64]:
    """What `weight` makes of one value (channels, kernel height, kernel width) for each tap: float64 (out,)."""
    rows = weight.astype(np.float64).reshape(conv.groups, conv.shape[0] // conv.groups, -1)
    return np.asarray((rows @ taps.reshape(conv.groups, -1, 1)).reshape(-1))


def correct_biases(model: onnx.ModelProto, convs: tuple[Conv, ...], shifts: Mapping[str, NDArray[Any]]) -> None:
    """Add the mean errors `shifts` to the biases of `convs`, in place; one without a bias gets one."""
    for conv in convs:
        bias = own_bias(model, conv)
        if bias is None:
            del conv.node.input[2:]
            conv.node.input.append(f"{conv.name}/bias")
        corrected = shifts[conv.name] + (0.0 if bias is None else bias)
        set_initializer(model, conv.node.input[2], corrected.astype(np.float32))
