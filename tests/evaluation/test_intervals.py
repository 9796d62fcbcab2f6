"""Intervals of a difference of mIoUs against draws made one by one, and how often they hold the truth."""

import numpy as np

from ffnet_deploy.evaluation.image_scores import ImageScore
from ffnet_deploy.evaluation.intervals import difference_interval, paired_difference
from ffnet_deploy.evaluation.scores import scores

CLASSES = ("a", "b", "c")


def confusions(count: int, right: float, seed: int) -> list[np.ndarray]:
    """Of images whose classes are right about that often, each image easier or harder than others."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        share = np.clip(right + rng.normal(0, 0.05), 0, 1)
        rows = [rng.multinomial(100, np.where(np.arange(3) == row, share, (1 - share) / 2)) for row in range(3)]
        found.append(np.stack(rows).astype(np.int64))
    return found


def test_the_interval_is_that_of_draws_scored_one_by_one() -> None:
    before, after = confusions(20, 0.8, 1), confusions(20, 0.78, 2)
    rng = np.random.default_rng(7)
    differences = []
    for _ in range(2000):
        drawn = rng.integers(0, 20, 20)
        first, second = (scores(sum(part[i] for i in drawn), CLASSES).mean_iou for part in (before, after))
        differences.append(second - first)
    expected = np.percentile(differences, [2.5, 97.5])
    assert np.abs(np.array(difference_interval(before, after)) - expected).max() < 0.25, expected


def test_the_same_predictions_differ_by_nothing() -> None:
    same = confusions(10, 0.8, 1)
    assert difference_interval(same, same) == (0.0, 0.0)


def test_a_class_that_few_images_show_is_left_out_of_draws_without_it() -> None:
    images = confusions(10, 0.9, 1)
    for image in images[1:]:
        image[2] = image[:, 2] = 0
    low, high = difference_interval(images, images[::-1])
    assert np.isfinite([low, high]).all() and low <= high


def test_the_interval_holds_the_true_difference_about_as_often_as_it_says() -> None:
    def difference(before: list[np.ndarray], after: list[np.ndarray]) -> float:
        first, second = (scores(sum(part), CLASSES).mean_iou for part in (before, after))
        return second - first

    truth = difference(confusions(20_000, 0.8, 1), confusions(20_000, 0.78, 2))
    held = 0
    for seed in range(200):
        low, high = difference_interval(confusions(40, 0.8, 1000 + seed), confusions(40, 0.78, 5000 + seed))
        held += low <= truth <= high
    print(f"{held / 2:.1f} % of 200 intervals of 95 % hold {truth:.3f}")
    assert 178 <= held <= 199


def test_a_difference_is_told_by_class_and_image() -> None:
    before, after = confusions(12, 0.9, 1), confusions(12, 0.9, 1)
    after[7][1] = (100, 0, 0)  # one image loses the second class
    first, second = (
        [ImageScore.of(f"image {number}", one) for number, one in enumerate(part)] for part in (before, after)
    )
    found = paired_difference(first, second, CLASSES)
    expected = scores(sum(after), CLASSES).mean_iou - scores(sum(before), CLASSES).mean_iou
    assert abs(found.mean_iou - expected) < 1e-12
    assert found.interval == difference_interval(before, after)
    assert min(found.per_class, key=found.per_class.__getitem__) == "b" and found.kept < 100
    assert [change.image for change in found.worst] == ["image 7"]
    assert found.worst[0].right == -100 * before[7][1, 1] / 300
