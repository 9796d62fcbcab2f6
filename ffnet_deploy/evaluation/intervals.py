"""How the scores of two networks differ on the same images, and how sure that difference is."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.evaluation.image_scores import ImageScore, total
from ffnet_deploy.evaluation.scores import scores

_DRAWS = 2000
_SEED = 0
_WORST = 5
"""Number of images that are listed as the worst."""


def difference_interval(
    before: Iterable[NDArray[np.int64]], after: Iterable[NDArray[np.int64]], level: float = 95.0
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
    first, second = _areas(before), _areas(after)
    images = len(first[0])
    counts = np.random.default_rng(_SEED).multinomial(images, [1 / images] * images, _DRAWS)
    differences = _mean_ious(counts, *second) - _mean_ious(counts, *first)
    low, high = np.percentile(differences, [(100 - level) / 2, (100 + level) / 2])
    return float(low), float(high)


def _areas(confusions: Iterable[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each image and class, both (images, classes): pixels in the intersection, and in the union."""
    pairs = [(one.diagonal(), one.sum(axis=0) + one.sum(axis=1) - one.diagonal()) for one in confusions]
    return np.stack([right for right, _ in pairs]), np.stack([union for _, union in pairs])


def _mean_ious(
    counts: NDArray[np.int64], intersection: NDArray[np.int64], union: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Percent, of each draw: `counts` (draws, images) says how often each image was drawn."""
    right, whole = counts @ intersection, counts @ union
    # classes that a draw does not show are left out of its mean
    iou = np.where(whole > 0, right / np.maximum(whole, 1), np.nan)
    return np.asarray(100.0 * np.nanmean(iou, axis=1))


@dataclass(frozen=True)
class ImageChange:
    """An image that a network labels worse than the one it is compared with.

    Attributes:
        image: Name of the image.
        right: Change of the share of its labelled pixels that are right, points.
    """

    image: str
    right: float


@dataclass(frozen=True)
class PairedDifference:
    """How the scores of a network differ from another's on the same images.

    Attributes:
        mean_iou: Change of mIoU, points.
        interval: 95 % interval of that change, points; see `difference_interval`.
        kept: Share of the other's mIoU, percent.
        per_class: Change of each class's IoU, points; None where one of the two has none.
        worst: Images of which the most fewer pixels are right, the worst first.
    """

    mean_iou: float
    interval: tuple[float, float]
    kept: float
    per_class: Mapping[str, float | None]
    worst: tuple[ImageChange, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON, with the keys of `Scores.to_dict`."""
        values = asdict(self)
        return {"mIoU": values.pop("mean_iou"), **values, "interval": list(self.interval)}


def paired_difference(
    before: Sequence[ImageScore], after: Sequence[ImageScore], classes: tuple[str, ...]
) -> PairedDifference:
    """How `after` differs from `before`, which scored the same images in the same order.

    Raises:
        DataError: no pixel is labelled.
    """
    number = len(classes)
    first, second = (scores(total(part, number), classes) for part in (before, after))
    changes = {
        name: None if (old := first.per_class[name].iou) is None or new.iou is None else new.iou - old
        for name, new in second.per_class.items()
    }
    worst = sorted(
        (
            ImageChange(old.image, _right(new, number) - _right(old, number))
            for old, new in zip(before, after, strict=True)
        ),
        key=lambda change: change.right,
    )
    return PairedDifference(
        mean_iou=second.mean_iou - first.mean_iou,
        interval=difference_interval(
            (one.confusion(number) for one in before), (one.confusion(number) for one in after)
        ),
        kept=100.0 * second.mean_iou / first.mean_iou if first.mean_iou else 100.0,
        per_class=changes,
        worst=tuple(change for change in worst[:_WORST] if change.right < 0),
    )


def _right(score: ImageScore, classes: int) -> float:
    """Share of the labelled pixels that are right, percent."""
    confusion = score.confusion(classes)
    pixels = confusion.sum()
    return float(100.0 * confusion.trace() / pixels) if pixels else 0.0
