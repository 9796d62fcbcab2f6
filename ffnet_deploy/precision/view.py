"""A graph seen from its tensors: what types they have, who makes and who takes them, what depends on the image."""

from collections import defaultdict
from dataclasses import dataclass

import onnx

from ffnet_deploy.core.errors import ArtifactError

FLOAT = onnx.TensorProto.FLOAT
LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that sum products of inputs and weights."""
QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_COUNTING = frozenset({"Shape", "Size", "ArgMax", "ArgMin"})
"""Operators whose results count or number things: they carry no rounded features on."""
_ALWAYS_FLOAT = {"Resize": frozenset({1, 2})}
"""Inputs that ONNX wants as float32 whatever the operator's own type is: Resize's region and scales."""


@dataclass(frozen=True)
class Node:
    """A node whose type is a choice.

    Attributes:
        index: position in the graph.
        proto: the node.
        inputs: names of the inputs that are of the node's type, with their positions.
        outputs: names of the outputs that are.
    """

    index: int
    proto: onnx.NodeProto
    inputs: tuple[tuple[int, str], ...]
    outputs: tuple[str, ...]

    @property
    def name(self) -> str:
        """The node's name."""
        return str(self.proto.name)

    @property
    def op(self) -> str:
        """The operator."""
        return str(self.proto.op_type)


class View:
    """Lookups over an ONNX graph that is left as it is.

    Attributes:
        model: the graph, every node named.
        opset: its operator set.
        types: ONNX element type of each tensor.
        ranks: number of dimensions of the tensors where it is known.
        initializers: constants by name.
        nodes: those with float32 inputs or outputs, by name, in graph order.
        producers: node that makes each float32 tensor.
        consumers: nodes that take each float32 tensor as one of their type.
        outputs: names of the graph's outputs.
        features: tensors that depend on the image's content.

    Raises:
        ArtifactError: the graph is not well typed.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.types, self.ranks = _types_and_ranks(model)
        self.nodes = {node.name: node for node in self._float_nodes()}
        self.producers = {name: node for node in self.nodes.values() for name in node.outputs}
        self.consumers: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes.values():
            for name in dict.fromkeys(name for _, name in node.inputs):
                self.consumers[name].append(node)
        self._takers: dict[str, list[str]] = defaultdict(list)
        for proto in model.graph.node:
            for name in proto.input:
                self._takers[name].append(proto.name)
        self.outputs = {tensor.name for tensor in model.graph.output}
        self.features = self._features()

    def computes_features(self, node: Node) -> bool:
        """Whether any float input or the output of `node` depends on the image's content."""
        return any(name in self.features for name in (*node.proto.input, *node.outputs))

    def takers(self, name: str) -> list[str]:
        """Names of all nodes that take a tensor of any type."""
        return self._takers.get(name, [])

    def _float_nodes(self) -> list[Node]:
        found = []
        for index, proto in enumerate(self.model.graph.node):
            fixed = _ALWAYS_FLOAT.get(proto.op_type, frozenset())
            inputs = tuple(
                (at, name) for at, name in enumerate(proto.input) if at not in fixed and self.types.get(name) == FLOAT
            )
            outputs = tuple(name for name in proto.output if self.types.get(name) == FLOAT)
            if inputs or outputs:
                found.append(Node(index, proto, inputs, outputs))
        return found

    def _features(self) -> set[str]:
        found = {tensor.name for tensor in self.model.graph.input} - set(self.initializers)
        for proto in self.model.graph.node:
            if proto.op_type not in _COUNTING and found.intersection(proto.input):
                found.update(proto.output)
        return found


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` in which every node has a name of its own."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    seen: set[str] = set()
    for index, node in enumerate(copy.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.name or node.op_type}_{index}"
        seen.add(node.name)
    return copy


def _types_and_ranks(model: onnx.ModelProto) -> tuple[dict[str, int], dict[str, int]]:
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise ArtifactError(
            f"the graph is not well typed: {str(error).splitlines()[0]}\n  to do    export it again with ffnet-export"
        ) from error
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        kind = value.type.tensor_type
        types[value.name] = kind.elem_type
        if kind.HasField("shape"):
            ranks[value.name] = len(kind.shape.dim)
    return types, ranks
