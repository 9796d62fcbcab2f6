"""`python -m ffnet_deploy.scenes OUT`: write a data set of generated street scenes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from ffnet_deploy.errors import FFNetDeployError, OptionError
from ffnet_deploy.scenes.dataset import split_seed, write_scenes
from ffnet_deploy.scenes.options import SceneOptions

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def parse_size(text: str) -> SceneOptions:
    """Scene options from `HxW`, in pixels."""
    height, cross, width = text.lower().partition("x")
    if not (cross and height.isdecimal() and width.isdecimal()):
        raise OptionError(f"size {text!r}: expected HEIGHTxWIDTH in pixels, such as 256x512")
    return SceneOptions(int(height), int(width))


@app.command()
def main(
    out: Annotated[Path, typer.Argument(help="folder to write to")],
    train: Annotated[int, typer.Option(min=0, help="training scenes")] = 1000,
    val: Annotated[int, typer.Option(min=0, help="validation scenes")] = 100,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH in pixels")] = "256x512",
    seed: Annotated[int, typer.Option(help="the same seed gives the same scenes; train and val never share one")] = 0,
) -> None:
    """Write images, annotations and classes.txt of generated street scenes."""
    with _plain_errors():
        options = parse_size(size)
        counts = {split: count for split, count in (("train", train), ("val", val)) if count}
        with Progress(console=Console(stderr=True)) as bars:
            for split, count in counts.items():
                bar = bars.add_task(split, total=count)
                write_scenes(out, split, count, split_seed(split, seed), options, lambda *_, bar=bar: bars.advance(bar))


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except FFNetDeployError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    app()
