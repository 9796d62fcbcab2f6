"""``ffnet-train``: fine-tuning and training of FFNet segmentors."""

import importlib
import os
import shlex
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Annotated

from rich.console import Console
from rich.table import Table

from ffnet_deploy.cli.console import FLAT, ExitCode, console, make_app, report_error, report_note, run_command
from ffnet_deploy.cli.options import (
    DATA,
    ENGINE,
    EVERYDAY,
    NOT_TYPED,
    OUTPUT,
    SCHEDULE,
    check_numbers,
    choice,
    option,
    parameters,
)
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.quiet import quiet
from ffnet_deploy.engines.backend import Backend, gpu_index
from ffnet_deploy.engines.cuda import NoDeviceError
from ffnet_deploy.segmentor.overrides import parse_override, without_no_ops
from ffnet_deploy.training.options import AmpType, ClassWeights, Logger, TrainOptions

app = make_app("ffnet-train", "Train an FFNet segmentor, or fine-tune one on other data.")


@parameters(
    config=option(EVERYDAY, "NAME"),
    data=option(EVERYDAY, "PATH"),
    load=option(EVERYDAY, "FILE"),
    iterations=option(EVERYDAY, "N"),
    batch=option(EVERYDAY, "N"),
    work_dir=option(EVERYDAY, "FOLDER"),
    name=option(EVERYDAY, "NAME"),
    classes=option(DATA, "FILE"),
    images_dir=option(DATA, "FOLDER"),
    masks_dir=option(DATA, "FOLDER"),
    mask_suffix=option(DATA, "TEXT"),
    workers=option(DATA, "N"),
    resume=option(SCHEDULE),
    accumulate=option(SCHEDULE, "N"),
    effective_batch=option(SCHEDULE, "N"),
    class_weights=choice(ClassWeights, SCHEDULE),
    patience=option(SCHEDULE, "N"),
    ema=option(SCHEDULE),
    amp=choice(AmpType, SCHEDULE),
    seed=option(SCHEDULE, "N"),
    compile=option(SCHEDULE),
    save_memory=option(SCHEDULE),
    loggers=option(OUTPUT, name="--logger"),
    overrides=NOT_TYPED,
)
@dataclass(frozen=True)
class TrainFlags(TrainOptions):
    """A training run as the command line describes it."""

    cfg_options: Annotated[
        tuple[str, ...], option(SCHEDULE, "KEY=VALUE", name=("--cfg-options", "--set"), consume_multiple=True)
    ] = ()
    """Change keys of the config, in mmengine's syntax, as optim_wrapper.optimizer.lr=1e-4."""
    dry_run: Annotated[bool, option(OUTPUT)] = False
    """Check config and data, take one step, draw eight samples with their labels on a contact sheet, and stop."""
    backend: Annotated[Backend, choice(Backend, ENGINE)] = Backend.TORCH
    """What runs the network: training needs torch."""
    device: Annotated[str | None, option(ENGINE)] = None
    """Where the network trains: cpu, cuda or cuda:N. By default the first GPU, else the CPU."""

    def __post_init__(self) -> None:
        check_numbers(self)
        super().__post_init__()
        if self.backend is not Backend.TORCH:
            raise OptionError(f"training runs on --backend torch, not {self.backend.value}")

    def options(self) -> TrainOptions:
        """What the training is asked to do, with what ``--cfg-options`` changes.

        Raises:
            OptionError: a key or value of the config cannot be read.
        """
        overrides, notes = without_no_ops(dict(parse_override(text) for text in self.cfg_options))
        for note in notes:
            report_note(note)
        return replace(self, overrides=overrides)


@app.default
def command(*, flags: Annotated[TrainFlags, FLAT]) -> int:
    """Train, or check what would be trained."""
    options = flags.options()
    if flags.device is not None:
        choose_device(flags.device)
    return show_dry_run(options) if flags.dry_run else run(options)


def choose_device(device: str) -> None:
    """Show PyTorch, which is not loaded yet, only what ``--device`` names.

    Raises:
        OptionError: it names no device.
        NoDeviceError: there is no such GPU.
    """
    gpu = gpu_index(device, "PyTorch")
    if gpu is None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return
    shown = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu) if not shown else shown[gpu] if gpu < len(shown) else ""
    if not optional("torch", extra="convert", purpose="training").cuda.is_available():
        raise NoDeviceError(
            f"PyTorch finds no GPU for --device {device}.\n  to do    leave --device out, or give --device cpu"
        )


def load_training() -> ModuleType:
    """The module that trains: needs the MMSegmentation stack and takes seconds to import."""
    optional("mmseg", extra="convert", purpose="training")
    with quiet():
        return importlib.import_module("ffnet_deploy.training.train")


def own_console() -> Console:
    """Where this process tells how it goes: of several processes that torchrun started only the first does."""
    return console if os.environ.get("RANK", "0") == "0" else Console(quiet=True)


def run(options: TrainOptions) -> int:
    """Train, and tell how it ended and what comes next."""
    result, tell = load_training().train(options, own_console()), own_console().print
    for note in result.notes:
        tell(note, soft_wrap=True, markup=False)
    if result.best is not None:
        tell(f"best mIoU {result.best:.2f}")
    tell(f"checkpoints in {result.work_dir}", soft_wrap=True, markup=False)
    if Logger.TENSORBOARD in options.loggers or (not options.loggers and find_spec("tensorboard")):
        tell(f"records: tensorboard --logdir {shlex.quote(str(result.work_dir))}", soft_wrap=True, markup=False)
    if result.stopped:
        report_note(f"stopped after {result.iterations} iterations; everything is saved: go on with --resume")
        return ExitCode.STOPPED
    tell("next:")
    for line in next_commands(options, result.config, result.checkpoint):
        tell(f"  {line}", soft_wrap=True, markup=False)
    return ExitCode.DONE


def next_commands(options: TrainOptions, config: Path, checkpoint: Path) -> list[str]:
    """Commands that export, score and report what was trained, ready to paste."""
    source = ["--config", str(config), "--checkpoint", str(checkpoint)]
    data = ["--data", str(options.data)] if options.data is not None else ["--data", "DATA"]
    for name in ("images_dir", "masks_dir", "mask_suffix", "classes"):
        if (value := getattr(options, name)) is not None:
            data += [f"--{name.replace('_', '-')}", str(value)]
    artifact = f"export/{config.stem}.onnx"
    commands = [
        ["ffnet-export", *source, *data],
        ["ffnet-eval", "--artifact", artifact, *data],
        ["ffnet-eval", *source, "--against", artifact, *data, "--html", f"{config.stem}.html"],
    ]
    return [shlex.join(command) for command in commands]


def show_dry_run(options: TrainOptions) -> int:
    """Print what a dry run found."""
    found = load_training().dry_run(options, console)
    table = Table("rate", "weight decay", "tensors", title="parameters")
    for rate, decay, tensors in found.groups:
        table.add_row(f"{rate:.3g}", f"{decay:g}", str(tensors))
    console.print(table)
    console.print(f"{found.parameters / 1e6:.2f} M parameters, loss {found.loss:.4f} before the first step")
    console.print(f"one step took {found.seconds:.2f} s and {found.memory_mib} MiB")
    if found.contact_sheet is not None:
        console.print(f"samples with their labels: {found.contact_sheet}", soft_wrap=True, markup=False)
    if not found.loss < float("inf"):
        report_error("the loss is not finite")
        return ExitCode.FAILED
    return ExitCode.DONE


def main() -> None:
    """Entry point of ``ffnet-train``."""
    run_command(app)


if __name__ == "__main__":
    main()
