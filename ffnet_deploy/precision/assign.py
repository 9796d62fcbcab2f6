"""From an FP32 graph, with or without Q/DQ nodes, to a typed one."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from ffnet_deploy.core.contract import METADATA_KEY, Contract, InputKind, IOType
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.precision import PRECISION_KEY, Precision, PrecisionRecord
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.precision.casts import Rewriter, spared
from ffnet_deploy.precision.formats import Conversion, Format, format_of
from ffnet_deploy.precision.graph_index import QUANTIZERS, GraphIndex, copied, opset_of, upgrade_opset
from ffnet_deploy.precision.instrumentation import measure
from ffnet_deploy.precision.policy import Kept, Policy, Reason, TypingOptions, relative_nodes

_QUANTIZED_OPSET = 19
"""First operator set whose Q/DQ nodes take 16-bit scales."""
_SHOWN = 8


@dataclass(frozen=True)
class TypingReport:
    """What was decided, and on which grounds.

    Attributes:
        options: The limits.
        images: Number of images observed.
        nodes: Number of nodes with a floating-point type.
        kept: Nodes kept in FP32 with their reasons, by name, in graph order.
        operators: Operator of each node in `kept`.
        casts: Number of casts put in: (to 16 bits, to FP32).
        constants: What converting the weights did to their values.
        largest: The tensors that reach furthest with their largest absolute values, the furthest first.
    """

    options: TypingOptions
    images: int
    nodes: int
    kept: dict[str, Kept]
    operators: dict[str, str]
    casts: tuple[int, int]
    constants: Conversion
    largest: tuple[tuple[str, float], ...]

    @property
    def reasons(self) -> dict[Reason, int]:
        """Number of nodes in FP32 for each reason that occurs, the most frequent first."""
        return dict(Counter(kept.reason for kept in self.kept.values()).most_common())

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        narrow = self.options.precision.value
        return {
            "limits": {**asdict(self.options), "precision": narrow},
            "images": self.images,
            "nodes": {narrow: self.nodes - len(self.kept), "fp32": len(self.kept)},
            "fp32_reasons": {reason.value: count for reason, count in self.reasons.items()},
            "fp32_nodes": {
                name: {"operator": self.operators[name], "reason": kept.reason.value, "measured": kept.measured}
                for name, kept in self.kept.items()
            },
            "casts": {f"to_{narrow}": self.casts[0], "to_fp32": self.casts[1]},
            "constants": asdict(self.constants),
            "largest_values": dict(self.largest),
        }


@dataclass(frozen=True)
class Typed:
    """A typed graph.

    Attributes:
        model: The graph, its record in the metadata.
        record: What it asks for.
        report: The grounds.
    """

    model: onnx.ModelProto
    record: PrecisionRecord
    report: TypingReport


def type_graph(
    model: onnx.ModelProto, options: TypingOptions, images: Sequence[NDArray[np.generic]]
) -> tuple[onnx.ModelProto, PrecisionRecord]:
    """`assign_types` without its report."""
    typed = assign_types(model, options, images)
    return typed.model, typed.record


def assign_types(
    model: onnx.ModelProto,
    options: TypingOptions,
    images: Sequence[NDArray[np.generic]],
    progress: Progress = no_progress,
    io: IOType = IOType.FP32,
) -> Typed:
    """The graph with 16-bit types wherever `images` show that they suffice.

    Args:
        model: an FP32 graph, or one with Q/DQ nodes over FP32; it is left as it is.
        options: the format and its limits.
        images: network inputs (batch, ...) to observe ranges on, at least one.
        progress: called with the images observed.
        io: Type of the float inputs and outputs; its contract says so.

    Raises:
        OptionError: the graph is typed already, or its operator set cannot be; or it takes and gives no floats that
            could be `io`, or `io` is not the 16-bit format.
        DataError: there are no images, or activations are not finite.
        ArtifactError: the graph is damaged.
    """
    to = format_of(options.precision)
    if io is not IOType.FP32 and io.value != to.precision.value:
        raise OptionError(
            f"a graph typed {to.precision.value} takes and gives fp32 or {to.precision.value}, not {io.value}"
        )
    asked = recorded(model)
    index = GraphIndex(_prepared(model, asked, to), wide_io=io is IOType.FP32)
    if not index.wide_io and not any(
        index.types[name] == TensorProto.FLOAT for name in (*index.inputs, *index.outputs)
    ):
        raise OptionError("the graph takes bytes and gives label maps: there are no floats for --io fp16")
    measured = measure(index, to, relative_nodes(index), options.amplification, images, progress)
    kept = Policy(index, measured, options, to, _growth(model, images)).kept()
    sizes = defaultdict(int, {name: tensor.size for name, tensor in measured.tensors.items()})
    for name in spared(index, set(kept), sizes):
        kept[name] = Kept(Reason.CASTS)
    kept = {name: kept[name] for name in index.typed_nodes if name in kept}
    rewritten = Rewriter(index, set(kept), to).write()
    quantized = asked.precision.is_quantized
    record = replace(
        asked, precision=asked.precision if quantized else to.precision, base=to.precision, float32=tuple(kept)
    )
    _stamp(rewritten.model, record, io)
    furthest = sorted(measured.tensors.items(), key=lambda item: -item[1].largest)[:_SHOWN]
    report = TypingReport(
        options=options,
        images=measured.images,
        nodes=len(index.typed_nodes),
        kept=kept,
        operators={name: index.typed_nodes[name].op for name in kept},
        casts=rewritten.casts,
        constants=rewritten.constants,
        largest=tuple((name, tensor.largest) for name, tensor in furthest),
    )
    return Typed(rewritten.model, record, report)


def recorded(model: onnx.ModelProto) -> PrecisionRecord:
    """The record in a graph's metadata; that of an FP32 graph where there is none."""
    for entry in model.metadata_props:
        if entry.key == PRECISION_KEY:
            return PrecisionRecord.from_json(entry.value)
    return PrecisionRecord()


def _prepared(model: onnx.ModelProto, asked: PrecisionRecord, to: Format) -> onnx.ModelProto:
    if asked.base is not Precision.FP32:
        raise OptionError(f"the graph is typed {asked.base.value} already; type the FP32 graph it was made from")
    opset = opset_of(model)
    if opset < _QUANTIZED_OPSET and any(node.op_type in QUANTIZERS for node in model.graph.node):
        raise OptionError(
            f"Q/DQ nodes take {to.precision.value} from operator set {_QUANTIZED_OPSET} on; this graph has {opset}.\n"
            "  to do    export with --opset 20, or leave what is not quantised in FP32 (--int8-base fp32)"
        )
    return upgrade_opset(copied(model), to.opset)


def _growth(model: onnx.ModelProto, images: Sequence[NDArray[np.generic]]) -> float:
    """Positions of the largest image that the contract accepts, relative to the smallest of `images`."""
    text = next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), None)
    if text is None or not len(images):
        return 1.0
    contract = Contract.from_json(text)
    rows, columns = (2, 3) if contract.input is InputKind.FLOAT else (1, 2)
    observed: int = min(image.shape[rows] * image.shape[columns] for image in images)
    return max(1.0, contract.height.max * contract.width.max / int(observed))


def _stamp(model: onnx.ModelProto, record: PrecisionRecord, io: IOType) -> None:
    """Write `record` into the metadata of `model`, and `io` into the contract where there is one."""
    entries = {entry.key: entry.value for entry in model.metadata_props}
    if METADATA_KEY in entries:
        entries[METADATA_KEY] = replace(Contract.from_json(entries[METADATA_KEY]), io=io).to_json()
    entries.pop(PRECISION_KEY, None)
    del model.metadata_props[:]
    for key, value in (*entries.items(), (PRECISION_KEY, record.to_json())):
        model.metadata_props.add(key=key, value=value)
