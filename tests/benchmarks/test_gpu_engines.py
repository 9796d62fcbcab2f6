"""What travels to a GPU machine, and engines measured with it, as far as stand-ins of CUDA and TensorRT go."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu_engines as gpu
from benchmarks.gpu_reference import Reference, build_options, find_references, verify_engine
from ffnet_deploy.benchmark.files import run_from_dict
from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.core.precision import Precision
from ffnet_deploy.evaluation.preprocessing import network_input
from ffnet_deploy.export import engine as engine_maker
from tests.benchmarks import standin_python
from tests.benchmarks.conftest import toy_contract, write_toy_reference
from tests.conftest import REPOSITORY
from tests.toy import ToyEngine

pytest.importorskip("onnx")


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    (found,) = find_references(write_toy_reference(tmp_path))
    return found


@pytest.fixture
def standins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in standin_python.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(engine_maker, "build_plan", standin_python.build_plan)


def built(reference: Reference, tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "engines" / f"{graph.stem}.engine" for graph in reference.graphs]
    for graph, path in zip(reference.graphs, paths, strict=True):
        assert gpu.build(reference, graph, path, tmp_path / f"{graph.name}.json", samples=2) == []
    return paths


def test_cases_are_single_images_and_the_largest_batch(reference: Reference) -> None:
    cases = list(reference.cases())
    assert [len(case.images) for case in cases] == [1, 1, 8] and cases[-1].name == "8 images"
    for case in cases:
        output = ToyEngine(toy_contract()).run(network_input(case.images, toy_contract()))
        np.testing.assert_allclose(case.output, output, rtol=1e-4, atol=1e-3)
    found = verify_engine(ToyEngine(toy_contract()), reference, Precision.FP32)
    assert found.failures == [] and found.agreement == 100 and len(found.comparisons) == 3
    assert found.miou == (reference.about["mIoU"],) * 2 and found.scored_images == 3


def test_a_wrong_engine_is_caught(reference: Reference) -> None:
    wrong = ToyEngine(toy_contract())
    right = wrong.function
    wrong.function = lambda batch: right(batch)[:, ::-1].copy()
    found = verify_engine(wrong, reference, Precision.INT8)
    assert any("label agreement" in failure for failure in found.failures)
    assert found.miou[0] == reference.about["mIoU"] != found.miou[1]
    untrained = replace(reference, about={**reference.about, "trained": False, "data": None})
    assert all("relative error" in failure for failure in verify_engine(wrong, untrained, Precision.FP16).failures)


def test_an_engine_that_takes_no_case_is_an_error(reference: Reference) -> None:
    other = replace(toy_contract(), height=replace(toy_contract().height, min=96, opt=96, max=96))
    with pytest.raises(ArtifactError, match="the shape of no case"):
        verify_engine(ToyEngine(other), reference, Precision.FP32)


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"format": 2}', '{"format": 99}'])
def test_a_folder_that_is_none_is_one_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "reference.json").write_text(content)
    with pytest.raises(ArtifactError, match="to do"):
        find_references(tmp_path)


def test_single_images_and_the_largest_batch_have_a_profile_each(reference: Reference) -> None:
    options = build_options(reference.graphs[0])
    shapes = options.profile_shapes(toy_contract())
    assert [shape.as_option() for shape in shapes] == ["1@64x96", "2:8:8@64x96"]


def test_an_engine_is_built_compared_and_recorded(reference: Reference, standins: None, tmp_path: Path) -> None:
    built(reference, tmp_path)
    record = json.loads((tmp_path / "toy.fp16.onnx.json").read_text())
    assert record["gpu"]["compute_capability"] == [9, 0] and record["engine"] == "toy.fp16.engine"
    assert record["profiles"] == ["1@64x96", "2:8:8@64x96"]
    assert record["verification"]["agreement"] == 100 and record["verification"]["passed"]
    assert record["verification"]["mIoU"]["candidate"] == pytest.approx(reference.about["mIoU"])
    assert [stream["images per batch"] for stream in record["streams"]] == [1, 8]
    assert all(len(times) == gpu.STREAMS for stream in record["streams"] for times in stream["seconds"].values())


def test_what_is_measured_before_a_failure_is_kept(
    reference: Reference, standins: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise TypeError("incompatible function arguments")

    monkeypatch.setattr(gpu, "_stream", fails)
    with pytest.raises(TypeError, match="incompatible"):
        gpu.build(reference, reference.graphs[0], tmp_path / "toy.engine", tmp_path / "record.json", samples=2)
    assert json.loads((tmp_path / "record.json").read_text())["verification"]["passed"]


def test_engines_are_timed_side_by_side_with_their_layers(reference: Reference, standins: None, tmp_path: Path) -> None:
    engines = [*built(reference, tmp_path), tmp_path / "absent.engine"]
    assert gpu.time_engines(reference, engines, tmp_path / "times.json", 0, samples=2) == []
    timing = json.loads((tmp_path / "times.json").read_text())["timing"]
    assert set(timing) == {"network", "device"}
    for raw in timing.values():
        run = run_from_dict(raw)
        names = [one.name for one in run.candidates]
        assert names[:2] == ["toy.engine", "toy.fp16.engine"] and "toy.engine, no CUDA graph" in names
        assert {row.setting.batch for row in run.measurements} == {1, 8}
        assert all(row.error is None and row.summary.count >= 2 for row in run.measurements)
    first = run_from_dict(timing["network"]).measurements[0]
    assert first.profile is not None and {layer.name for layer in first.profile.layers} == {"conv", "resize"}
    with pytest.raises(OptionError, match="none of 1 engines is built"):
        gpu.time_engines(reference, engines[2:], tmp_path / "none.json", 0)


@pytest.mark.parametrize("failing", [1, 2])
def test_what_the_bindings_raise_loses_nothing_that_is_measured(
    reference: Reference, standins: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    whole, calls = gpu.bench, []

    def fail_once(*arguments: object, **named: object) -> object:
        calls.append(arguments)
        if len(calls) == failing:
            raise TypeError("incompatible function arguments")
        return whole(*arguments, **named)

    monkeypatch.setattr(gpu, "bench", fail_once)
    engines = built(reference, tmp_path)
    (failure,) = gpu.time_engines(reference, engines, tmp_path / "times.json", 0, samples=2)
    assert "TypeError: incompatible function arguments" in failure
    timing = json.loads((tmp_path / "times.json").read_text())["timing"]
    assert sorted("error" in one for one in timing.values()) == [False, True]


def test_an_engine_that_cannot_be_opened_takes_no_part(reference: Reference, standins: None, tmp_path: Path) -> None:
    engines = built(reference, tmp_path)
    engines[0].write_bytes(b"damaged")
    assert gpu.time_engines(reference, engines, tmp_path / "times.json", 0, samples=2) == []
    run = json.loads((tmp_path / "times.json").read_text())["timing"]["network"]
    assert {one["candidate"] for one in run["missing"]} == {"toy.engine", "toy.engine, no CUDA graph"}
    assert "toy.fp16.engine" in [one["name"] for one in run["candidates"]]


BLOCKED = ("torch", "mmseg", "mmengine", "mmcv", "onnx", "onnxruntime", "openvino", "scipy", "safetensors", "PIL")


def test_without_a_gpu_it_ends_in_one_line_and_needs_no_torch_nor_onnx_runtime(
    reference: Reference, tmp_path: Path
) -> None:
    program = (
        f"import sys\nfor name in {BLOCKED!r}:\n    sys.modules[name] = None\n"
        "import runpy\nrunpy.run_module('benchmarks.gpu_engines', run_name='__main__')"
    )
    files = ("--engine", str(tmp_path / "toy.engine"), "--out", str(tmp_path / "record.json"))
    done = subprocess.run(
        [sys.executable, "-c", program, "build", str(reference.folder), "toy.onnx", *files],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.startswith("error: there is no CUDA device here")
