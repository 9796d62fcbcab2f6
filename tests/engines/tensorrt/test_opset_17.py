"""What is exported for TensorRT 8.5 holds only what its ONNX parser knows.

Source of the list and its restrictions: onnx-tensorrt, branch release/8.5-GA, docs/operators.md ("TensorRT 8.5 supports
operators up to Opset 17"). It lags behind in one thing: the parser library of 8.5.3.1 does take cubic resizing, of two
dimensions.
"""

import onnx
import pytest
from onnx import TensorProto, numpy_helper

from ffnet_deploy.calib import quantize_graph
from ffnet_deploy.core.precision import Precision
from ffnet_deploy.precision import TypingOptions, assign_types
from tests.engines.tensorrt.rtx import exported
from tests.engines.tensorrt.slow import PUBLISHED, published
from tests.engines.tensorrt.test_chain import images
from tests.tiny import FAMILIES

# fmt: off
OPERATORS = {
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "AveragePool",
    "BatchNormalization", "Cast", "Ceil", "Celu", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv",
    "ConvTranspose", "Cos", "Cosh", "CumSum", "DepthToSpace", "DequantizeLinear", "Div", "Dropout", "Einsum", "Elu",
    "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor", "GRU", "Gather", "GatherElements", "GatherND",
    "Gemm", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample",
    "HardSigmoid", "HardSwish", "Identity", "If", "InstanceNormalization", "IsNaN", "LRN", "LSTM", "LeakyRelu",
    "Less", "LessOrEqual", "Log", "LogSoftmax", "Loop", "LpNormalization", "LpPool", "MatMul", "Max", "MaxPool",
    "Mean", "MeanVarianceNormalization", "Min", "Mod", "Mul", "Neg", "NonMaxSuppression", "NonZero", "Not",
    "OneHot", "Or", "PRelu", "Pad", "Pow", "QuantizeLinear", "RNN", "RandomNormal", "RandomNormalLike",
    "RandomUniform", "RandomUniformLike", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu",
    "Reshape", "Resize", "ReverseSequence", "RoiAlign", "Round", "Scan", "Scatter", "ScatterElements", "ScatterND",
    "Selu", "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Slice", "Softmax", "Softplus", "Softsign",
    "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tan", "Tanh", "ThresholdedRelu", "Tile", "TopK",
    "Transpose", "Trilu", "Unsqueeze", "Upsample", "Where", "Xor"
}
# fmt: on
TYPES = {
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.INT8,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.BOOL,
    TensorProto.UINT8,  # of a network's input and output alone
}  # fmt: skip
RESIZE = {
    "coordinate_transformation_mode": {b"half_pixel", b"pytorch_half_pixel", b"asymmetric", b"align_corners"},
    "mode": {b"nearest", b"linear", b"cubic"},
    "nearest_mode": {b"floor", b"ceil", b"round_prefer_floor", b"round_prefer_ceil"},
}


def check(model: onnx.ModelProto) -> None:
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert {node.op_type for node in model.graph.node} <= OPERATORS
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    assert {tensor.data_type for tensor in constants.values()} <= TYPES
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.input)}
    for node in model.graph.node:
        if node.op_type == "Resize":
            assert all(item.s in RESIZE[item.name] for item in node.attribute if item.name in RESIZE), node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert constants[node.input[1]].data_type == TensorProto.FLOAT, "16-bit scales came with operator set 19"
            assert not numpy_helper.to_array(constants[node.input[2]]).any(), "zero points are zero"
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.UINT8:
            assert types[node.input[0]] in (TensorProto.FLOAT, TensorProto.FLOAT16), "bytes are cast from floats only"
        if node.op_type in ("Squeeze", "Unsqueeze", "Slice"):
            assert node.input[3 if node.op_type == "Slice" else 1] in constants


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic bytes to labels"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_form_of_both_families(family: str, dynamic: bool) -> None:
    model, shown = exported(family, dynamic, 17), images(dynamic)
    check(model)
    check(assign_types(model, TypingOptions(Precision.FP16), shown).model)
    check(quantize_graph(model, shown).model)


def test_opset_20_would_not_pass() -> None:
    model = exported("tiny_seg", False)
    assert {node.op_type for node in model.graph.node} - OPERATORS == {"Gelu"}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks(name: str) -> None:
    check(published(name, dynamic=True, opset=17))
