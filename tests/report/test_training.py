"""The learning curve: read from a work folder, drawn, and refused where its records are damaged."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.report.markdown import markdown
from ffnet_deploy.report.page import page
from ffnet_deploy.report.training import LearningCurve, learning_curve
from ffnet_deploy.report.write import report_to_dict
from tests.report.examples import example
from tests.report.reading import parse


def record(work_dir: Path, start: str, lines: Iterable[Mapping[str, Any]]) -> Path:
    """Records of one start of a run, as mmengine writes them."""
    path = work_dir / start / "vis_data" / "scalars.json"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def trained(step: int, loss: float) -> dict[str, Any]:
    return {"lr": 1e-3, "loss": loss, "decode.loss_ce": loss, "time": 0.1, "iter": step, "step": step}


def validated(step: int, score: float) -> dict[str, Any]:
    return {"aAcc": 90.0, "mIoU": score, "mAcc": 80.0, "time": 0.1, "step": step}


def test_a_resumed_run_replaces_what_was_recorded_beyond_its_checkpoint(tmp_path: Path) -> None:
    record(tmp_path, "20260102_000000", [trained(20, 0.7), validated(20, 52.0), trained(30, 0.6)])
    record(tmp_path, "20260101_000000", [trained(10, 2.0), validated(10, 31.5), trained(20, 9.0), trained(40, 9.0)])
    assert learning_curve(tmp_path) == LearningCurve(((10, 2.0), (20, 0.7), (30, 0.6)), ((10, 31.5), (20, 52.0)))
    assert learning_curve(tmp_path / "20260101_000000") is None


def test_gradients_that_overflow_and_the_half_line_of_a_killed_run_are_no_damage(tmp_path: Path) -> None:
    lines = [{**trained(1, 2.0), "grad_norm": float("inf")}, {**trained(2, 1.0), "grad_norm": float("nan")}]
    path = record(tmp_path, "start", lines)
    path.write_text(path.read_text() + '{"loss": 0.5, "st')
    assert learning_curve(tmp_path) == LearningCurve(((1, 2.0), (2, 1.0)), ())


@pytest.mark.parametrize(
    "line",
    [
        '{"loss": 1.0}',
        '{"step": -1, "loss": 1.0}',
        '{"step": 1, "loss": "low"}',
        '{"step": 1, "loss": 1e300}',
        '{"step": 1, "mIoU": 101.0}',
        '{"step": 99999999999999999999, "loss": 1.0}',
        "[" * 100_000,
        "step 1",
    ],
)
def test_damaged_records_are_one_error_that_names_file_and_line(line: str, tmp_path: Path) -> None:
    path = record(tmp_path, "start", [trained(1, 2.0)])
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(ArtifactError, match=r"scalars\.json, are damaged: line 2: [\s\S]*to do") as refused:
        learning_curve(tmp_path)
    assert len(str(refused.value)) < 1000


def test_a_folder_in_place_of_the_records_is_refused(tmp_path: Path) -> None:
    (tmp_path / "start" / "vis_data" / "scalars.json").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="no plain file"):
        learning_curve(tmp_path)


def test_loss_and_validation_are_drawn_and_told_in_words() -> None:
    curve = LearningCurve(tuple((10 * n, 2.0 / n) for n in range(1, 21)), ((100, 41.25), (150, 44.5), (200, 43.0)))
    data = replace(example(1), training=curve)
    section = parse(page(data)).one("section", id="training")
    assert "best validation, mIoU 44.50, was after 150 iterations; after 200 it was 43.00" in section.text
    loss, scores = section.all("figure")
    for figure, values, count in ((loss, curve.losses, 20), (scores, curve.validations, 3)):
        drawing = figure.one("svg", class_="w640")
        marks = drawing.all("circle", class_="mark")[:count]
        ends = marks[-1].number("cx") - marks[0].number("cx")
        for mark, (step, _) in zip(marks, values, strict=True):
            part = (step - values[0][0]) / (values[-1][0] - values[0][0])
            assert mark.number("cx") - marks[0].number("cx") == pytest.approx(part * ends, abs=0.1)
        heights = [-mark.number("cy") for mark in marks]
        assert sorted(range(count), key=heights.__getitem__) == sorted(range(count), key=lambda at: values[at][1])
    assert "44.50 after 150 iterations" in (scores.one("svg", class_="w360").attributes["aria-label"] or "")
    assert "0.100 after 200 iterations" in markdown(data)
    assert report_to_dict(data)["training"]["validations"] == curve.validations


def test_a_long_run_is_drawn_with_fewer_points_up_to_its_last() -> None:
    curve = LearningCurve(tuple((step, 1.0 / step) for step in range(1, 3201)), ())
    section = parse(page(replace(example(1), training=curve))).one("section", id="training")
    drawing = section.one("svg", class_="w1000")
    path = drawing.one("path", class_="curve").attributes["d"] or ""
    assert path.count("L") <= 401
    label = drawing.attributes["aria-label"] or ""
    assert "after 3200 iterations" in label and len(label) < 800
    assert "not validated" in section.text


def test_a_report_without_records_has_no_such_section() -> None:
    data = example(1)
    assert not parse(page(data)).all("section", id="training")
    assert report_to_dict(data)["training"] is None
