import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ffnet_deploy.benchmark.files import read_run, run_to_dict, write_run
from ffnet_deploy.benchmark.record import TimingScope
from ffnet_deploy.cli.bench import app
from ffnet_deploy.cli.console import console
from ffnet_deploy.cli.options import parse_choices, parse_numbers, parse_sizes
from ffnet_deploy.core.errors import OptionError
from tests.benchmark.runs import make_run
from tests.commands import Result, assert_one_error, invoke
from tests.toy import contract, fixed, picture, write_onnx

pytest.importorskip("onnx")
QUICK = ("--seconds", 0, "--samples", 12, "--rounds", 6, "--warmup", 0, "--threads", 1)


def run(*arguments: object) -> Result:
    return invoke(app, *arguments, env={"COLUMNS": "220"})


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return write_onnx(tmp_path / "toy.onnx", contract(**fixed(64, 96)))


def test_a_narrow_screen_numbers_the_candidates(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(console), "width", 80)
    result = run(artifact, artifact, *QUICK)
    assert result.exit_code == 0, result.output
    assert "2  toy, ONNX Runtime (2): fp32" in result.stdout
    rows = [line.split() for line in result.stdout.splitlines() if "baseline" in line]
    assert [row[0] for row in rows] == ["1"]


def test_a_run_is_printed_and_every_sample_written(artifact: Path, tmp_path: Path) -> None:
    result = run(artifact, artifact, *QUICK, "--json", tmp_path / "run.json")
    assert result.exit_code == 0, result.output
    assert "clock: network only" in result.stdout
    assert "toy, ONNX Runtime (2)" in result.stdout
    written = read_run(tmp_path / "run.json")
    assert [row.summary.count for row in written.measurements if row.summary] == [12, 12]
    assert written.measurements[1].ratio is not None
    assert written.measurements[1].check is not None
    assert written.measurements[1].check.passed


@pytest.mark.slow
def test_an_artefact_is_never_faster_than_itself_on_this_machine(artifact: Path, tmp_path: Path) -> None:
    verdicts = []
    for _ in range(20):
        result = run(artifact, artifact, "--seconds", 1, "--threads", 1, "--json", tmp_path / "run.json")
        assert result.exit_code == 0, result.output
        ratio = read_run(tmp_path / "run.json").measurements[1].ratio
        assert ratio is not None
        verdicts.append(ratio.verdict.value)
    assert "faster" not in verdicts


@pytest.mark.parametrize(
    ("clock", "scope"),
    [
        ("end-to-end", TimingScope.END_TO_END),
        ("file", TimingScope.FILE),
        ("device", TimingScope.DEVICE),
        ("transfers", TimingScope.DEVICE),
    ],
)
def test_the_clock_is_named(clock: str, scope: TimingScope, artifact: Path, tmp_path: Path) -> None:
    result = run(artifact, *QUICK, "--clock", clock, "--json", tmp_path / "run.json")
    assert result.exit_code == 0, result.output
    assert f"clock: {scope.sentence}" in result.stdout
    assert read_run(tmp_path / "run.json").method.scope is scope


def test_both_runtimes_and_a_missing_one(artifact: Path) -> None:
    pytest.importorskip("openvino")
    result = run(artifact, *QUICK, "--runtime", "onnxruntime,openvino,onnxruntime-tensorrt")
    assert result.exit_code == 0, result.output
    assert "toy, OpenVINO" in result.stdout
    assert "toy, ONNX Runtime TensorRT is left out" in result.stderr
    assert "pip" in result.stderr


def test_a_profile_is_printed_by_blocks(artifact: Path) -> None:
    result = run(artifact, *QUICK, "--profile")
    assert result.exit_code == 0, result.output
    assert "ONNX Runtime profiler, mean of" in result.stdout
    assert "limits:" in result.stdout


def test_a_sweep_finds_the_best_point(tmp_path: Path) -> None:
    artifact = write_onnx(tmp_path / "toy.onnx", contract())
    sweep = ("--batch", "1,4", "--shape", "32x32,64x96", "--latency-budget", 60_000)
    result = run(artifact, *QUICK, *sweep, "--json", tmp_path / "run.json")
    assert result.exit_code == 0, result.output
    assert len(read_run(tmp_path / "run.json").measurements) == 4
    assert "best throughput for its latency" in result.stdout
    assert "best within 60000 ms (p95): toy, ONNX Runtime" in result.stdout
    impossible = run(artifact, *QUICK, "--latency-budget", 1e-6)
    assert impossible.exit_code == 0
    assert "nothing holds the budget" in impossible.stderr


def test_a_slow_down_fails_the_command(artifact: Path, tmp_path: Path) -> None:
    assert run(artifact, *QUICK, "--json", tmp_path / "old.json").exit_code == 0
    old = json.loads((tmp_path / "old.json").read_text())
    for row in old["measurements"]:
        row["rounds_ms"] = [[value / 1000 for value in one] for one in row["rounds_ms"]]
    (tmp_path / "old.json").write_text(json.dumps(old))
    shown = run(artifact, *QUICK, "--compare", tmp_path / "old.json")
    assert shown.exit_code == 0, shown.output
    assert "slower" in shown.stdout
    failing = run(artifact, *QUICK, "--compare", tmp_path / "old.json", "--fail-over", 50)
    assert_one_error(failing, "% slower, more than 50 %")


def test_a_report_is_written(artifact: Path, tmp_path: Path) -> None:
    result = run(artifact, *QUICK, "--html", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    assert "toy, ONNX Runtime" in (tmp_path / "page.html").read_text()


def test_a_wrong_output_fails_the_command(artifact: Path, tmp_path: Path) -> None:
    other = write_onnx(tmp_path / "other.onnx", contract(classes=("a", "b"), palette=((0, 0, 0),) * 2, **fixed(64, 96)))
    result = run(artifact, other, *QUICK, "--json", tmp_path / "run.json")
    assert_one_error(result, "other, ONNX Runtime (1x64x96, 1 thread): wrong output")
    assert "wrong output" in result.stdout
    assert len(read_run(tmp_path / "run.json").measurements) == 2


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((), ("nothing to time",)),
        (("ARTIFACT", "--batch", "0"), ("batch sizes must be at least 1",)),
        (("ARTIFACT", "--batch", "two"), ("--batch takes whole numbers",)),
        (("ARTIFACT", "--batch", "2"), ("accepts a batch of 1, not 2", "to do")),
        (("ARTIFACT", "--shape", "128x96"), ("accepts a height of 64, not 128", "to do")),
        (("ARTIFACT", "--samples", "0"), ("samples must be at least 1",)),
        (("ARTIFACT", "--rounds", "0"), ("rounds must be at least 1",)),
        (("ARTIFACT", "--seconds", "-1"), ("seconds must be a time from 0",)),
        (("ARTIFACT", "--runtime", "abacus"), ("--runtime takes onnxruntime", "'abacus'")),
        (("ARTIFACT", "--baseline", "torch"), ("no candidate is called 'torch'; there are: toy, ONNX Runtime",)),
        (("ARTIFACT", "--checkpoint", "x.pth"), ("--checkpoint goes with --config",)),
        (("ARTIFACT", "--fail-over", "5"), ("add --compare OLD.json",)),
        (("ARTIFACT", "--latency-budget", "0"), ("milliseconds above 0",)),
        (("ARTIFACT", "--compare", "gone.json"), ("there is no file gone.json",)),
        (("ARTIFACT", "--image", "gone.png"), ("cannot read the image gone.png",)),
        (("ARTIFACT", "--queue", "2", "--clock", "transfers"), ("network alone",)),
        (("ARTIFACT", "--min-agreement", "101"), ("0..100",)),
        (("gone.onnx",), ("there is no artefact gone.onnx",)),
        (("model.pt",), ("unknown kind", "found .pt")),
    ],
)
def test_bad_input_is_one_error(arguments: tuple[str, ...], parts: tuple[str, ...], artifact: Path) -> None:
    chosen = [artifact if argument == "ARTIFACT" else argument for argument in arguments]
    assert_one_error(run(*chosen), *parts)


def test_a_run_of_another_version_is_one_error(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(json.dumps({**run_to_dict(make_run()), "format": 99}))
    assert_one_error(run(artifact, "--compare", tmp_path / "old.json"), "has format 99", "to do")


def test_a_manifest_of_another_file_is_one_error(artifact: Path) -> None:
    artifact.write_bytes(artifact.read_bytes() + b"\0")
    assert_one_error(run(artifact, *QUICK), "has changed since its manifest was written")


def test_targets_that_cannot_be_written_are_found_before_measuring(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    assert_one_error(run(artifact, "--json", tmp_path / "taken"), "it is a folder")
    assert_one_error(run(artifact, "--html", tmp_path / "page.txt"), "ends in .html")


def test_an_image_of_ones_own(artifact: Path, tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "own.png"), picture(50, 70))
    assert run(artifact, *QUICK, "--image", tmp_path / "own.png").exit_code == 0
    (tmp_path / "broken.png").write_bytes((tmp_path / "own.png").read_bytes()[:100])
    assert_one_error(run(artifact, "--image", tmp_path / "broken.png"), "broken.png")


def test_runs_with_nothing_in_common_are_one_error(artifact: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "old.json", make_run())
    assert_one_error(run(artifact, *QUICK, "--compare", tmp_path / "old.json"), "no candidate and setting in common")


ANNOUNCED = """
from ffnet_deploy.cli import bench as command

bench = command.bench

def announced(*arguments, progress):
    def told(stage, done, total):
        if done == 2 and total == 100000:
            print("two rounds", flush=True)
        progress(stage, done, total)
    return bench(*arguments, progress=told)

command.bench = announced
command.main()
"""
"""ffnet-bench, saying when two rounds have been timed."""


def test_stopping_by_hand_keeps_the_samples(artifact: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ANNOUNCED, artifact, "--seconds", "600", "--threads", "1", "--rounds", "100000"]
    command += ["--json", tmp_path / "run.json"]
    process = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ.copy(),
    )
    assert process.stdout is not None and process.stdout.readline() == "two rounds\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    kept = read_run(tmp_path / "run.json")
    assert kept.interrupted
    assert kept.measurements[0].summary is not None


def test_lists_are_read() -> None:
    assert parse_numbers("1, 8,1", "--batch") == (1, 8)
    assert parse_sizes("512,64x128", "--shape") == ((512, 512), (64, 128))
    assert parse_choices("end-to-end,network", TimingScope, "--x") == (TimingScope.END_TO_END, TimingScope.NETWORK)
    for text in ("", "1,", "-1", "1.5"):
        with pytest.raises(OptionError, match="--batch takes"):
            parse_numbers(text, "--batch")
