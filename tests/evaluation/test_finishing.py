"""The pruned way to a label map gives what computing every score of every pixel gives."""

import numpy as np
import pytest

from ffnet_deploy.evaluation.finishing import axis_taps, banded_label_map, finish, pruned_label_map
from ffnet_deploy.evaluation.resampling import bilinear
from ffnet_deploy.evaluation.windows import ScoredWindow, ScoreMap, whole_map, window_boxes

SIZES = [
    # source, shown to the network, image
    ((16, 24), (64, 96), (60, 91)),
    ((16, 24), (64, 96), (64, 96)),
    ((16, 24), (64, 96), (200, 333)),
    ((16, 24), (64, 96), (23, 31)),
    ((64, 96), (64, 96), (40, 50)),
    ((8, 8), (256, 256), (255, 257)),
    ((1, 5), (32, 160), (30, 170)),
]


def smooth_scores(classes: int, size: tuple[int, int], seed: int) -> np.ndarray:
    """Scores with regions, as those of a network, and pixels where several classes are close."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(max(size[0] // 4, 1), max(size[1] // 4, 1), classes)).astype(np.float32)
    scores = bilinear(coarse, size) + 0.1 * rng.normal(size=(*size, classes)).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(scores, -1, 0))


@pytest.mark.parametrize(("source", "shown", "image"), SIZES)
@pytest.mark.parametrize("classes", [1, 2, 19, 150])
def test_pruned_labels_equal_banded_ones(
    source: tuple[int, int], shown: tuple[int, int], image: tuple[int, int], classes: int
) -> None:
    for seed in range(3):
        scored = whole_map(smooth_scores(classes, source, seed), shown)
        for one in (scored, ScoreMap(scored.size, scored.windows, mirrored=True)):
            expected = banded_label_map([one], image)
            differing = int((pruned_label_map(one, image) != expected).sum())
            assert differing <= 1e-5 * expected.size, f"{differing} of {expected.size} pixels"


@pytest.mark.parametrize("cost", [0, 1000], ids=["pruned", "dense"])
def test_noise_without_any_region_is_labelled_the_same(cost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ffnet_deploy.evaluation.finishing.OPEN_PIXEL", cost)
    monkeypatch.setattr("ffnet_deploy.evaluation.finishing.OPEN_TAP", 0)
    scores = np.random.default_rng(0).normal(size=(40, 20, 30)).astype(np.float32)
    scored = whole_map(scores, (80, 120))
    assert np.array_equal(pruned_label_map(scored, (77, 131)), banded_label_map([scored], (77, 131)))


def test_of_equal_scores_the_first_class_wins_in_both_ways() -> None:
    scored = whole_map(np.zeros((5, 4, 4), np.float32), (16, 16))
    assert not pruned_label_map(scored, (15, 17)).any() and not banded_label_map([scored], (15, 17)).any()


def test_labels_above_255_classes_are_16_bit() -> None:
    scores = np.zeros((300, 4, 4), np.float32)
    scores[280] = 1
    labels = finish([whole_map(scores, (16, 16))], (16, 16))
    assert labels.dtype == np.uint16 and (labels == 280).all()


def test_taps_are_convex_and_equal_two_resizes() -> None:
    taps = axis_taps((0,), 96, 24, 96, 91)
    assert (taps.weights >= 0).all() and np.allclose(taps.weights.sum(axis=1), 1, atol=1e-6)
    line = np.random.default_rng(0).normal(size=(1, 24, 1)).astype(np.float32)
    twice = bilinear(bilinear(line, (1, 96)), (1, 91))[0, :, 0]
    once = (line[0, taps.positions, 0] * taps.weights).sum(axis=1)
    assert np.abs(once - twice).max() < 1e-6


WINDOWS = [
    # shown to the network, window, stride, source of a window, image
    ((64, 128), (64, 64), (48, 48), (16, 16), (64, 128)),
    ((64, 128), (64, 64), (48, 48), (16, 16), (77, 131)),
    ((96, 160), (64, 96), (40, 50), (16, 24), (90, 141)),
    ((64, 200), (64, 64), (16, 16), (8, 8), (50, 170)),
    ((48, 100), (64, 64), (48, 48), (16, 16), (48, 100)),
]


def scored_windows(classes: int, case: int, mirrored: bool = False) -> ScoreMap:
    """Scores of overlapping windows that agree but for noise, as a network's do."""
    shown, crop, stride, source, _ = WINDOWS[case]
    whole = np.moveaxis(bilinear(np.moveaxis(smooth_scores(classes, (16, 32), case), 0, -1), shown), -1, 0)
    rng = np.random.default_rng(case)
    windows = []
    for box in window_boxes(shown, crop, stride):
        part = np.moveaxis(whole[:, box.top : box.bottom, box.left : box.right], 0, -1)
        scores = bilinear(np.ascontiguousarray(part), source) + 0.1 * rng.normal(size=(*source, classes))
        windows.append(ScoredWindow(box, np.ascontiguousarray(np.moveaxis(scores, -1, 0), np.float32)))
    return ScoreMap(shown, tuple(windows), mirrored)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("classes", [2, 19])
@pytest.mark.parametrize("case", range(len(WINDOWS)))
def test_windows_are_averaged_where_they_overlap(case: int, classes: int, mirrored: bool) -> None:
    scored, image = scored_windows(classes, case, mirrored), WINDOWS[case][-1]
    expected = banded_label_map([scored], image)
    assert len(np.unique(expected)) > 1
    assert (finish([scored], image) == expected).mean() >= 0.99999


@pytest.mark.parametrize("cost", [4, 1000], ids=["pruned", "dense"])
def test_feathered_windows_and_parts_of_an_image_are_labelled_as_by_all_scores(
    cost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ffnet_deploy.evaluation.finishing.OPEN_TAP", cost)
    alike = scored_windows(19, 2)
    scored, size = ScoreMap(alike.size, alike.windows, feathered=True), (90, 141)
    expected = banded_label_map([scored], size)
    assert (expected != banded_label_map([alike], size)).any()
    assert np.array_equal(pruned_label_map(scored, size), expected)
    part = slice(13, 71), slice(40, 141)
    assert np.array_equal(pruned_label_map(scored, size, part), expected[part])


def test_a_feathered_window_hands_over_to_the_next_without_a_step() -> None:
    windows = [ScoredWindow(box, np.full((1, 4, 4), value, np.float32)) for box, value in
               zip(window_boxes((8, 12), (8, 8), (4, 4)), (0.0, 1.0), strict=True)]  # fmt: skip
    line = ScoreMap((8, 12), tuple(windows), feathered=True).rows(0, 1)[0, :, 0]
    assert np.allclose(line, [0, 0, 0, 0, 1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1, 1, 1])
