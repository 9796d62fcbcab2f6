"""A file of ranges gives the same graph again, and is refused, with the reason, for anything it was not measured on."""

import json
from pathlib import Path

import onnx
import pytest

from ffnet_deploy.calib import (
    CalibrationOptions,
    Method,
    calibrate,
    key_of,
    quantize_graph,
    read_calibration,
    write_calibration,
)
from ffnet_deploy.calib.ranges import Calibration, CalibrationKey
from ffnet_deploy.core.contract import METADATA_KEY, Normalization
from ffnet_deploy.core.errors import ArtifactError
from tests.calib.networks import images, network, set_weight, weight
from tests.toy import contract, fixed

OPTIONS = CalibrationOptions(Method.MINMAX)


@pytest.fixture(scope="module")
def measured() -> tuple[onnx.ModelProto, Calibration]:
    model = network()
    return model, calibrate(model, images(3), OPTIONS)


@pytest.fixture
def file(measured: tuple[onnx.ModelProto, Calibration], tmp_path: Path) -> Path:
    path = tmp_path / "ranges.json"
    write_calibration(path, measured[1])
    return path


def test_a_file_gives_the_same_graph_without_images(measured: tuple[onnx.ModelProto, Calibration], file: Path) -> None:
    model, ranges = measured
    read = read_calibration(file, key_of(model, images(3), OPTIONS))
    assert read.key == ranges.key
    first = quantize_graph(model, images(3), OPTIONS, ranges=ranges).model
    again = quantize_graph(model, [], OPTIONS, ranges=read).model
    assert first.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)


def test_the_second_calibration_writes_the_same_file(measured: tuple[onnx.ModelProto, Calibration], file: Path) -> None:
    other = file.with_name("again.json")
    write_calibration(other, calibrate(measured[0], images(3), OPTIONS))
    assert other.read_bytes() == file.read_bytes()


def changed_weights(model: onnx.ModelProto) -> CalibrationKey:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    set_weight(other, "squeeze.weight", weight(other, "squeeze.weight") * 1.001)
    return key_of(other, images(3), OPTIONS)


def changed_preprocessing(model: onnx.ModelProto) -> CalibrationKey:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    described = contract(**fixed(32, 64), normalization=Normalization((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)))
    onnx.helper.set_model_props(other, {METADATA_KEY: described.to_json()})
    return key_of(other, images(3), OPTIONS)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (changed_weights, "graph +another graph or other weights"),
        (changed_preprocessing, "preprocessing +images prepared in another way"),
        (lambda model: key_of(model, images(3)[::-1], OPTIONS), "images +other images, or in another order"),
        (lambda model: key_of(model, images(2), OPTIONS), "images +other images"),
        (
            lambda model: key_of(model, images(3), CalibrationOptions(Method.ENTROPY)),
            "method +measured with minmax, .*; asked for entropy",
        ),
        (
            lambda model: key_of(model, images(3), CalibrationOptions(Method.MINMAX, equalize=False)),
            "asked for minmax, int8, calibrator native, biases corrected",
        ),
    ],
)
def test_ranges_of_something_else_are_refused(
    key: object, reason: str, measured: tuple[onnx.ModelProto, Calibration], file: Path
) -> None:
    assert callable(key)
    with pytest.raises(ArtifactError, match=reason) as refused:
        read_calibration(file, key(measured[0]))
    assert "measured on something else" in str(refused.value)
    assert "to do" in str(refused.value)


def test_what_is_kept_unquantised_has_no_part_in_the_key(measured: tuple[onnx.ModelProto, Calibration]) -> None:
    model, ranges = measured
    options = CalibrationOptions(Method.MINMAX, keep=("/stem",))
    assert key_of(model, images(3), options) == ranges.key
    result = quantize_graph(model, [], options, ranges=ranges)
    assert "/stem/Conv" not in result.record.quantized


def test_missing_and_damaged_files(measured: tuple[onnx.ModelProto, Calibration], file: Path) -> None:
    key = key_of(measured[0], images(3), OPTIONS)
    with pytest.raises(ArtifactError, match="there is no file of ranges"):
        read_calibration(file.with_name("none.json"), key)
    content = json.loads(file.read_text())
    for damage in ("{", "[]", json.dumps({**content, "format": 99}), json.dumps({**content, "tensors": {"a": 1}})):
        file.write_text(damage)
        with pytest.raises(ArtifactError, match="is damaged"):
            read_calibration(file, key)


def test_ranges_of_another_network_are_refused_when_applied(measured: tuple[onnx.ModelProto, Calibration]) -> None:
    other = network()
    for node in other.graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                names[at] = name.replace("squeeze_act", "renamed")
    with pytest.raises(ArtifactError, match="ranges are of another graph: they lack 1 tensors"):
        quantize_graph(other, [], OPTIONS, ranges=measured[1])
