"""Cars as two stacked boxes with the face towards the camera and the face towards the road's middle."""

from dataclasses import dataclass

import cv2
import numpy as np

from scenes.canvas import Label, matter
from scenes.facades import Facade
from scenes.render_context import RenderContext, box, circle
from scenes.rng import Colour, Rng, shade

_PAINTS: tuple[Colour, ...] = (
    (225, 225, 225),
    (45, 42, 40),
    (150, 150, 150),
    (45, 45, 165),
    (150, 85, 40),
    (70, 95, 55),
    (150, 175, 195),
    (95, 95, 100),
    (60, 170, 205),
    (75, 90, 120),
)
_TYRE: Colour = (30, 30, 32)


@dataclass(frozen=True)
class _Car:
    """Sizes in metres. The cabin spans the given parts of the length, from `waist` to `top`."""

    length: float
    width: float
    waist: float
    top: float
    cabin: tuple[float, float]
    paint: Colour
    glass: Colour


def _choose_car(rng: Rng) -> _Car:
    kind = rng.pick(("saloon", "hatch", "hatch", "van"))
    length = {"saloon": 4.5, "hatch": 3.9, "van": 5.2}[kind] * rng.between(0.95, 1.06)
    return _Car(
        length=length,
        width=rng.between(1.68, 1.95),
        waist=rng.between(0.85, 0.98) + (0.2 if kind == "van" else 0),
        top=rng.between(1.38, 1.58) + (0.65 if kind == "van" else 0),
        cabin={"saloon": (0.18, 0.72), "hatch": (0.05, 0.7), "van": (0.01, 0.84)}[kind],
        paint=rng.near(rng.pick(_PAINTS), 25),
        glass=rng.near(rng.pick(((60, 55, 50), (100, 90, 80), (45, 42, 40))), 15),
    )


def paint_car(context: RenderContext, x: float, z: float, along_street: bool = True) -> None:
    """A car whose nearest face is centred at (x, z), pointing along the street or across it."""
    car = _choose_car(context.rng)
    across, deep = (car.width, car.length) if along_street else (car.length, car.width)
    left, right = x - across / 2, x + across / 2
    _paint_ground_shadow(context, (left, right), (z, z + deep))
    _paint_hull(context, car, (left, right), (z, z + deep), along_street)
    side_x = left if left > context.camera.offset - context.camera.bend * z * z else right
    front = Facade(context, (left, z), (right, z), Label.CAR)
    side = Facade(context, (side_x, z), (side_x, z + deep), Label.CAR)
    lights = context.lighting.facing
    side_light = lights[0] if side_x == left else lights[2]
    if left <= context.camera.offset - context.camera.bend * z * z <= right:
        _paint_faces(context.rng, car, front, lights[1], along_street)
        return
    _paint_faces(context.rng, car, side, side_light * 0.9, not along_street)
    _paint_faces(context.rng, car, front, lights[1], along_street)


def _paint_faces(rng: Rng, car: _Car, face: Facade, light: float, is_end: bool) -> None:
    if is_end:
        _paint_end(rng, car, face, light)
    else:
        _paint_side(car, face, light)


def _paint_ground_shadow(context: RenderContext, xs: tuple[float, float], zs: tuple[float, float]) -> None:
    """The dark under the car, on whatever lies there."""
    (left, right), (near, far) = xs, zs
    corners = [(left - 0.1, near - 0.15), (right + 0.1, near - 0.15), (right + 0.1, far), (left - 0.1, far)]
    context.canvas.darken(np.array([context.camera.pixel(x, 0, z) for x, z in corners], np.int32), 0.55)


def _paint_hull(
    context: RenderContext, car: _Car, xs: tuple[float, float], zs: tuple[float, float], along: bool
) -> None:
    """The silhouettes of body and cabin, in the colours of bonnet and roof."""
    _paint_block(context, xs, zs, (0.22, car.waist), shade(car.paint, 0.95))
    start, stop = car.cabin
    inset = 0.09 * car.width
    if along:
        cabin_x = (xs[0] + inset, xs[1] - inset)
        cabin_z = (zs[0] + start * car.length, zs[0] + stop * car.length)
    else:
        cabin_x = (xs[0] + (0.05 + start) * car.length, xs[0] + stop * car.length)
        cabin_z = (zs[0] + inset, zs[1] - inset)
    _paint_block(context, cabin_x, cabin_z, (car.waist, car.top), shade(car.paint, 1.08))


def _paint_block(
    context: RenderContext, xs: tuple[float, float], zs: tuple[float, float], ys: tuple[float, float], colour: Colour
) -> None:
    corners = np.array([(x, y, z) for x in xs for y in ys for z in zs], np.float64)
    outline = cv2.convexHull(context.camera.pixels(corners))[:, 0]
    context.canvas.paint([outline], colour, matter(Label.CAR, zs[0]))


def _paint_end(rng: Rng, car: _Car, face: Facade, light: float) -> None:
    """Rear or front: window, lamps, plate, bumper and the tyres below."""
    width, paint = face.length, shade(car.paint, light)
    inset = 0.09 * width
    face.fill(_TYRE, box(0.04 * width, 0, 0.2 * width, 0.4), box(0.8 * width, 0, 0.96 * width, 0.4))
    face.fill(paint, box(0, 0.22, width, car.waist))
    face.fill(
        paint,
        [
            (0.5 * inset, car.waist),
            (width - 0.5 * inset, car.waist),
            (width - 1.4 * inset, car.top),
            (1.4 * inset, car.top),
        ],
    )
    low, high = car.waist + 0.03, car.top - 0.1
    face.fill(
        car.glass, [(1.2 * inset, low), (width - 1.2 * inset, low), (width - 1.9 * inset, high), (1.9 * inset, high)]
    )
    face.fill(shade(paint, 0.6), box(0, 0.22, width, 0.42))
    lamp = rng.pick(((40, 35, 190), (50, 40, 150), (215, 225, 230)))
    tall = car.waist - 0.28
    face.fill(
        lamp, box(0.03 * width, tall, 0.2 * width, tall + 0.16), box(0.8 * width, tall, 0.97 * width, tall + 0.16)
    )
    face.fill((210, 215, 215), box(0.37 * width, 0.46, 0.63 * width, 0.58))


def _paint_side(car: _Car, face: Facade, light: float) -> None:
    """Doors, side windows and wheels."""
    length, paint = face.length, shade(car.paint, light)
    start, stop = (part * length for part in car.cabin)
    face.fill(paint, box(0, 0.22, length, car.waist))
    high = car.top - 0.08
    face.fill(paint, [(start, car.waist), (stop + 0.35, car.waist), (stop - 0.25, car.top), (start + 0.2, car.top)])
    middle = (start + stop) / 2
    face.fill(
        car.glass, [(start + 0.2, car.waist), (middle - 0.05, car.waist), (middle - 0.05, high), (start + 0.35, high)]
    )
    face.fill(
        car.glass, [(middle + 0.05, car.waist), (stop + 0.1, car.waist), (stop - 0.3, high), (middle + 0.05, high)]
    )
    face.fill(shade(paint, 0.7), box(0, 0.22, length, 0.34))
    for wheel in (0.19 * length, 0.81 * length):
        face.fill(_TYRE, circle((wheel, 0.32), 0.33))
        face.fill((140, 140, 140), circle((wheel, 0.32), 0.17))
