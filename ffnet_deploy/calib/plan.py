"""Where quantisation goes: which convolutions, which of their inputs, and which branch of each residual sum.

Source of the rules: NVIDIA TensorRT developer guide, "Explicit quantization".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import NodeProto

from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.core.precision import Hardware
from ffnet_deploy.precision.graph_index import LINEAR, QUANTIZERS, RESIZE_MATRIX, Conv, GraphIndex, TensorUse


@dataclass(frozen=True)
class Plan:
    """What gets Q/DQ.

    Attributes:
        convs: Convolutions that are quantised on input and weights, in graph order.
        kept: Convolutions that stay unquantised, on request or for the hardware's sake.
        uses: For each tensor, the inputs of nodes that read it through its Q/DQ pair: of convolutions, and of residual
            sums.
        left: For each node that multiplies and is not quantised although nobody asked for that, the reason.
    """

    convs: tuple[Conv, ...]
    kept: tuple[Conv, ...]
    uses: Mapping[str, tuple[TensorUse, ...]]
    left: Mapping[str, str]


def make_plan(graph: GraphIndex, keep: tuple[str, ...] = (), hardware: Hardware = Hardware.TRT) -> Plan:
    """The plan for `graph`, leaving out the convolutions that `keep` names, or that `hardware` computes wrong.

    Raises:
        ArtifactError: the graph is quantised already, or nothing in it can be.
        OptionError: `keep` names no convolution, or all of them.
    """
    check_unquantized(graph)
    check_kept_names(graph, keep)
    names = {conv.name for conv in graph.convs}
    resizes = {  # matrix products that enlarge a map: exact, and never quantised
        node.name
        for node in graph.nodes
        if node.op_type == "MatMul" and any(name.endswith(RESIZE_MATRIX) for name in node.input)
    }
    left = {
        node.name: f"{node.op_type}: only convolutions over two dimensions with constant weights are quantised"
        for node in graph.nodes
        if node.op_type in LINEAR and node.name not in names and node.name not in resizes
    }
    if hardware is Hardware.CPU:
        reason = "OpenVINO computes what reads a quantised concatenation with several times the noise: --rewrite auto"
        left |= {conv.name: reason for conv in convs_behind_concat(graph)}
        reason = "oneDNN computes small groups in INT8 by a matrix product for each, slower than in FP32"
        left |= {conv.name: reason for conv in convs_of_small_groups(graph)}
    kept = tuple(conv for conv in graph.convs if is_named(conv.name, keep) or conv.name in left)
    names = {conv.name for conv in kept}
    convs = tuple(conv for conv in graph.convs if conv.name not in names)
    if not convs:
        raise OptionError("every convolution is kept unquantised: nothing is left to quantise")
    uses: dict[str, list[TensorUse]] = {}
    for conv in convs:
        uses.setdefault(conv.input, []).append(TensorUse(conv.node, 0))
    for tensor, use in _residual_branches(graph, names):
        uses.setdefault(tensor, []).append(use)
    return Plan(convs, kept, {name: tuple(found) for name, found in uses.items()}, left)


def convs_behind_concat(graph: GraphIndex) -> list[Conv]:
    """The convolutions that read a concatenation."""
    concatenated = {name for node in graph.nodes if node.op_type == "Concat" for name in node.output}
    return [conv for conv in graph.convs if conv.input in concatenated]


def convs_of_small_groups(graph: GraphIndex) -> list[Conv]:
    """The grouped convolutions for which oneDNN has no INT8 kernel on AVX2; depthwise ones have one of their own.

    The rows of the matrix product that it calls instead run on from tap to tap: without VNNI the products of
    neighbouring taps are added in 16 bits too, which `weight_scales` does not see to.
    """
    grouped = [conv for conv in graph.convs if conv.groups > 1 and conv.shape[:2] != (conv.groups, 1)]
    return [conv for conv in grouped if conv.shape[1] % 4 or conv.shape[0] // conv.groups % 4]


def check_unquantized(graph: GraphIndex) -> None:
    """Raise `ArtifactError` where `graph` holds Q/DQ nodes."""
    present = [node.name for node in graph.nodes if node.op_type in QUANTIZERS]
    if present:
        raise ArtifactError(
            f"the graph is quantised already: it holds {len(present)} Q/DQ nodes ({present[0]}, ...).\n"
            "  to do    start from the FP32 graph that ffnet-export wrote"
        )
    if not graph.convs:
        raise ArtifactError("the graph holds no convolution with constant weights: there is nothing to quantise")


def is_named(conv: str, entries: Sequence[str]) -> bool:
    """Whether one of `entries` is the name of `conv`, or of a module that it is in."""
    return any(conv == entry or conv.startswith(f"{entry.rstrip('/')}/") for entry in entries)


def check_kept_names(graph: GraphIndex, keep: tuple[str, ...]) -> None:
    """Raise `OptionError` where an entry of `keep` fits no convolution."""
    for name in keep:
        if not any(is_named(conv.name, (name,)) for conv in graph.convs):
            raise OptionError(
                f"no convolution is, or is in, {name!r}; the first is {graph.convs[0].name!r}.\n"
                "  to do    name nodes of the graph as Netron, or the sensitivity table, shows them"
            )


def _residual_branches(graph: GraphIndex, kept: set[str]) -> list[tuple[str, TensorUse]]:
    """Of each residual sum the branch that gets Q/DQ: the one that is not the sum's own convolution.

    TensorRT fuses a sum into the quantised convolution that makes one of its branches, which for that must reach it
    bare, if the other branch is quantised. Sums of a convolution in `kept` stay as they are.
    """
    by_output = {conv.output: conv for conv in graph.convs}
    branches = []
    for node in graph.nodes:
        if node.op_type != "Add" or any(name in graph.initializers for name in node.input):
            continue
        bare = [at for at, name in enumerate(node.input) if name in by_output and graph.only_use(name) is not None]
        if not bare or by_output[node.input[bare[-1]]].name in kept:
            continue
        other = 1 - bare[-1]
        if _is_quantizable_branch(graph, node, other):
            branches.append((node.input[other], TensorUse(node, other)))
    return branches


def _is_quantizable_branch(graph: GraphIndex, node: NodeProto, position: int) -> bool:
    """Not a resize's result, nor that of a product with a resize matrix: Q/DQ after these would keep them from fusing.

    A rewritten resize is exact, and its rows are short: to quantise what it makes would only add noise.
    """
    producer = graph.producers.get(node.input[position])
    return producer is not None and producer.op_type not in ("Resize", "MatMul")


def slow_in_fp8(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the convolutions for which TensorRT has no fast FP8 kernel: they are faster in the base type.

    It has none for kernels of more than 32 positions, nor for 16 or fewer channels of a group or outputs.
    """
    return tuple(
        conv.name
        for conv in GraphIndex(model).convs
        if conv.shape[2] * conv.shape[3] > 32 or min(conv.shape[1], conv.shape[0]) <= 16
    )
