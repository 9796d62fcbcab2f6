"""Where things stand: houses along both sides, then trees, poles, people and cars between them."""

from collections.abc import Iterator
from functools import partial

from scenes.buildings import paint_building, paint_wall
from scenes.cars import paint_car
from scenes.people import paint_person
from scenes.poles import paint_pole
from scenes.render_context import Point, RenderContext, Standing
from scenes.street import Street
from scenes.trees import paint_hedge, paint_tree

_SIDES = (-1, 1)
_POLE_REACH = 26.0  # metres: beyond, a pole is too thin to see
_PERSON_SHARE = 0.1  # of the picture size: people appear at least this tall
_CAR_SHARE = 0.04
_TREE_SHARE = 0.067


def place_houses(context: RenderContext, street: Street) -> list[Standing]:
    """Houses, walls, hedges and the trees behind them along both sides, and cars waiting in the side road."""
    standing = [thing for side in _SIDES for thing in _row_of_houses(context, street, side)]
    if street.crossing and context.rng.chance(0.7):
        near, far = street.crossing
        for side in _SIDES:
            x = street.front(side) + side * context.rng.between(3, 6)
            z = near + 1 + context.rng.between(0, 0.5) * max(far - near - 4, 0)
            standing.append(Standing(z, partial(paint_car, x=x, z=z, along_street=False)))
    return standing


def _row_of_houses(context: RenderContext, street: Street, side: int) -> Iterator[Standing]:
    rng, front = context.rng, street.front(side)
    gaps = rng.pick((0.1, 0.2, 0.45))
    z = rng.between(-8, 1)
    while z < street.end:
        length = rng.between(6, 20)
        near, far = _keep_crossing_free(street, z, min(z + length, street.end))
        if far - near > 2 and far > 1.5:
            if rng.chance(gaps):
                yield from _fill_gap(context, side, front, (max(near, 1.0), far))
            else:
                setback = rng.pick((0.0, 0.0, 0.4, 1.5)) * side
                yield _house(context, side, front + setback, (near, far))
        z = max(far, z + length * 0.5) + rng.pick((0.0, 0.0, 1.5))


def _keep_crossing_free(street: Street, near: float, far: float) -> Point:
    """The part of near..far that does not stand in the side road."""
    if not street.crossing:
        return near, far
    first, last = street.crossing[0] - 2, street.crossing[1] + 2
    if near < first:
        return near, min(far, first)
    return max(near, last), max(far, last)


def _house(context: RenderContext, side: int, front: float, span: Point) -> Standing:
    slant_x, slant_z = context.lighting.shadow_direction
    near, far, height = max(span[0], 1.5), span[1], context.rng.between(6, 12)
    inward = slant_x * side < 0
    top = front + slant_x * height
    shadow = ((front, near), (front, far), (top, far + slant_z * height), (top, near + slant_z * height))
    painter = partial(paint_building, side=side, front=front, span=span)
    return Standing(max(span[0], 0.0), painter, shadow if inward else ())


def _fill_gap(context: RenderContext, side: int, front: float, span: Point) -> Iterator[Standing]:
    """A garden: trees behind a hedge or a wall, or in the open."""
    rng, (near, far) = context.rng, span
    for _ in range(rng.whole(1, 3)):
        size, z = rng.between(2.2, 4), rng.between(near, far)
        yield Standing(z, partial(paint_tree, x=front + side * rng.between(3, 7), z=max(z, 3.0), size=size))
    fence = rng.pick((paint_hedge, paint_wall, None))
    if fence is paint_hedge:
        yield Standing(near - 0.1, partial(paint_hedge, x=front, near=near, far=far))
    elif fence is paint_wall:
        yield Standing(near - 0.1, partial(paint_wall, side=side, front=front, span=span))


def place_street_life(context: RenderContext, street: Street) -> list[Standing]:
    """Trees, poles and people on the pavements, people on the crossing, cars in the lanes and at the kerb."""
    return [
        *_trees(context, street),
        *_poles(context, street),
        *_people(context, street),
        *_cars(context, street),
    ]


def _spot(context: RenderContext, x: float, closest: float, farthest: float) -> float:
    """A distance at which something at `x` is in view; nearer ones are likelier to be picked than far ones."""
    near = max(closest, 0.95 * context.camera.nearest_in_view(x))
    far = max(farthest, 1.5 * near)
    return 1 / context.rng.between(1 / far, 1 / near)


def _pavement(context: RenderContext, street: Street, side: int, low: float, high: float) -> float:
    """An x on the pavement; 0 is the kerb and 1 the house front."""
    part = context.rng.between(low, high)
    return side * street.half_road + (street.front(side) - side * street.half_road) * part


def _thrown(context: RenderContext, x: float, z: float, half: float, height: float) -> tuple[Point, ...]:
    """The corners of the shadow of something upright, 2 * `half` wide."""
    slant_x, slant_z = context.lighting.shadow_direction
    top_x, top_z = x + slant_x * height, z + slant_z * height
    return (x - half, z), (x + half, z), (top_x + half, top_z), (top_x - half, top_z)


def _in_side_road(street: Street, z: float) -> bool:
    return street.crossing is not None and street.crossing[0] < z < street.crossing[1]


def _trees(context: RenderContext, street: Street) -> Iterator[Standing]:
    rng = context.rng
    for _ in range(rng.pick((0, 1, 1, 2, 3, 4, 7))):
        side, size = rng.pick(_SIDES), rng.between(1.3, 2.8)
        x = _pavement(context, street, side, 0.1, 0.5)
        z = _spot(context, x, 8, min(street.end, context.camera.farthest_with(2 * size, _TREE_SHARE)))
        if not _in_side_road(street, z):
            shadow = _thrown(context, x, z, 0.6 * size, 2 * size)
            yield Standing(z, partial(paint_tree, x=x, z=z, size=size), shadow)


def _poles(context: RenderContext, street: Street) -> Iterator[Standing]:
    rng = context.rng
    for _ in range(rng.whole(1, 5)):
        side = rng.pick(_SIDES)
        x = _pavement(context, street, side, 0.1, 0.3)
        z = _spot(context, x, 5.5, _POLE_REACH)
        if not _in_side_road(street, z):
            shadow = _thrown(context, x, z, 0.1, 4)
            yield Standing(z, partial(paint_pole, x=x, z=z, inward=-side), shadow)


def _people(context: RenderContext, street: Street) -> Iterator[Standing]:
    rng = context.rng
    reach = context.camera.farthest_with(1.7, _PERSON_SHARE)
    for _ in range(rng.whole(1, 7)):
        x = _pavement(context, street, rng.pick(_SIDES), 0.15, 0.9)
        z = _spot(context, x, 3.5, reach)
        if street.zebra and rng.chance(0.4):
            x, z = rng.between(-1, 1) * street.half_road, street.zebra + rng.between(0.4, 2.6)
        if z < 1.3 * reach:
            yield Standing(z, partial(paint_person, x=x, z=z), _thrown(context, x, z, 0.25, 1.7))


def _cars(context: RenderContext, street: Street) -> Iterator[Standing]:
    rng = context.rng
    reach = min(street.end - 6, context.camera.farthest_with(1.8, _CAR_SHARE))
    lane = 2 * street.half_road / street.lanes
    lanes = [-street.half_road + lane * (index + 0.5) for index in range(street.lanes)]
    rows = [(x, rng.pick((0.1, 0.3, 0.5))) for x in lanes]
    for side in _SIDES:
        if street.half_road > 4 and rng.chance(0.4):
            rows.append((side * (street.half_road - 1.05), rng.pick((0.4, 0.8))))
    yield from (thing for x, filling in rows for thing in _row_of_cars(context, street, x, (filling, reach)))


def _row_of_cars(context: RenderContext, street: Street, x: float, filling_and_reach: Point) -> Iterator[Standing]:
    rng, (filling, reach) = context.rng, filling_and_reach
    z = rng.between(4.5, 9)
    while z < reach:
        free = street.zebra is None or not street.zebra - 5.5 < z < street.zebra + 3.5
        if free and rng.chance(filling):
            place = x + rng.between(-0.15, 0.15)
            yield Standing(z, partial(paint_car, x=place, z=z))
        z += rng.between(6.2, 9.5)
