"""`python -m ffnet_deploy.scenes OUT`: write a data set of generated street scenes."""

from pathlib import Path
from typing import Annotated

import typer

from ffnet_deploy.cli.console import progress_bar, run_command
from ffnet_deploy.cli.shapes import parse_sides
from ffnet_deploy.scenes.dataset import split_seed, write_scenes
from ffnet_deploy.scenes.options import SceneOptions

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@run_command
def main(
    out: Annotated[Path, typer.Argument(help="folder to write to")],
    train: Annotated[int, typer.Option(min=0, help="training scenes")] = 1000,
    val: Annotated[int, typer.Option(min=0, help="validation scenes")] = 100,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH in pixels")] = "256x512",
    seed: Annotated[int, typer.Option(help="the same seed gives the same scenes; train and val never share one")] = 0,
) -> None:
    """Write images, annotations and classes.txt of generated street scenes."""
    options = SceneOptions(*parse_sides(size, "--size"))
    for split, count in (("train", train), ("val", val)):
        if count:
            with progress_bar(split) as progress:
                write_scenes(out, split, count, split_seed(split, seed), options, progress)


if __name__ == "__main__":
    app()
