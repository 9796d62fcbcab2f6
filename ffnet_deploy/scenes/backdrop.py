"""What lies behind the street: the sky with its clouds, and what closes the view at the end."""

import cv2
import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.scenes.canvas import Label
from ffnet_deploy.scenes.dice import shade
from ffnet_deploy.scenes.faces import Face
from ffnet_deploy.scenes.stage import Stage, box
from ffnet_deploy.scenes.street import Street
from ffnet_deploy.scenes.trees import LEAVES

_SKYLINE = ((150, 150, 155), (120, 140, 165), (165, 165, 160), (110, 115, 125), (140, 120, 110))
_COARSE = 4  # pixels of the picture to one of the sky, which has no sharp edges


def paint_sky(stage: Stage) -> None:
    """Fill the picture above the horizon with a gradient from the zenith down, and clouds."""
    height, width = stage.canvas.strokes.shape[:2]
    rows = min(max(int(stage.camera.horizon) + 2, 2), height)
    coarse_rows, coarse_columns = rows // _COARSE + 2, width // _COARSE + 2
    part = (np.arange(coarse_rows) * 256 // (coarse_rows - 1))[:, None, None]
    top, bottom = np.array(stage.mood.sky_top), np.array(stage.mood.sky_bottom)
    sky = (top * (256 - part) + bottom * part) >> 8
    if stage.mood.clouds > 0:
        sky = sky + (((np.array(stage.mood.cloud) - sky) * _cloud_density(stage, coarse_rows, coarse_columns)) >> 8)
    else:
        sky = np.repeat(sky, coarse_columns, axis=1)
    stage.canvas.colour[:rows] = cv2.resize(sky.astype(np.uint8), (width, rows), interpolation=cv2.INTER_LINEAR_EXACT)


def _cloud_density(stage: Stage, rows: int, columns: int) -> NDArray[np.int32]:
    """How much of each pixel is cloud, 0..256, int32 (rows, columns, 1)."""
    total = np.zeros((rows, columns), np.int32)
    for cells, weight in ((3, 4), (7, 2), (15, 1)):
        noise = stage.dice.bytes(cells, 2 * cells)
        total += weight * cv2.resize(noise, (columns, rows), interpolation=cv2.INTER_LINEAR_EXACT).astype(np.int32)
    threshold = int(255 * 7 * (0.7 - 0.4 * stage.mood.clouds))
    density: NDArray[np.int32] = np.clip((total - threshold) >> 1, 0, 230)[..., None]
    return density


def paint_end_of_street(stage: Stage, street: Street) -> None:
    """Close the view with far houses or a row of trees across the whole width."""
    dice, camera = stage.dice, stage.camera
    metres = street.end / camera.focal  # a pixel wide, there
    x = camera.offset - camera.bend * street.end**2 - camera.centre * metres
    right = x + camera.width * metres
    wooded = dice.chance(0.35)
    while x < right:
        step = dice.between(4, 9) if wooded else dice.between(8, 26)
        if wooded or dice.chance(0.2):
            _paint_far_trees(stage, x, x + step, street.end)
        else:
            _paint_far_house(stage, x, x + step, street.end)
        x += step


def _paint_far_house(stage: Stage, left: float, right: float, z: float) -> None:
    height = stage.dice.between(7, 26)
    colour = stage.dice.near(stage.dice.pick(_SKYLINE), 30)
    face = Face(stage, (left, z), (right, z), Label.BUILDING)
    face.fill(colour, box(0, 0, face.length, height))
    face.fill_boxes(_far_windows(face.length, height, stage.dice.between(2.4, 4)), [shade(colour, 0.6)])


def _far_windows(length: float, height: float, column: float) -> NDArray[np.float64]:
    """Boxes (n, 4) of a grid of windows, `column` metres apart."""
    columns, rows = np.arange(int(length / column)), np.arange(int(height / 3.2))
    left, low = (grid.ravel() for grid in np.meshgrid((columns + 0.25) * column, rows * 3.2 + 1))
    return np.stack([left, low, left + 0.5 * column, low + 1.6], axis=1)


def _paint_far_trees(stage: Stage, left: float, right: float, z: float) -> None:
    dice = stage.dice
    colour = dice.near(dice.pick(LEAVES), 25)
    width = right - left
    tops = [(left + width * step / 6, dice.between(5, 9), z) for step in range(-1, 8)]
    stage.paint([(left - 0.2 * width, 0, z), *tops, (right + 0.2 * width, 0, z)], colour, Label.TREE)
