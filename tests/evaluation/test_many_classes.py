"""More than 255 classes, which 8 bits do not tell apart, on every backend and in every file."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ffnet_deploy.core.contract import InputKind, OutputKind
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine
from ffnet_deploy.evaluation.datasets import open_dataset
from ffnet_deploy.evaluation.evaluate import EvaluateOptions, evaluate
from ffnet_deploy.evaluation.prediction_files import SaveOptions
from ffnet_deploy.evaluation.protocol import predict
from tests.toy import ToyEngine, many_classes, picture, write_onnx

COUNT = 300


def write_data(root: Path, labels: np.ndarray) -> Path:
    for kind, content in (("images", picture(64, 96)), ("annotations", labels)):
        (root / kind / "val").mkdir(parents=True)
        cv2.imwrite(str(root / kind / "val" / "a.png"), content)
    return root


def constant(best: int) -> Any:
    """An engine that sees class `best` everywhere."""
    scores = np.zeros((1, COUNT, 16, 24), np.float32)
    scores[:, best] = 1
    return ToyEngine(many_classes(COUNT), lambda batch: scores)


@pytest.mark.parametrize(("predicted", "expected"), [(260, 100.0), (4, 0.0), (255, 0.0)])
def test_class_260_is_not_scored_as_class_4(predicted: int, expected: float, tmp_path: Path) -> None:
    root = write_data(tmp_path, np.full((64, 96), 260, np.uint16))
    found = evaluate(
        constant(predicted), open_dataset(root, "custom"), EvaluateOptions(save=SaveOptions(images=tmp_path / "drawn"))
    )
    assert found.scores is not None and found.scores.pixel_accuracy == expected
    assert cv2.imread(str(tmp_path / "drawn" / "a.png")) is not None


def test_class_255_is_scored_and_65535_is_not(tmp_path: Path) -> None:
    labels = np.full((64, 96), 65535, np.uint16)
    labels[:32] = 255
    found = evaluate(constant(255), open_dataset(write_data(tmp_path, labels), "custom"))
    assert found.scores is not None and found.scores.pixel_accuracy == 100
    assert found.scores.per_class["class 255"].iou == 100


def test_artefacts_that_give_labels_give_uint16_on_every_cpu_engine(tmp_path: Path) -> None:
    described = many_classes(COUNT, input=InputKind.BGR, output=OutputKind.LABELS)
    path = write_onnx(tmp_path / "toy.onnx", described)
    scored = write_onnx(tmp_path / "logits.onnx", many_classes(COUNT, input=InputKind.BGR))
    image = picture(64, 96)
    with OnnxRuntimeEngine(path) as engine, OnnxRuntimeEngine(scored) as reference:
        labels, expected = predict(engine, image).labels, predict(reference, image).labels
        assert engine.run(image[None]).dtype == np.uint16 and labels.dtype == np.uint16
    assert expected.max() > 255 and (labels == expected).mean() > 0.99
    openvino = pytest.importorskip("ffnet_deploy.engines.openvino")
    pytest.importorskip("openvino")
    with openvino.OpenVinoEngine(path, openvino.OpenVinoOptions(threads=1)) as engine:
        assert engine.run(image[None]).dtype == np.uint16
        assert (predict(engine, image).labels == labels).mean() > 0.999
