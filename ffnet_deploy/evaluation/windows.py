"""Sliding windows over an image, and score maps put together from them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.evaluation.resampling import bilinear_rows


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """First row below."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """First column to the right."""
        return self.left + self.width

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


def window_boxes(size: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int]) -> list[Box]:
    """Windows that cover an image of `size` (height, width), row by row.

    Windows step by `stride`; the last of a row or column moves back to end at the image's edge; an image smaller than
    `crop` gets a window of its own size. The positions are those of MMSegmentation's ``slide_inference``.
    """
    tops = _starts(size[0], crop[0], stride[0])
    lefts = _starts(size[1], crop[1], stride[1])
    height, width = min(crop[0], size[0]), min(crop[1], size[1])
    return [Box(top, left, height, width) for top in tops for left in lefts]


def _starts(size: int, crop: int, stride: int) -> list[int]:
    steps = max(size - crop + stride - 1, 0) // stride + 1
    return [max(min(step * stride, size - crop), 0) for step in range(steps)]


def border_weights(side: int) -> NDArray[np.float32]:
    """Weights along the side of a window, float32 (side,): 1 in its middle, falling to almost 0 at its borders."""
    inside = np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5
    weights: NDArray[np.float32] = (inside / inside.max()).astype(np.float32)
    return weights


@dataclass(frozen=True)
class ScoredWindow:
    """What the network gave for one window.

    Attributes:
        box: Where it lies in the image shown to the network.
        scores: Float32 (classes, height, width) at the network's output size; a PyTorch tensor where the engine left
            them on its GPU.
    """

    box: Box
    scores: Any

    @cached_property
    def _classes_last(self) -> NDArray[np.float32]:
        return np.ascontiguousarray(np.moveaxis(self.scores, 0, -1))

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows start..stop-1 of the window, its scores resized to its size: (stop - start, width, classes)."""
        scores = self._classes_last
        source = (scores.shape[0], scores.shape[1])
        return bilinear_rows(lambda first, last: scores[first:last], source, self.box.size, start, stop)


@dataclass(frozen=True)
class ScoreMap:
    """Scores of an image, overlapping windows averaged.

    Attributes:
        size: (height, width) of the image shown to the network.
        windows: Windows that cover the image.
        mirrored: Whether the network saw the image mirrored; `rows` turns the scores back.
        feathered: Whether overlapping windows weigh less towards their borders (`border_weights` of both sides);
            otherwise all weigh the same, as published.
    """

    size: tuple[int, int]
    windows: tuple[ScoredWindow, ...]
    mirrored: bool = False
    feathered: bool = False

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows start..stop-1: float32 (stop - start, width, classes)."""
        band = self.windows[0].rows(start, stop) if len(self.windows) == 1 else self._averaged(start, stop)
        return band[:, ::-1] if self.mirrored else band

    def _averaged(self, start: int, stop: int) -> NDArray[np.float32]:
        classes = self.windows[0].scores.shape[0]
        total = np.zeros((stop - start, self.size[1], classes), np.float32)
        weight = np.zeros((stop - start, self.size[1], 1), np.float32)
        for window in self.windows:
            first, last = max(start, window.box.top), min(stop, window.box.bottom)
            if first < last:
                here = slice(first - start, last - start), slice(window.box.left, window.box.right)
                own = slice(first - window.box.top, last - window.box.top)
                scores = window.rows(own.start, own.stop)
                if self.feathered:
                    fall = np.outer(border_weights(window.box.height)[own], border_weights(window.box.width))[..., None]
                    total[here] += scores * fall
                    weight[here] += fall
                else:
                    total[here] += scores
                    weight[here] += 1
        total /= weight
        return total

    def resized_rows(self, target: tuple[int, int], start: int, stop: int) -> NDArray[np.float32]:
        """Rows start..stop-1 of the map bilinearly resized to `target` (height, width)."""
        return bilinear_rows(self.rows, self.size, target, start, stop)


def whole_map(scores: NDArray[np.float32], size: tuple[int, int]) -> ScoreMap:
    """The map of one window that shows a whole image of `size` (height, width); scores (classes, height, width)."""
    return ScoreMap(size, (ScoredWindow(Box(0, 0, *size), scores),))
