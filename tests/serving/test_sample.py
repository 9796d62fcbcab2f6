"""The script beside a graph: ONNX Runtime and OpenCV alone, and the label maps of the toolkit."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import ffnet_deploy
from ffnet_deploy.core.contract import InputKind, IOType, OutputKind, TestProtocol
from ffnet_deploy.evaluation.images import read_label_map
from ffnet_deploy.evaluation.packaged import packaged_scenes
from ffnet_deploy.serving.sample import write_sample
from tests.toy import contract, fixed, many_classes, picture, write_onnx

ALONE = "import sys; sys.modules.update(dict.fromkeys(('ffnet_deploy', 'torch', 'onnx', 'mmseg')));"
"""What the script must not need cannot be imported."""

SLIDE = TestProtocol(scale=(200, 96), mode="slide", crop=(64, 64), stride=(43, 43))


def labels_of_script(graph: Path, image: Path, out: Path) -> np.ndarray:
    script = write_sample(graph)
    program = f"{ALONE} import runpy; sys.argv[1:] = {[str(image), str(out)]!r}; runpy.run_path({str(script)!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return read_label_map(out)


@pytest.mark.parametrize(
    "described",
    [
        contract(),
        contract(input=InputKind.RGB),
        contract(input=InputKind.BGR, **fixed(64, 96, batch=2)),
        contract(protocol=TestProtocol(scale=(96, 64), keep_ratio=False)),
        contract(output=OutputKind.LABELS),
        contract(output=OutputKind.PROBABILITIES),
        contract(protocol=SLIDE),
        contract(protocol=SLIDE, **fixed(64, 64)),
        many_classes(300, output=OutputKind.LABELS),
        contract(io=IOType.FP16),
        contract(io=IOType.FP16, input=InputKind.BGR),
    ],
    ids=[
        "float",
        "rgb",
        "fixed-batch",
        "free-ratio",
        "labels",
        "probabilities",
        "slide",
        "slide-fixed",
        "uint16",
        "fp16",
        "fp16-bgr",
    ],
)
@pytest.mark.parametrize("size", [(90, 140)])
def test_the_script_gives_the_toolkits_labels(described: object, size: tuple[int, int], tmp_path: Path) -> None:
    graph = write_onnx(tmp_path / "toy.onnx", described)
    image = picture(*size)
    cv2.imwrite(str(tmp_path / "image.png"), image)
    with ffnet_deploy.open_engine(graph) as engine:
        expected = engine.predict(image)
    found = labels_of_script(graph, tmp_path / "image.png", tmp_path / "labels.png")
    assert found.dtype == expected.dtype and (found == expected).all()


def test_a_trained_network_labels_pictures_byte_for_byte_as_the_toolkit_does(tmp_path: Path) -> None:
    pytest.importorskip("mmseg")
    import onnx

    from ffnet_deploy.core.contract import DimensionRange
    from ffnet_deploy.export.onnx import ExportOptions, build_graph
    from ffnet_deploy.segmentor.load import open_segmentor

    options = ExportOptions(DimensionRange.fixed(384), DimensionRange.fixed(512))
    graph = tmp_path / "net.onnx"
    onnx.save(build_graph(open_segmentor("ffnet_seg_nano_scenes", "bundled"), options), graph)
    with ffnet_deploy.open_engine(graph) as engine:
        for sample in packaged_scenes().samples[:2]:
            found = labels_of_script(graph, sample.image, tmp_path / "labels.png")
            assert found.tobytes() == engine.predict(cv2.imread(str(sample.image))).tobytes(), sample.name


def test_the_export_writes_it_beside_the_graph(tmp_path: Path) -> None:
    pytest.importorskip("mmseg")
    from ffnet_deploy.cli.export import app
    from tests.commands import invoke

    graph = write_onnx(tmp_path / "toy.onnx", contract())
    done = invoke(app, "--onnx", graph, "--sample")
    assert done.exit_code == 0, done.output
    assert f"python {tmp_path / 'toy.sample.py'} IMAGE" in done.stdout
    assert invoke(app, "--onnx", graph, "--sample").exit_code == 0  # its own script is replaced
    (tmp_path / "toy.sample.py").write_text("print('mine')")
    assert "not a script that ffnet-export wrote" in invoke(app, "--onnx", graph, "--sample").stderr
    assert "no --bf16 or --fp8" in invoke(app, "--onnx", graph, "--bf16", "--sample").stderr
