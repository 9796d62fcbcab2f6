"""Which nodes a 16-bit graph keeps in FP32: what would break is found by measuring, what holds is left alone."""

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from ffnet_deploy.calib import CalibrationOptions, Method, quantize_graph
from ffnet_deploy.core.contract import IOType
from ffnet_deploy.core.errors import DataError, OptionError
from ffnet_deploy.core.precision import PRECISION_KEY, Precision, PrecisionRecord
from ffnet_deploy.precision import Typed, TypingOptions, assign_types, simulated, type_graph
from ffnet_deploy.precision.casts import Rewriter
from ffnet_deploy.precision.formats import BF16, FP16, convert
from ffnet_deploy.precision.graph_index import GraphIndex
from ffnet_deploy.precision.policy import Reason
from tests.calib import networks as quantizable
from tests.calib.structure import check_structure
from tests.export.planted import Builder, image, run

HALF = TypingOptions(Precision.FP16)
BRAIN = TypingOptions(Precision.BF16)
NAIVE = TypingOptions(Precision.FP16, headroom=1.0, amplification=1e15, share=1.0, stagnation=1e15)
"""Limits that keep nothing in FP32 but what overflows outright."""


def reasons(typed: Typed, casts: bool = False) -> dict[str, Reason]:
    """Why nodes are in FP32; those that only spare casts are left out unless asked for."""
    found = {name: kept.reason for name, kept in typed.report.kept.items()}
    return {name: reason for name, reason in found.items() if casts or reason is not Reason.CASTS}


def constants(model: onnx.ModelProto) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def error(typed: Typed, original: onnx.ModelProto, x: np.ndarray) -> float:
    """Largest error of the typed graph, relative to the largest magnitude."""
    expected = run(original, x)
    return float(np.abs(run(simulated(typed.model), x) - expected).max() / np.abs(expected).max())


def test_values_beyond_fp16_stay_fp32_and_right() -> None:
    net = Builder()
    net.conv("image", "large", gain=1e5)
    net.add("Relu", ["large"], "kept")
    net.add("Mul", ["kept", net.constant("down", 1e-5)], "small")
    model, x = net.model(net.conv("small", "logits", seed=1)), image(net)
    typed = assign_types(model, HALF, [x])
    assert reasons(typed) == dict.fromkeys(("large", "kept", "small"), Reason.OVERFLOW)
    assert "|x| up to" in typed.report.kept["large"].measured
    assert typed.record == PrecisionRecord(Precision.FP16, Precision.FP16, (), ("large", "kept", "small"))
    assert error(typed, model, x) < 2e-3
    assert not reasons(assign_types(model, BRAIN, [x])), "bfloat16 reaches as far as float32"


def test_headroom_is_left_for_images_that_were_not_seen() -> None:
    net = Builder()
    model, x = net.model(net.conv("image", "logits", gain=10.0)), image(net)
    loud = 30_000 / np.abs(run(model, x)).max() * x
    assert set(reasons(assign_types(model, HALF, [loud]))) == {"logits"}
    assert not reasons(assign_types(model, replace(HALF, headroom=2.0), [loud]))


def test_sum_that_overflows_inside_a_mean_stays_fp32() -> None:
    net = Builder(channels=200)
    net.add("Abs", ["image"], "positive")
    model = net.model(net.mean("positive", "logits", [1]), [1, 1, 16, 16])
    typed = assign_types(model, HALF, [image(net) * 0 + 500])
    assert reasons(typed) == {"logits": Reason.SUM}
    assert typed.report.kept["logits"].measured == "up to 1e+05"
    assert not reasons(assign_types(model, HALF, [image(net) * 0 + 5]))


def test_products_that_overflow_inside_a_convolution_stay_fp32() -> None:
    net = Builder(channels=8)
    weight = np.zeros((8, 8, 1, 1), np.float32)
    weight[:, 0], weight[:, 1] = 100.0, -100.0  # large products that cancel
    net.add("Conv", ["image", net.constant("weight", weight)], "logits")
    x = np.full(net.shape, 1000.0, np.float32)
    x[:, 0] += 1.0
    assert reasons(assign_types(net.model("logits"), HALF, [x]))["logits"] is Reason.SUM


@pytest.mark.parametrize(("options", "channels", "kept"), [(HALF, 256, 0), (HALF, 288, 1), (BRAIN, 40, 1)])
def test_long_reductions_stay_fp32(options: TypingOptions, channels: int, kept: int) -> None:
    net = Builder(channels=channels, size=4)
    model = net.model(net.mean("image", "logits", [1]), [1, 1, 4, 4])
    found = reasons(assign_types(model, options, [np.abs(image(net))]))
    assert list(found.values()) == [Reason.SUMMANDS] * kept


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("rows", [16, 1])
def test_layer_norm_of_a_tiny_variance_stays_fp32_and_right(opset: int, rows: int) -> None:
    net = Builder(opset, channels=32)
    x = image(net)
    x[:, :, :rows] = 0.25 + 3e-4 * x[:, :, :rows]
    net.add("Relu", [net.layer_norm(net.add("Identity", ["image"], "entry"))], "logits")
    model = net.model("logits")
    typed, naive = assign_types(model, HALF, [x]), assign_types(model, NAIVE, [x])
    assert {"centred", "guarded", "deviation"} <= set(reasons(typed))
    assert reasons(typed)["entry"] is Reason.SOURCE, "what is rounded before the subtraction is lost"
    assert reasons(naive) == {}
    assert error(typed, model, x) < 2e-3 < 0.05 < error(naive, model, x)


def test_layer_norm_of_ordinary_features_is_typed_like_the_rest() -> None:
    net = Builder(channels=32)
    model, x = net.model(net.layer_norm(net.conv("image", "features"))), image(net)
    typed = assign_types(model, HALF, [x])
    assert not reasons(typed)
    assert error(typed, model, x) < 5e-3


def test_weights_beyond_fp16_stay_and_none_becomes_infinite() -> None:
    net = Builder()
    weight = np.eye(8, dtype=np.float32)[:, :, None, None] * 1e5
    net.add("Conv", ["image", net.constant("weight", weight)], "hidden")
    net.conv("hidden", "logits", seed=2)
    typed = assign_types(net.model("logits"), HALF, [image(net) * 1e-6])
    assert reasons(typed) == {"hidden": Reason.WEIGHTS}
    for tensor in typed.model.graph.initializer:
        assert np.isfinite(numpy_helper.to_array(tensor).astype(np.float32)).all(), tensor.name


def test_small_weights_are_counted() -> None:
    values = np.array([1.0, 7e4, 1e-6, -1e-9, 0.0], np.float32)
    _, half = convert(values, FP16)
    assert (half.values, half.overflowed, half.zeroed, half.subnormal) == (5, 1, 1, 1)
    _, brain = convert(values, BF16)
    assert (brain.overflowed, brain.zeroed, brain.subnormal) == (0, 0, 0)


def test_one_cast_for_each_tensor_and_direction() -> None:
    net = Builder()
    net.conv("image", "features")
    for name in ("first", "second"):  # two that overflow, fed by one tensor
        net.conv("features", name, gain=1e6, seed=3)
    net.add("Add", ["first", "second"], "sum")
    net.add("Mul", ["sum", net.constant("down", 1e-7)], "small")
    net.add("Add", [net.conv("small", "left", seed=4), net.conv("small", "right", seed=5)], "logits")
    typed = assign_types(net.model("logits"), HALF, [image(net)])
    casts = [node for node in typed.model.graph.node if node.op_type == "Cast"]
    pairs = Counter((node.input[0], node.attribute[0].i) for node in casts)
    assert pairs == {
        ("image", TensorProto.FLOAT16): 1,
        ("features", TensorProto.FLOAT): 1,
        ("small", TensorProto.FLOAT16): 1,
        ("logits_fp16", TensorProto.FLOAT): 1,
    }
    assert typed.report.casts == (2, 2)
    made_by_casts = {node.output[0] for node in casts}
    assert not any(node.input[0] in made_by_casts for node in casts), "a cast of a cast"


def test_light_node_between_fp32_neighbours_spares_casts() -> None:
    net = Builder(channels=512, size=4)
    net.mean("image", "first", [2, 3])
    net.add("Relu", [net.mean("image", "mean", [1])], "between")
    net.add("Mul", ["image", "between"], "scaled")
    model = net.model(net.mean("scaled", "logits", [1]), [1, 1, 4, 4])
    found = reasons(assign_types(model, HALF, [np.abs(image(net))]), casts=True)
    assert found["mean"] is found["logits"] is Reason.SUMMANDS
    assert found["between"] is found["scaled"] is Reason.CASTS


@pytest.mark.parametrize("options", [HALF, BRAIN], ids=["fp16", "bf16"])
def test_quantised_graph_keeps_its_scales_in_step(options: TypingOptions) -> None:
    net = Builder()
    net.add("Relu", [net.quantized_conv("image", "first", np.geomspace(3e-9, 0.02, 8))], "features")
    model, x = net.model(net.quantized_conv("features", "logits", np.full(8, 0.01), seed=1)), image(net)
    record = PrecisionRecord(Precision.INT8, quantized=("first", "logits"))
    model.metadata_props.add(key=PRECISION_KEY, value=record.to_json())
    typed = assign_types(model, options, [x])
    onnx.checker.check_model(typed.model, full_check=True)
    assert typed.record.quantized == ("first", "logits")
    assert (typed.record.precision, typed.record.base) == (Precision.INT8, options.precision)
    types = {name: tensor.data_type for name, tensor in constants(typed.model).items()}
    before = {name: numpy_helper.to_array(tensor) for name, tensor in constants(model).items()}
    scales = {name: numpy_helper.to_array(t).astype(np.float32) for name, t in constants(typed.model).items()}
    for node in typed.model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            original = before[node.input[1].removesuffix(f"_{options.precision.value}")]
            assert (scales[node.input[1]] >= original).all(), "a scale that fell clips more than was calibrated"
            np.testing.assert_allclose(scales[node.input[1]], original, rtol=8e-3, atol=6e-8)
        if node.op_type == "DequantizeLinear":  # its type is its scale's, and the convolution's
            assert types[node.input[1]] in (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    pairs = {
        node.output[0].rsplit(".", 1)[0]: scales[node.input[1]] for node in typed.model.graph.node if ".q" in node.name
    }
    for node in typed.model.graph.node:
        if ".dq" in node.name:
            np.testing.assert_array_equal(scales[node.input[1]], pairs[node.output[0].rsplit(".", 1)[0]])
    assert error(typed, model, x) < 0.05


def test_quantised_graph_of_an_old_operator_set_is_refused() -> None:
    net = Builder(17)
    model = net.model(net.quantized_conv("image", "logits", np.full(8, 0.01)))
    with pytest.raises(OptionError, match=r"from operator set 19.*\n.*--int8-base fp32"):
        assign_types(model, HALF, [image(net)])


def test_bf16_raises_the_operator_set_and_is_simulated() -> None:
    net = Builder(17, channels=16)
    model, x = net.model(net.layer_norm(net.conv("image", "features"))), image(net)
    typed = assign_types(model, BRAIN, [x])
    onnx.checker.check_model(typed.model, full_check=True)
    assert typed.model.opset_import[0].version == 22
    assert 1e-4 < error(typed, model, x) < 0.05


def test_simulation_rounds_every_value() -> None:
    net = Builder()
    net.conv("image", "features")
    model, x = net.model(net.add("Exp", ["features"], "logits")), image(net)
    out = run(simulated(assign_types(model, HALF, [x]).model), x)
    weight = numpy_helper.to_array(model.graph.initializer[0]).astype(np.float16).astype(np.float32)[:, :, 0, 0]
    features = np.einsum("oi,bihw->bohw", weight, x.astype(np.float16).astype(np.float32)).astype(np.float16)
    expected = np.exp(features.astype(np.float32)).astype(np.float16).astype(np.float32)
    # a sum in another order may round to the neighbour
    assert (out == expected).mean() > 0.99
    np.testing.assert_allclose(out, expected, rtol=4e-3)


def test_record_travels_with_the_graph_which_stays_as_it_was() -> None:
    net = Builder()
    model, x = net.model(net.conv("image", "logits")), image(net)
    model.metadata_props.add(key="other", value="stays")
    before = model.SerializeToString()
    typed, record = type_graph(model, HALF, [x])
    entries = {entry.key: entry.value for entry in typed.metadata_props}
    assert entries["other"] == "stays"
    assert PrecisionRecord.from_json(entries[PRECISION_KEY]) == record
    assert model.SerializeToString() == before
    assert type_graph(model, HALF, [x])[0].SerializeToString() == typed.SerializeToString(), "not reproducible"


def test_values_that_are_not_finite_name_the_layer() -> None:
    for spoilt in (np.nan, np.inf):
        net = Builder()
        net.conv("image", "first")
        model = net.model(net.add("Mul", ["first", net.constant("factor", spoilt)], "logits"))
        with pytest.raises(DataError, match=r"not finite.*node logits on image 1"):
            assign_types(model, HALF, [image(net)])


def test_bad_input_is_one_clear_error() -> None:
    net = Builder()
    model, x = net.model(net.conv("image", "logits")), image(net)
    with pytest.raises(DataError, match="at least one image"):
        assign_types(model, HALF, [])
    with pytest.raises(OptionError, match="typed fp16 already"):
        assign_types(assign_types(model, HALF, [x]).model, BRAIN, [x])
    with pytest.raises(OptionError, match="fp16 or bf16, not int8"):
        TypingOptions(Precision.INT8)
    with pytest.raises(OptionError, match="headroom"):
        TypingOptions(headroom=0.5)


def test_what_reads_a_quantised_tensor_in_two_types_gets_a_dequantisation_of_each() -> None:
    quantized = quantize_graph(
        quantizable.network(), quantizable.images(1), CalibrationOptions(Method.MINMAX, equalize=False)
    )
    conv = "/stage0/token_mixer/fc/Conv"
    index = GraphIndex(quantized.model)
    wide = {conv, f"{conv}/weight_DequantizeLinear"}
    wide |= {node.name for node in index.nodes if node.op_type == "QuantizeLinear"}
    typed = Rewriter(index, wide, FP16).write().model
    check_structure(typed)
    graph = GraphIndex(typed)
    node = next(node for node in typed.graph.node if node.name == conv)
    pair = graph.producers[node.input[0]]
    assert graph.array(pair.input[1]).dtype == np.float32
    others = [use.node for use in graph.uses[pair.input[0]] if use.node.name != pair.name]
    assert others and {graph.array(other.input[1]).dtype for other in others} == {np.dtype(np.float16)}
    assert [use.node.op_type for use in graph.uses[others[0].output[0]]] == ["Add"]


def half_io(model: onnx.ModelProto, x: np.ndarray) -> Typed:
    return assign_types(model, HALF, [x], io=IOType.FP16)


def test_floats_at_the_boundary_can_be_fp16_without_a_cast() -> None:
    net = Builder()
    model, x = net.model(net.conv(net.conv("image", "first"), "logits", seed=1)), image(net)
    typed = half_io(model, x)
    assert [node.op_type for node in typed.model.graph.node] == ["Conv", "Conv"] and typed.report.casts == (0, 0)
    for value in (*typed.model.graph.input, *typed.model.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT16
    x = x.astype(np.float16)
    plain, rounded = run(typed.model, x), run(simulated(typed.model), x)
    assert plain.dtype == rounded.dtype == np.float16
    wide = run(simulated(assign_types(model, HALF, [x.astype(np.float32)]).model), x.astype(np.float32))
    np.testing.assert_array_equal(rounded.astype(np.float32), wide)


def test_nodes_in_fp32_get_their_casts_from_an_fp16_boundary() -> None:
    net = Builder()
    net.conv("image", "large", gain=1e5)
    model, x = net.model(net.add("Mul", ["large", net.constant("down", 1e-5)], "logits")), image(net)
    typed = half_io(model, x)
    assert set(typed.report.kept) == {"large", "logits"} and typed.report.casts == (1, 1)
    onnx.checker.check_model(typed.model, full_check=True)
    expected = run(model, x)
    found = run(simulated(typed.model), x.astype(np.float16))
    assert np.abs(found - expected).max() < 2e-3 * np.abs(expected).max()


def test_an_output_that_is_read_again_keeps_its_name_at_an_fp16_boundary() -> None:
    net = Builder()
    net.conv("image", "logits")
    net.conv("logits", "large", gain=1e6)
    model, x = net.model("logits"), image(net)
    model.graph.output.add().CopyFrom(model.graph.output[0])
    model.graph.output[1].name = "large"
    typed = half_io(model, 1e-2 * x)
    onnx.checker.check_model(typed.model, full_check=True)
    assert {value.name for value in typed.model.graph.output} == {"logits", "large"}
    found = run(simulated(typed.model), (1e-2 * x).astype(np.float16))
    np.testing.assert_allclose(found, run(model, 1e-2 * x), atol=2e-3)


def test_a_boundary_without_floats_or_of_another_type_is_refused() -> None:
    net = Builder()
    model, x = net.model(net.conv("image", "logits")), image(net)
    with pytest.raises(OptionError, match="fp32 or bf16, not fp16"):
        assign_types(model, BRAIN, [x], io=IOType.FP16)
