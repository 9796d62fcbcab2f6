"""Building engines: reuse, builds side by side, killed or called off, without room or GPU, verified where they can run.

ONNX Runtime stands in for the GPU where an engine is run.
"""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorrt_rtx")

from ffnet_deploy.artifacts import manifest_path
from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.errors import ArtifactError, OptionError, StorageError, VerificationError
from ffnet_deploy.core.precision import Precision, PrecisionRecord
from ffnet_deploy.engines.bundle import open_bundle
from ffnet_deploy.engines.cuda import CudaDevice, NoDeviceError
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine
from ffnet_deploy.engines.tensorrt import runner
from ffnet_deploy.engines.tensorrt.inspector import check_engine
from ffnet_deploy.engines.tensorrt.options import BuildOptions
from ffnet_deploy.engines.tensorrt.variant import Variant
from ffnet_deploy.evaluation.verify import NamedImage, VerifyOptions, usual_tolerance
from ffnet_deploy.export import engine
from ffnet_deploy.export.engine import EngineVerification, build_engine, export_layers
from tests.core.test_files import largest_file
from tests.engines.tensorrt.rtx import exported
from tests.engines.tensorrt.typed import save
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
    monkeypatch.setattr(engine, "find_device", lambda index: ADA)
    monkeypatch.setattr(runner, "TensorRTEngine", lambda path, options: OnnxRuntimeEngine(toy))


def verification(seed: int, record: PrecisionRecord | None = None) -> EngineVerification:
    """Against the toy network with the weights of `seed`; those of the graph are 0."""

    def reference(described: Contract) -> Any:
        kernel = weights(len(described.classes), seed)
        return ToyEngine(described, lambda batch: logits(batch, kernel))

    return EngineVerification(
        replace(IMAGES, tolerance=usual_tolerance((record or PrecisionRecord()).precision, None, None)),
        reference,
        "the command",
    )


@pytest.mark.usefixtures("gpu")
def test_an_engine_that_is_the_network_is_published_with_what_was_measured(toy: Path) -> None:
    out = toy.with_name("toy.rtx.engine")
    section = build_engine(toy, out, OPTIONS, verification(0)).bundle.manifest["verification"]
    assert (section["state"], section["images"], section["reference"]) == ("passed", "pictures", "toy")
    assert section["agreement"] > 99.9 and len(section["comparisons"]) >= 2
    assert build_engine(toy, out, OPTIONS, verification(0)).reused


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("was_there", [False, True], ids=["new", "built before and not verified"])
def test_an_engine_that_differs_is_kept_as_evidence_alone(toy: Path, was_there: bool) -> None:
    out = toy.with_name("toy.rtx.engine")
    if was_there:
        assert build_engine(toy, out, OPTIONS).bundle.manifest["verification"]["state"] == "not run"
    with pytest.raises(VerificationError, match=r"the engine is not the network[\s\S]*relative error[\s\S]*--max-drop"):
        build_engine(toy, out, OPTIONS, verification(1))
    assert sorted(path.name for path in toy.parent.iterdir()) == ["toy.onnx", "toy.onnx.json", "toy.rtx.rejected"]
    evidence = toy.with_name("toy.rtx.rejected")
    assert json.loads((evidence / "verification.json").read_text())["verification"]["passed"] is False
    assert (evidence / "toy.rtx.engine").stat().st_size > 1000


LAYERS = {"Layers": [{"Name": "conv", "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": "Float"}]}]}


def inspected(monkeypatch: pytest.MonkeyPatch, asked: Precision) -> None:
    """Let the builder give what it gives with a GPU that takes the engine: the inspector's list, and its check."""
    without = engine.build_plan

    def build_plan(*arguments: Any) -> Any:
        built = without(*arguments)
        check = check_engine(LAYERS, ["conv"], PrecisionRecord(asked, asked))
        return replace(built, layers=LAYERS, precision_check=replace(built.precision_check, engine=check))

    monkeypatch.setattr(engine, "build_plan", build_plan)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("reason", ["precision", "output", "output of one built before"])
def test_the_inspectors_list_is_kept_beside_an_engine_refused_or_not(
    toy: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    out = toy.with_name("toy.rtx.engine")
    inspected(monkeypatch, Precision.FP16 if reason == "precision" else Precision.FP32)
    if reason == "output of one built before":
        bundle = build_engine(toy, out, OPTIONS).bundle
        assert json.loads(out.with_name("toy.rtx.engine.layers.json").read_text()) == LAYERS
        assert export_layers(bundle, toy.with_name("wanted.json"))
        assert json.loads(toy.with_name("wanted.json").read_text()) == LAYERS
    with pytest.raises(VerificationError, match="layer list" if reason == "precision" else "is not the network"):
        build_engine(toy, out, OPTIONS, verification(1))
    kept = toy.with_name("toy.rtx.rejected") / "toy.rtx.engine.layers.json"
    assert json.loads(kept.read_text()) == LAYERS
    assert not list(toy.parent.glob("*.engine*"))


def test_where_it_cannot_run_the_manifest_holds_the_one_command(toy: Path) -> None:
    manifest = build_engine(toy, toy.with_name("toy.rtx.engine"), OPTIONS, verification(1)).bundle.manifest
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
        build_engine(toy, toy.with_name("toy.rtx.engine"), OPTIONS, verification(0))
    assert sorted(path.name for path in toy.parent.iterdir()) == ["toy.onnx", "toy.onnx.json"]


PROGRAM = """
import os, signal, sys
from pathlib import Path
from ffnet_deploy.export.engine import build_engine
from ffnet_deploy.engines.tensorrt.options import BuildOptions
from ffnet_deploy.engines.tensorrt.variant import Variant

folder, name, act = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def note(text):
    print(text, flush=True)

def progress(stage, done=0, total=None, /):
    if total is None:
        note(stage)
    elif act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif act == "report" and not hasattr(progress, "told"):
        progress.told = True
        note("in the middle")

try:
    made = build_engine(folder / name, folder / "toy.rtx.engine",
                       BuildOptions(variant=Variant.RTX, compute_capabilities=("8.9",)),
                       progress=progress, notes=note)
    print("reused" if made.reused else "built", flush=True)
except KeyboardInterrupt:
    print("called off", flush=True)
    sys.exit(130)
"""


def start(folder: Path, name: str = "toy.onnx", act: str = "") -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROGRAM, str(folder), name, act]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


WRITTEN = ["toy.onnx", "toy.onnx.json", "toy.rtx.engine", "toy.rtx.engine.json"]


def test_the_same_things_are_reused_and_others_built(toy: Path) -> None:
    out, stages = toy.with_name("toy.rtx.engine"), list[str]()
    first = build_engine(toy, out, OPTIONS)
    again = build_engine(toy, out, OPTIONS, progress=lambda stage, *_: stages.append(stage))
    assert not first.reused and again.reused and stages == []
    assert again.bundle.plan == first.bundle.plan
    assert not build_engine(toy, out, replace(OPTIONS, aux_streams=0)).reused, "other options"
    assert build_engine(toy, out, replace(OPTIONS, aux_streams=0)).reused
    write_onnx(toy, contract(network="other"))
    assert not build_engine(toy, out, replace(OPTIONS, aux_streams=0)).reused, "another graph"
    out.write_bytes(out.read_bytes()[:-1])
    notes: list[str] = []
    assert not build_engine(toy, out, replace(OPTIONS, aux_streams=0), notes=notes.append).reused, "damaged"
    assert "its manifest says" in notes[0]
    assert names(toy.parent) == WRITTEN


def test_the_rebuild_command_builds_the_same(toy: Path) -> None:
    out = toy.with_name("toy.rtx.engine")
    options = replace(OPTIONS, aux_streams=1, optimization_level=2, workspace=512)
    manifest = build_engine(toy, out, options).bundle.manifest
    assert manifest["rebuild"] == (
        f"ffnet-export --onnx {toy} --backend trt-rtx --workspace 512 --optimization-level 2 --aux-streams 1 "
        f"--compute-capability 8.9 --out {out}"
    )
    assert manifest["verification"]["command"].startswith("ffnet-export --config toy --checkpoint CHECKPOINT --onnx")


def test_of_two_processes_one_builds_and_the_other_waits(tmp_path: Path) -> None:
    save(exported("tiny_seg", False), tmp_path / "tiny.onnx")
    first = start(tmp_path, "tiny.onnx", "report")
    assert first.stdout is not None
    while first.stdout.readline().strip() != "in the middle":
        assert first.poll() is None
    second = start(tmp_path, "tiny.onnx")
    told = [process.communicate(timeout=300)[0].split("\n") for process in (first, second)]
    assert "built" in told[0]
    assert told[1][:2] in (["waiting for another process that builds this engine", "reused"], ["reused", ""])
    assert names(tmp_path) == ["tiny.onnx", "tiny.onnx.json", "toy.rtx.engine", "toy.rtx.engine.json"]


def test_a_killed_build_leaves_nothing_that_is_loaded_and_the_next_one_cleans_up(toy: Path) -> None:
    process = start(toy.parent, act="kill")
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(ArtifactError, match="there is no engine"):
        open_bundle(toy.with_name("toy.rtx.engine"))
    assert not build_engine(toy, toy.with_name("toy.rtx.engine"), OPTIONS).reused
    assert names(toy.parent) == WRITTEN


def test_ctrl_c_calls_a_build_off_and_leaves_nothing(tmp_path: Path) -> None:
    save(exported("tiny_upernet", True), tmp_path / "tiny.onnx")
    before = names(tmp_path)
    process = start(tmp_path, "tiny.onnx", "report")
    assert process.stdout is not None
    while process.stdout.readline().strip() != "in the middle":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=120)[0]
    assert (process.returncode, told) == (130, "called off\n")
    assert names(tmp_path) == before


def test_a_full_disk_is_one_clear_error(toy: Path) -> None:
    with largest_file(1 << 12), pytest.raises(StorageError, match=r"no room left to write[\s\S]*to do"):
        build_engine(toy, toy.with_name("toy.rtx.engine"), OPTIONS)
    assert names(toy.parent) == WRITTEN[:2]


def test_a_folder_in_the_engines_place_is_one_clear_error(toy: Path) -> None:
    with pytest.raises(StorageError, match="it is a folder"):
        build_engine(toy, toy.parent, OPTIONS)


def test_a_graph_that_its_manifest_does_not_describe_is_refused(toy: Path) -> None:
    manifest_path(toy).write_text(manifest_path(toy).read_text().replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(ArtifactError, match=r"has changed since (its manifest|it) was written"):
        build_engine(toy, toy.with_name("toy.rtx.engine"), OPTIONS)


def test_a_graph_without_a_manifest_is_noted(toy: Path) -> None:
    manifest_path(toy).unlink()
    notes: list[str] = []
    build_engine(toy, toy.with_name("toy.rtx.engine"), OPTIONS, notes=notes.append)
    assert notes == ["toy.onnx has no manifest beside it: the file was not checked"]


@pytest.mark.parametrize("options", [BuildOptions(), BuildOptions(variant=Variant.RTX)])
def test_without_a_gpu_nothing_is_built_and_nothing_crashes(
    toy: Path, options: BuildOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(index: int) -> CudaDevice:
        raise NoDeviceError("there is no CUDA device here")

    monkeypatch.setattr("ffnet_deploy.engines.tensorrt.options.find_device", none)
    with pytest.raises(NoDeviceError, match="there is no CUDA device here") as caught:
        build_engine(toy, toy.with_name("toy.engine"), options)
    assert ("--compute-capability" in str(caught.value)) == (options.variant is Variant.RTX)
    assert names(toy.parent) == WRITTEN[:2]


def test_an_engine_is_verified_once_and_where_it_can_run(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, opened = toy.with_name("toy.rtx.engine"), list[Path]()
    unverified = build_engine(toy, out, OPTIONS, verification(0)).bundle.manifest
    assert unverified["verification"] == {
        "state": "not run",
        "reason": "there is no CUDA device here: no NVIDIA driver is installed",
        "command": "the command",
    }

    def run(path: Path, options: object) -> OnnxRuntimeEngine:
        assert len(open_bundle(path).plan) > 1000
        opened.append(path)
        return OnnxRuntimeEngine(toy)

    monkeypatch.setattr(engine, "find_device", lambda index: ADA)
    monkeypatch.setattr(runner, "TensorRTEngine", run)
    again = build_engine(toy, out, OPTIONS, verification(0))
    assert again.reused and again.bundle.manifest["verification"]["state"] == "passed" and len(opened) == 1
    build_engine(toy, out, OPTIONS, verification(0))
    assert len(opened) == 1, "verified once"
    h200 = replace(ADA, compute_capability=(9, 0), name="NVIDIA H200")
    monkeypatch.setattr(engine, "find_device", lambda index: h200)
    other = build_engine(toy, toy.with_name("other.rtx.engine"), OPTIONS, verification(0)).bundle.manifest
    assert other["verification"]["reason"] == "NVIDIA H200 has compute capability 9.0"


def test_the_manifest_says_what_was_built(toy: Path) -> None:
    manifest = build_engine(toy, toy.with_name("toy.rtx.engine"), OPTIONS).bundle.manifest
    assert manifest["graph"]["file"] == "toy.onnx" and manifest["build"]["options"]["compute_capabilities"] == ["8.9"]
    assert manifest["tensors"] == {"input": [-1, 3, -1, -1], "output": [-1, 11, -1, -1]}
    check = manifest["precision_check"]
    assert check["network"]["convolutions"] == {"fp32": 1} and check["engine"] is None
    assert json.loads(manifest_path(toy.with_name("toy.rtx.engine")).read_text())["digest"] == manifest["digest"]
