"""Bars, divided bars, points of two values, and the roofline, as SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

from ffnet_deploy.report.drawing import (
    TEXT,
    Drawing,
    Scale,
    bottom_axis,
    colour,
    fitted,
    left_axis,
    line,
    marker,
    spanning,
    text_width,
    write,
)
from ffnet_deploy.report.markup import Markup, element, join

_LEFT, _TOP, _BOTTOM, _RIGHT = 46.0, 28.0, 44.0, 16.0
_STACK = 20.0
_STACK_ROW = 46.0
_BAR = 17.0
_GAP = 5.0
_GROUP_GAP = 18.0


@dataclass(frozen=True)
class Bar:
    """One bar: `index` of the candidate, its name, the value and how it is written; None is not drawn."""

    index: int
    name: str
    value: float | None
    text: str


@dataclass(frozen=True)
class BarGroup:
    """Bars under one heading."""

    heading: str
    bars: tuple[Bar, ...]


def grouped_bars(groups: Sequence[BarGroup], most: float, axis: str, width: int) -> Drawing:
    """Groups of horizontal bars from 0 to `most`, each with its value at the end; names above bars where it is narrow.

    Args:
        groups: from top to bottom.
        most: right end of the axis.
        axis: what the values are.
        width: of the drawing, pixels.
    """
    narrow = width < 600
    names = [bar.name for group in groups for bar in group.bars]
    gutter = 0.0 if narrow else min(max(map(text_width, names), default=0) + 14, width * 0.4)
    room = max((text_width(bar.text) for group in groups for bar in group.bars), default=0) + 10
    scale = Scale(0.0, most, gutter + 1, width - room)
    y, parts = 6.0, []
    for group in groups:
        parts.append(write(group.heading, 0, y + 9, "strong"))
        y += 20.0
        for bar in group.bars:
            if narrow:
                parts.append(write(fitted(bar.name, width), 0, y + 9, "soft"))
                y += 15.0
            parts.append(_bar(bar, scale, y, gutter, narrow))
            y += _BAR + _GAP
        y += _GROUP_GAP - _GAP
    y -= _GROUP_GAP - _GAP
    return Drawing(y + 44, [bottom_axis(scale, 26, y + 2, axis, 5 if narrow else 10), parts])


def _bar(bar: Bar, scale: Scale, y: float, gutter: float, narrow: bool) -> Markup:
    name = None if narrow else write(fitted(bar.name, gutter - 14), gutter - 8, y + 13, "soft", "end")
    if bar.value is None:
        return join(name, write("not scored", scale.start + 6, y + 13, "soft"))
    end = scale(bar.value)
    drawn = element(
        "rect", x=scale.start, y=y, width=end - scale.start, height=_BAR, class_=f"fill {colour(bar.index)}"
    )
    return join(name, drawn, write(bar.text, end + 6, y + 13, "value"))


def cell_bars(values: Sequence[tuple[int, float | None]], most: float) -> Markup:
    """Thin bars one below the other for a table's cell: (candidate, value), from 0 to `most`.

    They repeat what the cells beside them say, so they are hidden from screen readers.
    """
    height = 4 * len(values) + 2
    rows = []
    for row, (index, value) in enumerate(values):
        rows.append(element("rect", x=0, y=4 * row + 1, width=100, height=3, class_="track"))
        if value is not None and value > 0:
            length = 100 * min(value / most, 1.0)
            rows.append(element("rect", x=0, y=4 * row + 1, width=length, height=3, class_=f"fill {colour(index)}"))
    box = f"0 0 100 {height}"
    return element(
        "svg", rows, class_=f"cell n{len(values)}", viewBox=box, preserveAspectRatio="none", aria_hidden="true"
    )


@dataclass(frozen=True)
class Part:
    """A piece of a bar: its kind (a class of the page's styles), its name and how many it stands for."""

    kind: str
    text: str
    count: int


@dataclass(frozen=True)
class Stack:
    """A bar and its name."""

    name: str
    parts: tuple[Part, ...]


def stacks(rows: Sequence[Stack], width: int) -> Drawing:
    """Each row as a bar of the whole width, divided by the counts of its parts."""
    content = [_stack(row, number * _STACK_ROW, width) for number, row in enumerate(rows)]
    return Drawing(len(rows) * _STACK_ROW, content)


def _stack(row: Stack, top: float, width: int) -> list[Markup]:
    whole = sum(part.count for part in row.parts) or 1
    out, x = [write(fitted(row.name, width), 0, top + 12, "strong")], 0.0
    for part in row.parts:
        length = width * part.count / whole
        title = element("title", f"{part.count} {part.text}")
        out.append(element("rect", title, x=x, y=top + 18, width=length, height=_STACK, class_=f"part {part.kind}"))
        text = next((t for t in (f"{part.text} {part.count}", part.text) if text_width(t) < length - 6), None)
        if text:
            out.append(write(text, x + 6, top + 32, f"on-part {part.kind}"))
        x += length
    return out


@dataclass(frozen=True)
class ScatterPoint:
    """A candidate's place.

    Attributes:
        index: Index of the candidate.
        name: Name written beside the mark.
        x: Value along the bottom axis.
        y: Value along the left axis.
        low: Where its interval along x begins.
        high: Where it ends.
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


def scatter(points: Sequence[ScatterPoint], x_label: str, y_label: str, width: int) -> Drawing:
    """The points with whiskers along x; up and left is better.

    Args:
        points: at least one.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit.
        width: of the drawing, pixels.
    """
    height = 300.0 if width < 600 else 340.0
    xs = spanning([value for one in points for value in (one.x, one.low, one.high)], _LEFT, width - 16.0, 0.12)
    low, high = min(one.y for one in points), max(one.y for one in points)
    room = max((high - low) * 0.25, 0.5)  # points; a hundredth must not fill the chart
    ys = Scale(low - room, high + room, height - _BOTTOM, _TOP)
    frame = join(
        left_axis(ys, _LEFT, width - 16.0, y_label, 6),
        bottom_axis(xs, _TOP, height - _BOTTOM, x_label, 5 if width < 600 else 9),
        write("\N{NORTH WEST ARROW} better", _LEFT + 6, _TOP + 14, "soft"),
    )
    whiskers = [line(xs(one.low), ys(one.y), xs(one.high), ys(one.y), f"whisker {colour(one.index)}") for one in points]
    marks = [marker(one.index, xs(one.x), ys(one.y), 6.0) for one in points]
    return Drawing(height, [frame, whiskers, marks, _names(points, xs, ys, width)])


def _names(points: Sequence[ScatterPoint], xs: Scale, ys: Scale, width: int) -> list[Markup]:
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


@dataclass(frozen=True)
class RooflineBlock:
    """A block's place under the roof.

    Attributes:
        name: Name of the block.
        number: Number written in its mark.
        intensity: Operations per byte of memory traffic.
        speed: Operations per second.
        share: Share of the whole time in percent, shown by the mark's area.
    """

    name: str
    number: int
    intensity: float
    speed: float
    share: float


@dataclass(frozen=True)
class Roof:
    """Limits of a device: operations and bytes per second."""

    flops: float
    bytes: float

    @property
    def ridge(self) -> float:
        """Operations per byte from which on computing is the limit."""
        return self.flops / self.bytes


def roofline(blocks: Sequence[RooflineBlock], roof: Roof, index: int, width: int) -> Drawing:
    """The blocks of candidate `index` as circles, both axes logarithmic, in G operations per second.

    Source: Williams, Waterman and Patterson, "Roofline", CACM 52 (4), 2009.
    """
    height = 300.0 if width < 600 else 360.0
    xs = _wide(spanning([*(one.intensity for one in blocks), roof.ridge], _LEFT, width - _RIGHT, 0.12))
    ys = _wide(spanning([*(one.speed / 1e9 for one in blocks), roof.flops / 1e9], height - _BOTTOM, _TOP + 6, 0.12))
    axes = [
        left_axis(ys, _LEFT, width - _RIGHT, "Gop/s", 6),
        bottom_axis(xs, _TOP, height - _BOTTOM, "operations per byte of memory traffic", 5 if width < 600 else 9),
    ]
    circles = []
    for one in sorted(blocks, key=lambda one: -one.share):  # small circles lie on large ones
        x, y, radius = xs(one.intensity), ys(one.speed / 1e9), 8.0 + 1.6 * max(one.share, 0.0) ** 0.5
        title = element("title", one.name)
        circles.append(element("circle", title, cx=x, cy=y, r=radius, class_=f"bubble {colour(index)}"))
    numbers = [write(str(one.number), xs(one.intensity), ys(one.speed / 1e9) + 4, "number", "middle") for one in blocks]
    return Drawing(height, [axes, _roof(roof, xs, ys), circles, numbers])


def _wide(scale: Scale) -> Scale:
    """`scale` as a logarithmic one, over at least a decade."""
    middle = (scale.low * scale.high) ** 0.5 if scale.low > 0 else scale.high / 2
    low = scale.low if scale.low > 0 else scale.high / 100
    return Scale(min(low, middle / 3.2), max(scale.high, middle * 3.2), scale.start, scale.stop, logarithmic=True)


def _roof(roof: Roof, xs: Scale, ys: Scale) -> list[Markup]:
    top = roof.flops / 1e9
    bend = min(max(roof.ridge, xs.low), xs.high)
    out = [line(xs(bend), ys(top), xs.stop, ys(top), "roof")]
    foot = max(xs.low, ys.low * 1e9 / roof.bytes)
    if foot < bend:
        out.append(line(xs(foot), ys(foot * roof.bytes / 1e9), xs(bend), ys(top), "roof"))
    out.append(write("limit of the device", xs.stop, ys(top) - 7, "soft", "end"))
    return out


@dataclass(frozen=True)
class CurvePoint:
    """A point of a curve.

    Attributes:
        x: Value along the bottom axis.
        y: Value along the left axis.
        label: What it stands for, as its tooltip.
        text: What is written above its mark.
    """

    x: float
    y: float
    label: str
    text: str = ""


@dataclass(frozen=True)
class Curve:
    """Points of one candidate, or of one quantity, joined in their order.

    Attributes:
        index: Number that sets mark and colour.
        name: Written at the last point.
        points: At least one.
    """

    index: int
    name: str
    points: tuple[CurvePoint, ...]


def curves(rows: Sequence[Curve], x_label: str, y_label: str, width: int, from_zero: bool = False) -> Drawing:
    """Curves over common axes, each point with its label as a tooltip.

    Args:
        rows: at least one.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit.
        width: of the drawing, pixels.
        from_zero: whether x is a count, whose axis is linear and begins at 0.
    """
    height = 300.0 if width < 600 else 360.0
    key = 20.0 * len(rows)
    points = [point for row in rows for point in row.points]
    reach = [point.x for point in points]
    xs = Scale(0.0, max(*reach, 1.0), _LEFT, width - _RIGHT) if from_zero else spanning(reach, _LEFT, width - _RIGHT)
    ys = spanning([point.y for point in points], height - _BOTTOM, _TOP + 4, 0.08)
    frame = [
        left_axis(ys, _LEFT, width - _RIGHT, y_label, 6),
        bottom_axis(xs, _TOP, height - _BOTTOM, x_label, 5 if width < 600 else 9),
    ]
    drawn = []
    for number, row in enumerate(rows):
        path = "L".join(f"{xs(point.x):.1f} {ys(point.y):.1f}" for point in row.points)
        drawn.append(element("path", d=f"M{path}", class_=f"curve {colour(row.index)}"))
        if len(row.points) <= 40:
            drawn += [
                element("g", element("title", point.label), marker(row.index, xs(point.x), ys(point.y), 4.0))
                for point in row.points
            ]
            drawn += [
                write(point.text, xs(point.x), ys(point.y) - 9, "tick", "middle") for point in row.points if point.text
            ]
        y = height + 14 + 20 * number
        drawn += [marker(row.index, _LEFT, y - 4), write(fitted(row.name, width - _LEFT - 30), _LEFT + 14, y)]
    return Drawing(height + key + 4, [frame, drawn])


def confusion_grid(shares: Sequence[Sequence[float]], names: Sequence[str], width: int) -> Drawing:
    """A square of cells, one row for each true class, darker where more of its pixels are predicted as the column's.

    Args:
        shares: percent of the pixels of each true class, (classes, classes).
        names: of the classes; columns carry their numbers.
        width: of the drawing, pixels.
    """
    gutter = min(max(text_width(f"{len(names)} {name}") for name in names) + 12, width * 0.4)
    side = min((width - gutter) / len(names), 34.0)
    parts = []
    for row, name in enumerate(names):
        y = 24 + row * side
        parts.append(write(fitted(f"{row + 1} {name}", gutter - 8), gutter - 8, y + side / 2 + 4, "soft", "end"))
        parts.append(write(str(row + 1), gutter + (row + 0.5) * side, 16, "tick", "middle"))
        for column, value in enumerate(shares[row]):
            title = element("title", f"{name} predicted as {names[column]}: {value:.1f} %")
            kind = "confusion right" if row == column else "confusion wrong"
            opacity = min(value / 100, 1.0) ** 0.5
            x = gutter + column * side
            parts.append(
                element("rect", title, x=x, y=y, width=side - 1, height=side - 1, class_=kind, fill_opacity=opacity)
            )
    return Drawing(24 + len(names) * side + 4, parts)
