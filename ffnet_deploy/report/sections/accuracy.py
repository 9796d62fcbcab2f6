"""How accurate: scores of all contenders side by side, and class by class."""

from collections.abc import Callable

from ffnet_deploy.evaluation.scores import Scores
from ffnet_deploy.report.charts.bars import Bar, Group, cell_bars, grouped_bars
from ffnet_deploy.report.charts.key import swatch
from ffnet_deploy.report.data import Accuracy, Contender, ReportData
from ffnet_deploy.report.document import Block, Cell, Chart, Column, Facts, Section, Table, Text
from ffnet_deploy.report.format import percent, points, seconds
from ffnet_deploy.report.markup import join

_FOLD_FROM = 40
"""Number of classes from which on the whole table waits for a click, behind the classes that changed most."""
_MOST_CHANGED = 20

_METRICS: tuple[tuple[str, Callable[[Scores], float]], ...] = (
    ("mIoU", lambda scores: scores.mean_iou),
    ("mean accuracy of classes", lambda scores: scores.mean_accuracy),
    ("accuracy of pixels", lambda scores: scores.pixel_accuracy),
)


def accuracy(data: ReportData) -> Section | None:
    """Scores, where any contender was scored on labelled images."""
    scored = [(index, one) for index, one in enumerate(data.contenders) if one.scores is not None]
    if not scored:
        return None
    blocks: list[Block] = [Text(_what_was_scored(scored[0][1])), _metrics_chart(data)]
    names = list(dict.fromkeys(name for _, one in scored if one.scores for name in one.scores.per_class))
    if len(names) > _FOLD_FROM and len(scored) > 1:
        changed = sorted(names, key=lambda name: -_largest_change(scored, name))[:_MOST_CHANGED]
        blocks.append(_class_table(data, scored, changed, f"IoU of the {_MOST_CHANGED} classes that changed most, %"))
    folded = len(names) > _FOLD_FROM
    blocks.append(_class_table(data, scored, names, f"IoU of all {len(names)} classes, %", folded))
    blocks.extend(_protocols(scored))
    return Section("accuracy", "Accuracy", tuple(blocks))


def _what_was_scored(one: Contender) -> str:
    assert one.accuracy is not None
    part = f"{one.accuracy.dataset} {one.accuracy.split}".strip()
    return f"Scored on {one.accuracy.images} images of {part}, as MMSegmentation's IoUMetric does."


def _metrics_chart(data: ReportData) -> Chart:
    groups = tuple(
        Group(heading, tuple(_bar(index, one, metric) for index, one in enumerate(data.contenders) if one.accuracy))
        for heading, metric in _METRICS
    )
    told = " ".join(
        f"{group.heading}: {', '.join(f'{bar.name} {bar.text}' for bar in group.bars)}." for group in groups
    )
    return Chart(
        "chart-scores", "Scores", told, lambda width: grouped_bars(groups, 100.0, "percent", width), "Higher is better."
    )


def _bar(index: int, one: Contender, metric: Callable[[Scores], float]) -> Bar:
    value = None if one.scores is None else metric(one.scores)
    return Bar(index, one.name, value, percent(value))


def _iou(one: Contender, name: str) -> float | None:
    score = one.scores.per_class.get(name) if one.scores else None
    return score.iou if score else None


def _largest_change(scored: list[tuple[int, Contender]], name: str) -> float:
    before = _iou(scored[0][1], name)
    after = [_iou(one, name) for _, one in scored[1:]]
    return max((abs(value - before) for value in after if value is not None and before is not None), default=0.0)


def _class_table(
    data: ReportData, scored: list[tuple[int, Contender]], names: list[str], caption: str, folded: bool = False
) -> Table:
    others = scored[1:]
    colours = dict(zip(data.classes, data.palette, strict=True))
    columns = [Column("class", False), Column("", False, drawn=True)]
    columns += [Column(one.name) for _, one in scored]
    columns += [Column("change" if len(others) == 1 else f"change, {one.name}") for _, one in others]
    rows = []
    for name in names:
        values = [(index, _iou(one, name)) for index, one in scored]
        mark = swatch(colours[name]) if name in colours else None
        rows.append((Cell(name, mark), Cell("", cell_bars(values, 100.0)), *_numbers([value for _, value in values])))
    means = [one.scores.mean_iou for _, one in scored if one.scores]
    bars = cell_bars([(index, one.scores.mean_iou if one.scores else None) for index, one in scored], 100.0)
    rows.append((Cell("mean"), Cell("", join(bars)), *_numbers(means)))
    return Table(caption, tuple(columns), tuple(rows), summary_row=True, folded=folded)


def _numbers(values: list[float] | list[float | None]) -> list[Cell]:
    before = values[0]
    changes = [None if value is None or before is None else value - before for value in values[1:]]
    return [*(Cell(percent(value)) for value in values), *(Cell(points(change)) for change in changes)]


def _protocols(scored: list[tuple[int, Contender]]) -> list[Facts]:
    """How each contender was scored; once where all were scored alike."""
    accuracies = [(one.name, one.accuracy) for _, one in scored if one.accuracy]
    facts = [(name, _protocol(entry)) for name, entry in accuracies]
    times = {f"time, {name}": seconds(entry.seconds) for name, entry in accuracies}
    if all(fact == facts[0][1] for _, fact in facts):
        return [Facts("How it was scored", {**facts[0][1], **times})]
    return [Facts(f"How {name} was scored", {**fact, "time": times[f"time, {name}"]}) for name, fact in facts]


def _protocol(one: Accuracy) -> dict[str, str]:
    given = one.protocol
    scale = given.get("scale") or ()
    facts = {
        "images": str(one.images),
        "mode": str(given.get("mode", "")),
        "scale": "x".join(map(str, scale)) + (", ratio kept" if given.get("keep_ratio") else ""),
        "window": "x".join(map(str, given.get("crop") or ())),
        "stride": "x".join(map(str, given.get("stride") or ())),
        "ratios": ", ".join(f"{ratio:g}" for ratio in given.get("ratios") or ()),
        "mirrored too": "yes" if given.get("flip") else "no",
    }
    return {name: value for name, value in facts.items() if value}
