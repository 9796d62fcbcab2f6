"""Real engines of TensorRT for RTX, built without a GPU, and the proof that each is what was asked for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from ffnet_deploy.core.contract import DimensionRange, IOType, OutputKind
from ffnet_deploy.core.errors import ArtifactError, OptionError, VerificationError
from ffnet_deploy.core.precision import Precision, PrecisionRecord
from ffnet_deploy.engines.bundle import open_bundle
from ffnet_deploy.engines.tensorrt.options import BuildOptions
from ffnet_deploy.export.engine import build_engine
from ffnet_deploy.precision import TypingOptions, assign_types
from tests.engines.tensorrt.rtx import CAPABILITIES, OPTIONS, exported, in_precision
from tests.engines.tensorrt.slow import PUBLISHED, published
from tests.engines.tensorrt.typed import convolutions, half, quantized, save, stamp
from tests.tiny import FAMILIES
from tests.toy import many_classes, write_onnx

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("mmseg")


def build(model: onnx.ModelProto, folder: Path, options: BuildOptions = OPTIONS) -> dict:
    path = save(model, folder / "tiny.onnx")
    made = build_engine(path, folder / "tiny.rtx.engine", options)
    assert not made.reused and len(made.bundle.plan) > 10_000
    return dict(made.bundle.manifest)


@pytest.mark.parametrize(
    ("dynamic", "precision"),
    [
        (False, Precision.FP32),
        (False, Precision.FP16),
        (False, Precision.INT8),
        (True, Precision.FP16),
        (True, Precision.INT8),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_both_families_build_in_every_precision(
    family: str, dynamic: bool, precision: Precision, tmp_path: Path
) -> None:
    model = exported(family, dynamic)
    count = len(convolutions(model))
    manifest = build(in_precision(model, precision), tmp_path)
    check = manifest["precision_check"]
    expected = {
        Precision.FP32: {"fp32": count},
        Precision.FP16: {"fp16": count - 1, "fp32": 1},
        Precision.INT8: {"int8": count - 1, "fp16": 1},
    }[precision]
    assert check["network"]["convolutions"] == expected, check
    assert check["network"]["violations"] == [] and check["basis"] == "the types of the parsed network"
    assert manifest["build"]["target"] == {"capabilities": list(CAPABILITIES), "gpu": None, "driver": None}
    assert manifest["build"]["typing"] == "strongly typed"
    assert manifest["verification"]["state"] == "not run" and "no CUDA device" in manifest["verification"]["reason"]


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_one_compute_capability_by_name(capability: str, tmp_path: Path) -> None:
    manifest = build(exported("tiny_seg", False), tmp_path, replace(OPTIONS, compute_capabilities=(capability,)))
    assert manifest["build"]["target"]["capabilities"] == [capability]


def test_dynamic_fp32_of_opset_17_builds(tmp_path: Path) -> None:
    assert build(exported("tiny_upernet", True, 17), tmp_path)["precision_check"]["network"]["violations"] == []


def test_fp16_at_the_boundary_builds(tmp_path: Path) -> None:
    model = exported("tiny_seg", False)
    images = [np.zeros((1, 3, 64, 128), np.float32)]
    typed = assign_types(model, TypingOptions(), images, io=IOType.FP16)
    manifest = build(typed.model, tmp_path)
    network = manifest["precision_check"]["network"]
    assert manifest["contract"]["io"] == "fp16" and network["violations"] == []
    assert network["casts"] == sum(typed.report.casts)


def test_the_profile_can_be_narrower_than_the_graph(tmp_path: Path) -> None:
    options = replace(
        OPTIONS, height=DimensionRange(64, 96, 128), width=DimensionRange.fixed(128), batch=DimensionRange(1, 2, 2)
    )
    build(exported("tiny_seg", True), tmp_path, options)
    contract = open_bundle(tmp_path / "tiny.rtx.engine").contract
    assert (contract.height, contract.width, contract.batch) == (options.height, options.width, options.batch)


@pytest.mark.parametrize(
    ("dynamic", "changes", "message"),
    [
        (True, {"height": DimensionRange(32, 64, 128)}, "accepts a height of 64..256, not 32..128"),
        (True, {"batch": DimensionRange(1, 1, 8)}, "accepts a batch of 1..4, not 1..8"),
        (False, {"width": DimensionRange.fixed(256)}, "accepts a width of 128, not 256"),
    ],
)
def test_a_profile_beyond_the_graph_is_named(
    dynamic: bool, changes: dict[str, DimensionRange], message: str, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=message):
        build(exported("tiny_seg", dynamic), tmp_path, replace(OPTIONS, **changes))
    assert not (tmp_path / "tiny.rtx.engine").exists()


def mislabelled(case: str) -> onnx.ModelProto:
    """A graph that is not what its metadata says."""
    model = exported("tiny_seg", False)
    names = convolutions(model)
    record = PrecisionRecord(Precision.INT8, Precision.FP16, quantized=tuple(names))
    return {
        "fp32 as fp16": lambda: stamp(_copy(model), PrecisionRecord(Precision.FP16, Precision.FP16)),
        "one layer left in fp32": lambda: stamp(
            half(model, names[3:4]), PrecisionRecord(Precision.FP16, Precision.FP16)
        ),
        "fp16 as fp32": lambda: stamp(half(model), PrecisionRecord()),
        "fp16 as int8": lambda: stamp(half(model), record),
        "one layer left out of int8": lambda: stamp(quantized(half(model), names[5:6], Precision.FP16), record),
        "int8 as fp16": lambda: stamp(
            quantized(half(model), base=Precision.FP16), PrecisionRecord(Precision.FP16, Precision.FP16)
        ),
        "int8 over fp32 as over fp16": lambda: stamp(quantized(model), record),
    }[case]()


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("fp32 as fp16", "asked for fp16, found input fp32, weights fp32, output fp32"),
        ("one layer left in fp32", "asked for fp16, found input fp32, weights fp32, output fp32"),
        ("fp16 as fp32", "asked for fp32, found input fp16"),
        ("fp16 as int8", "asked for int8, found input fp16"),
        ("one layer left out of int8", "asked for int8, found input fp16"),
        ("int8 as fp16", "asked for fp16, found input int8, weights int8"),
        ("int8 over fp32 as over fp16", "asked for int8, found input int8, weights int8, output fp32"),
    ],
)
def test_a_mislabelled_graph_is_caught_before_the_build(case: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=told) as caught:
        build(mislabelled(case), tmp_path)
    assert "is not the" in str(caught.value) and "to do" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.onnx", "tiny.onnx.json"]


def test_a_node_that_tensorrt_does_not_know_is_named(tmp_path: Path) -> None:
    model = _copy(exported("tiny_seg", False))
    node = next(node for node in model.graph.node if node.op_type == "Gelu")
    node.op_type = "Frobnicate"
    with pytest.raises(ArtifactError, match=r"\(Frobnicate\): this operator is not known to it[\s\S]*to do") as caught:
        build(model, tmp_path)
    assert node.name in str(caught.value)


def test_types_that_do_not_fit_are_named(tmp_path: Path) -> None:
    model = half(exported("tiny_seg", False))
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == conv.input[1])
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight).astype("float32"), weight.name))
    with pytest.raises(ArtifactError) as caught:
        build(model, tmp_path)
    assert conv.name in str(caught.value) and "`input` type is Half but `kernel` is of type Float" in str(caught.value)


def test_a_workspace_too_small_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"the workspace is too small for a layer[\s\S]*raise --workspace"):
        build(exported("tiny_upernet", True), tmp_path, replace(OPTIONS, workspace=1))


def test_what_this_tensorrt_does_not_offer_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"does not build for compute capability 9\.0; it knows 7\.5, 8\.0, 8\.6"):
        build(exported("tiny_seg", False), tmp_path, replace(OPTIONS, compute_capabilities=("9.0",)))
    with pytest.raises(ArtifactError, match="lean runtime"):
        build(exported("tiny_seg", False), tmp_path, replace(OPTIONS, version_compatible=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.onnx", "tiny.onnx.json"]


def test_labels_of_many_classes_are_int32_in_an_engine(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "toy.onnx", many_classes(300, output=OutputKind.LABELS))
    bundle = build_engine(path, tmp_path / "toy.rtx.engine", OPTIONS).bundle
    assert bundle.manifest["tensors"]["output"] == [1, 64, 96] and len(bundle.contract.classes) == 300


def test_progress_rises_to_the_end(tmp_path: Path) -> None:
    path = save(exported("tiny_seg", False), tmp_path / "tiny.onnx")
    shares: list[float] = []
    stages: list[str] = []

    def progress(stage: str, done: float = 0, total: float | None = None, /) -> None:
        stages.append(stage)
        shares.extend([done] if total else [])

    build_engine(path, tmp_path / "tiny.rtx.engine", OPTIONS, progress=progress)
    kinds = list(dict.fromkeys(stage.partition(":")[0] for stage in stages))
    assert kinds == ["parsing", "building", "writing"]
    assert shares == sorted(shares) and 0 < shares[0] < shares[-1] <= 1 and len(set(shares)) > 10


@pytest.mark.slow
@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_build(name: str, dynamic: bool, precision: Precision, tmp_path: Path) -> None:
    model = published(name, dynamic)
    count = len(convolutions(model))
    proof = build(in_precision(model, precision), tmp_path)["precision_check"]["network"]
    lower = {Precision.FP16: {"fp16": count - 1, "fp32": 1}, Precision.INT8: {"int8": count - 1, "fp16": 1}}
    assert proof["violations"] == [] and proof["convolutions"] == lower[precision]
