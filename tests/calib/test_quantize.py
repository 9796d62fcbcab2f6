"""The quantised graph has Q/DQ where TensorRT wants it, computes nearly the same, and is the same each time."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from ffnet_deploy.calib import CalibrationOptions, Method, quantize_graph
from ffnet_deploy.calib.quantize import mac_share
from ffnet_deploy.calib.scoring import outputs, sqnr
from ffnet_deploy.core.errors import ArtifactError, DataError, OptionError
from ffnet_deploy.core.precision import PRECISION_KEY, Precision, PrecisionRecord
from ffnet_deploy.precision.graph_index import GraphIndex
from tests.calib.networks import Builder, images, network, weight
from tests.calib.structure import check_structure
from tests.toy import contract, fixed

PLAIN = CalibrationOptions(equalize=False, correct_bias=False)


@pytest.mark.parametrize(("opset", "method"), [(17, Method.MSE), *((20, method) for method in Method)])
def test_structure_and_accuracy(opset: int, method: Method) -> None:
    model, shown = network(opset), images(4)
    before = model.SerializeToString()
    result = quantize_graph(model, shown, CalibrationOptions(method))
    assert model.SerializeToString() == before, "the graph given is left alone"
    check_structure(result.model)
    found = sqnr(outputs(model, shown), outputs(result.model, shown))
    assert found > (20 if method is not Method.ENTROPY else 12), f"{found:.1f} dB"


def test_every_residual_sum_has_one_quantised_branch() -> None:
    result = quantize_graph(network(), images(2))
    graph = GraphIndex(result.model)
    sums = [node for node in graph.nodes if node.op_type == "Add"]
    assert len(sums) == 4
    for node in sums:
        kinds = sorted(graph.producers[name].op_type for name in node.input)
        assert kinds == ["Conv", "DequantizeLinear"], node.name
    assert result.report["residual_sums"] == 4


def test_a_concatenation_is_quantised_once_behind_it() -> None:
    graph = GraphIndex(quantize_graph(network(), images(2)).model)
    concat = next(node for node in graph.nodes if node.op_type == "Concat")
    (use,) = graph.uses[concat.output[0]]
    assert use.node.op_type == "QuantizeLinear"


def test_a_tensor_has_one_pair_whoever_reads_it() -> None:
    graph = GraphIndex(quantize_graph(network(), images(2)).model)
    quantised = [node.input[0] for node in graph.nodes if node.op_type == "QuantizeLinear"]
    assert len(quantised) == len(set(quantised))


def test_record_and_report() -> None:
    model = network()
    result = quantize_graph(model, images(3))
    convs = [node.name for node in model.graph.node if node.op_type == "Conv"]
    assert result.record == PrecisionRecord(Precision.INT8, quantized=tuple(convs))
    stored = {item.key: item.value for item in result.model.metadata_props}
    assert PrecisionRecord.from_json(stored[PRECISION_KEY]) == result.record
    assert result.report["mac_share_percent"] == 100.0
    assert result.report["images"] == 3
    assert result.report["convolutions"] == {"quantized": len(convs), "kept": []}


def test_kept_convolutions_stay_and_the_share_of_macs_says_so() -> None:
    model = network()
    result = quantize_graph(model, images(2), CalibrationOptions(keep=("/stage0/token_mixer", "/classifier/Conv")))
    kept = [f"/stage0/token_mixer/{name}/Conv" for name in ("fc", "conv1", "conv2")] + ["/classifier/Conv"]
    check_structure(result.model, kept)
    assert result.report["convolutions"]["kept"] == kept
    # weights read at all 16x32 positions, and at the quarter of them that the coarse level has
    macs = {"fc": 64, "conv1": 72, "conv2": 72, "classifier": 176}
    total = 216 + (64 + 72 + 72 + 72 + 128 + 128) + 320 + 176
    coarse = 1152 + 192 + (144 + 108 + 108 + 108 + 288 + 288)
    expected = 100 * (1 - sum(macs.values()) / (total + coarse / 4))
    assert result.report["mac_share_percent"] == pytest.approx(expected, abs=0.001)


def test_macs_of_a_strided_convolution() -> None:
    conv = GraphIndex(network()).convs[0]
    assert conv.macs((2, 3, 32, 48)) == 2 * 16 * 24 * 8 * 3 * 9
    assert mac_share([conv], [conv], {"image": (1, 3, 32, 48)}) == 50.0


def test_the_same_bytes_each_time() -> None:
    first, second = (quantize_graph(network(), images(3)) for _ in range(2))
    assert first.model.SerializeToString(deterministic=True) == second.model.SerializeToString(deterministic=True)
    assert first.ranges.thresholds == second.ranges.thresholds


def test_weights_are_rounded_to_127_steps_per_output_channel() -> None:
    model = network()
    result = quantize_graph(model, images(1), PLAIN)
    values = weight(model, "stage0/channel_mixer/fc1.weight")
    scales = weight(result.model, "/stage0/channel_mixer/fc1/Conv/weight_scale")
    np.testing.assert_allclose(scales, np.abs(values).max(axis=(1, 2, 3)) / 127, rtol=1e-6)


def test_a_silent_channel_gets_a_scale_that_is_not_zero() -> None:
    model = network()
    values = weight(model, "down1.weight").copy()
    values[2] = 0
    next(t for t in model.graph.initializer if t.name == "down1.weight").CopyFrom(
        onnx.numpy_helper.from_array(values, "down1.weight")
    )
    check_structure(quantize_graph(model, images(1)).model)


def test_weights_and_biases_that_convolutions_share_part_ways() -> None:
    model = network()
    pair = [node for node in model.graph.node if node.op_type == "Conv" and "channel_mixer/fc2" in node.name]
    one = next(node for node in model.graph.node if node.name == "/stage0/token_mixer/conv1/Conv")
    other = next(node for node in model.graph.node if node.name == "/stage0/token_mixer/conv2/Conv")
    other.input[1], other.input[2] = one.input[1], one.input[2]
    result = quantize_graph(model, images(3))
    check_structure(result.model)
    assert len(pair) == 2
    assert sqnr(outputs(model, images(3)), outputs(result.model, images(3))) > 20


def test_fp8_needs_a_newer_operator_set() -> None:
    options = CalibrationOptions(Method.MINMAX, precision=Precision.FP8)
    result = quantize_graph(network(20), images(2), options)
    check_structure(result.model)
    assert sqnr(outputs(network(20), images(2)), outputs(result.model, images(2))) > 10  # three bits of mantissa
    with pytest.raises(OptionError, match="operator set 19, and this graph has 17"):
        quantize_graph(network(17), images(2), options)


def test_a_quantised_graph_is_refused() -> None:
    result = quantize_graph(network(), images(1), PLAIN)
    with pytest.raises(ArtifactError, match="quantised already: it holds"):
        quantize_graph(result.model, images(1))


def test_no_images() -> None:
    with pytest.raises(DataError, match="no images to calibrate on"):
        quantize_graph(network(), [])


def test_names_to_keep_must_exist_and_leave_something() -> None:
    with pytest.raises(OptionError, match="'/stage7'"):
        quantize_graph(network(), images(1), CalibrationOptions(keep=("/stage7",)))
    everything = ("/stem", "/stage0", "/stage1", "/down0", "/down1", "/squeeze", "/classifier")
    with pytest.raises(OptionError, match="nothing is left"):
        quantize_graph(network(), images(1), CalibrationOptions(keep=everything))


def test_a_graph_without_convolutions_is_refused() -> None:
    net = Builder()
    model = net.model(net.node("Relu", ["image"], "/Relu"), contract(**fixed(32, 64)))
    with pytest.raises(ArtifactError, match="no convolution"):
        quantize_graph(model, images(1))


def test_what_cannot_be_quantised_is_said() -> None:
    net = Builder()
    x = net.conv("image", "stem", (8, 3, 3))
    net.constants["up"] = np.ones((8, 11, 2, 2), np.float32)
    model = net.model(net.node("ConvTranspose", [x, "up"], "/up", strides=[2, 2]), contract(**fixed(32, 64)))
    left = quantize_graph(model, images(1), PLAIN).report["left_unquantized"]
    assert list(left) == ["/up"]
    assert "ConvTranspose" in left["/up"]


@pytest.mark.parametrize("options", [{"percentile": 50.0}, {"percentile": 101.0}, {"precision": Precision.FP16}])
def test_options_that_make_no_sense(options: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        CalibrationOptions(**options)


def test_progress_tells_of_every_pass(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    quantize_graph(network(), images(2), progress=lambda *step: told.append(step))
    steps = list(dict.fromkeys(step for step, _, _ in told))
    assert steps == ["comparing channels", "measuring ranges", "measuring the error of biases"]
    assert [(done, total) for _, done, total in told] == [(1, 2), (2, 2)] * 3
