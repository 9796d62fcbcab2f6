"""Perspective: from metres in the street to pixels in the picture."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenes.canvas import Pixel
from scenes.options import SceneOptions
from scenes.rng import Rng

NEAR = 0.9  # metres: nothing closer is projected


@dataclass(frozen=True)
class Camera:
    """A camera that looks along a street.

    Street coordinates in metres: x to the right of the middle of the road, y up from the ground, z ahead.
    `focal`, `centre` and `horizon` are in pixels; `eye` (height) and `offset` (x of the camera) in metres; `bend` is
    the street's sideways turn per squared metre ahead.
    """

    height: int
    width: int
    focal: float
    centre: float
    horizon: float
    eye: float
    offset: float
    bend: float

    @property
    def size(self) -> float:
        """The mean of height and width in pixels."""
        return (self.height + self.width) / 2

    def pixel(self, x: float, y: float, z: float) -> Pixel:
        """The (column, row) of a point with z >= NEAR."""
        scale = self.focal / z
        column = self.centre + (x - self.offset + self.bend * z * z) * scale
        return round(column), round(self.horizon + (self.eye - y) * scale)

    def pixels(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        """The (column, row) of points (..., 3) with z >= NEAR, int32 (..., 2)."""
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        scale = self.focal / z
        places = np.empty((*points.shape[:-1], 2))
        places[..., 0] = self.centre + (x - self.offset + self.bend * z * z) * scale
        places[..., 1] = self.horizon + (self.eye - y) * scale
        return np.rint(places, out=places).astype(np.int32)

    def nearest_in_view(self, x: float) -> float:
        """The smallest z, in metres, at which something standing at `x` is about to leave the picture sideways."""
        room = self.centre if x < self.offset else self.width - self.centre
        return abs(x - self.offset) * self.focal / max(room, 0.1 * self.width)

    def farthest_with(self, metres: float, share: float) -> float:
        """The largest z at which `metres` still cover the given share of the picture size."""
        return metres * self.focal / (share * self.size)


def place_camera(rng: Rng, options: SceneOptions, half_road: float, bend: float) -> Camera:
    """A camera somewhere above a road `half_road` metres wide to each side of its middle."""
    return Camera(
        height=options.height,
        width=options.width,
        focal=rng.between(0.62, 1.0) * (options.height + options.width) / 2,
        centre=rng.between(0.3, 0.7) * options.width,
        horizon=rng.between(0.33, 0.58) * options.height,
        eye=rng.between(1.3, 2.9),
        offset=rng.between(-0.7, 0.7) * half_road,
        bend=bend,
    )
