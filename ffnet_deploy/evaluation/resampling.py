"""Resizing of score maps, a band of rows at a time, so that many classes at full size never lie in memory at once."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.label_maps import LabelMap

Rows = Callable[[int, int], NDArray[np.float32]]
"""Gives the rows start..stop-1 of a map as float32 (stop - start, width, classes)."""


class Taps(NamedTuple):
    """For every target pixel along one axis: the two source pixels it lies between, and the weight of the second."""

    below: NDArray[np.intp]
    above: NDArray[np.intp]
    weight: NDArray[np.float32]


@lru_cache(maxsize=64)
def bilinear_taps(source: int, target: int) -> Taps:
    """Where `target` pixels fall among `source` pixels, half-pixel centres, edges repeated.

    The bilinear interpolation of ``torch.nn.functional.interpolate`` with ``align_corners=False``. Positions are
    computed in float64: float32 positions would cost three digits in maps of several hundred pixels.
    """
    position = np.maximum((np.arange(target) + 0.5) * (source / target) - 0.5, 0.0)
    below = np.minimum(position.astype(np.intp), source - 1)
    weight = np.clip(position - below, 0.0, 1.0).astype(np.float32)
    return Taps(below, np.minimum(below + 1, source - 1), weight)


def bilinear_rows(
    rows: Rows, source: tuple[int, int], target: tuple[int, int], start: int, stop: int
) -> NDArray[np.float32]:
    """Rows start..stop-1 of a map bilinearly resized from `source` to `target`, both (height, width).

    Returns:
        float32 (stop - start, target width, classes).
    """
    if source[0] == target[0]:
        band = rows(start, stop)
    else:
        taps, here = bilinear_taps(source[0], target[0]), slice(start, stop)
        first, last = int(taps.below[start]), int(taps.above[stop - 1]) + 1
        below, above = taps.below[here] - first, taps.above[here] - first
        band = _blend(rows(first, last), below, above, taps.weight[here], axis=0)
    return band if source[1] == target[1] else _blend(band, *bilinear_taps(source[1], target[1]), axis=1)


def _blend(
    band: NDArray[np.float32],
    below: NDArray[np.intp],
    above: NDArray[np.intp],
    weight: NDArray[np.float32],
    axis: int,
) -> NDArray[np.float32]:
    factor = weight[:, None, None] if axis == 0 else weight[:, None]
    blended: NDArray[np.float32] = band.take(below, axis=axis)
    blended *= 1 - factor
    other = band.take(above, axis=axis)
    other *= factor
    blended += other
    return blended


def bilinear(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """`values`, float32 (height, width, classes), bilinearly resized to `size` (height, width)."""
    source = (values.shape[0], values.shape[1])
    return bilinear_rows(lambda start, stop: values[start:stop], source, size, 0, size[0])


def nearest(labels: LabelMap, size: tuple[int, int]) -> LabelMap:
    """`labels` (height, width), resized to `size` (height, width), each pixel taking the one at its centre."""
    down = (np.arange(size[0]) * 2 + 1) * labels.shape[0] // (2 * size[0])
    across = (np.arange(size[1]) * 2 + 1) * labels.shape[1] // (2 * size[1])
    resized: LabelMap = labels[down[:, None], across]
    return resized
