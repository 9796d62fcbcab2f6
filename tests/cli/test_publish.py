"""``python -m ffnet_deploy.cli.publish``: what it may replace."""

import shutil
from pathlib import Path

import pytest

from ffnet_deploy.artifacts import Kind, is_own
from ffnet_deploy.cli.publish import app
from ffnet_deploy.segmentor import __file__ as segmentor
from tests.commands import invoke

BUNDLED = Path(segmentor).parent / "checkpoints" / "ffnet_seg_nano_scenes.safetensors"


@pytest.mark.parametrize("name", ["net.safetensors", "net.md"])
def test_files_of_the_user_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    result = invoke(app, tmp_path / "run", tmp_path / "net.safetensors", "--data", tmp_path / "data")
    assert result.exit_code == 1 and f"{name} is there already" in result.stderr, result.output
    assert (tmp_path / name).read_text() == "mine"


def test_weights_of_an_earlier_run_are_known(tmp_path: Path) -> None:
    assert is_own(Path(shutil.copy(BUNDLED, tmp_path)), Kind.WEIGHTS)
