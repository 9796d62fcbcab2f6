"""`python -m scenes OUT`: write a data set of generated street scenes."""

import argparse
import re
import sys
from pathlib import Path

from ffnet_deploy.core.errors import FFNetDeployError, OptionError
from scenes.dataset import split_seed, write_scenes
from scenes.options import SceneOptions


def parse_size(text: str) -> SceneOptions:
    """The size written as HEIGHTxWIDTH, in pixels.

    Raises:
        OptionError: the text is something else, or the generator cannot draw that size.
    """
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if match is None:
        raise OptionError(f"--size takes HEIGHTxWIDTH in pixels, as 256x512: got {text!r}")
    return SceneOptions(int(match[1]), int(match[2]))


def main() -> int:
    """Write the data set that the command line asks for; 0, or 1 after an error was printed."""
    parser = argparse.ArgumentParser(prog="python -m scenes", description="Write generated street scenes with labels.")
    parser.add_argument("out", type=Path, help="folder to write images, annotations and classes.txt to")
    parser.add_argument("--train", type=int, default=1000, help="number of training scenes (default: %(default)s)")
    parser.add_argument("--val", type=int, default=100, help="number of validation scenes (default: %(default)s)")
    parser.add_argument("--size", default="256x512", help="HEIGHTxWIDTH in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed; splits never share a scene (default: %(default)s)")
    arguments = parser.parse_args()

    def show(stage: str, done: float = 0, total: float | None = None) -> None:
        if total is not None and sys.stderr.isatty():
            print(f"\r{stage}: {done:g} of {total:g}", end="" if done < total else "\n", file=sys.stderr)

    try:
        options = parse_size(arguments.size)
        for split, count in (("train", arguments.train), ("val", arguments.val)):
            if count:
                write_scenes(arguments.out, split, count, split_seed(split, arguments.seed), options, show)
    except FFNetDeployError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
