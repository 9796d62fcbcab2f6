"""How accurate: scores of all candidates, class by class, and pictures of what they predict."""

from collections.abc import Callable

from ffnet_deploy.evaluation.scores import Scores
from ffnet_deploy.report.charts import Bar, BarGroup, cell_bars, confusion_grid, grouped_bars
from ffnet_deploy.report.data import Accuracy, CandidateResults, Gallery, GallerySample, ReportData
from ffnet_deploy.report.document import Block, Cell, Chart, Column, Drawn, Facts, Section, Table, Text
from ffnet_deploy.report.drawing import swatch
from ffnet_deploy.report.format import percent, points, seconds, share
from ffnet_deploy.report.markup import Markup, element, join
from ffnet_deploy.report.pictures import CHANGES, HITS, Key

_FOLD_FROM = 40
"""Number of classes from which on the whole table waits for a click, behind the classes that changed most."""
_MOST_CHANGED = 20
_MOST_IN_GRID = 24
"""Number of classes up to which the confusion matrix is drawn."""
_MOST_CONFUSED = 15

_METRICS: tuple[tuple[str, Callable[[Scores], float]], ...] = (
    ("mIoU", lambda scores: scores.mean_iou),
    ("mean accuracy of classes", lambda scores: scores.mean_accuracy),
    ("accuracy of pixels", lambda scores: scores.pixel_accuracy),
)


def accuracy(data: ReportData) -> Section | None:
    """Scores, where any candidate was scored on labelled images."""
    scored = [(index, one) for index, one in enumerate(data.candidates) if one.scores is not None]
    if not scored:
        return None
    first = scored[0][1].accuracy
    assert first is not None
    images = f"{first.images} images of {f'{first.dataset} {first.split}'.strip()}"
    blocks: list[Block] = [
        Text(f"Scored on {images}, as MMSegmentation's IoUMetric does."),
        _metrics_chart(data),
    ]
    names = list(dict.fromkeys(name for _, one in scored if one.scores for name in one.scores.per_class))
    if len(names) > _FOLD_FROM and len(scored) > 1:
        changed = sorted(names, key=lambda name: -_largest_change(scored, name))[:_MOST_CHANGED]
        blocks.append(_class_table(data, scored, changed, f"IoU of the {_MOST_CHANGED} classes that changed most, %"))
    folded = len(names) > _FOLD_FROM
    blocks.append(_class_table(data, scored, names, f"IoU of all {len(names)} classes, %", folded))
    blocks.extend(_worst_images(data))
    blocks.extend(_protocols(scored))
    return Section("accuracy", "Accuracy", tuple(blocks))


def _metrics_chart(data: ReportData) -> Chart:
    groups = tuple(
        BarGroup(heading, tuple(_bar(index, one, metric) for index, one in enumerate(data.candidates) if one.accuracy))
        for heading, metric in _METRICS
    )
    alt_text = " ".join(
        f"{group.heading}: {', '.join(f'{bar.name} {bar.text}' for bar in group.bars)}." for group in groups
    )
    return Chart(
        "chart-scores",
        "Scores",
        alt_text,
        lambda width: grouped_bars(groups, 100.0, "percent", width),
        "Higher is better.",
    )


def _bar(index: int, one: CandidateResults, metric: Callable[[Scores], float]) -> Bar:
    value = None if one.scores is None else metric(one.scores)
    return Bar(index, one.name, value, percent(value))


def _iou(one: CandidateResults, name: str) -> float | None:
    score = one.scores.per_class.get(name) if one.scores else None
    return score.iou if score else None


def _largest_change(scored: list[tuple[int, CandidateResults]], name: str) -> float:
    before = _iou(scored[0][1], name)
    after = [_iou(one, name) for _, one in scored[1:]]
    return max((abs(value - before) for value in after if value is not None and before is not None), default=0.0)


def _class_table(
    data: ReportData, scored: list[tuple[int, CandidateResults]], names: list[str], caption: str, folded: bool = False
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


def _worst_images(data: ReportData) -> list[Table]:
    """Where the candidates lose most against the first, image by image."""
    rows = [
        (Cell(one.name), Cell(change.image), Cell(points(change.right)))
        for one in data.candidates
        if one.accuracy and one.accuracy.difference
        for change in one.accuracy.difference.worst
    ]
    columns = (Column("candidate", False), Column("image", False), Column("change"))
    caption = f"Images that lose most right pixels against {data.first.name}, points"
    return [Table(caption, columns, tuple(rows))] if rows else []


def _protocols(scored: list[tuple[int, CandidateResults]]) -> list[Facts]:
    """How each candidate was scored; once where all were scored alike."""
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


def confusion(data: ReportData) -> Section | None:
    """Which classes are taken for which, where pixels were counted."""
    scored = [(one, one.scores) for one in data.candidates if one.scores is not None and one.scores.confusion]
    if not scored:
        return None
    one, first = scored[0]
    names, shares = list(first.per_class), _confusion_shares(first)
    wrong = sorted(
        (
            (shares[row][column], row, column)
            for row in range(len(names))
            for column in range(len(names))
            if row != column
        ),
        reverse=True,
    )
    pairs = [(row, column) for value, row, column in wrong[:_MOST_CONFUSED] if value > 0]
    blocks: list[Block] = []
    if len(names) <= _MOST_IN_GRID:
        alt_text = "; ".join(f"{shares[r][c]:.1f} % of {names[r]} predicted as {names[c]}" for r, c in pairs[:5])
        blocks.append(
            Chart(
                "chart-confusion",
                f"Confusion matrix of {one.name}",
                alt_text or "no class is taken for another",
                lambda width: confusion_grid(shares, names, width),
                "Rows are true classes, columns predicted ones; darker is a larger share of the row.",
            )
        )
    if pairs:
        of_all = [_confusion_shares(entry) for _, entry in scored]
        rows = tuple(
            (Cell(names[r]), Cell(names[c]), *(Cell(share(values[r][c])) for values in of_all)) for r, c in pairs
        )
        columns = (Column("true class", False), Column("predicted as", False), *(Column(who.name) for who, _ in scored))
        blocks.append(Table("Most frequent confusions, share of the true class's pixels", columns, rows))
    return Section("confusion", "Which classes are confused", tuple(blocks)) if blocks else None


def _confusion_shares(scores: Scores) -> list[list[float]]:
    """Percent of each true class's pixels by predicted class."""
    return [[100.0 * value / (sum(row) or 1) for value in row] for row in scores.confusion]


def pictures(data: ReportData) -> Section | None:
    """The gallery, where there is one."""
    gallery = data.gallery
    if not gallery.samples:
        return None
    samples = [_sample_markup(data, number, sample) for number, sample in enumerate(gallery.samples)]
    present = sorted({label for sample in gallery.samples for label in sample.classes})
    classes = _key("Classes", [(swatch(data.palette[label]), data.classes[label]) for label in present])
    legends = element("div", classes, _differences_key(gallery), class_="keys")
    markup = element("div", _controls(gallery), samples, legends, class_="gallery", id="gallery")
    blocks: tuple[Block, ...] = (
        Text(f"{len(gallery.samples)} of {gallery.of} images, {gallery.choice}."),
        Drawn(markup, _samples_table(data)),
    )
    return Section("pictures", "Pictures", blocks)


def _samples_table(data: ReportData) -> Table:
    names = [one.name for one in data.candidates][: len(data.gallery.samples[0].agreement)]
    columns = [Column("image", False)]
    columns += [Column(f"right, {name}") for name in names]
    columns += [Column(f"same as {names[0]}, {name}") for name in names[1:]]
    rows = tuple(
        (
            Cell(sample.name),
            *(Cell(share(value)) for value in sample.right),
            *(Cell(share(value)) for value in sample.agreement[1:]),
        )
        for sample in data.gallery.samples
    )
    return Table("Labelled pixels that are right, and pixels with the same label", tuple(columns), rows)


def _controls(gallery: Gallery) -> Markup:
    """What the script shows and uses; without it all panels lie side by side and these stay hidden."""
    layers = {panel.layer: panel.caption for sample in gallery.samples for panel in sample.panels}
    # to begin with: ground truth or image against the last candidate
    left, right = "truth" if "truth" in layers else "image", [name for name in layers if name.startswith("labels-")][-1]
    names = [(str(number), sample.name) for number, sample in enumerate(gallery.samples)]
    slider = element("input", type="range", id="pick-strength", min="0", max="100", value="80")
    return element(
        "form",
        _choice("pick-sample", "Image", names, "0"),
        element("button", "Previous", type="button", id="pick-previous"),
        element("button", "Next", type="button", id="pick-next"),
        _choice("pick-left", "Left", list(layers.items()), left),
        _choice("pick-right", "Right", list(layers.items()), right),
        element("label", element("span", "Opacity over the image"), slider, for_="pick-strength"),
        class_="controls",
        id="gallery-controls",
        hidden=True,
        aria_label="What the picture shows",
    )


def _choice(ident: str, label: str, options: list[tuple[str, str]], chosen: str) -> Markup:
    listed = (element("option", text, value=value, selected=value == chosen) for value, text in options)
    return element("label", element("span", label), element("select", listed, id=ident), for_=ident)


def _sample_markup(data: ReportData, number: int, sample: GallerySample) -> Markup:
    heading = element("h3", sample.name, id=f"sample-{number}")
    panels = (
        element(
            "figure",
            element("img", src=panel.uri, alt=panel.alt, width=panel.width, height=panel.height, decoding="async"),
            element("figcaption", panel.caption),
            data_layer=panel.layer,
        )
        for panel in sample.panels
    )
    return element(
        "article",
        heading,
        element("p", _sample_numbers(data, sample), class_="numbers"),
        element("div", panels, class_="panels"),
        class_="sample",
        aria_labelledby=f"sample-{number}",
    )


def _sample_numbers(data: ReportData, sample: GallerySample) -> str:
    parts = []
    for index, (right, agreement) in enumerate(zip(sample.right, sample.agreement, strict=True)):
        words = [f"{share(right)} right"] if right is not None else []
        words += [f"{share(agreement)} same as {data.first.name}"] if index else []
        if words:
            parts.append(f"{data.candidates[index].name}: {', '.join(words)}")
    return "; ".join(parts)


def _differences_key(gallery: Gallery) -> Markup:
    layers = {panel.layer.partition("-")[0] for sample in gallery.samples for panel in sample.panels}
    kinds: tuple[Key, ...] = ()
    if "difference" in layers:
        kinds = tuple(CHANGES.values())
    elif "errors" in layers:
        kinds = tuple(HITS.values())
    return _key("Differences", [(swatch(kind.colour), kind.meaning) for kind in kinds]) if kinds else join()


def _key(heading: str, entries: list[tuple[Markup, str]]) -> Markup:
    items = (element("li", mark, element("span", text)) for mark, text in entries)
    return join(element("h3", heading), element("ul", items, class_="key-list"))
