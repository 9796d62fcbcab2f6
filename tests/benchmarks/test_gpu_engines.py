"""The folder for a GPU machine, and what is measured with it, as far as stand-ins of CUDA and TensorRT go."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import gpu_engines as gpu
from benchmarks.gpu_reference import Gate, find_references, verify_engine
from benchmarks.prepare_gpu import Cases, check_source, describe, prepare
from ffnet_deploy.benchmark.files import run_from_dict
from ffnet_deploy.core.contract import Contract, OutputKind
from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.core.precision import Precision, PrecisionRecord
from ffnet_deploy.engines.bundle import Bundle
from ffnet_deploy.engines.cuda import find_device
from ffnet_deploy.engines.tensorrt import runner
from ffnet_deploy.engines.tensorrt.variant import Variant
from ffnet_deploy.evaluation.datasets import open_dataset
from tests.conftest import REPOSITORY
from tests.engines.tensorrt.conftest import cuda, trt  # noqa: F401  # fixtures
from tests.engines.tensorrt.trt_standin import TrtStandIn, network
from tests.toy import ToyEngine, contract, logits, weights, write_onnx, write_pairs

pytest.importorskip("onnx")
STRICT = Gate(99.99, 0.01, 1e-6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two graphs of the toy network with the references of their FP32 engine."""
    graphs = [write_onnx(tmp_path / name, contract()) for name in ("toy.onnx", "toy.fp16.onnx")]
    dataset = open_dataset(write_pairs(tmp_path / "data", 5), "camvid")
    prepare(graphs, ToyEngine(contract()), dataset, Cases(images=3, outputs=4), tmp_path / "gpu")
    return tmp_path / "gpu"


def test_what_was_prepared_is_found_again(folder: Path) -> None:
    (reference,) = find_references(folder)
    assert [path.name for path in reference.graphs] == ["toy.onnx", "toy.fp16.onnx"]
    assert len(reference.dataset) == 3 and all(sample.labels for sample in reference.dataset.samples)
    cases = list(reference.cases())
    assert len(cases) == 4 and len({case.images.shape for case in cases}) >= 3, "images of every size to verify at"
    assert cases[-1].images.shape[0] == contract().batch.max
    result = verify_engine(ToyEngine(contract()), reference, STRICT)
    assert result.failures == [] and result.agreement == 100 and len(result.cases) == 4
    assert result.miou == (reference.miou, reference.miou) and result.images == 3


def test_a_wrong_engine_is_caught(folder: Path) -> None:
    (reference,) = find_references(folder)
    wrong = ToyEngine(contract())
    right = wrong.function
    wrong.function = lambda batch: right(batch)[:, ::-1].copy()
    result = verify_engine(wrong, reference, Gate(99.0, 0.1, 10.0))
    assert "label agreement" in result.failures[0]
    assert result.miou[0] == reference.miou != result.miou[1]


def test_graphs_of_several_networks_are_refused(tmp_path: Path) -> None:
    one = write_onnx(tmp_path / "a.onnx", contract())
    other = write_onnx(tmp_path / "b.onnx", contract(network="other"))
    with pytest.raises(OptionError, match="not of one network"):
        describe([one, other])
    with pytest.raises(OptionError, match="name the graphs"):
        describe([])
    assert describe([one]) == contract()


def test_graphs_of_another_checkpoint_are_refused() -> None:
    check_source({"checkpoint": "a" * 64, "config": "b"}, {"checkpoint": "a" * 64, "config": "c"})
    with pytest.raises(OptionError, match=r"(?s)aaaaaaaaaaaa\.\.\..*bbbbbbbbbbbb.*export them again"):
        check_source({"checkpoint": "a" * 64}, {"checkpoint": "b" * 64})


def test_generated_scenes_stand_in_for_missing_data(tmp_path: Path) -> None:
    graph = write_onnx(tmp_path / "toy.onnx", contract())
    prepare([graph], ToyEngine(contract()), None, Cases(outputs=2), tmp_path / "gpu")
    (reference,) = find_references(tmp_path / "gpu")
    result = verify_engine(ToyEngine(contract()), reference, STRICT)
    assert reference.dataset is None and result.failures == [] and result.miou is None


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"format": 1}', '{"format": 99}'])
def test_a_folder_that_is_none_is_one_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "reference.json").write_text(content)
    with pytest.raises(ArtifactError, match="to do"):
        find_references(tmp_path)


@pytest.fixture
def building(trt: TrtStandIn, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Engines that are built by writing down what they are of."""
    bundles: dict[Path, Bundle] = {}

    def build_engine(graph: Path, out: Path, options: object, progress: object, notes: object) -> SimpleNamespace:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(b"plan")
        manifest = {"precision": {"precision": "fp32"}, "build": {}, "precision_check": {}}
        manifest |= {"bytes": 4, "sha256": "0" * 64}
        plan = trt.plan(network(contract()))
        bundles[out] = Bundle(out, plan, contract(), PrecisionRecord(), Variant.TENSORRT, manifest)
        return SimpleNamespace(bundle=bundles[out])

    monkeypatch.setattr(gpu, "build_engine", build_engine)
    monkeypatch.setattr(runner, "read_bundle", lambda path, trust, device: bundles[path])


def quick(tmp_path: Path) -> gpu.Plan:
    return gpu.Plan(tmp_path / "engines", tmp_path / "records", seconds=0, samples=3, rounds=2, warmup=0, stream=(3, 2))


def test_all_is_measured_and_every_sample_kept(folder: Path, building: None, tmp_path: Path) -> None:
    (reference,) = find_references(folder)
    path, failures = gpu.measure(reference, quick(tmp_path), find_device())
    assert failures == [] and path.name == "toy.stand-in-gpu.trt.json"
    record = json.loads(path.read_text())
    assert record["gpu"]["compute_capability"] == [9, 0] and record["network"] == "toy"
    assert [entry["engine"] for entry in record["engines"]] == ["toy.engine", "toy.fp16.engine"]
    for entry in record["engines"]:
        assert entry["verification"]["agreement"] == 100 and entry["verification"]["failures"] == []
        assert entry["verification"]["miou"] == [reference.miou, reference.miou]
        assert all(len(times) == 2 for times in entry["streams"]["seconds"].values())
    assert set(record["timing"]) == {"network", "device"}
    for raw in record["timing"].values():
        run = run_from_dict(raw)
        names = [one.name for one in run.candidates]
        assert names[:2] == ["toy.engine", "toy.fp16.engine"] and "toy.engine, no CUDA graph" in names
        timed = next(row for row in run.measurements if row.candidate == "toy.engine")
        assert timed.summary.count >= 3 and timed.error is None
    layers = run_from_dict(record["timing"]["network"]).measurements[0].profile
    assert layers is not None and {layer.name for layer in layers.layers} == {"conv", "resize"}


def test_an_engine_that_fails_leaves_the_others_and_says_so(
    folder: Path, building: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = gpu.build_engine

    def fail_once(graph: Path, *arguments: object, **named: object) -> object:
        if "fp16" in graph.name:
            raise ArtifactError("the builder gave up\n  to do    this or that")
        return made(graph, *arguments, **named)

    monkeypatch.setattr(gpu, "build_engine", fail_once)
    (reference,) = find_references(folder)
    path, failures = gpu.measure(reference, quick(tmp_path), find_device())
    assert failures == ["toy.fp16.onnx: the builder gave up"]
    record = json.loads(path.read_text())
    assert record["engines"][1]["error"].startswith("the builder gave up") and record["timing"]["network"]


@pytest.mark.parametrize("place", ["build_engine", "bench"])
def test_what_the_bindings_raise_loses_nothing_that_is_measured(
    folder: Path, building: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    whole, calls = getattr(gpu, place), []

    def fail_the_second_time(*arguments: object, **named: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise TypeError("incompatible function arguments")
        return whole(*arguments, **named)

    monkeypatch.setattr(gpu, place, fail_the_second_time)
    (reference,) = find_references(folder)
    path, failures = gpu.measure(reference, quick(tmp_path), find_device())
    record = json.loads(path.read_text())
    assert len(failures) == 1 and "TypeError: incompatible function arguments" in failures[0]
    assert record["failures"] == failures
    assert record["engines"][0]["verification"]["failures"] == [] and record["timing"]["network"]["measurements"]


def test_a_candidate_that_cannot_be_opened_takes_no_part(
    folder: Path, building: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = gpu.artifact_candidates

    def one_fails(*arguments: object) -> object:
        found = whole(*arguments)
        return [replace(found[0], open=lambda threads, streams: 1 / 0), *found[1:]]

    monkeypatch.setattr(gpu, "artifact_candidates", one_fails)
    (reference,) = find_references(folder)
    path, failures = gpu.measure(reference, quick(tmp_path), find_device())
    run = json.loads(path.read_text())["timing"]["network"]
    assert failures == [] and "ZeroDivisionError: division by zero" in str(run["missing"])
    assert "toy.fp16.engine" in [one["name"] for one in run["candidates"]]


def test_one_label_of_many_is_no_failure_in_fp32(tmp_path: Path) -> None:
    described, kernel = contract(output=OutputKind.LABELS), weights(11)

    def labels(batch: np.ndarray) -> np.ndarray:
        return logits(batch, kernel).argmax(1).astype(np.uint8)

    def one_off(batch: np.ndarray) -> np.ndarray:
        found = labels(batch)
        found[0, 0, 0] = (found[0, 0, 0] + 1) % 11
        return found

    graph = write_onnx(tmp_path / "toy.onnx", described)
    prepare([graph], ToyEngine(described, labels), None, Cases(outputs=1), tmp_path / "gpu")
    (reference,) = find_references(tmp_path / "gpu")
    result = verify_engine(ToyEngine(described, one_off), reference, Gate(99.0, 0.05, Gate.of(Precision.FP32).relative))
    assert result.failures == [] and 0 < result.cases[0].largest < 1e-2
    assert result.cases[0].agreement < 100


BLOCKED = ("torch", "mmseg", "mmengine", "mmcv", "onnx", "onnxruntime", "openvino", "scipy", "safetensors", "PIL")


def test_without_a_gpu_it_ends_in_one_line_and_needs_no_torch_nor_onnx_runtime(folder: Path) -> None:
    program = (
        f"import sys\nfor name in {BLOCKED!r}:\n    sys.modules[name] = None\n"
        "import runpy\nrunpy.run_module('benchmarks.gpu_engines', run_name='__main__')"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=REPOSITORY,
        env=environment,
    )
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.startswith("error: there is no CUDA device here")


def test_outputs_travel_unchanged(folder: Path) -> None:
    (reference,) = find_references(folder)
    described: Contract = contract()
    engine = ToyEngine(described)
    for case in reference.cases():
        from ffnet_deploy.evaluation.preprocessing import network_input

        np.testing.assert_array_equal(case.output, engine.run(network_input(case.images, described)))
