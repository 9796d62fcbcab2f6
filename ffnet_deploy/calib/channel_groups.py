"""Channels that must keep one scale, and moving a factor per channel through them, exactly.

Sums, concatenations and resizes tie channels together in groups. Dividing all of a group's producers by a factor per
channel and multiplying all of its readers with it changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper

from ffnet_deploy.precision.graph_index import Conv, GraphIndex, TensorUse, attribute, set_initializer

_HOMOGENEOUS = frozenset({"Relu", "LeakyRelu", "Resize", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity"})
"""Operators f with f(s x) = s f(x) for a positive factor s per channel, in their first input."""


@dataclass(frozen=True)
class Piece:
    """A run of a tensor's channels: all channels of one group.

    Attributes:
        group: Number of the group.
        start: First channel.
        channels: Number of channels.
    """

    group: int
    start: int
    channels: int

    @property
    def slice(self) -> slice:
        """Of the tensor's channels."""
        return slice(self.start, self.start + self.channels)


@dataclass
class ChannelGroup:
    """Tensors that share one factor per channel.

    Attributes:
        channels: Number of channels of each tensor in the group.
        producers: Convolutions whose output channels are the group's.
        readers: Convolutions, each with the first of its input channels that belongs to the group.
        sinks: Inputs of operators that do not pass a factor on.
        fixed: Whether a tensor of the group is an output of the graph.
    """

    channels: int
    producers: list[Conv] = field(default_factory=list)
    readers: list[tuple[Conv, int]] = field(default_factory=list)
    sinks: list[TensorUse] = field(default_factory=list)
    fixed: bool = False

    def absorb(self, other: "ChannelGroup") -> None:
        """Take over everything of `other`."""
        self.producers += other.producers
        self.readers += other.readers
        self.sinks += other.sinks
        self.fixed = self.fixed or other.fixed


class ChannelGroups:
    """The groups of a graph: every convolution's output begins one, and operators unite or pass them on."""

    def __init__(self, graph: GraphIndex) -> None:
        self._groups: list[ChannelGroup] = []
        self._parents: list[int] = []
        self._layouts: dict[str, tuple[Piece, ...]] = {}
        convs = {conv.name: conv for conv in graph.convs}
        for node in graph.nodes:
            self._visit(node, convs.get(node.name))
        for name in graph.outputs:
            for piece in self._layouts.get(name, ()):
                self._groups[self._root(piece.group)].fixed = True

    def layout(self, tensor: str) -> tuple[Piece, ...]:
        """The channels of `tensor`, first to last; empty where they are not made of groups."""
        pieces = self._layouts.get(tensor, ())
        return tuple(Piece(self._root(piece.group), piece.start, piece.channels) for piece in pieces)

    def all(self) -> dict[int, ChannelGroup]:
        """Every group by its number."""
        return {index: self._groups[index] for index, parent in enumerate(self._parents) if parent == index}

    def _root(self, index: int) -> int:
        while self._parents[index] != index:
            index = self._parents[index]
        return index

    def _visit(self, node: NodeProto, conv: Conv | None) -> None:
        layouts, result = self._layouts, node.output[0]
        if conv is not None:
            for piece in self.layout(conv.input):
                self._groups[piece.group].readers.append((conv, piece.start))
            layouts[result] = self._new(conv)
        elif self._passes(node) or (node.op_type == "Add" and self._unites(node)):
            layouts[result] = layouts[node.input[0]]
        elif node.op_type == "Concat" and self._concatenates(node):
            layouts[result] = self._joined(node)
        else:
            self._end(node)

    def _new(self, conv: Conv) -> tuple[Piece, ...]:
        self._groups.append(ChannelGroup(conv.shape[0], producers=[conv]))
        self._parents.append(len(self._parents))
        return (Piece(len(self._groups) - 1, 0, conv.shape[0]),)

    def _passes(self, node: NodeProto) -> bool:
        return node.op_type in _HOMOGENEOUS and node.input[0] in self._layouts

    def _end(self, node: NodeProto) -> None:
        for position, name in enumerate(node.input):
            for piece in self.layout(name):
                self._groups[piece.group].sinks.append(TensorUse(node, position))

    def _unites(self, node: NodeProto) -> bool:
        first, second = (self.layout(name) for name in node.input)
        if not first or [piece.slice for piece in first] != [piece.slice for piece in second]:
            return False
        for one, other in zip(first, second, strict=True):
            kept, gone = self._root(one.group), self._root(other.group)
            if kept != gone:
                self._groups[kept].absorb(self._groups[gone])
                self._parents[gone] = kept
        return True

    def _concatenates(self, node: NodeProto) -> bool:
        return attribute(node, "axis", 0) == 1 and all(name in self._layouts for name in node.input)

    def _joined(self, node: NodeProto) -> tuple[Piece, ...]:
        pieces: list[Piece] = []
        for name in node.input:
            for piece in self.layout(name):
                start = pieces[-1].start + pieces[-1].channels if pieces else 0
                pieces.append(Piece(piece.group, start, piece.channels))
        return tuple(pieces)


Values = NDArray[np.float64]


def rescale(model: onnx.ModelProto, group: ChannelGroup, factors: Values) -> None:
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
