import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ffnet_deploy.cli.console import ExitCode
from ffnet_deploy.cli.evaluate import Mode, app, chosen_protocol, parse_size
from ffnet_deploy.core.contract import OutputKind, TestProtocol
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine
from ffnet_deploy.evaluation.datasets import open_dataset
from ffnet_deploy.evaluation.evaluate import evaluate
from tests.commands import Result, assert_one_error, invoke
from tests.toy import CAMVID, contract, fixed, write_onnx, write_pairs

pytest.importorskip("onnx")


def run(*arguments: object) -> Result:
    return invoke(app, *arguments, env={"COLUMNS": "200"})


def test_scores_are_printed_and_written(artifact: Path, data: Path, tmp_path: Path) -> None:
    result = run("--artifact", artifact, "--data", data, "--json", tmp_path / "out/scores.json")
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "out/scores.json").read_text())
    expected = evaluate(OnnxRuntimeEngine(artifact), open_dataset(data, "camvid"))
    assert written["mIoU"] == expected.scores.mean_iou
    assert f"mIoU {expected.scores.mean_iou:.2f}" in result.stdout
    assert all(name in result.stdout for name in CAMVID.classes)
    assert written["backend"] == "onnxruntime" and written["artifact"] == str(artifact)
    assert written["sources"] == {"checkpoint": "0" * 64}
    assert written["images"] == 3 and written["notes"] == []
    assert {"aAcc", "mAcc", "per_class", "protocol"} <= set(written)


def test_pictures_of_labelled_images_have_four_panels(artifact: Path, data: Path, tmp_path: Path) -> None:
    import cv2

    result = run("--artifact", artifact, "--data", data, "--limit", 2, "--save-images", tmp_path / "pictures")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["scene_0.png", "scene_1.png"]
    assert cv2.imread(str(tmp_path / "pictures/scene_0.png")).shape[1] == 4 * 332 + 12


@pytest.mark.parametrize("given", ["images/val", "images/val/scene_1.png"])
def test_images_without_labels_are_predicted(artifact: Path, data: Path, tmp_path: Path, given: str) -> None:
    result = run(
        "--artifact", artifact, "--images", data / given, "--save-images", tmp_path / "out", "--json", tmp_path / "j"
    )
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "out").iterdir())) == (3 if given == "images/val" else 1)
    assert "mIoU" not in json.loads((tmp_path / "j").read_text())


def test_scales_mirroring_and_windows_are_passed_on(artifact: Path, data: Path, tmp_path: Path) -> None:
    result = run(
        *("--artifact", artifact, "--data", data, "--multi-scale", "--flip", "--mode", "slide"),
        *("--crop", "64", "--stride", "32x48", "--limit", 1, "--json", tmp_path / "j"),
    )
    assert result.exit_code == 0, result.output
    protocol = json.loads((tmp_path / "j").read_text())["protocol"]
    assert protocol["ratios"] == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75] and protocol["flip"]
    assert (protocol["mode"], protocol["crop"], protocol["stride"]) == ("slide", [64, 64], [32, 48])


def test_a_deviation_from_the_protocol_is_shown_and_written(data: Path, tmp_path: Path) -> None:
    static = write_onnx(tmp_path / "static.onnx", contract(**fixed(64, 64)))
    result = run("--artifact", static, "--data", data, "--json", tmp_path / "j")
    assert result.exit_code == 0
    assert "note: images were stretched" in result.stderr
    assert len(json.loads((tmp_path / "j").read_text())["notes"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "d"], "either --artifact"),
        (["--artifact", "a", "--config", "c", "--data", "d"], "either --artifact"),
        (["--artifact", "a", "--checkpoint", "c", "--data", "d"], "--checkpoint goes with --config"),
        (["--artifact", "a", "--backend", "torch", "--data", "d"], "--backend torch needs --config"),
        (["--config", "a", "--backend", "onnxruntime", "--data", "d"], "--backend onnxruntime needs --artifact"),
        (["--artifact", "a"], "either --data"),
        (["--artifact", "a", "--data", "d", "--images", "i"], "either --data"),
        (["--artifact", "a", "--data", "d", "--limit", "0"], "--limit"),
        (["--artifact", "a", "--data", "d", "--threads", "-1"], "threads"),
        (["--artifact", "a", "--data", "d", "--batch", "0"], "batch of 0"),
        (["--artifact", "absent.onnx", "--data", "d"], "there is no artefact absent.onnx"),
    ],
)
def test_options_that_do_not_go_together_are_one_error(arguments: list[str], message: str) -> None:
    assert_one_error(run(*arguments), message)


@pytest.mark.parametrize(
    "arguments", [["--artefact", "x"], ["--mode", "tiles"], ["--limit", "many"], ["--backend", "tf"]]
)
def test_typing_errors_are_one_usage_error(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr or arguments[1] in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "minival"], "unknown split 'minival'"),
        (["--split", "train"], "has no folder train or training; found val"),
        (["--dataset", "coco"], "unknown data set 'coco'"),
        (["--crop", "64"], "add --mode slide"),
        (["--mode", "slide"], "needs --crop"),
        (["--mode", "slide", "--crop", "a lot"], "'a lot'"),
        (["--mode", "slide", "--crop", "320"], "do not fit the artefact"),
    ],
)
def test_options_that_the_data_or_network_cannot_meet_are_one_error(
    artifact: Path, data: Path, arguments: list[str], message: str
) -> None:
    assert_one_error(run("--artifact", artifact, "--data", data, *arguments), message)


def test_broken_data_leaves_no_scores(artifact: Path, data: Path, tmp_path: Path) -> None:
    (data / "images/val/scene_2.png").write_bytes(b"")
    result = run("--artifact", artifact, "--data", data, "--json", tmp_path / "out/scores.json")
    assert_one_error(result, "scene_2.png is empty")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_unwritable_result_is_noticed_before_the_work(artifact: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_one_error(
        run("--artifact", artifact, "--data", data, "--json", tmp_path / "file/scores.json"), "cannot write"
    )


def test_labels_only_artefacts_score_whole_images_alone(data: Path, tmp_path: Path) -> None:
    labels = write_onnx(tmp_path / "labels.onnx", contract(output=OutputKind.LABELS))
    assert run("--artifact", labels, "--data", data).exit_code == 0
    assert_one_error(run("--artifact", labels, "--data", data, "--flip"), "--output logits")


def test_ctrl_c_ends_with_one_line_and_code_130(artifact: Path, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "many", 1, size=(300, 400))
    for kind in ("images/val", "annotations/val"):
        for number in range(1, 400):
            (data / kind / f"scene_{number}.png").symlink_to(data / kind / "scene_0.png")
    command = [sys.executable, "-c", "from ffnet_deploy.cli.evaluate import main; main()"]
    command += ["--artifact", str(artifact), "--data", str(data), "--json", str(tmp_path / "out/scores.json")]
    command += ["--save-images", str(tmp_path / "pictures"), "--threads", "1"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ})
    deadline = time.monotonic() + 240
    while not list((tmp_path / "pictures").glob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 130
    assert "interrupted" in errors and "Traceback" not in errors
    assert list((tmp_path / "out").iterdir()) == []
    assert [path for path in (tmp_path / "pictures").iterdir() if path.suffix != ".png"] == []


def test_the_torch_backend_runs_the_configs_network(
    artifact: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import types

    asked = []

    class Recording:
        @classmethod
        def from_config(cls, config: str, checkpoint: str, device: str, *_: object) -> OnnxRuntimeEngine:
            asked.append((config, checkpoint, device))
            return OnnxRuntimeEngine(artifact)

    module = types.ModuleType("ffnet_deploy.engines.torch")
    module.TorchEngine = Recording
    monkeypatch.setitem(sys.modules, "ffnet_deploy.engines.torch", module)
    result = run("--config", "some", "--checkpoint", "some.pth", "--data", data, "--json", tmp_path / "j")
    assert result.exit_code == 0, result.output
    assert asked == [("some", "some.pth", "cpu")]
    written = json.loads((tmp_path / "j").read_text())
    assert (written["backend"], written["artifact"]) == ("torch", None)
    assert written["notes"] == []


def test_weights_are_asked_for_where_none_are_bundled(data: Path) -> None:
    pytest.importorskip("torch")
    assert "which weights?" in run("--config", "ffnet_seg_512_ade_160k", "--data", data).stderr


def test_images_alone_are_predicted_into_a_folder_of_their_own(
    artifact: Path, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("--artifact", artifact, "--images", data / "images" / "val")
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "predictions").glob("*.png"))) == len(list((data / "images" / "val").iterdir()))


def test_real_images_are_scored(shared_data: Path, artifact: Path, tmp_path: Path) -> None:
    result = run("--artifact", artifact, "--data", shared_data / "camvid", "--limit", 3, "--json", tmp_path / "j")
    assert result.exit_code == 0, result.output
    assert np.isfinite(json.loads((tmp_path / "j").read_text())["mIoU"])


@pytest.mark.parametrize(
    ("text", "size"), [("64", (64, 64)), ("64x128", (64, 128)), ("64,128", (64, 128)), (None, None)]
)
def test_sizes_are_read(text: str | None, size: tuple[int, int] | None) -> None:
    assert parse_size(text, "--crop") == size


@pytest.mark.parametrize("text", ["", "x64", "64x", "0", "64x0", "-3", "6.5"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="--crop takes"):
        parse_size(text, "--crop")


def test_the_networks_own_windows_are_kept_unless_changed() -> None:
    own = TestProtocol(mode="slide", crop=(512, 512), stride=(384, 384))
    assert chosen_protocol(own, None, None, None) == own
    assert chosen_protocol(own, None, (256, 256), None).stride == (171, 171)
    assert chosen_protocol(own, None, None, (100, 100)).stride == (100, 100)
    assert chosen_protocol(own, Mode.WHOLE, None, None).crop is None


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]


def in_one_process(artifact: Path, data: Path) -> list[str]:
    """The command that scores `artifact` by one thread, as a process of its own."""
    options = ["--artifact", str(artifact), "--data", str(data), "--threads", "1"]
    return [sys.executable, "-m", "ffnet_deploy.cli.evaluate", *options]


def test_processes_give_the_scores_of_one(artifact: Path, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", 5)
    command = in_one_process(artifact, data)
    calls = {
        "one.json": command,
        "pool.json": [*command, "--processes", "2"],
        "world.json": [*TORCHRUN, *command],
    }
    if importlib.util.find_spec("torch") is None:
        del calls["world.json"]
    found = {}
    for name, call in calls.items():
        done = subprocess.run([*call, "--json", str(tmp_path / name)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("mIoU") == 1, "one process alone tells the result"
        found[name] = json.loads((tmp_path / name).read_text())
    first = found["one.json"]
    assert all((one["per_class"], one["images"]) == (first["per_class"], 5) for one in found.values())


def confusions(state: Path) -> dict[str, tuple[list[int], list[int]]]:
    """Of each image, from all state files of an evaluation."""
    files = [state] if state.is_file() else sorted(state.parent.glob(f"{state.name}.*of*"))
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()[1:]]
    assert len({line["image"] for line in lines}) == len(lines), "no image counts twice"
    return {line["image"]: (line["cells"], line["counts"]) for line in lines}


@pytest.mark.slow
def test_101_images_have_the_same_confusion_however_they_are_shared(artifact: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    data = write_pairs(tmp_path / "data", 101, (240, 320))
    command = in_one_process(artifact, data)
    states = {name: tmp_path / f"{name}.jsonl" for name in ("one", "two", "three", "world", "interrupted")}

    def call(name: str, before: list[object], *after: object) -> list[str]:
        results = ("--resume", states[name], "--json", tmp_path / f"{name}.json")
        return [str(part) for part in (*before, *command, *results, *after)]

    interrupted = subprocess.Popen(call("interrupted", []), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not states["interrupted"].is_file() or len(states["interrupted"].read_bytes().splitlines()) < 51:
        time.sleep(0.002)
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.wait(60) == ExitCode.INTERRUPTED
    assert 50 <= len(confusions(states["interrupted"])) < 101
    calls = {
        "one": call("one", []),
        "two": call("two", [], "--processes", 2),
        "three": call("three", [], "--processes", 3),
        "world": call("world", TORCHRUN),
        "interrupted": call("interrupted", []),
    }
    for started in calls.values():
        done = subprocess.run(started, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    expected = confusions(states["one"])
    assert len(expected) == 101
    scores = [json.loads((tmp_path / f"{name}.json").read_text()) for name in states]
    assert all(confusions(state) == expected for state in states.values())
    assert all((one["per_class"], one["images"]) == (scores[0]["per_class"], 101) for one in scores)


def test_a_pool_opens_no_engine_in_its_parent(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the parent opened an engine")

    data = write_pairs(tmp_path / "data", 3)
    monkeypatch.setattr("ffnet_deploy.engines.onnxruntime.OnnxRuntimeEngine.__init__", refuse)
    result = run("--artifact", artifact, "--data", data, "--processes", 2, "--json", tmp_path / "scores.json")
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["images"] == 3 and written["engine"].startswith("ONNX Runtime")


def test_a_pool_whose_engines_cannot_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    data = write_pairs(tmp_path / "data", 3)
    result = run("--artifact", tmp_path / "broken.onnx", "--data", data, "--processes", 2)
    assert result.exit_code == 1 and result.stderr.count("error:") == 1 and "broken.onnx" in result.stderr


def test_resume_continues_and_goes_with_no_report(artifact: Path, tmp_path: Path) -> None:
    data, state = write_pairs(tmp_path / "data", 4), tmp_path / "state.jsonl"
    arguments = ("--artifact", artifact, "--data", data, "--resume", state)
    assert run(*arguments, "--limit", "2").exit_code == 0
    result = run(*arguments, "--json", tmp_path / "scores.json")
    assert result.exit_code == 0, result.output
    assert len(state.read_text().splitlines()) == 5
    assert json.loads((tmp_path / "scores.json").read_text())["images"] == 4
    refused = run(*arguments, "--html", tmp_path / "page.html")
    assert refused.exit_code != 0 and "--resume keeps scores and no predictions" in refused.stderr
