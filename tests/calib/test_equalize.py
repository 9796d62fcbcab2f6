"""Equalisation changes nothing but the ranges, leaves even ranges alone, and wins back what outlier channels cost."""

import numpy as np
import onnx
import pytest

from ffnet_deploy.calib import CalibrationOptions, Method, quantize_graph
from ffnet_deploy.calib.channel_groups import ChannelGroups, rescale
from ffnet_deploy.calib.collect import collect
from ffnet_deploy.calib.equalize import choose_factors, equalize, scalable_groups, tensors_to_observe
from ffnet_deploy.calib.observers import ChannelHistograms
from ffnet_deploy.calib.plan import make_plan
from ffnet_deploy.calib.scoring import outputs, sqnr
from ffnet_deploy.precision.graph_index import GraphIndex
from tests.calib.networks import Builder, images, network, set_weight, weight
from tests.calib.structure import check_structure
from tests.toy import contract, fixed

OUTLIERS = [1, 5]
FACTOR = 50.0


def with_outliers(model: onnx.ModelProto, layer: str, reader: str, depthwise_reader: bool) -> onnx.ModelProto:
    """`model` with `OUTLIERS` of a depthwise layer 50 times as large, and read with weights 50 times less."""
    planted = onnx.ModelProto()
    planted.CopyFrom(model)
    for part in ("weight", "bias"):
        values = weight(model, f"{layer}.{part}").copy()
        values[OUTLIERS] *= FACTOR
        set_weight(planted, f"{layer}.{part}", values)
    values = weight(model, f"{reader}.weight").copy()
    at = (OUTLIERS,) if depthwise_reader else (slice(None), OUTLIERS)
    values[at] /= FACTOR
    set_weight(planted, f"{reader}.weight", values)
    return planted


def noise(model: onnx.ModelProto, **options: object) -> float:
    shown = images(6)
    result = quantize_graph(model, shown, CalibrationOptions(correct_bias=False, **options))
    return sqnr(outputs(model, shown), outputs(result.model, shown))


@pytest.mark.parametrize("method", [Method.MSE, Method.MINMAX])
@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize(
    ("layer", "reader", "depthwise_reader"),
    [
        ("stage0/channel_mixer/conv", "stage0/channel_mixer/fc1", False),
        ("stage0/token_mixer/conv1", "stage0/token_mixer/conv2", True),
    ],
    ids=["before a pointwise layer", "before a GELU"],
)
def test_planted_outliers_cost_little(
    layer: str, reader: str, depthwise_reader: bool, opset: int, method: Method
) -> None:
    clean = noise(network(opset), equalize=True, method=method)
    planted = with_outliers(network(opset), layer, reader, depthwise_reader)
    lost = noise(planted, equalize=False, method=method)
    found = noise(planted, equalize=True, method=method)
    assert clean - lost > 3, f"the outliers cost only {clean - lost:.1f} dB"
    assert found - lost >= 0.9 * (clean - lost), f"{clean:.1f} dB, with outliers {lost:.1f}, equalised {found:.1f}"


def test_any_factors_on_every_group_change_nothing() -> None:
    model, shown = network(), images(2)
    work = onnx.ModelProto()
    work.CopyFrom(model)
    groups = ChannelGroups(GraphIndex(work))
    rng = np.random.default_rng(3)
    scalable = scalable_groups(groups)
    assert {group.producers[0].name for group in scalable.values()} == {
        "/stem/Conv",
        "/stage0/token_mixer/fc/Conv",
        "/stage0/channel_mixer/conv/Conv",
        "/down1/Conv",
        "/stage1/token_mixer/fc/Conv",
        "/stage1/channel_mixer/conv/Conv",
    }
    for group in scalable.values():
        rescale(work, group, rng.uniform(0.2, 5, group.channels))
    assert not any(node.op_type == "Mul" for node in work.graph.node)
    assert sqnr(outputs(model, shown), outputs(work, shown)) > 100


def test_a_group_that_other_operators_read_is_restored_for_them() -> None:
    net = Builder()
    x = net.conv("image", "stem", (8, 3, 3))
    y = net.conv(x, "fc", (8, 8, 1))
    net.constants["axes"] = np.array([1], np.int64)
    mean = net.node("ReduceMean", [x, "axes"], "/mean")
    model = net.model(
        net.conv(net.node("Mul", [y, mean], "/product"), "classifier", (11, 8, 1)), contract(**fixed(32, 64))
    )
    work = onnx.ModelProto()
    work.CopyFrom(model)
    groups = scalable_groups(ChannelGroups(GraphIndex(work)))
    (stem,) = [group for group in groups.values() if group.producers[0].name == "/stem/Conv"]
    rescale(work, stem, np.geomspace(0.1, 10, 8))
    onnx.checker.check_model(work)
    assert sum(node.op_type == "Mul" for node in work.graph.node) == 2
    assert sqnr(outputs(model, images(2)), outputs(work, images(2))) > 100


def test_even_channels_are_left_alone() -> None:
    model = network()
    graph = GraphIndex(model)
    plan = make_plan(graph)
    seen = {name: ChannelHistograms() for name in tensors_to_observe(graph, plan)}
    collect(model, seen, images(4), "looking")
    factors = choose_factors(graph, plan, seen)
    assert len(factors.groups) + len(factors.with_mul) <= 1, factors


def test_factors_that_cost_a_mul_are_exact_too() -> None:
    planted = with_outliers(network(), "stage0/token_mixer/conv1", "stage0/token_mixer/conv2", True)
    result = quantize_graph(planted, images(4), CalibrationOptions(Method.MINMAX, correct_bias=False))
    check_structure(result.model)
    assert list(result.ranges.factors.with_mul) == ["/stage0/token_mixer/act/Gelu_output"]
    work = onnx.ModelProto()
    work.CopyFrom(planted)
    equalize(work, result.ranges.factors)
    assert sum(node.op_type == "Mul" for node in work.graph.node) == 1
    assert sqnr(outputs(planted, images(2)), outputs(work, images(2))) > 100


def joined(loud: float, resized: bool) -> onnx.ModelProto:
    """Two convolutions concatenated: one with outlier channels, one even and `loud` times larger."""
    net = Builder()
    first = net.conv("image", "a", (8, 3, 3), stride=2)
    second = net.conv("image", "b", (8, 3, 3), stride=2)
    if resized:
        net.constants["scales"] = np.ones(4, np.float32)
        second = net.node("Resize", [second, "", "scales"], "/Resize", mode="linear")
    both = net.node("Concat", [first, second], "/Concat", axis=1)
    model = net.model(net.conv(both, "classifier", (11, 16, 1)), contract(**fixed(32, 64)))
    for name, rows, factor in (("a", OUTLIERS, FACTOR), ("b", slice(None), loud)):
        for part in ("weight", "bias"):
            values = weight(model, f"{name}.{part}").copy()
            values[rows] *= factor
            set_weight(model, f"{name}.{part}", values)
    values = weight(model, "classifier.weight").copy()
    values[:, 8:] /= loud
    values[:, OUTLIERS] /= FACTOR
    set_weight(model, "classifier.weight", values)
    return model


@pytest.mark.parametrize("resized", [False, True])
@pytest.mark.parametrize("loud", [0.02, 1.0, 20.0, 200.0])
@pytest.mark.parametrize("method", [Method.MSE, Method.MINMAX])
def test_a_part_of_a_concatenation_is_never_equalised_at_the_cost_of_the_rest(
    loud: float, resized: bool, method: Method
) -> None:
    model = joined(loud, resized)
    plain, found = noise(model, equalize=False, method=method), noise(model, equalize=True, method=method)
    print(f"{loud}: {plain:.1f} dB, equalised {found:.1f} dB")
    assert found >= plain - 0.3


def test_a_channel_that_was_silent_keeps_its_range() -> None:
    model = with_outliers(network(), "stage0/channel_mixer/conv", "stage0/channel_mixer/fc1", False)
    for part in ("weight", "bias"):
        values = weight(model, f"stage0/channel_mixer/conv.{part}").copy()
        values[3] = 0
        set_weight(model, f"stage0/channel_mixer/conv.{part}", values)
    graph = GraphIndex(model)
    plan = make_plan(graph)
    seen = {name: ChannelHistograms() for name in tensors_to_observe(graph, plan)}
    collect(model, seen, images(2), "looking")
    factors = choose_factors(graph, plan, seen).groups["/stage0/channel_mixer/conv/Conv"]
    assert factors[3] >= 0.5 * np.delete(factors, 3).min(), factors
