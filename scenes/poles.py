"""Poles with what they carry: street lamps, sign posts, traffic lights, bollards."""

from scenes.canvas import Label
from scenes.render_context import Cutout, RenderContext, box, circle
from scenes.rng import Colour, Rng, shade

_METAL: tuple[Colour, ...] = ((70, 72, 75), (130, 132, 135), (45, 50, 45), (165, 165, 165), (60, 80, 110), (80, 70, 55))
_SIGNS: tuple[Colour, ...] = ((45, 40, 200), (190, 100, 30), (60, 190, 230), (215, 215, 215), (70, 120, 50))
_THINNEST = 0.0107  # of the picture size


def paint_pole(context: RenderContext, x: float, z: float, inward: int) -> None:
    """A lamp, sign post or traffic light at (x, z); `inward` (-1 or 1) is the direction of the road."""
    rng = context.rng
    pole = Cutout(context, x, z, Label.POLE)
    thinnest = _THINNEST * context.camera.size / pole.scale
    half = max(rng.between(0.06, 0.13), thinnest / 2 * rng.between(1, 1.4))
    metal = rng.near(rng.pick(_METAL), 15)
    paint = rng.pick((_paint_lamp, _paint_lamp, _paint_sign, _paint_traffic_light, _paint_wood))
    paint(pole, rng, half, metal, inward)


def _paint_post(pole: Cutout, half: float, top: float, colour: Colour) -> None:
    pole.fill(colour, box(-half, 0, half, top))
    pole.fill(shade(colour, 1.3), box(-half, 0, -half * 0.3, top))
    pole.fill(shade(colour, 0.85), box(-half * 1.5, 0, half * 1.5, min(0.6, 0.15 * top)))


def _paint_lamp(pole: Cutout, rng: Rng, half: float, metal: Colour, inward: int) -> None:
    top, arm = rng.between(4.5, 8), rng.between(0.8, 2.2)
    _paint_post(pole, half, top, metal)
    tip = inward * arm
    pole.fill(
        metal,
        [(0, top - 1.6 * half), (0, top + 0.8 * half), (tip, top + 0.3 + 0.8 * half), (tip, top + 0.3 - 1.2 * half)],
    )
    pole.fill(shade(metal, 0.8), box(tip - 3 * half, top + 0.3 - 1.5 * half, tip + 3 * half, top + 0.3 + 1.5 * half))
    pole.fill((170, 215, 230), box(tip - 2.4 * half, top + 0.3 - 1.5 * half, tip + 2.4 * half, top + 0.3 - 0.5 * half))


def _paint_sign(pole: Cutout, rng: Rng, half: float, metal: Colour, inward: int) -> None:
    top, size = rng.between(2.4, 3.6), max(rng.between(0.38, 0.6), 3 * half)
    _paint_post(pole, half, top, metal)
    colour, centre = rng.near(rng.pick(_SIGNS), 15), (0.0, top)
    inner = rng.pick(_SIGNS)
    shape = rng.whole(0, 2)
    for radius, tone in ((size, colour), (0.62 * size, inner)):
        if shape == 0:
            pole.fill(tone, circle(centre, radius))
        elif shape == 1:
            pole.fill(tone, [(-radius, top - 0.6 * radius), (radius, top - 0.6 * radius), (0, top + radius)])
        else:
            pole.fill(tone, box(-radius, top - 0.7 * radius, radius, top + 0.7 * radius))


def _paint_traffic_light(pole: Cutout, rng: Rng, half: float, metal: Colour, inward: int) -> None:
    top = rng.between(2.6, 3.6)
    _paint_post(pole, half, top, metal)
    wide = max(0.2, 1.9 * half)
    pole.fill((35, 38, 38), box(-wide, top - 0.2, wide, top + 4.6 * wide))
    lit = rng.whole(0, 2)
    for index, lamp in enumerate(((90, 200, 60), (40, 190, 240), (50, 45, 230))):
        colour = lamp if index == lit else shade(lamp, 0.3)
        pole.fill(colour, circle((0, top - 0.2 + wide * (1 + 1.4 * index)), 0.6 * wide, 1, 4))


def _paint_wood(pole: Cutout, rng: Rng, half: float, metal: Colour, inward: int) -> None:
    """A utility pole with a cross-arm."""
    top = rng.between(5.5, 8.5)
    wood = rng.near((65, 85, 105), 20)
    _paint_post(pole, half * 1.15, top, wood)
    pole.fill(shade(wood, 0.8), box(-1.1, top - 0.7 - 0.8 * half, 1.1, top - 0.7 + 0.8 * half))
