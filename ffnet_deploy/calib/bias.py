"""Bias correction: what quantisation adds to the mean of a convolution's output is taken out of its bias.

Rounding and clipping do not average out: weights of one output channel err to one side, and clipping only ever takes
away. The expected error of each output channel is measured on calibration images, in float arithmetic, and subtracted
from the bias, which stays in the unquantised type. Source: Nagel et al., arXiv 1906.04721, section 4.2.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ffnet_deploy.calib.collect import Images, Progress
from ffnet_deploy.calib.graph import Conv, Graph, set_initializer
from ffnet_deploy.calib.insert import quantize_pair, rounded_weight, scale_of
from ffnet_deploy.calib.plan import Plan
from ffnet_deploy.calib.rescale import own_bias
from ffnet_deploy.calib.segments import open_session
from ffnet_deploy.precision import Precision

_AXES_AS_INPUT = 18
"""The operator set from which ReduceMean takes its axes as an input."""

Shifts = dict[str, NDArray[np.float64]]
"""By name of convolution, the mean error of each output channel (unquantised less quantised)."""


def mean_errors(
    model: onnx.ModelProto,
    plan: Plan,
    thresholds: Mapping[str, float],
    precision: Precision,
    images: Images,
    progress: Progress | None = None,
) -> Shifts:
    """The mean error of each convolution of `plan` over `images`, each fed what the unquantised network feeds it.

    Args:
        model: unquantised.
        plan: of this model.
        thresholds: of the tensors that the plan quantises.
        precision: INT8 or FP8.
        images: network inputs.
        progress: told of the images done.
    """
    session = open_session(_error_graph(model, plan, thresholds, precision))
    feed, totals = session.get_inputs()[0].name, None
    for done, batch in enumerate(images, 1):
        means = [np.asarray(mean, np.float64) for mean in session.run(None, {feed: batch})]
        totals = means if totals is None else [total + mean for total, mean in zip(totals, means, strict=True)]
        if progress is not None:
            progress("measuring the error of biases", done, len(images))
    assert totals is not None
    return {conv.name: total / len(images) for conv, total in zip(plan.convs, totals, strict=True)}


def correct_biases(model: onnx.ModelProto, convs: tuple[Conv, ...], shifts: Mapping[str, NDArray[Any]]) -> None:
    """Add the mean errors `shifts` to the biases of `convs`, in place; one without a bias gets one."""
    for conv in convs:
        bias = own_bias(model, conv)
        if bias is None:
            del conv.node.input[2:]
            conv.node.input.append(f"{conv.name}/bias")
        corrected = shifts[conv.name] + (0.0 if bias is None else bias)
        set_initializer(model, conv.node.input[2], corrected.astype(np.float32))


def _error_graph(
    model: onnx.ModelProto, plan: Plan, thresholds: Mapping[str, float], precision: Precision
) -> onnx.ModelProto:
    """The network with a quantised twin beside each convolution; its outputs are the twins' mean errors."""
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    graph, results = Graph(twin), {}
    after: dict[str, list[onnx.NodeProto]] = {}
    set_initializer(twin, "means/axes", np.array([0, 2, 3], np.int64))
    pairs: dict[str, str] = {}
    for conv in plan.convs:
        nodes = after.setdefault(conv.name, [])
        if conv.input not in pairs:
            scale = scale_of(thresholds[conv.input], precision)
            pair, pairs[conv.input] = quantize_pair(twin, conv.input, scale, precision)
            nodes += pair
        weight = f"{conv.name}/rounded"
        set_initializer(twin, weight, rounded_weight(graph.array(conv.weight), precision))
        nodes += _twin_nodes(conv, pairs[conv.input], weight, graph.opset)
        results[conv.name] = f"{conv.name}/mean_error"
    ordered = [node for original in graph.nodes for node in (original, *after.get(original.name, []))]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del twin.graph.node[:], twin.graph.output[:]
    twin.graph.node.extend(nodes)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in results.values()]
    twin.graph.output.extend(values)
    return twin


def _twin_nodes(conv: Conv, tensor: str, weight: str, opset: int) -> list[onnx.NodeProto]:
    """The quantised convolution, its difference from `conv` and the mean of that for each channel."""
    copy = onnx.NodeProto.FromString(conv.node.SerializeToString())
    copy.name, copy.input[0], copy.input[1], copy.output[0] = f"{conv.name}/twin", tensor, weight, f"{conv.name}/twin"
    difference = helper.make_node("Sub", [conv.output, copy.output[0]], [f"{conv.name}/error"])
    axes: dict[str, Any] = {} if opset >= _AXES_AS_INPUT else {"axes": [0, 2, 3]}
    inputs = [f"{conv.name}/error", "means/axes"] if opset >= _AXES_AS_INPUT else [f"{conv.name}/error"]
    mean = helper.make_node("ReduceMean", inputs, [f"{conv.name}/mean_error"], keepdims=0, **axes)
    return [copy, difference, mean]
