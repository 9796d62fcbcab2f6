"""Points of two values with their names beside them."""

from collections.abc import Sequence
from dataclasses import dataclass

from ffnet_deploy.report.charts.drawing import (
    TEXT,
    Drawing,
    bottom_axis,
    colour,
    fitted,
    left_axis,
    line,
    marker,
    text_width,
    write,
)
from ffnet_deploy.report.charts.scale import Scale, spanning
from ffnet_deploy.report.markup import Markup, join

_LEFT, _TOP, _BOTTOM = 46.0, 28.0, 44.0


@dataclass(frozen=True)
class Point:
    """A contender's place.

    Attributes:
        index: of the contender.
        name: written beside the mark.
        x: value along the bottom axis.
        y: value along the left axis.
        low: where its interval along x begins.
        high: where it ends.
    """

    index: int
    name: str
    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "_Box") -> float:
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(across, 0.0) * max(down, 0.0)


def scatter(points: Sequence[Point], x_label: str, y_label: str, width: int) -> Drawing:
    """The points with whiskers along x; up and left is better.

    Args:
        points: at least one.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit.
        width: of the drawing, pixels.
    """
    height = 300.0 if width < 600 else 340.0
    xs = spanning([value for one in points for value in (one.x, one.low, one.high)], _LEFT, width - 16.0, 0.12)
    ys = _upwards([one.y for one in points], height - _BOTTOM, _TOP)
    frame = join(
        left_axis(ys, _LEFT, width - 16.0, y_label, 6),
        bottom_axis(xs, _TOP, height - _BOTTOM, x_label, 5 if width < 600 else 9),
        write("\N{NORTH WEST ARROW} better", _LEFT + 6, _TOP + 14, "soft"),
    )
    return Drawing(height, [frame, _whiskers(points, xs, ys), _marks(points, xs, ys), _names(points, xs, ys, width)])


def _upwards(values: list[float], bottom: float, top: float) -> Scale:
    """An axis of scores: never so narrow that a hundredth of a point looks like a gulf."""
    low, high = min(values), max(values)
    room = max((high - low) * 0.25, 0.5)
    return Scale(low - room, high + room, bottom, top)


def _whiskers(points: Sequence[Point], xs: Scale, ys: Scale) -> list[Markup]:
    return [line(xs(one.low), ys(one.y), xs(one.high), ys(one.y), f"whisker {colour(one.index)}") for one in points]


def _marks(points: Sequence[Point], xs: Scale, ys: Scale) -> list[Markup]:
    return [marker(one.index, xs(one.x), ys(one.y), 6.0) for one in points]


def _names(points: Sequence[Point], xs: Scale, ys: Scale, width: int) -> list[Markup]:
    """Each name at the place around its mark where it covers least."""
    taken = [_Box(xs(one.x) - 8, ys(one.y) - 8, xs(one.x) + 8, ys(one.y) + 8) for one in points]
    taken += [_Box(xs(one.low), ys(one.y) - 2, xs(one.high), ys(one.y) + 2) for one in points]
    out = []
    for one in points:
        name = fitted(one.name, width * 0.5)
        boxes = _places(xs(one.x), ys(one.y), text_width(name), width)
        best = min(boxes, key=lambda box: sum(box.overlap(other) for other in taken))
        taken.append(best)
        before = best.right < xs(one.x)
        out.append(write(name, best.right if before else best.left, best.bottom - 3, "name", "end" if before else None))
    return out


def _places(x: float, y: float, long: float, width: int) -> list[_Box]:
    """Places for a name of that length: right, left, then rows above and below, kept within the drawing."""
    half = TEXT * 0.6
    corners = [(x + 11, y - half), (x - 11 - long, y - half)]
    for row in (1, 2, 3):
        for away in (-1, 1):
            top = y + away * (half * 2 * row + 4) - half
            corners += [(x - long / 2, top), (x + 4, top), (x - long - 4, top)]
    boxes = [_Box(left, top, left + long, top + 2 * half) for left, top in corners]
    inside = [box for box in boxes if box.left >= _LEFT and box.right <= width - 2 and box.top >= _TOP - 8]
    if inside:
        return inside
    left = min(max(x - long / 2, _LEFT), width - long - 4)
    return [_Box(left, y + 10, left + long, y + 10 + 2 * half)]
