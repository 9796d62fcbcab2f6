import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from ffnet_deploy.core.contract import TestProtocol
from ffnet_deploy.core.errors import DataError, OptionError, StorageError
from ffnet_deploy.evaluation.datasets import open_dataset, open_images
from ffnet_deploy.evaluation.evaluate import EvaluateOptions, evaluate, write_evaluation
from ffnet_deploy.evaluation.prediction_files import SaveOptions
from ffnet_deploy.evaluation.protocol import PredictOptions, predict
from ffnet_deploy.evaluation.scores import confusion_matrix, scores
from tests.toy import CAMVID, ToyEngine, contract, fixed, write_pairs


def test_scores_are_those_of_all_predictions_together(tmp_path: Path) -> None:
    dataset = open_dataset(write_pairs(tmp_path), "camvid")
    engine, seen = ToyEngine(contract()), []
    found = evaluate(engine, dataset, progress=lambda stage, done, total: seen.append((done, total)))
    total = np.zeros((11, 11), np.int64)
    for sample in dataset.samples:
        image, labels = dataset.read(sample, 11)
        total += confusion_matrix(predict(engine, image).labels, labels, 11)
    assert found.scores == scores(total, CAMVID.classes)
    assert (found.images, found.dataset, found.split) == (3, "camvid", "val")
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_limit_scores_the_first_images(tmp_path: Path) -> None:
    dataset = open_dataset(write_pairs(tmp_path), "camvid")
    assert evaluate(ToyEngine(contract()), dataset, EvaluateOptions(limit=2)).images == 2


def test_notes_are_given_once(tmp_path: Path) -> None:
    dataset = open_dataset(write_pairs(tmp_path), "camvid")
    found = evaluate(ToyEngine(contract(**fixed(64, 64))), dataset)
    assert len(found.notes) == 1
    assert found.to_dict()["notes"] == list(found.notes)


def test_the_json_holds_the_published_keys(tmp_path: Path) -> None:
    dataset = open_dataset(write_pairs(tmp_path / "data"), "camvid")
    options = EvaluateOptions(TestProtocol(scale=(128, 96)), PredictOptions((0.5, 1.0), flip=True))
    found = evaluate(ToyEngine(contract()), dataset, options)
    write_evaluation(tmp_path / "out" / "scores.json", found, {"backend": "toy", "artifact": None, "sources": {}})
    written = json.loads((tmp_path / "out/scores.json").read_text())
    assert {
        "mIoU",
        "aAcc",
        "mAcc",
        "per_class",
        "images",
        "notes",
        "backend",
        "artifact",
        "protocol",
        "sources",
    } <= set(written)
    assert written["protocol"]["scale"] == [128, 96]
    assert written["protocol"]["ratios"] == [0.5, 1.0] and written["protocol"]["flip"] is True
    assert list(written["per_class"]) == list(CAMVID.classes)
    assert written["mIoU"] == found.scores.mean_iou


def test_images_without_labels_are_predicted_and_drawn(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data", 2)
    found = evaluate(
        ToyEngine(contract()), open_images(root / "images"), EvaluateOptions(save=SaveOptions(images=tmp_path / "out"))
    )
    assert found.scores is None and "mIoU" not in found.to_dict()
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")) == [
        "val/scene_0.png",
        "val/scene_1.png",
    ]


def test_an_image_too_narrow_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "thin.png"), np.zeros((900, 1, 3), np.uint8))
    with pytest.raises(DataError, match=r"thin\.png: an image of 1x900"):
        evaluate(ToyEngine(contract()), open_images(tmp_path))


def test_what_the_artefact_cannot_do_fails_before_the_first_image(tmp_path: Path) -> None:
    engine = ToyEngine(contract(**fixed(64, 64)))
    dataset = open_dataset(write_pairs(tmp_path), "camvid")
    with pytest.raises(OptionError):
        evaluate(engine, dataset, EvaluateOptions(TestProtocol(mode="slide", crop=(32, 32), stride=(16, 16))))
    assert engine.shapes == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full")
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(write_pairs(tmp_path / "data", 1), "camvid")
    monkeypatch.setattr(Path, "write_bytes", lambda path, content: os.write(os.open("/dev/full", os.O_WRONLY), content))
    with pytest.raises(StorageError, match="no room left"):
        evaluate(ToyEngine(contract()), dataset, EvaluateOptions(save=SaveOptions(images=tmp_path / "out")))
    assert list((tmp_path / "out").iterdir()) == []
    found = evaluate(ToyEngine(contract()), dataset)
    with pytest.raises(StorageError, match="no room left"):
        write_evaluation(tmp_path / "out" / "scores.json", found, {})
    assert list((tmp_path / "out").iterdir()) == []


def test_an_unwritable_folder_is_an_error_before_the_first_image(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    engine = ToyEngine(contract())
    with pytest.raises(StorageError, match="cannot write"):
        dataset = open_dataset(write_pairs(tmp_path / "data"), "camvid")
        evaluate(engine, dataset, EvaluateOptions(save=SaveOptions(images=tmp_path / "file" / "out")))
    assert engine.shapes == []


def test_pictures_never_replace_what_they_show_or_other_files(tmp_path: Path) -> None:
    image = np.full((64, 96, 3), 90, np.uint8)
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    samples = open_images(tmp_path)
    with pytest.raises(OptionError, match=r"a\.png is an input of this command"):
        evaluate(ToyEngine(contract()), samples, EvaluateOptions(save=SaveOptions(images=tmp_path)))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "b.png").write_bytes(before["a.png"])
    with pytest.raises(OptionError, match=r"b\.png is there already"):
        evaluate(ToyEngine(contract()), samples, EvaluateOptions(save=SaveOptions(images=tmp_path / "own")))
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["b.png"]  # refused before the first picture
    for _ in range(2):  # its own pictures may be replaced
        evaluate(ToyEngine(contract()), samples, EvaluateOptions(save=SaveOptions(images=tmp_path / "new")))
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.png")} == before
