"""The benchmark runs where PyTorch, the MMSegmentation stack and onnx are not installed."""

import subprocess
import sys
from pathlib import Path

from tests.toy import contract, write_onnx

BLOCKED = ("torch", "mmseg", "mmengine", "mmcv", "onnx", "PIL", "scipy", "safetensors", "openvino", "pynvml")
PROGRAM = f"""
import importlib, pkgutil, sys
for name in {BLOCKED!r}:
    sys.modules[name] = None  # importing it now raises ModuleNotFoundError
import ffnet_deploy.benchmark
for module in pkgutil.iter_modules(ffnet_deploy.benchmark.__path__):
    importlib.import_module("ffnet_deploy.benchmark." + module.name)
from ffnet_deploy.cli.bench import main
main()
"""


def test_the_whole_command_runs_and_lists_what_is_missing(tmp_path: Path) -> None:
    artifact = write_onnx(tmp_path / "toy.onnx", contract())
    command = [sys.executable, "-c", PROGRAM, str(artifact), "--runtime", "onnxruntime,openvino", "--threads", "1"]
    command += ["--config", "ffnet_seg_nano_scenes", "--shape", "64x96", "--seconds", "0", "--warmup", "0"]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "run.json")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "toy, ONNX Runtime" in done.stdout
    for name, extra in (("PyTorch published", "convert"), ("toy, OpenVINO", "openvino")):
        assert f"{name} is left out" in done.stderr
        assert f"[{extra}]" in done.stderr
    assert (tmp_path / "run.json").is_file()
