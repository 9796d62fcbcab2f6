"""The picture and its labels, painted together by one primitive so that they agree in every pixel."""

from collections.abc import Sequence
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from scenes.rng import Colour

Pixel = tuple[int, int]


class Label(IntEnum):
    """The classes in the order of `classes/scenes.txt`."""

    ROAD = 0
    SIDEWALK = 1
    BUILDING = 2
    SKY = 3
    TREE = 4
    CAR = 5
    POLE = 6
    PERSON = 7


LEVELS = 32  # of distance; level n is HALF_WAY * n / (LEVELS - 1 - n) metres
HALF_WAY = 30.0


def matter(label: Label, metres: float) -> int:
    """One byte for what a painted surface is: its class, and its distance in levels that are finer when near."""
    return int(label) * LEVELS + int((LEVELS - 1) * metres / (metres + HALF_WAY))


class Canvas:
    """A picture under way, with what each pixel shows beside its colour, so that one stroke paints both.

    Attributes:
        strokes: blue, green, red and matter of every pixel, uint8 (height, width, 4).
    """

    def __init__(self, height: int, width: int) -> None:
        self.strokes: NDArray[np.uint8] = np.zeros((height, width, 4), np.uint8)
        self.strokes[..., 3] = matter(Label.SKY, 0)

    @property
    def colour(self) -> NDArray[np.uint8]:
        """BGR, uint8 (height, width, 3), a view."""
        return self.strokes[..., :3]

    @property
    def labels(self) -> NDArray[np.uint8]:
        """The class of every pixel, uint8 (height, width)."""
        return self.strokes[..., 3] // LEVELS

    def paint(self, polygons: Sequence[NDArray[np.int32]], colour: Colour, what: int) -> None:
        """Fill polygons (corners, 2) of (column, row) pixels with a colour and a matter, without anti-aliasing."""
        cv2.fillPoly(self.strokes, polygons, (*colour, what))

    def darken(self, outline: NDArray[np.int32], strength: float) -> None:
        """Let a shadow fall on what is painted inside a polygon; strength 0 (none) .. 1 (black). Matter stays."""
        height, width = self.strokes.shape[:2]
        left, top = np.clip(outline.min(axis=0), 0, (width, height)).tolist()
        right, bottom = np.clip(outline.max(axis=0) + 1, 0, (width, height)).tolist()
        if left >= right or top >= bottom:
            return
        mask = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(mask, [outline - np.array([left, top], np.int32)], 1)
        region = self.strokes[top:bottom, left:right]
        cv2.copyTo(cv2.LUT(region, _shadow_levels(strength)), mask, region)


def _shadow_levels(strength: float) -> NDArray[np.uint8]:
    """A look-up table (1, 256, 4) that scales the colours and keeps the matter."""
    levels = np.arange(256)
    darker = levels * (1 - strength)
    return np.stack([darker, darker, darker, levels], axis=-1)[None].astype(np.uint8)
