"""A data set and a network so small that a training run takes seconds."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ffnet_deploy.training.options import TrainOptions

CLASSES = "ground 90 90 90\nbox 200 40 40\nsky 90 160 220\n"
NETWORK = {
    "model.backbone.depths": (1, 1, 1, 1),
    "model.backbone.dims": (8, 16, 16, 24),
    "model.backbone.drop_path_rate": 0.0,
    "model.decode_head.in_channels": [16, 16, 24],
    "model.decode_head.head_width": 16,
    "model.decode_head.head_depth": 1,
    "model.decode_head.channels": 32,
    "model.decode_head.dropout_ratio": 0.0,
    "model.data_preprocessor.size": (64, 96),
    "train_dataloader.dataset.pipeline": [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations"},
        {"type": "PackSegInputs"},
    ],
    "val_dataloader.dataset.pipeline": [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations"},
        {"type": "PackSegInputs"},
    ],
    "default_hooks.logger.interval": 1,
    "default_hooks.checkpoint.interval": 2,
    "train_cfg.val_begin": 1,
    "custom_hooks": [],
}


def write_image(root: Path, split: str, index: int, height: int = 64, width: int = 96) -> None:
    """A scene of sky, ground and a box whose place depends on `index`, a little noisy."""
    rng = np.random.default_rng(index)
    labels = np.zeros((height, width), np.uint8)
    labels[: height // 3] = 2
    top, left = rng.integers(8, 32), rng.integers(8, 56)
    labels[top : top + 24, left : left + 32] = 1
    colours = np.array([(90, 90, 90), (40, 40, 200), (220, 160, 90)])  # BGR
    image = np.clip(colours[labels] + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)
    for kind, content in (("images", image), ("annotations", labels)):
        folder = root / kind / split
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{index:03d}.png"), content)


def write_data(root: Path, train: int = 8, val: int = 2) -> Path:
    """A data set in `root` with its `classes.txt`."""
    for index in range(train):
        write_image(root, "train", index)
    for index in range(val):
        write_image(root, "val", 100 + index)
    (root / "classes.txt").write_text(CLASSES)
    return root


def tiny_options(data: Path, work_dir: Path, **changes: Any) -> TrainOptions:
    """A run of a few steps on `data`, in this process alone."""
    overrides = NETWORK | changes.pop("overrides", {})
    options: dict[str, Any] = {
        "config": "ffnet_seg_nano_scenes",
        "data": data,
        "classes": data / "classes.txt",
        "work_dir": work_dir,
        "iterations": 4,
        "batch": 4,
        "workers": 0,
        "seed": 0,
    }
    return TrainOptions(**{**options, **changes, "overrides": overrides})
