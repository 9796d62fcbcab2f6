"""How the network was trained: loss and validation scores over the iterations."""

from collections.abc import Callable, Sequence

from ffnet_deploy.report.charts import Curve, CurvePoint, curves
from ffnet_deploy.report.data import ReportData
from ffnet_deploy.report.document import Block, Chart, Section, Text
from ffnet_deploy.report.format import percent, significant
from ffnet_deploy.report.training import LearningCurve

_MOST_POINTS = 400
"""Number of points of a curve; of more, every second, third, ... is drawn."""
_MOST_IN_WORDS = 12


def training(data: ReportData) -> Section | None:
    """The learning curve, where the records of the training are known."""
    curve = data.training
    if curve is None:
        return None
    blocks: list[Block] = [Text(_summary(curve))]
    if curve.losses:
        losses = (data.first.network, curve.losses)
        blocks.append(_chart("chart-loss", "Loss", losses, "loss", significant, "Mean since the point before."))
    if curve.validations:
        scores = (data.first.network, curve.validations)
        blocks.append(_chart("chart-validation", "Validation", scores, "mIoU, %", percent, "Higher is better."))
    return Section("training", "Training", tuple(blocks))


def _summary(curve: LearningCurve) -> str:
    """How long it was trained, and whether the best validation was the last one."""
    last = max(step for step, _ in (*curve.losses, *curve.validations))
    sentence = f"Trained for {last} iterations, as far as they were recorded."
    if not curve.validations:
        return f"{sentence} It was not validated on the way."
    step, best = max(curve.validations, key=lambda entry: entry[1])
    end, final = curve.validations[-1]
    sentence = f"{sentence} The best validation, mIoU {percent(best)}, was after {step} iterations"
    return f"{sentence}; after {end} it was {percent(final)}." if end != step else f"{sentence}, at the end."


def _chart(
    ident: str,
    title: str,
    curve: tuple[str, Sequence[tuple[int, float]]],
    label: str,
    text: Callable[[float], str],
    note: str,
) -> Chart:
    name, values = curve
    kept = values[:: -(-len(values) // _MOST_POINTS)]
    if kept[-1] != values[-1]:
        kept = (*kept, values[-1])
    points = tuple(CurvePoint(step, value, f"{text(value)} after {step} iterations") for step, value in kept)
    described = points[:: -(-len(points) // _MOST_IN_WORDS)]
    alt_text = "; ".join(dict.fromkeys(point.label for point in (*described, points[-1])))
    rows = (Curve(0, name, points),)
    return Chart(ident, title, alt_text, lambda width: curves(rows, "iterations", label, width, from_zero=True), note)
