"""The ground: pavements, kerbs, road, lane markings, zebra crossings, patches."""

import numpy as np

from ffnet_deploy.scenes.canvas import Label, matter
from ffnet_deploy.scenes.dice import Colour, Dice, clip, shade
from ffnet_deploy.scenes.stage import Point, Stage
from ffnet_deploy.scenes.street import Street

_FRONT = 1.0  # metres ahead where the ground begins: below the picture for every camera
_STEPS = 20
_SIDEWAYS = 80.0  # metres that a side road or an open place reaches


def paint_ground(stage: Stage, street: Street) -> None:
    """Paint everything that lies flat."""
    road, pavement = _greys(stage.dice)
    _paint_pavement(stage, street, pavement)
    _paint_road(stage, street, road)
    _paint_patches(stage, street, road)
    _paint_markings(stage, street)


def _greys(dice: Dice) -> tuple[Colour, Colour]:
    """Colours of road and pavement: greys from one range, so that tone alone does not tell them apart."""
    road = dice.whole(62, 128)
    pavement = dice.whole(75, 175)
    if abs(pavement - road) < 14:
        pavement = road + dice.pick((-18, 18, 26))
    return _tinted(dice, road, 6), _tinted(dice, pavement, 14)


def _tinted(dice: Dice, grey: int, spread: int) -> Colour:
    warmth = dice.whole(-spread, spread)
    return clip(grey - warmth), clip(grey), clip(grey + warmth // 2)


def _depths(near: float, far: float) -> list[float]:
    """Distances from near to far, close together at first, enough of them to follow a bend."""
    steps = _STEPS if far > 4 * near else 3
    return [near + (far - near) * (step / steps) ** 2 for step in range(steps + 1)]


def _strip(stage: Stage, left: float, right: float, span: Point, colour: Colour, label: Label) -> None:
    """A strip of ground from x = left to right over the (near, far) span of z, following the bend."""
    depths = _depths(*span) if stage.camera.bend else list(span)
    corners = [(left, 0.0, z) for z in depths] + [(right, 0.0, z) for z in reversed(depths)]
    stage.paint(corners, colour, label)


def _paint_pavement(stage: Stage, street: Street, colour: Colour) -> None:
    height, width = stage.camera.height, stage.camera.width
    top = round(stage.camera.horizon)
    corners = np.array([(0, top), (width, top), (width, height), (0, height)], np.int32)
    stage.canvas.paint([corners], colour, matter(Label.SIDEWALK, 50))
    if stage.dice.chance(0.6):
        _paint_slabs(stage, street, shade(colour, stage.dice.between(0.78, 0.9)))


def _paint_slabs(stage: Stage, street: Street, colour: Colour) -> None:
    """Joints between the slabs: across the pavement, and one along it."""
    size = stage.dice.between(0.8, 2)
    for side in (-1, 1):
        edge, front = side * street.half_road, street.front(side)
        middle = (edge + front) / 2
        _strip(stage, middle - 0.02, middle + 0.02, (_FRONT, 25), colour, Label.SIDEWALK)
        z = max(2.5, stage.camera.nearest_in_view(edge) * 0.7)
        while z < 22:
            _strip(stage, edge, front, (z, z + 0.025 + z * 0.002), colour, Label.SIDEWALK)
            z += size


def _paint_road(stage: Stage, street: Street, colour: Colour) -> None:
    kerb = shade(colour, stage.dice.pick((0.6, 1.35, 1.5)))
    edge = street.half_road
    for side in (-1, 1):
        inner, outer = sorted((side * edge, side * (edge + 0.22)))
        _strip(stage, inner, outer, (_FRONT, street.end + 2), kerb, Label.SIDEWALK)
    if street.crossing:
        _strip(stage, -_SIDEWAYS, _SIDEWAYS, street.crossing, colour, Label.ROAD)
    _strip(stage, -edge, edge, (_FRONT, street.end + 2), colour, Label.ROAD)


def _paint_patches(stage: Stage, street: Street, colour: Colour) -> None:
    """Repairs, stains and manhole covers."""
    dice = stage.dice
    for _ in range(dice.whole(0, 6)):
        x, z = dice.between(-0.9, 0.6) * street.half_road, dice.between(3, 25)
        width, length = dice.between(0.5, 2), dice.between(0.8, 7)
        tone = shade(colour, dice.between(0.7, 1.2))
        right = min(x + width, street.half_road)
        skew = dice.between(-0.3, 0.3) if right + 0.3 < street.half_road else 0.0
        corners = [(x, 0.0, z), (right, 0.0, z), (right + skew, 0.0, z + length), (x, 0.0, z + length)]
        stage.paint(corners, tone, Label.ROAD)


def _paint_markings(stage: Stage, street: Street) -> None:
    dice = stage.dice
    paint = dice.near(dice.pick(((215, 215, 215), (190, 190, 190), (90, 190, 215))), 15)
    lane = 2 * street.half_road / street.lanes
    for index in range(1, street.lanes):
        _paint_line(stage, street, -street.half_road + index * lane, paint, dashed=dice.chance(0.7))
    if dice.chance(0.5):
        for x in (0.25 - street.half_road, street.half_road - 0.25):
            _paint_line(stage, street, x, paint, dashed=False)
    if street.zebra:
        _paint_zebra(stage, street, street.zebra, (210, 212, 212))


def _paint_line(stage: Stage, street: Street, x: float, colour: Colour, dashed: bool) -> None:
    spans = _dashes(stage.dice, street.end) if dashed else [(_FRONT, street.end)]
    for near, far in spans:
        if street.crossing and far > street.crossing[0] and near < street.crossing[1]:
            far = street.crossing[0]
        if near < far:
            _strip(stage, x - 0.08, x + 0.08, (near, far), colour, Label.ROAD)


def _dashes(dice: Dice, end: float) -> list[Point]:
    dash, gap = dice.between(1.5, 3.5), dice.between(2, 6)
    count = int(min(end, 60) / (dash + gap))
    start = dice.between(_FRONT, _FRONT + gap)
    return [(start + index * (dash + gap), start + index * (dash + gap) + dash) for index in range(count)]


def _paint_zebra(stage: Stage, street: Street, z: float, colour: Colour) -> None:
    x = 0.3 - street.half_road
    while x + 0.5 < street.half_road:
        _strip(stage, x, x + 0.5, (z, z + 3), colour, Label.ROAD)
        x += 1.0
