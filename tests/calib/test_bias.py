"""Bias correction takes out exactly the mean error of each output channel, as measured outside the graph."""

import numpy as np
import onnx
import pytest
import torch

from ffnet_deploy.calib import CalibrationOptions, Method, quantize_graph
from ffnet_deploy.calib.bias import TapSums, _response, correct_biases, mean_errors
from ffnet_deploy.calib.collect import collect
from ffnet_deploy.calib.observers import Histogram
from ffnet_deploy.calib.plan import make_plan
from ffnet_deploy.calib.qdq import rounded_weight, scale_of
from ffnet_deploy.core.precision import Precision
from ffnet_deploy.precision.graph_index import Conv, GraphIndex
from tests.calib.networks import images, network, weight


class Kept:
    """Keeps what it sees."""

    def __init__(self) -> None:
        self.values: list[np.ndarray] = []

    def update(self, values: np.ndarray) -> None:
        self.values.append(values.copy())


@pytest.mark.parametrize("opset", [17, 20])
def test_the_shift_of_a_pointwise_layer_is_the_mean_error(opset: int) -> None:
    model, shown = network(opset), images(3)
    plan = make_plan(GraphIndex(model))
    # thresholds so small that clipping shifts every mean
    kept = Kept()
    fc1 = next(conv for conv in plan.convs if conv.name == "/stage0/channel_mixer/fc1/Conv")
    collect(model, {fc1.input: kept}, shown, "looking")
    thresholds = dict.fromkeys(plan.uses, 0.6)
    shifts = mean_errors(model, plan, thresholds, CalibrationOptions(), shown)
    x = np.concatenate(kept.values)
    step = float(scale_of(0.6, Precision.INT8))
    clipped = np.clip(np.round(x / step), -128, 127) * step
    original = weight(model, fc1.weight)
    rounded = rounded_weight(original, Precision.INT8)
    expected = np.einsum("bchw,oc->o", x, original[:, :, 0, 0]) - np.einsum("bchw,oc->o", clipped, rounded[:, :, 0, 0])
    expected /= x.shape[0] * x.shape[2] * x.shape[3]
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(shifts[fc1.name], expected, atol=1e-4)


def test_a_corrected_layer_does_not_err_on_the_mean() -> None:
    model, shown = network(), images(4)
    others = ("/stem", "/stage0", "/stage1", "/down0", "/down1", "/squeeze")
    # so much clipping that every mean is wrong without correction
    options = [CalibrationOptions(Method.PERCENTILE, 90.0, False, on, keep=others) for on in (False, True)]
    errors = []
    for one in options:
        found, expected = Kept(), Kept()
        quantised = quantize_graph(model, shown, one).model
        for graph, keeper in ((model, expected), (quantised, found)):
            collect(graph, {"logits": keeper}, shown, "looking")
        difference = np.concatenate(found.values) - np.concatenate(expected.values)
        errors.append(float(np.abs(difference.mean(axis=(0, 2, 3))).mean()))
    assert errors[1] < 0.01 * errors[0], errors


def test_a_convolution_without_bias_gets_one() -> None:
    model = network()
    conv = next(node for node in model.graph.node if node.name == "/squeeze/Conv")
    del conv.input[2:]
    graph = GraphIndex(model)
    (squeeze,) = [conv for conv in graph.convs if conv.name == "/squeeze/Conv"]
    correct_biases(model, (squeeze,), {"/squeeze/Conv": np.arange(16.0)})
    onnx.checker.check_model(model)
    np.testing.assert_array_equal(weight(model, "/squeeze/Conv/bias"), np.arange(16))


def test_only_quantised_convolutions_are_corrected() -> None:
    model = network()
    options = CalibrationOptions(keep=("/classifier",))
    result = quantize_graph(model, images(2), options)
    np.testing.assert_array_equal(weight(result.model, "classifier.bias"), weight(model, "classifier.bias"))
    assert not np.array_equal(weight(result.model, "squeeze.bias"), weight(model, "squeeze.bias"))


def test_observers_see_each_tensor_once_an_image() -> None:
    histogram = Histogram()
    collect(network(), {"logits": histogram}, images(2), "looking")
    assert histogram.total == 2 * 11 * 16 * 32


@pytest.mark.parametrize("size", [(11, 14), (2, 3)])
@pytest.mark.parametrize(
    ("kernel", "stride", "pads", "dilation", "groups"),
    [(3, 1, 1, 1, 1), (9, 1, 4, 1, 6), (3, 2, 1, 1, 1), (7, 2, 3, 1, 6), (3, 1, 2, 2, 2), (2, 3, 0, 1, 1)],
)
def test_the_mean_of_every_kind_of_convolution_follows_from_its_taps(
    kernel: int, stride: int, pads: int, dilation: int, groups: int, size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(5)
    weight = rng.normal(size=(12, 6 // groups, kernel, kernel)).astype(np.float32)
    settings = {"strides": [stride] * 2, "pads": [pads] * 4, "dilations": [dilation] * 2, "group": groups}
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], "conv", **settings)
    conv = Conv(node, "w", None, groups, weight.shape)
    sums = TapSums([conv], np.float32(0.02), Precision.INT8)
    images = rng.normal(size=(2, 1, 6, *size)).astype(np.float32)
    for image in images:
        sums.update(image)
    exact, quantised = (_response(conv, weight, taps) for taps in sums.means(conv))
    x = torch.from_numpy(images[:, 0])
    clipped = torch.clamp(torch.round(x / 0.02), -128, 127) * 0.02
    for found, seen in ((exact, x), (quantised, clipped)):
        expected = torch.conv2d(seen, torch.from_numpy(weight), None, stride, pads, dilation, groups)
        np.testing.assert_allclose(found, expected.mean((0, 2, 3)).numpy(), rtol=1e-4, atol=1e-5)
