"""``ffnet-train``: fine-tuning and training of FFNet segmentors."""

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ffnet_deploy.cli.console import console, report_error, report_note, run_command
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.quiet import quiet
from ffnet_deploy.training.options import Precision, TrainOptions, parse_override

app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)

STOPPED = 3
"""Exit code of a run that a signal ended early, with its work saved."""


@app.command()
@run_command
def command(
    config: Annotated[str, typer.Option(help="Config name or file.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    classes: Annotated[Path | None, typer.Option(help="Classes of your own data, 'name r g b' a line.")] = None,
    work_dir: Annotated[Path | None, typer.Option(help="Checkpoints and logs; by default work_dirs/CONFIG.")] = None,
    load: Annotated[
        str | None, typer.Option(help="Start weights: a file, 'pretrained' (ImageNet), 'published' or 'bundled'.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest intact checkpoint.")] = False,
    iterations: Annotated[int | None, typer.Option(help="Steps; the schedule is fitted to them.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images per process and step.")] = None,
    accumulate: Annotated[int, typer.Option(help="Steps whose gradients are summed.")] = 1,
    workers: Annotated[int | None, typer.Option(help="Processes that load images, per training process.")] = None,
    amp: Annotated[Precision | None, typer.Option(help="Automatic mixed precision.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, crops and order; by default by chance.")] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="Compile the backbone with torch.compile.")] = False,
    save_memory: Annotated[bool, typer.Option("--save-memory", help="Compute activations twice, keep none.")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Config key=value; may be repeated.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check config and data, take one step, stop.")] = False,
) -> None:
    """Train an FFNet segmentor, or fine-tune one on other data."""
    options = TrainOptions(
        config=config,
        work_dir=work_dir or Path("work_dirs") / Path(config).stem,
        data=data,
        classes=classes,
        load=load,
        resume=resume,
        iterations=iterations,
        batch=batch,
        workers=workers,
        accumulate=accumulate,
        amp=amp,
        seed=seed,
        compile=compile_,
        save_memory=save_memory,
        overrides=dict(parse_override(text) for text in set_ or []),
    )
    if dry_run:
        show_dry_run(options)
    else:
        run(options)


def load_training() -> ModuleType:
    """The module that trains: needs the MMSegmentation stack and takes seconds to import."""
    optional("mmseg", extra="convert", purpose="training")
    with quiet():
        return importlib.import_module("ffnet_deploy.training.train")


def own_console() -> Console:
    """Where this process tells how it goes: of several processes that torchrun started only the first does."""
    return console if os.environ.get("RANK", "0") == "0" else Console(quiet=True)


def run(options: TrainOptions) -> None:
    """Train, and tell how it ended; a run that a signal ended leaves with code `STOPPED`."""
    result = load_training().train(options, own_console())
    if result.best is not None:
        own_console().print(f"best mIoU {result.best:.2f}")
    own_console().print(f"checkpoints in {result.work_dir}", soft_wrap=True)
    if result.stopped:
        report_note(f"stopped after {result.iterations} iterations; everything is saved: go on with --resume")
        raise typer.Exit(STOPPED)


def show_dry_run(options: TrainOptions) -> None:
    """Print what a dry run found."""
    found = load_training().dry_run(options, console)
    table = Table("rate", "weight decay", "tensors", title="parameters")
    for rate, decay, tensors in found.groups:
        table.add_row(f"{rate:.3g}", f"{decay:g}", str(tensors))
    console.print(table)
    console.print("  ".join(f"{split}: {pairs} pairs" for split, pairs in found.pairs.items()))
    console.print(f"{found.parameters / 1e6:.2f} M parameters, loss {found.loss:.4f} before the first step")
    console.print(f"one step took {found.seconds:.2f} s and {found.memory_mib} MiB")
    if not found.loss < float("inf"):
        report_error("the loss is not finite")
        raise typer.Exit(1)


def main() -> None:
    """Entry point of ``ffnet-train``."""
    app()


if __name__ == "__main__":
    main()
