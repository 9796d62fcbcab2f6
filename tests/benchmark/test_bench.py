import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ffnet_deploy.benchmark.bench import BenchOptions, bench
from ffnet_deploy.benchmark.candidates import (
    ArtifactOptions,
    Candidate,
    artifact_candidates,
    baseline_first,
    distinct,
)
from ffnet_deploy.benchmark.record import BenchRun, Setting, TimingMethod, TimingScope, Verdict
from ffnet_deploy.benchmark.sweep import Grid
from ffnet_deploy.core.contract import Contract, DimensionRange, OutputKind
from ffnet_deploy.core.errors import ArtifactError, MissingPackageError, OptionError
from ffnet_deploy.core.optional import install_command
from ffnet_deploy.engines.backend import Backend, Provider
from tests.benchmark.simulated import SimulatedClock
from tests.benchmark.toy_picture import PICTURE
from tests.toy import ToyEngine, contract, fixed, logits, weights, write_onnx

QUICK = TimingMethod(warmup_ms=0, warmup_runs=1, seconds=0.0, samples=12, rounds=6, settle_ms=0)
SIZE = Grid(sizes=((64, 96),))


class Engine(ToyEngine):
    notes = ("a note",)


def toy(
    name: str,
    clock: SimulatedClock,
    milliseconds: float = 10.0,
    described: Contract | None = None,
    function: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Candidate:
    """A candidate that takes `milliseconds` of the simulated clock for each image."""
    described = described or contract()
    kernel = weights(len(described.classes))

    def run(batch: np.ndarray) -> np.ndarray:
        clock.nanoseconds += milliseconds * 1e6 * len(batch)
        return (function or (lambda x: logits(x, kernel)))(batch)

    return Candidate(name, lambda threads, streams: Engine(described, run))


def timed(
    candidates: list[Candidate], clock: SimulatedClock, grid: Grid = SIZE, method: TimingMethod = QUICK
) -> BenchRun:
    return bench(candidates, BenchOptions(grid, PICTURE, method), clock)


def test_candidates_are_timed_and_compared_with_the_first() -> None:
    clock = SimulatedClock()
    run = timed([toy("a", clock, 10), toy("b", clock, 20)], clock)
    first, second = run.measurements
    assert run.baseline == "a"
    assert (first.ratio, first.check) == (None, None)
    assert first.summary is not None
    assert second.summary is not None
    assert second.ratio is not None
    assert second.check is not None
    assert (first.summary.median, second.summary.median) == (10.0, 20.0)
    assert (second.ratio.value, second.ratio.verdict) == (2.0, Verdict.SLOWER)
    assert (second.check.agreement, second.check.relative, second.check.passed) == (100.0, 0.0, True)
    assert (first.throughput, second.throughput) == (100.0, 50.0)
    assert (run.interrupted, run.missing) == (False, ())
    assert run.candidates[0].notes == ("a note",)


def test_a_fast_wrong_engine_is_flagged() -> None:
    clock = SimulatedClock()
    wrong = weights(11, seed=9)
    run = timed([toy("a", clock), toy("fast", clock, 1, function=lambda x: logits(x, wrong))], clock)
    row = run.measurements[1]
    assert row.check is not None
    assert row.ratio is not None
    assert not row.check.passed
    assert row.ratio.verdict is Verdict.WRONG
    assert any("fast (1x64x96): WRONG OUTPUT" in warning for warning in run.warnings)


def test_output_that_is_not_finite_is_wrong_whatever_its_labels() -> None:
    clock, kernel = SimulatedClock(), weights(11)

    def overflowed(batch: np.ndarray) -> np.ndarray:
        out = logits(batch, kernel)
        out[:, out.max((0, 2, 3)).argmin()] = -np.inf
        return out

    run = bench(
        [toy("a", clock), toy("b", clock, function=overflowed)],
        BenchOptions(SIZE, PICTURE, QUICK, least_agreement=0),
        clock,
    )
    assert run.measurements[1].check is not None
    assert not run.measurements[1].check.passed


def test_labels_are_compared_with_logits() -> None:
    clock, kernel = SimulatedClock(), weights(11)
    described = contract(output=OutputKind.LABELS)

    def labels(batch: np.ndarray) -> np.ndarray:
        from ffnet_deploy.benchmark.outputs import label_maps

        return label_maps(logits(batch, kernel), contract(), batch.shape[2:])

    run = timed([toy("a", clock), toy("labels", clock, described=described, function=labels)], clock)
    check = run.measurements[1].check
    assert check is not None
    assert (check.agreement, check.relative, check.passed) == (100.0, None, True)


def test_every_batch_and_size_is_measured() -> None:
    clock = SimulatedClock()
    grid = Grid(batches=(1, 4), sizes=((64, 96), (32, 32)))
    run = timed([toy("a", clock), toy("b", clock)], clock, grid)
    settings = [row.setting for row in run.measurements if row.candidate == "a"]
    assert [(one.batch, one.height, one.width) for one in settings] == [
        (1, 64, 96),
        (4, 64, 96),
        (1, 32, 32),
        (4, 32, 32),
    ]
    assert [row.throughput for row in run.measurements] == [100.0] * 8  # a batch of four takes four times as long


def test_without_a_size_the_one_that_a_candidate_is_made_for_is_taken() -> None:
    clock = SimulatedClock()
    run = timed([toy("any", clock), toy("fixed", clock, described=contract(**fixed(96, 160, 2)))], clock, Grid())
    assert run.measurements[0].setting == Setting(2, 96, 160)


@pytest.mark.parametrize(
    ("grid", "reason"),
    [
        (Grid(batches=(5,), sizes=((64, 96),)), "a accepts a batch of 1..4, not 5"),
        (Grid(sizes=((64, 512),)), "a accepts a width of 32..256, not 512"),
        (Grid(sizes=((64, 100),)), "width 100 is not a multiple of 32; the nearest are 96 and 128"),
    ],
)
def test_settings_outside_the_profile_are_refused_before_anything_runs(grid: Grid, reason: str) -> None:
    clock = SimulatedClock()
    with pytest.raises(OptionError, match=reason):
        timed([toy("a", clock)], clock, grid)
    assert clock.nanoseconds == 0


@pytest.mark.parametrize("values", [{"batches": (0,)}, {"threads": (-1,)}, {"streams": (0,)}, {"streams": ()}])
def test_grids_of_nothing_are_refused(values: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(OptionError):
        Grid(**values)


def missing_candidate(name: str) -> Candidate:
    def refuse(threads: int, streams: int) -> Engine:
        raise MissingPackageError("it needs the package x.\n  to do    pip install x")

    return Candidate(name, refuse)


def test_what_cannot_start_here_is_listed_and_the_others_run() -> None:
    clock = SimulatedClock()
    run = timed([missing_candidate("gpu"), toy("a", clock)], clock)
    assert [(one.candidate, "pip install x" in one.reason) for one in run.missing] == [("gpu", True)]
    assert [row.candidate for row in run.measurements] == ["a"]
    with pytest.raises(OptionError, match=r"no candidate can start here(?s:.)*gpu: (?s:.)*pip install x"):
        timed([missing_candidate("gpu")], clock)


def test_a_candidate_that_fails_in_the_middle_keeps_its_samples() -> None:
    clock, left, kernel = SimulatedClock(), [8], weights(11)

    def vanishing(batch: np.ndarray) -> np.ndarray:
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("device lost")
        return logits(batch, kernel)

    run = timed([toy("a", clock), toy("gone", clock, function=vanishing)], clock)
    row = run.measurements[1]
    assert row.error == "RuntimeError: device lost"
    assert row.summary is not None
    assert row.summary.count == 6  # of eight calls one was for the check, one the warm-up
    assert any("gone (1x64x96) ended early, after 6 samples" in warning for warning in run.warnings)


def test_a_candidate_that_fails_at_once_is_out_and_the_others_run() -> None:
    clock = SimulatedClock()

    def broken(batch: np.ndarray) -> np.ndarray:
        raise ArtifactError("the engine fails")

    run = timed([toy("broken", clock, function=broken), toy("b", clock)], clock)
    by_name = {row.candidate: row for row in run.measurements}
    assert by_name["broken"].error == "the engine fails"
    assert by_name["b"].summary is not None
    assert by_name["b"].ratio is None


def test_stopping_by_hand_keeps_what_was_measured() -> None:
    clock, left, kernel = SimulatedClock(), [20], weights(11)

    def interrupted(batch: np.ndarray) -> np.ndarray:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return logits(batch, kernel)

    grid = Grid(batches=(1, 2), sizes=((64, 96),))
    run = timed([toy("a", clock, function=interrupted)], clock, grid)
    assert run.interrupted
    assert [row.setting.batch for row in run.measurements] == [1, 2]
    assert [row.summary.count for row in run.measurements if row.summary] == [12, 4]
    assert any("stopped by hand" in warning for warning in run.warnings)


def test_unsteady_times_are_told() -> None:
    clock = SimulatedClock()
    noise, kernel = np.random.default_rng(0), weights(11)

    def jittery(batch: np.ndarray) -> np.ndarray:
        clock.nanoseconds += noise.exponential(1e6)
        return logits(batch, kernel)

    run = timed([toy("calm", clock), toy("jittery", clock, function=jittery)], clock)
    assert [warning.partition(" ")[0] for warning in run.warnings if "unsteady" in warning] == ["jittery"]


def test_engines_are_closed_whatever_happens() -> None:
    engines: list[Engine] = []

    def open_engine(threads: int, streams: int) -> Engine:
        engines.append(Engine(contract()))
        return engines[-1]

    clock = SimulatedClock()
    with pytest.raises(OptionError):
        timed([Candidate("a", open_engine)], clock, Grid(sizes=((1024, 1024),)))
    assert [engine.closed for engine in engines] == [1]


def test_end_to_end_holds_decoding_and_argmax() -> None:
    run = timed(
        [toy("a", SimulatedClock())],
        None,
        method=TimingMethod(  # type: ignore[arg-type]  # the host's clock
            scope=TimingScope.END_TO_END, warmup_ms=0, warmup_runs=1, seconds=0, samples=6, rounds=6
        ),
    )
    alone = timed([toy("a", SimulatedClock())], None)  # type: ignore[arg-type]
    assert run.measurements[0].summary is not None
    assert alone.measurements[0].summary is not None
    assert run.measurements[0].summary.minimum > alone.measurements[0].summary.minimum


def test_a_real_artefact_is_compared_with_itself_on_both_runtimes(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = write_onnx(tmp_path / "toy.onnx", contract())
    both = ArtifactOptions((Backend.ONNXRUNTIME, Backend.OPENVINO))
    candidates = distinct(artifact_candidates([path, path], both))
    assert [one.name for one in candidates] == [
        "toy, ONNX Runtime",
        "toy, OpenVINO",
        "toy, ONNX Runtime (2)",
        "toy, OpenVINO (2)",
    ]
    run = bench(candidates, BenchOptions(Grid(sizes=((64, 96),), threads=(1,)), PICTURE, QUICK, profile=True))
    assert [row.error for row in run.measurements] == [None] * 4
    assert all(row.check is None or row.check.passed for row in run.measurements)
    assert {one.sha256 for one in run.candidates} == {run.candidates[0].sha256}
    for row in run.measurements:
        assert row.profile is not None, run.warnings
        assert any(layer.operator.startswith("Conv") for layer in row.profile.layers)
    conv = next(layer for layer in run.measurements[0].profile.layers if layer.operator == "Conv")  # type: ignore[union-attr]
    # ONNX Runtime pads the 11 classes to 16 where its layout asks for it
    assert conv.flops in [2 * classes * 16 * 24 * 3 * 4 * 4 for classes in (11, 16)]


def test_graphs_of_the_same_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [tmp_path / kind / "net.onnx" for kind in ("fp32", "fp16")] + [tmp_path / "fp16" / "other.onnx"]
    names = [one.name for one in artifact_candidates(paths, ArtifactOptions())]
    assert names == ["fp32/net, ONNX Runtime", "fp16/net, ONNX Runtime", "other, ONNX Runtime"]
    again = distinct(artifact_candidates([paths[0], paths[0]], ArtifactOptions()))
    assert [one.name for one in again] == ["net, ONNX Runtime", "net, ONNX Runtime (2)"]


def test_several_calls_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = write_onnx(tmp_path / "toy.onnx", contract())
    both = ArtifactOptions((Backend.ONNXRUNTIME, Backend.OPENVINO))
    run = bench(
        artifact_candidates([path], both), BenchOptions(Grid(sizes=((64, 96),), streams=(1, 2)), PICTURE, QUICK)
    )
    assert [(row.candidate, row.setting.streams, row.error) for row in run.measurements] == [
        ("toy, ONNX Runtime", 1, None),
        ("toy, OpenVINO", 1, None),
        ("toy, ONNX Runtime", 2, None),
        ("toy, OpenVINO", 2, None),
    ]


def test_runtimes_that_are_not_installed_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_onnx(tmp_path / "toy.onnx", contract())
    monkeypatch.setitem(sys.modules, "openvino", None)
    options = ArtifactOptions((Backend.ONNXRUNTIME, Backend.OPENVINO), (Provider.CPU, Provider.TENSORRT))
    run = bench(artifact_candidates([path], options), BenchOptions(SIZE, PICTURE, QUICK))
    assert [row.candidate for row in run.measurements] == ["toy, ONNX Runtime"]
    reasons = {one.candidate: one.reason for one in run.missing}
    assert install_command("openvino") in reasons["toy, OpenVINO"]
    assert "onnxruntime-gpu" in reasons["toy, ONNX Runtime TensorRT"]


def test_unknown_kinds_and_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"unknown kind: expected \.onnx or \.engine, found \.pt"):
        artifact_candidates([tmp_path / "x.pt"], ArtifactOptions())
    with pytest.raises(OptionError, match="run by onnxruntime or openvino: got none"):
        ArtifactOptions(())
    with pytest.raises(OptionError, match="run by onnxruntime or openvino: got torch"):
        ArtifactOptions((Backend.TORCH,))
    with pytest.raises(OptionError, match="at least one provider: cpu, cuda, tensorrt"):
        ArtifactOptions(providers=())
    candidates = [missing_candidate("One"), missing_candidate("Two")]
    assert [one.name for one in baseline_first(candidates, "two")] == ["Two", "One"]
    with pytest.raises(OptionError, match="no candidate is called 'three'; there are: One; Two"):
        baseline_first(candidates, "three")


def test_an_artefact_that_is_not_the_verified_one_is_refused(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "toy.onnx", contract())
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ArtifactError, match="has changed since its manifest was written"):
        bench(artifact_candidates([path], ArtifactOptions()), BenchOptions(SIZE, PICTURE, QUICK))


def test_batches_that_only_one_takes_are_found() -> None:
    described = [contract(batch=DimensionRange(2, 3, 4)), contract(batch=DimensionRange(1, 1, 8))]
    assert [one.batch for one in Grid(sizes=((32, 32),)).settings(described, 0, 1)] == [2]
