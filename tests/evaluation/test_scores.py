import json
from pathlib import Path

import numpy as np
import pytest

from ffnet_deploy.core.errors import DataError, OptionError
from ffnet_deploy.core.label_sets import label_set
from ffnet_deploy.evaluation.datasets import Dataset, open_dataset
from ffnet_deploy.evaluation.scores import MiouLimit, confusion_matrix, scores

NAMES = ("road", "sky", "car", "tree")


def wrongly_predicted(labels: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """A prediction that is right in most places, and a real class wherever labels are ignored."""
    rng = np.random.default_rng(seed)
    predicted = np.where(labels == 255, rng.integers(0, classes, labels.shape), np.roll(labels, 7, axis=1))
    predicted = np.where(rng.random(labels.shape) < 0.1, rng.integers(0, classes // 2, labels.shape), predicted)
    return np.where(predicted == 255, 0, predicted).astype(np.uint8)


def mmseg_metrics(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int) -> dict[str, np.ndarray]:
    torch = pytest.importorskip("torch")
    metric = pytest.importorskip("mmseg.evaluation.metrics").IoUMetric
    areas = [
        metric.intersect_and_union(torch.from_numpy(p).long(), torch.from_numpy(label).long(), classes, 255)
        for p, label in pairs
    ]
    # float64 sums: the evaluator's float32 ones lose whole pixels beyond 2^24
    return metric.total_area_to_metrics(*(sum(area.double() for area in column) for column in zip(*areas, strict=True)))


def assert_equal_to_mmseg(pairs: list[tuple[np.ndarray, np.ndarray]], classes: tuple[str, ...]) -> None:
    expected = mmseg_metrics(pairs, len(classes))
    total = sum(confusion_matrix(predicted, labels, len(classes)) for predicted, labels in pairs)
    found = scores(total, classes)
    per_class = list(found.per_class.values())
    iou = np.array([np.nan if one.iou is None else one.iou for one in per_class])
    accuracy = np.array([np.nan if one.accuracy is None else one.accuracy for one in per_class])
    np.testing.assert_allclose(iou, expected["IoU"] * 100, atol=1e-6, rtol=0)
    np.testing.assert_allclose(accuracy, expected["Acc"] * 100, atol=1e-6, rtol=0)
    assert found.mean_iou == pytest.approx(np.nanmean(expected["IoU"]) * 100, abs=1e-6)
    assert found.mean_accuracy == pytest.approx(np.nanmean(expected["Acc"]) * 100, abs=1e-6)
    assert found.pixel_accuracy == pytest.approx(float(expected["aAcc"]) * 100, abs=1e-6)


def real_labels(dataset: Dataset, classes: int, count: int) -> list[np.ndarray]:
    return [
        labels for sample in dataset.limited(count).samples if (labels := dataset.read(sample, classes)[1]) is not None
    ]


@pytest.mark.parametrize(
    ("folder", "name", "count"),
    [("camvid", "camvid", 20), ("ade20k_sample", "ade20k", 12), ("cityscapes_sample", "cityscapes", 2)],
)
def test_scores_equal_mmsegs_on_real_label_maps(shared_data: Path, folder: str, name: str, count: int) -> None:
    classes = label_set(name).classes
    maps = real_labels(open_dataset(shared_data / folder, name), len(classes), count)
    assert_equal_to_mmseg(
        [(wrongly_predicted(labels, len(classes), i), labels) for i, labels in enumerate(maps)], classes
    )


def test_scores_equal_mmsegs_on_random_maps() -> None:
    rng = np.random.default_rng(1)
    labels = rng.choice(np.array([0, 1, 3, 255], np.uint8), (50, 60))
    assert_equal_to_mmseg([(rng.integers(0, 3, (50, 60)).astype(np.uint8), labels)], NAMES)


def test_scores_equal_the_cityscapes_scripts(shared_data: Path) -> None:
    scripts = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    from cityscapesscripts.helpers.labels import trainId2label

    classes = label_set("cityscapes").classes
    (labels,) = real_labels(open_dataset(shared_data / "cityscapes_sample", "cityscapes"), 19, 1)
    predicted = wrongly_predicted(labels, 19, 0)
    table = np.array([trainId2label[index].id if index < 19 else 0 for index in range(256)])
    matrix = scripts.generateMatrix(scripts.args)
    pairs, counts = np.unique(np.stack([table[labels].ravel(), table[predicted].ravel()]), axis=1, return_counts=True)
    for (truth, guess), count in zip(pairs.T, counts, strict=True):
        matrix[truth][guess] += count
    found = scores(confusion_matrix(predicted, labels, 19), classes)
    for index, one in enumerate(found.per_class.values()):
        expected = scripts.getIouScoreForLabel(trainId2label[index].id, matrix, scripts.args)
        assert (one.iou is None and np.isnan(expected)) or one.iou == pytest.approx(100 * expected, abs=1e-6)


def test_a_class_that_is_nowhere_is_left_out() -> None:
    labels = np.array([[0, 0, 1, 255]], np.uint8)
    found = scores(confusion_matrix(np.array([[0, 1, 1, 3]], np.uint8), labels, 4), NAMES)
    assert found.mean_iou == 50.0
    assert found.mean_accuracy == 75.0
    assert found.pixel_accuracy == pytest.approx(200 / 3)
    assert found.per_class["car"].iou is None


def test_a_class_that_is_predicted_but_not_labelled_counts_as_zero() -> None:
    found = scores(confusion_matrix(np.array([[0, 2]], np.uint8), np.array([[0, 0]], np.uint8), 4), NAMES)
    assert (found.per_class["car"].iou, found.per_class["car"].accuracy) == (0.0, None)
    assert (found.mean_iou, found.mean_accuracy) == (25.0, 50.0)


def test_scores_are_plain_json() -> None:
    found = scores(confusion_matrix(np.array([[0, 2]], np.uint8), np.array([[0, 0]], np.uint8), 4), NAMES).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert list(found) == ["mIoU", "aAcc", "mAcc", "per_class"]
    assert found["per_class"]["sky"] == {"IoU": None, "Acc": None}


def test_nothing_labelled_is_an_error() -> None:
    with pytest.raises(DataError, match="nothing to score"):
        scores(confusion_matrix(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8), 4), NAMES)


def test_values_out_of_range_are_an_error() -> None:
    with pytest.raises(DataError, match="up to 4"):
        confusion_matrix(np.zeros((1, 1), np.uint8), np.full((1, 1), 4, np.uint8), 4)
    with pytest.raises(DataError, match="differ in size"):
        confusion_matrix(np.zeros((1, 2), np.uint8), np.zeros((1, 1), np.uint8), 4)


@pytest.mark.parametrize("wrong", [{"points": -1.0}, {"points": float("nan")}, {"points": 1, "tier": 0.0}])
def test_limits_of_miou_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError):
        MiouLimit(**wrong)


def test_a_tier_takes_the_place_of_points() -> None:
    assert MiouLimit(0.3).allowed_drop(80.0) == 0.3
    assert MiouLimit(0.3, 99.0).allowed_drop(80.0) == pytest.approx(0.8)
