"""Label maps: the class of every pixel, in the smallest type that holds all classes and the value of "ignored".

Up to 255 classes take uint8, where 255 is ignored; more take uint16, where 65535 is. The largest value of a label map's
type is therefore always the one that no score counts.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.contract import IGNORE_LABEL

LabelMap = NDArray[np.unsignedinteger[Any]]
"""The class of each pixel, uint8 or uint16 (height, width); see `label_type`."""


def label_type(classes: int) -> "np.dtype[np.unsignedinteger[Any]]":
    """Type of the label maps of a network with so many classes."""
    return np.dtype(np.uint8 if classes <= IGNORE_LABEL else np.uint16)


def ignore_label(labels: LabelMap) -> int:
    """The value in `labels` that no score counts: 255 or 65535, by its type."""
    return int(np.iinfo(labels.dtype).max)


def colour_table(labels: LabelMap, palette: tuple[tuple[int, int, int], ...], other: object) -> NDArray[np.float32]:
    """Colours by label, float32 (values of the type, 3): those of `palette`, then `other`."""
    table = np.full((ignore_label(labels) + 1, 3), other, np.float32)
    table[: len(palette)] = palette
    return table
