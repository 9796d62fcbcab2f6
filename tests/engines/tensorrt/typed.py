"""Typed graphs made by hand, with what they claim to be in their metadata: FP16 throughout, INT8 by Q/DQ."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ffnet_deploy.artifacts.manifest import write_manifest
from ffnet_deploy.core.precision import PRECISION_KEY, Precision, PrecisionRecord

_NOT_DATA = {"Resize": 1}
"""Operators whose inputs from this position on are no data: they keep their type."""


def stamp(model: onnx.ModelProto, record: PrecisionRecord) -> onnx.ModelProto:
    """`model` with the claim `record`."""
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != PRECISION_KEY}
    helper.set_model_props(model, {**kept, PRECISION_KEY: record.to_json()})
    return model


def save(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    write_manifest(path, "onnx", {})
    return path


def half(model: onnx.ModelProto, keep: Sequence[str] = ()) -> onnx.ModelProto:
    """`model` in FP16 between its input and its output; the convolutions named in `keep` between casts in FP32."""
    model = _copy(model)
    graph = model.graph
    fixed = {name for node in graph.node for name in node.input[_NOT_DATA.get(node.op_type, 99) :]}
    fixed |= {name for node in graph.node if node.name in keep for name in node.input[1:]}
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in fixed:
            tensor.CopyFrom(_as_half(tensor))
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(_as_half(attribute.t))
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    del graph.value_info[:]
    _cast_ends(graph)
    for node in [node for node in graph.node if node.name in keep]:
        _cast_around(graph, node)
    return stamp(model, PrecisionRecord(Precision.FP16, Precision.FP16, float32=tuple(keep)))


def quantized(model: onnx.ModelProto, keep: Sequence[str] = (), base: Precision = Precision.FP32) -> onnx.ModelProto:
    """`model` with symmetric Q/DQ on input and weights of every convolution that `keep` does not name.

    A graph that is FP16 already gets FP16 scales (operator set 19 and above).
    """
    model = _copy(model)
    graph = model.graph
    kind = np.float16 if base is Precision.FP16 else np.float32
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    names: list[str] = []
    done: set[str] = set()
    for node in graph.node:
        if node.op_type == "Conv" and node.name not in keep:
            names.append(node.name)
            for at, axis in ((0, None), (1, 0)):
                name = node.input[at]
                if name not in done:
                    scale = _scales(weights[name]) if axis == 0 else np.float64(0.05)
                    nodes += _pair(graph, name, np.asarray(scale, kind), axis)
                    done.add(name)
                node.input[at] = f"{name}_dq"
        nodes.append(_copy_node(node))
    del graph.node[:]
    graph.node.extend(nodes)
    return stamp(model, PrecisionRecord(Precision.INT8, base, quantized=tuple(names)))


def convolutions(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions in order."""
    return [node.name for node in model.graph.node if node.op_type == "Conv"]


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())


def _copy_node(node: onnx.NodeProto) -> onnx.NodeProto:
    return onnx.NodeProto.FromString(node.SerializeToString())


def _as_half(tensor: onnx.TensorProto) -> onnx.TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)


def _scales(weight: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(weight.astype(np.float64)).reshape(len(weight), -1).max(1) / 127, 6.2e-5)


def _pair(graph: onnx.GraphProto, name: str, scale: np.ndarray, axis: int | None) -> list[onnx.NodeProto]:
    graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
    graph.initializer.append(numpy_helper.from_array(np.zeros(scale.shape, np.int8), f"{name}_zero"))
    constants, settings = [f"{name}_scale", f"{name}_zero"], {} if axis is None else {"axis": axis}
    return [
        helper.make_node("QuantizeLinear", [name, *constants], [f"{name}_q"], f"{name}/Q", **settings),
        helper.make_node("DequantizeLinear", [f"{name}_q", *constants], [f"{name}_dq"], f"{name}/DQ", **settings),
    ]


def _cast_ends(graph: onnx.GraphProto) -> None:
    """Casts after a float32 input and before a float32 output."""
    first, last = graph.input[0], graph.output[0]
    if first.type.tensor_type.elem_type == TensorProto.FLOAT:
        for node in graph.node:
            node.input[:] = [f"{name}_half" if name == first.name else name for name in node.input]
        graph.node.insert(0, _cast(first.name, f"{first.name}_half", TensorProto.FLOAT16))
    if last.type.tensor_type.elem_type == TensorProto.FLOAT:
        for node in graph.node:
            node.output[:] = [f"{name}_half" if name == last.name else name for name in node.output]
            node.input[:] = [f"{name}_half" if name == last.name else name for name in node.input]
        graph.node.append(_cast(f"{last.name}_half", last.name, TensorProto.FLOAT))


def _cast_around(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    at = list(graph.node).index(node)
    before, after = node.input[0], node.output[0]
    wide = _copy_node(node)
    wide.input[0], wide.output[0] = f"{node.name}/wide_in", f"{node.name}/wide_out"
    graph.node.remove(node)
    for offset, made in enumerate(
        (
            _cast(before, wide.input[0], TensorProto.FLOAT),
            wide,
            _cast(wide.output[0], after, TensorProto.FLOAT16),
        )
    ):
        graph.node.insert(at + offset, made)


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], f"{target}/Cast", to=kind)
