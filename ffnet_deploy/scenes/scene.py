"""One scene: the plan, the painting in order of depth, the photograph and its labels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.scenes.backdrop import paint_end_of_street, paint_sky
from ffnet_deploy.scenes.camera import place_camera
from ffnet_deploy.scenes.canvas import Canvas
from ffnet_deploy.scenes.dice import Dice
from ffnet_deploy.scenes.ground import paint_ground
from ffnet_deploy.scenes.lens import photograph
from ffnet_deploy.scenes.mood import choose_mood
from ffnet_deploy.scenes.options import SceneOptions
from ffnet_deploy.scenes.placing import place_houses, place_street_life
from ffnet_deploy.scenes.stage import Stage
from ffnet_deploy.scenes.street import Street, plan_street


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
    dice = Dice(seed)
    street = plan_street(dice)
    camera = place_camera(dice, options, street.half_road, street.bend)
    stage = Stage(Canvas(options.height, options.width), camera, choose_mood(dice), dice)
    _paint(stage, street)
    return Scene(photograph(stage), stage.canvas.labels)


def _paint(stage: Stage, street: Street) -> None:
    """Paint from far to near: sky, ground and its shadows, the end, houses, and what stands between them."""
    paint_sky(stage)
    paint_ground(stage, street)
    houses = place_houses(stage, street)
    life = place_street_life(stage, street)
    for standing in (*houses, *life):
        standing.cast_shadow(stage)
    paint_end_of_street(stage, street)
    for group in (houses, life):
        for standing in sorted(group, key=lambda thing: -thing.z):
            standing.paint(stage)
