"""Upright flat facades in the street, addressed along and up: what houses and cars are made of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenes.camera import NEAR
from scenes.canvas import Label, matter
from scenes.render_context import Outline, Point, RenderContext
from scenes.rng import Colour

_CORNERS = [0, 1, 2, 1, 2, 3, 0, 3]  # left, bottom, right, top -> four (along, up) corners


@dataclass(frozen=True)
class Facade:
    """An upright face from the ground line (x0, z0) to (x1, z1), in metres; points on it are (along, up) in metres."""

    context: RenderContext
    start: Point
    stop: Point
    label: Label

    @property
    def length(self) -> float:
        """Metres along the ground; facades lie along x or along z."""
        return abs(self.stop[0] - self.start[0]) + abs(self.stop[1] - self.start[1])

    def fill(self, colour: Colour, *outlines: Outline) -> None:
        """Fill polygons with equally many corners each; corners nearer than the camera sees are drawn in."""
        self._paint(self._pixels(np.array(outlines, np.float64))[0], colour)

    def fill_boxes(
        self, boxes: NDArray[np.float64], colours: Sequence[Colour], kinds: NDArray[np.int64] | None = None
    ) -> None:
        """Fill upright rectangles (n, 4): left, bottom, right, top. Those too near are left out.

        `kinds` (n,) gives the index into `colours` of each; without it all have the first colour.
        """
        if not len(boxes):
            return
        pixels, seen = self._pixels(boxes[:, _CORNERS].reshape(-1, 4, 2))
        for kind, colour in enumerate(colours):
            self._paint(pixels[seen if kinds is None else seen & (kinds == kind)], colour)

    def columns_in_view(self) -> int:
        """How many columns of the picture the face's ground line spans; 0 out of view."""
        camera = self.context.camera
        ends = [camera.pixel(x, 0, max(z, NEAR))[0] for x, z in (self.start, self.stop)]
        return max(min(max(ends), camera.width) - max(min(ends), 0), 0)

    def _pixels(self, points: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Pixels (n, corners, 2) of points (n, corners, 2) on the face, and which outlines are far enough to see."""
        places = np.empty((*points.shape[:-1], 3))
        part = points[..., 0] / self.length
        places[..., 0] = self.start[0] + (self.stop[0] - self.start[0]) * part
        places[..., 1] = points[..., 1]
        places[..., 2] = self.start[1] + (self.stop[1] - self.start[1]) * part
        seen = places[:, 0, 2] > NEAR
        np.maximum(places[..., 2], NEAR, out=places[..., 2])
        return self.context.camera.pixels(places), seen

    def _paint(self, outlines: NDArray[np.int32], colour: Colour) -> None:
        if len(outlines):
            distance = max(self.start[1] + self.stop[1], 0.0) / 2
            self.context.canvas.paint(list(outlines), colour, matter(self.label, distance))
