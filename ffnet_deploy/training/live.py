"""The live line of a training run: iteration, loss, rate, waiting for data, memory, time left."""

import resource
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

COLUMNS = ("loss", "rate", "data", "memory")


class LiveLineHook(Hook):  # type: ignore[misc]
    """A line that renews itself on a terminal; elsewhere one plain line at every `interval` iterations.

    Args:
        console: to print to.
        interval: iterations between plain lines.
    """

    priority = "VERY_LOW"

    def __init__(self, console: Console, interval: int = 50):
        self.console, self.interval = console, interval
        self.progress: Progress | None = None

    def before_train(self, runner: Runner) -> None:
        """Start the line."""
        if not is_main_process() or not self.console.is_terminal:
            return
        words = [TextColumn(f"{name} {{task.fields[{name}]}}") for name in COLUMNS]
        columns = [MofNCompleteColumn(), BarColumn(20), *words, TextColumn("left"), TimeRemainingColumn()]
        self.progress = Progress(*columns, console=self.console)
        nothing: dict[str, Any] = dict.fromkeys(COLUMNS, "-")
        self.task = self.progress.add_task("", total=runner.max_iters, completed=runner.iter, **nothing)
        self.progress.start()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Any] | None = None
    ) -> None:
        """Renew the line."""
        if self.progress is not None:
            self.progress.update(self.task, completed=runner.iter + 1, **status(runner))
        elif is_main_process() and (runner.iter + 1) % self.interval == 0:
            words = "  ".join(f"{name} {value}" for name, value in status(runner).items())
            self.console.print(f"{runner.iter + 1}/{runner.max_iters}  {words}", soft_wrap=True)

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        """Print the validation scores."""
        if is_main_process() and metrics:
            words = "  ".join(f"{name} {value:.2f}" for name, value in metrics.items() if "time" not in name)
            self.console.print(f"validated after {runner.iter} iterations:  {words}", soft_wrap=True)

    def after_train(self, runner: Runner) -> None:
        """End the line."""
        self.close()

    def close(self) -> None:
        """End the line, however the run ended."""
        if self.progress is not None:
            self.progress.stop()


def status(runner: Runner) -> dict[str, Any]:
    """Loss, learning rate, share of the time spent waiting for data, and memory, in words."""
    scalars = runner.message_hub.log_scalars
    rate = runner.optim_wrapper.param_groups[-1]["lr"]
    return {
        "loss": f"{_recent(scalars, 'train/loss'):.4f}",
        "rate": f"{rate:.2e}",
        "data": f"{100 * _recent(scalars, 'train/data_time') / max(_recent(scalars, 'train/time'), 1e-9):.0f} %",
        "memory": f"{memory_mib()} MiB",
    }


def _recent(scalars: Mapping[str, Any], name: str) -> float:
    return float(scalars[name].mean(20)) if name in scalars else float("nan")


def memory_mib() -> int:
    """Highest memory so far, MiB: of the GPU, or of the process where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
