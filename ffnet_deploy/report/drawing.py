"""What all figures share: axes, text that fits, marks of candidates and classes, and the figure around a drawing."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.report.markup import Content, Markup, element, join

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_DECADE_STEPS = ((1, 2, 5), (1, 3), (1,))
_LOGARITHMIC_FROM = 6.0
"""Ratio of the ends of a range from which on a logarithmic axis shows it better."""


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic axis.

    Attributes:
        low: Value at `start`.
        high: Value at `stop`; more than `low`.
        start: Coordinate of `low`, in units of the drawing.
        stop: Coordinate of `high`; less than `start` for an axis that rises upwards.
        logarithmic: Whether values are positive and spaced by their ratio.
    """

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise OptionError(f"an axis needs two finite ends that rise: got {self.low}, {self.high}")
        if self.logarithmic and self.low <= 0:
            raise OptionError(f"a logarithmic axis begins above 0: got {self.low}")

    def __call__(self, value: float) -> float:
        """The coordinate of `value`; beyond the ends for values outside of them."""
        if self.logarithmic:
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.stop - self.start)

    def ticks(self, most: int) -> list[float]:
        """At most `most` round values between the ends, in rising order; a few more if a log axis has no rounder."""
        return self._log_ticks(most) if self.logarithmic else self._linear_ticks(most)

    def _linear_ticks(self, most: int) -> list[float]:
        rough = (self.high - self.low) / max(most, 1)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(one * power for one in _STEPS if one * power >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]

    def _log_ticks(self, most: int) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found: list[float] = []
        for steps in _DECADE_STEPS:
            values = [step * 10.0**decade for decade in decades for step in steps]
            found = [value for value in values if self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9)]
            if len(found) <= most:
                break
        if len(found) >= 2:
            return found[:: -(-len(found) // most)]
        return self._linear_ticks(most)


def spanning(values: list[float], start: float, stop: float, margin: float = 0.06) -> Scale:
    """The axis from `start` to `stop` that holds `values` with some room; logarithmic where they differ manifold.

    Raises:
        OptionError: there are no values.
    """
    if not values:
        raise OptionError("an axis needs values to show")
    low, high = min(values), max(values)
    if low > 0 and high / low >= _LOGARITHMIC_FROM:
        room = (high / low) ** margin
        return Scale(low / room, high * room, start, stop, logarithmic=True)
    room = (high - low) * margin or abs(high) * 0.05 or 1.0
    return Scale(max(low - room, 0.0) if low >= 0 else low - room, high + room, start, stop)


def tick_text(value: float) -> str:
    """A round value as short as it can be."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


WIDTHS = (360, 640, 1000)
"""Widths, in CSS pixels, that each figure is drawn for; the page's styles show the one that fits."""

TEXT = 12.5
"""Font size in drawings, pixels."""

COLOURS = 8
"""Number of colours for candidates; further ones begin again."""

_GLYPH = 0.6
"""Mean width of a letter of a sans-serif font, in font sizes."""

Draw = Callable[[int], "Drawing"]


@dataclass(frozen=True)
class Drawing:
    """Content of an SVG of a width that is known, and its height in pixels."""

    height: float
    content: Content


def figure(ident: str, title: str, alt_text: str, draw: Draw, note: Content = None) -> Markup:
    """A figure with its caption.

    Args:
        ident: of the element; unique on the page.
        title: the caption's first words.
        alt_text: what the drawing shows, for those who do not see it.
        draw: gives the drawing for a width.
        note: the rest of the caption.
    """
    caption = element("figcaption", element("strong", title), " ", note)
    drawings = (
        element(
            "svg",
            drawing.content,
            class_=f"w{width}",
            viewBox=f"0 0 {width} {drawing.height:.0f}",
            role="img",
            aria_label=f"{title}. {alt_text}",
        )
        for width, drawing in ((width, draw(width)) for width in WIDTHS)
    )
    return element("figure", caption, drawings, id=ident, class_="chart")


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
    """Class of the candidate of that number."""
    return f"c{index % COLOURS}"


def marker(index: int, x: float, y: float, size: float = 5.0) -> Markup:
    """The candidate's mark: shapes differ as colours do, so that neither is needed alone."""
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


_SIDE = 14


def candidate_mark(index: int) -> Markup:
    """The mark of the candidate of that number, as in the figures."""
    return _inline(marker(index, _SIDE / 2, _SIDE / 2))


def swatch(colour: tuple[int, int, int]) -> Markup:
    """A square of the RGB `colour`."""
    fill = "#" + "".join(f"{part:02x}" for part in colour)
    return _inline(element("rect", x=1, y=1, width=_SIDE - 2, height=_SIDE - 2, rx=2, fill=fill, class_="swatch"))


def _inline(content: Markup) -> Markup:
    box = f"0 0 {_SIDE} {_SIDE}"
    return element("svg", content, class_="key", viewBox=box, width=_SIDE, height=_SIDE, aria_hidden="true")
