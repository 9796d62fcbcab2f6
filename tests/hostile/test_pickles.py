"""A pickle that runs code, planted in every file that a command reads: it is refused, and nothing runs."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

pytest.importorskip("mmseg")
import torch

from ffnet_deploy.artifacts.manifest import manifest_path
from ffnet_deploy.cli.bench import app as bench_app
from ffnet_deploy.cli.evaluate import app as eval_app
from ffnet_deploy.cli.export import app as export_app
from ffnet_deploy.cli.train import app as train_app
from tests.commands import invoke
from tests.hostile.kinds import MARKER, Hostile
from tests.tiny import write_config
from tests.toy import contract, fixed, picture, write_onnx
from tests.training.tiny import write_data

OWN: dict[str, Any] = {
    "dataset": "custom",
    "classes": ("ground", "box", "sky"),
    "palette": ((90, 90, 90), (200, 40, 40), (90, 160, 220)),
}
"""The classes of the small data set."""
APPS = {"export": export_app, "eval": eval_app, "bench": bench_app, "train": train_app}
TRAIN = "train --config ffnet_seg_nano_camvid --data {train} --work-dir {at}/run --iterations 1 --batch 1 --workers 0"
INT8 = "export --onnx {onnx} --int8 --out {at}/out"

NAMED = {
    "--resume of a training": "found 1 damaged ones",
    "external weights": "External initializer: kernel",
}
"""What the error says where it does not name the file."""
READ = {
    # the planted file (relative to the test's folder): the command that reads it
    "checkpoint .pth": ("bad.pth", "export --config {config} --checkpoint {bad} --out {at}/out"),
    "checkpoint .pth.tar": ("bad.pth.tar", "eval --config {config} --checkpoint {bad} --images {images}"),
    "checkpoint .safetensors": ("bad.safetensors", "bench --config {config} --checkpoint {bad}"),
    "--load": ("bad.pth", TRAIN + " --load {bad}"),
    "--resume of a training": ("run/iter_1.pth", TRAIN + " --resume"),
    "--classes": ("classes.txt", TRAIN + " --classes {bad}"),
    "classes.txt of the data": ("train/classes.txt", TRAIN),
    "--ranges": ("bad.json", INT8 + " --calib-images {images} --ranges {bad}"),
    "--calib-list": ("list.txt", INT8 + " --calib-images {images} --calib-list {bad}"),
    "--search-state": ("bad.json", INT8 + " --mixed --data {train} --calib-images {images} --search-state {bad}"),
    "--layer-timings": ("bad.json", INT8 + " --mixed --data {train} --calib-images {images} --layer-timings {bad}"),
    "--timing-cache": ("bad.cache", "export --onnx {onnx} --backend trt --timing-cache {bad} --out {at}/out"),
    "--bench": ("bad.json", "eval --artifact {onnx} --images {images} --html {at}/r.html --bench {bad}"),
    "--compare": ("bad.json", "bench {onnx} --rounds 1 --compare {bad}"),
    "--resume of an evaluation": ("bad.state", "eval --artifact {onnx} --data {train} --resume {bad}"),
    "graph of an evaluation": ("bad.onnx", "eval --artifact {bad} --images {images}"),
    "graph of a benchmark": ("bad.onnx", "bench {bad}"),
    "graph of an export": ("bad.onnx", "export --onnx {bad} --fp16 --out {at}/out"),
    "external weights": ("toy.onnx.data", "eval --artifact {external} --images {images}"),
    "manifest": ("toy.onnx.json", "eval --artifact {onnx} --images {images}"),
    "engine": ("bad.engine", "eval --artifact {bad} --images {images}"),
    "engine of RTX": ("bad.rtx.engine", "bench {bad}"),
    "image": ("bad.png", "eval --artifact {onnx} --images {bad}"),
    "label map": ("train/annotations/val/100.png", "eval --artifact {onnx} --data {train}"),
    "image list of YAML": ("data.yaml", "eval --artifact {onnx} --data {bad}"),
    "COCO document": ("coco.json", "eval --artifact {onnx} --data {bad}"),
}


@pytest.fixture
def places(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Sound files in a folder, for one of them to be replaced."""
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), picture(64, 96))
    (tmp_path / "train").mkdir()
    onnx = write_onnx(tmp_path / "toy.onnx", contract(**OWN, **fixed(64, 96)))
    yield {
        "at": tmp_path,
        "images": tmp_path / "images",
        "train": write_data(tmp_path / "train", train=2, val=1),
        "onnx": onnx,
        "external": onnx,
        "config": write_config(tmp_path, "tiny_seg"),
    }


def plant(path: Path, how: str) -> None:
    """Write what leaves the marker beside the test's files when it is unpickled."""
    path.parent.mkdir(parents=True, exist_ok=True)
    marker = next(folder for folder in path.parents if (folder / "images").is_dir()) / MARKER
    content = {"state_dict": {"w": Hostile(marker)}}
    if how == "zip":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, 2))


def with_external_weights(path: Path) -> None:
    import onnx

    model = onnx.load(path)
    kernel = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(kernel, "toy.onnx.data")
    kernel.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    manifest_path(path).unlink()


@pytest.mark.parametrize(
    ("what", "how"),
    [(what, "bare") for what in READ]
    + [(what, "zip") for what in ("checkpoint .pth", "--load", "--ranges", "manifest")],
)
def test_a_planted_pickle_is_refused_and_runs_nothing(what: str, how: str, places: dict[str, Path]) -> None:
    name, command = READ[what]
    at = places["at"]
    if what == "external weights":
        with_external_weights(places["onnx"])
    if what == "--resume of a training":
        (at / "run").mkdir()
        (at / "run" / "last_checkpoint").write_text(str(at / "run" / "iter_1.pth"))
    plant(at / name, how)
    program, *arguments = (part.format(**places, bad=at / name) for part in command.split())
    result = invoke(APPS[program], *arguments, env={"CUDA_VISIBLE_DEVICES": ""})
    assert result.exit_code == 1 and NAMED.get(what, Path(name).name) in result.stderr, result.output
    assert not (at / MARKER).exists(), "code has run"


def test_the_planted_pickle_would_run(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    plant(tmp_path / "bad.pth", "bare")
    pickle.loads((tmp_path / "bad.pth").read_bytes())
    assert (tmp_path / MARKER).exists()
