"""The first layer that differs is the one that was damaged."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ffnet_deploy.calib import CalibrationOptions, Method, quantize_graph
from ffnet_deploy.core.contract import IOType
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.evaluation.verify import packaged_images
from ffnet_deploy.export.layer_comparison import compare_layers
from ffnet_deploy.precision import TypingOptions, assign_types
from tests.calib.networks import images, network
from tests.engines.tensorrt.typed import stamp
from tests.toy import contract, write_onnx

(IMAGE,) = packaged_images(1)


def saved(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


def half(io: IOType = IOType.FP32) -> onnx.ModelProto:
    return assign_types(network(), TypingOptions(), images(1), io=io).model


def damaged(model: onnx.ModelProto, node: str) -> onnx.ModelProto:
    """`model` with the weights of the convolution `node` doubled."""
    (name,) = [one.input[1] for one in model.graph.node if one.name == node]
    (weight,) = [one for one in model.graph.initializer if one.name == name]
    weight.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(weight), name))
    return model


@pytest.mark.parametrize("io", IOType)
def test_a_sound_fp16_graph_differs_nowhere_and_is_rounded_everywhere(io: IOType, tmp_path: Path) -> None:
    reference = saved(network(), tmp_path / "fp32.onnx")
    found = compare_layers(reference, saved(half(io), tmp_path / "fp16.onnx"), IMAGE)
    assert found.first is None and found.tolerance == 0.05
    assert 0 < found.worst.relative < 0.01
    names = [node.name for node in network().graph.node]
    assert [one.node for one in found.layers] == [name for name in names if name in {one.node for one in found.layers}]
    assert sum(one.operator == "Conv" for one in found.layers) == sum(
        node.op_type == "Conv" for node in network().graph.node
    )
    assert np.mean([one.relative > 0 for one in found.layers]) > 0.9, "every value is rounded"


def test_the_first_layer_that_differs_is_the_damaged_one(tmp_path: Path) -> None:
    reference = saved(network(), tmp_path / "fp32.onnx")
    convolutions = [node.name for node in network().graph.node if node.op_type == "Conv"]
    for name in (convolutions[0], convolutions[len(convolutions) // 2], convolutions[-1]):
        found = compare_layers(reference, saved(damaged(half(), name), tmp_path / "fp16.onnx"), IMAGE)
        assert (
            found.first is not None and found.first.node == name and found.first.relative == pytest.approx(1, abs=0.1)
        )


def test_a_quantised_graph_is_compared_too(tmp_path: Path) -> None:
    reference = saved(network(), tmp_path / "fp32.onnx")
    quantized = quantize_graph(network(), images(2), CalibrationOptions(Method.MINMAX, equalize=False))
    candidate = saved(stamp(quantized.model, quantized.record), tmp_path / "int8.onnx")
    found = compare_layers(reference, candidate, IMAGE)
    assert found.first is None and found.tolerance == 1.0 and found.worst.relative > 1e-3


def test_graphs_of_other_networks_are_refused(tmp_path: Path) -> None:
    other = write_onnx(tmp_path / "toy.onnx", contract())
    with pytest.raises(OptionError, match="shares no nodes"):
        compare_layers(other, saved(half(), tmp_path / "fp16.onnx"), IMAGE)
