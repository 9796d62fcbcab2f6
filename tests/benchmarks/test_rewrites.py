"""Multiply-adds, counted from the ONNX graphs, and the benchmark's table."""

from collections.abc import Mapping
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("mmseg")

from benchmarks.rewrites import measured_table, multiply_adds
from ffnet_deploy.core.contract import DimensionRange, InputKind, Normalization, OutputKind
from ffnet_deploy.export.network import DeployedNetwork
from ffnet_deploy.export.onnx import ExportOptions, build_graph
from ffnet_deploy.export.rewrites import Rewrite
from ffnet_deploy.export.rewrites.choice import measurement
from ffnet_deploy.export.rewrites.fake_run import FakeRun
from ffnet_deploy.export.rewrites.passes import rewritten_heads
from ffnet_deploy.segmentor.config import load_config
from ffnet_deploy.segmentor.load import open_segmentor
from tests.conftest import GraphOf

REWRITES = (Rewrite.SQUEEZE_FIRST, Rewrite.TAPS_FIRST, Rewrite.MATRIX_RESIZE)
BOUNDS = {
    "ffnet_seg_512_ade_160k": 70,
    "upernet_ffnet_2_512_160k_ade20k": 140,
    "upernet_ffnet_3_512_160k_ade20k": 160,
    "upernet_ffnet_4_512_160k_ade20k": 197,
}
"""10^9 multiply-adds at 512x512, all rewrites."""
SIZES = ((512, 512), (512, 2048), (1024, 2048))


def counted(model: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Multiply-adds of the network before and after all rewrites, by PyTorch's counter."""
    network = DeployedNetwork(model, Normalization(), InputKind.FLOAT, OutputKind.LOGITS).eval()
    run = FakeRun(network.backbone, size)
    after = before = run.multiply_adds(network.decode_head)
    for _, _, head in rewritten_heads(network.decode_head, REWRITES, run, (True, True)):
        after = run.multiply_adds(head)
    return before, after


@pytest.mark.parametrize("name", ["tiny_seg", "tiny_upernet"])
def test_manifest_and_graph_count_alike(name: str, tiny: Mapping[str, Any], graph_of: GraphOf) -> None:
    sides = DimensionRange.fixed(96), DimensionRange.fixed(160)
    before, after = counted(tiny[name].model, (96, 160))
    assert multiply_adds(graph_of(name, ExportOptions(*sides))) == before
    assert multiply_adds(graph_of(name, ExportOptions(*sides, rewrites=REWRITES))) == after


@pytest.mark.slow
@pytest.mark.parametrize("name", BOUNDS)
def test_published_networks_are_within_their_bounds(name: str) -> None:
    side = DimensionRange.fixed(512)
    segmentor = open_segmentor(load_config(name))
    found = multiply_adds(build_graph(segmentor, ExportOptions(side, side, rewrites=REWRITES))) / 1e9
    print(f"{name}: {found:.2f} G")
    assert found <= BOUNDS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*BOUNDS, "ffnet_seg_1024_city_160k"])
def test_wide_inputs_never_take_more_than_before(name: str) -> None:
    model = open_segmentor(load_config(name)).model
    for size in SIZES:
        before, after = counted(model, size)
        print(f"| `{name}` | {size[0]}x{size[1]} | {before / 1e9:.1f} | {after / 1e9:.1f} | {after / before:.2f} |")
        assert after < before


def test_table_of_a_run_is_what_the_exporter_reads() -> None:
    rows = [
        {"runtime": "openvino", "rewrites": [], "median_ms": 9.004, "form": "as traced"},
        {"runtime": "openvino", "rewrites": ["squeeze-first"], "median_ms": 7.0, "form": "squeeze-first"},
        {"runtime": "openvino", "rewrites": ["matrix-resize"], "median_ms": None, "form": "matrix-resize"},
    ]
    cpu = {"model": "A processor", "affinity": [0, 1], "load": [0.25, 0, 0]}
    run = {"before": {"cpu": cpu}, "versions": {"openvino": "2026.4"}}
    case = {"network": "mine", "decoder": "FFNetHead", "output": "logits", "size": [64, 96], "run": run, "rows": rows}
    (written,) = measured_table([case])["measurements"]
    read = measurement(written)
    assert read.best.rewrites == (Rewrite.SQUEEZE_FIRST,)
    assert [form.milliseconds for form in read.forms] == [9.0, 7.0]
    assert read.machine == "A processor, 2 cores, load 0.2, openvino 2026.4"
