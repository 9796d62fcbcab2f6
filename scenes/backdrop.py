"""What lies behind the street: the sky with its clouds, and what closes the view at the end."""

import cv2
import numpy as np
from numpy.typing import NDArray

from scenes.canvas import Label
from scenes.facades import Facade
from scenes.render_context import RenderContext, box
from scenes.rng import shade
from scenes.street import Street
from scenes.trees import LEAVES

_SKYLINE = ((150, 150, 155), (120, 140, 165), (165, 165, 160), (110, 115, 125), (140, 120, 110))
_COARSE = 4  # pixels of the picture to one of the sky, which has no sharp edges


def paint_sky(context: RenderContext) -> None:
    """Fill the picture above the horizon with a gradient from the zenith down, and clouds."""
    height, width = context.canvas.strokes.shape[:2]
    rows = min(max(int(context.camera.horizon) + 2, 2), height)
    coarse_rows, coarse_columns = rows // _COARSE + 2, width // _COARSE + 2
    part = (np.arange(coarse_rows) * 256 // (coarse_rows - 1))[:, None, None]
    top, bottom = np.array(context.lighting.sky_top), np.array(context.lighting.sky_bottom)
    sky = (top * (256 - part) + bottom * part) >> 8
    if context.lighting.clouds > 0:
        sky = sky + (
            ((np.array(context.lighting.cloud) - sky) * _cloud_density(context, coarse_rows, coarse_columns)) >> 8
        )
    else:
        sky = np.repeat(sky, coarse_columns, axis=1)
    context.canvas.colour[:rows] = cv2.resize(sky.astype(np.uint8), (width, rows), interpolation=cv2.INTER_LINEAR_EXACT)


def _cloud_density(context: RenderContext, rows: int, columns: int) -> NDArray[np.int32]:
    """How much of each pixel is cloud, 0..256, int32 (rows, columns, 1)."""
    total = np.zeros((rows, columns), np.int32)
    for cells, weight in ((3, 4), (7, 2), (15, 1)):
        noise = context.rng.bytes(cells, 2 * cells)
        total += weight * cv2.resize(noise, (columns, rows), interpolation=cv2.INTER_LINEAR_EXACT).astype(np.int32)
    threshold = int(255 * 7 * (0.7 - 0.4 * context.lighting.clouds))
    density: NDArray[np.int32] = np.clip((total - threshold) >> 1, 0, 230)[..., None]
    return density


def paint_end_of_street(context: RenderContext, street: Street) -> None:
    """Close the view with far houses or a row of trees across the whole width."""
    rng, camera = context.rng, context.camera
    metres = street.end / camera.focal  # a pixel wide, there
    x = camera.offset - camera.bend * street.end**2 - camera.centre * metres
    right = x + camera.width * metres
    wooded = rng.chance(0.35)
    while x < right:
        step = rng.between(4, 9) if wooded else rng.between(8, 26)
        if wooded or rng.chance(0.2):
            _paint_far_trees(context, x, x + step, street.end)
        else:
            _paint_far_house(context, x, x + step, street.end)
        x += step


def _paint_far_house(context: RenderContext, left: float, right: float, z: float) -> None:
    height = context.rng.between(7, 26)
    colour = context.rng.near(context.rng.pick(_SKYLINE), 30)
    face = Facade(context, (left, z), (right, z), Label.BUILDING)
    face.fill(colour, box(0, 0, face.length, height))
    face.fill_boxes(_far_windows(face.length, height, context.rng.between(2.4, 4)), [shade(colour, 0.6)])


def _far_windows(length: float, height: float, column: float) -> NDArray[np.float64]:
    """Boxes (n, 4) of a grid of windows, `column` metres apart."""
    columns, rows = np.arange(int(length / column)), np.arange(int(height / 3.2))
    left, low = (grid.ravel() for grid in np.meshgrid((columns + 0.25) * column, rows * 3.2 + 1))
    return np.stack([left, low, left + 0.5 * column, low + 1.6], axis=1)


def _paint_far_trees(context: RenderContext, left: float, right: float, z: float) -> None:
    rng = context.rng
    colour = rng.near(rng.pick(LEAVES), 25)
    width = right - left
    tops = [(left + width * step / 6, rng.between(5, 9), z) for step in range(-1, 8)]
    context.paint([(left - 0.2 * width, 0, z), *tops, (right + 0.2 * width, 0, z)], colour, Label.TREE)
