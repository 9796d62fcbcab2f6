"""What the inspector's list says of an engine, in the words of TensorRT 8.5 and 8.6, 10, 11 and TensorRT for RTX.

`inspector_lists.json` holds excerpts of real lists, each with its version and where it was published. None of 11 or RTX
was found: `newest_list` is written after the words that their libraries hold ("Datatype" beside "Format"), `old_list`,
`mixed_list` and `new_list` after the published ones.
"""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from ffnet_deploy.core.errors import VerificationError
from ffnet_deploy.core.precision import Precision, PrecisionRecord
from ffnet_deploy.engines.tensorrt.build import PrecisionCheck
from ffnet_deploy.engines.tensorrt.inspector import check_engine, node_names, precision_of
from ffnet_deploy.engines.tensorrt.precision_check import NetworkCheck, require_precision

OLD = {
    "fp32": "Row major linear FP32",
    "fp16": "Channel major FP16 format where channel % 8 == 0",
    "int8": "Thirty-two wide channel vectorized row major Int8 format",
}
NEW = {"fp32": "Float", "fp16": "Half", "int8": "Int8"}


def layer(name: str, kind: str, given: str, weights: str | None = None, **more: Any) -> dict[str, Any]:
    tensor = {"Name": "x", "Location": "Device", "Dimensions": [1, 16, 64, 64], "Format/Datatype": given}
    extra = {"Weights": {"Type": weights, "Count": 2304}} if weights else {}
    return {"Name": name, "LayerType": kind, "Inputs": [tensor], "Outputs": [tensor], **extra, **more}


FP16 = PrecisionRecord(Precision.FP16, Precision.FP16, float32=("/head/Conv",))
INT8 = PrecisionRecord(Precision.INT8, Precision.FP16, quantized=("/a/Conv",), float32=("/head/Conv",))
CONVS = ["/a/Conv", "/b/Conv", "/head/Conv"]


def old_list(a: str = "fp16", b: str = "fp16") -> dict[str, Any]:
    types = {"fp32": "Float", "fp16": "Half", "int8": "Int8"}
    return {
        "Layers": [
            layer(
                *("Reformatting CopyNode for Input Tensor 0 to /a/Conv + PWN(/a/Gelu)", "Reformat", OLD["fp32"]),
                ParameterType="Reformat",
            ),
            layer("/a/Conv + PWN(/a/Gelu)", "CaskConvolution", OLD[a], types[a], ParameterType="Convolution"),
            layer("/b/Conv + /b/Add", "CaskConvolution", OLD[b], types[b], TacticName="volta_fp16_s884cudnn_fp16"),
            layer("Reformatting CopyNode for Output Tensor 0 to /b/Conv + /b/Add", "NoOp", OLD["fp16"]),
            layer("/head/Conv", "CaskConvolution", OLD["fp32"], "Float"),
        ],
        "Bindings": ["image", "logits"],
    }


def new_list(a: str = "fp16", b: str = "fp16") -> dict[str, Any]:
    def named(*nodes: str) -> str:
        return "\u001e".join(f"[ONNX Layer: {node}]" for node in nodes)

    return {
        "Layers": [
            layer("__mye1", "Reformat", "Float", Metadata=""),
            layer("Reformatting CopyNode for Input Tensor 0 to /a/Conv", "Reformat", "Float", Metadata=""),
            layer("/a/Conv_myl0_1", "CaskConvolution", NEW[a], Metadata=named("/a/Conv", "/a/Gelu")),
            layer("__myl_ConvAdd_myl0_2", "kgen", NEW[b], Metadata=named("/b/Conv", "/b/Add")),
            layer("/head/Conv", "CaskConvolution", "Float", Metadata=named("/head/Conv")),
        ],
        "Bindings": ["image", "logits"],
    }


def mixed_list(a: str = "fp16", b: str = "fp16") -> dict[str, Any]:
    listed = old_list(a, b)
    for one in listed["Layers"]:
        nodes = [name for name in node_names(one) if name.startswith("/")] if one["LayerType"] != "Reformat" else []
        one["Metadata"] = "\u001e".join(f"[ONNX Layer: {node}]" for node in nodes)
        one.pop("Weights", None)
    return listed


def newest_list(a: str = "fp16", b: str = "fp16") -> dict[str, Any]:
    listed = new_list(a, b)
    for one in listed["Layers"]:
        for tensor in {id(tensor): tensor for tensor in [*one["Inputs"], *one["Outputs"]]}.values():
            tensor["Datatype"] = tensor.pop("Format/Datatype")
            tensor["Format"] = "Row major linear"
    return listed


ALL = [old_list, mixed_list, new_list, newest_list]


@pytest.mark.parametrize("listed", ALL)
def test_an_engine_as_asked_for_is_counted(listed: Any) -> None:
    proof = check_engine(listed(), CONVS, FP16)
    assert proof.violations == () and proof.unseen == 0
    assert proof.convolutions == {"fp16": 2, "fp32": 1}
    assert (proof.layers, proof.fused, proof.reformats) == (5, 2, 2)
    assert proof.seen == 3
    quantized = check_engine(listed(a="int8"), CONVS, INT8)
    assert quantized.violations == () and quantized.convolutions == {"int8": 1, "fp16": 1, "fp32": 1}


@pytest.mark.parametrize("listed", ALL)
def test_an_fp16_engine_that_is_fp32_is_caught(listed: Any) -> None:
    proof = check_engine(listed(a="fp32", b="fp32"), CONVS, FP16)
    assert proof.violations == ("/a/Conv: asked for fp16, runs in fp32", "/b/Conv: asked for fp16, runs in fp32")
    with pytest.raises(VerificationError, match=r"the engine is not the fp16 network that was asked for[\s\S]*to do"):
        require_precision(proof.violations, FP16, "the engine")


@pytest.mark.parametrize("listed", ALL)
def test_an_int8_layer_that_runs_in_fp16_is_caught(listed: Any) -> None:
    assert check_engine(listed(), CONVS, INT8).violations == ("/a/Conv: asked for int8, runs in fp16",)
    assert check_engine(listed(a="int8", b="int8"), CONVS, INT8).violations == (
        "/b/Conv: asked for fp16, runs in int8",
    )


def test_lone_quantisations_are_listed() -> None:
    described = old_list(a="int8")
    described["Layers"].append(layer("/a/QuantizeLinear", "Scale", OLD["fp16"], ParameterType="Quantize"))
    assert check_engine(described, CONVS, INT8).lone_quantizations == ("/a/QuantizeLinear",)


def test_what_the_list_does_not_say_is_no_violation() -> None:
    hidden = {"Layers": [layer("{ForeignNode[/a/Conv.../head/Conv]}", "Myelin", "N/A due to dynamic shapes")]}
    proof = check_engine(hidden, CONVS, FP16)
    assert proof.violations == () and proof.unseen == 3 and proof.convolutions == {}
    assert check_engine({"Layers": ["/a/Conv"]}, CONVS, FP16).layers == 0, "names alone: not built with details"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((text, name) for texts in (OLD, NEW) for name, text in texts.items()),
        ("BFloat16", "bf16"),
        ("FP8", "fp8"),
        ("Row major linear BF16", "bf16"),
        ("N/A due to dynamic shapes", "unknown"),
        ("Int32", "unknown"),
    ],
)
def test_types_in_their_words(text: str, expected: str) -> None:
    assert precision_of(layer("/a/Conv", "CaskConvolution", text)) == expected


def test_kernels_tell_what_fused_layers_hide() -> None:
    fused = layer("/a/Conv", "kgen", "Half", TacticName="sm80_xmma_fprop_implicit_gemm_i8i8_i8i32_f32")
    assert precision_of(fused) == "int8"


def test_names_of_fused_nodes() -> None:
    assert node_names(layer("/a/Conv + PWN(PWN(/a/Erf), /a/Mul)", "x", "Half")) == (
        "/a/Conv",
        "PWN",
        "PWN",
        "/a/Erf",
        "/a/Mul",
    )


def test_what_a_precision_check_rests_on_is_said_as_it_is() -> None:
    hidden = {"Layers": [layer("{ForeignNode[/a/Conv.../head/Conv]}", "Myelin", "N/A due to dynamic shapes")]}
    whole, nothing = check_engine(old_list(), CONVS, FP16), check_engine(hidden, CONVS, FP16)
    network = NetworkCheck(9, {"fp16": 2, "int8": 1}, {}, 0, 0, ())
    for strongly_typed in (True, False):
        assert PrecisionCheck(strongly_typed, network, whole).basis == "the engine inspector's layer list"
    typed = PrecisionCheck(True, network, nothing).basis
    assert typed == "the types of the parsed network; the engine inspector's layer list tells 0 of 3", "not proved"
    assert PrecisionCheck(True, network, None).basis == "the types of the parsed network"
    for engine in (nothing, None):
        basis = PrecisionCheck(False, network, engine).basis
        assert basis == "the engine inspector's layer list for 0 of 3 convolutions; for the others on nothing"


def test_reformats_named_after_a_convolution_are_not_it() -> None:
    right = old_list(a="int8")
    right["Layers"].append(layer("Reformatting CopyNode for Output Tensor 0 to /a/Conv", "Reformat", OLD["fp32"]))
    assert check_engine(right, CONVS, INT8).violations == ()
    wrong = old_list(a="fp32")
    wrong["Layers"].append(layer("Reformatting CopyNode for Output Tensor 0 to /a/Conv", "Reformat", OLD["fp16"]))
    assert check_engine(wrong, CONVS, FP16).violations == ("/a/Conv: asked for fp16, runs in fp32",)


def metadata(*nodes: str) -> str:
    return "\u001e".join(f"[ONNX Layer: {node}]" for node in nodes)


@pytest.mark.parametrize("listed", [new_list, newest_list])
def test_generated_casts_that_name_a_convolution_are_not_it(listed: Any) -> None:
    right = listed()
    cast = layer("__myl_CastMove_myl0_0", "kgen", "Float", Metadata=metadata("/a/Conv", "/b/Conv"))
    right["Layers"].insert(0, cast)
    proof = check_engine(right, CONVS, FP16)
    assert proof.violations == () and proof.convolutions == {"fp16": 2, "fp32": 1}
    wrong = listed(a="fp32")
    wrong["Layers"].insert(0, layer("__myl_CastMove_myl0_0", "kgen", "Half", Metadata=metadata("/a/Conv")))
    assert check_engine(wrong, CONVS, FP16).violations == ("/a/Conv: asked for fp16, runs in fp32",)


def test_a_convolution_that_only_casts_name_is_unseen() -> None:
    only = {"Layers": [layer("__myl_Cast_myl0_0", "kgen", "Float", Metadata=metadata("/a/Conv"))]}
    proof = check_engine(only, ["/a/Conv"], FP16)
    assert proof.violations == () and proof.seen == 0 and proof.unseen == 1


def test_bytes_of_an_image_are_no_int8() -> None:
    first = layer("/a/Conv", "CaskConvolution", "UInt8", Metadata=metadata("/a/Conv"))
    assert precision_of(first) == "unknown"
    first["Inputs"].append({"Format/Datatype": "Half"})
    assert precision_of(first) == "fp16"
    assert precision_of(layer("/a/Conv", "x", "Row major linear UInt8 format")) == "unknown"


def test_a_fused_sum_in_int8_does_not_make_its_convolution_int8() -> None:
    fused = layer("/b/Conv + /b/Add", "CaskConvolution", OLD["fp16"])
    fused["Inputs"] = [*fused["Inputs"], {"Format/Datatype": OLD["int8"]}]
    assert precision_of(fused) == "fp16"
    described = {"Layers": [{**fused, "Metadata": metadata("/b/Conv", "/b/Add")}]}
    assert check_engine(described, ["/b/Conv"], FP16).violations == ()


CAPTURED = json.loads(Path(__file__).with_name("inspector_lists.json").read_text(encoding="utf-8"))
CAPTURED_IDS = [f"{one['version']} {one['precision']}" for one in CAPTURED]


def record_of(precision: str, convolutions: list[str]) -> PrecisionRecord:
    """What asks for `precision` in all `convolutions`."""
    asked = Precision(precision)
    if asked.is_quantized:
        return PrecisionRecord(asked, Precision.FP16, quantized=tuple(convolutions))
    return PrecisionRecord(asked, asked)


@pytest.mark.parametrize("captured", CAPTURED, ids=CAPTURED_IDS)
def test_a_captured_list_is_read_as_what_it_is_and_nothing_else(captured: dict[str, Any]) -> None:
    names, precision = captured["convolutions"], captured["precision"]
    check = check_engine(captured, names, record_of(precision, names))
    assert check.violations == () and check.convolutions == {precision: len(names)} and check.unseen == 0
    for other in {"fp32", "fp16", "int8"} - {precision}:
        refused = check_engine(captured, names, record_of(other, names)).violations
        assert refused == tuple(f"{name}: asked for {other}, runs in {precision}" for name in names)


@pytest.mark.parametrize("captured", [one for one in CAPTURED if one["precision"] != "fp32"])
def test_a_convolution_planted_in_fp32_is_the_one_refused(captured: dict[str, Any]) -> None:
    names, planted = captured["convolutions"], deepcopy(captured)
    victim = next(one for one in planted["Layers"] if names[-1] in node_names(one))
    short = victim["Inputs"][0]["Format/Datatype"] == "Half"
    for tensor in [*victim["Inputs"], *victim["Outputs"]]:
        tensor["Format/Datatype"] = "Float" if short else "Row major linear FP32"
    victim.pop("TacticName", None)
    if "Weights" in victim:
        victim["Weights"]["Type"] = "Float"
    check = check_engine(planted, names, record_of(captured["precision"], names))
    assert check.violations == (f"{names[-1]}: asked for {captured['precision']}, runs in fp32",)


@pytest.mark.parametrize("captured", CAPTURED, ids=CAPTURED_IDS)
def test_bytes_and_casts_around_a_captured_convolution_confuse_nothing(captured: dict[str, Any]) -> None:
    names, around = captured["convolutions"], deepcopy(captured)
    for text in ("UInt8", "Float", "Int8"):
        cast = layer(f"__myl_CastMove_myl0_{text}", "kgen", text, Metadata=metadata(*names))
        around["Layers"].insert(0, cast)
    check = check_engine(around, names, record_of(captured["precision"], names))
    assert check.violations == () and check.convolutions == {captured["precision"]: len(names)}
