"""The page as a document: well-formed, its numbers those of the data, nothing from outside in it, small enough."""

import base64
import hashlib
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from ffnet_deploy.benchmark.record import Setting
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.evaluation.scores import ClassScore, Scores
from ffnet_deploy.report.data import Gallery, ReportData
from ffnet_deploy.report.gallery import GalleryOptions
from ffnet_deploy.report.page import page
from tests.report.examples import BLOCKS, NAMES, example
from tests.report.reading import Node, parse, table, table_rows

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&"


@pytest.fixture(scope="module")
def data() -> ReportData:
    return example()


@pytest.fixture(scope="module")
def document(data: ReportData) -> Node:
    return parse(page(data))


def test_headings_are_in_order_and_identifiers_unique(document: Node) -> None:
    levels = [int(tag[1]) for tag in re.findall(r"<(h[1-6])", page(example(1)))]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    nodes = list(document.walk())
    idents = Counter(node.attributes["id"] for node in nodes if "id" in node.attributes)
    assert idents.most_common(1)[0][1] == 1
    targets = [link.attributes["href"] or "" for link in document.all("a")]
    assert targets and all(target[1:] in idents for target in targets)
    for name in ("aria-labelledby", "for"):
        pointers = [node.attributes[name] for node in nodes if name in node.attributes]
        assert pointers and set(pointers) <= set(idents)


def test_nothing_is_fetched_and_only_this_script_and_style_may_run(document: Node) -> None:
    text = page(example(1))
    assert not re.search(r"(src|href|action)\s*=\s*[\"']?(https?:|//|file:)", text)
    assert "url(" not in text and "@import" not in text
    assert " style=" not in text and not re.search(r"<[^>]*\son\w+=", text)
    policy = document.one("meta", http_equiv="Content-Security-Policy").attributes["content"] or ""
    assert policy.startswith("default-src 'none'")
    for tag in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(document.one(tag).text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_every_picture_and_figure_says_what_it_shows(document: Node) -> None:
    pictures = document.all("img")
    assert len(pictures) == 3 * 7
    assert all(picture.attributes["alt"] for picture in pictures)
    assert all((picture.attributes["src"] or "").startswith("data:image/") for picture in pictures)
    drawings = document.all("svg")
    assert all(one.attributes.get("aria-label") or one.attributes.get("aria-hidden") == "true" for one in drawings)


def test_tables_have_captions_and_scopes(document: Node) -> None:
    for node in document.all("table"):
        assert node.one("caption").text
        assert node.one("thead").all("th", scope="col")
        for row in node.one("tbody").all("tr"):
            assert row.one("th", scope="row").text
        lengths = {len(row) for row in table_rows(node)}
        assert len(lengths) == 1, node.one("caption").text


def test_scores_are_those_of_the_data(document: Node, data: ReportData) -> None:
    found = table_rows(table(document, "IoU of all 11 classes"))
    for row, name in zip(found[1:], [*data.classes, "mean"], strict=True):
        assert row[0] == name
        scores = [one.scores for one in data.candidates if one.scores]
        values = [one.mean_iou if name == "mean" else one.per_class[name].iou or 0.0 for one in scores]
        expected = [f"{value:.2f}" for value in values]
        expected += [signed(value - values[0]) for value in values[1:]]
        assert row[2:] == expected
    summary = table_rows(table(document, "Candidates; the first"))
    assert [row[0] for row in summary[1:]] == list(NAMES)
    agreement = data.candidates[2].accuracy.agreement
    assert f"{agreement:.1f} %" in summary[3]


def signed(value: float) -> str:
    text = f"{abs(value):.2f}"
    return text if float(text) == 0 else ("+" if value > 0 else "\u2212") + text


def test_times_are_those_of_the_data(document: Node, data: ReportData) -> None:
    rows = {row[0]: row for row in table_rows(table(document, "Times at 1x384x768"))}
    for one in data.candidates:
        summary = one.timing.summary
        row = rows[one.name]
        assert float(row[1]) == pytest.approx(summary.median, rel=0.005)
        assert float(row[7]) == pytest.approx(summary.p99, rel=0.005)
        assert row[9] == "200"
        assert float(row[10]) == pytest.approx(one.timing.throughput, rel=0.005)
    label = document.one("figure", id="chart-latency").all("svg")[0].attributes["aria-label"]
    assert f"{data.first.timing.summary.median:.1f} ms" in (label or "")
    words = document.one("section", id="latency").text
    assert "network only" in words and "the load average was 2.0" in words and "OpenVINO" in words


def test_blocks_are_those_of_the_profile(document: Node, data: ReportData) -> None:
    rows = table_rows(table(document, "Time by block, ms"))
    assert [row[0] for row in rows[1:]] == [f"{number} {name}" for number, name in enumerate(BLOCKS, 1)]
    first = data.first.profile
    assert [float(row[2]) for row in rows[1:]] == pytest.approx([b.milliseconds for b in first.blocks], rel=0.005)
    own = table_rows(table(document, "PyTorch: time by block"))
    assert own[1][3:] == ["8.0 %", "160 M", "3.00 M", "33.3 %", "compute"]
    circles = document.one("figure", id="chart-roofline-0").all("svg")[0].all("circle")
    assert len(circles) == len(BLOCKS)


def test_precision_and_verification_are_those_of_the_manifests(document: Node) -> None:
    proof = table_rows(table(document, "What was found in them"))
    assert [row[0] for row in proof[1:]] == [NAMES[1], NAMES[1], NAMES[2], NAMES[2]]
    assert [row[-1].split()[-1] for row in proof[1:]] == ["holds", "holds", "holds", "fails"]
    assert proof[4][1:5] == ["the built engine's layers, as its inspector lists them", "81", "\u2013", "3"]
    assert "head.conv: asked for int8, runs in fp16" in document.one("section", id="precision").text
    asked = table_rows(table(document, "What the graphs ask for"))
    assert asked[2] == [NAMES[2], "INT8", "FP16", "2", "1"]
    compared = table_rows(table(document, f"Outputs of {NAMES[1]}"))
    assert compared[1] == ["scene_0", "384x768", "0.00100", "0.000100", "0.000100", "99.9800"]


def test_the_blocks_that_cost_most_are_those_of_the_search(document: Node, data: ReportData) -> None:
    text = document.one("section", id="sensitivity").text
    assert "1 of 3 blocks are left unquantised; mIoU changes by \u22120.12 points from 62.65" in text
    rows = table_rows(table(document, f"{NAMES[2]}: each block quantised alone"))[1:]
    # noise powers 1e-2, 1e-3, 1e-4
    assert [row[1] for row in rows] == ["90.1 %", "9.0 %", "0.9 %"]
    assert [row[4] for row in rows] == ["\u22121.50", "\u22120.01", "\u2013"]
    assert [row[6] for row in rows] == ["yes", "", ""]
    drawn = document.one("figure", id="chart-sensitivity-2").all("svg")[0]
    assert len(drawn.all("rect", class_="fill")) == 3
    bare = parse(page(replace(data, candidates=data.candidates[:2], gallery=Gallery())))
    assert not bare.all("section", id="sensitivity")


def test_a_verification_that_could_not_run_says_why_and_how(data: ReportData) -> None:
    record = {"state": "not run", "reason": "there is no GPU", "command": "ffnet-export --verify x.engine"}
    last = replace(data.candidates[2], manifest={"verification": record})
    document = parse(page(replace(data, candidates=(*data.candidates[:2], last))))
    said = "not run: there is no GPU; to do: ffnet-export --verify x.engine"
    assert said in document.one("section", id="verification").text
    assert [row[2] for row in table_rows(table(document, "What the gate asks")) if row[0] == NAMES[2]][1] == said


def test_hashes_and_versions_are_told(document: Node) -> None:
    words = document.one("section", id="provenance").text
    assert "f" * 64 in words and "i" * 64 in words and "0" * 64 in words and "onnx 1.23.2" in words


def test_the_gate_is_judged_first(document: Node) -> None:
    judgement = document.one("section", id="summary").all("div", class_="judgement")[0]
    assert judgement.has("class_", "fails")
    assert "Does not hold the gate." in judgement.text and NAMES[2] in judgement.text


@pytest.mark.parametrize("field", ["title", "name", "class", "sample", "note", "error"])
def test_text_from_outside_never_becomes_markup(field: str) -> None:
    data = example(1)
    if field == "title":
        data = replace(data, title=HOSTILE)
    if field == "name":
        data = replace(data, candidates=(replace(data.first, name=HOSTILE, artifact=HOSTILE), *data.candidates[1:]))
    if field == "class":
        data = replace(data, classes=(HOSTILE, *data.classes[1:]))
    if field == "sample":
        sample = data.gallery.samples[0]
        panels = tuple(replace(panel, caption=HOSTILE, alt=HOSTILE) for panel in sample.panels)
        data = replace(data, gallery=Gallery((replace(sample, name=HOSTILE, panels=panels),), 1, "all"))
    if field == "note":
        data = replace(data, notes=(HOSTILE,))
    if field == "error":
        broken = replace(data.first.measurements[0], error=HOSTILE)
        data = replace(data, candidates=(replace(data.first, measurements=(broken,)), *data.candidates[1:]))
    text = page(data)
    document = parse(text)
    assert "<img src=x" not in text
    assert len(document.all("script")) == 1
    assert HOSTILE in document.text or field == "class"


def test_fifty_images_stay_below_8_mb() -> None:
    text = page(example(50, (192, 256), GalleryOptions(count=50)))
    assert text.count("<article") == 50
    assert 400_000 < len(text.encode()) < 8_000_000


def bare(data: ReportData, **changes: object) -> ReportData:
    candidates = tuple(replace(one, **changes) for one in data.candidates)
    return replace(data, candidates=candidates, run=None if "measurements" in changes else data.run)


def test_parts_without_data_are_left_out(data: ReportData) -> None:
    def parts(given: ReportData) -> list[str]:
        document = parse(page(given))
        links = [link.attributes["href"] for link in document.one("nav").all("a")]
        sections = [node.attributes["id"] for node in document.all("section")]
        assert links == [f"#{ident}" for ident in sections]
        return [str(ident) for ident in sections]

    everything = [
        *("summary", "pictures", "accuracy", "confusion", "trade-off", "latency", "profile"),
        *("precision", "sensitivity", "verification", "provenance"),
    ]
    assert parts(data) == everything
    assert parts(replace(data, gallery=Gallery())) == [part for part in everything if part != "pictures"]
    untimed = bare(data, measurements=())
    assert parts(untimed) == [part for part in everything if part not in ("trade-off", "latency", "profile")]
    unscored = bare(data, accuracy=None)
    assert parts(unscored) == [part for part in everything if part not in ("trade-off", "accuracy", "confusion")]
    nothing = bare(bare(unscored, measurements=()), manifest=None)
    assert parts(replace(nothing, gallery=Gallery())) == ["summary", "provenance"]
    judged = parse(page(replace(nothing, gallery=Gallery()))).all("div", class_="judgement")[0]
    assert "Not judged." in judged.text


def test_a_lone_candidate_of_unlabelled_images_has_a_page(data: ReportData) -> None:
    lone = replace(data.first, accuracy=replace(data.first.accuracy, scores=None), measurements=())
    document = parse(page(replace(data, candidates=(lone,), run=None, gallery=Gallery())))
    assert document.one("h1").text == "camvid_network"


def test_many_classes_show_those_that_changed_most_and_fold_the_rest(data: ReportData) -> None:
    names = tuple(f"class {number}" for number in range(150))
    before = Scores(50.0, 80.0, 60.0, {name: ClassScore(50.0, 60.0) for name in names})
    changed = {name: ClassScore(50.0 - (index == 77) * 9, 60.0) for index, name in enumerate(names)}
    after = Scores(49.9, 80.0, 60.0, {**changed, "class 5": ClassScore(None, None)})
    one, other, _ = data.candidates
    pair = (
        replace(one, accuracy=replace(one.accuracy, scores=before)),
        replace(other, accuracy=replace(other.accuracy, scores=after)),
    )
    many = replace(data, candidates=pair, classes=names, palette=((1, 2, 3),) * 150, gallery=Gallery())
    document = parse(page(many))
    shown = table_rows(table(document, "changed most"))
    assert len(shown) == 22 and shown[1][0] == "class 77" and shown[1][-1] == "\u22129.00"
    whole = table_rows(document.one("section", id="accuracy").one("details").one("table"))
    assert len(whole) == 152 and whole[6][3:] == ["\u2013", "\u2013"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": ()}, "at least one candidate"),
        ({"classes": ("a",)}, "1 class names but 11 colours"),
    ],
)
def test_reports_that_cannot_be_are_refused(data: ReportData, change: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        replace(data, **change)
    with pytest.raises(OptionError, match="pictures of 3 candidates"):
        replace(data, candidates=data.candidates[:2])
    with pytest.raises(OptionError, match="share the name 'PyTorch'"):
        replace(data, candidates=(data.first, data.first))


def test_styles_and_script_are_installed_with_the_package() -> None:
    folder = Path(__file__).parents[2] / "ffnet_deploy" / "report"
    listed = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert {file.suffix for file in folder.iterdir() if file.suffix not in (".py", "")} == {".css", ".js"}
    assert "report/*.css" in listed and "report/*.js" in listed


def test_each_point_of_a_sweep_over_batches_names_its_batch() -> None:
    data = example(1)
    at_two = Setting(2, 384, 768, 2)
    swept = tuple(
        replace(one, measurements=(*one.measurements, replace(one.measurements[0], setting=at_two)))
        for one in data.candidates
    )
    figure = parse(page(replace(data, candidates=swept))).one("figure", id="chart-sweep")
    assert "images per call" in figure.text
    drawing = figure.one("svg", class_="w640")
    written = Counter(text.text for text in drawing.all("text", class_="tick"))
    assert written["1"] == written["2"] == len(swept)
    wider = replace(at_two, width=512)
    mixed = replace(swept[0], measurements=(*swept[0].measurements, replace(swept[0].measurements[0], setting=wider)))
    figure = parse(page(replace(data, candidates=(mixed, *swept[1:])))).one("figure", id="chart-sweep")
    assert "images per call" not in figure.text
