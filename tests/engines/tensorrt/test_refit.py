"""Engines without weights get those of a graph: on the stand-in, since refitting needs a GPU."""

import json
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ffnet_deploy.artifacts import read_manifest
from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.core.precision import PrecisionRecord
from ffnet_deploy.engines.bundle import open_bundle, read_bundle
from ffnet_deploy.engines.tensorrt.options import BuildOptions, BuildTarget
from ffnet_deploy.engines.tensorrt.runner import TensorRTEngine
from ffnet_deploy.export.engine import export_layers, refit_engine
from tests.engines.bundles import write_bundle
from tests.engines.tensorrt.trt_standin import TrtStandIn, network
from tests.engines.test_bundle import content
from tests.toy import contract, fixed, logits, many_classes, write_onnx

DESCRIBED = contract(**fixed(64, 96))


class Refitting(TrtStandIn):
    """TensorRT as it is from 10 on: weights of a graph replace those of an engine."""

    SerializationFlag = Enum("SerializationFlag", "EXCLUDE_WEIGHTS INCLUDE_REFIT")
    names = ("kernel",)

    def Refitter(self, engine: Any, log: Any) -> "Refitter":  # noqa: N802
        return Refitter(self, engine)

    def OnnxParserRefitter(self, refitter: "Refitter", log: Any) -> "Loader":  # noqa: N802
        return Loader(refitter)


class Refitter:
    def __init__(self, trt: Refitting, engine: Any) -> None:
        self.trt, self.engine = trt, engine
        self.weights: dict[str, np.ndarray] = {}

    def get_missing_weights(self) -> list[str]:
        return [name for name in self.trt.names if name not in self.weights]

    def refit_cuda_engine(self) -> bool:
        kernel = self.weights["kernel"]
        made = replace(self.engine._made, function=lambda batch: logits(batch, kernel))
        self.engine.create_serialization_config = Serialization
        self.engine.serialize_with_config = lambda config: self.trt.plan(made) if config.whole else b""
        return True


class Serialization:
    whole = False

    def clear_flag(self, flag: Enum) -> bool:
        self.whole = flag is Refitting.SerializationFlag.EXCLUDE_WEIGHTS
        return True


class Loader:
    num_errors = 0

    def __init__(self, refitter: Refitter) -> None:
        self.refitter = refitter

    def refit_from_file(self, path: str) -> bool:
        for tensor in onnx.load(path).graph.initializer:
            self.refitter.weights[tensor.name] = numpy_helper.to_array(tensor)
        return True


@pytest.fixture
def trt(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> Refitting:
    import sys

    made = Refitting(cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", made)
    return made


@pytest.fixture
def stripped(trt: Refitting, tmp_path: Path) -> Path:
    """An engine whose weights were left out, for the GPU of the stand-in."""
    path = tmp_path / "toy.engine"
    plan = trt.plan(network(DESCRIBED, function=lambda batch: np.full((1, 11, 16, 24), np.nan, np.float32)))
    gpu = trt.cuda.devices and BuildTarget(("9.0",), "Stand-in GPU", 12040)
    described = content(BuildOptions(strip_weights=True), gpu, trt.__version__)
    described |= {"contract": json.loads(DESCRIBED.to_json()), "precision": json.loads(PrecisionRecord().to_json())}
    write_bundle(path, plan, described)
    return path


def graph(path: Path, described: Contract = DESCRIBED) -> Path:
    return write_onnx(path, described)


def test_an_engine_without_weights_gets_those_of_the_graph_and_runs(stripped: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"--refit-engine \S*toy\.engine"):
        read_bundle(stripped)
    source, out = graph(tmp_path / "toy.onnx"), tmp_path / "whole.engine"
    refit_engine(stripped, source, out)
    manifest = read_manifest(out)
    assert manifest["build"]["options"]["strip_weights"] is False
    assert manifest["refitted_from"] == {"file": "toy.engine", "sha256": read_manifest(stripped)["sha256"]}
    assert f"--refit-engine {stripped}" in manifest["rebuild"] and manifest["graph"]["file"] == "toy.onnx"
    images = np.random.default_rng(0).normal(size=(1, 3, 64, 96)).astype(np.float32)
    with TensorRTEngine(out) as engine:
        np.testing.assert_array_equal(engine.run(images), network(DESCRIBED).function(images))
    assert not export_layers(open_bundle(out), tmp_path / "layers.json"), "no inspector has seen it"


def test_weights_that_the_graph_lacks_are_named_and_nothing_is_written(
    stripped: Path, trt: Refitting, tmp_path: Path
) -> None:
    trt.names = ("kernel", "bias")
    with pytest.raises(ArtifactError, match="weights without a value: bias"):
        refit_engine(stripped, graph(tmp_path / "toy.onnx"), tmp_path / "whole.engine")
    assert not list(tmp_path.glob("whole*"))


def test_what_cannot_be_refitted_is_one_clear_error(
    stripped: Path, cuda: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = graph(tmp_path / "other.onnx", many_classes(12))
    with pytest.raises(OptionError, match="of another network"):
        refit_engine(stripped, other, tmp_path / "whole.engine")
    whole = tmp_path / "full.engine"
    described = {**content(), "contract": json.loads(DESCRIBED.to_json())}
    write_bundle(whole, b"plan", described)
    source = graph(tmp_path / "toy.onnx")
    with pytest.raises(OptionError, match="built to keep its weights"):
        refit_engine(whole, source, tmp_path / "whole.engine")
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", TrtStandIn(cuda))
    with pytest.raises(OptionError, match=r"TensorRT 8\.5\.3 refits no engine from a graph"):
        refit_engine(stripped, source, tmp_path / "whole.engine")
