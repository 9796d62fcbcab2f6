"""The written graph is the network, at every size it accepts, and says so itself."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from ffnet_deploy.benchmark.profiling import block_of
from ffnet_deploy.core.contract import METADATA_KEY, Contract, DimensionRange, InputKind, OutputKind
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine
from ffnet_deploy.engines.torch import TorchEngine
from ffnet_deploy.export.graph_file import write_graph
from ffnet_deploy.export.onnx import ExportOptions, build_graph
from ffnet_deploy.export.rewrites import LABEL_FORMS, Rewrite
from ffnet_deploy.segmentor.config import load_config
from ffnet_deploy.segmentor.load import Segmentor, open_segmentor
from tests.conftest import GraphOf
from tests.tiny import FAMILIES, randomize

SIDES = DimensionRange(32, 256, 2048)
DYNAMIC = ExportOptions(SIDES, SIDES, DimensionRange(1, 1, 8))
STATIC = ExportOptions(DimensionRange.fixed(96), DimensionRange.fixed(160))
UNEVEN = [(32, 32), (96, 160), (224, 352), (32, 416), (160, 64)]
"""Sizes whose thirty-seconds are not multiples of 6, the finest pooling grid."""
REWRITES = (Rewrite.SQUEEZE_FIRST, Rewrite.TAPS_FIRST, Rewrite.MATRIX_RESIZE)
PUBLISHED = [
    "upernet_ffnet_2_512_160k_ade20k",
    "upernet_ffnet_3_512_160k_ade20k",
    "upernet_ffnet_4_512_160k_ade20k",
    "ffnet_seg_512_ade_160k",
    "ffnet_seg_1024_city_160k",
]


def worst_error(segmentor: Segmentor, graph: onnx.ModelProto, sizes: list[tuple[int, int]], folder: Path) -> float:
    """Largest error of ONNX Runtime against PyTorch as published, relative to the largest logit, over `sizes`."""
    path = folder / "network.onnx"
    write_graph(graph, path)
    rng = np.random.default_rng(0)
    worst = 0.0
    with OnnxRuntimeEngine(path) as engine, TorchEngine(segmentor.model, engine.contract) as reference:
        for height, width in sizes:
            batch = rng.normal(size=(engine.contract.batch.min, 3, height, width)).astype(np.float32)
            expected = reference.run(batch)
            worst = max(worst, float(np.abs(engine.run(batch) - expected).max() / np.abs(expected).max()))
    return worst


def random_segmentor(name: str) -> Segmentor:
    segmentor = open_segmentor(load_config(name))
    randomize(segmentor.model)
    return segmentor


@pytest.mark.parametrize(
    ("name", "opset"), [*((name, opset) for name in FAMILIES for opset in (17, 20)), ("tiny_seg", 18)]
)
def test_dynamic_graph_is_exact_at_every_size(
    name: str, opset: int, tiny: dict[str, Segmentor], graph_of: GraphOf, tmp_path: Path
) -> None:
    error = worst_error(tiny[name], graph_of(name, replace(DYNAMIC, opset=opset)), UNEVEN, tmp_path)
    assert error < 1e-4, f"{name}, opset {opset}: {error:.1e}"


@pytest.mark.parametrize(("opset", "batch"), [(17, 1), (20, 1), (20, 3)])
@pytest.mark.parametrize("name", FAMILIES)
def test_static_graph_is_exact(
    name: str, opset: int, batch: int, tiny: dict[str, Segmentor], graph_of: GraphOf, tmp_path: Path
) -> None:
    options = replace(STATIC, opset=opset, batch=DimensionRange.fixed(batch))
    error = worst_error(tiny[name], graph_of(name, options), [(96, 160)], tmp_path)
    assert error < 1e-4, f"{name}, opset {opset}: {error:.1e}"


def test_newest_opset_has_the_least_nodes(graph_of: GraphOf) -> None:
    kinds = Counter(node.op_type for node in graph_of("tiny_seg", STATIC).graph.node)
    assert kinds == {"Conv": 56, "Gelu": 25, "Add": 14, "Resize": 2, "Concat": 1}


@pytest.mark.slow
def test_published_ffnet_seg_newest_opset_has_the_least_nodes() -> None:
    segmentor = random_segmentor("ffnet_seg_512_ade_160k")
    graph = build_graph(segmentor, STATIC)
    kinds = Counter(node.op_type for node in graph.graph.node)
    assert kinds == {"Conv": 212, "Gelu": 79, "Add": 66, "Resize": 2, "Concat": 1}


@pytest.mark.slow
@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("form", ["static", "dynamic"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_are_exact(name: str, form: str, opset: int, tmp_path: Path) -> None:
    options, sizes = (STATIC, [(96, 160)]) if form == "static" else (DYNAMIC, UNEVEN)
    segmentor = random_segmentor(name)
    error = worst_error(segmentor, build_graph(segmentor, replace(options, opset=opset)), sizes, tmp_path)
    print(f"{name}, {form}, opset {opset}: {error:.1e}")
    assert error < 1e-4


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("form", ["static", "dynamic"])
@pytest.mark.parametrize("name", FAMILIES)
def test_rewritten_graph_is_exact(
    name: str, form: str, opset: int, tiny: dict[str, Segmentor], graph_of: GraphOf, tmp_path: Path
) -> None:
    options, sizes = (STATIC, [(96, 160)]) if form == "static" else (DYNAMIC, UNEVEN)
    graph = graph_of(name, replace(options, opset=opset, rewrites=REWRITES))
    assert "Resize" not in {node.op_type for node in graph.graph.node}
    assert worst_error(tiny[name], graph, sizes, tmp_path) < 1e-5


def test_matrices_can_be_told_by_name(graph_of: GraphOf) -> None:
    """Whoever quantises weights leaves these alone."""
    graph = graph_of("tiny_upernet", replace(STATIC, rewrites=REWRITES)).graph
    products = [node for node in graph.node if node.op_type == "MatMul" and "upsampler" in node.name]
    assert len(products) == 2 * (4 + 3 + 3), "pyramid, top-down path, fusion"
    assert all(any(name.endswith(".resize_matrix") for name in node.input) for node in products)


@pytest.mark.parametrize("name", FAMILIES)
def test_profilers_know_what_enlarges(name: str, graph_of: GraphOf) -> None:
    graph = graph_of(name, replace(STATIC, rewrites=REWRITES)).graph
    head = [node.name for node in graph.node if "decode_head" in node.name]
    assert {block_of(one) for one in head if "upsampler" in one} == {"upsample"}
    assert all(block_of(one) in ("head", "upsample", "head token mixer", "head channel mixer") for one in head)


@pytest.mark.parametrize("form", LABEL_FORMS)
def test_rewritten_labels_are_those_of_pytorch(
    form: Rewrite, tiny: dict[str, Segmentor], graph_of: GraphOf, tmp_path: Path
) -> None:
    graph = graph_of("tiny_seg", replace(DYNAMIC, output=OutputKind.LABELS, rewrites=(form,)))
    path = tmp_path / "labels.onnx"
    write_graph(graph, path)
    rng = np.random.default_rng(0)
    with OnnxRuntimeEngine(path) as engine, TorchEngine(tiny["tiny_seg"].model, engine.contract) as reference:
        for height, width in UNEVEN[:3]:
            batch = rng.normal(size=(1, 3, height, width)).astype(np.float32)
            assert (engine.run(batch) == reference.run(batch)).mean() > 0.9999


def test_two_forms_of_labels_are_refused() -> None:
    with pytest.raises(OptionError, match="phase-labels and border-labels both make label maps"):
        ExportOptions(rewrites=tuple(LABEL_FORMS))


@pytest.mark.slow
@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("form", ["static", "dynamic"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_rewritten_are_exact(name: str, form: str, opset: int, tmp_path: Path) -> None:
    options, sizes = (STATIC, [(96, 160)]) if form == "static" else (DYNAMIC, UNEVEN)
    segmentor = random_segmentor(name)
    graph = build_graph(segmentor, replace(options, opset=opset, rewrites=REWRITES))
    error = worst_error(segmentor, graph, sizes, tmp_path)
    print(f"{name}, {form}, opset {opset}, rewritten: {error:.1e}")
    assert error <= 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_same_bytes_twice(name: str, tiny: dict[str, Segmentor], graph_of: GraphOf) -> None:
    assert build_graph(tiny[name], DYNAMIC).SerializeToString() == graph_of(name, DYNAMIC).SerializeToString()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("kind", [InputKind.RGB, InputKind.BGR])
def test_uint8_input_is_normalised_in_the_graph(
    name: str, kind: InputKind, tiny: dict[str, Segmentor], graph_of: GraphOf, tmp_path: Path
) -> None:
    write_graph(graph_of(name, replace(DYNAMIC, input=kind)), tmp_path / "x.onnx")
    image = np.random.default_rng(1).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    with OnnxRuntimeEngine(tmp_path / "x.onnx") as engine:
        rgb = image if kind is InputKind.RGB else image[..., ::-1]
        mean, std = (np.array(value, np.float32) for value in ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]))
        floats = ((rgb.astype(np.float32) - mean) / std).transpose(0, 3, 1, 2)
        expected = TorchEngine(tiny[name].model, replace(engine.contract, input=InputKind.FLOAT)).run(floats)
        found = engine.run(image)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_uint8_input_is_cast_before_anything_else(graph_of: GraphOf) -> None:
    graph = graph_of("tiny_seg", replace(DYNAMIC, input=InputKind.RGB)).graph
    assert [node.op_type for node in graph.node[:2]] == ["Cast", "Transpose"], "TensorRT transposes no uint8"


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("form", ["static", "dynamic"])
def test_labels_are_the_argmax_at_input_size(
    name: str, form: str, tiny: dict[str, Segmentor], graph_of: GraphOf, tmp_path: Path
) -> None:
    options = replace(STATIC if form == "static" else DYNAMIC, output=OutputKind.LABELS)
    write_graph(graph_of(name, options), tmp_path / "x.onnx")
    batch = np.random.default_rng(2).normal(size=(1, 3, 96, 160)).astype(np.float32)
    with OnnxRuntimeEngine(tmp_path / "x.onnx") as engine:
        found, expected = engine.run(batch), TorchEngine(tiny[name].model, engine.contract).run(batch)
    assert found.dtype == np.uint8
    assert found.shape == (1, 96, 160)
    assert len(np.unique(expected)) > 1
    assert (found == expected).mean() > 0.9995


@pytest.mark.parametrize("form", ["static", "dynamic"])
def test_labels_of_many_classes_are_uint16(form: str, tmp_path: Path) -> None:
    (tmp_path / "many.py").write_text(
        FAMILIES["tiny_seg"].replace("num_classes=8", "num_classes=300").replace("label_set", "_")
    )
    torch.manual_seed(0)
    segmentor = open_segmentor(tmp_path / "many.py")
    randomize(segmentor.model)
    options = replace(STATIC if form == "static" else DYNAMIC, output=OutputKind.LABELS)
    write_graph(build_graph(segmentor, options), tmp_path / "x.onnx")
    batch = np.random.default_rng(2).normal(size=(1, 3, 96, 160)).astype(np.float32)
    with OnnxRuntimeEngine(tmp_path / "x.onnx") as engine:
        found, expected = engine.run(batch), TorchEngine(segmentor.model, engine.contract).run(batch)
    assert found.dtype == expected.dtype == np.uint16 and found.max() > 255
    assert (found == expected).mean() > 0.9995


def test_probabilities_sum_to_one(tiny: dict[str, Segmentor], graph_of: GraphOf, tmp_path: Path) -> None:
    options = replace(STATIC, output=OutputKind.PROBABILITIES)
    write_graph(graph_of("tiny_seg", options), tmp_path / "x.onnx")
    batch = np.random.default_rng(3).normal(size=(1, 3, 96, 160)).astype(np.float32)
    with OnnxRuntimeEngine(tmp_path / "x.onnx") as engine:
        found, expected = engine.run(batch), TorchEngine(tiny["tiny_seg"].model, engine.contract).run(batch)
    assert found.shape == (1, 8, 96, 160)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_metadata_is_the_contract(tiny: dict[str, Segmentor], graph_of: GraphOf) -> None:
    segmentor = tiny["tiny_seg"]
    graph = graph_of("tiny_seg", DYNAMIC)
    contract = Contract.from_json({entry.key: entry.value for entry in graph.metadata_props}[METADATA_KEY])
    assert contract.classes[:2] == ("road", "sidewalk")
    assert contract.height == SIDES
    assert contract.sources == segmentor.sources
    assert set(contract.sources) == {"config", "checkpoint"}
    assert contract.protocol.scale == (128, 64)


@pytest.mark.parametrize("name", FAMILIES)
def test_dynamic_dimensions_have_names_and_static_ones_values(name: str, graph_of: GraphOf) -> None:
    dynamic, static = graph_of(name, DYNAMIC).graph, graph_of(name, STATIC).graph
    stride = 8 if name == "tiny_seg" else 4
    assert dims(dynamic.input[0]) == ["batch", 3, "height", "width"]
    assert dims(dynamic.output[0])[:2] == ["batch", 8]
    assert dims(static.input[0]) == [1, 3, 96, 160]
    assert dims(static.output[0]) == [1, 8, 96 // stride, 160 // stride]


def dims(value: onnx.ValueInfoProto) -> list[object]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("rewrites", [(), REWRITES])
@pytest.mark.parametrize("name", FAMILIES)
def test_opset_17_holds_only_what_tensorrt_8_5_parses(
    name: str, rewrites: tuple[Rewrite, ...], graph_of: GraphOf
) -> None:
    graph = graph_of(name, replace(DYNAMIC, opset=17, rewrites=rewrites))
    kinds = {node.op_type for node in graph.graph.node}
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 17)]
    assert not kinds & {"Gelu", "LayerNormalization", "BatchNormalization", "GroupNormalization", "Identity"}
    assert "Erf" in kinds


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_of_the_training_form_is_left(name: str, opset: int, graph_of: GraphOf) -> None:
    kinds = Counter(node.op_type for node in graph_of(name, replace(STATIC, opset=opset)).graph.node)
    assert not {"BatchNormalization", "Dropout", "Identity", "Constant"} & set(kinds)


def test_external_weights_travel_beside_the_graph(graph_of: GraphOf, tmp_path: Path) -> None:
    graph = graph_of("tiny_seg", STATIC)
    batch = np.random.default_rng(4).normal(size=(1, 3, 96, 160)).astype(np.float32)
    assert write_graph(graph, tmp_path / "inside.onnx") == ()
    with OnnxRuntimeEngine(tmp_path / "inside.onnx") as engine:
        expected = engine.run(batch)
    assert write_graph(graph, tmp_path / "outside.onnx", threshold=1000) == ("outside.onnx.data",)
    assert (tmp_path / "outside.onnx").stat().st_size < (tmp_path / "inside.onnx").stat().st_size / 2
    with OnnxRuntimeEngine(tmp_path / "outside.onnx") as engine:
        np.testing.assert_array_equal(engine.run(batch), expected)


def test_size_that_is_no_multiple_of_32_names_the_nearest() -> None:
    with pytest.raises(OptionError, match="height 500 is not a multiple of 32; the nearest are 480 and 512"):
        ExportOptions(DimensionRange.fixed(500), DimensionRange.fixed(512))


@pytest.mark.parametrize("opset", [16, 21])
def test_opset_out_of_range_is_refused(opset: int) -> None:
    with pytest.raises(OptionError, match="17 to 20"):
        ExportOptions(opset=opset)
