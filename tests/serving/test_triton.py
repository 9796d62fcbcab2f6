"""Model repositories, read with Triton's own protobuf."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from ffnet_deploy.artifacts.manifest import write_manifest
from ffnet_deploy.core.contract import Contract, DimensionRange, InputKind, IOType, OutputKind
from ffnet_deploy.core.errors import ArtifactError, OptionError, StorageError
from ffnet_deploy.evaluation.preprocessing import network_input
from ffnet_deploy.serving.triton import write_repository
from ffnet_deploy.serving.triton_config import InstanceKind, TritonOptions
from tests.core.test_files import largest_file
from tests.engines.bundles import write_bundle
from tests.engines.test_bundle import PLAN, content
from tests.toy import CAMVID, contract, fixed, many_classes, picture
from tests.toy import write_onnx as write_unshaped

pytest.importorskip("tritonclient.grpc")


def write_onnx(path: Path, described: Contract) -> Path:
    """The toy network with the shape of its output, as exported graphs have it."""
    import onnx

    write_unshaped(path, described)
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(path)), path)
    write_manifest(path, "onnx", {})
    return path


def read(folder: Path) -> Any:
    """The configuration in `folder` as Triton's own message."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


def data_type(name: str) -> int:
    from tritonclient.grpc import model_config_pb2

    return int(model_config_pb2.DataType.Value(f"TYPE_{name}"))


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


CAMERA = {"input": InputKind.BGR, "output": OutputKind.LABELS, "batch": DimensionRange(1, 2, 4)}


def test_a_graph_becomes_a_model(tmp_path: Path) -> None:
    described = contract(**CAMERA, height=DimensionRange.fixed(64), width=DimensionRange.fixed(96))
    graph = write_onnx(tmp_path / "toy.onnx", described)
    repository = write_repository(graph, tmp_path / "models")
    assert repository.models == ("toy",)
    assert tree(repository.folder) == ["toy/1/model.onnx", "toy/config.pbtxt", "toy/labels.txt"]
    assert (repository.folder / "toy/1/model.onnx").read_bytes() == graph.read_bytes()
    assert (repository.folder / "toy/labels.txt").read_text().splitlines() == list(CAMVID.classes)
    config = read(repository.folder / "toy")
    assert (config.name, config.backend, config.max_batch_size) == ("toy", "onnxruntime", 4)
    assert (config.input[0].name, list(config.input[0].dims)) == ("image", [64, 96, 3])
    assert (config.input[0].data_type, config.output[0].data_type) == (data_type("UINT8"), data_type("UINT8"))
    assert (config.output[0].name, config.output[0].label_filename) == ("labels", "labels.txt")
    assert list(config.dynamic_batching.preferred_batch_size) == [2]
    assert config.dynamic_batching.max_queue_delay_microseconds == 100
    assert config.instance_group[0].count == 1 and config.instance_group[0].kind == 0
    assert Contract.from_json(config.parameters["contract"].string_value) == described
    assert "TRITON_IMAGE tritonserver" in repository.command and str(repository.folder) in repository.command


def test_an_engine_becomes_a_model(tmp_path: Path) -> None:
    engine = tmp_path / "toy.fp16.engine"
    tensors = {"input": [-1, 3, -1, -1], "output": [-1, 11, -1, -1]}
    write_bundle(engine, PLAN, {**content(), "tensors": tensors})
    options = TritonOptions(name="street", instances=2, kind=InstanceKind.GPU, delay=500)
    repository = write_repository(engine, tmp_path / "models", options)
    assert tree(repository.folder) == ["street/1/model.plan", "street/config.pbtxt", "street/labels.txt"]
    config = read(repository.folder / "street")
    assert (config.backend, config.max_batch_size, list(config.output[0].dims)) == ("tensorrt", 4, [11, -1, -1])
    assert (config.instance_group[0].count, config.instance_group[0].kind) == (2, 1)
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    assert config.optimization.cuda.graphs
    (spec,) = config.optimization.cuda.graph_spec
    assert spec.batch_size == 2 and list(spec.input["image"].dim) == [3, 64, 96], "the shape that it is made for"
    (warmup,) = config.model_warmup
    assert warmup.batch_size == 2 and list(warmup.inputs["image"].dims) == [3, 64, 96]
    assert warmup.inputs["image"].zero_data and warmup.inputs["image"].data_type == data_type("FP32")
    plain = TritonOptions(name="plain", cuda_graph=False, warmup=False)
    config = read(write_repository(engine, tmp_path / "models", plain).folder / "plain")
    assert not config.HasField("optimization") and not config.model_warmup


def test_a_fixed_batch_is_served_as_it_comes(tmp_path: Path) -> None:
    graph = write_onnx(tmp_path / "toy.onnx", contract(**fixed(64, 96)))
    config = read(write_repository(graph, tmp_path / "models").folder / "toy")
    assert config.max_batch_size == 0 and list(config.input[0].dims) == [1, 3, 64, 96]
    assert not config.HasField("dynamic_batching")
    assert not config.HasField("optimization"), "CUDA graphs are TensorRT's"
    assert config.model_warmup[0].batch_size == 1 and list(config.model_warmup[0].inputs["image"].dims) == [
        1,
        3,
        64,
        96,
    ]


def test_names_with_quotes_and_accents_survive(tmp_path: Path) -> None:
    described = contract(classes=('road "A"\\', "café"), palette=((0, 0, 0), (1, 1, 1)))
    graph = write_onnx(tmp_path / "toy.onnx", described)
    config = read(write_repository(graph, tmp_path / "models").folder / "toy")
    assert json.loads(config.parameters["contract"].string_value)["classes"] == list(described.classes)


def test_labels_of_many_classes_are_typed_as_the_backend_gives_them(tmp_path: Path) -> None:
    graph = write_onnx(tmp_path / "toy.onnx", many_classes(300, output=OutputKind.LABELS))
    config = read(write_repository(graph, tmp_path / "models").folder / "toy")
    assert config.output[0].data_type == model_types().TYPE_UINT16
    assert len((tmp_path / "models/toy/labels.txt").read_text().splitlines()) == 300


def model_types() -> Any:
    from tritonclient.grpc import model_config_pb2

    return model_config_pb2


def test_an_ensemble_takes_bytes_and_computes_the_same(tmp_path: Path) -> None:
    described = contract(batch=DimensionRange(1, 1, 4), height=DimensionRange.fixed(64), width=DimensionRange.fixed(96))
    graph = write_onnx(tmp_path / "toy.onnx", described)
    repository = write_repository(graph, tmp_path / "models", TritonOptions(ensemble=True))
    assert repository.models == ("toy_ensemble", "toy", "toy_preprocessing")
    ensemble, first = read(repository.folder / "toy_ensemble"), read(repository.folder / "toy_preprocessing")
    steps = ensemble.ensemble_scheduling.step
    assert ensemble.platform == "ensemble" and [step.model_name for step in steps] == ["toy_preprocessing", "toy"]
    assert list(ensemble.input[0].dims) == list(first.input[0].dims) == [64, 96, 3]
    assert (repository.folder / "toy_ensemble/1").is_dir(), "Triton asks for a version's folder, be it empty"
    image = picture(64, 96)
    tensors = {steps[0].input_map["image"]: image[None]}
    for step in steps:
        session = onnxruntime.InferenceSession(str(repository.folder / step.model_name / "1" / "model.onnx"))
        given = {name: tensors[tensor] for name, tensor in step.input_map.items()}
        names = list(step.output_map)
        tensors.update(
            {step.output_map[name]: value for name, value in zip(names, session.run(names, given), strict=True)}
        )
    expected = onnxruntime.InferenceSession(str(graph)).run(None, {"image": network_input(image[None], described)})[0]
    np.testing.assert_allclose(tensors["logits"], expected, rtol=1e-4, atol=1e-4)


def test_fp16_at_the_boundary_is_told_and_made_by_the_ensemble(tmp_path: Path) -> None:
    described = contract(io=IOType.FP16, **fixed(64, 96))
    engine = tmp_path / "toy.fp16.engine"
    tensors = {"input": [1, 3, 64, 96], "output": [1, 11, 2, 3]}
    described_content = {**content(), "contract": json.loads(described.to_json()), "tensors": tensors}
    write_bundle(engine, PLAN, described_content)
    repository = write_repository(engine, tmp_path / "models", TritonOptions(ensemble=True))
    network, first = read(repository.folder / "toy.fp16"), read(repository.folder / "toy.fp16_preprocessing")
    half = data_type("FP16")
    assert network.input[0].data_type == network.output[0].data_type == first.output[0].data_type == half
    model = repository.folder / "toy.fp16_preprocessing/1/model.onnx"
    image = picture(64, 96)[None]
    found = onnxruntime.InferenceSession(str(model)).run(None, {"image": image})[0]
    np.testing.assert_array_equal(found, network_input(image, described))


def test_a_model_is_replaced_as_a_whole_and_others_stay(tmp_path: Path) -> None:
    graph = write_onnx(tmp_path / "toy.onnx", contract())
    write_repository(graph, tmp_path / "models", TritonOptions(name="other"))
    write_repository(graph, tmp_path / "models")
    (tmp_path / "models/toy/1/left.over").touch()
    write_repository(graph, tmp_path / "models")
    assert tree(tmp_path / "models") == [
        f"{name}/{file}" for name in ("other", "toy") for file in ("1/model.onnx", "config.pbtxt", "labels.txt")
    ]


def test_what_a_server_cannot_run_is_refused(tmp_path: Path) -> None:
    camera = write_onnx(tmp_path / "camera.onnx", contract(**CAMERA))
    with pytest.raises(OptionError, match="preprocessing is in its graph"):
        write_repository(camera, tmp_path / "models", TritonOptions(ensemble=True))
    with pytest.raises(OptionError, match="does not run engines of TensorRT for RTX"):
        write_repository(tmp_path / "toy.rtx.engine", tmp_path / "models")
    pairs = write_onnx(tmp_path / "pairs.onnx", contract(batch=DimensionRange(2, 2, 4)))
    with pytest.raises(OptionError, match=r"fills batches from single requests[\s\S]*--batch 1:2:4"):
        write_repository(pairs, tmp_path / "models")
    with pytest.raises(ArtifactError, match="does not say which shape 'logits' has"):
        write_repository(write_unshaped(tmp_path / "unshaped.onnx", contract()), tmp_path / "models")
    with pytest.raises(ArtifactError, match="there is no artefact"):
        write_repository(tmp_path / "none.onnx", tmp_path / "models")
    (tmp_path / "models" / "camera").mkdir(parents=True)
    with pytest.raises(OptionError, match="is no model that ffnet-export wrote"):
        write_repository(camera, tmp_path / "models")
    for wrong in ({"name": "../a"}, {"name": ""}, {"instances": 0}, {"delay": -1}):
        with pytest.raises(OptionError):
            TritonOptions(**wrong)
    assert tree(tmp_path / "models") == []


def test_a_full_disk_leaves_the_model_before(tmp_path: Path) -> None:
    graph = write_onnx(tmp_path / "toy.onnx", contract())
    write_repository(graph, tmp_path / "models")
    before = {path: (tmp_path / "models" / path).read_bytes() for path in tree(tmp_path / "models")}
    with largest_file(1 << 10), pytest.raises(StorageError, match="no room left"):
        write_repository(graph, tmp_path / "models")
    assert {path: (tmp_path / "models" / path).read_bytes() for path in tree(tmp_path / "models")} == before
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["toy"]
