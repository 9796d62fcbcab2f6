"""Intersection over union and accuracy, from a confusion matrix over all images."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.errors import DataError, OptionError
from ffnet_deploy.core.label_maps import LabelMap, ignore_label


def confusion_matrix(predicted: LabelMap, labels: LabelMap, classes: int) -> NDArray[np.int64]:
    """Pixels by label (row) and predicted class (column), int64 (classes, classes); ignored pixels are left out.

    Raises:
        DataError: the maps differ in size, or hold other values than 0..classes-1.
    """
    if predicted.shape != labels.shape:
        raise DataError(f"prediction {predicted.shape} and labels {labels.shape} differ in size")
    scored = labels != ignore_label(labels)
    if (scored & (np.maximum(labels, predicted) >= classes)).any():
        worst = int(labels[scored].max()), int(predicted[scored].max())
        raise DataError(f"labels up to {worst[0]} and predictions up to {worst[1]} for {classes} classes")
    # ignored pixels get a row of their own, which is left out; small cell numbers are counted fastest
    cells = (classes + 1) * classes
    rows = np.minimum(labels, classes).astype(np.uint16 if cells <= 1 << 16 else np.int64)
    numbers = rows * classes + np.minimum(predicted, classes - 1)
    return np.bincount(numbers.ravel(), minlength=cells)[: classes * classes].reshape(classes, classes)


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class in percent.

    Attributes:
        iou: Intersection over union; None where the class is neither labelled nor predicted.
        accuracy: Share of its pixels that are predicted so; None where it is not labelled.
    """

    iou: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Scores:
    """Scores in percent, as MMSegmentation's ``IoUMetric`` defines them.

    Attributes:
        mean_iou: Mean over the classes that are labelled or predicted somewhere.
        pixel_accuracy: Share of all labelled pixels that are right.
        mean_accuracy: Mean accuracy over the classes that are labelled somewhere.
        per_class: Scores by class name, in label order.
        confusion: Pixels by label (row) and predicted class (column); empty where it was not kept.
    """

    mean_iou: float
    pixel_accuracy: float
    mean_accuracy: float
    per_class: Mapping[str, ClassScore]
    confusion: tuple[tuple[int, ...], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """``mIoU``, ``aAcc``, ``mAcc`` and ``per_class`` of ``IoU`` and ``Acc``: percent, None where undefined."""
        return {
            "mIoU": self.mean_iou,
            "aAcc": self.pixel_accuracy,
            "mAcc": self.mean_accuracy,
            "per_class": {name: {"IoU": one.iou, "Acc": one.accuracy} for name, one in self.per_class.items()},
        }


@dataclass(frozen=True)
class MiouLimit:
    """How far mIoU may fall from that of a reference.

    Attributes:
        points: Largest fall, points, where no tier is given.
        tier: Least share of the reference's mIoU that is kept, percent; None: `points` decide.
            Source: accuracy tiers of 99 and 99.9 % in MLPerf Inference, Reddi et al., arXiv 1911.02549, section 3.
    """

    points: float
    tier: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.points < math.inf:
            raise OptionError(f"the largest fall of mIoU is 0 points or more: got {self.points}")
        if self.tier is not None and not 0 < self.tier <= 100:
            raise OptionError(
                f"a tier is a share of the reference's mIoU, above 0 and up to 100 percent: got {self.tier}"
            )

    def allowed_drop(self, reference: float) -> float:
        """Largest fall of mIoU, points, from `reference` percent."""
        return self.points if self.tier is None else reference * (1 - self.tier / 100)

    def to_dict(self) -> dict[str, float | None]:
        """For JSON: ``max_drop`` and ``tier``, of which one is None."""
        return {"max_drop": self.points if self.tier is None else None, "tier": self.tier}


def scores(confusion: NDArray[np.int64], classes: tuple[str, ...]) -> Scores:
    """The scores of a `confusion_matrix`, or of a sum of them.

    Raises:
        DataError: no pixel is labelled, so that there is nothing to score.
    """
    total = int(confusion.sum())
    if total == 0:
        raise DataError("no pixel of these images is labelled with a class: there is nothing to score")
    right = confusion.diagonal()
    labelled, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    iou = _percent(right, labelled + predicted - right)
    accuracy = _percent(right, labelled)
    per_class = {name: ClassScore(i, a) for name, i, a in zip(classes, iou, accuracy, strict=True)}
    pixels = tuple(tuple(row) for row in confusion.tolist())
    return Scores(_mean(iou), 100.0 * float(right.sum()) / total, _mean(accuracy), per_class, pixels)


def _percent(part: NDArray[np.int64], whole: NDArray[np.int64]) -> list[float | None]:
    return [100.0 * int(p) / int(w) if w else None for p, w in zip(part, whole, strict=True)]


def _mean(values: list[float | None]) -> float:
    present = [value for value in values if value is not None]
    return sum(present) / len(present)
