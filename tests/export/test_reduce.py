"""From the verified FP32 file to one of lower precision: verified and sealed, or kept as evidence, or nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from ffnet_deploy.artifacts.manifest import read_manifest
from ffnet_deploy.calib.search import SearchOptions
from ffnet_deploy.core.contract import DimensionRange, InputKind, IOType, OutputKind
from ffnet_deploy.core.errors import ArtifactError, DataError, OptionError, StorageError, VerificationError
from ffnet_deploy.core.precision import PRECISION_KEY, Hardware, Precision, PrecisionRecord, Target
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine
from ffnet_deploy.engines.torch import TorchEngine
from ffnet_deploy.evaluation.datasets import open_dataset
from ffnet_deploy.evaluation.protocol import predict
from ffnet_deploy.evaluation.verify import VerifyOptions, packaged_images
from ffnet_deploy.export.calibration import CalibrationRequest, images_to_search_with
from ffnet_deploy.export.onnx import ExportOptions, export_onnx
from ffnet_deploy.export.reduce import ReducedGraph, ReductionOptions, reduce_precision
from ffnet_deploy.segmentor.load import Segmentor
from scenes import SceneOptions
from scenes.dataset import write_scenes

SIZE = (DimensionRange.fixed(64), DimensionRange.fixed(96))
IMAGES = VerifyOptions(packaged_images(2), "packaged street scenes")
HALF = ReductionOptions(Target.FP16, agreement=95.0)
"""Of random weights, a label more flips than of trained ones."""


@pytest.fixture(scope="module")
def fp32(tiny: dict[str, Segmentor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = ExportOptions(*SIZE, input=InputKind.BGR, output=OutputKind.LABELS)
    return export_onnx(tiny["tiny_seg"], options, tmp_path_factory.mktemp("fp32"), IMAGES).path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    for split in ("train", "val"):
        write_scenes(root, split, 3, 7, SceneOptions(height=96, width=160))
    return root


@pytest.fixture
def own(fp32: Path, tmp_path: Path) -> Path:
    """A copy of the verified graph and its manifest in a folder of the test's own."""
    for file in fp32.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path / fp32.name


def reduced(
    tiny: dict[str, Segmentor], path: Path, options: ReductionOptions, images: VerifyOptions = IMAGES
) -> ReducedGraph:
    contract = OnnxRuntimeEngine(path).contract
    with TorchEngine(tiny["tiny_seg"].model, contract) as reference:
        return reduce_precision(path, None, options, images, reference)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_fp16_file_is_verified_and_says_what_it_is(tiny: dict[str, Segmentor], own: Path) -> None:
    done = reduced(tiny, own, HALF)
    assert names(own.parent) == sorted(
        ["tiny_seg.fp16.onnx", "tiny_seg.fp16.onnx.json", "tiny_seg.onnx", "tiny_seg.onnx.json"]
    )
    manifest = read_manifest(done.path)
    assert manifest["kind"] == "onnx"
    precision = manifest["precision"]
    assert precision["source"] == {"file": "tiny_seg.onnx", "sha256": read_manifest(own)["sha256"]}
    assert (precision["precision"], precision["base"]) == ("fp16", "fp16")
    assert precision["typing"]["nodes"]["fp16"] > 50
    assert precision["typing"]["casts"] == {"to_fp16": 0, "to_fp32": 0}, "uint8 goes straight to fp16, labels are whole"
    assert manifest["verification"]["passed"] is True
    assert "simulated" in manifest["verification"]["candidate"]
    assert 95 < manifest["verification"]["agreement"] < 100, "rounding must show"
    stored = {entry.key: entry.value for entry in onnx.load(done.path).metadata_props}
    assert PrecisionRecord.from_json(stored[PRECISION_KEY]) == done.record
    with OnnxRuntimeEngine(done.path) as engine:
        assert engine.contract == done.contract
        assert any("rounds less than a GPU" in note for note in engine.notes)


def test_bf16_is_verified_though_onnx_runtime_cannot_run_it(tiny: dict[str, Segmentor], own: Path) -> None:
    done = reduced(tiny, own, ReductionOptions(Target.BF16, agreement=80.0))
    assert done.record == PrecisionRecord(Precision.BF16, Precision.BF16, (), done.record.float32)
    assert done.verification.agreement > 80
    with pytest.raises(ArtifactError, match="BF16 and FP8 graphs are for TensorRT"):
        OnnxRuntimeEngine(done.path)


def test_a_graph_beyond_its_gate_is_kept_as_evidence_alone(tiny: dict[str, Segmentor], own: Path) -> None:
    with pytest.raises(VerificationError, match=r"fp16 graph costs more.*\n  found    label agreement") as failure:
        reduced(tiny, own, replace(HALF, agreement=100.0))
    assert "--min-agreement" in str(failure.value)
    assert names(own.parent) == ["tiny_seg.fp16.rejected", "tiny_seg.onnx", "tiny_seg.onnx.json"]
    evidence = own.parent / "tiny_seg.fp16.rejected"
    assert names(evidence) == ["tiny_seg.fp16.onnx", "verification.json"]
    assert json.loads((evidence / "verification.json").read_text())["verification"]["passed"] is False
    assert read_manifest(own)["verification"]["passed"] is True


def test_fall_of_miou_decides_where_there_are_labels(tiny: dict[str, Segmentor], own: Path, photos: Path) -> None:
    labelled = replace(IMAGES, labelled=open_dataset(photos, "scenes"))
    done = reduced(tiny, own, replace(HALF, max_drop=50.0), labelled)
    assert done.verification.miou is not None
    assert done.verification.scored_images == 3
    known = replace(labelled, reference_miou=done.verification.miou[1] + 10)
    with pytest.raises(VerificationError, match=r"mIoU fell by 10.000 points, more than 9.5"):
        reduced(tiny, own, replace(HALF, max_drop=9.5), known)


@pytest.mark.parametrize("base", [None, Precision.FP32])
def test_int8_file_is_calibrated_typed_and_verified(
    tiny: dict[str, Segmentor], own: Path, photos: Path, base: Precision | None
) -> None:
    ranges = own.parent / "ranges.json"
    request = CalibrationRequest(photos, count=2, ranges=ranges)
    done = reduced(tiny, own, ReductionOptions(Target.INT8, base, agreement=30.0, calibration=request))
    assert done.record.precision is Precision.INT8
    assert done.record.base is (base or Precision.FP16)
    assert len(done.record.quantized) > 40
    precision = read_manifest(done.path)["precision"]
    assert precision["quantization"]["images"] == 2
    assert (precision["typing"] is None) == (base is Precision.FP32)
    assert ranges.is_file()
    with OnnxRuntimeEngine(done.path) as engine:
        settings = engine._session.get_session_options()
        level = settings.graph_optimization_level
        assert level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        assert settings.get_session_config_entry("session.disable_quant_qdq") == "1"
    again = reduced(tiny, own, ReductionOptions(Target.INT8, base, agreement=30.0, calibration=request))
    assert read_manifest(again.path)["sha256"] == read_manifest(done.path)["sha256"]


def test_int8_file_for_cpus_is_scored_by_the_very_runtimes(tiny: dict[str, Segmentor], own: Path, photos: Path) -> None:
    request = CalibrationRequest(images=photos, count=2, hardware=Hardware.CPU)
    done = reduced(tiny, own, ReductionOptions(Target.INT8, agreement=30.0, calibration=request))
    assert done.path.name == "tiny_seg.int8-cpu.onnx", "it replaces no graph for TensorRT"
    assert done.record.base is Precision.FP32 and done.record.hardware is Hardware.CPU
    manifest = read_manifest(done.path)
    runtimes = [one["candidate"] for one in manifest["verification_in_runtimes"]]
    assert len(runtimes) == 2 and runtimes[0].startswith("ONNX Runtime") and runtimes[1].startswith("OpenVINO")
    assert manifest["precision"]["quantization"]["hosts"][0] == "OpenVINO on x86-64 from AVX2 on"


def test_what_cpus_do_not_compute_is_refused(photos: Path) -> None:
    request = CalibrationRequest(images=photos, hardware=Hardware.CPU)
    with pytest.raises(OptionError, match="leave --int8-base out"):
        ReductionOptions(Target.INT8, Precision.FP16, calibration=request)
    with pytest.raises(OptionError, match="not with --fp8"):
        ReductionOptions(Target.FP8, calibration=request)


def test_mixed_file_tells_what_the_search_left_out(tiny: dict[str, Segmentor], photos: Path, tmp_path: Path) -> None:
    path = export_onnx(tiny["tiny_seg"], ExportOptions(*SIZE), tmp_path, IMAGES).path
    request = CalibrationRequest(photos, count=2, search=SearchOptions(state=tmp_path / "search.json"))
    done = reduced(tiny, path, ReductionOptions(Target.MIXED, agreement=30.0, max_drop=100.0, calibration=request))
    assert done.path.name == "tiny_seg.mixed.onnx"
    precision = read_manifest(done.path)["precision"]
    assert precision["precision"] == "int8"
    search = precision["quantization"]["search"]
    assert (search["kept"], search["trials"]) == ([], 1), "100 points are lost nowhere"
    assert search["sensitivity"] == [], "nothing is ranked where everything holds"
    assert (tmp_path / "search.json").is_file()


def test_search_needs_logits_and_takes_labels_or_none(tiny: dict[str, Segmentor], own: Path, photos: Path) -> None:
    request = CalibrationRequest(photos / "images" / "train", count=2)
    contract = OnnxRuntimeEngine(own).contract
    with pytest.raises(OptionError, match="--output logits"):
        images_to_search_with(request, contract, None)
    bare = images_to_search_with(request, replace(contract, output=OutputKind.LOGITS), None)
    assert len(bare) > 0 and not any(sample.labels for sample in bare.samples), "without labels the noise decides"
    request = replace(request, images=photos, search=SearchOptions(images=2))
    chosen = images_to_search_with(request, replace(contract, output=OutputKind.LOGITS), None)
    assert (chosen.split, len(chosen)) == ("train", 2)


def test_ranges_of_other_images_are_refused(tiny: dict[str, Segmentor], own: Path, photos: Path) -> None:
    request = CalibrationRequest(photos, count=2, ranges=own.parent / "ranges.json")
    options = ReductionOptions(Target.INT8, agreement=30.0, calibration=request)
    reduced(tiny, own, options)
    with pytest.raises(ArtifactError, match="measured on something else"):
        reduced(tiny, own, replace(options, calibration=replace(request, count=1)))


def test_interruption_and_lack_of_room_leave_nothing(
    tiny: dict[str, Segmentor], own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = names(own.parent)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    def full(*_: object) -> None:
        raise StorageError("no room left")

    manifest = "ffnet_deploy.artifacts.staging.write_manifest"
    verify = "ffnet_deploy.export.reduce.verify"
    for place, failure, kind in ((verify, interrupted, KeyboardInterrupt), (manifest, full, StorageError)):
        with monkeypatch.context() as patch:
            patch.setattr(place, failure)
            with pytest.raises(kind):
                reduced(tiny, own, HALF)
        assert names(own.parent) == before


def test_a_graph_without_a_manifest_is_refused(tiny: dict[str, Segmentor], own: Path) -> None:
    with TorchEngine(tiny["tiny_seg"].model, OnnxRuntimeEngine(own).contract) as reference:
        own.write_bytes(own.read_bytes()[:-1] + b"\x00")
        with pytest.raises(ArtifactError, match="changed since"):
            reduce_precision(own, None, HALF, IMAGES, reference)
        own.with_name(f"{own.name}.json").unlink()
        with pytest.raises(ArtifactError, match="no manifest"):
            reduce_precision(own, None, HALF, IMAGES, reference)


def test_default_gates_and_names() -> None:
    half, whole = ReductionOptions(Target.FP16), CalibrationRequest(Path())
    assert (half.tolerance.agreement, half.tolerance.miou) == (99.5, 0.05)
    assert ReductionOptions(Target.INT8, calibration=whole).tolerance.miou == 0.3
    assert ReductionOptions(Target.INT8, calibration=whole, max_drop=1.5).tolerance.miou == 1.5
    assert HALF.path(Path("a/net.onnx")) == Path("a/net.fp16.onnx")
    assert HALF.path(Path("a/net.onnx"), Path("b")) == Path("b/net.fp16.onnx")
    assert HALF.path(Path("a/net.onnx"), Path("b/own.onnx")) == Path("b/own.onnx")


def test_bad_options_are_one_clear_error(tiny: dict[str, Segmentor], own: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--calib-images DIR"):
        CalibrationRequest()
    with pytest.raises(OptionError, match="from 1"):
        CalibrationRequest(tmp_path, count=0)
    with pytest.raises(OptionError, match="minmax, percentile, entropy, mse, not 'max'"):
        CalibrationRequest(tmp_path, method="max")
    with pytest.raises(OptionError, match="goes with a quantised graph"):
        ReductionOptions(Target.FP16, base=Precision.FP16)
    with pytest.raises(DataError, match=r"no images at .*nowhere"):
        CalibrationRequest(tmp_path / "nowhere")
    with pytest.raises(DataError, match="cannot read the image list"):
        CalibrationRequest(tmp_path, listed=tmp_path / "nowhere.txt")
    with pytest.raises(OptionError, match="leave mse to the native calibrator"):
        CalibrationRequest(tmp_path, calibrator="modelopt")
    (tmp_path / "folder").mkdir()
    for wrong in ({"ranges": tmp_path / "folder"}, {"search": SearchOptions(state=tmp_path / "folder")}):
        with pytest.raises(StorageError, match="it is a folder"):
            CalibrationRequest(tmp_path, **wrong)


def test_a_tier_needs_labels_and_stands_alone(tiny: dict[str, Segmentor], own: Path) -> None:
    with pytest.raises(OptionError, match="give one"):
        replace(HALF, tier=99.9, max_drop=0.1)
    with pytest.raises(OptionError, match="give --data"):
        reduced(tiny, own, replace(HALF, tier=99.9))
    assert replace(HALF, tier=99.0).tolerance.allowed_drop(80.0) == pytest.approx(0.8)


def test_fp16_floats_at_the_boundary_are_verified_and_told(
    tiny: dict[str, Segmentor], photos: Path, tmp_path: Path
) -> None:
    path = export_onnx(tiny["tiny_seg"], ExportOptions(*SIZE), tmp_path, IMAGES).path
    calibration = CalibrationRequest(photos / "images" / "train", count=2)
    for options in (HALF, ReductionOptions(Target.INT8, agreement=50.0, calibration=calibration)):
        done = reduced(tiny, path, replace(options, io=IOType.FP16))
        assert done.contract.io is IOType.FP16 and done.verification.passed
        with OnnxRuntimeEngine(done.path) as engine:
            assert engine.contract == done.contract
            assert engine.run(np.zeros((1, 3, 64, 96), np.float16)).dtype == np.float16
            with pytest.raises(OptionError, match="takes float16 images"):
                engine.run(np.zeros((1, 3, 64, 96), np.float32))
            assert predict(engine, packaged_images(1)[0].pixels).labels.dtype == np.uint8
    with TorchEngine(tiny["tiny_seg"].model, done.contract) as reference:
        assert reference.run(np.zeros((1, 3, 64, 96), np.float32)).dtype == np.float32, "PyTorch takes and gives FP32"
    assert read_manifest(done.path)["contract"]["io"] == "fp16"


def test_fp16_floats_need_fp16_around_them_and_floats_at_all(
    tiny: dict[str, Segmentor], own: Path, photos: Path
) -> None:
    whole = CalibrationRequest(photos / "images" / "train")
    for wrong in (
        {"target": Target.BF16},
        {"target": Target.INT8, "base": Precision.FP32, "calibration": whole},
        {"target": Target.INT8, "calibration": replace(whole, hardware=Hardware.CPU)},
    ):
        with pytest.raises(OptionError, match="--io fp16 goes with --fp16"):
            ReductionOptions(**wrong, io=IOType.FP16)
    with pytest.raises(OptionError, match="no floats for --io fp16"):
        reduced(tiny, own, replace(HALF, io=IOType.FP16))
