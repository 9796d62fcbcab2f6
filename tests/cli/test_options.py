"""What all commands share: reading of options, old spellings, limits, files that are written before printing."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
from cyclopts import App

from ffnet_deploy.cli import bench, evaluate, export, predict, train
from ffnet_deploy.cli.console import ExitCode
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.engines.backend import Backend, gpu_index
from ffnet_deploy.training.options import TrainOptions
from tests.commands import assert_one_error, invoke
from tests.disks import read_only
from tests.toy import contract, fixed, write_onnx, write_pairs

pytest.importorskip("onnx")
APPS = {"export": export.app, "eval": evaluate.app, "bench": bench.app, "train": train.app}
QUICK = ("--seconds", 0, "--samples", 6, "--rounds", 6, "--warmup", 0, "--threads", 1)
WIDE = {"COLUMNS": "200"}


def names(app: App) -> set[str]:
    return {name for argument in app.assemble_argument_collection() for name in argument.names}


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return write_onnx(tmp_path / "toy.onnx", contract(**fixed(64, 96)))


@pytest.mark.parametrize("app", APPS.values(), ids=APPS)
def test_backend_and_device_exist_everywhere_and_mean_the_same(app: App) -> None:
    assert {"--backend", "--device", "--config", "--cfg-options"} <= names(app)
    page = invoke(app, "--help", env=WIDE).stdout
    assert page.index("Everyday options") < page.index("Engine") < page.index("Output") < page.index("About")


@pytest.mark.parametrize("app", APPS.values(), ids=APPS)
def test_every_option_is_explained_by_a_sentence(app: App) -> None:
    for argument in app.assemble_argument_collection(parse_docstring=True):
        help_text = argument.parameter.help or ""
        if argument.show:
            assert help_text[:1].isupper() or help_text[:1] in "'-", (argument.name, help_text)
            assert help_text.endswith("."), (argument.name, help_text)
            assert "\n" not in help_text.strip(), (argument.name, help_text)


def test_every_option_of_a_training_run_can_be_typed() -> None:
    typed = {one.field_info.name for one in train.app.assemble_argument_collection() if one.parse}
    assert {one.name for one in fields(TrainOptions)} - typed == {"overrides"}


@pytest.mark.parametrize(
    ("app", "typed", "meant"),
    [
        (export.app, "--calib-image", "--calib-images"),
        (export.app, "--chekpoint", "--checkpoint"),
        (evaluate.app, "--artefact", "--artifact"),
        (bench.app, "--latency-buget", "--latency-budget"),
        (train.app, "--iteration", "--iterations"),
    ],
)
def test_near_misses_are_suggested(app: App, typed: str, meant: str) -> None:
    required = ("--config", "x") if app is train.app else ()
    result = invoke(app, *required, typed, "x", env=WIDE)
    assert result.exit_code == ExitCode.USAGE and f"Did you mean {meant}?" in result.stderr


@pytest.mark.parametrize("text", ["ONNXRUNTIME", "OnnxRuntime"])
def test_values_are_read_in_any_case(artifact: Path, data: Path, text: str) -> None:
    assert invoke(evaluate.app, "--artifact", artifact, "--data", data, "--backend", text).exit_code == 0


def test_a_wrong_value_is_told_with_those_there_are() -> None:
    result = invoke(evaluate.app, "--backend", "tensorflow", env=WIDE)
    assert result.exit_code == ExitCode.USAGE
    assert all(backend.value in result.stderr for backend in Backend)


@pytest.mark.parametrize(("text", "gpu"), [("cpu", None), ("cuda", 0), ("CUDA:1", 1), ("cuda:12", 12)])
def test_devices_are_read(text: str, gpu: int | None) -> None:
    assert gpu_index(text) == gpu


@pytest.mark.parametrize("text", ["", "cuda:", "cuda:x", "cpu:0", "gpu", "tensorrt"])
def test_devices_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="cpu, cuda or cuda:N"):
        gpu_index(text)


def test_the_old_spellings_of_the_benchmark_still_work(artifact: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    old = invoke(bench.app, artifact, *QUICK, "--runtime", "onnxruntime,openvino", "--json", tmp_path / "old.json")
    new = invoke(bench.app, artifact, *QUICK, "--backend", "onnxruntime,openvino", "--json", tmp_path / "new.json")
    assert old.exit_code == new.exit_code == 0, old.output + new.output
    assert "--runtime onnxruntime,openvino is now written --backend onnxruntime,openvino" in " ".join(
        old.stderr.split()
    )
    found = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("old", "new")]
    assert [one["name"] for one in found[0]["candidates"]] == [one["name"] for one in found[1]["candidates"]]
    assert len(found[0]["candidates"]) == 2


def test_the_old_device_of_an_evaluation_still_works(artifact: Path, data: Path) -> None:
    result = invoke(evaluate.app, "--artifact", artifact, "--data", data, "--device", "tensorrt:1", env=WIDE)
    assert "--device tensorrt:1 is now written --device cuda:1 --provider tensorrt" in result.stderr
    assert result.exit_code == ExitCode.FAILED and "TensorrtExecutionProvider" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backend", "openvino", "--device", "cuda"), "OpenVINO runs on cpu"),
        (("--backend", "torch"), "--backend torch has nothing to run"),
        (("--backend", "trt"), "--backend trt has nothing to run: give it a .engine file"),
        (("--backend", "openvino", "--provider", "cuda"), "--provider is ONNX Runtime's"),
        (("--runtime", "onnxruntime", "--backend", "openvino"), "--runtime is the old spelling"),
        (("--cfg-options", "a=1"), "--cfg-options change a config"),
        (("--shape", "1000000x1000000"), "--shape takes at most 32768"),
        (("--batch", "99999999"), "--batch takes at most 4096"),
        (("--batch", "9" * 5000), "--batch takes at most 4096"),
        (("--threads", "100000"), "--threads takes at most 1024"),
        (("--streams", "100000"), "--streams takes at most 256"),
        (("--seconds", "nan"), "--seconds takes a finite number"),
        (("--min-agreement", "inf"), "--min-agreement takes a finite number"),
    ],
)
def test_what_the_benchmark_cannot_do_is_one_line(artifact: Path, arguments: tuple[str, ...], message: str) -> None:
    assert_one_error(invoke(bench.app, artifact, *arguments, env=WIDE), message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--threads", "100000"), "--threads takes at most 1024"),
        (("--batch", "99999999"), "--batch takes at most 4096"),
        (("--against", "x.onnx", "--max-drop", "nan"), "--max-drop takes points from 0: got nan"),
        (("--mode", "slide", "--crop", "1000000x1000000"), "--crop takes at most 32768"),
        (("--provider", "cuda", "--device", "cpu"), "the provider cuda runs on cuda or cuda:N, not 'cpu'"),
        (("--provider", "cpu", "--device", "cuda"), "the provider cpu runs on cpu, not 'cuda'"),
        (("--backend", "openvino", "--device", "cuda"), "OpenVINO runs on cpu"),
    ],
)
def test_what_an_evaluation_cannot_do_is_one_line(
    artifact: Path, data: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert_one_error(invoke(evaluate.app, "--artifact", artifact, "--data", data, *arguments, env=WIDE), message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--shape", "1000000x1000000"), "--shape takes at most 32768"),
        (("--batch", "99999999"), "--batch takes at most 4096"),
        (("--fp16", "--max-drop", "nan"), "--max-drop takes a finite number"),
        (("--tolerance", "inf"), "--tolerance takes a finite number"),
        (("--backend", "trt", "--device", "cpu"), "engines are built on cuda or cuda:N"),
        (("--device", "cuda"), "--device goes with --backend trt or trt-rtx"),
    ],
)
def test_what_an_export_cannot_do_is_one_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = invoke(export.app, "--config", "ffnet_seg_nano_scenes", "--out", tmp_path / "out", *arguments, env=WIDE)
    assert_one_error(result, message)
    assert not (tmp_path / "out").exists()


def test_the_data_of_another_label_set_is_refused(artifact: Path, data: Path) -> None:
    (data / "classes.txt").write_text("\n".join(f"thing{number} {number} 0 0" for number in range(11)) + "\n")
    result = invoke(evaluate.app, "--artifact", artifact, "--data", data, env=WIDE)
    assert_one_error(result, "are not the network's", "'thing0' in the data")


def test_the_limit_of_pixels_can_be_set(artifact: Path, data: Path) -> None:
    arguments = ("--artifact", artifact, "--data", data, "--max-pixels")
    assert_one_error(invoke(evaluate.app, *arguments, 1000), "million pixels")
    assert invoke(evaluate.app, *arguments, 10_000_000).exit_code == 0
    assert_one_error(invoke(evaluate.app, *arguments, 0), "--max-pixels takes a number from 1")


def test_a_published_checkpoint_alone_is_downloaded_anew() -> None:
    arguments = ("--config", "ffnet_seg_nano_scenes", "--refresh")
    assert_one_error(invoke(evaluate.app, *arguments, "--data", "d"), "--refresh downloads anew")
    assert_one_error(invoke(bench.app, *arguments), "--refresh downloads anew")
    assert_one_error(invoke(export.app, *arguments), "--refresh downloads anew")


def test_cfg_options_change_the_config_and_no_ops_are_said_to_be(tmp_path: Path) -> None:
    pytest.importorskip("mmseg")
    data = write_pairs(tmp_path / "data")
    idle = ("--cfg-options", "model.backbone.init_cfg.checkpoint=None", "model.test_cfg.mode=whole")
    network = ("--config", "ffnet_seg_nano_camvid", "--checkpoint", "random", *idle, "--limit", 1)
    result = invoke(evaluate.app, *network, "--data", data, "--json", tmp_path / "s.json", env=WIDE)
    assert result.exit_code == 0, result.output
    assert "init_cfg.checkpoint=None changes nothing" in " ".join(result.stderr.split())
    wrong = ("--cfg-options", "model.bakbone.depth=3")
    result = invoke(evaluate.app, "--config", "ffnet_seg_nano_camvid", "--checkpoint", "random", *wrong, "--data", data)
    assert_one_error(result, "no 'bakbone' there; nearest are backbone")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,2,3", [1, 2, 3]),
        ("a,b", ["a", "b"]),
        ("[a,b]", ["a", "b"]),
        ("(a,b)", ("a", "b")),
        ("[(1,2),(3,4)]", [(1, 2), (3, 4)]),
        ("true", True),
        ("None", None),
        ("1e-4", 1e-4),
        ("poly", "poly"),
    ],
)
def test_cfg_options_are_read_as_mmengine_reads_them(text: str, value: object) -> None:
    from ffnet_deploy.segmentor.overrides import parse_override

    assert parse_override(f"a.b={text}", "--cfg-options") == ("a.b", value)


def test_json_and_html_of_one_stem_lie_side_by_side(artifact: Path, data: Path, tmp_path: Path) -> None:
    scored = ("--artifact", artifact, "--data", data, "--json", tmp_path / "s.json", "--html", tmp_path / "s.html")
    timed = (artifact, *QUICK, "--json", tmp_path / "b.json", "--html", tmp_path / "b.html")
    for app, arguments, stem in ((evaluate.app, scored, "s"), (bench.app, timed, "b")):
        for _ in range(2):  # the second run replaces what the first wrote
            result = invoke(app, *arguments)
            assert result.exit_code == 0, result.output
        assert json.loads((tmp_path / f"{stem}.report.json").read_text())["kind"] == "ffnet-report"
    assert "mIoU" in json.loads((tmp_path / "s.json").read_text())
    assert json.loads((tmp_path / "b.json").read_text())["kind"] == "ffnet-bench"


def test_an_unreadable_image_is_skipped_counted_and_listed(artifact: Path, data: Path, tmp_path: Path) -> None:
    photos = data / "images/val"
    (photos / "scene_1.png").write_bytes((photos / "scene_1.png").read_bytes()[:200])
    outputs = ("--save-images", tmp_path / "out", "--json", tmp_path / "s.json")
    result = invoke(evaluate.app, "--artifact", artifact, "--images", photos, *outputs, env=WIDE)
    assert result.exit_code == ExitCode.SKIPPED == 5
    assert "1 images could not be read" in result.stderr and "scene_1.png" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scene_0.png", "scene_2.png"]
    written = json.loads((tmp_path / "s.json").read_text())
    assert written["images"] == 2 and len(written["skipped"]) == 1
    for path in photos.iterdir():
        path.write_bytes(b"no image")
    assert_one_error(invoke(evaluate.app, "--artifact", artifact, "--images", photos), "none of the 3 images")
    single = invoke(evaluate.app, "--artifact", artifact, "--images", photos / "scene_0.png")
    assert_one_error(single, "scene_0.png")


@pytest.mark.parametrize("option", ["--json", "--html", "--save-images"])
def test_an_output_onto_an_input_is_refused(artifact: Path, data: Path, option: str) -> None:
    before = {path: path.read_bytes() for path in data.rglob("*.png")} | {artifact: artifact.read_bytes()}
    targets = [data / "images/val", data] if option == "--save-images" else [artifact, data / "images/val/scene_0.png"]
    for target in targets:
        result = invoke(evaluate.app, "--artifact", artifact, "--images", data / "images/val", option, target)
        if target != data:  # a folder around the images may be written to
            assert result.exit_code != 0, result.output
    assert {path: path.read_bytes() for path in before} == before


def run(name: str, *arguments: object, **more: object) -> "subprocess.CompletedProcess[str]":
    program = f"from ffnet_deploy.cli.{name} import main; main()"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120, check=False, **more)  # type: ignore[call-overload, no-any-return]


def commands(artifact: Path, data: Path, folder: Path) -> dict[str, tuple[object, ...]]:
    scored = ("--artifact", artifact, "--data", data, "--threads", 1, "--json", folder / "evaluate.json")
    shares = (artifact, data / "images/val", "--threads", 1, "--csv", folder / "predict.csv")
    return {"evaluate": scored, "bench": (artifact, *QUICK, "--json", folder / "bench.json"), "predict": shares}


@pytest.mark.parametrize("name", ["evaluate", "bench", "predict"])
@pytest.mark.parametrize("output", ["closed", "pipe", "full"])
def test_results_are_in_their_file_when_standard_output_is_gone(
    artifact: Path, data: Path, tmp_path: Path, name: str, output: str
) -> None:
    arguments = commands(artifact, data, tmp_path)[name]
    if output == "closed":
        done = run(name, *arguments, preexec_fn=lambda: os.close(1))
    elif output == "pipe":
        reading, writing = os.pipe()
        os.close(reading)
        done = run(name, *arguments, stdout=writing)
        os.close(writing)
    else:
        with Path("/dev/full").open("w") as full:
            done = run(name, *arguments, stdout=full)
    assert done.returncode == (1 if output == "full" else ExitCode.OUTPUT_CLOSED)
    errors = [line for line in done.stderr.splitlines() if "..." not in line and not line.startswith("note:")]
    assert len(errors) <= 1 and "Traceback" not in done.stderr, done.stderr
    if name == "predict":
        assert len((tmp_path / "predict.csv").read_text().splitlines()) == 1 + 3
    else:
        assert json.loads((tmp_path / f"{name}.json").read_text())


@pytest.mark.parametrize("name", ["evaluate", "bench", "predict"])
def test_a_full_disk_is_one_line_and_leaves_nothing(artifact: Path, data: Path, tmp_path: Path, name: str) -> None:
    import resource

    (tmp_path / "out").mkdir()
    arguments = commands(artifact, data, tmp_path / "out")[name]
    limit = (resource.RLIMIT_FSIZE, (100, 100))
    done = run(name, *arguments, stdout=subprocess.DEVNULL, preexec_fn=lambda: resource.setrlimit(*limit))
    assert done.returncode == 1 and done.stderr.count("error:") == 1, done.stderr
    assert "no room left" in done.stderr and "Traceback" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["evaluate", "bench", "predict"])
def test_a_folder_that_cannot_be_written_is_one_line(artifact: Path, data: Path, tmp_path: Path, name: str) -> None:
    apps = {"evaluate": evaluate.app, "bench": bench.app, "predict": predict.app}
    with read_only(tmp_path / "out"):
        result = invoke(apps[name], *commands(artifact, data, tmp_path / "out")[name])
    assert result.exit_code == 1 and result.stderr.count("error:") == 1, result.stderr
    assert "cannot write" in result.stderr


@pytest.mark.parametrize("name", ["export", "evaluate", "predict", "bench", "train"])
def test_the_help_into_a_closed_pipe_ends_with_its_code_and_one_line(name: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run(name, "--help", stdout=writing)
    os.close(writing)
    assert done.returncode == ExitCode.OUTPUT_CLOSED == 141
    assert done.stderr == "error: standard output is closed; what files were asked for are written\n"


def test_what_is_scored_is_kept_when_the_next_artefact_cannot_be(artifact: Path, data: Path, tmp_path: Path) -> None:
    other = write_onnx(tmp_path / "other.onnx", contract(classes=("a", "b"), palette=((0, 0, 0),) * 2, **fixed(64, 96)))
    arguments = ("--artifact", artifact, "--against", other, "--data", data, "--json", tmp_path / "s.json")
    assert_one_error(invoke(evaluate.app, *arguments), "classes")
    assert "mIoU" in json.loads((tmp_path / "s.json").read_text())


def test_a_stage_is_a_line_where_no_bar_can_be_drawn(artifact: Path, data: Path) -> None:
    result = invoke(evaluate.app, "--artifact", artifact, "--data", data)
    assert [line for line in result.stderr.splitlines() if line.startswith("scoring with ONNX Runtime")]


def test_sigterm_ends_a_benchmark_with_its_samples_kept(artifact: Path, tmp_path: Path) -> None:
    program = "from ffnet_deploy.cli.bench import main; main()"
    command = [sys.executable, "-c", program, artifact, "--seconds", 600, "--threads", 1, "--rounds", 100000]
    command += ["--json", tmp_path / "run.json"]
    running = subprocess.Popen(
        [str(part) for part in command], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert running.stderr is not None
    while not running.stderr.readline().startswith("1x64x96"):
        assert running.poll() is None
    time.sleep(1)
    running.send_signal(signal.SIGTERM)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == ExitCode.TERMINATED, errors
    assert errors.count("error:") == 1 and json.loads((tmp_path / "run.json").read_text())["interrupted"]
