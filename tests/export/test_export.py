"""What an export leaves behind: a verified file with its manifest, or evidence, or nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from ffnet_deploy.artifacts.manifest import read_manifest
from ffnet_deploy.core.contract import DimensionRange
from ffnet_deploy.core.errors import StorageError, VerificationError
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine
from ffnet_deploy.evaluation.verify import Tolerance, VerifyOptions, packaged_images
from ffnet_deploy.export import onnx as makers
from ffnet_deploy.export.onnx import ExportOptions, export_onnx, target_path
from ffnet_deploy.segmentor.load import Segmentor
from tests.conftest import GraphOf

OPTIONS = ExportOptions(DimensionRange.fixed(64), DimensionRange.fixed(96))
VERIFY = VerifyOptions(packaged_images(2), "packaged street scenes")


@pytest.fixture
def prebuilt(monkeypatch: pytest.MonkeyPatch, graph_of: GraphOf) -> Callable[[onnx.ModelProto], None]:
    """Makes the pipeline write the graph it is called with; at first the right one of tiny_seg."""

    def install(graph: onnx.ModelProto) -> None:
        monkeypatch.setattr(makers, "trace_network", lambda network, contract, opset: graph)

    install(graph_of("tiny_seg", OPTIONS))
    return install


def test_exported_file_comes_with_a_manifest_that_fits_it(tiny: dict[str, Segmentor], tmp_path: Path) -> None:
    steps: list[str] = []
    exported = export_onnx(tiny["tiny_seg"], OPTIONS, tmp_path / "out", VERIFY, steps.append)
    manifest = read_manifest(exported.path)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["tiny_seg.onnx", "tiny_seg.onnx.json"]
    assert steps == ["re-parameterising", "tracing and simplifying", "verifying", "writing"]
    assert manifest["verification"]["passed"] is True
    assert manifest["verification"]["images"] == "packaged street scenes"
    assert manifest["contract"]["sources"] == tiny["tiny_seg"].sources
    assert manifest["reparameterisation"]["worst_relative"] < 1e-4
    assert {"torch", "onnx", "onnxruntime", "ffnet-deploy"} <= set(manifest["tools"])
    with OnnxRuntimeEngine(exported.path) as engine:
        assert engine.contract == exported.contract


def test_wrong_graph_is_rejected_and_kept_as_evidence(
    tiny: dict[str, Segmentor], graph_of: GraphOf, prebuilt: Callable[[onnx.ModelProto], None], tmp_path: Path
) -> None:
    spoilt = onnx.ModelProto()
    spoilt.CopyFrom(graph_of("tiny_seg", OPTIONS))
    weight = next(tensor for tensor in spoilt.graph.initializer if tensor.name == "decode_head.conv_seg.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.01, weight.name))
    prebuilt(spoilt)
    with pytest.raises(VerificationError, match=r"relative error .* > 1.0e-04 on scene"):
        export_onnx(tiny["tiny_seg"], OPTIONS, tmp_path, VERIFY)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny_seg.rejected"]
    evidence = json.loads((tmp_path / "tiny_seg.rejected" / "verification.json").read_text())
    assert evidence["verification"]["passed"] is False
    assert (tmp_path / "tiny_seg.rejected" / "tiny_seg.onnx").is_file()


def test_ctrl_c_leaves_nothing(
    tiny: dict[str, Segmentor], prebuilt: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(makers, "verify", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_onnx(tiny["tiny_seg"], OPTIONS, tmp_path, VERIFY)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_former_one_alone(
    tiny: dict[str, Segmentor], prebuilt: Callable[[onnx.ModelProto], None], tmp_path: Path
) -> None:
    path = export_onnx(tiny["tiny_seg"], OPTIONS, tmp_path, VERIFY).path
    before = path.read_bytes()
    with pytest.raises(VerificationError):
        export_onnx(
            tiny["tiny_seg"],
            OPTIONS,
            tmp_path,
            VerifyOptions(VERIFY.images, "x", tolerance=Tolerance(relative=0)),
        )
    assert path.read_bytes() == before
    assert read_manifest(path)["verification"]["passed"] is True


def test_folder_that_cannot_be_made_is_one_clear_error(tiny: dict[str, Segmentor], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        export_onnx(tiny["tiny_seg"], OPTIONS, tmp_path / "file" / "out", VERIFY)


FULL_DISK = """
import resource, sys
from pathlib import Path
from ffnet_deploy.core.errors import StorageError
from ffnet_deploy.export.graph_file import write_graph
import onnx
graph = onnx.load(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # the system refuses to write beyond
try:
    write_graph(graph, Path(sys.argv[2]))
except StorageError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits on file size are a POSIX feature")
def test_full_disk_is_one_clear_error(graph_of: GraphOf, tmp_path: Path) -> None:
    onnx.save(graph_of("tiny_seg", OPTIONS), tmp_path / "in.onnx")
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert "no room left to write" in done.stdout


def test_out_is_a_folder_or_a_file(tmp_path: Path) -> None:
    assert target_path(tmp_path, "net") == tmp_path / "net.onnx"
    assert target_path(tmp_path / "own.onnx", "net") == tmp_path / "own.onnx"


def test_no_room_for_the_manifest_leaves_the_former_export_alone(
    tiny: dict[str, Segmentor], prebuilt: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = export_onnx(tiny["tiny_seg"], OPTIONS, tmp_path, VERIFY).path
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise StorageError("no room left")

    monkeypatch.setattr("ffnet_deploy.artifacts.staging.write_manifest", full)
    with pytest.raises(StorageError):
        export_onnx(tiny["tiny_seg"], OPTIONS, tmp_path, VERIFY)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert read_manifest(path)["verification"]["passed"] is True
