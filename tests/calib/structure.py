"""What is true of every graph that was quantised as TensorRT wants it."""

from collections.abc import Sequence

import numpy as np
import onnx

from ffnet_deploy.precision.graph_index import GraphIndex, TensorUse, attribute

NO_FUSION_ACROSS = ("Resize", "ArgMax", "Softmax", "Concat", "Cast", "Gelu", "Relu", "ReduceMean", "Sub", "MatMul")


def is_dequantized(graph: GraphIndex, name: str) -> bool:
    producer = graph.producers.get(name)
    return producer is not None and producer.op_type == "DequantizeLinear"


def source(graph: GraphIndex, name: str) -> str:
    """The tensor behind a Q/DQ pair."""
    quantize = graph.producers[graph.producers[name].input[0]]
    assert quantize.op_type == "QuantizeLinear", quantize.op_type
    return str(quantize.input[0])


def readers(graph: GraphIndex) -> list[TensorUse]:
    """Everything that reads the result of a Q/DQ pair."""
    return [use for node in graph.nodes if node.op_type == "DequantizeLinear" for use in graph.uses[node.output[0]]]


def check_structure(model: onnx.ModelProto, kept: Sequence[str] = ()) -> None:
    """Q/DQ on input and weights of every convolution but `kept`, on one branch of its residual sum, nowhere else."""
    onnx.checker.check_model(model)
    graph = GraphIndex(model)
    convs = [node for node in graph.nodes if node.op_type == "Conv"]
    for conv in convs:
        wanted = conv.name not in kept
        assert is_dequantized(graph, conv.input[0]) is wanted, f"input of {conv.name}"
        assert is_dequantized(graph, conv.input[1]) is wanted, f"weight of {conv.name}"
        assert conv.input[2] in graph.initializers, f"bias of {conv.name} is a float constant"
        if wanted:
            check_weight_pair(graph, conv)
    for use in readers(graph):
        if use.node.op_type == "Conv":
            assert use.position in (0, 1)
        else:
            check_residual_sum(graph, use, kept)
    for node in graph.nodes:
        if node.op_type in NO_FUSION_ACROSS:
            assert not any(is_dequantized(graph, name) for name in node.input), f"{node.name} reads a Q/DQ pair"
        if node.op_type == "QuantizeLinear":
            check_pair(graph, node)


def check_weight_pair(graph: GraphIndex, conv: onnx.NodeProto) -> None:
    restore = graph.producers[conv.input[1]]
    weight, scales = graph.array(source(graph, conv.input[1])), graph.array(restore.input[1])
    assert attribute(restore, "axis", None) == 0
    assert weight.dtype == np.float32, "rounded once"
    assert scales.shape == (weight.shape[0],)
    assert (scales > 0).all()


def check_pair(graph: GraphIndex, quantize: onnx.NodeProto) -> None:
    uses = graph.uses[quantize.output[0]]
    assert uses and {use.node.op_type for use in uses} == {"DequantizeLinear"}
    for use in uses:
        for one, other in zip(use.node.input[1:], quantize.input[1:], strict=True):
            scales = (graph.array(name).astype(np.float32) for name in (one, other))
            assert np.array_equal(*scales), "one scale and zero point for both, whatever their types"
    assert not np.any(graph.array(quantize.input[2]).astype(np.float32)), "symmetric"
    if quantize.input[0] not in graph.initializers:
        assert graph.array(quantize.input[1]).shape == ()


def check_residual_sum(graph: GraphIndex, use: TensorUse, kept: Sequence[str]) -> None:
    """The other branch comes bare from a quantised convolution that nothing else reads."""
    assert use.node.op_type == "Add", f"{use.node.name} ({use.node.op_type}) reads a Q/DQ pair"
    other = use.node.input[1 - use.position]
    producer = graph.producers[other]
    assert producer.op_type == "Conv", f"the other branch of {use.node.name} is made by {producer.op_type}"
    assert producer.name not in kept
    assert len(graph.uses[other]) == 1
