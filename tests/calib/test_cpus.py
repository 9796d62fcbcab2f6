"""INT8 graphs in the CPU runtimes themselves, also capped to AVX2: the noise that the graph says, and no more."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from ffnet_deploy.calib import CalibrationOptions, quantize_graph
from ffnet_deploy.calib.scoring import outputs, sqnr
from ffnet_deploy.core.precision import Hardware, Precision
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeOptions
from ffnet_deploy.precision import TypingOptions, assign_types
from tests.calib.networks import Builder, images
from tests.toy import contract, fixed

RUN = """
import sys
from pathlib import Path
import numpy as np
from ffnet_deploy.engines.openvino import OpenVinoEngine, OpenVinoOptions
with OpenVinoEngine(Path(sys.argv[1]), OpenVinoOptions(check_manifest=False)) as engine:
    np.save(sys.argv[3], np.stack([engine.run(batch) for batch in np.load(sys.argv[2])]))
"""


def network() -> onnx.ModelProto:
    """Pointwise convolutions, and one with two outputs a group, whose loudest weights are neighbours.

    That is what saturates without VNNI.
    """
    net = Builder()
    x = net.gelu(net.conv("image", "stem", (32, 3, 3), stride=2), "act0")
    for name in ("a", "b"):
        x = net.gelu(net.conv(x, name, (32, 32, 1)), f"act_{name}")
        net.constants[f"{name}.weight"][:, :2] = 0.9
    x = net.conv(x, "down", (64, 32, 7), groups=32, stride=2)
    net.constants["down.weight"] = np.abs(net.constants["down.weight"])
    return net.model(net.conv(x, "classifier", (11, 64, 1)), contract(**fixed(32, 64)))


def noise_in_openvino(model: onnx.ModelProto, cap: str, folder: Path) -> tuple[float, float]:
    """SQNR of OpenVINO and of the simulation, each against FP32, in dB."""
    shown, reference = images(4), outputs(network(), images(4))
    onnx.save(model, folder / "int8.onnx")
    np.save(folder / "images.npy", np.stack(shown))
    files = [str(folder / name) for name in ("int8.onnx", "images.npy", "found.npy")]
    subprocess.run([sys.executable, "-c", RUN, *files], env=os.environ | {"ONEDNN_MAX_CPU_ISA": cap}, check=True)
    found = list(np.load(folder / "found.npy"))
    return sqnr(reference, found), sqnr(reference, outputs(model, shown))


@pytest.mark.parametrize("cap", ["AVX2", "DEFAULT"])
def test_openvino_computes_a_graph_for_cpus_as_it_says(cap: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    quantised = quantize_graph(network(), images(4), CalibrationOptions(hardware=Hardware.CPU))
    found, said = noise_in_openvino(quantised.model, cap, tmp_path)
    assert found > said - 1.5, f"{found:.1f} dB in OpenVINO, {said:.1f} dB simulated"


def test_without_vnni_a_graph_for_tensorrt_saturates(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    quantised = quantize_graph(network(), images(4), CalibrationOptions())
    found, said = noise_in_openvino(quantised.model, "AVX2", tmp_path)
    assert found < said - 6, f"{found:.1f} dB in OpenVINO, {said:.1f} dB simulated: then --target cpu has no point"


@pytest.mark.parametrize("base", [Precision.FP32, Precision.FP16])
@pytest.mark.parametrize("hardware", list(Hardware))
def test_optimised_onnx_runtime_computes_it_as_it_says(base: Precision, hardware: Hardware, tmp_path: Path) -> None:
    shown, reference = images(4), outputs(network(), images(4))
    model = quantize_graph(network(), shown, CalibrationOptions(hardware=hardware)).model
    said = sqnr(reference, outputs(model, shown))
    if base is Precision.FP16:
        model = assign_types(model, TypingOptions(base), shown).model
    onnx.save(model, tmp_path / "int8.onnx")
    with OnnxRuntimeEngine(tmp_path / "int8.onnx", OnnxRuntimeOptions(check_manifest=False)) as engine:
        found = sqnr(reference, [engine.run(batch) for batch in shown])
    assert found > said - 1.5, f"{found:.1f} dB in ONNX Runtime, {said:.1f} dB simulated"
