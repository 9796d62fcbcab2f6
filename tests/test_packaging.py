"""What is installed is what works from the checkout, and the README speaks of commands that exist."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from cyclopts import App

from ffnet_deploy.cli import bench, evaluate, export, predict, train
from ffnet_deploy.segmentor.config import config_names

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "ffnet-export": export.app,
    "ffnet-eval": evaluate.app,
    "ffnet-predict": predict.app,
    "ffnet-bench": bench.app,
    "ffnet-train": train.app,
}


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    pytest.importorskip("setuptools", minversion="77")
    out, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "ffnet_deploy", source / "ffnet_deploy", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, source]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(zipfile.ZipFile(next(out.glob("*.whl"))).namelist())


def test_wheel_holds_every_module_and_every_file_the_package_reads(wheel_names: set[str]) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "ffnet_deploy"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    assert [name for name in tracked if name not in wheel_names] == []
    assert f"ffnet_deploy/configs/{config_names()[0]}.py" in wheel_names


def options_of(app: App) -> set[str]:
    return {name for argument in app.assemble_argument_collection() for name in argument.names} | {"--help"}


@pytest.mark.parametrize(
    ("page", "command"),
    [
        *(("README.md", command) for command in COMMANDS),
        ("docs/predict.md", "ffnet-predict"),
        *(("Makefile", command) for command in ("ffnet-export", "ffnet-eval", "ffnet-bench")),
    ],
)
def test_commands_are_written_with_options_that_exist(page: str, command: str) -> None:
    written = (ROOT / page).read_text().splitlines()
    lines = [line for line in written if re.search(rf"(^|/|\$ ){command} ", line.strip())]
    assert lines, f"{page} never uses {command}"
    calls = [line.partition("#")[0].partition(command)[2] for line in lines]
    used = {option for call in calls for option in re.findall(r"(?<=\s)--[a-z][a-z0-9-]*", call)}
    assert used <= options_of(COMMANDS[command]), used - options_of(COMMANDS[command])


def test_every_config_of_the_readme_exists() -> None:
    named = set(re.findall(r"^\| `((?:upernet_)?ffnet_[a-z0-9_]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert len(named) >= 5
    assert named <= set(config_names())


def test_the_extra_of_a_jetson_leaves_tensorrt_and_cuda_to_its_jetpack() -> None:
    (line,) = re.findall(r"^jetson = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert "tensorrt" not in line and "cuda-bindings>=12,<13" in line
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert all("aarch64" in pin for pin in pins if pin.startswith(("cuda-bindings", "tensorrt==")))
