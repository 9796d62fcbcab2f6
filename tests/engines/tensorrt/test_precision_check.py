"""The proof on parsed networks: what it lets pass and what it names."""

from dataclasses import replace

from ffnet_deploy.core.precision import Precision, PrecisionRecord
from ffnet_deploy.engines.tensorrt.network import NetworkLayer
from ffnet_deploy.engines.tensorrt.precision_check import check_network

FP16 = PrecisionRecord(Precision.FP16, Precision.FP16, float32=("/head/Add",))
INT8 = PrecisionRecord(Precision.INT8, Precision.FP16, quantized=("/a/Conv",))


def conv(name: str, given: str, weights: str, output: str, inputs: tuple[str, ...] = ("x",)) -> NetworkLayer:
    return NetworkLayer(name, "CONVOLUTION", inputs, (f"{name}:0",), given, weights, output)


def other(name: str, kind: str, inputs: tuple[str, ...], output: str, given: str = "fp16") -> NetworkLayer:
    return NetworkLayer(name, kind, inputs, (f"{name}:0",), given, None, output)


QUANTIZED = [
    other("x/Q", "QUANTIZE", ("x",), "int8"),
    other("x/DQ", "DEQUANTIZE", ("x/Q:0",), "fp16"),
    other("w/DQ", "DEQUANTIZE", ("w",), "fp16"),
    conv("/a/Conv", "int8", "int8", "fp16", ("x/DQ:0", "w/DQ:0")),
]


def test_types_as_asked_for_pass() -> None:
    layers = [conv("/a/Conv", "fp16", "fp16", "fp16"), other("/head/Add", "ELEMENTWISE", ("a",), "fp32", "fp32")]
    proof = check_network(layers, FP16)
    assert proof.violations == () and proof.convolutions == {"fp16": 1} and proof.others == {"fp32": 1}
    assert check_network(QUANTIZED, INT8).violations == ()


def test_a_computing_layer_in_fp32_that_nobody_asked_for_is_named() -> None:
    layers = [other("/a/Gelu", "ACTIVATION", ("a",), "fp32", "fp32")]
    assert check_network(layers, FP16).violations == ("/a/Gelu: asked for fp16, found fp32",)


def test_a_quantised_layer_that_is_not_there_is_named() -> None:
    assert check_network([], INT8).violations == ("/a/Conv: asked for int8, not found",)


def test_half_quantised_is_not_quantised() -> None:
    layers = [replace(layer, weights="fp16") if layer.name == "/a/Conv" else layer for layer in QUANTIZED]
    assert "input int8, weights fp16" in check_network(layers, INT8).violations[0]


def test_a_quantised_layer_may_give_fp32_only_where_the_graph_says_so() -> None:
    wide = [replace(layer, output="fp32") if layer.name == "/a/Conv" else layer for layer in QUANTIZED]
    assert "weights int8, output fp32" in check_network(wide, INT8).violations[0]
    kept = replace(INT8, float32=("/a/Conv",))
    assert check_network(wide, kept).violations == ()
    assert "weights int8, output fp16" in check_network(QUANTIZED, kept).violations[0]


def test_quantisation_of_a_sum_is_meant_only_beside_a_quantised_convolution() -> None:
    branch = [other("y/Q", "QUANTIZE", ("y",), "int8"), other("y/DQ", "DEQUANTIZE", ("y/Q:0",), "fp16")]
    fused = other("/a/Add", "ELEMENTWISE", ("/a/Conv:0", "y/DQ:0"), "fp16")
    assert check_network([*QUANTIZED, *branch, fused], INT8).violations == ()
    lone = other("/b/Add", "ELEMENTWISE", ("z", "y/DQ:0"), "fp16")
    named = check_network([*QUANTIZED, *branch, lone], INT8).violations
    assert named == (
        "y/Q: a quantize before /b/Add, which was not to be quantised",
        "y/DQ: a dequantize before /b/Add, which was not to be quantised",
    )


def test_quantisation_of_another_layer_or_of_nothing_is_named() -> None:
    resize = [other("y/Q", "QUANTIZE", ("y",), "int8"), other("y/DQ", "DEQUANTIZE", ("y/Q:0",), "fp16")]
    named = check_network([*QUANTIZED, *resize, other("/r", "RESIZE", ("y/DQ:0",), "fp16")], INT8).violations
    assert len(named) == 2 and all("before /r, which was not to be quantised" in line for line in named)
    assert "before nothing" in check_network([*QUANTIZED, resize[0]], INT8).violations[0]


def test_casts_between_a_dequantisation_and_its_convolution_are_looked_through() -> None:
    cast = other("c", "CAST", ("x/DQ:0",), "fp16")
    layers = [*QUANTIZED[:3], cast, conv("/a/Conv", "int8", "int8", "fp16", ("c:0", "w/DQ:0"))]
    assert check_network(layers, INT8).violations == ()


def test_below_10_types_are_wishes_but_quantisation_binds() -> None:
    untyped = [conv("/a/Conv", "fp32", "fp16", "fp32")]
    assert check_network(untyped, FP16, typed=False).violations == ()
    assert check_network(untyped, INT8, typed=False).violations != ()
    weak = [replace(layer, output="fp32") if layer.name == "/a/Conv" else layer for layer in QUANTIZED]
    assert check_network(weak, INT8, typed=False).violations == ()
    assert check_network(QUANTIZED, FP16, typed=False).violations != ()
