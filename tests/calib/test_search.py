"""Sensitivity and search on a tiny network with one block that quantisation ruins."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ffnet_deploy.benchmark.files import write_run
from ffnet_deploy.benchmark.record import BenchRun, LayerProfile, ProfileRow
from ffnet_deploy.calib import Calibration, CalibrationOptions, Method, calibrate
from ffnet_deploy.calib.scoring import Trial, blocks_of, sqnr
from ffnet_deploy.calib.search import (
    SearchOptions,
    Sensitivity,
    Timings,
    TrialScore,
    ranked,
    read_timings,
    search_mixed,
    sensitivities,
)
from ffnet_deploy.core.contract import DimensionRange
from ffnet_deploy.core.errors import ArtifactError, OptionError, VerificationError
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeOptions
from ffnet_deploy.evaluation.datasets import Dataset, open_dataset
from ffnet_deploy.evaluation.preprocessing import network_input
from ffnet_deploy.evaluation.protocol import predict
from ffnet_deploy.evaluation.scores import MiouLimit
from ffnet_deploy.export.graph_file import contract_in
from ffnet_deploy.export.onnx import ExportOptions, build_graph
from ffnet_deploy.precision.assign import recorded
from ffnet_deploy.precision.graph_index import GraphIndex
from ffnet_deploy.segmentor.load import open_segmentor
from tests.report.examples import run
from tests.tiny import write_checkpoint
from tests.toy import picture

OPTIONS = CalibrationOptions(method=Method.MINMAX, equalize=False, correct_bias=False)
FRAGILE = "/decode_head/head_blocks/head_blocks.0/channel_mixer"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """A tiny network; one channel within `FRAGILE` is 300 times as large as the others, and divided out again."""
    config, checkpoint = write_checkpoint(tmp_path_factory.mktemp("tiny"), "tiny_seg")
    size = {"height": DimensionRange.fixed(64), "width": DimensionRange.fixed(128)}
    graph = build_graph(open_segmentor(config, checkpoint), ExportOptions(**size))
    convs = {conv.name: conv for conv in GraphIndex(graph).convs}
    first, second = (convs[f"{FRAGILE}/main/{name}/Conv"] for name in ("fc1", "fc2"))
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name == first.bias:
            values[0] = 300.0  # GELU passes it on
        elif tensor.name == second.bias:
            weight = next(numpy_helper.to_array(t) for t in graph.graph.initializer if t.name == second.weight)
            values -= 300.0 * weight[:, 0, 0, 0]
        else:
            continue
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return graph


@pytest.fixture(scope="module")
def labelled(model: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Images labelled by the FP32 network itself: its mIoU is 100."""
    root = tmp_path_factory.mktemp("data")
    for kind in ("images", "annotations"):
        (root / kind / "val").mkdir(parents=True)
    onnx.save(model, root / "fp32.onnx")
    with OnnxRuntimeEngine(root / "fp32.onnx", OnnxRuntimeOptions(check_manifest=False)) as engine:
        for index in range(6):
            image = picture(64, 128, index)
            cv2.imwrite(str(root / f"images/val/{index}.png"), image)
            cv2.imwrite(str(root / f"annotations/val/{index}.png"), predict(engine, image).labels)
    return open_dataset(root, "scenes", split="val")


@pytest.fixture(scope="module")
def images(model: onnx.ModelProto) -> list[np.ndarray]:
    return [network_input(picture(64, 128, index)[None], contract_in(model)) for index in range(3)]


@pytest.fixture(scope="module")
def ranges(model: onnx.ModelProto, images: list[np.ndarray]) -> Calibration:
    return calibrate(model, images, OPTIONS)


@pytest.fixture(scope="module")
def table(model: onnx.ModelProto, ranges: Calibration, labelled: Dataset) -> tuple[Sensitivity, ...]:
    return ranked(list(sensitivities(model, ranges, OPTIONS, labelled)))


def test_the_fragile_block_is_found(table: tuple[Sensitivity, ...]) -> None:
    for row in table:
        print(f"{row.block:60} {row.sqnr_db:6.1f} dB {row.disagreement_percent:6.2f} % {row.macs_percent:5.1f} % MACs")
    assert table[0].block == FRAGILE
    assert table[0].sqnr_db < table[1].sqnr_db - 6


def test_the_blocks_hold_every_convolution_once(model: onnx.ModelProto, table: tuple[Sensitivity, ...]) -> None:
    names = [conv for row in table for conv in row.convs]
    assert sorted(names) == sorted(conv.name for conv in GraphIndex(model).convs)
    assert sum(row.macs_percent for row in table) == pytest.approx(100)


def test_everything_quantised_is_tried_before_anything_is_ranked(
    model: onnx.ModelProto, ranges: Calibration, labelled: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> Iterator[Sensitivity]:
        raise AssertionError("ranked though everything holds")

    monkeypatch.setattr("ffnet_deploy.calib.search.sensitivities", never)
    found = search_mixed(model, ranges, OPTIONS, labelled, SearchOptions(limit=MiouLimit(100)))
    assert (found.kept, found.table, found.trials, found.finished) == ((), (), 1, True)


def test_only_the_fragile_block_is_left_alone(
    model: onnx.ModelProto, ranges: Calibration, labelled: Dataset, tmp_path: Path
) -> None:
    everything = search_mixed(model, ranges, OPTIONS, labelled, SearchOptions(limit=MiouLimit(100))).score
    assert everything.drop is not None and everything.drop > 1, everything
    limit = everything.drop / 2
    state = tmp_path / "search.json"
    found = search_mixed(model, ranges, OPTIONS, labelled, SearchOptions(MiouLimit(limit), state=state))
    print(f"{everything} with all, {found.score} with {found.kept} kept, {found.trials} trials")
    assert found.finished and found.kept == (FRAGILE,)
    assert found.score.drop is not None and found.score.largest_drop is not None
    assert found.score.drop <= found.score.largest_drop <= limit, "the interval's end decides, not the point"
    assert found.reference == pytest.approx(100)
    assert set(found.quantized.record.quantized).isdisjoint(blocks_of(model)[FRAGILE])


def test_without_labels_the_noise_budget_decides(
    model: onnx.ModelProto, ranges: Calibration, labelled: Dataset, table: tuple[Sensitivity, ...]
) -> None:
    bare = replace(labelled, samples=tuple(replace(sample, labels=None) for sample in labelled.samples))
    everything = search_mixed(model, ranges, OPTIONS, bare, SearchOptions(min_sqnr=-100)).score
    assert everything.drop is None and everything.largest_drop is None
    budget = everything.sqnr_db + 1
    found = search_mixed(model, ranges, OPTIONS, bare, SearchOptions(min_sqnr=budget))
    assert FRAGILE in found.kept and found.score.sqnr_db >= budget
    told = found.to_dict()
    assert told["limit"] == {"sqnr_db": budget} and told["reference_mIoU"] is None
    assert sum(row["noise_share_percent"] for row in told["sensitivity"]) == pytest.approx(100)
    with pytest.raises(VerificationError, match="dB"):
        search_mixed(model, ranges, OPTIONS, bare, SearchOptions(min_sqnr=500))


def test_a_tier_is_a_share_of_the_reference(
    model: onnx.ModelProto, ranges: Calibration, labelled: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ffnet_deploy.calib.search.score", lambda *_: TrialScore(30.0, 0.5, 0.9))
    monkeypatch.setattr("ffnet_deploy.calib.search.sensitivities", lambda *_: iter(()))
    found = search_mixed(model, ranges, OPTIONS, labelled, SearchOptions(MiouLimit(0.3, 99)))
    assert found.limit == pytest.approx(1) and found.kept == ()
    with pytest.raises(VerificationError, match=r"may be 0\.90 points \(95 % interval\), 0\.1 are allowed"):
        search_mixed(model, ranges, OPTIONS, labelled, SearchOptions(MiouLimit(0.3, 99.9)))


def test_a_search_goes_on_where_it_stopped(
    model: onnx.ModelProto,
    ranges: Calibration,
    labelled: Dataset,
    table: tuple[Sensitivity, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "search.json"
    with monkeypatch.context() as patched:
        scored_by(patched, lambda quantized: quantized.isdisjoint(table[0].convs))
        options = SearchOptions(limit=MiouLimit(3), state=path)
        first = search_mixed(model, ranges, OPTIONS, labelled, options)

    def never(*_: object) -> TrialScore:
        raise AssertionError("measured again")

    monkeypatch.setattr("ffnet_deploy.calib.search.score", never)
    again = search_mixed(model, ranges, OPTIONS, labelled, options)
    assert again.to_dict() == first.to_dict()
    other = replace(OPTIONS, keep=(FRAGILE,))
    with pytest.raises(ArtifactError, match="another search"):
        search_mixed(model, ranges, other, labelled, options)
    path.write_text(json.dumps({"format": 1}))
    with pytest.raises(ArtifactError, match="damaged"):
        search_mixed(model, ranges, OPTIONS, labelled, options)


def test_the_ranking_of_an_older_state_is_used_again(
    model: onnx.ModelProto,
    ranges: Calibration,
    labelled: Dataset,
    table: tuple[Sensitivity, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "search.json"
    search_mixed(model, ranges, OPTIONS, labelled, SearchOptions(limit=MiouLimit(100), state=path))
    rows = [row.to_dict() for row in table]
    old = {"format": 1, "key": json.loads(path.read_text())["key"], "reference_mIoU": 100.0, "scores": {"": 50.0}}
    path.write_text(json.dumps({**old, "sensitivity": rows}))
    trials = scored_by(monkeypatch, lambda quantized: quantized.isdisjoint(table[0].convs))
    monkeypatch.setattr("ffnet_deploy.calib.search.tried", lambda *_: Trial([], [], 100.0))
    found = search_mixed(model, ranges, OPTIONS, labelled, SearchOptions(limit=MiouLimit(1), state=path))
    assert found.kept == (table[0].block,) and trials, "its scores had no interval and are measured anew"


def test_blocks_that_were_ranked_before_a_stop_are_not_tried_again(
    model: onnx.ModelProto,
    ranges: Calibration,
    labelled: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scored_by(monkeypatch, lambda quantized: len(quantized) < 10)
    options = SearchOptions(limit=MiouLimit(1), state=tmp_path / "search.json")
    told: list[int] = []

    def stop_at_three(step: str, done: int, total: int) -> None:
        if step == "trying each block alone":
            told.append(done)
            if done == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search_mixed(model, ranges, OPTIONS, labelled, options, stop_at_three)
    assert len(json.loads((tmp_path / "search.json").read_text())["sensitivity"]) == 3
    told.clear()

    def note(step: str, done: int, total: int) -> None:
        if step == "trying each block alone":
            told.append(done)

    search_mixed(model, ranges, OPTIONS, labelled, options, note)
    assert told[0] == 4


def test_a_fall_that_nothing_prevents_is_told(model: onnx.ModelProto, ranges: Calibration, labelled: Dataset) -> None:
    hopeless = replace(ranges, thresholds=dict.fromkeys(ranges.thresholds, 0.001))
    with pytest.raises(VerificationError, match="least fall"):
        search_mixed(model, hopeless, OPTIONS, labelled, SearchOptions(limit=MiouLimit(0.01)))


def scored_by(monkeypatch: pytest.MonkeyPatch, holds: Callable[[set[str]], bool]) -> list[int]:
    """Lets a trial lose no mIoU where `holds` says so of its quantised convolutions, else 50 points; notes each."""
    trials: list[int] = []

    def score(model: onnx.ModelProto, reference: Trial, dataset: Dataset) -> TrialScore:
        quantized = set(recorded(model).quantized)
        trials.append(len(quantized))
        drop = 0.0 if holds(quantized) else 50.0
        return TrialScore(30.0, drop, drop)

    monkeypatch.setattr("ffnet_deploy.calib.search.score", score)
    return trials


def test_blocks_that_need_not_be_kept_are_quantised_again(
    model: onnx.ModelProto,
    ranges: Calibration,
    labelled: Dataset,
    table: tuple[Sensitivity, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    third = table[2].block
    scored_by(monkeypatch, lambda quantized: quantized.isdisjoint(table[2].convs))
    found = search_mixed(model, ranges, OPTIONS, labelled, SearchOptions(limit=MiouLimit(1)))
    assert found.kept == (third,), "the two that rank before it are not needed"
    assert found.finished and found.score.drop == 0


def test_a_search_ends_with_its_budget(
    model: onnx.ModelProto,
    ranges: Calibration,
    labelled: Dataset,
    table: tuple[Sensitivity, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ffnet_deploy.calib.search.sensitivities", lambda *_: iter(table))
    trials = scored_by(monkeypatch, lambda quantized: quantized.isdisjoint(table[0].convs))
    monkeypatch.setattr("ffnet_deploy.calib.search.time.monotonic", lambda: float(len(trials)))
    whole = search_mixed(model, ranges, OPTIONS, labelled, SearchOptions(limit=MiouLimit(1)))
    assert whole.finished and whole.kept == (table[0].block,)
    trials.clear()
    # everything quantised does not hold; half of the blocks do, and then the time is up
    cut = search_mixed(model, ranges, OPTIONS, labelled, SearchOptions(limit=MiouLimit(1), budget=1.5))
    assert not cut.finished and cut.score.drop == 0 and len(cut.kept) > 1, "the best set so far"
    trials.clear()
    with pytest.raises(VerificationError, match="or more time"):
        search_mixed(model, ranges, OPTIONS, labelled, SearchOptions(limit=MiouLimit(1), budget=0.5))


def test_slower_blocks_are_left_alone(model: onnx.ModelProto, ranges: Calibration, labelled: Dataset) -> None:
    stem = blocks_of(model)["/backbone/patch_embed"]
    timings = Timings(dict.fromkeys(stem, 0.2), dict.fromkeys(stem, 0.1))
    found = search_mixed(model, ranges, OPTIONS, labelled, SearchOptions(MiouLimit(100), timings=timings))
    assert found.kept == ("/backbone/patch_embed",)


def test_fused_layers_count_for_their_first_convolution() -> None:
    blocks = {"a": ["/a/fc1/Conv", "/a/fc2/Conv"], "b": ["/b/Conv"], "c": ["/c/Conv"]}
    base = {"/a/fc1/Conv + /a/Gelu": 0.2, "{ForeignNode[/a/fc2/Conv.../b/Conv]}": 0.2, "/b/Conv": 0.1}
    low = {"/a/fc1/Conv + /a/Gelu": 0.1, "/a/fc2/Conv": 0.1, "/b/Conv || /c/Conv": 0.1, "/b/Conv_2": 1.0}
    assert Timings(low, base).slower(blocks) == ()
    copied = {"Reformatting CopyNode for Input Tensor 0 to /b/Conv": 0.05}
    assert Timings({**low, **copied}, base).slower(blocks) == ("b",), "what quantising makes necessary counts"


def profiled(layers: dict[str, dict[str, float]]) -> BenchRun:
    """A run in which the candidates of these precisions were profiled, with milliseconds of each layer."""
    whole = run()
    precisions = {one.name: one.precision for one in whole.candidates}

    def profile(candidate: str) -> LayerProfile | None:
        times = layers.get(precisions[candidate])
        if times is None:
            return None
        return LayerProfile(
            "toy", 1, tuple(ProfileRow(name, "head", "Conv", ms, 100.0) for name, ms in times.items()), ()
        )

    measured = tuple(replace(one, profile=profile(one.candidate)) for one in whole.measurements)
    return replace(whole, measurements=measured)


def test_timings_come_from_a_profile_of_both_engines(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    both = profiled({"fp16": {"/b/Conv": 0.1}, "int8": {"/b/Conv": 0.2}})
    write_run(path, both)
    assert read_timings(path).slower({"block": ["/b/Conv"], "other": ["/c/Conv"]}) == ("block",)
    write_run(path, profiled({"fp16": {"/b/Conv": 0.1}}))
    with pytest.raises(ArtifactError, match="0 profiles of quantised networks and 1 of others"):
        read_timings(path)
    for hostile in ("[]", "[" * 100_000, '{"format": 2, "candidates": Infinity}'):
        path.write_text(hostile)
        with pytest.raises(ArtifactError, match="not written by ffnet-bench"):
            read_timings(path)


def test_sqnr_is_the_ratio_of_energies() -> None:
    signal = [np.full((1, 2, 2, 2), 10.0)]
    assert sqnr(signal, [signal[0] + 1]) == pytest.approx(20)
    assert sqnr(signal, signal) == float("inf")


@pytest.mark.parametrize("wrong", [{"min_sqnr": float("nan")}, {"budget": 0}, {"images": 0}])
def test_impossible_limits_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError):
        SearchOptions(**wrong)
