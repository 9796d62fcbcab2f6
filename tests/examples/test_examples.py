"""The examples run, and what they name exists."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
NEEDED = {"triton": ("tritonclient",), "http": ("fastapi", "uvicorn"), "notebook": ("nbconvert", "ipykernel")}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.parent.name for path in EXAMPLES.glob("*/run.sh")))
def test_it_runs(name: str, work: Path) -> None:
    missing = [package for package in NEEDED.get(name, ()) if find_spec(package) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [EXAMPLES / "run.sh", work, name]
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.rglob("*Dockerfile")), ids=lambda path: str(path.relative_to(EXAMPLES))
)
def test_a_dockerfile_copies_and_installs_what_exists(path: Path) -> None:
    text = path.read_text()
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", text, re.M) for name in line.split()]
    assert copied and all((ROOT / name).exists() for name in copied)
    extras = {name for group in re.findall(r"\[([a-z,]+)\]", text) for name in group.split(",")}
    known = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.M))
    assert extras and extras <= known


def test_the_table_names_every_example() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert set(re.findall(r"^\| \[([\w-]+)\]", (EXAMPLES / "README.md").read_text(), re.M)) == folders
