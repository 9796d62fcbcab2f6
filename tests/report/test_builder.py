import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from ffnet_deploy.artifacts.manifest import manifest_path, write_manifest
from ffnet_deploy.core.contract import RANDOM_WEIGHTS, TestProtocol
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.core.files import sha256
from ffnet_deploy.evaluation.datasets import Dataset, open_dataset
from ffnet_deploy.evaluation.evaluate import EvaluateOptions, evaluate
from ffnet_deploy.evaluation.scores import MiouLimit
from ffnet_deploy.report.builder import ReportBuilder, merged, runtime, timed_candidates
from ffnet_deploy.report.data import CandidateResults, ReportData
from ffnet_deploy.report.gallery import GalleryOptions
from ffnet_deploy.report.gate import GateOutcome, checks, verdict
from ffnet_deploy.report.write import write_report
from tests.report.examples import NAMES, example, run
from tests.toy import CAMVID, ToyEngine, contract, weights, write_pairs


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return open_dataset(write_pairs(tmp_path / "data", 3), "camvid")


def engine(name: str = "PyTorch 2.13 (cpu)", noise: float = 0.0) -> ToyEngine:
    from tests.toy import logits

    kernel = weights(len(CAMVID.classes)) + noise * weights(len(CAMVID.classes), 7)
    made = ToyEngine(contract(), lambda batch: logits(batch, kernel))
    made.name, made.notes = name, ("a note of the engine",)
    return made


def artifact(folder: Path, name: str, **content: object) -> Path:
    path = folder / name
    path.write_bytes(name.encode())
    write_manifest(path, "onnx", content)
    return path


def test_several_engines_are_scored_on_the_same_images(dataset: Dataset, tmp_path: Path) -> None:
    record = {"precision": {"precision": "fp16", "base": "fp16", "quantized": [], "float32": []}}
    path = artifact(tmp_path, "toy.fp16.onnx", **record)
    comparison = ReportBuilder()
    first = comparison.score(engine(), dataset, EvaluateOptions(), None)
    assert comparison.agreement is None
    second = comparison.score(engine("ONNX Runtime 1.31 (CPU)", 0.2), dataset, EvaluateOptions(), path)
    data = comparison.report(limit=MiouLimit(100.0))
    assert [one.name for one in data.candidates] == ["PyTorch", "ONNX Runtime FP16"]
    assert data.candidates[0].scores == first.scores == evaluate(engine(), dataset).scores
    assert data.candidates[1].scores == second.scores != first.scores
    assert 0 < comparison.agreement < 100
    assert data.candidates[1].accuracy.agreement == comparison.agreement
    assert data.candidates[1].sha256 == json.loads(manifest_path(path).read_text())["sha256"]
    assert data.candidates[1].accuracy.notes[0] == "a note of the engine"
    assert [sample.name for sample in data.gallery.samples] == [sample.name for sample in dataset.samples]
    assert data.gallery.samples[0].panels[-1].caption == "Difference of ONNX Runtime FP16 to PyTorch"


def test_graphs_of_the_same_name_carry_their_folders(dataset: Dataset, tmp_path: Path) -> None:
    comparison = ReportBuilder()
    for kind in ("fp32", "fp16"):
        (tmp_path / kind).mkdir()
        path = artifact(tmp_path / kind, "net.onnx")
        comparison.score(engine("ONNX Runtime 1.31 (CPU)"), dataset, EvaluateOptions(), path)
    names = [one.name for one in comparison.report().candidates]
    assert names == ["ONNX Runtime FP32, fp32/net.onnx", "ONNX Runtime FP32, fp16/net.onnx"]


def test_a_plain_evaluation_keeps_no_label_maps(dataset: Dataset) -> None:
    comparison = ReportBuilder(GalleryOptions(count=0), compares=False)
    comparison.score(engine(), dataset, EvaluateOptions(), None)
    assert comparison._collector is not None
    assert comparison._collector._first == {}
    assert comparison.agreement is None


def test_networks_of_other_classes_and_foreign_manifests_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    comparison = ReportBuilder()
    comparison.score(engine(), dataset, EvaluateOptions(limit=1), None)
    other = engine()
    other.contract = replace(contract(protocol=TestProtocol()), classes=("a",), palette=((0, 0, 0),))
    with pytest.raises(ArtifactError, match="predicts 1 classes of camvid, toy 11"):
        comparison.score(other, dataset, EvaluateOptions(limit=1), None)
    path = artifact(tmp_path, "toy.onnx")
    path.write_bytes(b"other")
    with pytest.raises(ArtifactError, match="has changed since its manifest"):
        comparison.score(engine(), dataset, EvaluateOptions(limit=1), path)


def test_times_and_scores_of_the_same_network_become_one() -> None:
    timed = timed_candidates(run())
    scored = tuple(replace(one, measurements=()) for one in example(1).candidates[:2])
    scored = (replace(scored[0], name="reference"), replace(scored[1], name="ort"))
    found = merged(scored, timed)
    assert [one.name for one in found] == ["reference", "ort", NAMES[2]]
    assert [one.scores is not None for one in found] == [True, True, False]
    assert all(one.timing is not None for one in found)
    assert [one.timing.ratio.against for one in found[1:]] == ["reference", "reference"]
    assert [one.timing.candidate for one in found] == ["reference", "ort", NAMES[2]]
    assert found[1].timing.summary == timed[1].timing.summary


def test_the_same_file_in_another_runtime_stays_apart() -> None:
    scored = replace(example(1).candidates[1], measurements=())
    other = replace(timed_candidates(run())[1], engine="OpenVINO 2026.4 (CPU)")
    assert len(merged([scored], [other])) == 2


def test_names_that_are_shared_get_file_or_number() -> None:
    one = CandidateResults("ONNX Runtime INT8", "ONNX Runtime", artifact="a.onnx", sha256="a")
    other = replace(one, artifact="b.onnx", sha256="b")
    torch = CandidateResults("PyTorch", "PyTorch", network="n")
    names = [entry.name for entry in merged([one, other], [torch, replace(torch, network="m")])]
    assert names == ["ONNX Runtime INT8, a.onnx", "ONNX Runtime INT8, b.onnx", "PyTorch", "PyTorch (2)"]


@pytest.mark.parametrize(
    ("engine_name", "expected"),
    [
        ("ONNX Runtime 1.31 (CPU)", "ONNX Runtime"),
        ("PyTorch 2.13.0+cpu (cpu)", "PyTorch"),
        ("TensorRT for RTX 1.7 (A GPU)", "TensorRT for RTX"),
        ("2nd", "2nd"),
    ],
)
def test_a_runtime_is_named_without_version_and_device(engine_name: str, expected: str) -> None:
    assert runtime(engine_name) == expected


def test_manifests_are_read_for_the_files_that_were_timed(tmp_path: Path) -> None:
    path = artifact(tmp_path, "camvid.fp16.onnx", verification={"passed": True})
    stranger = artifact(tmp_path, "stranger.onnx")
    digest = json.loads(manifest_path(path).read_text())["sha256"]
    measured = run()
    candidates = (measured.candidates[0], replace(measured.candidates[1], sha256=digest), measured.candidates[2])
    found = timed_candidates(replace(measured, candidates=candidates), [path, stranger, tmp_path / "absent.onnx"])
    assert [one.manifest is not None for one in found] == [False, True, False]


def outcomes(data: object) -> dict[str, list[GateOutcome]]:
    found: dict[str, list[GateOutcome]] = {}
    for check in checks(data):
        found.setdefault(check.candidate, []).append(check.outcome)
    return found


def test_the_gate_asks_for_scores_verification_precision_and_output() -> None:
    data = example(1)
    holds, fails = GateOutcome.HOLDS, GateOutcome.FAILS
    drops = [data.first.scores.mean_iou - one.scores.mean_iou for one in data.candidates]
    assert 0 < drops[1] < drops[2]
    lenient = replace(data, limit=MiouLimit(drops[2]))
    assert outcomes(lenient) == {NAMES[1]: [holds] * 5, NAMES[2]: [holds, holds, holds, fails, holds]}
    strict = replace(data, limit=MiouLimit(drops[1] * 0.99))
    assert outcomes(strict) == {NAMES[1]: [fails, *[holds] * 4], NAMES[2]: [fails, holds, holds, fails, holds]}
    assert verdict(checks(strict)) is fails
    assert verdict(checks(replace(lenient, candidates=lenient.candidates[:2], gallery=type(data.gallery)()))) is holds


def test_what_was_not_measured_is_said_and_holds_nothing() -> None:
    data = example(1)
    wrong = replace(data.candidates[1].measurements[0].check, passed=False, agreement=12.0)
    timing = replace(data.candidates[1].measurements[0], check=wrong)
    unscored = replace(
        data.candidates[1], accuracy=None, manifest={"verification": {"passed": None}}, measurements=(timing,)
    )
    broken = replace(data.candidates[2], accuracy=None, manifest=None, measurements=())
    found = outcomes(replace(data, candidates=(data.first, unscored, broken)))
    unknown = GateOutcome.UNKNOWN
    assert found == {NAMES[1]: [unknown, unknown, GateOutcome.FAILS], NAMES[2]: [unknown]}
    assert verdict(()) is unknown


def test_the_page_says_where_weights_are_random(dataset: Dataset, tmp_path: Path) -> None:
    random = contract(sources={"config": "0" * 64})
    path = artifact(tmp_path, "toy.onnx", contract=asdict(random))
    network = engine()
    network.contract = random
    comparison = ReportBuilder()
    comparison.score(engine("a trained one"), dataset, EvaluateOptions(), None)
    scored = comparison.score(network, dataset, EvaluateOptions(), path)
    assert RANDOM_WEIGHTS in scored.notes
    timed = replace(run(), candidates=(replace(run().candidates[0], sha256=sha256(path), artifact="toy.onnx"),))
    only_timed = ReportData("toy", timed.created, timed_candidates(timed, [path]), run=timed)
    for data in (comparison.report(), only_timed):
        assert RANDOM_WEIGHTS in write_report(tmp_path / "page.html", data)[0].read_text()
    assert RANDOM_WEIGHTS not in comparison.report().candidates[0].accuracy.notes
