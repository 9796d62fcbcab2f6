"""``ffnet-export`` as a user types it."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest

from ffnet_deploy.artifacts.manifest import read_manifest
from ffnet_deploy.cli.evaluate import app as evaluate_app
from ffnet_deploy.cli.export import app
from ffnet_deploy.cli.export_options import default_shape
from ffnet_deploy.cli.options import parse_batch, parse_shape
from ffnet_deploy.core.contract import DimensionRange
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.precision import TypingOptions, assign_types
from ffnet_deploy.segmentor.config import load_config
from scenes import SceneOptions
from scenes.dataset import write_scenes
from tests.calib.networks import images, network
from tests.commands import Result, invoke
from tests.disks import largest_file, read_only
from tests.tiny import write_checkpoint, write_config
from tests.toy import contract, write_onnx


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_checkpoint(tmp_path_factory.mktemp("tiny"), "tiny_seg")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, "val", 3, 7, SceneOptions(height=96, width=160))
    return root


def run(*arguments: object) -> Result:
    return invoke(app, *arguments)


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_export_then_evaluate_gives_the_same_miou_as_pytorch(
    files: tuple[Path, Path], scenes: Path, tmp_path: Path
) -> None:
    config, checkpoint = files
    weights = ("--config", config, "--checkpoint", checkpoint)
    result = run(*weights, "--shape", "64x96", "--dynamic", "--data", scenes, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    artifact = tmp_path / "tiny_seg.onnx"
    record = read_manifest(artifact)["verification"]["mIoU"]
    assert abs(record["reference"] - record["candidate"]) < 0.01, record
    scores = []
    for source in (("--artifact", artifact), weights):
        arguments = [*source, "--data", scenes, "--json", tmp_path / "scores.json"]
        done = invoke(evaluate_app, *arguments)
        assert done.exit_code == 0, done.output
        scores.append(json.loads((tmp_path / "scores.json").read_text())["mIoU"])
    assert abs(scores[0] - scores[1]) < 0.01, scores


def test_rewrites_are_named_with_their_proof(files: tuple[Path, Path], tmp_path: Path) -> None:
    config, checkpoint = files
    arguments = ("--config", config, "--checkpoint", checkpoint, "--shape", "64x96", "--output", "labels")
    result = run(*arguments, "--rewrite", "squeeze-first,matrix-resize,phase-labels", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "rewrites: squeeze-first, matrix-resize, phase-labels (asked for)" in flat(result.output)
    first, second, labels = read_manifest(tmp_path / "tiny_seg.onnx")["rewrites"]
    assert (first["name"], first["places"]) == ("squeeze-first", ["decode_head.squeeze.0"])
    assert first["macs_after"] < first["macs_before"]
    assert second["macs_before"] == first["macs_after"]
    assert max(first["float64_error"], second["float64_error"]) < 1e-12
    assert labels["float64_error"] == 0


def test_a_graph_for_cpus_has_the_rewrites_that_are_fast_there(
    files: tuple[Path, Path], scenes: Path, tmp_path: Path
) -> None:
    images = scenes / "images" / "val"
    arguments = ("--config", files[0], "--checkpoint", files[1], "--shape", "64x96", "--calib-images", images)
    result = run(*arguments, "--int8", "--target", "cpu", "--calib-count", 2, "--min-agreement", 0, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert re.search(r"rewrites: .*squeeze-first.* \(best of \d for onnxruntime", flat(result.output))
    manifest = read_manifest(tmp_path / "tiny_seg.int8-cpu.onnx")
    assert manifest["precision"]["quantization"]["left_unquantized"] == {}


def test_fp16_graph_comes_with_its_grounds_and_scores(files: tuple[Path, Path], scenes: Path, tmp_path: Path) -> None:
    config, checkpoint = files
    arguments = ("--config", config, "--checkpoint", checkpoint, "--shape", "64x96", "--data", scenes)
    gate = ("--fp16", "--min-agreement", "90", "--max-drop", "5", "--out", tmp_path / "own.onnx")
    result = run(*arguments, *gate)
    assert result.exit_code == 0, result.output
    assert "as far as the images seen allow" in flat(result.output)
    assert re.search(r"mIoU on 3 images: PyTorch [\d.]+, fp16 [\d.]+", flat(result.output))
    files_left = sorted(path.name for path in tmp_path.iterdir())
    assert files_left == ["own.fp16.onnx", "own.fp16.onnx.json", "own.onnx", "own.onnx.json"]
    refused = run(*arguments, "--fp16", "--min-agreement", "100", "--out", tmp_path / "strict.onnx")
    assert refused.exit_code == 1, refused.output
    assert "costs more than the gate allows" in flat(refused.output)
    assert not (tmp_path / "strict.fp16.onnx").exists()
    assert (tmp_path / "strict.fp16.rejected" / "verification.json").is_file()


def test_console_script_writes_a_graph(files: tuple[Path, Path], tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("ffnet-export")
    command = [script, "--config", files[0], "--checkpoint", files[1], "--shape", "64", "--out", tmp_path / "own.onnx"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "verified within" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.onnx", "own.onnx.json"]
    assert "Warning" not in done.stderr
    named = [script, "--config", "ffnet_seg_nano_scenes", "--batch", "99999999"]
    refused = subprocess.run(list(map(str, named)), capture_output=True, text=True, check=False)
    assert refused.stderr.startswith("error: --batch takes at most"), refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config", "ffnet_seg_512_ad_160k"), "nearest ffnet_seg_512_ade_160k"),
        (("--config", "nowhere.py"), "no config file nowhere.py"),
        (("--config", "ffnet_seg_512_ade_160k"), "--checkpoint published"),
        (("--config", "ffnet_seg_512_ade_160k", "--checkpoint", "nowhere.pth"), "no checkpoint file nowhere.pth"),
        (("--config", "{tiny}", "--shape", "500x512"), "the nearest are 480 and 512"),
        (("--config", "{tiny}", "--shape", "512x"), "HEIGHTxWIDTH"),
        (("--config", "{tiny}", "--shape", "512:256:1024"), "must rise"),
        (("--config", "{tiny}", "--batch", "0"), "number from 1"),
        (("--config", "{tiny}", "--opset", "13"), "opset must be 17 to 20"),
        (("--config", "{tiny}", "--data", "nowhere"), "nowhere"),
        (("--config", "{tiny}", "--images", "nowhere"), "nowhere does not exist"),
        (("--config", "{tiny}", "--images", "a", "--data", "b"), "not both"),
        (("--config", "{tiny}", "--tolerance", "-1"), "must not be negative"),
        (("--config", "{tiny}", "--checkpoint", "bundled"), "no checkpoint is bundled"),
        (("--config", "{tiny}", "--checkpoint", "published"), "no checkpoint was published"),
        (("--config", "{tiny}", "--fp16", "--int8"), "needs images to calibrate on"),
        (("--config", "{tiny}", "--fp16", "--bf16", "--int8-base", "fp32"), "--int8-base goes with --int8"),
        (("--config", "{tiny}", "--int8"), "needs images to calibrate on"),
        (("--config", "{tiny}", "--int8", "--calib-images", "a", "--calib-method", "max"), "one of minmax, percentile"),
        (("--config", "{tiny}", "--fp16", "--calib-images", "a", "--ranges", "b"), "--calib-images and --ranges go"),
        (("--config", "{tiny}", "--max-drop", "1"), "--max-drop goes with --fp16, --bf16, --int8"),
        (("--config", "{tiny}", "--fp16", "--max-drop", "-1"), "must not be negative"),
        (
            ("--config", "{tiny}", "--int8", "--calib-images", "a", "--search-budget", "1"),
            "--search-budget goes with --mixed",
        ),
        (("--config", "{tiny}", "--rewrite", "fewer"), "--rewrite takes auto, none, or of squeeze-first"),
        (("--config", "{tiny}", "--fp16", "--keep", "a"), "--keep goes with --int8"),
        (("--config", "{tiny}", "--fp16", "--int8-base", "fp32"), "--int8-base goes with --int8"),
    ],
)
def test_bad_input_is_one_clear_error(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    tiny = str(write_config(tmp_path, "tiny_seg"))
    result = run(*(argument.format(tiny=tiny) for argument in arguments), "--out", tmp_path / "out")
    assert result.exit_code == 1, result.output
    assert message in flat(result.output)
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_quantised_graphs_by_the_command_line(files: tuple[Path, Path], tmp_path: Path) -> None:
    write_scenes(tmp_path / "data", "train", 4, 7, SceneOptions(height=96, width=160))
    (tmp_path / "list.txt").write_text("* 3\n")
    shared = ("--config", files[0], "--checkpoint", files[1], "--shape", "64x96", "--out", tmp_path / "out")
    loose = ("--calib-images", tmp_path / "data", "--min-agreement", "0", "--max-drop", "100")
    kept = "/decode_head/head_blocks/head_blocks.0/channel_mixer"
    ranges = ("--calib-count", "2", "--calib-list", tmp_path / "list.txt", "--ranges", tmp_path / "ranges.json")
    result = run(*shared, *loose, *ranges, "--int8", "--keep", kept, "--calib-method", "minmax")
    assert result.exit_code == 0, result.output
    precision = read_manifest(tmp_path / "out" / "tiny_seg.int8.onnx")["precision"]
    assert precision["quantization"]["images"] == 2
    assert precision["quantization"]["method"].startswith("minmax")
    assert precision["quantization"]["convolutions"]["kept"] and not any(
        name.startswith(kept) for name in precision["quantized"]
    )
    assert (tmp_path / "ranges.json").is_file()
    state = tmp_path / "search.json"
    result = run(*shared, *loose, "--calib-count", "2", "--mixed", "--search-state", state, "--search-budget", "5")
    assert result.exit_code == 0, result.output
    assert "most costly of" in flat(result.output)
    search = read_manifest(tmp_path / "out" / "tiny_seg.mixed.onnx")["precision"]["quantization"]["search"]
    assert search["finished"] and len(json.loads(state.read_text())["sensitivity"]) == len(search["sensitivity"])
    result = run(*shared, *loose, "--fp8", "--keep", "nowhere")
    assert result.exit_code == 1 and "no convolution is, or is in, 'nowhere'" in flat(result.output)


def test_the_packaged_configs_are_listed() -> None:
    from ffnet_deploy.segmentor.config import config_names
    from ffnet_deploy.segmentor.zoo import PUBLISHED, SCORES

    result = invoke(app, "--list", env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    for name in config_names():
        (line,) = [line for line in result.stdout.splitlines() if f" {name} " in line]
        assert name not in PUBLISHED or (f"{SCORES[name].miou:g}" in line and "published" in line)
    assert set(PUBLISHED) < set(SCORES)
    for name in set(SCORES) - set(PUBLISHED):
        card = Path("ffnet_deploy/segmentor/checkpoints") / f"{name}.md"
        assert f"{SCORES[name].miou:.2f}" in (Path(__file__).parents[2] / card).read_text()


def test_names_of_images_keep_their_tails() -> None:
    from ffnet_deploy.cli.export_tables import shortened

    long = "frankfurt/frankfurt_000000_000294_leftImg8bit_and_more"
    assert len(shortened(long)) == 40 and shortened(long).endswith("leftImg8bit_and_more")
    assert shortened("a.png") == "a.png"


def test_shapes_and_batches_as_typed() -> None:
    assert parse_shape("512", dynamic=False) == (DimensionRange.fixed(512), DimensionRange.fixed(512))
    assert parse_shape("256x512", dynamic=True) == (DimensionRange(32, 256, 4096), DimensionRange(32, 512, 4096))
    assert parse_shape("32x64:64x96:128x160", dynamic=False) == (
        DimensionRange(32, 64, 128),
        DimensionRange(64, 96, 160),
    )
    assert parse_batch("2", dynamic=False) == DimensionRange.fixed(2)
    assert parse_batch("1:4:8", dynamic=True) == DimensionRange(1, 4, 8)
    with pytest.raises(OptionError):
        parse_batch("1:8", dynamic=False)


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ("ffnet_seg_512_ade_160k", "512x512"),
        ("ffnet_seg_1024_city_160k", "1024x1024"),
        ("ffnet_seg_nano_camvid", "384x480"),
        ("ffnet_seg_nano_scenes", "288x576"),
    ],
)
def test_default_shape_is_what_the_protocol_shows_the_network(config: str, shape: str) -> None:
    assert default_shape(load_config(config).protocol) == shape


def test_random_weights_are_announced(tmp_path: Path) -> None:
    config = write_config(tmp_path, "tiny_seg")
    written = []
    for name in ("a", "b"):
        random = ("--config", config, "--checkpoint", "random", "--shape", "64", "--out", tmp_path / name)
        result = run(*random, "--fp16", "--bf16")
        assert result.exit_code == 0, result.output
        assert "the weights are random" in flat(result.output)
        assert "numerical error is judged in place of labels" in flat(result.output)
        written.append([(tmp_path / name / f"tiny_seg{part}.onnx").read_bytes() for part in ("", ".fp16", ".bf16")])
    assert written[0] == written[1], "the same weights each time"
    gates = [read_manifest(tmp_path / "a" / f"tiny_seg{part}.onnx") for part in ("", ".fp16")]
    assert [one["verification"]["tolerance"]["agreement"] for one in gates] == [0, 0]
    assert [one["verification"]["tolerance"]["relative"] for one in gates] == [1e-4, 0.05]


def test_sigterm_leaves_nothing_half_written(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = Path(sys.executable).with_name("ffnet-export")
    command = [script, "--config", files[0], "--checkpoint", files[1], "--shape", "512", "--out", out]
    running = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not any(out.glob(".tiny_seg.*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.terminate()
    _, message = running.communicate(timeout=120)
    assert running.returncode == 143, message
    assert "terminated" in message
    assert list(out.iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(files: tuple[Path, Path], tmp_path: Path) -> None:
    with largest_file(20_000):
        result = run("--config", files[0], "--checkpoint", files[1], "--shape", "64", "--out", tmp_path / "out")
    assert result.exit_code == 1 and result.stderr.count("error:") == 1, result.output
    assert "no room left to write" in result.stderr and "to do" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_line(files: tuple[Path, Path], tmp_path: Path) -> None:
    with read_only(tmp_path / "out"):
        result = run("--config", files[0], "--checkpoint", files[1], "--shape", "64", "--out", tmp_path / "out")
    assert result.exit_code == 1 and result.stderr.count("error:") == 1, result.output
    assert "cannot write" in result.stderr and "to do" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_two_precisions_in_one_run_share_the_export(files: tuple[Path, Path], scenes: Path, tmp_path: Path) -> None:
    shared = ("--config", files[0], "--checkpoint", files[1], "--shape", "64x96", "--data", scenes)
    loose = ("--min-agreement", "0", "--max-drop", "100", "--calib-images", scenes / "images", "--calib-count", "2")
    result = run(*shared, *loose, "--fp16", "--int8", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    names = [f"tiny_seg{part}.onnx{suffix}" for part in ("", ".fp16", ".int8") for suffix in ("", ".json")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    assert flat(result.output).count("re-parameterisation:") == 1
    manifests = [read_manifest(tmp_path / "out" / f"tiny_seg{part}.onnx") for part in ("", ".fp16", ".int8")]
    assert len({manifest["verification"]["mIoU"]["reference"] for manifest in manifests}) == 1
    assert {manifest["precision"]["source"]["sha256"] for manifest in manifests[1:]} == {manifests[0]["sha256"]}


WITHOUT_PYTORCH = """
import sys
for name in ("torch", "mmseg", "mmengine", "mmcv", "onnxslim"):
    sys.modules[name] = None  # as if it were not installed
from ffnet_deploy.cli.export import main
main()
"""


def test_a_given_graph_is_reduced_and_verified_against_itself_without_pytorch(
    files: tuple[Path, Path], scenes: Path, tmp_path: Path
) -> None:
    whole = ("--config", files[0], "--checkpoint", files[1], "--shape", "64x96", "--out", tmp_path)
    assert run(*whole).exit_code == 0
    graph, before = tmp_path / "tiny_seg.onnx", (tmp_path / "tiny_seg.onnx").read_bytes()
    loose = ("--min-agreement", "50", "--max-drop", "100", "--calib-images", scenes / "images", "--calib-count", "2")
    options = ("--onnx", graph, "--fp16", "--int8", *loose, "--data", scenes, "--out", tmp_path / "low")
    command = [sys.executable, "-c", WITHOUT_PYTORCH, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("fp16", "int8"):
        manifest = read_manifest(tmp_path / "low" / f"tiny_seg.{name}.onnx")
        assert manifest["verification"]["reference"].startswith("ONNX Runtime") and manifest["verification"]["passed"]
        assert manifest["precision"]["precision"] == name and manifest["verification"]["mIoU"]["images"] == 3
    assert graph.read_bytes() == before
    again = run("--onnx", tmp_path / "low" / "tiny_seg.fp16.onnx", "--int8", *loose[4:])
    assert again.exit_code == 1 and "is in fp16 already" in flat(again.output)
    onto = run("--onnx", graph, "--fp16", "--out", graph)
    assert onto.exit_code == 1 and "is an input of this command" in flat(onto.output)
    assert graph.read_bytes() == before


def test_layers_are_compared_with_the_fp32_graph(tmp_path: Path) -> None:
    graph, reference = tmp_path / "fp16.onnx", tmp_path / "fp32.onnx"
    onnx.save(network(), reference)
    onnx.save(assign_types(network(), TypingOptions(), images(1)).model, graph)
    result = run("--onnx", graph, "--compare-layers", reference)
    assert result.exit_code == 0 and "differs from its FP32 graph by more than 0.05" in flat(result.output)
    assert f"polygraphy run {graph} --trt --onnxrt" in flat(result.output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--compare-layers", "fp32.onnx"), "--compare-layers goes with --onnx"),
        (("--onnx", "toy.onnx", "--compare-layers", "fp32.onnx", "--fp16"), "--compare-layers goes with --onnx"),
        (("--onnx", "toy.onnx", "--refit-engine", "a.engine"), "--refit-engine goes with --onnx"),
        (("--onnx", "toy.onnx", "--refit-engine", "a.engine", "--out", "folder"), "a file that ends in .engine"),
        (("--onnx", "toy.onnx", "--export-layers", "layers.json"), "--export-layers goes with --backend"),
        (("--onnx", "toy.onnx", "--io", "fp16", "--triton", "folder"), "--io goes with --fp16"),
    ],
)
def test_what_does_not_go_together_is_said_at_once(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_onnx(tmp_path / "toy.onnx", contract())
    result = run(*arguments)
    assert result.exit_code == 1 and message in flat(result.output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy.onnx", "toy.onnx.json"]
