"""The proof holds for what typing and calibration write: parsed by TensorRT for RTX, not built."""

from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("mmseg")

from ffnet_deploy.calib import CalibrationOptions, quantize_graph
from ffnet_deploy.core.precision import Precision
from ffnet_deploy.engines.onnx_metadata import read_description
from ffnet_deploy.engines.tensorrt.network import parse_onnx, read_layers
from ffnet_deploy.engines.tensorrt.precision_check import NetworkCheck, check_network
from ffnet_deploy.engines.tensorrt.variant import Variant
from ffnet_deploy.precision import TypingOptions, assign_types
from tests.engines.tensorrt.rtx import exported
from tests.engines.tensorrt.typed import convolutions, stamp
from tests.tiny import FAMILIES


def images(dynamic: bool) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    if dynamic:
        return [rng.integers(0, 256, (1, 128, 128, 3)).astype(np.uint8) for _ in range(2)]
    return [rng.normal(size=(1, 3, 64, 128)).astype(np.float32) for _ in range(2)]


def proof(model: onnx.ModelProto, folder: Path) -> NetworkCheck:
    path = folder / "tiny.onnx"
    onnx.save(model, path)
    parsed = parse_onnx(Variant.RTX, path)
    return check_network(read_layers(parsed.trt, parsed.network), read_description(path)[1])


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("family", FAMILIES)
def test_typed_graphs(family: str, dynamic: bool, precision: Precision, tmp_path: Path) -> None:
    typed = assign_types(exported(family, dynamic), TypingOptions(precision), images(dynamic))
    found = proof(typed.model, tmp_path)
    assert found.violations == () and found.convolutions[precision.value] > 40


@pytest.mark.parametrize("base", [Precision.FP32, Precision.FP16])
@pytest.mark.parametrize("family", FAMILIES)
def test_calibrated_graphs(family: str, base: Precision, tmp_path: Path) -> None:
    model = exported(family, False)
    last = convolutions(model)[-1]
    quantized = quantize_graph(model, images(False), CalibrationOptions(keep=(last,)))
    made, record = quantized.model, quantized.record
    if base is Precision.FP16:
        typed = assign_types(stamp(made, record), TypingOptions(base), images(False))
        made, record = typed.model, typed.record
    found = proof(stamp(made, record), tmp_path)
    assert found.violations == ()
    assert found.convolutions == {"int8": len(convolutions(model)) - 1, base.value: 1}
    assert found.quantizations > 2 * len(record.quantized), "Q and DQ of weights and inputs"
