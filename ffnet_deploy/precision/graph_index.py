"""Index of an ONNX graph: producers and users of each tensor, types, convolutions, and what depends on the image.

The one reader of graphs that typing, calibration and export share. ONNX's own helpers find a tensor by scanning.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper, version_converter

from ffnet_deploy.core.errors import ArtifactError

LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that sum products of inputs and weights."""
QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
"""Operators that mark a graph as quantised."""
RESIZE_MATRIX = "resize_matrix"
"""Last part of the names of constants that hold the weights of an interpolation; these are never quantised."""
_COUNTING = frozenset({"Shape", "Size", "ArgMax", "ArgMin"})
"""Operators whose results count or number things: they carry no rounded features on."""
_ALWAYS_FLOAT = {"Resize": frozenset({1, 2})}
"""Inputs that ONNX wants as float32 whatever the operator's own type is: Resize's region and scales."""
_IR_VERSION = 10
"""ONNX file format of the releases with operator sets 21 and 22."""


@dataclass(frozen=True)
class TensorUse:
    """One input of one node."""

    node: NodeProto
    position: int


@dataclass(frozen=True)
class Conv:
    """A convolution with constant weights.

    Attributes:
        node: Node of the graph.
        weight: Name of the initialiser, (out, in / groups, kernel height, kernel width).
        bias: Name of the initialiser (out,), or None.
        groups: Number of groups of channels that do not mix.
        shape: Shape of the weight.
    """

    node: NodeProto
    weight: str
    bias: str | None
    groups: int
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name of the node."""
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
        """Number of input channels."""
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


@dataclass(frozen=True)
class TypedNode:
    """A node whose floating-point type is a choice.

    Attributes:
        proto: Node of the graph.
        inputs: Positions and names of the inputs that are of the node's type.
        outputs: Names of the outputs that are of the node's type.
    """

    proto: NodeProto
    inputs: tuple[tuple[int, str], ...]
    outputs: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the node."""
        return str(self.proto.name)

    @property
    def op(self) -> str:
        """Its operator."""
        return str(self.proto.op_type)

    def takes(self, name: str) -> bool:
        """Whether `name` is an input of the node's own type."""
        return any(name == taken for _, taken in self.inputs)


class GraphIndex:
    """Lookups over a model's main graph. Make a new index after changing nodes.

    Attributes:
        model: The model.
        nodes: Its nodes in graph order, each with a name of its own.
        initializers: Constants by name.
        inputs: Names of the graph's inputs.
        outputs: Names of the graph's outputs.
        producers: Node that makes each tensor.
        uses: Inputs of nodes that read each tensor.
        wide_io: Whether the graph's float inputs and outputs stay FP32 where its nodes get 16-bit types.

    Args:
        model: It is read, not changed, but for nodes without a name of their own, which are given one.
        wide_io: See above.
    """

    def __init__(self, model: onnx.ModelProto, wide_io: bool = True) -> None:
        name_nodes(model)
        self.model = model
        self.wide_io = wide_io
        self.nodes: list[NodeProto] = list(model.graph.node)
        self.initializers: dict[str, TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = [tensor.name for tensor in model.graph.input if tensor.name not in self.initializers]
        self.outputs = [tensor.name for tensor in model.graph.output]
        self.producers: dict[str, NodeProto] = {name: node for node in self.nodes for name in node.output if name}
        self.uses: dict[str, list[TensorUse]] = {}
        for node in self.nodes:
            for position, name in enumerate(node.input):
                self.uses.setdefault(name, []).append(TensorUse(node, position))

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return opset_of(self.model)

    def array(self, name: str) -> NDArray[Any]:
        """The values of an initialiser."""
        return np.asarray(numpy_helper.to_array(self.initializers[name]))

    def only_use(self, name: str) -> TensorUse | None:
        """The single use of a tensor, or None where it has others or is an output of the graph."""
        uses = self.uses.get(name, [])
        return uses[0] if len(uses) == 1 and name not in self.outputs else None

    @cached_property
    def convs(self) -> list[Conv]:
        """All convolutions over two dimensions with constant float weights and biases, in graph order."""
        found = []
        for node in self.nodes:
            weight = self.initializers.get(node.input[1]) if node.op_type == "Conv" else None
            if weight is None or len(weight.dims) != 4 or weight.data_type != TensorProto.FLOAT:
                continue
            bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
            if bias is None or bias in self.initializers:
                found.append(Conv(node, weight.name, bias, int(attribute(node, "group", 1)), tuple(weight.dims)))
        return found

    @cached_property
    def types(self) -> dict[str, int]:
        """ONNX element type of each tensor. Raises `ArtifactError` where the graph is not well typed."""
        return {name: kind for name, (kind, _) in self._inferred.items()}

    @cached_property
    def ranks(self) -> dict[str, int]:
        """Number of dimensions of the tensors where it is known; raises as `types` does."""
        return {name: rank for name, (_, rank) in self._inferred.items() if rank is not None}

    @cached_property
    def _inferred(self) -> dict[str, tuple[int, int | None]]:
        try:
            inferred = onnx.shape_inference.infer_shapes(self.model, check_type=True, strict_mode=True, data_prop=True)
        except onnx.shape_inference.InferenceError as error:
            raise ArtifactError(
                f"the graph is not well typed: {str(error).splitlines()[0]}\n"
                "  to do    export it again with ffnet-export"
            ) from error
        found: dict[str, tuple[int, int | None]] = {
            tensor.name: (tensor.data_type, len(tensor.dims)) for tensor in self.model.graph.initializer
        }
        for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
            kind = value.type.tensor_type
            found[value.name] = kind.elem_type, len(kind.shape.dim) if kind.HasField("shape") else None
        return found

    @cached_property
    def features(self) -> set[str]:
        """Names of the tensors that depend on the image's content."""
        found = set(self.inputs)
        for node in self.nodes:
            if node.op_type not in _COUNTING and found.intersection(node.input):
                found.update(node.output)
        return found

    @cached_property
    def typed_nodes(self) -> dict[str, TypedNode]:
        """Nodes with float32 inputs or outputs by name, in graph order; raises as `types` does."""
        found = {}
        for node in self.nodes:
            fixed = _ALWAYS_FLOAT.get(node.op_type, frozenset())
            inputs = tuple((at, name) for at, name in enumerate(node.input) if at not in fixed and self._is_float(name))
            outputs = tuple(name for name in node.output if self._is_float(name))
            if inputs or outputs:
                found[str(node.name)] = TypedNode(node, inputs, outputs)
        return found

    def _is_float(self, name: str) -> bool:
        return self.types.get(name) == TensorProto.FLOAT

    @cached_property
    def typed_producers(self) -> dict[str, TypedNode]:
        """Node that makes each float32 tensor."""
        return {name: node for node in self.typed_nodes.values() for name in node.outputs}

    @cached_property
    def typed_users(self) -> dict[str, list[TypedNode]]:
        """Nodes that take each float32 tensor as one of their own type."""
        found: dict[str, list[TypedNode]] = defaultdict(list)
        for node in self.typed_nodes.values():
            for name in dict.fromkeys(name for _, name in node.inputs):
                found[name].append(node)
        return found

    def computes_features(self, node: TypedNode) -> bool:
        """Whether any input or the output of `node` depends on the image's content."""
        return any(name in self.features for name in (*node.proto.input, *node.outputs))


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the default operator set of `model`."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def upgrade_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """`model` in operator set `opset`, or as it is where its own is not older.

    Raises:
        ArtifactError: An operator cannot be converted.
    """
    current = opset_of(model)
    if current >= opset:
        return model
    try:
        raised = version_converter.convert_version(model, opset)
    except Exception as error:  # the converter's errors are plain RuntimeErrors and others
        raise ArtifactError(
            f"the graph cannot be raised from operator set {current} to {opset}: {str(error).splitlines()[0]}"
        ) from error
    raised.ir_version = max(model.ir_version, _IR_VERSION)
    return raised


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """The value of an attribute of `node`, or `default` where it is not written."""
    for item in node.attribute:
        if item.name == name:
            return helper.get_attribute_value(item)
    return default


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` that can be changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def name_nodes(model: onnx.ModelProto) -> None:
    """Give every node a name of its own, in place."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
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
