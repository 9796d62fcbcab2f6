"""A typed graph in FP32 whose every 16-bit value is rounded: what the types compute, on a runtime without them.

ONNX Runtime's CPU provider computes FP16 graphs in FP32 without rounding in between, and has no BF16 operators at all.
In the simulation, sums inside an operator are exact, as on tensor cores, and its result is rounded once.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def simulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """An FP32 graph that rounds each 16-bit tensor of `model` where it is made; inputs and outputs stay as they are."""
    kinds = _narrow_tensors(model)
    found = onnx.ModelProto()
    found.CopyFrom(model)
    del found.graph.node[:], found.graph.initializer[:], found.graph.value_info[:]
    narrow_inputs = [value.name for value in model.graph.input if value.name in kinds]
    narrow_outputs = [value.name for value in model.graph.output if value.name in kinds]
    inner = {name: f"{name}_inner" for name in (*narrow_inputs, *narrow_outputs)}
    kinds |= {inner[name]: kinds.pop(name) for name in narrow_outputs}
    for name in narrow_inputs:
        found.graph.node.append(helper.make_node("Cast", [name], [inner[name]], f"{name}_widen", to=TensorProto.FLOAT))
    for tensor in model.graph.initializer:
        if tensor.data_type in _NARROW:
            values = np.asarray(numpy_helper.to_array(tensor)).astype(np.float32)
            tensor = numpy_helper.from_array(values, tensor.name)
        found.graph.initializer.append(tensor)
    for node in model.graph.node:
        found.graph.node.extend(_rounding(_renamed(node, inner), kinds))
    for name in narrow_outputs:
        kind = kinds[inner[name]]
        found.graph.node.append(helper.make_node("Cast", [inner[name]], [name], f"{name}_narrow_again", to=kind))
    return found


def _renamed(node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    """A copy of `node` that reads and makes the tensors of `names` under their new names."""
    proto = onnx.NodeProto()
    proto.CopyFrom(node)
    for tensors in (proto.input, proto.output):
        for at, name in enumerate(tensors):
            tensors[at] = names.get(name, name)
    return proto


def _rounding(proto: onnx.NodeProto, kinds: dict[str, int]) -> list[onnx.NodeProto]:
    """The node `proto`, put into FP32, followed by the rounding of its 16-bit results."""
    after = []
    for at, name in enumerate(proto.output):
        if name in kinds:
            proto.output[at] = f"{name}_exact"
            narrow = helper.make_node("Cast", [f"{name}_exact"], [f"{name}_narrow"], f"{name}_round", to=kinds[name])
            wide = helper.make_node("Cast", [f"{name}_narrow"], [name], f"{name}_widen", to=TensorProto.FLOAT)
            after += [narrow, wide]
    for attribute in proto.attribute:
        if proto.op_type == "Cast" and attribute.name == "to" and attribute.i in _NARROW:
            attribute.i = TensorProto.FLOAT
    return [proto, *after]


def _narrow_tensors(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of the 16-bit tensors, those of the graph's boundary among them."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    return {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
        if value.type.tensor_type.elem_type in _NARROW
    }
