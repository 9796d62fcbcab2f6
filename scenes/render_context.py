"""What every painter works with, and flat cut-outs that stand in the street facing the camera."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenes.camera import Camera
from scenes.canvas import Canvas, Label, matter
from scenes.lighting import Lighting
from scenes.rng import Colour, Rng

Point = tuple[float, float]
Outline = Sequence[Point] | NDArray[np.float64]


@dataclass(frozen=True)
class RenderContext:
    """The canvas under way, the camera, the lighting and the random numbers of one scene."""

    canvas: Canvas
    camera: Camera
    lighting: Lighting
    rng: Rng

    def paint(self, corners: Sequence[tuple[float, float, float]], colour: Colour, label: Label) -> None:
        """Fill a polygon given by (x, y, z) corners in metres; its distance is the mean of theirs."""
        distance = sum(z for _, _, z in corners) / len(corners)
        outline = np.array([self.camera.pixel(*corner) for corner in corners], np.int32)
        self.canvas.paint([outline], colour, matter(label, distance))

    def shadow(self, corners: Sequence[Point]) -> None:
        """Darken the ground inside (x, z) corners, in metres."""
        if self.lighting.shadow > 0.02:
            outline = [self.camera.pixel(x, 0, max(z, 1.5)) for x, z in corners]
            self.canvas.darken(np.array(outline, np.int32), self.lighting.shadow)


@dataclass(frozen=True)
class Cutout:
    """A flat shape at (x, z) metres facing the camera; points are (to the right, up) in metres from its foot."""

    context: RenderContext
    x: float
    z: float
    label: Label

    @property
    def scale(self) -> float:
        """Pixels per metre."""
        return self.context.camera.focal / self.z

    def fill(self, colour: Colour, *outlines: Outline) -> None:
        """Fill the polygons in one colour."""
        self.context.canvas.paint([self.pixels(outline) for outline in outlines], colour, matter(self.label, self.z))

    def fill_each(self, colours: Sequence[Colour], outlines: NDArray[np.float64]) -> None:
        """Fill polygons (n, corners, 2) one after the other, each in its own colour."""
        what = matter(self.label, self.z)
        for colour, outline in zip(colours, self.pixels(outlines), strict=True):
            self.context.canvas.paint([outline], colour, what)

    def pixels(self, points: Outline) -> NDArray[np.int32]:
        """The (column, row) of points (..., 2), int32."""
        scale = self.scale
        column, row = self.context.camera.pixel(self.x, 0, self.z)
        return np.rint(np.asarray(points) * (scale, -scale) + (column, row)).astype(np.int32)


@dataclass(frozen=True)
class Standing:
    """Something that stands in the street at z metres, what paints it, and the (x, z) corners of its shadow."""

    z: float
    paint: Callable[[RenderContext], None]
    shadow: tuple[Point, ...] = ()

    def cast_shadow(self, context: RenderContext) -> None:
        """Darken the ground where its shadow falls."""
        if self.shadow:
            context.shadow(self.shadow)


# cosines of 32 steps in 1/1024, rounded: free of the last-digit differences between mathematical libraries
_QUARTER = (1024, 1004, 946, 851, 724, 569, 392, 200, 0)
_HALF = (*_QUARTER, *(-value for value in _QUARTER[-2::-1]))
_COSINES = np.array((*_HALF, *_HALF[-2:0:-1])) / 1024
_CIRCLE = np.stack([_COSINES, np.roll(_COSINES, 8)], axis=1)


def circle(centre: Point, radius: float, aspect: float = 1.0, every: int = 2) -> NDArray[np.float64]:
    """A polygon (32 / `every`, 2) around `centre`; `aspect` is its width over its height."""
    return _CIRCLE[::every] * (radius * aspect, radius) + centre


def box(left: float, bottom: float, right: float, top: float) -> list[Point]:
    """The corners of an upright rectangle."""
    return [(left, bottom), (right, bottom), (right, top), (left, top)]
