"""Typing policy: which nodes stay in FP32, and why. Decided from what was measured, never from a list of operators."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np
from onnx import numpy_helper

from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.precision import Precision
from ffnet_deploy.precision.formats import Format, convert
from ffnet_deploy.precision.graph_index import QUANTIZERS, GraphIndex, TypedNode
from ffnet_deploy.precision.instrumentation import NodeError, Observations

_ROOTS = frozenset({"Sqrt", "Reciprocal", "Log"})
_RELATIVE = frozenset({"Mul", "Pow", "Sqrt", "Div", "Abs", "Reciprocal", "ReduceMean", "ReduceSum", "ReduceSumSquare"})
"""Operators whose result is as exact, relatively, as their inputs; means and sums where these are not negative."""
_REDUCTIONS = frozenset({"ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare", "GlobalAveragePool"})
_PASSING = frozenset(
    {"Concat", "Flatten", "Identity", "Pad", "Relu", "Reshape", "Resize", "Slice", "Softmax", "Split", "Squeeze"}
    | {"Transpose", "Unsqueeze"}
)
"""Operators that hand values or decisions on: what rounding their input changes, it changes in their output."""


@dataclass(frozen=True)
class TypingOptions:
    """What may be computed in 16 bits.

    Attributes:
        precision: The 16-bit format, FP16 or BF16.
        headroom: Stored values must stay this many times below the format's largest one on the images seen, since other
            images reach further.
        amplification: Rounding a node's inputs, weights and output may move its output by this many times the format's
            roundoff. 16 leaves FP16 seven good digits, BF16 four.
        share: Positions whose features are divided by their own deviation (layer norms) may exceed `amplification` in
            this share at most.
        flips: Share of positions, 0..1, whose label may change when the scores that decide it are rounded.
        stagnation: A mean or sum over n values may be taken in 16 bits while n times the roundoff is at most this:
            beyond, a running sum stops seeing what is added to it.
    """

    precision: Precision = Precision.FP16
    headroom: float = 4.0
    amplification: float = 16.0
    share: float = 0.001
    flips: float = 0.0025
    stagnation: float = 0.125

    def __post_init__(self) -> None:
        if self.precision not in (Precision.FP16, Precision.BF16):
            raise OptionError(f"a graph is typed fp16 or bf16, not {self.precision.value}")
        if self.headroom < 1 or self.amplification < 1 or min(self.share, self.flips) < 0 or self.stagnation <= 0:
            raise OptionError(
                "typing needs a headroom and an amplification from 1, shares from 0 and a positive stagnation: "
                f"got {self}"
            )


class Reason(str, Enum):
    """Why a node computes in FP32."""

    NUMBERS = "counts and positions, not features"
    OVERFLOW = "values reach beyond the format's range"
    WEIGHTS = "weights beyond the format's range"
    QUANTIZED = "weights that a builder quantises from FP32, once"
    SUM = "sums within it reach beyond the format's range"
    SUMMANDS = "mean or sum over too many values"
    ACCURACY = "rounding costs too much accuracy"
    LABELS = "rounding changes too many labels"
    SOURCE = "makes what must not be rounded"
    CASTS = "spares casts between FP32 neighbours"


@dataclass(frozen=True)
class Kept:
    """A node that computes in FP32.

    Attributes:
        reason: Why.
        measured: The quantity behind the reason, in words; empty where there is none.
    """

    reason: Reason
    measured: str = ""


def relative_nodes(index: GraphIndex) -> frozenset[str]:
    """Names of the nodes whose error counts relative to each position.

    These are what a division by a computed value, a root or a logarithm sees: a small deviation at one position is
    divided by itself there, however large others are.
    """
    found: set[str] = set()
    waiting = deque(name for node in index.typed_nodes.values() for name in _sensitive_inputs(node, index))
    while waiting:
        producer = index.typed_producers.get(waiting.popleft())
        if producer is None or producer.name in found or not index.computes_features(producer):
            continue
        found.add(producer.name)
        if producer.op in _RELATIVE or (producer.op == "Add" and _adds_constant(producer, index)):
            waiting.extend(name for _, name in producer.inputs)
    return frozenset(found)


def _sensitive_inputs(node: TypedNode, index: GraphIndex) -> list[str]:
    names = [name for _, name in node.inputs]
    if node.op == "Div" and names[-1] in index.features:
        return names
    return names if node.op in _ROOTS else []


def _adds_constant(node: TypedNode, index: GraphIndex) -> bool:
    """Whether one side is a constant above zero: the guard of a deviation."""
    for _, name in node.inputs:
        if name in index.initializers:
            return bool((numpy_helper.to_array(index.initializers[name]) > 0).all())
    return False


class Policy:
    """Chooses the nodes of a graph that stay in FP32.

    Args:
        index: the graph.
        measured: what was observed on it.
        options: what may be rounded.
        to: the 16-bit format.
        growth: how many times more positions the largest accepted image has than the one observed.
    """

    def __init__(
        self, index: GraphIndex, measured: Observations, options: TypingOptions, to: Format, growth: float = 1.0
    ) -> None:
        self._index = index
        self._measured = measured
        self._options = options
        self._format = to
        self._growth = growth
        self._wide = {
            name: range_.largest
            for name, range_ in measured.tensors.items()
            if range_.largest * options.headroom > to.largest
        }

    def kept(self) -> dict[str, Kept]:
        """The nodes that must compute in FP32 by name, in graph order."""
        found: dict[str, Kept] = {}
        for node in self._index.typed_nodes.values():
            kept = next(self._grounds(node), None)
            if kept is not None:
                found[node.name] = kept
        for name in self._sources(found):
            found.setdefault(name, Kept(Reason.SOURCE))
        return {name: found[name] for name in self._index.typed_nodes if name in found}

    def _grounds(self, node: TypedNode) -> Iterator[Kept]:
        if not self._index.computes_features(node) and node.op not in QUANTIZERS:
            yield Kept(Reason.NUMBERS)
        if node.op == "QuantizeLinear" and node.inputs[0][1] in self._index.initializers:
            yield Kept(Reason.QUANTIZED)
        for name in dict.fromkeys((*(name for _, name in node.inputs), *node.outputs)):
            if name in self._wide:
                yield Kept(Reason.OVERFLOW, f"|x| up to {self._wide[name]:.3g}")
        yield from self._constants(node)
        error = self._measured.nodes.get(node.name)
        if error is not None:
            yield from self._reductions(node, error)
            yield from self._accuracy(node, error)

    def _constants(self, node: TypedNode) -> Iterator[Kept]:
        for _, name in node.inputs:
            if name not in self._index.initializers:
                continue
            values = np.asarray(numpy_helper.to_array(self._index.initializers[name]), np.float32)
            if convert(values, self._format)[1].overflowed:
                yield Kept(Reason.WEIGHTS, f"|w| up to {float(np.abs(values).max()):.3g}")

    def _reductions(self, node: TypedNode, error: NodeError) -> Iterator[Kept]:
        summands = self._summands(node)
        total = error.magnitudes * (summands if node.op != "ReduceSum" and summands else 1.0)
        if total > self._format.largest:
            yield Kept(Reason.SUM, f"up to {total:.3g}")
        if summands * self._format.roundoff > self._options.stagnation:
            yield Kept(Reason.SUMMANDS, f"over {summands:.0f} values")

    def _summands(self, node: TypedNode) -> float:
        """Values behind each result of a reduction at the largest accepted image; 0 for other nodes."""
        if node.op not in _REDUCTIONS:
            return 0.0
        inputs, outputs = self._size(node.inputs[0][1]), self._size(node.outputs[0])
        count = inputs / max(outputs, 1)
        return count * self._growth if self._is_spatial(node) else count

    def _is_spatial(self, node: TypedNode) -> bool:
        """Whether a reduction runs over height or width of (batch, channels, height, width)."""
        axes = next((list(entry.ints) for entry in node.proto.attribute if entry.name == "axes"), None)
        if axes is None and len(node.proto.input) > 1 and node.proto.input[1] in self._index.initializers:
            axes = numpy_helper.to_array(self._index.initializers[node.proto.input[1]]).tolist()
        rank = self._index.ranks.get(node.inputs[0][1], 4)
        return axes is None or any(axis % rank >= 2 for axis in axes)

    def _size(self, name: str) -> int:
        found = self._measured.tensors.get(name)
        return found.size if found else 0

    def _accuracy(self, node: TypedNode, error: NodeError) -> Iterator[Kept]:
        limit = self._options.amplification * self._format.roundoff
        if error.error > limit:
            yield Kept(Reason.ACCURACY, f"relative error {error.error:.1e}")
        if error.share > self._options.share:
            yield Kept(Reason.ACCURACY, f"error beyond {limit:.1e} at {error.share:.1%} of positions")
        if error.flips > self._options.flips:
            yield Kept(Reason.LABELS, f"{error.flips:.2%} of positions")

    def _suffers(self, node: TypedNode, reason: Reason) -> bool:
        """Whether rounded inputs alone spoil what `node` makes."""
        decides = node.op == "ArgMax" or node.op in _PASSING
        return reason is Reason.ACCURACY or (reason is Reason.LABELS and decides)

    def _sources(self, found: dict[str, Kept]) -> Iterator[str]:
        """Nodes that make the inputs of those where rounding costs too much: to cast these up again would not help."""
        waiting = deque(
            name
            for node in self._index.typed_nodes.values()
            if node.name in found and self._suffers(node, found[node.name].reason)
            for _, name in node.inputs
        )
        seen: set[str] = set()
        while waiting:
            producer = self._index.typed_producers.get(waiting.popleft())
            if producer is None or producer.name in seen:
                continue
            seen.add(producer.name)
            yield producer.name
            if producer.op in _PASSING:
                waiting.extend(name for _, name in producer.inputs)
