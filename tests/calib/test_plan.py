"""What stays unquantised because of the hardware, and around resizes that are matrix products."""

import numpy as np
import onnx

from ffnet_deploy.calib import CalibrationOptions, quantize_graph
from ffnet_deploy.calib.plan import make_plan, slow_in_fp8
from ffnet_deploy.core.precision import Hardware, Precision
from ffnet_deploy.export.rewrites.matrices import MATRIX_NAME
from ffnet_deploy.precision.assign import recorded
from ffnet_deploy.precision.graph_index import RESIZE_MATRIX, GraphIndex
from tests.calib.networks import Builder, images, network
from tests.calib.structure import is_dequantized
from tests.toy import contract, fixed


def rewritten() -> onnx.ModelProto:
    """Two levels, each through a 1x1 convolution; the coarse one is enlarged by two matrix products and added."""
    net = Builder()
    fine = net.conv("image", "stem", (8, 3, 3), stride=2)
    coarse = net.conv(net.gelu(fine, "act"), "down", (8, 8, 3), stride=2)
    one, other = net.conv(fine, "level0", (8, 8, 1)), net.conv(coarse, "level1", (8, 8, 1))
    for name, size in (("rows", 8), ("columns", 16)):
        matrix = np.repeat(np.eye(size, dtype=np.float32), 2, axis=0)
        net.constants[f"up.{name}.{RESIZE_MATRIX}"] = matrix if name == "rows" else matrix.T
    rows = net.node("MatMul", [f"up.rows.{RESIZE_MATRIX}", other], "/up/MatMul")
    large = net.node("MatMul", [rows, f"up.columns.{RESIZE_MATRIX}"], "/up/MatMul_1")
    y = net.gelu(net.node("Add", [one, large], "/Add"), "sum_act")
    return net.model(net.conv(y, "classifier", (11, 8, 1)), contract(**fixed(32, 64)))


def test_resize_matrices_and_what_they_make_are_never_quantised() -> None:
    assert RESIZE_MATRIX == MATRIX_NAME, "one name on both sides"
    quantised = quantize_graph(rewritten(), images(2), CalibrationOptions())
    graph = GraphIndex(quantised.model)
    products = [node for node in graph.nodes if node.op_type == "MatMul"]
    assert len(products) == 2
    for node in products:
        assert not any(is_dequantized(graph, name) for name in node.input)
        assert all(use.node.op_type in ("MatMul", "Add") for use in graph.uses[node.output[0]])
    assert not quantised.report["left_unquantized"], "an exact resize is nothing to tell the user of"
    assert quantised.report["convolutions"]["quantized"] == 5


def test_what_reads_a_concatenation_stays_unquantised_on_cpus() -> None:
    graph = GraphIndex(network())
    plan = make_plan(graph, hardware=Hardware.CPU)
    assert [conv.name for conv in plan.kept] == ["/squeeze/Conv"]
    assert "--rewrite auto" in plan.left["/squeeze/Conv"]
    assert not make_plan(graph).kept
    quantised = quantize_graph(network(), images(2), CalibrationOptions(hardware=Hardware.CPU))
    assert "/squeeze/Conv" not in recorded(quantised.model).quantized
    assert recorded(quantised.model).hardware is Hardware.CPU
    assert quantised.report["hosts"][0] == "OpenVINO on x86-64 from AVX2 on"
    assert quantised.report["mac_share_percent"] < 100


def test_convolutions_of_small_groups_stay_unquantised_on_cpus() -> None:
    net = Builder()
    x = net.conv("image", "stem", (8, 3, 3))
    x = net.conv(x, "depthwise", (8, 8, 3), groups=8)
    x = net.conv(x, "doubling", (16, 8, 7), groups=8, stride=2)
    x = net.conv(x, "fours", (16, 16, 3), groups=4)
    graph = GraphIndex(net.model(net.conv(x, "classifier", (11, 16, 1)), contract(**fixed(32, 64))))
    assert not make_plan(graph).left
    assert list(make_plan(graph, hardware=Hardware.CPU).left) == ["/doubling/Conv"]


def test_hosts_are_those_that_compute_the_graph_right() -> None:
    def hosts(options: CalibrationOptions) -> list[str]:
        return list(quantize_graph(network(), images(2), options).report["hosts"])

    everywhere = ["TensorRT", "TensorRT for RTX", "ONNX Runtime on x86-64"]
    assert hosts(CalibrationOptions()) == everywhere, "OpenVINO computes its concatenation with more noise"
    assert hosts(CalibrationOptions(keep=("/squeeze/Conv",))) == [*everywhere, "OpenVINO on x86-64 with VNNI"]
    assert sorted(hosts(CalibrationOptions(hardware=Hardware.CPU))) == [
        "ONNX Runtime on x86-64",
        "OpenVINO on x86-64 from AVX2 on",
        "TensorRT",
        "TensorRT for RTX",
    ]
    assert hosts(CalibrationOptions(precision=Precision.FP8)) == ["TensorRT 10 and newer, on GPUs with FP8"]


def test_convolutions_without_a_fast_fp8_kernel_are_named() -> None:
    net = Builder()
    x = net.conv("image", "stem", (32, 3, 3))
    x = net.conv(x, "dense", (32, 32, 3))
    x = net.conv(x, "depthwise", (32, 1 * 32, 3), groups=32)
    x = net.conv(x, "wide", (32, 32, 7))
    model = net.model(net.conv(x, "classifier", (11, 32, 1)), contract(**fixed(32, 64)))
    assert slow_in_fp8(model) == ("/stem/Conv", "/depthwise/Conv", "/wide/Conv", "/classifier/Conv")
