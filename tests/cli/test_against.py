"""``ffnet-eval --against`` and ``--html``: several artefacts on the same images, and the report of all of them."""

import json
from pathlib import Path

import numpy as np
import pytest

from ffnet_deploy.benchmark.files import write_run
from ffnet_deploy.cli.evaluate import ResultFlags, app
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine
from ffnet_deploy.evaluation.datasets import open_dataset
from ffnet_deploy.evaluation.evaluate import evaluate
from ffnet_deploy.report.format import points
from tests.commands import Result, invoke
from tests.report.examples import run as timed_run
from tests.report.reading import parse, table, table_rows
from tests.report.test_training import record, trained, validated
from tests.toy import contract, fixed, weights, write_onnx

onnx = pytest.importorskip("onnx")


def run(*arguments: object) -> Result:
    return invoke(app, *arguments, env={"COLUMNS": "200"})


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The same network with a little noise on its weights."""
    from ffnet_deploy.artifacts.manifest import write_manifest

    path = write_onnx(tmp_path / "other.onnx", contract())
    model = onnx.load(path)
    kernel = weights(11) + 0.2 * weights(11, seed=5)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(kernel.astype(np.float32), "kernel"))
    onnx.save(model, path)
    write_manifest(path, "onnx", {})
    return path


def test_another_artefact_is_scored_and_reported_beside_the_first(
    artifact: Path, other: Path, data: Path, tmp_path: Path
) -> None:
    result = run(
        *("--artifact", artifact, "--against", other, "--data", data, "--threads", 1),
        *("--json", tmp_path / "scores.json", "--html", tmp_path / "out/report.html", "--pictures", 2),
    )
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "scores.json").read_text())
    alone = run("--artifact", other, "--data", data, "--json", tmp_path / "alone.json", "--threads", 1)
    assert alone.exit_code == 0
    expected = json.loads((tmp_path / "alone.json").read_text())["mIoU"]
    (beside,) = scores["against"]
    assert beside["mIoU"] == expected != scores["mIoU"]
    assert 0 < beside["agreement"] < 100
    difference = beside["difference"]
    assert difference["mIoU"] == pytest.approx(expected - scores["mIoU"])
    low, high = difference["interval"]
    assert low <= difference["mIoU"] <= high
    assert difference["kept"] == pytest.approx(100 * expected / scores["mIoU"])
    changes = [change for change in difference["per_class"].values() if change is not None]
    assert len(difference["per_class"]) == 11 and sum(changes) / len(changes) == pytest.approx(difference["mIoU"])
    assert {change["image"] for change in difference["worst"]} <= {path.stem for path in data.rglob("*.png")}
    assert f"95 % {points(low)} to {points(high)}" in result.stdout
    assert f"mIoU {expected:.2f}" in result.stdout and "toy.onnx" in result.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "report.json", "report.md"]
    document = parse((tmp_path / "out/report.html").read_text())
    rows = table_rows(table(document, "Candidates; the first"))
    assert [row[2] for row in rows[1:]] == [f"{scores['mIoU']:.2f}", f"{expected:.2f}"]
    assert len(document.all("article")) == 2
    assert rows[2][3:5] == [points(difference["mIoU"]), f"{points(low)} to {points(high)}"]
    worst = table_rows(table(document, "Images that lose most"))
    assert [row[1] for row in worst[1:]] == [change["image"] for change in difference["worst"]]


def test_times_of_a_benchmark_are_shown(artifact: Path, data: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "bench.json", timed_run())
    options = (
        "--artifact",
        artifact,
        "--data",
        data,
        "--html",
        tmp_path / "r.html",
        "--bench",
        tmp_path / "bench.json",
    )
    assert run(*options).exit_code == 0
    document = parse((tmp_path / "r.html").read_text())
    assert "Times at 1x384x768" in document.text


def test_a_fall_beyond_the_limit_fails_the_command_after_the_report(
    artifact: Path, other: Path, data: Path, tmp_path: Path
) -> None:
    engines = {path: OnnxRuntimeEngine(path) for path in (artifact, other)}
    scores = {path: evaluate(engine, open_dataset(data, "camvid")).scores for path, engine in engines.items()}
    worse, better = sorted(scores, key=lambda path: scores[path].mean_iou)
    drop = scores[better].mean_iou - scores[worse].mean_iou
    options = ("--artifact", better, "--against", worse, "--data", data, "--html", tmp_path / "r.html", "--max-drop")
    assert run(*options, drop * 1.01).exit_code == 0
    (tmp_path / "r.html").unlink()
    failed = run(*options, drop * 0.99)
    assert failed.exit_code == 1
    assert failed.stderr.count("error:") == 1 and worse.name in failed.stderr and "--max-drop" in failed.stderr
    assert "Does not hold the gate." in (tmp_path / "r.html").read_text()
    assert run("--artifact", worse, "--against", better, "--data", data, "--max-drop", 0).exit_code == 0


def test_a_tier_is_a_share_of_the_first_ones_miou(artifact: Path, other: Path, data: Path, tmp_path: Path) -> None:
    first, worse = other, artifact  # by chance the noise gains mIoU
    compared = ("--artifact", first, "--against", first, "--against", worse, "--data", data)
    scored = run(*compared, "--json", tmp_path / "scores.json")
    assert scored.exit_code == 0, scored.output
    same, beside = json.loads((tmp_path / "scores.json").read_text())["against"]
    assert same["difference"]["mIoU"] == 0 and same["difference"]["interval"] == [0, 0] and "gate" not in same
    kept = beside["difference"]["kept"]
    assert 0 < kept < 99
    assert run(*compared, "--tier", kept * 0.999).exit_code == 0
    report = tmp_path / "r.html"
    failed = run(*compared, "--tier", 99.9, "--json", tmp_path / "scores.json", "--html", report)
    assert failed.exit_code == 1
    assert "not at least 99.9 % of" in failed.stderr and failed.stderr.count("  found  ") == 1
    gates = [one["gate"] for one in json.loads((tmp_path / "scores.json").read_text())["against"]]
    assert gates == [{"max_drop": None, "tier": 99.9, "passed": passed} for passed in (True, False)]
    assert "mIoU at least 99.9 % of" in report.read_text() and "Does not hold the gate." in report.read_text()
    assert json.loads(report.with_suffix(".json").read_text())["gate"]["tier"] == 99.9


def test_pytorch_is_shown_the_sizes_of_what_it_is_compared_with(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys
    import types

    from tests.toy import ToyEngine

    static = write_onnx(tmp_path / "static.onnx", contract(**fixed(64, 64)))
    engine = ToyEngine(contract())
    engine.notes = ()
    module = types.ModuleType("ffnet_deploy.engines.torch")
    module.TorchEngine = types.SimpleNamespace(from_config=lambda *_: engine)
    monkeypatch.setitem(sys.modules, "ffnet_deploy.engines.torch", module)
    result = run(
        *("--config", "some", "--checkpoint", "some.pth", "--against", static, "--data", data),
        *("--json", tmp_path / "j", "--limit", 2),
    )
    assert result.exit_code == 0, result.output
    assert set(engine.shapes) == {(1, 3, 64, 64)}
    written = json.loads((tmp_path / "j").read_text())
    assert written["against"][0]["agreement"] > 99
    assert any("shown images at the input size of static.onnx" in note for note in written["notes"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--html", "report.pdf"], "ends in .html"),
        (["--bench", "bench.json"], "--bench goes with --html"),
        (["--max-drop", "0.3"], "add --against"),
        (["--against", "absent.onnx", "--max-drop", "-1"], "points from 0"),
        (["--tier", "99"], "add --against"),
        (["--against", "absent.onnx", "--tier", "101"], "up to 100 percent"),
        (["--against", "absent.onnx", "--tier", "99", "--max-drop", "1"], "give one"),
        (["--against", "absent.onnx"], "there is no artefact absent.onnx"),
        (["--html", "{folder}/r.html", "--bench", "absent.json"], "there is no file absent.json"),
        (["--html", "{folder}/r.html", "--pictures", "-1"], "a gallery takes"),
    ],
)
def test_what_cannot_be_reported_is_one_error_and_writes_nothing(
    artifact: Path, data: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    folder = tmp_path / "out"
    result = run("--artifact", artifact, "--data", data, *(part.format(folder=folder) for part in arguments))
    assert result.exit_code == 1, result.output
    assert result.stderr.count("error:") == 1 and message in result.stderr.replace("\n", " ")
    assert not folder.exists() or list(folder.iterdir()) == []


def test_the_report_shows_the_learning_curve_of_a_work_folder(artifact: Path, data: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    arguments = ("--artifact", artifact, "--data", data, "--work-dir", tmp_path / "run")
    refused = run(*arguments, "--html", page)
    assert refused.exit_code == 1 and "run holds no records of ffnet-train" in refused.stderr and not page.exists()
    refused = run(*arguments)
    assert refused.exit_code == 1 and "--work-dir goes with --html" in refused.stderr
    record(tmp_path / "run", "20260101_000000", [trained(10, 2.0), trained(20, 1.0), validated(20, 31.5)])
    done = run(*arguments, "--html", page)
    assert done.exit_code == 0, done.output
    section = parse(page.read_text()).one("section", id="training")
    assert [figure.attributes["id"] for figure in section.all("figure")] == ["chart-loss", "chart-validation"]


def test_the_folder_of_a_checkpoint_tells_its_learning_curve(tmp_path: Path) -> None:
    flags, weights = ResultFlags(html=tmp_path / "report.html"), tmp_path / "run" / "iter_20.pth"
    record(tmp_path / "run", "20260101_000000", [trained(20, 1.0)])
    assert flags.read_training(str(weights)) is None
    weights.touch()
    found = flags.read_training(str(weights))
    assert found is not None and found.losses == ((20, 1.0),)
    assert ResultFlags().read_training(str(weights)) is None
    assert flags.read_training("published") is None
