"""Reading an ONNX graph: who makes and who uses each tensor, and what its convolutions look like."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

QUANTIZING = frozenset({"QuantizeLinear", "DequantizeLinear"})
"""Operators that mark a graph as quantised."""


@dataclass(frozen=True)
class Use:
    """One input of one node."""

    node: NodeProto
    position: int


@dataclass(frozen=True)
class Conv:
    """A convolution with constant weights.

    Attributes:
        node: of the graph.
        weight: name of the initialiser, (out, in / groups, kernel height, kernel width).
        bias: name of the initialiser (out,), or None.
        groups: of channels that do not mix.
        shape: of the weight.
    """

    node: NodeProto
    weight: str
    bias: str | None
    groups: int
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of the node."""
        return str(self.node.name)

    @property
    def input(self) -> str:
        """Name of the tensor that it reads."""
        return str(self.node.input[0])

    @property
    def output(self) -> str:
        """Name of the tensor that it makes."""
        return str(self.node.output[0])

    @property
    def channels(self) -> int:
        """Input channels."""
        return self.shape[1] * self.groups

    @property
    def is_depthwise(self) -> bool:
        """Whether every input channel has outputs of its own."""
        return self.shape[1] == 1 and self.groups > 1

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for an input of `size` (batch, channels, height, width)."""
        positions = int(size[0])
        for axis in range(2):
            kernel, extent = self.shape[2 + axis], size[2 + axis]
            pads = attribute(self.node, "pads", [0] * 4)
            reach = attribute(self.node, "dilations", [1] * 2)[axis] * (kernel - 1) + 1
            padded = extent + pads[axis] + pads[axis + 2]
            positions *= (padded - reach) // attribute(self.node, "strides", [1] * 2)[axis] + 1
        return positions * int(np.prod(self.shape))


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """The value of an attribute of `node`, or `default` where it is not written."""
    for item in node.attribute:
        if item.name == name:
            return helper.get_attribute_value(item)
    return default


class Graph:
    """An index of a model's main graph; make a new one after changing nodes.

    Args:
        model: it is read, not changed, but for nodes without a name of their own, which are given one.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[NodeProto] = list(model.graph.node)
        self.initializers: dict[str, TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = [tensor.name for tensor in model.graph.input if tensor.name not in self.initializers]
        self.outputs = [tensor.name for tensor in model.graph.output]
        self.producers: dict[str, NodeProto] = {name: node for node in self.nodes for name in node.output if name}
        self.uses: dict[str, list[Use]] = {}
        for node in self.nodes:
            for position, name in enumerate(node.input):
                self.uses.setdefault(name, []).append(Use(node, position))
        _name_nodes(self.nodes)

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return next(int(item.version) for item in self.model.opset_import if item.domain in ("", "ai.onnx"))

    def array(self, name: str) -> NDArray[Any]:
        """The values of an initialiser."""
        return np.asarray(numpy_helper.to_array(self.initializers[name]))

    @cached_property
    def convs(self) -> list[Conv]:
        """All convolutions over two dimensions with constant float weights and biases, in graph order."""
        return [conv for node in self.nodes if node.op_type == "Conv" and (conv := self._conv(node)) is not None]

    def _conv(self, node: NodeProto) -> Conv | None:
        weight = self.initializers.get(node.input[1])
        bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
        if weight is None or len(weight.dims) != 4 or weight.data_type != TensorProto.FLOAT:
            return None
        if bias is not None and bias not in self.initializers:
            return None
        return Conv(node, weight.name, bias, int(attribute(node, "group", 1)), tuple(weight.dims))

    def only_use(self, name: str) -> Use | None:
        """The single use of a tensor, or None where it has others or is an output of the graph."""
        uses = self.uses.get(name, [])
        return uses[0] if len(uses) == 1 and name not in self.outputs else None


def _name_nodes(nodes: Sequence[NodeProto]) -> None:
    taken: set[str] = set()
    for index, node in enumerate(nodes):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}_{index}"
        taken.add(node.name)


def set_initializer(model: onnx.ModelProto, name: str, values: NDArray[Any]) -> None:
    """Add the initialiser `name`, or give it new values."""
    tensor = numpy_helper.from_array(np.ascontiguousarray(values), name)
    for present in model.graph.initializer:
        if present.name == name:
            present.CopyFrom(tensor)
            return
    model.graph.initializer.append(tensor)


def drop_unused_initializers(model: onnx.ModelProto) -> None:
    """Remove the initialisers that no node reads."""
    used = {name for node in model.graph.node for name in node.input}
    used.update(tensor.name for tensor in model.graph.output)
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    if len(kept) < len(model.graph.initializer):
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
