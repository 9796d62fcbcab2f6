"""The parts that all figures share: frames, text that fits, marks, and the figure around the drawing."""

from collections.abc import Callable
from dataclasses import dataclass

from ffnet_deploy.report.charts.scale import Scale, tick_text
from ffnet_deploy.report.markup import Content, Markup, element, join

WIDTHS = (360, 640, 1000)
"""Widths, in CSS pixels, that each figure is drawn for; the page's styles show the one that fits."""

TEXT = 12.5
"""Font size in drawings, pixels."""

COLOURS = 8
"""Number of colours for contenders; further ones begin again."""

_GLYPH = 0.6
"""Mean width of a letter of a sans-serif font, in font sizes."""

Draw = Callable[[int], "Drawing"]


@dataclass(frozen=True)
class Drawing:
    """Content of an SVG of a width that is known, and its height in pixels."""

    height: float
    content: Content


def figure(ident: str, title: str, told: str, draw: Draw, note: Content = None) -> Markup:
    """A figure with its caption.

    Args:
        ident: of the element; unique on the page.
        title: the caption's first words.
        told: what the drawing shows, for those who do not see it.
        draw: gives the drawing for a width.
        note: the rest of the caption.
    """
    caption = element("figcaption", element("strong", title), " ", note)
    drawings = (_svg(draw(width), width, f"{title}. {told}") for width in WIDTHS)
    return element("figure", caption, drawings, id=ident, class_="chart")


def _svg(drawing: Drawing, width: int, label: str) -> Markup:
    box = f"0 0 {width} {drawing.height:.0f}"
    return element("svg", drawing.content, class_=f"w{width}", viewBox=box, role="img", aria_label=label)


def text_width(text: str, size: float = TEXT) -> float:
    """About how wide `text` is, pixels."""
    return len(text) * _GLYPH * size


def fitted(text: str, room: float, size: float = TEXT) -> str:
    """`text`, its middle left out where it is wider than `room` pixels: both ends of file names matter."""
    most = max(int(room / (_GLYPH * size) + 1e-6), 4)
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - (most - 1 - head) :]}"


def write(text: str, x: float, y: float, class_: str | None = None, anchor: str | None = None) -> Markup:
    """Text with its baseline at (x, y), beginning there unless `anchor` says middle or end."""
    return element("text", text, x=x, y=y, class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def colour(index: int) -> str:
    """Class of the contender of that number."""
    return f"c{index % COLOURS}"


def marker(index: int, x: float, y: float, size: float = 5.0) -> Markup:
    """The contender's mark: shapes differ as colours do, so that neither is needed alone."""
    kind = index % 4
    class_ = f"mark {colour(index)}"
    if kind == 0:
        return element("circle", cx=x, cy=y, r=size, class_=class_)
    if kind == 1:
        return element("rect", x=x - size * 0.9, y=y - size * 0.9, width=size * 1.8, height=size * 1.8, class_=class_)
    tip, foot = (-1.2, 0.9) if kind == 2 else (-1.3, 1.3)
    sides = ((0, tip), (1.2, foot), (-1.2, foot)) if kind == 2 else ((0, tip), (1.3, 0), (0, foot), (-1.3, 0))
    corners = " ".join(f"{x + dx * size:.2f},{y + dy * size:.2f}" for dx, dy in sides)
    return element("polygon", points=corners, class_=class_)


def bottom_axis(scale: Scale, top: float, y: float, label: str, most: int) -> Markup:
    """Grid lines from `top` down to `y`, values below and the label below them."""
    ticks = scale.ticks(most)
    middle = (scale.start + scale.stop) / 2
    return join(
        (line(scale(value), top, scale(value), y, "grid") for value in ticks),
        line(scale.start, y, scale.stop, y, "axis"),
        (write(tick_text(value), scale(value), y + 17, "tick", "middle") for value in ticks),
        write(label + (", logarithmic" if scale.logarithmic else ""), middle, y + 36, "label", "middle"),
    )


def left_axis(scale: Scale, x: float, right: float, label: str, most: int) -> Markup:
    """Grid lines from `x` to `right`, values left of them and the label above."""
    ticks = scale.ticks(most)
    return join(
        (line(x, scale(value), right, scale(value), "grid") for value in ticks),
        (write(tick_text(value), x - 7, scale(value) + 4, "tick", "end") for value in ticks),
        write(label + (", logarithmic" if scale.logarithmic else ""), 0, 14, "label"),
    )
