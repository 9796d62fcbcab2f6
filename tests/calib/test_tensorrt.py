"""TensorRT for RTX parses and builds quantised graphs, and sees Q/DQ exactly where they are meant."""

from pathlib import Path

import onnx
import pytest

from ffnet_deploy.calib import CalibrationOptions, Method, quantize_graph
from ffnet_deploy.core.contract import DimensionRange
from ffnet_deploy.core.precision import Precision
from ffnet_deploy.export.engine import build_engine
from ffnet_deploy.precision import TypingOptions, assign_types
from tests import golden
from tests.calib import parsed
from tests.calib.networks import images, network
from tests.calib.structure import check_structure
from tests.calib.test_equalize import with_outliers
from tests.engines.tensorrt.rtx import OPTIONS
from tests.engines.tensorrt.typed import save
from tests.tiny import FAMILIES, write_checkpoint

pytest.importorskip("tensorrt_rtx")
FEWEST = "squeeze-first,taps-first"
"""What --rewrite auto does for TensorRT."""
fixed = DimensionRange.fixed
FAST = CalibrationOptions(Method.MINMAX, equalize=False, correct_bias=False)


@pytest.mark.parametrize(("opset", "precision"), [(17, Precision.INT8), (20, Precision.INT8), (20, Precision.FP8)])
def test_a_small_network_parses_and_builds(opset: int, precision: Precision, tmp_path: Path) -> None:
    result = quantize_graph(network(opset), images(1), CalibrationOptions(Method.MINMAX, precision=precision))
    path = tmp_path / "network.onnx"
    onnx.save(result.model, path)
    builder, parsed_network = parsed.parse(path)
    parsed.check_parsed(parsed_network, result.model, sums=4)
    assert parsed.build(builder, parsed_network) > 0


@pytest.mark.parametrize("base", [Precision.FP32, Precision.FP16])
def test_an_equalised_network_builds(base: Precision, tmp_path: Path) -> None:
    model = with_outliers(network(), "stage0/channel_mixer/conv", "stage0/channel_mixer/fc1", False)
    model = with_outliers(model, "stage0/token_mixer/conv1", "stage0/token_mixer/conv2", True)
    result = quantize_graph(model, images(2))
    assert result.report["equalisation"] == {"groups": 1, "with_a_mul": 1}
    made = result.model
    if base is Precision.FP16:
        made = assign_types(made, TypingOptions(base), images(2)).model
    check_structure(made)
    path = save(made, tmp_path / "network.onnx")
    _, parsed_network = parsed.parse(path)
    parsed.check_parsed(parsed_network, made, sums=4)
    made = build_engine(path, tmp_path / "network.engine", OPTIONS)
    check = made.bundle.manifest["precision_check"]["network"]
    assert check["violations"] == [] and check["convolutions"] == {"int8": len(result.record.quantized)}


@pytest.mark.parametrize(("name", "opset"), [(name, opset) for name in FAMILIES for opset in (17, 20)])
def test_both_families_have_the_structure(name: str, opset: int, tmp_path: Path) -> None:
    from ffnet_deploy.export.onnx import ExportOptions, build_graph
    from ffnet_deploy.segmentor.load import open_segmentor

    segmentor = open_segmentor(*write_checkpoint(tmp_path, name))
    model = build_graph(segmentor, ExportOptions(DimensionRange.fixed(32), DimensionRange.fixed(64), opset=opset))
    result = quantize_graph(model, images(1), FAST)
    check_structure(result.model)
    assert result.report["mac_share_percent"] == 100.0
    # two sums in every block; those of UPerNet's pyramid join what a resize made
    blocks = {"tiny_seg": 5 + 2, "tiny_upernet": 4}[name]
    assert result.report["residual_sums"] == 2 * blocks
    path = tmp_path / "network.onnx"
    onnx.save(result.model, path)
    _, parsed_network = parsed.parse(path)
    parsed.check_parsed(parsed_network, result.model, sums=2 * blocks)


@pytest.mark.slow
@pytest.mark.parametrize("quantize", [False, True], ids=["fp16", "int8"])
@pytest.mark.parametrize(
    ("rewrites", "dynamic"),
    [("", False), (f"{FEWEST},matrix-resize", False), (FEWEST, True)],
    ids=["as traced", "all rewrites", "auto, dynamic"],
)
@pytest.mark.parametrize("name", golden.PUBLISHED)
def test_published_networks_build_as_they_are_lowered(
    name: str, rewrites: str, dynamic: bool, quantize: bool, tmp_path: Path
) -> None:
    from ffnet_deploy.export.onnx import ExportOptions, build_graph
    from ffnet_deploy.export.rewrites import Rewrite
    from ffnet_deploy.segmentor.config import load_config
    from ffnet_deploy.segmentor.load import open_segmentor

    segmentor = open_segmentor(load_config(name))
    golden.fill(segmentor.model)
    sides = (DimensionRange(64, 64, 256), DimensionRange(64, 128, 256)) if dynamic else (fixed(64), fixed(128))
    asked = tuple(Rewrite(one) for one in rewrites.split(",") if one)
    batch = DimensionRange(1, 1, 4) if dynamic else fixed(1)
    model = build_graph(segmentor, ExportOptions(*sides, batch, rewrites=asked))
    shown, sums = [golden.network_input(64, 128)], 0
    if quantize:
        result = quantize_graph(model, shown)
        assert result.report["mac_share_percent"] == 100.0
        model, sums = result.model, result.report["residual_sums"]
    typed = assign_types(model, TypingOptions(Precision.FP16), shown)
    path = save(typed.model, tmp_path / "network.onnx")
    if quantize:
        check_structure(typed.model)
        _, parsed_network = parsed.parse(path)
        parsed.check_parsed(parsed_network, typed.model, sums)
    made = build_engine(path, tmp_path / "network.engine", OPTIONS)
    check = made.bundle.manifest["precision_check"]["network"]
    count = sum(node.op_type == "Conv" for node in typed.model.graph.node)
    print(name, rewrites or "as traced", "dynamic" if dynamic else "static", check)
    assert check["violations"] == []
    assert check["convolutions"].get("int8" if quantize else "fp16") == count
