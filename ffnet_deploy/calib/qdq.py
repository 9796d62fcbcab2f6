"""Writing a plan into a graph as QuantizeLinear and DequantizeLinear nodes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ffnet_deploy.calib.plan import Plan
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.precision import Hardware, Precision
from ffnet_deploy.precision.graph_index import GraphIndex, drop_unused_initializers

FP8_OPSET = 19
"""The operator set that brought FP8 to QuantizeLinear."""
_LARGEST = {Precision.INT8: 127.0, Precision.FP8: 448.0}
"""Largest magnitude of a quantised value: of symmetric INT8, and of FP8 E4M3."""
_ZERO_TYPE = {Precision.INT8: TensorProto.INT8, Precision.FP8: TensorProto.FLOAT8E4M3FN}


def scale_of(limit: Any, precision: Precision) -> NDArray[np.float32]:
    """Scales, float32, that map thresholds to the largest quantised value; 1 where a threshold is zero."""
    limits = np.asarray(limit, np.float64)
    least = float(np.finfo(np.float32).tiny)
    scales = np.where(limits > 0, np.maximum(limits / _LARGEST[precision], least), 1.0)
    return np.asarray(scales, np.float32)


def weight_scales(
    weight: NDArray[np.float32], precision: Precision, hardware: Hardware = Hardware.TRT
) -> NDArray[np.float32]:
    """Symmetric scales (out,) of a weight (out, in / groups, kernel height, kernel width).

    Without VNNI, CPUs multiply bytes by ``vpmaddubsw``: it adds the products of two neighbouring input channels in 16
    bits and saturates. An unsigned activation is at most 255, so nothing saturates while the weights of a pair that
    have the same sign sum to at most 128 steps. That is what the scales for CPUs see to: they grow only for outputs
    whose loudest weights are neighbours, where 7-bit weights would double all of them.
    Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, PMADDUBSW.
    """
    limits = np.abs(weight).reshape(weight.shape[0], -1).max(axis=1)
    if hardware is Hardware.CPU and weight.shape[1] > 1:
        even = np.pad(weight, ((0, 0), (0, weight.shape[1] % 2), (0, 0), (0, 0)))
        pairs = even.reshape(weight.shape[0], -1, 2, *weight.shape[2:])
        sums = np.maximum(np.maximum(pairs, 0).sum(axis=2), np.maximum(-pairs, 0).sum(axis=2))
        # rounding adds up to half a step to each of the two: 127 steps become 128 at most
        limits = np.maximum(limits, sums.reshape(weight.shape[0], -1).max(axis=1))
    return scale_of(limits, precision)


def rounded_weight(
    weight: NDArray[np.float32], precision: Precision, hardware: Hardware = Hardware.TRT
) -> NDArray[np.float32]:
    """The weight as the quantised convolution sees it."""
    return rounded(weight, weight_scales(weight, precision, hardware).reshape(-1, 1, 1, 1), precision)


def rounded(values: NDArray[np.float32], scales: NDArray[np.float32], precision: Precision) -> NDArray[np.float32]:
    """`values` after QuantizeLinear and DequantizeLinear with `scales`."""
    scaled = values / scales
    if precision is Precision.INT8:
        np.clip(np.rint(scaled, out=scaled), -128, 127, out=scaled)
    else:
        largest = _LARGEST[precision]
        kind = helper.tensor_dtype_to_np_dtype(_ZERO_TYPE[precision])
        scaled = np.clip(scaled, -largest, largest).astype(kind).astype(np.float32)
    return np.asarray(scaled * scales, np.float32)


def check_operator_set(graph: GraphIndex, precision: Precision) -> None:
    """Raise `OptionError` where the operator set of `graph` has no Q/DQ nodes of `precision`."""
    if precision is Precision.FP8 and graph.opset < FP8_OPSET:
        raise OptionError(f"FP8 needs operator set {FP8_OPSET}, and this graph has {graph.opset}: export with opset 20")


def insert(
    model: onnx.ModelProto,
    plan: Plan,
    thresholds: Mapping[str, float],
    precision: Precision,
    hardware: Hardware = Hardware.TRT,
) -> None:
    """Put Q/DQ of `plan` into `model`, the graph that the plan was made for.

    Args:
        model: changed in place.
        plan: of this model.
        thresholds: clipping threshold of each tensor that the plan quantises.
        precision: INT8 or FP8.
        hardware: what is to compute the graph.

    Raises:
        OptionError: FP8 in an operator set that has none.
    """
    graph = GraphIndex(model)
    check_operator_set(graph, precision)
    before: dict[str, list[NodeProto]] = {}
    first: list[NodeProto] = []
    for tensor, uses in plan.uses.items():
        pair, result = quantize_pair(model, tensor, scale_of(thresholds[tensor], precision), precision)
        for use in uses:
            use.node.input[use.position] = result
        producer = graph.producers.get(tensor)
        if producer is None:
            first += pair
        else:
            before.setdefault(producer.name, []).extend(pair)
    for conv in plan.convs:
        scales = weight_scales(graph.array(conv.weight), precision, hardware)
        # weights that convolutions share get a pair for each: a builder folds them all the same
        pair, result = quantize_pair(model, conv.weight, scales, precision, f"{conv.name}/weight")
        conv.node.input[1] = result
        first += pair
    nodes = [*first]
    for node in graph.nodes:
        nodes.append(node)
        nodes += before.get(node.name, [])
    ordered = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(ordered)
    drop_unused_initializers(model)


def quantize_pair(
    model: onnx.ModelProto,
    tensor: str,
    scales: NDArray[np.float32],
    precision: Precision,
    name: str | None = None,
) -> tuple[list[NodeProto], str]:
    """A Q/DQ pair on `tensor` and the name of its result; its scale and zero point become initialisers.

    Args:
        model: takes the initialisers.
        tensor: what to quantise.
        scales: one, with shape (), or one for each of a weight's outputs, (out,).
        precision: INT8 or FP8.
        name: what the names of everything new begin with; None for that of the tensor.
    """
    name = name or tensor
    zero = np.zeros(scales.shape, helper.tensor_dtype_to_np_dtype(_ZERO_TYPE[precision]))
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(scales), f"{name}_scale"))
    model.graph.initializer.append(numpy_helper.from_array(zero, f"{name}_zero_point"))
    constants = [f"{name}_scale", f"{name}_zero_point"]
    settings: dict[str, Any] = {"axis": 0} if scales.ndim else {}
    quantize = helper.make_node(
        "QuantizeLinear", [tensor, *constants], [f"{name}_quantized"], f"{name}_QuantizeLinear", **settings
    )
    restore = helper.make_node(
        "DequantizeLinear",
        [f"{name}_quantized", *constants],
        [f"{name}_dequantized"],
        f"{name}_DequantizeLinear",
        **settings,
    )
    return [quantize, restore], f"{name}_dequantized"
