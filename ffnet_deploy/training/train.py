"""One training run from beginning to end."""

import logging
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from rich.console import Console

import ffnet_deploy.models
import ffnet_deploy.training.optimizer  # noqa: F401  these register what configs name
from ffnet_deploy.artifacts import Kind, Outputs
from ffnet_deploy.core.errors import CheckpointError, ConfigError, DataError, FFNetDeployError, OptionError
from ffnet_deploy.core.files import full_disk_errors, make_folder
from ffnet_deploy.core.label_sets import LabelSet
from ffnet_deploy.evaluation.data_summary import DataSummary, write_contact_sheet
from ffnet_deploy.segmentor.checkpoint import read_checkpoint
from ffnet_deploy.segmentor.zoo import PRETRAINED, fetch, resolve_checkpoint
from ffnet_deploy.training.datasets import check_data, open_split
from ffnet_deploy.training.hooks import (
    FiniteLossHook,
    LiveLineHook,
    SamplesHook,
    StopHook,
    StoppedError,
    StopRequest,
    TrainingError,
    memory_mib,
    save_now,
)
from ffnet_deploy.training.network import InitialWeights, fit_weights
from ffnet_deploy.training.options import TrainOptions
from ffnet_deploy.training.recipe import is_distributed, run_config, weigh_classes
from ffnet_deploy.training.runner import RandomStateHook, TrainRunner
from ffnet_deploy.training.saving import best_in, checkpoints_in, newest_intact


@dataclass(frozen=True)
class Training:
    """How a run ended.

    Attributes:
        work_dir: Where its files are.
        iterations: Number of iterations done in all.
        stopped: Whether a signal ended it before the end.
        best: Validation mIoU in percent of the best checkpoint; None: not validated.
        config: The whole config of the run.
        checkpoint: The best checkpoint by validation, or the last one.
        notes: What else is to be known of it, in words.
    """

    work_dir: Path
    iterations: int
    stopped: bool
    best: float | None
    config: Path = Path()
    checkpoint: Path = Path()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DryRun:
    """What a dry run found.

    Attributes:
        pairs: Number of images with labels, by split.
        parameters: Number of parameters of the network.
        groups: Learning rate and weight decay that parameters share, and the number of their tensors, highest rate
            first.
        loss: Loss of the one step that was taken.
        seconds: Seconds that this step took.
        memory_mib: The most that was used.
        contact_sheet: Picture of some training samples, tinted by class; None: of a data set that only mmseg reads.
    """

    pairs: dict[str, int]
    parameters: int
    groups: tuple[tuple[float, float, int], ...]
    loss: float
    seconds: float
    memory_mib: int
    contact_sheet: Path | None = None


def train(options: TrainOptions, console: Console) -> Training:
    """Train as `options` say, telling `console` how it goes.

    Raises:
        ConfigError, OptionError, DataError, CheckpointError: the run cannot begin as it is asked for.
        StorageError: a checkpoint or a log cannot be written; older checkpoints are intact.
        TrainingError: the loss is not finite, or memory does not suffice.
    """
    if not options.resume and checkpoints_in(options.folder):
        raise OptionError(
            f"{options.folder} holds the checkpoints of an earlier run.\n"
            "  to do    go on with it by --resume, or give another --work-dir"
        )
    outputs = Outputs(options.config, options.load, options.data, options.classes)
    outputs.refuse_input(options.folder)
    cfg = run_config(options)
    if not options.resume:  # the config in the folder of a resumed run is the run's own
        outputs.refuse_input(options.folder / cfg.filename)
    data = check_data(cfg)
    tell_data(data, console)
    if options.class_weights is not None:
        tell_weights(weigh_classes(cfg, data["train"].pixels), data["train"], console)
    tell_length(options, cfg, data, console)
    make_folder(options.folder)
    if options.resume:
        tell_resume(options.folder, console)
    request = StopRequest()
    with processes(), silent_log_errors(), full_disk_errors(options.folder):
        runner = build_runner(cfg)
        runner.initial = initial_weights(options, runner, console)
        live = LiveLineHook(console, interval=runner.cfg.default_hooks.logger.get("interval", 50))
        for hook in (FiniteLossHook(), RandomStateHook(), SamplesHook(), live, StopHook(request)):
            runner.register_hook(hook, priority=hook.priority)
        try:
            with request.listening():
                run_to_end(runner)
        finally:
            live.close()
    notes: tuple[str, ...] = ()
    if runner.iter < runner.max_iters and request.signal is None:
        save_now(runner, runner.iter)
        notes = (f"ended early: mIoU has not risen in {options.patience} validations",)
    best = runner.message_hub.runtime_info.get("best_score")
    return Training(
        options.folder,
        runner.iter,
        request.signal is not None,
        None if best is None else float(best),
        options.folder / Path(runner.cfg.filename).name,
        best_in(options.folder),
        notes,
    )


@contextmanager
def silent_log_errors() -> Iterator[None]:
    """Let log files that cannot be written, on a full disk, print no traceback for each of their lines."""
    before, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    finally:
        logging.raiseExceptions = before


@contextmanager
def processes() -> Iterator[None]:
    """Join the other processes that torchrun started; mmengine itself does so on GPUs alone."""
    if is_distributed() and not torch.cuda.is_available():
        torch.distributed.init_process_group("gloo")
    try:
        yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def tell_data(splits: Mapping[str, DataSummary], console: Console) -> None:
    """Say what was understood of the data set: layout, pairs, shares of pixels, and what looks wrong."""
    for summary in splits.values():
        for line in summary.lines():
            console.print(line, soft_wrap=True, markup=False)
    for warning in splits["train"].warnings():
        console.print(f"warning: {warning}", style="yellow", soft_wrap=True, markup=False)


def tell_length(options: TrainOptions, cfg: Any, data: Mapping[str, DataSummary], console: Console) -> None:
    """Say how long a fine-tuning takes whose number of iterations was not given."""
    if options.iterations is None and options.load is not None:
        steps, images = cfg.train_cfg.max_iters, data["train"].pairs
        console.print(f"{steps} iterations for {images} images; --iterations N takes another number", soft_wrap=True)


def tell_weights(weights: Sequence[float], data: DataSummary, console: Console) -> None:
    """Say what each class weighs in the loss."""
    pairs = zip(data.classes, weights, strict=True)
    listed = ", ".join(f"{name} {weight:.2f}" for name, weight in pairs)
    console.print(f"class weights: {listed}", soft_wrap=True, markup=False)


def tell_resume(work_dir: Path, console: Console) -> None:
    """Say what is resumed, and which newer checkpoints are damaged."""
    path, damaged = newest_intact(work_dir)
    for bad in damaged:
        console.print(f"skipped {bad}: it is damaged, probably cut off while it was written", soft_wrap=True)
    console.print(f"resuming {path}", soft_wrap=True)


def build_runner(cfg: Any) -> TrainRunner:
    """The Runner of the whole config `cfg`.

    Raises:
        ConfigError: a part of it is unknown or wrong.
    """
    try:
        with quiet_building():
            runner: TrainRunner = TrainRunner.from_cfg(cfg)
            runner.build_loops()
            return runner
    except FFNetDeployError:
        raise
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise _cannot_be_built(error) from error


def _cannot_be_built(error: Exception) -> ConfigError:
    reason = str(error).strip("'\"").splitlines()[0] if str(error) else type(error).__name__
    return ConfigError(f"the training that the config describes cannot be built: {reason}")


@contextmanager
def quiet_building() -> Iterator[None]:
    """No warnings of the libraries about parts that are not used; the log file keeps its lines."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def initial_weights(options: TrainOptions, runner: TrainRunner, console: Console) -> InitialWeights | None:
    """What `options.load` gives the network of `runner`; None where nothing is loaded."""
    source = options.load
    if source is None:
        return None
    if source == "pretrained":
        backbone = runner.cfg.model.backbone.type
        if backbone not in PRETRAINED:
            known = ", ".join(PRETRAINED)
            raise CheckpointError(f"no ImageNet weights were published for {backbone}; there are {known}")
        path = fetch(PRETRAINED[backbone])
    else:
        path = resolve_checkpoint(source, Path(options.config).stem)
    model = runner.model.module if hasattr(runner.model, "module") else runner.model
    weights = fit_weights(model, read_checkpoint(path))
    for line in weights.notes():
        console.print(f"{path.name}: {line}", soft_wrap=True)
    return weights


def run_to_end(runner: TrainRunner) -> None:
    """Train, and turn what can go wrong on the way into errors that say what to do."""
    begin = runner.iter
    try:
        with quiet_building():
            runner.train()
    except StoppedError:
        runner.call_hook("after_val_epoch", metrics={})  # averaged weights change places with the trained ones again
        save_now(runner, runner.iter)
    except torch.OutOfMemoryError as error:
        raise _out_of_memory() from error
    except (DataError, ConfigError) as error:
        # a loader's process passes its error on with the traceback in the message
        message = re.sub(r"(?s)^Caught \w+ in DataLoader worker.*?\n[\w.]*Error: ", "", str(error)).strip()
        raise type(error)(message) from error
    except FFNetDeployError:
        raise
    except RuntimeError as error:
        if "memory" in str(error) and "alloc" in str(error):
            raise _out_of_memory() from error
        raise
    except (KeyError, TypeError, AttributeError, AssertionError) as error:
        if runner.iter > begin:
            raise
        raise _cannot_be_built(error) from error  # hooks are only complete once the run begins


def _out_of_memory() -> TrainingError:
    return TrainingError(
        f"memory does not suffice for a step ({memory_mib()} MiB were in use).\n"
        "  to do    lower --batch (and raise --accumulate by as much), use --amp bf16 or --save-memory, or lower the "
        "crop size"
    )


class _OneStep(Hook):  # type: ignore[misc]
    """Notes the loss and the time of a step, and ends the run after it."""

    def __init__(self) -> None:
        self.loss = float("nan")
        self.seconds = float("nan")

    def after_train_iter(self, runner: Any, *args: Any, outputs: Any = None, **kwargs: Any) -> None:
        self.loss = float(outputs["loss"])
        self.seconds = runner.message_hub.get_scalar("train/time").current()
        runner.train_loop.stop_training = True


def dry_run(options: TrainOptions, console: Console) -> DryRun:
    """Check config and data, and take one step; nothing is kept but a contact sheet beside where the run would be.

    Raises: as `train`.
    """
    with tempfile.TemporaryDirectory() as folder:
        cfg = run_config(replace(options, work_dir=Path(folder), resume=False))
        data = check_data(cfg)
        tell_data(data, console)
        if options.class_weights is not None:
            tell_weights(weigh_classes(cfg, data["train"].pixels), data["train"], console)
        tell_length(options, cfg, data, console)
        sheet = None
        if cfg.train_dataloader.dataset.type == "FolderDataset":
            classes = LabelSet(tuple(cfg.metainfo["classes"]), tuple(tuple(c) for c in cfg.metainfo["palette"]))
            sheet = options.folder.with_name(f"{options.folder.name}.samples.png")
            Outputs(options.data, options.classes).claim(sheet, Kind.PICTURE)
            write_contact_sheet(sheet, open_split(cfg.train_dataloader.dataset), classes)
        cfg.train_cfg.val_begin = cfg.train_cfg.max_iters + 1  # validation is built, but not run
        cfg.default_hooks.checkpoint.update(interval=-1, save_last=False)
        runner, step = build_runner(cfg), _OneStep()
        runner.initial = initial_weights(options, runner, console)
        runner.register_hook(step, priority="VERY_LOW")
        run_to_end(runner)
    parameters = sum(parameter.numel() for parameter in runner.model.parameters())
    groups = parameter_groups(runner.optim_wrapper)
    pairs = {split: summary.pairs for split, summary in data.items()}
    return DryRun(pairs, parameters, groups, step.loss, step.seconds, memory_mib(), sheet)


def parameter_groups(optim_wrapper: Any) -> tuple[tuple[float, float, int], ...]:
    """Each pair of full rate and weight decay, and how many tensors have it; highest rate first."""
    counts: Counter[tuple[float, float]] = Counter()
    for group in optim_wrapper.param_groups:
        counts[group["initial_lr"], group["weight_decay"]] += len(group["params"])
    return tuple((rate, decay, count) for (rate, decay), count in sorted(counts.items(), reverse=True))
