"""The measuring graph: the network beside copies of its nodes on rounded inputs, giving nothing but scalars.

All sizes, extremes and errors are reduced where they arise, so that no activation leaves the runtime or is kept in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import TensorProto, helper

from ffnet_deploy.precision.formats import Format
from ffnet_deploy.precision.view import LINEAR, Node, View

_AVERAGING = frozenset({"ReduceMean", "GlobalAveragePool", "AveragePool"})
_SUMMING = LINEAR | _AVERAGING | {"ReduceSum"}
_ROOT = "ffnet_deploy_probe"


@dataclass(frozen=True)
class Probe:
    """One scalar of the measuring graph.

    Attributes:
        quantity: what it is: ``largest``, ``smallest``, ``size`` of a tensor; ``error``, ``power``, ``share``,
            ``flips``, ``magnitudes`` of a node.
        of: name of the tensor or node.
    """

    quantity: str
    of: str


class ProbeBuilder:
    """Writes the measuring graph of a view.

    Args:
        view: the graph.
        to: the format that inputs and outputs are rounded to.
        relative: nodes whose error counts relative to each position.
        amplification: of `TypingOptions`.
    """

    def __init__(self, view: View, to: Format, relative: frozenset[str], amplification: float) -> None:
        self._view = view
        self._format = to
        self._relative = relative
        self._limit = (amplification * to.roundoff) ** 2
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._rounded: dict[str, str] = {}
        self._count = 0
        self.probes: dict[str, Probe] = {}

    def build(self) -> onnx.ModelProto:
        """The measuring graph; its outputs are the keys of `probes`."""
        for proto in self._view.model.graph.node:
            self._nodes.append(proto)
            node = self._view.nodes.get(proto.name)
            if node is not None and self._view.computes_features(node):
                self._observe(node)
        for value in self._view.model.graph.input:
            if self._view.types[value.name] == TensorProto.FLOAT:
                self._observe_tensor(value.name)
        return self._model()

    def _observe(self, node: Node) -> None:
        for name in node.outputs:
            self._observe_tensor(name)
        if node.op == "ArgMax":
            self._observe_labels(node, node.inputs[0][1], node.proto)
        elif node.outputs and node.outputs[0] in self._view.outputs and self._view.ranks.get(node.outputs[0]) == 4:
            self._observe_labels(node, node.outputs[0], helper.make_node("ArgMax", [""], [""], axis=1))
        if len(node.outputs) != 1:
            return
        self._observe_rounding(node)
        if node.op in _SUMMING:
            positive = [self._add("Abs", [name]) if node_takes(node, name) else name for name in node.proto.input]
            self._probe("magnitudes", node.name, self._largest(self._copied(node.proto, positive)))

    def _observe_tensor(self, name: str) -> None:
        self._probe("largest", name, self._largest(self._add("Abs", [name])))
        self._probe("smallest", name, self._add("ReduceMin", [name], keepdims=0))
        self._probe("size", name, self._add("Size", [name]))

    def _observe_labels(self, node: Node, scores: str, decide: onnx.NodeProto) -> None:
        """How many labels differ between `scores` and `scores` rounded, `decide` being their ArgMax."""
        exact, rounded = (self._copied(decide, [name]) for name in (scores, self._round(scores)))
        same = self._add("Cast", [self._add("Equal", [exact, rounded])], to=TensorProto.FLOAT)
        self._probe("flips", node.name, self._add("Sub", [self._constant(1.0), self._mean(same)]))

    def _observe_rounding(self, node: Node) -> None:
        inputs = [self._round(name) if node_takes(node, name) else name for name in node.proto.input]
        name = node.outputs[0]
        error = self._add("Sub", [name, self._round(self._copied(node.proto, inputs))])
        self._probe("error", node.name, self._add("ReduceSumSquare", [error], keepdims=0))
        self._probe("power", node.name, self._add("ReduceSumSquare", [name], keepdims=0))
        if node.name in self._relative:
            limit = self._constant(self._limit)
            allowed = self._add("Mul", [self._position_power(name), limit])
            beyond = self._add("Greater", [self._position_power(error, like=name), allowed])
            counted = self._add("Cast", [beyond], to=TensorProto.FLOAT)
            self._probe("share", node.name, self._mean(counted))

    def _position_power(self, name: str, like: str | None = None) -> str:
        """Squares of a tensor, summed over the channels of (batch, channels, height, width)."""
        if self._view.ranks.get(like or name) != 4:
            return self._add("Mul", [name, name])
        if self._view.opset < 18:
            return self._add("ReduceSumSquare", [name], axes=[1], keepdims=1)
        return self._add("ReduceSumSquare", [name, self._axis()], keepdims=1)

    def _round(self, name: str) -> str:
        """`name` rounded to the format and back."""
        if name not in self._rounded:
            narrow = self._add("Cast", [name], to=self._format.tensor_type)
            self._rounded[name] = self._add("Cast", [narrow], to=TensorProto.FLOAT)
        return self._rounded[name]

    def _copied(self, node: onnx.NodeProto, inputs: Sequence[str]) -> str:
        """A copy of `node` with other inputs; the name of its only output."""
        proto = onnx.NodeProto()
        proto.CopyFrom(node)
        self._count += 1
        proto.name = f"{_ROOT}_{self._count}"
        proto.input[:] = inputs
        proto.output[:] = [proto.name]
        self._nodes.append(proto)
        return str(proto.name)

    def _mean(self, name: str) -> str:
        return self._add("ReduceMean", [name], keepdims=0)

    def _largest(self, name: str) -> str:
        return self._add("ReduceMax", [name], keepdims=0)

    def _add(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        self._count += 1
        output = f"{_ROOT}_{self._count}"
        self._nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def _constant(self, value: float) -> str:
        self._count += 1
        name = f"{_ROOT}_{self._count}"
        self._constants.append(helper.make_tensor(name, TensorProto.FLOAT, [], [value]))
        return name

    def _axis(self) -> str:
        name = f"{_ROOT}_axis"
        if not any(tensor.name == name for tensor in self._constants):
            self._constants.append(helper.make_tensor(name, TensorProto.INT64, [1], [1]))
        return name

    def _probe(self, quantity: str, of: str, tensor: str) -> None:
        self.probes[tensor] = Probe(quantity, of)

    def _model(self) -> onnx.ModelProto:
        source = self._view.model
        outputs = [
            helper.make_tensor_value_info(
                name, TensorProto.INT64 if probe.quantity == "size" else TensorProto.FLOAT, []
            )
            for name, probe in self.probes.items()
        ]
        graph = helper.make_graph(
            self._nodes, _ROOT, source.graph.input, outputs, [*source.graph.initializer, *self._constants]
        )
        return helper.make_model(graph, opset_imports=source.opset_import, ir_version=source.ir_version)


def node_takes(node: Node, name: str) -> bool:
    """Whether `name` is an input of the node's own type."""
    return any(name == taken for _, taken in node.inputs)
