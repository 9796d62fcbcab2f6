import math

import numpy as np
import pytest

from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.report.charts import (
    Bar,
    BarGroup,
    Part,
    Roof,
    RooflineBlock,
    ScatterPoint,
    Stack,
    cell_bars,
    grouped_bars,
    roofline,
    scatter,
    stacks,
)
from ffnet_deploy.report.distributions import RatioRow, Times, histogram, histograms, ratio_chart
from ffnet_deploy.report.drawing import WIDTHS, Drawing, Scale, figure, fitted, marker, spanning, text_width
from ffnet_deploy.report.markup import join
from tests.report.reading import Node, parse

HOSTILE = "<b>&\"'"


def drawn(drawing: Drawing) -> Node:
    return parse(join(drawing.content))


def ticks(node: Node, anchor: str = "middle") -> dict[float, float]:
    """Value and coordinate of each tick of the axis at the bottom (or, for ``end``, at the left)."""
    found = [text for text in node.all("text", class_="tick") if text.attributes.get("text-anchor") == anchor]
    # a line's value stands 4 pixels lower than the line, so that it looks centred on it
    return {float(text.text): text.number("x") if anchor == "middle" else text.number("y") - 4 for text in found}


def value_at(node: Node, x: float, logarithmic: bool = False, anchor: str = "middle") -> float:
    """What the axis says of a coordinate, from its first and last tick."""
    known = sorted(ticks(node, anchor).items())
    (low, at_low), (high, at_high) = known[0], known[-1]
    part = (x - at_low) / (at_high - at_low)
    if logarithmic:
        return math.exp(math.log(low) + part * (math.log(high) - math.log(low)))
    return low + part * (high - low)


@pytest.mark.parametrize("low", [0.0, 0.013, 3.0, 61.2, 980.0])
@pytest.mark.parametrize("wide", [0.01, 1.0, 7.3, 4000.0])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_ticks_are_few_round_and_within_the_axis(low: float, wide: float, logarithmic: bool) -> None:
    low = low or (0.002 if logarithmic else 0.0)
    found = Scale(low, low + wide, 0, 100, logarithmic).ticks(6)
    assert 1 <= len(found) <= 8
    assert all(low * (1 - 1e-6) - 1e-9 <= tick <= (low + wide) * (1 + 1e-6) for tick in found)
    assert found == sorted(set(found))
    assert all(float(f"{tick:.6g}") == pytest.approx(tick) for tick in found)


def test_an_axis_is_logarithmic_where_values_differ_manifold_and_holds_them_all() -> None:
    assert not spanning([10.0, 20.0], 0, 100).logarithmic
    scale = spanning([1.0, 20.0], 0, 100)
    assert scale.logarithmic and 0 < scale(1.0) < scale(20.0) < 100
    assert 0 <= spanning([5.0], 0, 100)(5.0) <= 100
    assert 0 <= spanning([0.0, 0.0], 0, 100)(0.0) <= 100


@pytest.mark.parametrize("wrong", [(1.0, 1.0, False), (0.0, math.nan, False), (0.0, 1.0, True), (0.0, math.inf, False)])
def test_an_axis_that_cannot_be_is_refused(wrong: tuple[float, float, bool]) -> None:
    with pytest.raises(OptionError, match="axis"):
        Scale(wrong[0], wrong[1], 0, 100, wrong[2])
    with pytest.raises(OptionError, match="values"):
        spanning([], 0, 100)


@pytest.mark.parametrize("width", WIDTHS)
def test_bars_are_as_long_as_their_values(width: int) -> None:
    bars = (Bar(0, "a", 62.65, "62.65"), Bar(1, HOSTILE, 31.3, "31.30"), Bar(2, "c", None, "-"))
    node = drawn(grouped_bars([BarGroup("mIoU", bars)], 100.0, "percent", width))
    drawn_bars = node.all("rect", class_="fill")
    ends = [bar.number("x") + bar.number("width") for bar in drawn_bars]
    assert [value_at(node, end) for end in ends] == pytest.approx([62.65, 31.3], abs=0.05)
    assert all(bar.number("width") <= width for bar in drawn_bars)
    assert {"62.65", "31.30", "not scored", "mIoU"} <= {text.text for text in node.all("text")}
    assert HOSTILE in {text.text for text in node.all("text")}


def test_bars_in_cells_are_as_long_as_their_values() -> None:
    fills = parse(cell_bars([(0, 50.0), (1, None), (2, 200.0), (3, 0.0)], 100.0)).all("rect", class_="fill")
    assert [bar.number("width") for bar in fills] == [50.0, 100.0]


@pytest.mark.parametrize("width", WIDTHS)
def test_points_lie_where_their_values_are_and_names_within_the_drawing(width: int) -> None:
    points = [
        ScatterPoint(0, "PyTorch", 41.0, 62.65, 40.0, 42.0),
        ScatterPoint(4, "a very long name of a candidate.int8.engine", 40.5, 62.6, 40.0, 41.0),
        ScatterPoint(8, HOSTILE, 6.2, 62.3, 6.1, 6.3),
    ]
    node = drawn(scatter(points, "ms", "mIoU", width))
    marks = node.all("circle")
    assert [value_at(node, mark.number("cx"), True) for mark in marks] == pytest.approx([41.0, 40.5, 6.2], rel=0.01)
    found = [value_at(node, mark.number("cy"), anchor="end") for mark in marks]
    assert found == pytest.approx([62.65, 62.6, 62.3], abs=0.01)
    whiskers = node.all("line", class_="whisker")
    assert [value_at(node, one.number("x2"), True) for one in whiskers] == pytest.approx([42.0, 41.0, 6.3], rel=0.01)
    for name in node.all("text", class_="name"):
        end = name.attributes.get("text-anchor") == "end"
        left = name.number("x") - (text_width(name.text) if end else 0)
        assert left >= 0 and left + text_width(name.text) <= width


def test_names_of_points_that_lie_together_do_not_cover_each_other() -> None:
    points = [ScatterPoint(index, f"candidate {index}", 10 + index / 100, 60.0, 10, 10) for index in range(4)]
    names = drawn(scatter(points, "ms", "mIoU", 1000)).all("text", class_="name")
    places = {(round(name.number("x") / 20), round(name.number("y") / 12)) for name in names}
    assert len(places) == 4


def test_hills_count_the_samples_and_mark_median_and_tail() -> None:
    samples = (*np.random.default_rng(0).normal(20, 1, 400).tolist(), 90.0)
    row = Times(0, HOSTILE, samples, 20.0, 22.0, 23.0, "median 20.0 ms")
    node = drawn(histograms([row], 1000))
    assert value_at(node, node.one("line", class_="median").number("x1")) == pytest.approx(20.0, abs=0.02)
    tails = [value_at(node, one.number("x1")) for one in node.all("line", class_="tail")]
    assert tails == pytest.approx([22.0, 23.0], abs=0.02)
    assert "+1 slower" in node.text and HOSTILE in node.text
    scale = Scale(10, 30, 0, 1000)
    edges, counts = histogram(samples, scale)
    assert counts.sum() == 400
    assert len(counts) <= 60 and np.diff(edges).min() >= 2


def test_samples_that_are_all_alike_have_a_hill_too() -> None:
    node = drawn(histograms([Times(0, "a", (5.0,) * 50, 5.0, 5.0, 5.0, "")], 360))
    path = node.one("path").attributes["d"]
    assert "nan" not in path and path.count("L") > 2


@pytest.mark.parametrize("width", WIDTHS)
def test_ratios_lie_where_their_values_are_beside_one(width: int) -> None:
    rows = [RatioRow(0, "a", 0.8, 0.7, 0.9, "0.8, faster"), RatioRow(4, "b", 1.3, 1.2, 1.45, "1.3, slower")]
    node = drawn(ratio_chart(rows, "PyTorch", width))
    assert [value_at(node, mark.number("cx")) for mark in node.all("circle")] == pytest.approx([0.8, 1.3], abs=0.005)
    whiskers = node.all("line", class_="whisker")
    assert [value_at(node, one.number("x1")) for one in whiskers] == pytest.approx([0.7, 1.2], abs=0.005)
    assert value_at(node, node.one("line", class_="one").number("x1")) == pytest.approx(1.0, abs=0.005)


def test_blocks_lie_under_the_roof_where_their_work_is() -> None:
    blocks = [RooflineBlock("stem", 1, 10.0, 5e9, 20.0), RooflineBlock("head", 2, 0.5, 1e8, 80.0)]
    node = drawn(roofline(blocks, Roof(1e11, 1e10), 0, 1000))
    circles = {one.one("title").text: one for one in node.all("circle")}
    assert value_at(node, circles["stem"].number("cx"), True) == pytest.approx(10.0, rel=0.02)
    assert value_at(node, circles["stem"].number("cy"), True, "end") == pytest.approx(5.0, rel=0.02)
    assert circles["head"].number("r") > circles["stem"].number("r")
    flat, slope = node.all("line", class_="roof")
    assert value_at(node, flat.number("y1"), True, "end") == pytest.approx(100.0, rel=0.02)
    assert value_at(node, slope.number("x2"), True) == pytest.approx(10.0, rel=0.02)


def test_divided_bars_are_divided_by_their_counts() -> None:
    row = Stack("engine", (Part("int8", "INT8", 60), Part("fp16", "FP16", 30), Part("fp32", "FP32", 10)))
    node = drawn(stacks([row], 1000))
    assert [one.number("width") for one in node.all("rect")] == [600, 300, 100]
    assert "INT8 60" in node.text


def test_a_figure_is_drawn_for_every_width_and_says_what_it_shows() -> None:
    node = parse(figure("f", "Title", "a 1; b 2", lambda width: Drawing(10, marker(0, width, 1)), "Note.")).one(
        "figure"
    )
    assert node.one("figcaption").text == "Title Note."
    for drawing, width in zip(node.all("svg"), WIDTHS, strict=True):
        assert drawing.attributes["viewbox"] == f"0 0 {width} 10"
        assert (drawing.attributes["role"], drawing.attributes["aria-label"]) == ("img", "Title. a 1; b 2")


def test_marks_of_neighbours_differ_in_shape_and_names_keep_both_ends() -> None:
    shapes = [marker(index, 0, 0) for index in range(4)]
    assert len({(mark[:8], mark.count(",")) for mark in shapes}) == 4
    assert fitted("short", 500) == "short"
    assert fitted("ffnet_seg_nano_camvid.int8.engine", 120).startswith("ffnet")
    assert fitted("ffnet_seg_nano_camvid.int8.engine", 120).endswith("engine")
