from pathlib import Path

import pytest

from tests.toy import contract, write_onnx, write_pairs


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """An exported graph that runs at once, of any size."""
    return write_onnx(tmp_path / "toy.onnx", contract())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Labelled images for it."""
    return write_pairs(tmp_path / "data")
