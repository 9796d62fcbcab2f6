"""Promises that take minutes to keep: run with ``-m slow``."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from ffnet_deploy.cli import evaluate
from ffnet_deploy.core.errors import CheckpointError
from ffnet_deploy.segmentor.load import load_segmentor
from ffnet_deploy.training.saving import newest_intact
from ffnet_deploy.training.train import train
from tests.commands import invoke
from tests.evaluation import layout_examples as examples
from tests.training.tiny import NETWORK, tiny_options, write_data

pytestmark = pytest.mark.slow


def accuracy(config: Path, checkpoint: Path, data: Path) -> float:
    """Share of the training images' pixels that are classified right."""
    model = load_segmentor(config, checkpoint)
    right = []
    for path in sorted((data / "images/train").iterdir()):
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(np.float32)
        x = (image - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
        x = torch.from_numpy(x).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            logits = model.decode_head(model.backbone(x))
        labels = torch.nn.functional.interpolate(logits, x.shape[2:], mode="bilinear").argmax(1)[0].numpy()
        right.append(labels == cv2.imread(str(data / "annotations/train" / path.name), cv2.IMREAD_UNCHANGED))
    return float(np.mean(right))


def test_the_nano_network_learns_four_images_by_heart(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", train=4, val=1)
    # the network as it is, without what hinders learning by heart
    mine = {
        key: value for key, value in NETWORK.items() if key.startswith(("train_dataloader", "val_", "default_hooks"))
    }
    overrides = {
        **mine,
        "model.data_preprocessor.size": (64, 96),
        "model.decode_head.dropout_ratio": 0.0,
        "model.backbone.drop_path_rate": 0.0,
        "default_hooks.checkpoint.interval": 300,
        "train_cfg.val_interval": 1000,
        "custom_hooks": [],
    }
    options = replace(tiny_options(data, tmp_path / "run", iterations=300), overrides=overrides)
    train(options, Console(quiet=True))
    share = accuracy(tmp_path / "run" / "ffnet_seg_nano_scenes.py", tmp_path / "run" / "iter_300.pth", data)
    assert share > 0.98, f"{share:.4f}"


def command_line(data: Path, work_dir: Path, *more: str) -> list[str]:
    settings = [f"--set={key}={value!r}" for key, value in NETWORK.items()]
    start = "from ffnet_deploy.cli.train import main; main()"
    options = {"--config": "ffnet_seg_nano_scenes", "--data": data, "--classes": data / "classes.txt"}
    options |= {"--work-dir": work_dir, "--iterations": 60, "--batch": 2, "--workers": 0, "--seed": 0}
    return [sys.executable, "-c", start, *(str(part) for pair in options.items() for part in pair), *settings, *more]


def start(data: Path, work_dir: Path, *more: str) -> Any:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command_line(data, work_dir, *more), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def test_ten_sigkills_and_resumes_end_as_an_uninterrupted_run(data: Path, tmp_path: Path) -> None:
    random.seed(0)
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    step = "--set=default_hooks.checkpoint.interval=1"
    reached = 0
    for _ in range(10):
        run = start(data, broken, step, *(["--resume"] if reached else []))
        deadline = time.monotonic() + 240
        wanted = reached + random.randint(1, 5)
        while run.poll() is None and time.monotonic() < deadline and newest(broken) < wanted:
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
        run.wait()
        assert newest(broken) >= wanted, run.stderr.read().decode()[-2000:]
        reached = newest(broken)
    for folder, options in ((broken, ["--resume"]), (straight, [])):
        last = start(data, folder, step, *options)
        assert last.wait(timeout=500) == 0, last.stderr.read().decode()[-2000:]
        assert newest(folder) == 60
    found, expected = final_miou(broken), final_miou(straight)
    print(f"final mIoU: {found} after ten kills, {expected} without")
    assert abs(found - expected) <= 0.5


def final_miou(work_dir: Path) -> float:
    """Percent, of the last validation that the newest log tells of."""
    log = max(work_dir.glob("2*/*.log"))
    return float(re.findall(r"mIoU: ([0-9.]+)", log.read_text())[-1])


def newest(work_dir: Path) -> int:
    """Iterations of the newest intact checkpoint; 0 where there is none."""
    try:
        return int(newest_intact(work_dir)[0].stem.split("_")[1])
    except CheckpointError:
        return 0


@pytest.mark.parametrize("layout", examples.LAYOUTS)
def test_every_layout_is_trained_scored_and_reported(layout: str, tmp_path: Path) -> None:
    """Twelve images as people have them: twenty steps, a score by ffnet-eval, and its page."""
    if layout.startswith("coco"):
        pytest.importorskip("pycocotools", reason="COCO files need the extra coco")
    root = tmp_path / "data"
    examples.LAYOUTS[layout](root)
    said = examples.OPTIONS.get(layout, {})
    overrides = {
        key: value for key, value in NETWORK.items() if not key.startswith("val_")
    }  # resized as ffnet-eval does
    overrides["default_hooks.checkpoint.interval"] = 20
    options = replace(tiny_options(root, tmp_path / "run", iterations=20), classes=None, overrides=overrides, **said)
    result = train(options, Console(quiet=True))
    assert result.best is not None and result.iterations == 20
    more = [part for key, value in said.items() for part in (f"--{key.replace('_', '-')}", value)]
    scores, page = tmp_path / "scores.json", tmp_path / "page.html"
    told = invoke(
        evaluate.app, "--config", str(result.config), "--checkpoint", str(result.checkpoint), "--data", str(root),
        "--json", str(scores), "--html", str(page), *more,
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    found = json.loads(scores.read_text())
    assert set(found["per_class"]) == set(examples.CLASSES)
    assert found["mIoU"] == pytest.approx(result.best, abs=2), "scored as it was validated"
    assert "box" in page.read_text()
