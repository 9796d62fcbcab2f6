"""How sure a difference of two mIoUs is: images are resampled, for both networks alike."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_DRAWS = 2000
_SEED = 0


def difference_interval(
    before: Sequence[NDArray[np.int64]], after: Sequence[NDArray[np.int64]], level: float = 95.0
) -> tuple[float, float]:
    """The interval, in points, of the mIoU of `after` less that of `before`, had other images been drawn.

    A paired bootstrap (percentiles): both networks are scored on the same resampled images, so that what makes an image
    hard for both does not widen it.

    Args:
        before: confusion matrix of each image, (classes, classes), of one network.
        after: of the other, for the same images in the same order.
        level: percent.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13.
    """
    counts = np.random.default_rng(_SEED).multinomial(len(before), [1 / len(before)] * len(before), _DRAWS)
    differences = _mean_ious(counts, after) - _mean_ious(counts, before)
    low, high = np.percentile(differences, [(100 - level) / 2, (100 + level) / 2])
    return float(low), float(high)


def _mean_ious(counts: NDArray[np.int64], confusions: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Percent, of each draw: `counts` (draws, images) says how often each image was drawn."""
    stacked = np.stack(confusions)
    right = counts @ np.diagonal(stacked, axis1=1, axis2=2)
    union = counts @ (stacked.sum(axis=1) + stacked.sum(axis=2)) - right
    # classes that a draw does not show are left out of its mean
    iou = np.where(union > 0, right / np.maximum(union, 1), np.nan)
    return np.asarray(100.0 * np.nanmean(iou, axis=1))
