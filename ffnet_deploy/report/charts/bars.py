"""Bars: groups of them side by side, and single ones for the cells of tables."""

from collections.abc import Sequence
from dataclasses import dataclass

from ffnet_deploy.report.charts.drawing import Drawing, bottom_axis, colour, fitted, text_width, write
from ffnet_deploy.report.charts.scale import Scale
from ffnet_deploy.report.markup import Markup, element, join

_BAR = 17.0
_GAP = 5.0
_GROUP_GAP = 18.0


@dataclass(frozen=True)
class Bar:
    """One bar: `index` of the contender, its name, the value and how it is written; None is not drawn."""

    index: int
    name: str
    value: float | None
    text: str


@dataclass(frozen=True)
class Group:
    """Bars under one heading."""

    heading: str
    bars: tuple[Bar, ...]


def grouped_bars(groups: Sequence[Group], most: float, axis: str, width: int) -> Drawing:
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
    """Thin bars one below the other for a table's cell: (contender, value), from 0 to `most`.

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
