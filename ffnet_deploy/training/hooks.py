"""What happens beside a training run's steps: its live line, sample pictures, stopping on a signal or a bad loss."""

import os
import resource
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import torch
from mmengine.dist import all_reduce, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ffnet_deploy.core.errors import FFNetDeployError
from ffnet_deploy.core.stopping import SIGNALS
from ffnet_deploy.training.saving import checkpoints_in, is_intact

COLUMNS = ("loss", "rate", "data", "memory")
STOPPING = "stopping after this step, saving; once more ends at once without saving"
"""Written to standard error as soon as a signal asks to stop."""


class TrainingError(FFNetDeployError):
    """A training run that cannot go on."""


class StoppedError(Exception):
    """A stop that was asked for while the run validated; what was trained so far is saved."""


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


class StopRequest:
    """Remembers that SIGTERM or Ctrl-C asked to stop; a second one ends the process at once.

    Attributes:
        signal: Signal that asked to stop; None: go on.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Catch the signals while the block runs."""
        previous = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.signal = signal.Signals(number)
        if os.environ.get("RANK", "0") == "0":
            os.write(2, f"\n{STOPPING}\n".encode())  # unbuffered: the interrupted code may hold the stream's lock

    def agreed(self) -> bool:
        """Whether any process of the run was asked to stop; all must call it at the same time."""
        if get_world_size() == 1:
            return self.signal is not None
        flag = torch.tensor(int(self.signal is not None))
        all_reduce(flag, "max")
        return bool(flag.item())


def save_now(runner: Runner, iterations: int) -> None:
    """Save a checkpoint that continues after `iterations` iterations, unless it is there already."""
    hook = next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
    if hook.last_ckpt is None or not str(hook.last_ckpt).endswith(f"iter_{iterations}.pth"):
        hook._save_checkpoint_with_step(runner, iterations, meta={"epoch": runner.epoch, "iter": iterations})


class StopHook(Hook):  # type: ignore[misc]
    """Saves and stops after the iteration, or the validation image, during which `request` was made."""

    priority = "LOWEST"

    def __init__(self, request: StopRequest):
        self.request = request

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Save and stop when asked to."""
        if self.request.agreed():
            save_now(runner, runner.iter + 1)
            runner.train_loop.stop_training = True
            runner.train_loop.val_begin = runner.max_iters + 1  # this step's validation, if any, is left out

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Leave the validation when asked to.

        Raises:
            StoppedError: a signal came.
        """
        if self.request.agreed():
            raise StoppedError


class FiniteLossHook(Hook):  # type: ignore[misc]
    """Stops the run when the loss is NaN or infinite, before anything is saved."""

    priority = "VERY_HIGH"

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Any] | None = None
    ) -> None:
        """Look at the loss of the iteration.

        Raises:
            TrainingError: the loss is not finite.
        """
        loss = (outputs or {}).get("loss")
        if loss is None or torch.isfinite(loss).all():
            return
        good = next((path for path in checkpoints_in(Path(runner.work_dir)) if is_intact(path)), None)
        raise TrainingError(
            f"the loss became {float(loss)} in iteration {runner.iter + 1}; nothing was saved since.\n"
            f"  last good checkpoint  {good or 'none yet'}\n"
            f"  to do    lower the rate (--set optim_wrapper.optimizer.lr=...) or clip the gradient "
            "(--set optim_wrapper.clip_grad.max_norm=1), then --resume"
        )
