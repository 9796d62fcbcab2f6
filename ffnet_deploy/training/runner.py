"""mmengine's Runner with what FFNet training adds: start weights, exact resuming, memory layout and compilation."""

import atexit
import contextlib
import io
import multiprocessing
import random
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ffnet_deploy.core.errors import CheckpointError
from ffnet_deploy.training.network import InitialWeights, recompute_activations, synchronise_batch_norm


def start_worker(initialise: Callable[[int], None] | None, number: int) -> None:
    """Begin a loader's worker process: it leaves Ctrl-C and SIGTERM to the training process, which still needs it."""
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    if initialise is not None:
        initialise(number)


@atexit.register  # after `multiprocessing`, so that it runs before it
def kill_workers() -> None:
    """Kill the workers that are left when the process ends: by itself, Python sends SIGTERM and waits for them."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


class TrainRunner(Runner):  # type: ignore[misc]
    """mmengine's Runner; its log lines go to the log file alone.

    Attributes:
        initial: Weights to start from; None: those of the initialisation.
    """

    initial: InitialWeights | None = None

    def build_model(self, model: Any) -> Any:
        """The network, with channels last in memory: convolutions on CPUs and tensor cores are faster so."""
        built = super().build_model(model).to(memory_format=torch.channels_last)
        if self.distributed and not torch.cuda.is_available():
            synchronise_batch_norm(built)
        if self.cfg.get("save_memory"):
            recompute_activations(built)
        if self.cfg.get("torch_compile"):
            built.backbone.compile()
        return built

    @staticmethod
    def build_dataloader(*args: Any, **kwargs: Any) -> Any:
        """The loader of a config, whose worker processes outlive a stop signal to the whole process group."""
        loader = Runner.build_dataloader(*args, **kwargs)
        loader.worker_init_fn = partial(start_worker, loader.worker_init_fn)
        return loader

    def build_logger(self, *args: Any, **kwargs: Any) -> Any:
        """Mmengine's logger without its lines on the terminal."""
        with contextlib.redirect_stdout(io.StringIO()):
            logger = super().build_logger(*args, **kwargs)
        for handler in [handler for handler in logger.handlers if not hasattr(handler, "baseFilename")]:
            logger.removeHandler(handler)
        return logger

    def build_loops(self) -> None:
        """Build the loops with their data sets and metrics now, so that what is wrong with them is found at once."""
        loops: Any = self
        loops._train_loop = self.build_train_loop(loops._train_loop)
        if loops._val_loop is not None:
            loops._val_loop = self.build_val_loop(loops._val_loop)

    def load_or_resume(self) -> None:
        """Put the start weights in, or go on from the checkpoint that the config names."""
        if self.initial is None:
            super().load_or_resume()
            return
        model = self.model.module if hasattr(self.model, "module") else self.model
        model.load_state_dict(dict(self.initial.tensors), strict=False)
        self.call_hook("after_load_checkpoint", checkpoint={"state_dict": model.state_dict()})

    def resume(self, filename: str, **options: Any) -> None:
        """Go on from `filename`; the schedule ends where the config of this run has it, be it sooner or later."""
        ends = [(scheduler.end, scheduler.total_iters) for scheduler in self.param_schedulers]
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints where it loads from, past the logger
                super().resume(filename, **options)
        except CheckpointError:
            raise
        except Exception as error:  # parts of the wrong kind raise nearly anything; it is part of the message
            reason = (str(error).splitlines() or [""])[0][:200]
            raise CheckpointError(
                f"checkpoint {filename} does not fit this run: {type(error).__name__}: {reason}.\n"
                "  to do    resume with the options of the run that wrote it, or start anew with --load"
            ) from error
        for scheduler, (end, total) in zip(self.param_schedulers, ends, strict=True):
            scheduler.end, scheduler.total_iters = end, total


class RandomStateHook(Hook):  # type: ignore[misc]
    """Keeps the state of the random number generators in checkpoints, and takes it up again on resuming."""

    def __init__(self) -> None:
        self.state: dict[str, Any] | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the states to `checkpoint`."""
        checkpoint["random_state"] = random_state()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Remember the states of `checkpoint` when it is resumed."""
        self.state = checkpoint.get("random_state") if runner._resume else None

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Take them up just before the first iteration: starting the loaders has drawn numbers."""
        if self.state is not None:
            restore_random_state(self.state)
            self.state = None


def random_state() -> dict[str, Any]:
    """States of the generators of Python, NumPy and PyTorch, as plain values and tensors."""
    numpy_state: Any = np.random.get_state()
    algorithm, keys, *rest = numpy_state
    state = {
        "python": random.getstate(),
        "numpy": (algorithm, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    return state | ({"cuda": torch.cuda.get_rng_state_all()} if torch.cuda.is_available() else {})


def restore_random_state(state: dict[str, Any]) -> None:
    """Set all generators to what `random_state` gave.

    Raises:
        CheckpointError: `state` is none.
    """
    try:
        _restore(state)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint's state of the random number generators is unusable: {error}") from error


def _restore(state: dict[str, Any]) -> None:
    random.setstate(_tupled(state["python"]))
    algorithm, keys, *rest = state["numpy"]
    np.random.set_state((algorithm, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])


def _tupled(value: Any) -> Any:
    return tuple(_tupled(part) for part in value) if isinstance(value, list | tuple) else value
