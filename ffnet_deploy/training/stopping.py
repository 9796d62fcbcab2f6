"""Ending a training run in good order: on a signal, and when the loss is no longer a number."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from ffnet_deploy.core.errors import FFNetDeployError
from ffnet_deploy.training.saving import checkpoints_in, is_intact

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingError(FFNetDeployError):
    """A training run that cannot go on."""


class StopRequest:
    """Remembers that SIGTERM or Ctrl-C asked to stop; a second one ends the process at once.

    Attributes:
        signal: that asked; None: go on.
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
    """Saves and stops after the iteration in which `request` was made."""

    priority = "LOWEST"

    def __init__(self, request: StopRequest):
        self.request = request

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Runs after every iteration."""
        if self.request.agreed():
            save_now(runner, runner.iter + 1)
            runner.train_loop.stop_training = True


class FiniteLossHook(Hook):  # type: ignore[misc]
    """Stops the run when the loss is NaN or infinite, before anything is saved."""

    priority = "VERY_HIGH"

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Any] | None = None
    ) -> None:
        """Runs after every iteration.

        Raises:
            TrainingError: the loss is not finite.
        """
        loss = (outputs or {}).get("loss")
        if loss is not None and not torch.isfinite(loss).all():
            raise TrainingError(_not_finite(runner, float(loss)))


def _not_finite(runner: Runner, loss: float) -> str:
    good = next((path for path in checkpoints_in(Path(runner.work_dir)) if is_intact(path)), None)
    return (
        f"the loss became {loss} in iteration {runner.iter + 1}; nothing was saved since.\n"
        f"  last good checkpoint  {good or 'none yet'}\n"
        f"  to do    lower the rate (--set optim_wrapper.optimizer.lr=...) or clip the gradient "
        "(--set optim_wrapper.clip_grad.max_norm=1), then --resume"
    )
