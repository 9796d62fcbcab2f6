"""Making engines: reuse, builds side by side, builds that are killed, called off or find no room or no GPU."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from ffnet_deploy.artifacts.manifest import manifest_path
from ffnet_deploy.core.errors import ArtifactError, StorageError, VerificationError
from ffnet_deploy.engines.bundle import open_bundle
from ffnet_deploy.engines.cuda import CudaDevice, NoDeviceError
from ffnet_deploy.engines.tensorrt import make
from ffnet_deploy.engines.tensorrt.make import Verification, make_engine
from ffnet_deploy.engines.tensorrt.options import BuildOptions
from ffnet_deploy.engines.tensorrt.variant import Variant
from tests.core.test_files import largest_file
from tests.engines.tensorrt.rtx import OPTIONS, exported
from tests.engines.tensorrt.typed import save
from tests.toy import contract, write_onnx

pytest.importorskip("tensorrt_rtx")
TOY = replace(OPTIONS, compute_capabilities=("8.9",))
ADA = CudaDevice(0, "NVIDIA L4", (8, 9), 1 << 34, 12040, 12040)
PROGRAM = """
import os, signal, sys
from pathlib import Path
from ffnet_deploy.engines.tensorrt.make import make_engine
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
    made = make_engine(folder / name, folder / "toy.rtx.engine",
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


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_onnx(tmp_path / "toy.onnx", contract())


WRITTEN = ["toy.onnx", "toy.onnx.json", "toy.rtx.engine", "toy.rtx.engine.json"]


def test_the_same_things_are_reused_and_others_built(toy: Path) -> None:
    out, stages = toy.with_name("toy.rtx.engine"), list[str]()
    first = make_engine(toy, out, TOY)
    again = make_engine(toy, out, TOY, progress=lambda stage, *_: stages.append(stage))
    assert not first.reused and again.reused and stages == []
    assert again.bundle.plan == first.bundle.plan
    assert not make_engine(toy, out, replace(TOY, aux_streams=0)).reused, "other options"
    assert make_engine(toy, out, replace(TOY, aux_streams=0)).reused
    write_onnx(toy, contract(network="other"))
    assert not make_engine(toy, out, replace(TOY, aux_streams=0)).reused, "another graph"
    out.write_bytes(out.read_bytes()[:-1])
    notes: list[str] = []
    assert not make_engine(toy, out, replace(TOY, aux_streams=0), notes=notes.append).reused, "damaged"
    assert "its manifest says" in notes[0]
    assert names(toy.parent) == WRITTEN


def test_the_rebuild_command_builds_the_same(toy: Path) -> None:
    out = toy.with_name("toy.rtx.engine")
    options = replace(TOY, aux_streams=1, optimization_level=2, workspace=512)
    manifest = make_engine(toy, out, options).bundle.manifest
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
    assert not make_engine(toy, toy.with_name("toy.rtx.engine"), TOY).reused
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
        make_engine(toy, toy.with_name("toy.rtx.engine"), TOY)
    assert names(toy.parent) == WRITTEN[:2]


def test_a_folder_in_the_engines_place_is_one_clear_error(toy: Path) -> None:
    with pytest.raises(StorageError, match="it is a folder"):
        make_engine(toy, toy.parent, TOY)


def test_a_graph_that_its_manifest_does_not_describe_is_refused(toy: Path) -> None:
    manifest_path(toy).write_text(manifest_path(toy).read_text().replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(ArtifactError, match=r"has changed since (its manifest|it) was written"):
        make_engine(toy, toy.with_name("toy.rtx.engine"), TOY)


def test_a_graph_without_a_manifest_is_noted(toy: Path) -> None:
    manifest_path(toy).unlink()
    notes: list[str] = []
    make_engine(toy, toy.with_name("toy.rtx.engine"), TOY, notes=notes.append)
    assert notes == ["toy.onnx has no manifest beside it: nothing vouches for the file"]


@pytest.mark.parametrize("options", [BuildOptions(), BuildOptions(variant=Variant.RTX)])
def test_without_a_gpu_nothing_is_built_and_nothing_crashes(
    toy: Path, options: BuildOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(index: int) -> CudaDevice:
        raise NoDeviceError("there is no CUDA device here")

    monkeypatch.setattr("ffnet_deploy.engines.tensorrt.options.find_device", none)
    with pytest.raises(NoDeviceError, match="there is no CUDA device here") as caught:
        make_engine(toy, toy.with_name("toy.engine"), options)
    assert ("--compute-capability" in str(caught.value)) == (options.variant is Variant.RTX)
    assert names(toy.parent) == WRITTEN[:2]


def test_an_engine_is_verified_where_it_can_run(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, seen = toy.with_name("toy.rtx.engine"), list[Path]()

    def check(engine: Path) -> Mapping[str, object]:
        assert len(open_bundle(engine).plan) > 1000
        seen.append(engine)
        return {"state": "passed", "agreement": 100.0}

    verification = Verification("ffnet-export --config toy", check)
    unverified = make_engine(toy, out, TOY, verification).bundle.manifest
    assert unverified["verification"] == {
        "state": "not run",
        "reason": "there is no CUDA device here: no NVIDIA driver is installed",
        "command": "ffnet-export --config toy",
    }
    monkeypatch.setattr(make, "find_device", lambda index: ADA)
    again = make_engine(toy, out, TOY, verification)
    assert again.reused and again.bundle.manifest["verification"]["state"] == "passed" and seen == [out]
    make_engine(toy, out, TOY, verification)
    assert seen == [out], "verified once"
    monkeypatch.setattr(make, "find_device", lambda index: replace(ADA, compute_capability=(9, 0), name="NVIDIA H200"))
    other = make_engine(toy, toy.with_name("other.rtx.engine"), TOY, verification).bundle.manifest
    assert other["verification"]["reason"] == "NVIDIA H200 has compute capability 9.0"


def test_an_engine_that_fails_its_verification_is_not_published(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(engine: Path) -> Mapping[str, object]:
        raise VerificationError("differs")

    monkeypatch.setattr(make, "find_device", lambda index: ADA)
    with pytest.raises(VerificationError, match="differs"):
        make_engine(toy, toy.with_name("toy.rtx.engine"), TOY, Verification("", check))
    assert names(toy.parent) == WRITTEN[:2]


def test_the_manifest_says_what_was_built(toy: Path) -> None:
    manifest = make_engine(toy, toy.with_name("toy.rtx.engine"), TOY).bundle.manifest
    assert manifest["graph"]["file"] == "toy.onnx" and manifest["build"]["options"]["compute_capabilities"] == ["8.9"]
    assert manifest["tensors"] == {"input": [-1, 3, -1, -1], "output": [-1, 11, -1, -1]}
    assert manifest["proof"]["network"]["convolutions"] == {"fp32": 1} and manifest["proof"]["engine"] is None
    assert json.loads(manifest_path(toy.with_name("toy.rtx.engine")).read_text())["digest"] == manifest["digest"]
