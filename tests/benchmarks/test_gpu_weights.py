"""Graphs that travel without their weights come back byte for byte."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("mmseg")

import onnx

from benchmarks import gpu_weights
from benchmarks.gpu_weights import name_weights, named_values, restore, strip
from ffnet_deploy.core.contract import DimensionRange
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.core.precision import Precision
from ffnet_deploy.export.onnx import ExportOptions
from ffnet_deploy.precision import TypingOptions, assign_types
from tests.conftest import GraphOf


def test_values_depend_on_name_and_shape_alone() -> None:
    values = named_values("backbone.conv.weight", (64, 32, 3, 3), 0.05)
    assert values.dtype == np.float32 and abs(values.std() - 0.05) < 1e-3 and abs(values.mean()) < 1e-3
    np.testing.assert_array_equal(values, named_values("backbone.conv.weight", (64, 32, 3, 3), 0.05))
    assert (values != named_values("backbone.other.weight", (64, 32, 3, 3), 0.05)).mean() > 0.99
    np.testing.assert_array_equal(named_values("a", (3,), 1.0), np.float32([0.12360337, 1.6317502, 0.38457784]))


@pytest.fixture
def named(graph_of: GraphOf, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    monkeypatch.setattr(gpu_weights, "LEAST_BYTES", 512)
    side = DimensionRange.fixed(64)
    model = onnx.ModelProto.FromString(graph_of("tiny_seg", ExportOptions(side, side, opset=17)).SerializeToString())
    return model, name_weights(model)


@pytest.mark.parametrize("half", [False, True])
def test_a_stripped_graph_is_restored_byte_for_byte(named: tuple[Any, Any], tmp_path: Path, half: bool) -> None:
    model, weights = named
    if half:
        noise = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)
        model = assign_types(model, TypingOptions(Precision.FP16), [noise]).model
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    whole = path.read_bytes()
    stripped = strip(path, weights)
    large = sum(np.prod(shape) for shape, _ in weights.values()) * (2 if half else 4)
    header = len(stripped.read_bytes().partition(b"\n")[0])
    assert stripped.stat().st_size - header < len(whole) - 0.9 * large
    path.unlink()
    assert restore(stripped).read_bytes() == whole


def test_a_damaged_one_is_refused(named: tuple[Any, Any], tmp_path: Path) -> None:
    model, weights = named
    onnx.save(model, tmp_path / "net.onnx")
    stripped = strip(tmp_path / "net.onnx", weights)
    content = bytearray(stripped.read_bytes())
    content[-1] ^= 1
    stripped.write_bytes(content)
    with pytest.raises(ArtifactError, match="not the graph that was stripped"):
        restore(stripped)
