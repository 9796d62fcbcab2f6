"""Outputs onto inputs: every pair of the options that the commands declare is refused, and the input stays."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ffnet_deploy.benchmark.files import write_run
from ffnet_deploy.benchmark.profiling import TimedLayer, TimedLayers, profile
from ffnet_deploy.benchmark.record import Peaks
from ffnet_deploy.cli import bench, evaluate, export, predict, train
from ffnet_deploy.segmentor import __file__ as segmentor
from tests.benchmark.runs import make_run
from tests.commands import invoke
from tests.toy import CAMVID, contract, fixed, write_onnx, write_pairs

pytest.importorskip("onnx")
APPS = {
    "export": export.app,
    "eval": evaluate.app,
    "predict": predict.app,
    "bench": bench.app,
    "train": train.app,
}
NANO = "ffnet_seg_nano_scenes"

OUTPUTS = {
    "export": (
        *("--out", "--triton", "--ranges", "--search-state", "--timing-cache", "--deepstream", "--export-layers"),
    ),
    "eval": (*("--json", "--html", "--save-images", "--save-labels", "--save-scores", "--resume", "--engine-cache"),),
    "predict": (
        *("--csv", "--save-images", "--save-labels", "--save-scores", "--save-video", "--save-raster"),
        "--engine-cache",
    ),
    "bench": ("--json", "--html"),
    "train": ("--work-dir",),
}
"""The options that say where a command writes; every other one that takes a path says what it reads."""
NAMING = ("--config", "--checkpoint", "--load", "--timing-cache", "--network", "--source")
"""Options that take the path of a file or some word."""
SUFFIXES = {"--html": ".html", "--out": ".onnx", "--save-video": ".mp4", "--save-raster": ".tif"}
INPUTS = {
    "ARTIFACTS": "toy.onnx",
    "--artifact": "toy.onnx",
    "--against": "other.onnx",
    "--onnx": "toy.onnx",
    "--network": "toy.onnx",
    "--source": "data/images/val",
    "--config": f"configs/{NANO}.py",
    "--checkpoint": "nano.safetensors",
    "--load": "nano.safetensors",
    "--data": "data",
    "--images": "data/images/val",
    "--calib-images": "data/images/val",
    "--calib-list": "list.txt",
    "--classes": "data/classes.txt",
    "--image": "data/images/val/scene_0.png",
    "--compare": "bench.json",
    "--bench": "bench.json",
    "--work-dir": "run",
    "--layer-timings": "timings.json",
    "--compare-layers": "other.onnx",
    "--refit-engine": "other.onnx",
}
SOURCE = {
    "export": "--onnx",
    "eval": "--artifact",
    "predict": "--network",
    "bench": "ARTIFACTS",
    "train": "--config",
}
MIXED = ("--mixed", "--calib-images")
NEEDED = {
    "--checkpoint": ("--config",),
    "--classes": ("--data",),
    "--calib-images": MIXED,
    "--calib-list": MIXED,
    "--layer-timings": MIXED,
    "--ranges": MIXED,
    "--search-state": MIXED,
    "--out": MIXED,
    "--timing-cache": ("--backend",),
    "--export-layers": ("--backend",),
    "--bench": ("--html",),
    "--engine-cache": ("--provider",),
}
"""What options ask for beside them."""
WORDS = {"--backend": "trt", "--provider": "tensorrt", "--html": "new.html"}

APART = (
    "keeps scores and no predictions",
    "--provider is ONNX Runtime's",
    "--compare-layers goes with",
    "--refit-engine goes with",
)
"""Words that refuse options which do not go together at all."""


def inputs(command: str) -> list[str]:
    """The options, or arguments, that say what `command` reads, as it declares them."""
    declared = [
        argument.names[0]
        for argument in APPS[command].assemble_argument_collection()
        if "Path" in str(argument.hint) or argument.names[0] in NAMING
    ]
    assert set(OUTPUTS[command]) <= set(declared)
    return [option for option in declared if option not in OUTPUTS[command]]


PAIRS = [(command, output, read) for command in APPS for output in OUTPUTS[command] for read in inputs(command)]


def inputs_beside(output: str, read: str) -> dict[str, str]:
    """`INPUTS` of a command that writes `output` and reads `read`."""
    named = dict(INPUTS)
    if output == "--save-video":
        named["--source"] = "film.mp4"
    if read == "--checkpoint":
        named["--network"] = named["--config"]
    return named


def command_line(command: str, output: str, target: Path, read: str) -> list[object]:
    """Arguments by which `command` reads what `read` names and writes `output` to `target`."""
    source = "--config" if read in NAMING and command != "predict" else SOURCE[command]
    needed = NEEDED.get(read, ()) if command != "predict" else ("--source",)
    options = {source, read, output, *needed, *NEEDED.get(output, ())}
    if command == "export" and read in ("--data", "--images", "--classes"):
        options.update(MIXED)
    if command == "eval" and "--data" not in options:
        options.add("--images")
    if command == "eval" and read == "--work-dir":
        options.add("--html")
    line: list[object] = []
    for option in sorted(options):
        value = target if option == output else WORDS.get(option) or inputs_beside(output, read).get(option)
        line += [part for part in (option, value) if part is not None and part != "ARTIFACTS"]
    return line


def write_run_with_profiles(path: Path) -> None:
    """A run of the benchmark that has a profile of a quantised engine and of another."""
    layers = TimedLayers("a profiler", 10, [TimedLayer("/b/Conv", "Conv", 1.0)])
    run = make_run()
    candidates = tuple(replace(one, precision=kind) for one, kind in zip(run.candidates, ("fp16", "int8"), strict=True))
    profiled = tuple(replace(one, profile=profile(layers, Peaks(1e12, 1e11, "x"))) for one in run.measurements)
    write_run(path, replace(run, candidates=candidates, measurements=profiled))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all `INPUTS`."""
    folder = tmp_path_factory.mktemp("files")
    write_onnx(folder / "toy.onnx", contract(**fixed(64, 96)))
    write_onnx(folder / "other.onnx", contract(**fixed(64, 96)))
    package = Path(segmentor).parents[1]
    shutil.copytree(package / "configs", folder / "configs")
    shutil.copy(package / "segmentor" / "checkpoints" / f"{NANO}.safetensors", folder / "nano.safetensors")
    write_pairs(folder / "data")
    (folder / "data" / "classes.txt").write_text("".join(f"{name} 1 2 3\n" for name in CAMVID.classes))
    (folder / "list.txt").write_text("scene_*\n")
    (folder / "film.mp4").write_bytes(b"a film")
    (folder / "run" / "20260101_000000" / "vis_data").mkdir(parents=True)
    (folder / "run" / "20260101_000000" / "vis_data" / "scalars.json").write_text('{"loss": 1.0, "step": 1}\n')
    write_run(folder / "bench.json", make_run())
    write_run_with_profiles(folder / "timings.json")
    return folder


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("command", "output", "read"), PAIRS, ids=map("-".join, PAIRS))
def test_no_output_goes_onto_an_input(
    command: str, output: str, read: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    target = source = Path(inputs_beside(output, read)[read])
    if output in SUFFIXES:  # the same under a name that the option takes
        target = Path(f"alias{SUFFIXES[output]}")
        target.unlink(missing_ok=True)
        target.symlink_to(source)
    before = content(folder)
    result = invoke(APPS[command], *command_line(command, output, target, read))
    assert result.exit_code == 1, result.output
    reasons = ("is an input of this command", f"{target}: it is a folder", *APART)
    assert any(reason in result.stderr for reason in reasons), result.stderr
    assert content(folder) == before


def test_a_run_does_not_replace_the_config_that_it_reads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    write_pairs(folder / "labelled", split="train")
    write_pairs(folder / "labelled")
    before = content(folder)
    line = ("--config", INPUTS["--config"], "--data", "labelled", "--classes", INPUTS["--classes"])
    result = invoke(train.app, *line, "--work-dir", "configs")
    assert result.exit_code == 1 and "is an input of this command" in result.stderr, result.output
    assert content(folder) == before


def test_a_model_that_holds_the_graph_is_not_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("models/toy/1").mkdir(parents=True)
    shutil.copy("toy.onnx", "models/toy/1/toy.onnx")
    before = content(folder)
    result = invoke(export.app, "--onnx", "models/toy/1/toy.onnx", "--triton", "models")
    assert result.exit_code == 1 and "is replaced as a whole" in result.stderr, result.output
    assert content(folder) == before


def test_a_script_of_ones_own_in_the_place_of_the_sample_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("new.sample.py").write_text("print('mine')")
    result = invoke(export.app, "--onnx", "toy.onnx", "--fp16", "--sample", "--out", "new.onnx")
    assert result.exit_code == 1 and "is not a script that ffnet-export wrote" in result.stderr, result.output
    assert Path("new.sample.py").read_text() == "print('mine')"


def test_a_video_of_ones_own_is_not_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("predictions").mkdir(exist_ok=True)
    Path("predictions/film.mp4").write_bytes(b"another film")
    result = invoke(predict.app, "toy.onnx", "film.mp4")
    assert result.exit_code == 1 and "is not a video of ffnet-predict" in result.stderr, result.output
    assert Path("predictions/film.mp4").read_bytes() == b"another film"


def test_a_file_in_the_place_of_a_manifest_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("new.onnx.json").write_text('{"mine": 1}')
    result = invoke(export.app, "--onnx", "toy.onnx", "--fp16", "--out", "new.onnx")
    assert result.exit_code == 1 and "is not the manifest" in result.stderr, result.output
    assert Path("new.onnx.json").read_text() == '{"mine": 1}'
