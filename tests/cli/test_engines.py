"""Engines and server files as a user types them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ffnet_deploy.artifacts.manifest import manifest_path
from ffnet_deploy.cli.console import ExitCode
from ffnet_deploy.cli.export import app
from ffnet_deploy.engines.bundle import open_bundle
from ffnet_deploy.engines.cuda import CudaDevice, NoDeviceError
from tests.commands import Result, invoke
from tests.tiny import write_checkpoint
from tests.toy import contract, write_onnx

OF_NEW_GRAPHS = (
    ("--dynamic",),
    ("--opset", "17"),
    ("--input", "rgb"),
    ("--output", "labels"),
    ("--rewrite", "none"),
    ("--tolerance", "0.1"),
)
"""Options of a graph that is still to be exported."""
UNHEARD = (
    ("--shape", "64"),
    ("--batch", "2"),
    ("--config", "c"),
    ("--checkpoint", "c"),
    ("--data", "d"),
    ("--images", "d"),
    ("--limit", "3"),
    ("--split", "train"),
    ("--max-drop", "1"),
    ("--min-agreement", "90"),
    ("--calib-images", "d"),
    ("--int8-base", "fp32"),
    ("--device", "cuda:1"),
    ("--out", "o"),
)
"""Options that a model repository of a given graph has no use for."""
BLOCKED = ("torch", "mmseg", "mmengine", "mmcv", "onnx", "PIL", "scipy", "safetensors")
WITHOUT_CONVERSION = f"""
import sys
for name in {BLOCKED!r}:
    sys.modules[name] = None  # importing it now raises ModuleNotFoundError
from ffnet_deploy.cli.export import main
main()
"""
RTX = ("--backend", "trt-rtx", "--compute-capability", "8.6,8.9")


def run(*arguments: object) -> Result:
    return invoke(app, *arguments)


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_onnx(tmp_path / "toy.onnx", contract())


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(index: int) -> CudaDevice:
        raise NoDeviceError("there is no CUDA device here: no NVIDIA driver is installed.\n  to do    buy one")

    monkeypatch.setattr("ffnet_deploy.engines.tensorrt.options.find_device", none)


def test_an_engine_is_built_where_no_conversion_layer_is(toy: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    command = [sys.executable, "-c", WITHOUT_CONVERSION, "--onnx", toy, *RTX, "--out", toy.parent]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "convolutions: 1 in fp32; the precision check rests on the types of the parsed network" in done.stdout
    assert "not verified: there is no CUDA device here" in done.stderr
    assert open_bundle(toy.with_name("toy.rtx.engine")).contract == contract()


def test_a_config_becomes_an_engine_and_then_is_reused(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    config, checkpoint = write_checkpoint(tmp_path, "tiny_seg")
    arguments = ("--config", config, "--checkpoint", checkpoint, "--shape", "64x96", "--out", tmp_path / "out", *RTX)
    first, second = run(*arguments), run(*arguments)
    assert first.exit_code == second.exit_code == 0, first.output + second.output
    assert "reused" not in first.output and "reused: built before from the same" in flat(second.output)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "tiny_seg.onnx", "tiny_seg.onnx.json", "tiny_seg.rtx.engine", "tiny_seg.rtx.engine.json",
    ]  # fmt: skip


@pytest.mark.parametrize("backend", ["trt", "trt-rtx"])
@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_one_line_says_what_is_written_and_what_to_run(toy: Path, backend: str) -> None:
    result = run("--onnx", toy, "--backend", backend, "--workspace", 512, "--out", toy.parent)
    assert result.exit_code == ExitCode.NO_GPU == 3
    lines = [line for line in result.output.splitlines() if line.strip()]
    engine = toy.with_name("toy.engine" if backend == "trt" else "toy.rtx.engine")
    assert lines == [
        f"error: there is no CUDA device here: no NVIDIA driver is installed; written: {toy}; "
        f"on the machine with the GPU run: ffnet-export --onnx {toy} --backend {backend} --workspace 512 "
        f"--out {engine}"
    ]
    assert sorted(path.name for path in toy.parent.iterdir()) == ["toy.onnx", "toy.onnx.json"]


def test_a_model_repository_from_a_graph(toy: Path) -> None:
    onnx = pytest.importorskip("onnx")
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(toy)), toy)  # exported graphs know their output's shape
    manifest_path(toy).unlink()
    result = run("--onnx", toy, "--triton", toy.parent / "models", "--ensemble")
    assert result.exit_code == 0, result.output
    assert "toy_ensemble, toy, toy_preprocessing" in result.output and "docker run" in result.output
    assert (toy.parent / "models/toy/1/model.onnx").read_bytes() == toy.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --config, or --onnx"),
        (("--onnx", "toy.onnx"), "say what for, with --fp16, --bf16, --int8, --fp8, --mixed"),
        (("--onnx", "toy.onnx", "--triton", "m", "--workspace", 3), "--workspace goes with --backend trt or trt-rtx"),
        (("--onnx", "toy.onnx", "--triton", "m", "--compute-capability", "8.9"), "--compute-capability goes with"),
        (("--config", "tiny", "--ensemble"), "--ensemble goes with --triton DIR"),
        (("--config", "tiny", "--backend", "trt", "--out", "a.engine"), "the graph needs a place too"),
        (("--config", "tiny", "--backend", "trt", "--compute-capability", "8.9"), "only TensorRT for RTX takes"),
        (("--config", "tiny", "--backend", "trt-rtx", "--compute-capability", "ada"), "written as 8.9: got 'ada'"),
        (("--config", "tiny", "--backend", "trt", "--optimization-level", 9), "0 to 5: got 9"),
        (("--config", "tiny", "--backend", "trt-rtx", "--timing-cache", "a"), "has no timing cache"),
        (("--onnx", "none.onnx", *RTX), "there is no artefact none.onnx"),
        (("--onnx", "a.onnx", "--fp16", "--bf16", "--out", "b.onnx"), "names one graph, and several are asked for"),
        (("--onnx", "a.onnx", "--fp16", "--out", "b.engine", *RTX), "the graph needs a place too"),
        *((("--onnx", "a.onnx", "--fp16", *one), f"{one[0]} goes with --config alone") for one in OF_NEW_GRAPHS),
        *((("--onnx", "a.onnx", "--fp16", "--config", "c", *one), f"{one[0]} goes with") for one in OF_NEW_GRAPHS),
        (("--onnx", "a.onnx", "--fp16", "--checkpoint", "c"), "--checkpoint goes with --config"),
        (("--onnx", "a.onnx", "--fp16", "--shape", "64"), "--shape goes with --backend trt or trt-rtx"),
        (("--onnx", "a.onnx", "--fp16", "--batch", "2"), "--batch goes with --backend trt or trt-rtx"),
        *((("--onnx", "a.onnx", "--triton", "m", *one), f"{one[0]} goes with") for one in (*OF_NEW_GRAPHS, *UNHEARD)),
    ],
)
def test_bad_input_is_one_clear_error(
    arguments: tuple[object, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert message in flat(result.output), result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (("--shape", "512"), "the graph accepts a height of 32..256, not 512"),
        (("--shape", "128:64:256"), "must rise"),
        (("--batch", "1:4:8"), "the graph accepts a batch of 1..4, not 1..8"),
        (("--batch", "4:2:1"), "must rise"),
        (("--shape", "100"), "height 100 is not a multiple of 32"),
    ],
)
def test_a_profile_that_cannot_be_is_named(toy: Path, profile: tuple[str, str], message: str) -> None:
    result = run("--onnx", toy, *RTX, *profile, "--out", toy.parent)
    assert result.exit_code == 1 and message in flat(result.output), result.output


def test_a_damaged_graph_is_one_clear_error(toy: Path) -> None:
    toy.write_bytes(toy.read_bytes()[:-100])
    result = run("--onnx", toy, *RTX, "--out", toy.parent)
    assert result.exit_code == 1 and "to do" in result.output
    manifest_path(toy).unlink()
    result = run("--onnx", toy, *RTX, "--out", toy.parent)
    assert result.exit_code == 1 and "to do" in result.output
