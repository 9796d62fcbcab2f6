"""Blocks of a network below the limits of the device: operations a second against operations a byte."""

from collections.abc import Sequence
from dataclasses import dataclass

from ffnet_deploy.report.charts.drawing import Drawing, bottom_axis, colour, left_axis, line, write
from ffnet_deploy.report.charts.scale import Scale, spanning
from ffnet_deploy.report.markup import Markup, element

_LEFT, _TOP, _BOTTOM, _RIGHT = 46.0, 28.0, 44.0, 16.0


@dataclass(frozen=True)
class Block:
    """A block's place under the roof.

    Attributes:
        name: of the block.
        number: written in its mark.
        intensity: operations per byte of memory traffic.
        speed: operations per second.
        share: of the whole time, percent; the mark's area.
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


def roofline(blocks: Sequence[Block], roof: Roof, index: int, width: int) -> Drawing:
    """The blocks of contender `index` as circles, both axes logarithmic, in G operations per second.

    Source: Williams, Waterman and Patterson, "Roofline", CACM 52 (4), 2009.
    """
    height = 300.0 if width < 600 else 360.0
    xs = _wide(spanning([*(one.intensity for one in blocks), roof.ridge], _LEFT, width - _RIGHT, 0.12))
    ys = _wide(spanning([*(one.speed / 1e9 for one in blocks), roof.flops / 1e9], height - _BOTTOM, _TOP + 6, 0.12))
    axes = [
        left_axis(ys, _LEFT, width - _RIGHT, "Gop/s", 6),
        bottom_axis(xs, _TOP, height - _BOTTOM, "operations per byte of memory traffic", 5 if width < 600 else 9),
    ]
    circles = [_circle(one, index, xs, ys) for one in sorted(blocks, key=lambda one: -one.share)]
    numbers = [_number(one, xs, ys) for one in blocks]
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


def _circle(one: Block, index: int, xs: Scale, ys: Scale) -> Markup:
    radius = 8.0 + 1.6 * max(one.share, 0.0) ** 0.5
    title = element("title", one.name)
    x, y = xs(one.intensity), ys(one.speed / 1e9)
    return element("circle", title, cx=x, cy=y, r=radius, class_=f"bubble {colour(index)}")


def _number(one: Block, xs: Scale, ys: Scale) -> Markup:
    return write(str(one.number), xs(one.intensity), ys(one.speed / 1e9) + 4, "number", "middle")
