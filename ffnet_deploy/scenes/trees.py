"""Trees: a trunk and an irregular crown of leaves; hedges."""

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.scenes.canvas import Label
from ffnet_deploy.scenes.dice import Colour, Dice, shade
from ffnet_deploy.scenes.stage import Cutout, Point, Stage, circle

LEAVES: tuple[Colour, ...] = (
    (45, 95, 60),
    (40, 120, 85),
    (60, 105, 95),
    (35, 75, 50),
    (50, 130, 130),
    (45, 110, 165),
    (50, 70, 140),
    (85, 110, 100),
)
_BARK: tuple[Colour, ...] = ((50, 65, 85), (70, 80, 90), (45, 50, 60), (110, 120, 125))


def paint_tree(stage: Stage, x: float, z: float, size: float) -> None:
    """A tree whose crown is about 2 * `size` metres wide."""
    dice = stage.dice
    tree = Cutout(stage, x, z, Label.TREE)
    if not -2 * size * tree.scale < stage.camera.pixel(x, 0, z)[0] < stage.camera.width + 2 * size * tree.scale:
        return
    middle = size * 0.8 + dice.between(1.6, 3.2)
    half = max(dice.between(0.09, 0.13) * size, 0.006 * stage.camera.height / tree.scale)
    lean = dice.between(-0.2, 0.2) * size
    bark = dice.near(dice.pick(_BARK), 15)
    tree.fill(bark, [(-half * 1.3, 0), (half * 1.3, 0), (half + lean, middle), (-half + lean, middle)])
    tree.fill(shade(bark, 0.7), [(0, 0), (half * 1.3, 0), (half + lean, middle), (lean, middle)])
    _paint_crown(tree, dice, (lean, middle), size)


def _paint_crown(tree: Cutout, dice: Dice, centre: Point, size: float) -> None:
    leaves = dice.near(dice.pick(LEAVES), 28)
    aspect = dice.between(0.75, 1.15)
    lobes, clumps = dice.whole(5, 8), dice.whole(8, 14) if size * tree.scale > 0.08 * tree.stage.camera.height else 4
    count = lobes + clumps
    where = np.stack([dice.several(-0.55, 0.55, count), dice.several(-0.45, 0.7, count)], axis=1)
    where[0] = 0
    radius = np.concatenate([np.full(lobes, 0.68), dice.several(0.2, 0.42, clumps)])
    tones = np.concatenate([dice.several(0.7, 0.85, lobes), dice.several(0.8, 1.1, clumps) + 0.3 * where[lobes:, 1]])
    blobs = _ragged(dice, count) * (radius * size)[:, None, None] * (aspect, 1.0)
    tree.fill_each([shade(leaves, tone) for tone in tones.tolist()], blobs + (where * size + centre)[:, None])


def _ragged(dice: Dice, count: int) -> NDArray[np.float64]:
    """Outlines (count, 16, 2) around the origin whose corners wander in and out of the unit circle."""
    outline = circle((0, 0), 1.0)
    return outline * dice.several(0.75, 1.2, count * len(outline)).reshape(count, -1, 1)


def paint_hedge(stage: Stage, x: float, near: float, far: float) -> None:
    """A hedge along x, from z = near to far."""
    dice = stage.dice
    leaves = dice.near(dice.pick(LEAVES), 25)
    height, steps = dice.between(1.0, 2.6), 8
    depths = [near + (far - near) * step / steps for step in range(steps + 1)]
    tops = [(x, height * dice.between(0.85, 1.15), z) for z in reversed(depths)]
    stage.paint([(x, 0, near), (x, 0, far), *tops], leaves, Label.TREE)
    for z in depths[:-1]:
        low, step = height * dice.between(0.2, 0.6), (far - near) / steps
        corners = [(x, low, z), (x, low * 0.6, z + step), (x, low + 0.3 * height, z + step), (x, 0.8 * height, z)]
        stage.paint(corners, shade(leaves, dice.between(0.7, 1.2)), Label.TREE)
