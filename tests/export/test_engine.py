"""An engine that can run is compared with the segmentor before it is published; ONNX Runtime stands in for the GPU."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mmseg")
pytest.importorskip("tensorrt_rtx")

from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.errors import ArtifactError, OptionError, VerificationError
from ffnet_deploy.core.precision import Precision, PrecisionRecord
from ffnet_deploy.engines.cuda import CudaDevice
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine
from ffnet_deploy.engines.tensorrt import make, runner
from ffnet_deploy.engines.tensorrt.options import BuildOptions
from ffnet_deploy.engines.tensorrt.variant import Variant
from ffnet_deploy.export.engine import EngineVerification, export_engine
from ffnet_deploy.export.pipeline import VerifyOptions
from ffnet_deploy.export.verify import NamedImage, usual_tolerance
from tests.toy import ToyEngine, contract, logits, picture, weights, write_onnx

OPTIONS = BuildOptions(variant=Variant.RTX, compute_capabilities=("8.9",))
ADA = CudaDevice(0, "NVIDIA L4", (8, 9), 1 << 34, 12040, 12040)
IMAGES = VerifyOptions([NamedImage(f"{seed}.png", picture(64, 96, seed)) for seed in range(2)], "pictures")


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_onnx(tmp_path / "toy.onnx", contract())


@pytest.fixture
def gpu(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's runner is ONNX Runtime with the graph that the engine was built from."""
    monkeypatch.setattr(make, "find_device", lambda index: ADA)
    monkeypatch.setattr(runner, "TensorRTEngine", lambda path, options: OnnxRuntimeEngine(toy))


def verification(seed: int, record: PrecisionRecord | None = None) -> EngineVerification:
    """Against the toy network with the weights of `seed`; those of the graph are 0."""

    def reference(described: Contract) -> Any:
        kernel = weights(len(described.classes), seed)
        return ToyEngine(described, lambda batch: logits(batch, kernel))

    return EngineVerification(
        IMAGES, usual_tolerance((record or PrecisionRecord()).precision, None, None), reference, "the command"
    )


@pytest.mark.usefixtures("gpu")
def test_an_engine_that_is_the_network_is_published_with_what_was_measured(toy: Path) -> None:
    out = toy.with_name("toy.rtx.engine")
    section = export_engine(toy, out, OPTIONS, verification(0)).bundle.manifest["verification"]
    assert (section["state"], section["images"], section["reference"]) == ("passed", "pictures", "toy")
    assert section["agreement"] > 99.9 and len(section["comparisons"]) >= 2
    assert export_engine(toy, out, OPTIONS, verification(0)).reused


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("was_there", [False, True], ids=["new", "built before and not verified"])
def test_an_engine_that_differs_is_kept_as_evidence_alone(toy: Path, was_there: bool) -> None:
    out = toy.with_name("toy.rtx.engine")
    if was_there:
        assert export_engine(toy, out, OPTIONS).bundle.manifest["verification"]["state"] == "not run"
    with pytest.raises(VerificationError, match=r"the engine is not the network[\s\S]*relative error[\s\S]*--max-drop"):
        export_engine(toy, out, OPTIONS, verification(1))
    assert sorted(path.name for path in toy.parent.iterdir()) == ["toy.onnx", "toy.onnx.json", "toy.rtx.rejected"]
    evidence = toy.with_name("toy.rtx.rejected")
    assert json.loads((evidence / "verification.json").read_text())["passed"] is False
    assert (evidence / "toy.rtx.engine").stat().st_size > 1000


def test_where_it_cannot_run_the_manifest_holds_the_one_command(toy: Path) -> None:
    manifest = export_engine(toy, toy.with_name("toy.rtx.engine"), OPTIONS, verification(1)).bundle.manifest
    assert manifest["verification"]["state"] == "not run" and manifest["verification"]["command"] == "the command"


def test_the_gate_is_that_of_the_precision_unless_the_user_names_one() -> None:
    gates = [usual_tolerance(precision, None, None) for precision in (Precision.FP32, Precision.FP16, Precision.INT8)]
    assert [(gate.agreement, gate.miou) for gate in gates] == [(99.9, 0.05), (99.5, 0.05), (90.0, 0.3)]
    named = usual_tolerance(Precision.INT8, 80.0, 1.5)
    assert (named.agreement, named.miou) == (80.0, 1.5)
    with pytest.raises(OptionError):
        usual_tolerance(Precision.FP16, None, -1)


@pytest.mark.usefixtures("gpu")
def test_an_error_of_the_runner_publishes_nothing(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path, options: object) -> Any:
        raise ArtifactError("no room")

    monkeypatch.setattr(runner, "TensorRTEngine", fails)
    with pytest.raises(ArtifactError, match="no room"):
        export_engine(toy, toy.with_name("toy.rtx.engine"), OPTIONS, verification(0))
    assert sorted(path.name for path in toy.parent.iterdir()) == ["toy.onnx", "toy.onnx.json"]
