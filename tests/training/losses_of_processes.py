"""Run by torchrun: trains the tiny network and writes each process's losses; no test by itself."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from rich.console import Console

from ffnet_deploy.training import train as module
from tests.training.tiny import tiny_options


class Losses(Hook):  # type: ignore[misc]
    """Notes the loss of every iteration."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def after_train_iter(self, runner: Any, *args: Any, outputs: Any = None, **kwargs: Any) -> None:
        self.values.append(float(outputs["loss"]))


def main(data: Path, out: Path, batch: int) -> None:
    losses, build = Losses(), module.build_runner

    def build_with_losses(cfg: Any) -> Any:
        runner = build(cfg)
        runner.register_hook(losses)
        return runner

    module.build_runner = build_with_losses
    overrides = {"train_cfg.val_interval": 1000, "val_dataloader.dataset.indices": 1}
    module.train(tiny_options(data, out / "run", iterations=20, batch=batch, overrides=overrides), Console(quiet=True))
    (out / f"rank{os.environ.get('RANK', 0)}.json").write_text(json.dumps(losses.values))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
