"""Crops that show rare classes more often than chance would."""

from typing import Any

import numpy as np
from mmseg.datasets.transforms import RandomCrop
from mmseg.registry import TRANSFORMS

Box = tuple[int, int, int, int]


@TRANSFORMS.register_module()
class ClassCrop(RandomCrop):  # type: ignore[misc]
    """mmseg's `RandomCrop`, which with probability `class_prob` is placed to hold a pixel of a class drawn by lot.

    Every class of the image has the same chance, however few pixels it has.

    Args:
        class_prob: share of the crops placed so, 0..1; the others are placed anywhere.
        **options: of `RandomCrop`: crop_size (height, width), cat_max_ratio, ignore_index.
    """

    def __init__(self, class_prob: float, **options: Any):
        super().__init__(**options)
        self.class_prob = class_prob

    def crop_bbox(self, results: dict[str, Any]) -> Box:
        """Top, bottom, left and right pixel borders of the crop."""
        labels = results["gt_seg_map"]
        present = np.unique(labels)
        present = present[present != self.ignore_index]
        if not present.size or np.random.random() >= self.class_prob:
            box: Box = super().crop_bbox(results)
            return box
        rows, columns = np.nonzero(labels == np.random.choice(present))
        pixel = np.random.randint(rows.size)
        top = _first_line(rows[pixel], self.crop_size[0], labels.shape[0])
        left = _first_line(columns[pixel], self.crop_size[1], labels.shape[1])
        return top, top + self.crop_size[0], left, left + self.crop_size[1]


def _first_line(position: int, size: int, limit: int) -> int:
    """First of `size` lines that hold the line `position`, by lot, within 0..limit where it fits."""
    first = int(position) - np.random.randint(size)
    return int(np.clip(first, 0, max(limit - size, 0)))
