"""Trees: a trunk and an irregular crown of leaves; hedges."""

import numpy as np
from numpy.typing import NDArray

from scenes.canvas import Label
from scenes.render_context import Cutout, Point, RenderContext, circle
from scenes.rng import Colour, Rng, shade

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


def paint_tree(context: RenderContext, x: float, z: float, size: float) -> None:
    """A tree whose crown is about 2 * `size` metres wide."""
    rng = context.rng
    tree = Cutout(context, x, z, Label.TREE)
    if not -2 * size * tree.scale < context.camera.pixel(x, 0, z)[0] < context.camera.width + 2 * size * tree.scale:
        return
    middle = size * 0.8 + rng.between(1.6, 3.2)
    half = max(rng.between(0.09, 0.13) * size, 0.006 * context.camera.height / tree.scale)
    lean = rng.between(-0.2, 0.2) * size
    bark = rng.near(rng.pick(_BARK), 15)
    tree.fill(bark, [(-half * 1.3, 0), (half * 1.3, 0), (half + lean, middle), (-half + lean, middle)])
    tree.fill(shade(bark, 0.7), [(0, 0), (half * 1.3, 0), (half + lean, middle), (lean, middle)])
    _paint_crown(tree, rng, (lean, middle), size)


def _paint_crown(tree: Cutout, rng: Rng, centre: Point, size: float) -> None:
    leaves = rng.near(rng.pick(LEAVES), 28)
    aspect = rng.between(0.75, 1.15)
    lobes, clumps = rng.whole(5, 8), rng.whole(8, 14) if size * tree.scale > 0.08 * tree.context.camera.height else 4
    count = lobes + clumps
    where = np.stack([rng.several(-0.55, 0.55, count), rng.several(-0.45, 0.7, count)], axis=1)
    where[0] = 0
    radius = np.concatenate([np.full(lobes, 0.68), rng.several(0.2, 0.42, clumps)])
    tones = np.concatenate([rng.several(0.7, 0.85, lobes), rng.several(0.8, 1.1, clumps) + 0.3 * where[lobes:, 1]])
    blobs = _ragged(rng, count) * (radius * size)[:, None, None] * (aspect, 1.0)
    tree.fill_each([shade(leaves, tone) for tone in tones.tolist()], blobs + (where * size + centre)[:, None])


def _ragged(rng: Rng, count: int) -> NDArray[np.float64]:
    """Outlines (count, 16, 2) around the origin whose corners wander in and out of the unit circle."""
    outline = circle((0, 0), 1.0)
    return outline * rng.several(0.75, 1.2, count * len(outline)).reshape(count, -1, 1)


def paint_hedge(context: RenderContext, x: float, near: float, far: float) -> None:
    """A hedge along x, from z = near to far."""
    rng = context.rng
    leaves = rng.near(rng.pick(LEAVES), 25)
    height, steps = rng.between(1.0, 2.6), 8
    depths = [near + (far - near) * step / steps for step in range(steps + 1)]
    tops = [(x, height * rng.between(0.85, 1.15), z) for z in reversed(depths)]
    context.paint([(x, 0, near), (x, 0, far), *tops], leaves, Label.TREE)
    for z in depths[:-1]:
        low, step = height * rng.between(0.2, 0.6), (far - near) / steps
        corners = [(x, low, z), (x, low * 0.6, z + step), (x, low + 0.3 * height, z + step), (x, 0.8 * height, z)]
        context.paint(corners, shade(leaves, rng.between(0.7, 1.2)), Label.TREE)
