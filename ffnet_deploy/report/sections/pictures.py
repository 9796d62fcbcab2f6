"""Pictures: each sample's image, ground truth, label maps and differences; on the page two of them under a slider."""

from ffnet_deploy.report.charts.key import swatch
from ffnet_deploy.report.data import Gallery, ReportData, Sample
from ffnet_deploy.report.document import Block, Cell, Column, Drawn, Section, Table, Text
from ffnet_deploy.report.format import share
from ffnet_deploy.report.markup import Markup, element, join
from ffnet_deploy.report.pictures import CHANGES, HITS, Key


def pictures(data: ReportData) -> Section | None:
    """The gallery, where there is one."""
    gallery = data.gallery
    if not gallery.samples:
        return None
    blocks: tuple[Block, ...] = (
        Text(f"{len(gallery.samples)} of {gallery.of} images, {gallery.choice}."),
        Drawn(_gallery_markup(data), _samples_table(data)),
    )
    return Section("pictures", "Pictures", blocks)


def _samples_table(data: ReportData) -> Table:
    names = [one.name for one in data.contenders][: len(data.gallery.samples[0].agreement)]
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


def _gallery_markup(data: ReportData) -> Markup:
    samples = [_sample_markup(data, number, sample) for number, sample in enumerate(data.gallery.samples)]
    legends = element("div", _classes_key(data), _differences_key(data.gallery), class_="keys")
    return element("div", _controls(data.gallery), samples, legends, class_="gallery", id="gallery")


def _controls(gallery: Gallery) -> Markup:
    """What the script shows and uses; without it all panels lie side by side and these stay hidden."""
    layers = {panel.layer: panel.caption for sample in gallery.samples for panel in sample.panels}
    left, right = _first_pair(list(layers))
    names = [(str(number), sample.name) for number, sample in enumerate(gallery.samples)]
    return element(
        "form",
        _choice("pick-sample", "Image", names, "0"),
        element("button", "Previous", type="button", id="pick-previous"),
        element("button", "Next", type="button", id="pick-next"),
        _choice("pick-left", "Left", list(layers.items()), left),
        _choice("pick-right", "Right", list(layers.items()), right),
        _range("pick-strength", "Opacity over the image", "80"),
        class_="controls",
        id="gallery-controls",
        hidden=True,
        aria_label="What the picture shows",
    )


def _first_pair(layers: list[str]) -> tuple[str, str]:
    """Layers to begin with: what the slider is for, ground truth or image against the last contender."""
    labels = [layer for layer in layers if layer.startswith("labels-")]
    return ("truth" if "truth" in layers else "image"), labels[-1]


def _choice(ident: str, label: str, options: list[tuple[str, str]], chosen: str) -> Markup:
    listed = (element("option", text, value=value, selected=value == chosen) for value, text in options)
    return element("label", element("span", label), element("select", listed, id=ident), for_=ident)


def _range(ident: str, label: str, value: str) -> Markup:
    slider = element("input", type="range", id=ident, min="0", max="100", value=value)
    return element("label", element("span", label), slider, for_=ident)


def _sample_markup(data: ReportData, number: int, sample: Sample) -> Markup:
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
        element("p", _numbers(data, sample), class_="numbers"),
        element("div", panels, class_="panels"),
        class_="sample",
        aria_labelledby=f"sample-{number}",
    )


def _numbers(data: ReportData, sample: Sample) -> str:
    parts = []
    for index, (right, agreement) in enumerate(zip(sample.right, sample.agreement, strict=True)):
        words = [f"{share(right)} right"] if right is not None else []
        words += [f"{share(agreement)} same as {data.first.name}"] if index else []
        if words:
            parts.append(f"{data.contenders[index].name}: {', '.join(words)}")
    return "; ".join(parts)


def _classes_key(data: ReportData) -> Markup:
    present = sorted({label for sample in data.gallery.samples for label in sample.classes})
    entries = ((swatch(data.palette[label]), data.classes[label]) for label in present)
    return _key("Classes", list(entries))


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
