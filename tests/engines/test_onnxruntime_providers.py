"""ONNX Runtime on GPUs, as far as a machine without one can tell: what it is asked for, and what a fallback becomes."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ffnet_deploy.core.contract import DimensionRange, InputKind, OutputKind
from ffnet_deploy.core.errors import ArtifactError, MissingPackageError, OptionError, StorageError
from ffnet_deploy.core.precision import Precision, PrecisionRecord
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeOptions
from ffnet_deploy.engines.onnxruntime_providers import CPU, CUDA, TENSORRT, parse_device, provider_options
from tests.toy import contract, fixed, write_onnx

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
FP32 = PrecisionRecord()


class Session:
    """A session of ONNX Runtime on the CPU that says it runs elsewhere."""

    asked: dict[str, Any]
    came: tuple[str, ...] = (CUDA, CPU)
    failure: str | None = None

    def __init__(self, path: str, settings: Any, **told: Any) -> None:
        Session.asked = told
        if Session.failure:
            raise RuntimeError(Session.failure)
        self.real = onnxruntime.InferenceSession(path, settings, providers=[CPU])

    def get_providers(self) -> list[str]:
        return list(Session.came)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@pytest.fixture
def gpu_build(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """ONNX Runtime as its GPU package offers it."""
    made = SimpleNamespace(
        get_available_providers=lambda: [TENSORRT, CUDA, CPU],
        InferenceSession=Session,
        SessionOptions=onnxruntime.SessionOptions,
        GraphOptimizationLevel=onnxruntime.GraphOptimizationLevel,
        __version__="1.31.1",
        preloaded=[],
    )
    made.preload_dlls = lambda: made.preloaded.append(1)
    monkeypatch.setitem(sys.modules, "onnxruntime", made)
    monkeypatch.setattr(Session, "came", (CUDA, CPU))
    monkeypatch.setattr(Session, "failure", None)
    return made


@pytest.mark.parametrize(
    ("text", "providers", "gpu"),
    [
        ("cpu", (CPU,), 0),
        ("cuda", (CUDA, CPU), 0),
        ("cuda:2", (CUDA, CPU), 2),
        ("tensorrt", (TENSORRT, CUDA, CPU), 0),
        ("tensorrt:1", (TENSORRT, CUDA, CPU), 1),
    ],
)
def test_devices_are_providers(text: str, providers: tuple[str, ...], gpu: int) -> None:
    assert parse_device(text) == (providers, gpu)


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "", "trt"])
def test_other_devices_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="cpu, cuda"):
        parse_device(text)


def test_a_graph_runs_on_the_provider_that_was_asked_for(tmp_path: Path, gpu_build: SimpleNamespace) -> None:
    path = write_onnx(tmp_path / "toy.onnx", contract())
    with OnnxRuntimeEngine(path, OnnxRuntimeOptions(providers=(CUDA, CPU), gpu=1)) as engine:
        assert engine.name == "ONNX Runtime 1.31.1 (CUDA)"
        assert engine.run(np.zeros((1, 3, 32, 64), np.float32)).shape == (1, 11, 8, 16)
    assert Session.asked["providers"] == [CUDA, CPU]
    assert Session.asked["provider_options"] == [{"device_id": "1", "use_tf32": "0"}, {}]
    assert Session.asked["enable_fallback"] == 0 and gpu_build.preloaded == [1]


def test_a_fallback_to_the_cpu_is_an_error_that_says_what_to_install(
    tmp_path: Path, gpu_build: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_onnx(tmp_path / "toy.onnx", contract())
    monkeypatch.setattr(Session, "came", (CPU,))
    with pytest.raises(ArtifactError, match=r"(?s)by CUDA.* fell back to CPU.*pip install 'onnxruntime-gpu\[cuda"):
        OnnxRuntimeEngine(path, OnnxRuntimeOptions(providers=(CUDA, CPU)))
    monkeypatch.setattr(Session, "came", (CUDA, CPU))
    with pytest.raises(ArtifactError, match=r"(?s)by Tensorrt.* fell back to CUDA.* tensorrt"):
        OnnxRuntimeEngine(path, OnnxRuntimeOptions(providers=(TENSORRT, CUDA, CPU)))


def test_a_provider_that_fails_to_start_says_what_to_install(
    tmp_path: Path, gpu_build: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "failure", "CUDA failure 35: driver version is insufficient\nand more")
    with pytest.raises(
        ArtifactError, match=r"(?s)by CUDA.*: CUDA failure 35: driver .* insufficient\n.*onnxruntime-gpu"
    ):
        OnnxRuntimeEngine(write_onnx(tmp_path / "toy.onnx", contract()), OnnxRuntimeOptions(providers=(CUDA, CPU)))


def test_the_cpus_package_names_the_gpus() -> None:
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has the CUDA provider")
    with pytest.raises(OptionError, match=r"(?s)has no CUDA.*it offers .*CPU.*pip install 'onnxruntime-gpu"):
        OnnxRuntimeOptions(providers=(CUDA, CPU))


def test_a_missing_onnx_runtime_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackageError, match=r"\[onnxruntime\]"):
        OnnxRuntimeEngine(tmp_path / "x.onnx")


@pytest.mark.parametrize(
    ("record", "permissions"),
    [
        (FP32, set()),
        (PrecisionRecord(Precision.FP16, Precision.FP16), {"trt_fp16_enable"}),
        (PrecisionRecord(Precision.BF16, Precision.BF16), {"trt_bf16_enable"}),
        (PrecisionRecord(Precision.INT8, Precision.FP32, ("conv",)), {"trt_int8_enable"}),
        (PrecisionRecord(Precision.INT8, Precision.FP16, ("conv",)), {"trt_int8_enable", "trt_fp16_enable"}),
    ],
)
def test_tensorrt_may_use_the_types_of_the_graph_alone(record: PrecisionRecord, permissions: set[str]) -> None:
    described = contract(**fixed(64, 96)), record
    told = provider_options((TENSORRT, CUDA, CPU), 0, Path("x.onnx"), described, None)
    assert {name for name in told[0] if name.endswith("_enable")} == permissions
    assert told[1] == {"device_id": "0", "use_tf32": "0"} and told[2] == {}


def test_tensorrt_is_told_the_range_of_shapes() -> None:
    wide = contract(
        batch=DimensionRange(1, 2, 4), height=DimensionRange(32, 64, 128), width=DimensionRange(32, 96, 256)
    )
    told = provider_options((TENSORRT,), 0, Path("x.onnx"), (wide, FP32), None)[0]
    assert told["trt_profile_min_shapes"] == "image:1x3x32x32"
    assert told["trt_profile_opt_shapes"] == "image:2x3x64x96"
    assert told["trt_profile_max_shapes"] == "image:4x3x128x256"
    flat = contract(
        input=InputKind.BGR, batch=DimensionRange(1, 1, 2), **{k: v for k, v in fixed(64, 96).items() if k != "batch"}
    )
    told = provider_options((TENSORRT,), 0, Path("x.onnx"), (flat, FP32), None)[0]
    assert told["trt_profile_max_shapes"] == "image:2x64x96x3"


def test_each_graph_has_a_cache_of_its_own(tmp_path: Path) -> None:
    folders = set()
    for content, described in [(b"one", contract()), (b"two", contract()), (b"one", contract(**fixed(64, 96)))]:
        path = tmp_path / "same.onnx"
        path.write_bytes(content)
        for _ in range(2):
            told = provider_options((TENSORRT,), 0, path, (described, FP32), tmp_path / "cache")[0]
            assert told["trt_engine_cache_enable"] == told["trt_timing_cache_enable"] == "1"
            assert told["trt_engine_cache_path"] == told["trt_timing_cache_path"]
            folders.add(told["trt_engine_cache_path"])
    assert len(folders) == 3 and all(Path(folder).is_dir() for folder in folders)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        provider_options((TENSORRT,), 0, path, (contract(), FP32), tmp_path / "file")


def test_layers_kept_in_float32_are_noted(
    tmp_path: Path, gpu_build: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    from ffnet_deploy.core.contract import METADATA_KEY
    from ffnet_deploy.core.precision import PRECISION_KEY

    path = write_onnx(tmp_path / "toy.onnx", contract())
    model = onnx.load(path)
    record = PrecisionRecord(Precision.FP16, Precision.FP16, float32=("Softmax_1",))
    onnx.helper.set_model_props(model, {METADATA_KEY: contract().to_json(), PRECISION_KEY: record.to_json()})
    onnx.save(model, path)
    monkeypatch.setattr(Session, "came", (TENSORRT, CUDA, CPU))
    options = OnnxRuntimeOptions(providers=(TENSORRT, CUDA, CPU), check_manifest=False)
    engine = OnnxRuntimeEngine(path, options)
    assert engine.precision == record
    assert len(engine.notes) == 1 and "float32 may be computed in a lower one" in engine.notes[0]


@pytest.mark.parametrize(
    ("version", "opset", "resizes", "told"),
    [
        ("1.24.3", 20, True, True),
        ("1.25.0", 20, True, False),
        ("1.24.3", 18, True, False),
        ("1.24.3", 20, False, False),
    ],
)
def test_a_resize_that_cuda_leaves_to_the_cpu_is_told(
    gpu_build: SimpleNamespace, version: str, opset: int, resizes: bool, told: bool, tmp_path: Path
) -> None:
    import onnx

    output = OutputKind.LABELS if resizes else OutputKind.LOGITS
    path = write_onnx(tmp_path / "toy.onnx", contract(output=output))
    model = onnx.load(path)
    model.opset_import[0].version = opset
    onnx.save(model, path)
    gpu_build.__version__ = version
    with OnnxRuntimeEngine(path, OnnxRuntimeOptions(providers=(CUDA, CPU), check_manifest=False)) as engine:
        notes = [note for note in engine.notes if "no CUDA kernel for the graph's Resize" in note]
    assert bool(notes) is told and all("--opset 18" in note for note in notes)
