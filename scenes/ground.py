"""The ground: pavements, kerbs, road, lane markings, zebra crossings, patches."""

import numpy as np

from scenes.canvas import Label, matter
from scenes.render_context import Point, RenderContext
from scenes.rng import Colour, Rng, clip, shade
from scenes.street import Street

_FRONT = 1.0  # metres ahead where the ground begins: below the picture for every camera
_STEPS = 20
_SIDEWAYS = 80.0  # metres that a side road or an open place reaches


def paint_ground(context: RenderContext, street: Street) -> None:
    """Paint everything that lies flat."""
    road, pavement = _greys(context.rng)
    _paint_pavement(context, street, pavement)
    _paint_road(context, street, road)
    _paint_patches(context, street, road)
    _paint_markings(context, street)


def _greys(rng: Rng) -> tuple[Colour, Colour]:
    """Colours of road and pavement: greys from one range, so that tone alone does not tell them apart."""
    road = rng.whole(62, 128)
    pavement = rng.whole(75, 175)
    if abs(pavement - road) < 14:
        pavement = road + rng.pick((-18, 18, 26))
    return _tinted(rng, road, 6), _tinted(rng, pavement, 14)


def _tinted(rng: Rng, grey: int, spread: int) -> Colour:
    warmth = rng.whole(-spread, spread)
    return clip(grey - warmth), clip(grey), clip(grey + warmth // 2)


def _depths(near: float, far: float) -> list[float]:
    """Distances from near to far, close together at first, enough of them to follow a bend."""
    steps = _STEPS if far > 4 * near else 3
    return [near + (far - near) * (step / steps) ** 2 for step in range(steps + 1)]


def _strip(context: RenderContext, left: float, right: float, span: Point, colour: Colour, label: Label) -> None:
    """A strip of ground from x = left to right over the (near, far) span of z, following the bend."""
    depths = _depths(*span) if context.camera.bend else list(span)
    corners = [(left, 0.0, z) for z in depths] + [(right, 0.0, z) for z in reversed(depths)]
    context.paint(corners, colour, label)


def _paint_pavement(context: RenderContext, street: Street, colour: Colour) -> None:
    height, width = context.camera.height, context.camera.width
    top = round(context.camera.horizon)
    corners = np.array([(0, top), (width, top), (width, height), (0, height)], np.int32)
    context.canvas.paint([corners], colour, matter(Label.SIDEWALK, 50))
    if context.rng.chance(0.6):
        _paint_slabs(context, street, shade(colour, context.rng.between(0.78, 0.9)))


def _paint_slabs(context: RenderContext, street: Street, colour: Colour) -> None:
    """Joints between the slabs: across the pavement, and one along it."""
    size = context.rng.between(0.8, 2)
    for side in (-1, 1):
        edge, front = side * street.half_road, street.front(side)
        middle = (edge + front) / 2
        _strip(context, middle - 0.02, middle + 0.02, (_FRONT, 25), colour, Label.SIDEWALK)
        z = max(2.5, context.camera.nearest_in_view(edge) * 0.7)
        while z < 22:
            _strip(context, edge, front, (z, z + 0.025 + z * 0.002), colour, Label.SIDEWALK)
            z += size


def _paint_road(context: RenderContext, street: Street, colour: Colour) -> None:
    kerb = shade(colour, context.rng.pick((0.6, 1.35, 1.5)))
    edge = street.half_road
    for side in (-1, 1):
        inner, outer = sorted((side * edge, side * (edge + 0.22)))
        _strip(context, inner, outer, (_FRONT, street.end + 2), kerb, Label.SIDEWALK)
    if street.crossing:
        _strip(context, -_SIDEWAYS, _SIDEWAYS, street.crossing, colour, Label.ROAD)
    _strip(context, -edge, edge, (_FRONT, street.end + 2), colour, Label.ROAD)


def _paint_patches(context: RenderContext, street: Street, colour: Colour) -> None:
    """Repairs, stains and manhole covers."""
    rng = context.rng
    for _ in range(rng.whole(0, 6)):
        x, z = rng.between(-0.9, 0.6) * street.half_road, rng.between(3, 25)
        width, length = rng.between(0.5, 2), rng.between(0.8, 7)
        tone = shade(colour, rng.between(0.7, 1.2))
        right = min(x + width, street.half_road)
        skew = rng.between(-0.3, 0.3) if right + 0.3 < street.half_road else 0.0
        corners = [(x, 0.0, z), (right, 0.0, z), (right + skew, 0.0, z + length), (x, 0.0, z + length)]
        context.paint(corners, tone, Label.ROAD)


def _paint_markings(context: RenderContext, street: Street) -> None:
    rng = context.rng
    paint = rng.near(rng.pick(((215, 215, 215), (190, 190, 190), (90, 190, 215))), 15)
    lane = 2 * street.half_road / street.lanes
    for index in range(1, street.lanes):
        _paint_line(context, street, -street.half_road + index * lane, paint, dashed=rng.chance(0.7))
    if rng.chance(0.5):
        for x in (0.25 - street.half_road, street.half_road - 0.25):
            _paint_line(context, street, x, paint, dashed=False)
    if street.zebra:
        _paint_zebra(context, street, street.zebra, (210, 212, 212))


def _paint_line(context: RenderContext, street: Street, x: float, colour: Colour, dashed: bool) -> None:
    spans = _dashes(context.rng, street.end) if dashed else [(_FRONT, street.end)]
    for near, far in spans:
        if street.crossing and far > street.crossing[0] and near < street.crossing[1]:
            far = street.crossing[0]
        if near < far:
            _strip(context, x - 0.08, x + 0.08, (near, far), colour, Label.ROAD)


def _dashes(rng: Rng, end: float) -> list[Point]:
    dash, gap = rng.between(1.5, 3.5), rng.between(2, 6)
    count = int(min(end, 60) / (dash + gap))
    start = rng.between(_FRONT, _FRONT + gap)
    return [(start + index * (dash + gap), start + index * (dash + gap) + dash) for index in range(count)]


def _paint_zebra(context: RenderContext, street: Street, z: float, colour: Colour) -> None:
    x = 0.3 - street.half_road
    while x + 0.5 < street.half_road:
        _strip(context, x, x + 0.5, (z, z + 3), colour, Label.ROAD)
        x += 1.0
