"""MMSegmentation's own segmentors: those with a form for every size, and those that are traced as they are."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mmseg")

from ffnet_deploy.artifacts.manifest import read_manifest  # noqa: E402
from ffnet_deploy.cli.evaluate import app as evaluate_app  # noqa: E402
from ffnet_deploy.cli.export import app  # noqa: E402
from ffnet_deploy.core.contract import DimensionRange, InputKind, Normalization, OutputKind  # noqa: E402
from ffnet_deploy.core.errors import ConfigError, OptionError  # noqa: E402
from ffnet_deploy.core.precision import Precision  # noqa: E402
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine  # noqa: E402
from ffnet_deploy.engines.torch import TorchEngine  # noqa: E402
from ffnet_deploy.export.engine import build_engine  # noqa: E402
from ffnet_deploy.export.equivalence import compare_blocks  # noqa: E402
from ffnet_deploy.export.graph_file import write_graph  # noqa: E402
from ffnet_deploy.export.network import DeployedNetwork  # noqa: E402
from ffnet_deploy.export.onnx import build_graph  # noqa: E402
from ffnet_deploy.export.reparameterize import reparameterize  # noqa: E402
from ffnet_deploy.export.rewrites import Rewrite, rewrite  # noqa: E402
from ffnet_deploy.segmentor.config import load_config  # noqa: E402
from ffnet_deploy.segmentor.load import Segmentor, open_segmentor  # noqa: E402
from scenes import SceneOptions  # noqa: E402
from scenes.dataset import write_scenes  # noqa: E402
from tests.commands import invoke  # noqa: E402
from tests.engines.tensorrt.rtx import OPTIONS, exported, in_precision  # noqa: E402
from tests.engines.tensorrt.typed import save  # noqa: E402
from tests.export.test_onnx import DYNAMIC, REWRITES, STATIC, UNEVEN, worst_error  # noqa: E402
from tests.tiny import ANY_SIZE, OTHERS, write_checkpoint  # noqa: E402

Named = Callable[[str], Segmentor]
SLOW = ("tiny_hrnet",)
"""What is built of many modules."""
FORMS = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in ANY_SIZE]
TRACED = [name for name in OTHERS if name not in ANY_SIZE]
APPLIED = {
    "tiny_pspnet": [Rewrite.TAPS_FIRST],
    "tiny_segformer": [Rewrite.SQUEEZE_FIRST, Rewrite.MATRIX_RESIZE],
    "tiny_fcn": [],
    "tiny_deeplabv3plus": [Rewrite.TAPS_FIRST, Rewrite.MATRIX_RESIZE],
    "tiny_hrnet": [Rewrite.SQUEEZE_FIRST, Rewrite.MATRIX_RESIZE],
    "tiny_dnl": [],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Config and checkpoint of a small segmentor, by name."""
    folder = tmp_path_factory.mktemp("others")
    return cache(lambda name: write_checkpoint(folder, name))


@pytest.fixture(scope="module")
def segmentor(files: Callable[[str], tuple[Path, Path]]) -> Named:
    """A small segmentor, by name."""
    return cache(lambda name: open_segmentor(*files(name)))


@pytest.mark.parametrize("name", FORMS)
def test_dynamic_rewritten_graph_is_exact_at_every_size(name: str, segmentor: Named, tmp_path: Path) -> None:
    graph = build_graph(segmentor(name), replace(DYNAMIC, rewrites=REWRITES))
    assert "BatchNormalization" not in {node.op_type for node in graph.graph.node}
    assert worst_error(segmentor(name), graph, UNEVEN, tmp_path) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("name", ANY_SIZE)
def test_dynamic_graph_as_traced_is_exact_at_every_size(
    name: str, opset: int, segmentor: Named, tmp_path: Path
) -> None:
    graph = build_graph(segmentor(name), replace(DYNAMIC, opset=opset))
    assert worst_error(segmentor(name), graph, UNEVEN, tmp_path) < 1e-5


@pytest.mark.parametrize(
    "name", ["tiny_dnl", *(pytest.param(one, marks=pytest.mark.slow) for one in OTHERS if one != "tiny_dnl")]
)
def test_every_segmentor_is_exact_at_a_fixed_size(name: str, segmentor: Named, tmp_path: Path) -> None:
    graph = build_graph(segmentor(name), replace(STATIC, rewrites=REWRITES))
    assert worst_error(segmentor(name), graph, [(96, 160)], tmp_path) < 1e-5


@pytest.mark.parametrize("name", ["tiny_fpn", "tiny_ocrnet"])
def test_a_neck_and_a_cascade_are_part_of_the_network(name: str, segmentor: Named) -> None:
    model, x = segmentor(name).model, torch.randn(1, 3, 64, 96)
    network = DeployedNetwork(model, Normalization(), InputKind.FLOAT, OutputKind.LOGITS, (64, 96)).eval()
    with torch.no_grad():
        torch.testing.assert_close(network(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", TRACED)
def test_a_decoder_without_a_form_needs_one_size(name: str, segmentor: Named) -> None:
    kind = segmentor(name).config.decoder
    with pytest.raises(OptionError, match=f"{kind} is traced as it is.*give it by --shape 256x256"):
        build_graph(segmentor(name), DYNAMIC)


@pytest.mark.parametrize("name", APPLIED)
def test_rewrites_apply_where_they_apply_and_are_exact(name: str, segmentor: Named) -> None:
    model = segmentor(name).model
    network = DeployedNetwork(model, Normalization(), InputKind.FLOAT, OutputKind.LOGITS, (96, 160)).eval()
    size = (DimensionRange.fixed(96), DimensionRange.fixed(160))
    rewritten, applied = rewrite(network, list(Rewrite), *size, torch.randn(1, 3, 96, 160))
    assert [one.name for one in applied] == APPLIED[name]
    assert all(one.float64_error <= 1e-12 for one in applied), applied
    assert all(one.macs_after < one.macs_before for one in applied if one.name is not Rewrite.MATRIX_RESIZE)
    x = torch.randn(2, 3, 96, 160)
    with torch.no_grad():
        torch.testing.assert_close(rewritten(x), network(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", OTHERS)
def test_batch_norms_fold_exactly(name: str, segmentor: Named) -> None:
    wide = copy.deepcopy(segmentor(name).model).double()
    folded = reparameterize(wide)
    left = [key for key, module in folded.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert [key for key in left if not key.startswith("auxiliary_head")] == []
    worst = max(
        compare_blocks(wide, folded, torch.randn(1, 3, 96, 160, dtype=torch.float64)), key=lambda one: one.relative
    )
    assert worst.relative < 1e-9, worst


def test_a_batch_norm_without_a_convolution_before_it_stays_and_is_named(segmentor: Named) -> None:
    changed = replace(segmentor("tiny_fcn"), model=copy.deepcopy(segmentor("tiny_fcn").model))
    changed.model.decode_head.convs.insert(0, torch.nn.BatchNorm2d(64).eval())
    graph = build_graph(changed, STATIC).graph
    assert [node.name for node in graph.node if node.op_type == "BatchNormalization"] == [
        "/decode_head/convs/convs.0/BatchNormalization"
    ]


@pytest.mark.parametrize("name", ["tiny_segformer", "tiny_pspnet"])
def test_bgr_input_costs_nothing(name: str, segmentor: Named) -> None:
    model, x = segmentor(name).model, torch.randn(1, 3, 64, 96)
    network = DeployedNetwork(model, Normalization(), InputKind.BGR, OutputKind.LOGITS).eval()
    with torch.no_grad():
        torch.testing.assert_close(network.decode_head(network.backbone(x.flip(1))), model(x), rtol=1e-4, atol=1e-4)


def test_labels_are_those_of_pytorch(segmentor: Named, tmp_path: Path) -> None:
    options = replace(STATIC, output=OutputKind.LABELS, rewrites=(Rewrite.SQUEEZE_FIRST, Rewrite.PHASE_LABELS))
    write_graph(build_graph(segmentor("tiny_segformer"), options), tmp_path / "x.onnx")
    batch = np.random.default_rng(2).normal(size=(1, 3, 96, 160)).astype(np.float32)
    with OnnxRuntimeEngine(tmp_path / "x.onnx") as engine:
        reference = TorchEngine(segmentor("tiny_segformer").model, engine.contract)
        assert (engine.run(batch) == reference.run(batch)).mean() > 0.9995


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("num_classes=8", "num_classes=8, align_corners=True"), "align_corners=True, which is not supported"),
        (("num_classes=8", "num_classes=2, out_channels=1"), "by a threshold on 1 channel, which is not supported"),
    ],
)
def test_decoders_whose_logits_mean_something_else_are_refused(
    change: tuple[str, str], told: str, tmp_path: Path
) -> None:
    path = tmp_path / "other.py"
    path.write_text(OTHERS["tiny_fcn"].replace(*change).replace("label_set", "_"))
    with pytest.raises(ConfigError, match=told):
        load_config(path)


def test_a_decoder_that_gives_several_maps_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dual.py"
    head = 'dict(type="DAHead", in_channels=64, in_index=3, channels=16, pam_channels=8, **options)'
    path.write_text(
        OTHERS["tiny_fcn"].replace(
            'dict(type="FCNHead", in_channels=64, in_index=3, channels=16, num_convs=2, **options)', head
        )
    )
    with pytest.raises(OptionError, match="DAHead gives no map of logits"):
        build_graph(open_segmentor(path), STATIC)


@pytest.mark.parametrize(
    "name",
    ["tiny_segformer", *(pytest.param(one, marks=pytest.mark.slow) for one in OTHERS if one != "tiny_segformer")],
)
def test_export_in_all_precisions_is_verified_and_scored(
    name: str, files: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    config, checkpoint = files(name)
    write_scenes(tmp_path / "scenes", "val", 3, 7, SceneOptions(height=64, width=96))
    data = ("--data", tmp_path / "scenes")
    calibration = ("--calib-images", tmp_path / "scenes" / "images", "--calib-count", "2")
    # labels of random weights flip easily: the gate of INT8 is loose, its noise is another test's
    command = ("--config", config, "--checkpoint", checkpoint, "--shape", "64x96", *data, "--out", tmp_path)
    done = invoke(app, *command, "--fp16", "--int8", *calibration, "--min-agreement", "50", "--max-drop", "100")
    assert done.exit_code == 0, done.output
    manifest = read_manifest(tmp_path / f"{name}.onnx")
    assert manifest["verification"]["agreement"] > 99.9
    assert manifest["reparameterisation"]["not_folded"] == []
    assert read_manifest(tmp_path / f"{name}.fp16.onnx")["verification"]["agreement"] > 99
    scored = invoke(evaluate_app, "--artifact", tmp_path / f"{name}.int8.onnx", *data)
    assert scored.exit_code == 0 and "mIoU" in scored.output, scored.output


@pytest.mark.slow
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", ANY_SIZE)
def test_engines_of_tensorrt_for_rtx_build(name: str, dynamic: bool, precision: Precision, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    graph = save(in_precision(exported(name, dynamic), precision), tmp_path / "x.onnx")
    check = build_engine(graph, tmp_path / "x.rtx.engine", OPTIONS).bundle.manifest["precision_check"]
    assert check["network"]["violations"] == []
    assert check["network"]["convolutions"][precision.value] > 1
