"""What is read without the onnx package is what the onnx package reads."""

from pathlib import Path

import pytest

from ffnet_deploy.core.contract import METADATA_KEY, DimensionRange, InputKind, OutputKind
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.core.precision import PRECISION_KEY, Precision, PrecisionRecord
from ffnet_deploy.engines.onnx_metadata import node_at, read_description, read_metadata, tensor_shape, with_int32_labels
from tests.toy import contract, fixed, many_classes, write_onnx

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
