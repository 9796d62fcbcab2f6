"""One scene: the plan, the painting in order of depth, the photograph and its labels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenes.backdrop import paint_end_of_street, paint_sky
from scenes.camera import place_camera
from scenes.canvas import Canvas
from scenes.ground import paint_ground
from scenes.lighting import choose_lighting
from scenes.options import SceneOptions
from scenes.placing import place_houses, place_street_life
from scenes.post_processing import post_process
from scenes.render_context import RenderContext
from scenes.rng import Rng
from scenes.street import Street, plan_street


@dataclass(frozen=True)
class Scene:
    """A street-like picture and the class of each of its pixels.

    Attributes:
        image: BGR, as OpenCV keeps it, uint8 (height, width, 3).
        labels: 0..7 in the order of the label set `scenes`, uint8 (height, width).
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def make_scene(seed: int, options: SceneOptions | None = None) -> Scene:
    """The scene of a seed (0 .. 2**64 - 1): the same bytes each time, on every machine."""
    options = options or SceneOptions()
    rng = Rng(seed)
    street = plan_street(rng)
    camera = place_camera(rng, options, street.half_road, street.bend)
    context = RenderContext(Canvas(options.height, options.width), camera, choose_lighting(rng), rng)
    _paint(context, street)
    return Scene(post_process(context), context.canvas.labels)


def _paint(context: RenderContext, street: Street) -> None:
    """Paint from far to near: sky, ground and its shadows, the end, houses, and what stands between them."""
    paint_sky(context)
    paint_ground(context, street)
    houses = place_houses(context, street)
    life = place_street_life(context, street)
    for standing in (*houses, *life):
        standing.cast_shadow(context)
    paint_end_of_street(context, street)
    for group in (houses, life):
        for standing in sorted(group, key=lambda thing: -thing.z):
            standing.paint(context)
