"""Predictions as files: what others read from them is what was predicted, by the official evaluators too."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.label_sets import label_set
from ffnet_deploy.evaluation.datasets import open_dataset, open_images
from ffnet_deploy.evaluation.evaluate import EvaluateOptions, evaluate
from ffnet_deploy.evaluation.images import read_label_map
from ffnet_deploy.evaluation.prediction_files import LabelFormat, SaveOptions, label_png
from ffnet_deploy.evaluation.protocol import PredictOptions, predict
from tests.toy import ToyEngine, contract, many_classes, write_pairs


def named(name: str, **changes: object) -> object:
    labels = label_set(name)
    return contract(dataset=name, classes=labels.classes, palette=labels.palette, **changes)


def saved(tmp_path: Path, **folders: object) -> EvaluateOptions:
    return EvaluateOptions(save=SaveOptions(**folders))


def test_label_maps_and_probabilities_are_those_predicted(tmp_path: Path) -> None:
    from PIL import Image

    data, engine = open_images(write_pairs(tmp_path / "data", 2) / "images"), ToyEngine(contract())
    options = EvaluateOptions(save=SaveOptions(labels=tmp_path / "labels", scores=tmp_path / "scores"))
    evaluate(engine, data, options)
    evaluate(engine, data, options)  # its own files are replaced
    for sample in data.samples:
        found = predict(engine, cv2.imread(str(sample.image)), options=PredictOptions(scores=True))
        path = tmp_path / "labels" / f"{sample.name}.png"
        assert (read_label_map(path) == found.labels).all()
        with Image.open(path) as stored:
            assert stored.mode == "P" and (np.array(stored) == found.labels).all()
            colours = np.array(stored.convert("RGB"))
        assert (colours == np.array(contract().palette)[found.labels]).all()
        with np.load(tmp_path / "scores" / f"{sample.name}.npz") as arrays:
            assert arrays["probabilities"].dtype == np.float16
            assert (arrays["probabilities"] == found.scores.astype(np.float16)).all()
            assert tuple(arrays["classes"]) == contract().classes


def test_more_than_255_classes_are_written_in_16_bits(tmp_path: Path) -> None:
    described = many_classes(300)
    logits = np.zeros((1, 300, 16, 24), np.float32)
    logits[:, 270] = 1
    data = open_images(write_pairs(tmp_path / "data", 1) / "images")
    evaluate(ToyEngine(described, lambda batch: logits), data, saved(tmp_path, labels=tmp_path / "labels"))
    (path,) = (tmp_path / "labels").rglob("*.png")
    assert (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) == 270).all()


def test_servers_want_their_own_classes_and_unique_names(tmp_path: Path) -> None:
    data = open_images(write_pairs(tmp_path / "data", 2) / "images")
    options = saved(tmp_path, labels=tmp_path / "labels", label_format=LabelFormat.CITYSCAPES)
    with pytest.raises(OptionError, match="predicts those of camvid"):
        evaluate(ToyEngine(contract()), data, options)
    twice = replace(data, samples=(data.samples[0], replace(data.samples[0], name="other/place")))
    with pytest.raises(OptionError, match="2 images have 1 names"):
        evaluate(ToyEngine(named("cityscapes")), twice, options)


def test_what_others_wrote_is_not_replaced(tmp_path: Path) -> None:
    data = open_images(write_pairs(tmp_path / "data", 1) / "images")
    (sample,) = data.samples
    for folder, suffix in (("labels", "png"), ("scores", "npz")):
        path = tmp_path / folder / f"{sample.name}.{suffix}"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"mine")
        with pytest.raises(OptionError, match="is there already"):
            evaluate(ToyEngine(contract()), data, saved(tmp_path, **{folder: tmp_path / folder}))
        assert path.read_bytes() == b"mine"


def test_the_cityscapes_evaluator_scores_the_submission_as_we_do(shared_data: Path, tmp_path: Path) -> None:
    evaluator = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    data = open_dataset(shared_data / "cityscapes_sample", "cityscapes")
    options = saved(tmp_path, labels=tmp_path / "results", label_format=LabelFormat.CITYSCAPES)
    found = evaluate(ToyEngine(named("cityscapes")), data, options)
    assert found.scores is not None
    truths = [str(tmp_path / f"{sample.image.stem}_gtFine_labelIds.png") for sample in data.samples]
    for sample, path in zip(data.samples, truths, strict=True):  # the sample holds train ids, the evaluator reads ids
        Path(path).write_bytes(label_png(data.read(sample, 19)[1], named("cityscapes"), LabelFormat.CITYSCAPES))
    results = [str(tmp_path / "results" / f"{sample.image.stem}.png") for sample in data.samples]
    settings = evaluator.args
    settings.evalInstLevelScore = settings.evalPixelAccuracy = settings.JSONOutput = False
    settings.quiet = True
    official = evaluator.evaluateImgLists(results, truths, settings)["classScores"]
    for name, score in found.scores.per_class.items():
        expected = float(official[name])
        assert (score.iou is None) == np.isnan(expected), name
        assert score.iou is None or abs(score.iou - 100 * expected) < 1e-6, name


def test_mmsegs_metric_scores_the_label_maps_as_we_do(shared_data: Path, tmp_path: Path) -> None:
    metrics = pytest.importorskip("mmseg.evaluation.metrics")
    import torch

    data = open_dataset(shared_data / "ade20k_sample", "ade20k")
    found = evaluate(ToyEngine(named("ade20k")), data, saved(tmp_path, labels=tmp_path / "labels"))
    assert found.scores is not None
    metric = metrics.IoUMetric(iou_metrics=["mIoU"])
    metric.dataset_meta = {"classes": label_set("ade20k").classes}
    for sample in data.samples:
        predicted = torch.from_numpy(read_label_map(tmp_path / "labels" / f"{sample.name}.png")[None].astype(np.int64))
        truth = torch.from_numpy(data.read(sample, 150)[1][None].astype(np.int64))
        metric.process({}, [{"pred_sem_seg": {"data": predicted}, "gt_sem_seg": {"data": truth}}])
    areas = [torch.stack(parts).sum(0).numpy() for parts in zip(*metric.results, strict=True)]
    with np.errstate(invalid="ignore"):
        official = 100 * areas[0] / areas[1]
    for expected, score in zip(official, found.scores.per_class.values(), strict=True):
        assert (score.iou is None) == bool(np.isnan(expected))
        assert score.iou is None or abs(score.iou - expected) < 1e-6


def test_the_ade20k_server_counts_classes_from_one(tmp_path: Path) -> None:
    data = open_images(write_pairs(tmp_path / "data", 1) / "images")
    engine = ToyEngine(named("ade20k"))
    options = saved(tmp_path, labels=tmp_path / "labels", label_format=LabelFormat.ADE20K)
    evaluate(engine, data, replace(options, predict=PredictOptions(thresholds=0.9)))
    (sample,) = data.samples
    labels = predict(engine, cv2.imread(str(sample.image)), options=PredictOptions(thresholds=0.9)).labels
    found = cv2.imread(str(tmp_path / "labels" / f"{sample.image.stem}.png"), cv2.IMREAD_UNCHANGED)
    assert (found == np.where(labels == 255, 0, labels + 1)).all() and (found == 0).any()
