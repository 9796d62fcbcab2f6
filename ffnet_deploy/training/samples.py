"""Pictures of a few predictions, beside their labels, after each validation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner


class SamplesHook(Hook):  # type: ignore[misc]
    """Draws the first `count` validation images to all records of the run: its folder, and TensorBoard where it is."""

    def __init__(self, count: int = 3):
        self.count = count

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Draw the first image of the batch: labels on the left, prediction on the right."""
        if batch_idx >= self.count or not outputs or not is_main_process():
            return
        sample = outputs[0]
        image = cv2.cvtColor(cv2.imread(sample.img_path), cv2.COLOR_BGR2RGB)
        name = f"val_{Path(sample.img_path).stem}"
        runner.visualizer.add_datasample(name, image, sample, step=runner.iter, with_labels=False)
