"""Houses: two visible facades with windows, shop fronts and bands, under flat or pitched roofs; garden walls."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenes.canvas import Label
from scenes.facades import Facade
from scenes.render_context import RenderContext, box
from scenes.rng import Colour, Rng, blend, shade

_WALLS: tuple[Colour, ...] = (
    (150, 175, 195),
    (70, 85, 140),
    (125, 125, 125),
    (205, 210, 215),
    (110, 170, 200),
    (150, 130, 110),
    (70, 90, 115),
    (130, 150, 135),
    (95, 95, 100),
    (175, 160, 190),
)
_ROOFS: tuple[Colour, ...] = ((55, 60, 105), (70, 70, 75), (60, 75, 95), (95, 85, 80))
_GLASS: tuple[Colour, ...] = ((90, 75, 60), (60, 55, 50), (140, 120, 100), (175, 165, 150))
_LIT: Colour = (120, 200, 240)
_FRAME = np.array([-0.15, -0.15, 0.15, 0.15])  # metres around a window
_DETAIL = 0.012  # of the picture width: narrower facades stay plain


@dataclass(frozen=True)
class _Style:
    """How the windows of one house are set, in metres and as parts of their cell."""

    wall: Colour
    glass: Colour
    floor: float
    column: float
    window: tuple[float, float]
    frame: bool
    bands: bool
    shop: bool


def _choose_style(rng: Rng) -> _Style:
    glassy = rng.chance(0.15)
    return _Style(
        wall=rng.near(rng.pick(_WALLS), 30),
        glass=rng.near(rng.pick(_GLASS), 20),
        floor=rng.between(2.8, 3.8),
        column=rng.between(1.8, 4.2),
        window=(0.86, 0.8) if glassy else (rng.between(0.35, 0.65), rng.between(0.4, 0.65)),
        frame=rng.chance(0.5),
        bands=rng.chance(0.4),
        shop=rng.chance(0.4),
    )


def paint_building(context: RenderContext, side: int, front: float, span: tuple[float, float]) -> None:
    """A house on the left (side -1) or right (1), its front at x = `front` over the (near, far) span of z."""
    rng = context.rng
    style = _choose_style(rng)
    near, far = span
    depth, height = rng.between(7, 14), rng.between(4.5, 9) if rng.chance(0.4) else rng.between(8, 26)
    street_face = Facade(context, (front, near), (front, far), Label.BUILDING)
    light = context.lighting.facing[0 if side > 0 else 2]
    if near > 1.2:
        end_face = Facade(context, (front, near), (front + side * depth, near), Label.BUILDING)
        _paint_face(end_face, rng, style, height, context.lighting.facing[1], rng.chance(0.55))
    _paint_face(street_face, rng, style, height, light, False)
    if height < 12 and rng.chance(0.6):
        _paint_pitched_roof(context, side, front, span, (depth, height))
    else:
        street_face.fill(shade(style.wall, 0.65 * light), box(0, height - 0.35, far - near, height))


def _paint_pitched_roof(
    context: RenderContext, side: int, front: float, span: tuple[float, float], size: tuple[float, float]
) -> None:
    near, far = max(span[0], 1.0), span[1]
    depth, height = size
    ridge_x, ridge = front + side * depth / 2, height + depth * context.rng.between(0.25, 0.45)
    roof = context.rng.near(context.rng.pick(_ROOFS), 20)
    gable = [(front, height, near), (front + side * depth, height, near), (ridge_x, ridge, near)]
    context.paint(gable, shade(roof, 1.15), Label.BUILDING)
    slope = [(front, height, near), (front, height, far), (ridge_x, ridge, far), (ridge_x, ridge, near)]
    context.paint(slope, roof, Label.BUILDING)


def _paint_face(face: Facade, rng: Rng, style: _Style, height: float, light: float, blind: bool) -> None:
    columns = face.columns_in_view()
    if not columns:
        return
    wall = shade(style.wall, light)
    face.fill(wall, box(0, 0, face.length, height))
    if blind or columns < _DETAIL * face.context.camera.width:
        return
    if style.bands:
        lines = np.arange(1.0, int(height / style.floor) + 1) * style.floor
        face.fill_boxes(_bands(lines, face.length), [shade(wall, 0.8)])
    _paint_windows(face, rng, style, height, light)
    if style.shop:
        _paint_shop(face, rng, style, light)
    else:
        face.fill(shade(wall, 0.72), box(0, 0, face.length, 0.6))


def _bands(lines: NDArray[np.floating], length: float) -> NDArray[np.float64]:
    """Thin boxes (n, 4) along a whole face at the given heights, in pieces so that near ones can be left out."""
    edges = np.linspace(0, length, 5)
    left, low = (grid.ravel() for grid in np.meshgrid(edges[:-1], lines))
    return np.stack([left, low - 0.15, left + length / 4, low], axis=1)


def _window_boxes(face: Facade, style: _Style, height: float) -> NDArray[np.float64]:
    """Boxes (n, 4) of all windows of a face."""
    first = 1 if style.shop else 0
    rows = np.arange(first, int(height / style.floor))
    columns = np.arange(max(int(face.length / style.column), 1))
    cell = face.length / len(columns)
    left, low = (grid.ravel() for grid in np.meshgrid((columns + 0.5) * cell, (rows + 0.5) * style.floor))
    half, tall = style.window[0] * cell / 2, style.window[1] * style.floor / 2
    return np.stack([left - half, low - tall, left + half, low + tall], axis=1)


def _paint_windows(face: Facade, rng: Rng, style: _Style, height: float, light: float) -> None:
    boxes = _window_boxes(face, style, height)
    if not len(boxes):
        return
    if style.frame:
        face.fill_boxes(boxes + _FRAME, [shade(style.wall, 1.3 * light)])
    kinds = _window_kinds(rng, face.context.lighting.lit, len(boxes))
    glass = shade(style.glass, 0.5 + 0.5 * light)
    face.fill_boxes(boxes, (glass, blend(glass, (200, 200, 195), 0.3), _LIT), kinds)


def _window_kinds(rng: Rng, lit: float, count: int) -> NDArray[np.int64]:
    """For each window 0 dark, 1 with a curtain or a reflection, 2 lit: int64 (count,)."""
    chance = rng.several(0, 1, count)
    return np.where(chance < lit, 2, np.where(chance > 0.68, 1, 0)).astype(np.int64)


def _paint_shop(face: Facade, rng: Rng, style: _Style, light: float) -> None:
    """Wide panes on the ground floor under a sign of any colour."""
    panes = max(int(face.length / 3.2), 1)
    left = np.arange(panes) * (face.length / panes)
    low = np.full(panes, 0.5)
    boxes = np.stack([left + 0.2, low, left + face.length / panes - 0.2, low + 0.6 * style.floor], axis=1)
    face.fill_boxes(boxes, [_LIT if rng.chance(face.context.lighting.lit * 2) else shade(style.glass, light)])
    sign = np.stack([left, low + 0.68 * style.floor, left + face.length / panes, low + 0.85 * style.floor], axis=1)
    face.fill_boxes(sign, [shade(rng.any_colour(), light)])


def paint_wall(context: RenderContext, side: int, front: float, span: tuple[float, float]) -> None:
    """A garden wall, 1.6 to 3.2 m high, between two houses."""
    rng = context.rng
    height = rng.between(1.6, 3.2)
    wall = shade(rng.near(rng.pick(_WALLS), 25), context.lighting.facing[0 if side > 0 else 2])
    face = Facade(context, (front, span[0]), (front, span[1]), Label.BUILDING)
    face.fill(wall, box(0, 0, face.length, height))
    face.fill(shade(wall, 0.75), box(0, height - 0.2, face.length, height))
