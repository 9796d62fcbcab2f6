"""Bias correction takes out exactly the mean error of each output channel, as measured outside the graph."""

import numpy as np
import onnx
import pytest

from ffnet_deploy.calib import CalibrationOptions, Method, quantize_graph
from ffnet_deploy.calib.bias import correct_biases, mean_errors
from ffnet_deploy.calib.collect import collect
from ffnet_deploy.calib.graph import Graph
from ffnet_deploy.calib.insert import rounded_weight, scale_of
from ffnet_deploy.calib.observers import Histogram
from ffnet_deploy.calib.plan import make_plan
from ffnet_deploy.precision import Precision
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
    plan = make_plan(Graph(model))
    # thresholds so small that clipping shifts every mean
    kept = Kept()
    fc1 = next(conv for conv in plan.convs if conv.name == "/stage0/channel_mixer/fc1/Conv")
    collect(model, {fc1.input: kept}, shown, "looking")
    thresholds = dict.fromkeys(plan.uses, 0.6)
    shifts = mean_errors(model, plan, thresholds, Precision.INT8, shown)
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
    graph = Graph(model)
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
