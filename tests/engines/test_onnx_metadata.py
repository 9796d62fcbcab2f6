"""What is read without the onnx package is what the onnx package reads."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from cyclopts import App

from ffnet_deploy.artifacts.manifest import manifest_path, read_manifest, seal, write_manifest
from ffnet_deploy.benchmark.profiling import node_costs
from ffnet_deploy.cli.bench import app as bench_app
from ffnet_deploy.cli.evaluate import app as eval_app
from ffnet_deploy.cli.export import app as export_app
from ffnet_deploy.core.contract import METADATA_KEY, DimensionRange, InputKind, OutputKind
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.core.files import json_bytes
from ffnet_deploy.core.precision import PRECISION_KEY, Precision, PrecisionRecord
from ffnet_deploy.engines.onnx_metadata import (
    external_files,
    node_at,
    read_description,
    read_metadata,
    tensor_shape,
    with_int32_labels,
)
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeOptions
from ffnet_deploy.engines.openvino import OpenVinoEngine
from ffnet_deploy.evaluation.verify import VerifyOptions
from ffnet_deploy.export.reduce import ReductionOptions, Target, reduce_precision
from ffnet_deploy.serving.triton import write_repository
from tests.commands import invoke
from tests.toy import ToyEngine, contract, fixed, many_classes, write_onnx

onnx = pytest.importorskip("onnx")


def test_description_is_that_of_the_file(tmp_path: Path) -> None:
    described = contract(input=InputKind.BGR, output=OutputKind.LABELS)
    path = write_onnx(tmp_path / "toy.onnx", described)
    assert read_description(path) == (described, PrecisionRecord())
    model = onnx.load(path)
    record = PrecisionRecord(Precision.FP16, Precision.FP16, float32=("/a/Conv", "/ä/Add"))
    onnx.helper.set_model_props(
        model, {METADATA_KEY: described.to_json(), PRECISION_KEY: record.to_json(), "empty": ""}
    )
    onnx.save(model, path)
    assert read_description(path) == (described, record)
    assert read_metadata(path) == {entry.key: entry.value for entry in model.metadata_props}


def test_nodes_and_shapes_are_those_of_the_file(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "toy.onnx", contract(**fixed(64, 96), input=InputKind.RGB))
    for index, node in enumerate(onnx.load(path).graph.node):
        assert node_at(path, index) == f"{node.name or f'node {index}'} ({node.op_type})"
    assert node_at(path, 99) == node_at(path, -1) == "the graph"
    assert tensor_shape(path, "image") == (1, 64, 96, 3)
    dynamic = write_onnx(tmp_path / "dynamic.onnx", contract(width=DimensionRange.fixed(96)))
    assert tensor_shape(dynamic, "image") == (-1, 3, -1, 96)
    with pytest.raises(ArtifactError, match="has no input or output 'labels'"):
        tensor_shape(dynamic, "labels")


def test_uint16_labels_become_int32_and_nothing_else_changes(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "toy.onnx", many_classes(300, output=OutputKind.LABELS))
    patched = with_int32_labels(path)
    assert patched is not None
    model, original = onnx.load_from_string(patched), onnx.load(path)
    cast = model.graph.node[-1]
    assert (cast.op_type, cast.attribute[0].i) == ("Cast", onnx.TensorProto.INT32)
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.INT32
    cast.attribute[0].i = model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.UINT16
    assert model == original
    for described in (contract(output=OutputKind.LABELS), contract()):
        assert with_int32_labels(write_onnx(path, described)) is None


@pytest.mark.parametrize("content", [b"", b"no graph", bytes(100), b"\xff" * 50, b"PK\x03\x04" + bytes(30)])
def test_files_that_are_no_graph_are_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "toy.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="to do"):
        read_description(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_cut_files_are_one_clear_error(tmp_path: Path, share: float) -> None:
    path = write_onnx(tmp_path / "toy.onnx", contract())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ArtifactError, match="to do"):
        read_description(path)


def test_a_missing_file_and_a_strangers_graph_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"there is no artefact .*none\.onnx"):
        read_description(tmp_path / "none.onnx")
    path = write_onnx(tmp_path / "toy.onnx", contract(), metadata=False)
    with pytest.raises(ArtifactError, match="was not exported by ffnet-export"):
        read_description(path)


def with_external_weights(folder: Path, location: str = "toy.onnx.data", inside: str = "initializer") -> Path:
    """A graph whose kernel lies in the file `location`; `inside` a branch of an If, where it is a node's tensor."""
    path = write_onnx(folder / "toy.onnx", contract(**fixed(64, 96)))
    model = onnx.load(path)
    kernel = model.graph.initializer[0]
    if inside == "branch":
        branch = onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["c"], value=kernel)], "b", [], [])
        node = onnx.helper.make_node("If", ["condition"], ["unused"], then_branch=branch, else_branch=branch)
        model.graph.node.append(node)
        kernel = model.graph.node[-1].attribute[0].g.node[0].attribute[0].t
    onnx.external_data_helper.set_external_data(kernel, location)
    (folder / "weights").write_bytes(kernel.raw_data)
    kernel.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    write_manifest(path, "onnx", {"contract": json.loads(contract(**fixed(64, 96)).to_json())})
    return path


def through_reduction(path: Path) -> None:
    options = ReductionOptions(Target.FP16)
    reduce_precision(path, None, options, VerifyOptions([], "none"), ToyEngine(contract(**fixed(64, 96))))


def refused(app: App, *arguments: object) -> None:
    """Raises what the command says."""
    result = invoke(app, *arguments)
    assert result.exit_code != 0, result.output
    raise ArtifactError(" ".join(result.output.split()))


READERS: dict[str, Callable[[Path], object]] = {
    "description": read_description,
    "onnxruntime": OnnxRuntimeEngine,
    "onnxruntime, unchecked": lambda path: OnnxRuntimeEngine(path, OnnxRuntimeOptions(check_manifest=False)),
    "openvino": OpenVinoEngine,
    "manifest": read_manifest,
    "triton": lambda path: write_repository(path, path.parent / "models"),
    "profile": lambda path: node_costs(path, np.zeros((1, 3, 64, 96), np.float32)),
    "reduction": through_reduction,
    "ffnet-export": lambda path: refused(export_app, "--onnx", path, "--fp16", "--out", path.parent / "out"),
    "ffnet-eval": lambda path: refused(eval_app, "--artifact", path, "--images", path.parent),
    "ffnet-bench": lambda path: refused(bench_app, path, "--rounds", 1),
}


def stop(signum: int, frame: object) -> None:
    raise AssertionError("reading waits for a pipe")


@pytest.fixture
def no_waiting() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["pipe", "link", "device"])
def test_weights_in_what_is_no_plain_file_are_refused_before_they_are_opened(
    reader: str, kind: str, tmp_path: Path, no_waiting: None
) -> None:
    path = with_external_weights(tmp_path)
    weights = tmp_path / "toy.onnx.data"
    if kind == "pipe":
        os.mkfifo(weights)
    else:
        weights.symlink_to("weights" if kind == "link" else "/dev/zero")
    if reader == "manifest":
        content = read_manifest(path)
        manifest_path(path).write_bytes(json_bytes(seal({**content, "files": {weights.name: "0" * 64}})))
    with pytest.raises(ArtifactError, match=r"toy\.onnx\.data is a (pipe or device|link)"):
        READERS[reader](path)


@pytest.mark.parametrize("location", ["../weights", "/dev/zero", "..", "", "below/weights"])
def test_weights_out_of_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no file in its folder"):
        read_description(with_external_weights(tmp_path, location))


def test_weights_within_a_branch_are_found(tmp_path: Path) -> None:
    path = with_external_weights(tmp_path, inside="branch")
    assert external_files(path) == ("toy.onnx.data",)
    (tmp_path / "toy.onnx.data").symlink_to("weights")
    with pytest.raises(ArtifactError, match="is a link"):
        read_description(path)


def test_plain_weights_beside_the_graph_are_read(tmp_path: Path) -> None:
    path = with_external_weights(tmp_path)
    (tmp_path / "weights").rename(tmp_path / "toy.onnx.data")
    assert external_files(path) == ("toy.onnx.data",)
    with OnnxRuntimeEngine(path) as engine:
        assert engine.run(np.zeros((1, 3, 64, 96), np.float32)).shape[:2] == (1, 11)


def test_a_graph_that_is_a_pipe_is_refused(tmp_path: Path, no_waiting: None) -> None:
    os.mkfifo(tmp_path / "toy.onnx")
    with pytest.raises(ArtifactError, match="is a pipe or device"):
        OnnxRuntimeEngine(tmp_path / "toy.onnx")


@pytest.mark.parametrize("suffix", [".onnx", ".engine"])
def test_a_path_that_is_not_utf8_says_so(suffix: str, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/toy\xff" + suffix.encode()))
    path.write_bytes(b"something")
    for app, arguments in (
        (eval_app, ["--artifact", path, "--images", tmp_path]),
        (bench_app, [path]),
        *([(export_app, ["--onnx", path, "--fp16"])] if suffix == ".onnx" else []),
    ):
        result = invoke(app, *arguments)
        assert result.exit_code == 1, result.output
        assert "is not UTF-8" in " ".join(result.output.split()), result.output
