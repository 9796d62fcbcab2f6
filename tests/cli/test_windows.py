"""Commands start where `fcntl` does not exist, as on Windows, where the GPUs of TensorRT for RTX live."""

import re
import subprocess
import sys
from pathlib import Path, PureWindowsPath

import pytest

from ffnet_deploy.artifacts.manifest import manifest_path

PROGRAM = """
import builtins, sys
real = builtins.__import__

def without(name, *rest, **more):
    if name.split(".")[0] in ("fcntl", "termios", "pwd", "grp", "resource"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return real(name, *rest, **more)

import asyncio, subprocess, tempfile, shutil, multiprocessing  # of the library itself, which knows Windows
builtins.__import__ = without
from ffnet_deploy.cli.MODULE import main
sys.argv = ["ffnet", "--help"]
main()
"""


PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
COMMANDS = re.findall(r'^ffnet-\w+ = "ffnet_deploy\.cli\.(\w+):main"$', PYPROJECT.read_text(), re.MULTILINE)


def test_all_commands_are_tried() -> None:
    assert len(COMMANDS) >= 4


@pytest.mark.parametrize("module", COMMANDS)
def test_help_needs_no_fcntl(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("MODULE", module)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "Usage" in done.stdout, done.stderr[-2000:]


def test_names_beside_a_file_are_made_of_windows_paths_too() -> None:
    engine = PureWindowsPath(r"C:\engines\net.fp16.rtx.engine")
    assert str(manifest_path(engine)) == r"C:\engines\net.fp16.rtx.engine.json"  # type: ignore[arg-type]
