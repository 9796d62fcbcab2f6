"""The runtime layer runs where PyTorch, the MMSegmentation stack and onnx are not installed."""

import subprocess
import sys
from pathlib import Path

from tests.toy import contract, write_onnx, write_pairs

BLOCKED = ("torch", "mmseg", "mmengine", "mmcv", "onnx", "PIL", "scipy", "safetensors")
PROGRAM = f"""
import importlib, pkgutil, sys
for name in {BLOCKED!r}:
    sys.modules[name] = None  # importing it now raises ModuleNotFoundError
import ffnet_deploy.evaluation
for module in pkgutil.iter_modules(ffnet_deploy.evaluation.__path__):
    importlib.import_module("ffnet_deploy.evaluation." + module.name)
import ffnet_deploy.engines.onnxruntime
from ffnet_deploy.cli.evaluate import main
main()
"""


def test_the_whole_command_runs_without_the_conversion_layer(tmp_path: Path) -> None:
    artifact = write_onnx(tmp_path / "toy.onnx", contract())
    data = write_pairs(tmp_path / "data", 2)
    command = [sys.executable, "-c", PROGRAM, "--artifact", str(artifact), "--data", str(data), "--threads", "1"]
    command += ["--json", str(tmp_path / "scores.json"), "--save-images", str(tmp_path / "pictures")]
    command += ["--html", str(tmp_path / "report.html")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "mIoU" in done.stdout
    assert (tmp_path / "scores.json").is_file() and (tmp_path / "report.html").is_file()
    assert len(list((tmp_path / "pictures").iterdir())) == 2
