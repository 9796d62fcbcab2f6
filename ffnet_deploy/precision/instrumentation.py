"""Instrumentation: extremes and rounding errors of every node, observed on real images.

The network runs beside copies of its nodes on rounded inputs. All sizes, extremes and errors are reduced where they
arise, so that no activation leaves the runtime or is kept in it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ffnet_deploy.core.errors import DataError
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.onnxruntime import SessionSettings, create_session
from ffnet_deploy.precision.formats import Format
from ffnet_deploy.precision.graph_index import LINEAR, GraphIndex, TypedNode

_SOUND = ("largest", "smallest", "power")
"""Quantities of the network itself, which no rounding can make NaN."""


_AVERAGING = frozenset({"ReduceMean", "GlobalAveragePool", "AveragePool"})
_SUMMING = LINEAR | _AVERAGING | {"ReduceSum"}
_ROOT = "ffnet_deploy_statistic"


@dataclass(frozen=True)
class Statistic:
    """One scalar of the measuring graph.

    Attributes:
        quantity: What it is: ``largest``, ``smallest``, ``size`` of a tensor; ``error``, ``power``, ``share``,
            ``flips``, ``magnitudes`` of a node.
        of: Name of the tensor or node.
    """

    quantity: str
    of: str


class Instrumentation:
    """Builds the measuring graph of a network.

    Args:
        index: the graph.
        to: the format that inputs and outputs are rounded to.
        relative: nodes whose error counts relative to each position.
        amplification: of `TypingOptions`.
    """

    def __init__(self, index: GraphIndex, to: Format, relative: frozenset[str], amplification: float) -> None:
        self._index = index
        self._format = to
        self._relative = relative
        self._limit = (amplification * to.roundoff) ** 2
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._rounded: dict[str, str] = {}
        self._count = 0
        self.statistics: dict[str, Statistic] = {}

    def build(self) -> onnx.ModelProto:
        """The measuring graph; its outputs are the keys of `statistics`."""
        for proto in self._index.model.graph.node:
            self._nodes.append(proto)
            node = self._index.typed_nodes.get(proto.name)
            if node is not None and self._index.computes_features(node):
                self._observe(node)
        for value in self._index.model.graph.input:
            if self._index.types[value.name] == TensorProto.FLOAT:
                self._observe_tensor(value.name)
        return self._model()

    def _observe(self, node: TypedNode) -> None:
        for name in node.outputs:
            self._observe_tensor(name)
        if node.op == "ArgMax":
            self._observe_labels(node, node.inputs[0][1], node.proto)
        elif node.outputs and node.outputs[0] in self._index.outputs and self._index.ranks.get(node.outputs[0]) == 4:
            self._observe_labels(node, node.outputs[0], helper.make_node("ArgMax", [""], [""], axis=1))
        if len(node.outputs) != 1:
            return
        self._observe_rounding(node)
        if node.op in _SUMMING:
            positive = [self._add("Abs", [name]) if node.takes(name) else name for name in node.proto.input]
            self._record("magnitudes", node.name, self._largest(self._copied(node.proto, positive)))

    def _observe_tensor(self, name: str) -> None:
        self._record("largest", name, self._largest(self._add("Abs", [name])))
        self._record("smallest", name, self._add("ReduceMin", [name], keepdims=0))
        self._record("size", name, self._add("Size", [name]))

    def _observe_labels(self, node: TypedNode, scores: str, decide: onnx.NodeProto) -> None:
        """How many labels differ between `scores` and `scores` rounded, `decide` being their ArgMax."""
        exact, rounded = (self._copied(decide, [name]) for name in (scores, self._round(scores)))
        same = self._add("Cast", [self._add("Equal", [exact, rounded])], to=TensorProto.FLOAT)
        self._record("flips", node.name, self._add("Sub", [self._constant(1.0), self._mean(same)]))

    def _observe_rounding(self, node: TypedNode) -> None:
        inputs = [self._round(name) if node.takes(name) else name for name in node.proto.input]
        name = node.outputs[0]
        error = self._add("Sub", [name, self._round(self._copied(node.proto, inputs))])
        self._record("error", node.name, self._add("ReduceSumSquare", [error], keepdims=0))
        self._record("power", node.name, self._add("ReduceSumSquare", [name], keepdims=0))
        if node.name in self._relative:
            limit = self._constant(self._limit)
            allowed = self._add("Mul", [self._position_power(name), limit])
            beyond = self._add("Greater", [self._position_power(error, like=name), allowed])
            counted = self._add("Cast", [beyond], to=TensorProto.FLOAT)
            self._record("share", node.name, self._mean(counted))

    def _position_power(self, name: str, like: str | None = None) -> str:
        """Squares of a tensor, summed over the channels of (batch, channels, height, width)."""
        if self._index.ranks.get(like or name) != 4:
            return self._add("Mul", [name, name])
        if self._index.opset < 18:
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

    def _record(self, quantity: str, of: str, tensor: str) -> None:
        self.statistics[tensor] = Statistic(quantity, of)

    def _model(self) -> onnx.ModelProto:
        source = self._index.model
        outputs = [
            helper.make_tensor_value_info(
                name, TensorProto.INT64 if statistic.quantity == "size" else TensorProto.FLOAT, []
            )
            for name, statistic in self.statistics.items()
        ]
        graph = helper.make_graph(
            self._nodes, _ROOT, source.graph.input, outputs, [*source.graph.initializer, *self._constants]
        )
        return helper.make_model(graph, opset_imports=source.opset_import, ir_version=source.ir_version)


@dataclass
class TensorRange:
    """Extremes of one tensor over all images.

    Attributes:
        largest: Largest absolute value.
        smallest: Smallest value, negative ones first.
        size: Number of values, of the largest image.
    """

    largest: float = 0.0
    smallest: float = math.inf
    size: int = 0


@dataclass
class NodeError:
    """What rounding inputs, weights and output does to one node, at its worst image.

    Attributes:
        error: Root mean square error relative to the output's root mean square.
        share: Share of positions whose own relative error passes the limit, 0 to 1, where it was measured.
        flips: Share of positions whose label changes when the input (of ArgMax) or output (of the last node) is
            rounded, 0 to 1.
        magnitudes: Largest sum of absolute products or values (for means: their mean); where it was measured.
    """

    error: float = 0.0
    share: float = 0.0
    flips: float = 0.0
    magnitudes: float = 0.0


@dataclass
class Observations:
    """Everything observed.

    Attributes:
        images: Number of images.
        tensors: Ranges of the tensors by name.
        nodes: Errors of the nodes by name.
    """

    images: int = 0
    tensors: dict[str, TensorRange] = field(default_factory=dict)
    nodes: dict[str, NodeError] = field(default_factory=dict)


def measure(
    index: GraphIndex,
    to: Format,
    relative: frozenset[str],
    amplification: float,
    images: Sequence[NDArray[np.generic]],
    progress: Progress = no_progress,
) -> Observations:
    """Observe the graph of `index` on `images`, each a network input (batch, ...).

    Args:
        index: the graph.
        to: the format that values are rounded to.
        relative: names of nodes whose error counts at each position.
        amplification: of `TypingOptions`.
        images: at least one.
        progress: called with the images done.

    Raises:
        DataError: there are no images, or activations are not finite.
        ArtifactError: ONNX Runtime cannot run the graph.
    """
    if not len(images):
        raise DataError("typing a graph needs at least one image to observe its ranges on: got none")
    instrumented = Instrumentation(index, to, relative, amplification)
    # every copy has to run as written
    session = create_session(
        instrumented.build().SerializeToString(), "the graph cannot be observed", SessionSettings(optimize=False)
    )
    feed = session.get_inputs()[0].name
    names = list(instrumented.statistics)
    found = Observations()
    for done, image in enumerate(images, 1):
        values = session.run(names, {feed: np.ascontiguousarray(image)})
        _update(
            found,
            {instrumented.statistics[name]: float(value) for name, value in zip(names, values, strict=True)},
            index,
        )
        progress("observing ranges", done, len(images))
    return found


def _update(found: Observations, values: dict[Statistic, float], index: GraphIndex) -> None:
    found.images += 1
    for statistic, value in values.items():
        # ONNX Runtime's maximum passes over NaN, its sum of squares does not
        if statistic.quantity in _SOUND and (
            math.isnan(value) or (statistic.quantity == "largest" and math.isinf(value))
        ):
            raise DataError(_not_finite(statistic, found.images, index))
        if statistic.quantity in ("largest", "smallest", "size"):
            _widen(found.tensors.setdefault(statistic.of, TensorRange()), statistic.quantity, value)
    for name in {statistic.of for statistic in values if statistic.quantity in ("error", "flips")}:
        node = found.nodes.setdefault(name, NodeError())
        error, power = values.get(Statistic("error", name), 0.0), values.get(Statistic("power", name), 0.0)
        relative = math.sqrt(error / power) if power > 0 else 0.0
        node.error = max(node.error, relative if math.isfinite(relative) else math.inf)
        node.share = max(node.share, values.get(Statistic("share", name), 0.0))
        node.flips = max(node.flips, values.get(Statistic("flips", name), 0.0))
        node.magnitudes = max(node.magnitudes, values.get(Statistic("magnitudes", name), 0.0))


def _widen(tensor: TensorRange, quantity: str, value: float) -> None:
    if quantity == "largest":
        tensor.largest = max(tensor.largest, value)
    elif quantity == "smallest":
        tensor.smallest = min(tensor.smallest, value)
    else:
        tensor.size = max(tensor.size, int(value))


def _not_finite(statistic: Statistic, image: int, index: GraphIndex) -> str:
    name = (
        statistic.of
        if statistic.of in index.typed_nodes
        else getattr(index.typed_producers.get(statistic.of), "name", None)
    )
    place = f"output of node {name}" if name else f"input {statistic.of}"
    return (
        f"values that are not finite in float32 already: {place} on image {image}.\n"
        "  to do    check the checkpoint (ffnet-eval scores it in PyTorch) and the images"
    )
