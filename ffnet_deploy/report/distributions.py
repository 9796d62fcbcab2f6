"""Distributions of times: a histogram for each candidate with median and tail; and ratios with their intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.report.drawing import (
    Drawing,
    Scale,
    bottom_axis,
    colour,
    fitted,
    line,
    marker,
    spanning,
    text_width,
    write,
)
from ffnet_deploy.report.markup import Markup, element, join

_HEIGHT = 44.0
_ROW = _HEIGHT + 26.0
_BEYOND = 1.6
"""Multiples of the 99th percentile up to which the axis reaches; samples beyond are counted, not drawn."""


@dataclass(frozen=True)
class Times:
    """A candidate's samples with what is marked of them, all in ms.

    Attributes:
        index: Index of the candidate.
        name: Name of the candidate.
        samples: Samples, at least one.
        median: Median, drawn as a line.
        p95: 95th percentile, drawn as a tick.
        p99: 99th percentile, drawn as a tick.
        text: Text written at the right.
    """

    index: int
    name: str
    samples: tuple[float, ...]
    median: float
    p95: float
    p99: float
    text: str


def histograms(rows: Sequence[Times], width: int) -> Drawing:
    """A histogram of each candidate's samples over one axis of time.

    Args:
        rows: from top to bottom.
        width: of the drawing, pixels.
    """
    end = max(one.p99 for one in rows) * _BEYOND
    shown = [value for one in rows for value in one.samples if value <= end]
    scale = spanning(shown, 2.0, width - 16.0, 0.03)
    parts = [_histogram(one, scale, 4 + number * _ROW, width) for number, one in enumerate(rows)]
    bottom = 4 + len(rows) * _ROW
    most = 5 if width < 600 else 10
    return Drawing(bottom + 44, [bottom_axis(scale, 4, bottom, "time of a call, ms", most), parts])


def _histogram(one: Times, scale: Scale, top: float, width: int) -> Markup:
    base = top + _ROW - 6
    beyond = sum(value > scale.high for value in one.samples)
    name = fitted(one.name, width - text_width(one.text) - 16)
    more = write(f"+{beyond} slower \N{RIGHTWARDS ARROW}", scale.stop, base - 4, "soft", "end") if beyond else None
    return join(
        element("path", d=_outline(one.samples, scale, base), class_=f"histogram {colour(one.index)}"),
        line(scale.start, base, scale.stop, base, "grid"),
        line(scale(one.median), base - _HEIGHT, scale(one.median), base + 3, f"median {colour(one.index)}"),
        (
            line(scale(p), base - 7, scale(p), base + 3, f"tail {colour(one.index)}")
            for p in (one.p95, one.p99)
            if p <= scale.high
        ),
        write(name, scale.start, top + 10, "strong"),
        write(one.text, scale.stop, top + 10, "value", "end"),
        more,
    )


def _outline(samples: Sequence[float], scale: Scale, base: float) -> str:
    """The histogram's outline, its highest bin `_HEIGHT` pixels high."""
    edges, counts = histogram(samples, scale)
    high = max(int(counts.max()), 1)
    steps = [f"M{edges[0]:.1f} {base:.1f}"]
    for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True):
        y = base - _HEIGHT * count / high
        steps.append(f"L{left:.1f} {y:.1f}L{right:.1f} {y:.1f}")
    return "".join([*steps, f"L{edges[-1]:.1f} {base:.1f}Z"])


def histogram(samples: Sequence[float], scale: Scale) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Edges, as coordinates, and counts of bins over the samples that the axis shows.

    About as many bins as the Freedman-Diaconis rule asks for, 3 to 60 of them, and none narrower than 2 pixels.
    """
    places = np.array([scale(value) for value in samples if scale.low <= value <= scale.high])
    low, high = float(places.min()), float(places.max())
    if high - low < 3.0:
        low, high = (low + high) / 2 - 1.5, (low + high) / 2 + 1.5
    quarter, three = np.percentile(places, [25, 75])
    wanted = 2 * (three - quarter) / len(places) ** (1 / 3)
    bins = math.ceil((high - low) / wanted) if wanted > 0 else 60
    bins = max(min(bins, 60, int((high - low) / 2)), 1)
    counts, edges = np.histogram(places, bins, (low, high))
    return edges, counts


@dataclass(frozen=True)
class RatioRow:
    """A candidate's time as a multiple of the baseline's, with its interval.

    Attributes:
        index: Index of the candidate.
        name: Name of the candidate.
        value: The ratio; below 1 is faster.
        low: Lower end of the interval.
        high: Upper end of the interval.
        text: Value, interval and verdict, written at the right or, where it is narrow, below the name.
    """

    index: int
    name: str
    value: float
    low: float
    high: float
    text: str


def ratio_chart(rows: Sequence[RatioRow], baseline: str, width: int) -> Drawing:
    """Ratios with their intervals beside the line of no difference.

    Args:
        rows: from top to bottom.
        baseline: name of the candidate that has the ratio 1.
        width: of the drawing, pixels.
    """
    values = [value for one in rows for value in (one.low, one.high)] + [1.0]
    scale = spanning(values, 6.0, width - 16.0, 0.06)
    beside = all(text_width(one.name) + text_width(one.text) + 30 < width for one in rows)
    row = 46.0 if beside else 62.0
    bottom = 8 + len(rows) * row
    parts = []
    for number, one in enumerate(rows):
        top = 8 + number * row
        y = top + row - 16
        parts += [
            write(fitted(one.name, width - 8), 6, top + 14, "strong"),
            write(one.text, width - 16, top + 14, "value", "end") if beside else write(one.text, 6, top + 31, "value"),
            line(scale(one.low), y, scale(one.high), y, f"whisker {colour(one.index)}"),
            marker(one.index, scale(one.value), y),
        ]
    label = fitted(f"time as a multiple of {baseline}; left of 1 is faster", width - 10)
    axis = bottom_axis(scale, 4, bottom, label, 5 if width < 600 else 9)
    return Drawing(bottom + 44, [axis, line(scale(1.0), 4, scale(1.0), bottom, "one"), parts])
