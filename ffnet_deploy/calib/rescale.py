"""Moving a factor per channel from the producers of a group of tensors to its readers, exactly."""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from ffnet_deploy.calib.channel_groups import Group
from ffnet_deploy.precision.graph_index import Conv, GraphIndex, set_initializer

Values = NDArray[np.float64]


def rescale(model: onnx.ModelProto, group: Group, factors: Values) -> None:
    """Divide what the group's producers make by `factors` (channels,), and multiply it back in its readers, in place.

    Operators that do not pass a factor on read the tensor through a Mul that restores it.
    """
    for conv in group.producers:
        scale_outputs(model, conv, 1 / factors)
    for conv, start in group.readers:
        scale_inputs(model, conv, factors, start)
    restored: dict[str, str] = {}
    for use in group.sinks:
        tensor = use.node.input[use.position]
        if tensor not in restored:
            restored[tensor] = insert_factor(model, tensor, factors, f"{tensor}_restored")
        use.node.input[use.position] = restored[tensor]


def divide_input(model: onnx.ModelProto, tensor: str, convs: Sequence[Conv], factors: Values) -> None:
    """Let `convs` read `tensor` divided by `factors` (channels,), in a Mul, and multiply their weights, in place."""
    divided = insert_factor(model, tensor, 1 / factors, f"{tensor}_equalized")
    for conv in convs:
        scale_inputs(model, conv, factors)
        conv.node.input[0] = divided


def scale_outputs(model: onnx.ModelProto, conv: Conv, factors: Values) -> None:
    """Multiply the output channels of `conv` by `factors` (out,), in place."""
    weight, bias = own_weight(model, conv), own_bias(model, conv)
    set_initializer(model, conv.node.input[1], (weight * factors[:, None, None, None]).astype(np.float32))
    if bias is not None:
        set_initializer(model, conv.node.input[2], (bias * factors).astype(np.float32))


def scale_inputs(model: onnx.ModelProto, conv: Conv, factors: Values, start: int = 0) -> None:
    """Make `conv` multiply its input channels from `start` on by `factors`, in place."""
    weight = own_weight(model, conv)
    per_input = np.ones(conv.channels)
    per_input[start : start + len(factors)] = factors
    # output o reads the channels of its own group of channels
    outputs = conv.shape[0] // conv.groups
    rows = np.repeat(per_input.reshape(conv.groups, conv.shape[1]), outputs, axis=0)
    set_initializer(model, conv.node.input[1], (weight * rows[:, :, None, None]).astype(np.float32))


def own_weight(model: onnx.ModelProto, conv: Conv) -> Values:
    """The weight of `conv`, float64; one that it shares with others becomes its own."""
    return _own(model, conv, 1, "weight")


def own_bias(model: onnx.ModelProto, conv: Conv) -> Values | None:
    """The bias of `conv`, float64, or None; one that it shares with others becomes its own."""
    return _own(model, conv, 2, "bias") if conv.bias is not None else None


def _own(model: onnx.ModelProto, conv: Conv, position: int, suffix: str) -> Values:
    graph = GraphIndex(model)
    name = conv.node.input[position]
    values = graph.array(name)
    if len(graph.uses[name]) > 1:
        conv.node.input[position] = f"{conv.name}/{suffix}"
        set_initializer(model, conv.node.input[position], values)
    return values.astype(np.float64)


def insert_factor(model: onnx.ModelProto, tensor: str, factors: Values, result: str) -> str:
    """Add a Mul of `tensor` (batch, channels, height, width) by `factors` (channels,); returns the name it makes."""
    set_initializer(model, f"{result}_factor", factors.astype(np.float32).reshape(1, -1, 1, 1))
    node = helper.make_node("Mul", [tensor, f"{result}_factor"], [result], f"{result}_Mul")
    nodes = model.graph.node
    after = next((at for at, other in enumerate(nodes) if tensor in other.output), -1)
    nodes.insert(after + 1, node)
    return result
