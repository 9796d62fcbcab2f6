"""Typed graphs of both families: well typed, the same network within rounding, and read by what has to read them."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from ffnet_deploy.core.contract import METADATA_KEY, Contract, DimensionRange, InputKind, OutputKind
from ffnet_deploy.core.precision import Precision
from ffnet_deploy.evaluation.verify import input_batch, packaged_images
from ffnet_deploy.export.onnx import ExportOptions, build_graph, contract_of
from ffnet_deploy.precision import Typed, TypingOptions, assign_types, simulated
from ffnet_deploy.precision.policy import Reason
from ffnet_deploy.segmentor.config import load_config
from ffnet_deploy.segmentor.load import Segmentor
from tests import golden
from tests.conftest import GraphOf
from tests.export.planted import Builder, run

FIXED = (DimensionRange.fixed(64), DimensionRange.fixed(96), DimensionRange.fixed(1))
DYNAMIC = (DimensionRange(32, 64, 128), DimensionRange(32, 96, 128), DimensionRange(1, 1, 2))
CASES = [
    ("tiny_seg", ExportOptions(*FIXED, 20), Precision.FP16),
    ("tiny_seg", ExportOptions(*DYNAMIC, 17, InputKind.BGR, OutputKind.LABELS), Precision.FP16),
    ("tiny_seg", ExportOptions(*DYNAMIC, 20, InputKind.RGB, OutputKind.PROBABILITIES), Precision.BF16),
    ("tiny_upernet", ExportOptions(*FIXED, 17, InputKind.FLOAT, OutputKind.PROBABILITIES), Precision.FP16),
    ("tiny_upernet", ExportOptions(*DYNAMIC, 20, InputKind.BGR, OutputKind.LABELS), Precision.FP16),
    ("tiny_upernet", ExportOptions(*DYNAMIC, 17, InputKind.RGB, OutputKind.LOGITS), Precision.BF16),
]
LARGEST = {Precision.FP16: 0.01, Precision.BF16: 0.08}
"""Root mean square error relative to the output's, or share of differing labels, that rounding may cause."""
TENSORS = {InputKind.FLOAT: TensorProto.FLOAT, InputKind.RGB: TensorProto.UINT8, InputKind.BGR: TensorProto.UINT8}

Case = tuple[onnx.ModelProto, Typed, np.ndarray, ExportOptions]


def name_of(value: Any) -> str:
    if isinstance(value, ExportOptions):
        form = "static" if value.height.is_fixed else "dynamic"
        return f"{value.opset}-{form}-{value.input.value}-{value.output.value}"
    return str(getattr(value, "value", value))


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(name_of(part) for part in case))
def case(request: pytest.FixtureRequest, graph_of: GraphOf) -> Case:
    family, options, precision = request.param
    graph = graph_of(family, options)
    contract = Contract.from_json(next(entry.value for entry in graph.metadata_props if entry.key == METADATA_KEY))
    size = (contract.height.opt, contract.width.opt)
    images = [input_batch([scene], size, contract) for scene in packaged_images(1)]
    return graph, assign_types(graph, TypingOptions(precision), images), images[0], options


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Share of differing labels; of scores the root mean square error relative to theirs."""
    if expected.dtype == np.uint8:
        return float((found != expected).mean())
    return float(np.sqrt(np.square(found - expected).mean() / np.square(expected).mean()))


def test_typed_graph_is_well_typed_and_keeps_its_boundary(case: Case) -> None:
    graph, typed, _, options = case
    onnx.checker.check_model(typed.model, full_check=True)
    kinds = [tensor.type.tensor_type.elem_type for tensor in (*typed.model.graph.input, *typed.model.graph.output)]
    output = TensorProto.UINT8 if options.output is OutputKind.LABELS else TensorProto.FLOAT
    assert kinds == [TENSORS[options.input], output]
    assert typed.model.graph.input == graph.graph.input
    assert typed.model.graph.output == graph.graph.output


def test_network_is_the_same_within_rounding(case: Case) -> None:
    graph, typed, x, _ = case
    error = difference(run(simulated(typed.model), x), run(graph, x))
    assert 1e-5 < error < LARGEST[typed.record.base], error


def test_onnx_runtime_runs_fp16(case: Case) -> None:
    graph, typed, x, _ = case
    if typed.record.base is Precision.BF16:
        pytest.skip("ONNX Runtime's CPU provider has no BF16 operators; its simulation is tested above")
    assert difference(run(typed.model, x), run(graph, x)) < 0.01


def test_all_features_are_of_16_bits_where_nothing_speaks_against_it(case: Case) -> None:
    _, typed, _, options = case
    grounds = {kept.reason for kept in typed.report.kept.values()} - {Reason.NUMBERS, Reason.CASTS}
    # random weights give scores so close that bfloat16 cannot tell them apart
    assert grounds <= (
        set() if typed.record.base is Precision.FP16 else {Reason.SUMMANDS, Reason.LABELS, Reason.SOURCE}
    )
    convolutions = [node.name for node in typed.model.graph.node if node.op_type == "Conv"]
    assert set(convolutions) & set(typed.record.float32) <= {"/decode_head/conv_seg/Conv"}
    casts = Counter(node.input[0] for node in typed.model.graph.node if node.op_type == "Cast")
    assert max(casts.values()) <= 2, "more than one cast of a tensor in one direction"
    whole = [kept for kept in typed.report.kept.values() if kept.reason is not Reason.NUMBERS]
    assert typed.report.casts[1] <= len(whole) + (options.output is not OutputKind.LABELS)


def test_tensorrt_takes_it_strongly_typed(case: Case) -> None:
    trt: Any = pytest.importorskip("tensorrt_rtx")
    _, typed, _, options = case
    network, problems = parsed(trt, typed.model)
    assert not problems, problems
    kinds = {network.get_layer(at).name: network.get_layer(at).get_output(0).dtype for at in range(network.num_layers)}
    half = trt.DataType.HALF if typed.record.base is Precision.FP16 else trt.DataType.BF16
    for node in typed.model.graph.node:
        if node.op_type == "Conv":
            assert kinds[node.name] == (trt.DataType.FLOAT if node.name in typed.record.float32 else half), node.name
    if options.opset == 20:
        assert built(trt, network) is not None


def parsed(trt: Any, model: onnx.ModelProto) -> tuple[Any, list[str]]:
    """A strongly typed network of TensorRT for RTX and the parser's complaints."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parser.parse(model.SerializeToString())
    KEPT.append((builder, parser))
    return network, [parser.get_error(index).desc() for index in range(parser.num_errors)]


KEPT: list[Any] = []
"""Builders and parsers whose networks are still looked at."""


def built(trt: Any, network: Any) -> Any:
    builder = KEPT[-1][0]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    tensor = network.get_input(0)
    if -1 in tuple(tensor.shape):
        profile = builder.create_optimization_profile()
        sizes = [(1, 32, 32), (1, 64, 96), (2, 128, 128)]
        first = tensor.shape[1] == 3
        profile.set_shape(tensor.name, *((n, 3, h, w) if first else (n, h, w, 3) for n, h, w in sizes))
        config.add_optimization_profile(profile)
    return builder.build_serialized_network(network, config)


def test_tensorrt_takes_a_quantised_graph_strongly_typed() -> None:
    trt: Any = pytest.importorskip("tensorrt_rtx")
    net = Builder(channels=32, size=32)
    net.add("Relu", [net.quantized_conv("image", "first", np.full(32, 0.01))], "features")
    model = net.model(net.quantized_conv("features", "logits", np.geomspace(1e-9, 0.01, 32), seed=1))
    typed = assign_types(model, TypingOptions(Precision.FP16), [np.ones(net.shape, np.float32)])
    network, problems = parsed(trt, typed.model)
    assert not problems, problems
    layers = {network.get_layer(at).name: network.get_layer(at) for at in range(network.num_layers)}
    assert layers["first"].get_output(0).dtype == trt.DataType.HALF
    assert layers["logits"].get_output(0).dtype == trt.DataType.HALF
    assert built(trt, network) is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ffnet_seg_512_ade_160k", "upernet_ffnet_2_512_160k_ade20k"])
def test_published_network_in_fp16_keeps_its_labels_and_builds(name: str) -> None:
    trt: Any = pytest.importorskip("tensorrt_rtx")
    segmentor = Segmentor(load_config(name), golden.build(name).eval())
    options = ExportOptions(DimensionRange.fixed(512), DimensionRange.fixed(512))
    graph, contract = build_graph(segmentor, options), contract_of(segmentor, options)
    x = input_batch(packaged_images(1), (512, 512), contract)
    typed = assign_types(graph, TypingOptions(Precision.FP16), [x])
    squares = [node for node in typed.report.kept if "/norm" in node and node.endswith("Mul")]
    assert bool(squares) == ("upernet" in name), "the golden weights' features square beyond FP16 in layer norms"
    agreement = (run(simulated(typed.model), x).argmax(1) == run(graph, x).argmax(1)).mean()
    assert agreement >= 0.995, agreement
    network, problems = parsed(trt, typed.model)
    assert not problems, problems
    assert built(trt, network) is not None
