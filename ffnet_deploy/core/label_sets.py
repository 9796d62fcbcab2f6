"""Class names and colours of the data sets, read from `classes/NAME.txt`: one `name r g b` a line."""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from ffnet_deploy.core.errors import DataError
from ffnet_deploy.core.text import read_lines


@dataclass(frozen=True)
class LabelSet:
    """Names and RGB colours (0..255) of the classes of a data set, in label order."""

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]


def parse_label_set(text: str, source: str) -> LabelSet:
    """The label set written as one `name r g b` a line; `#` starts a comment line, names may hold spaces.

    Raises:
        DataError: a line has no name or no three colour values in 0..255; `source` and the line number are named.
    """
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    rows = [_parse_row(line, f"{source}, line {number}") for number, line in lines]
    if not rows:
        raise DataError(f"{source} names no class; expected one `name r g b` a line")
    names, colours = zip(*rows, strict=True)
    if len(set(names)) != len(names):
        raise DataError(f"{source} names a class twice: {next(name for name in names if names.count(name) > 1)}")
    return LabelSet(tuple(names), tuple(colours))


def _parse_row(line: str, where: str) -> tuple[str, tuple[int, int, int]]:
    parts = line.rsplit(maxsplit=3)
    if len(parts) != 4 or not all(part.isdecimal() and int(part) <= 255 for part in parts[1:]):
        raise DataError(f"{where}: expected `name r g b` with colours in 0..255, found {line.strip()!r}")
    red, green, blue = (int(part) for part in parts[1:])
    return parts[0].strip(), (red, green, blue)


def read_label_set(path: Path) -> LabelSet:
    """The label set in the file `path`."""
    return parse_label_set("\n".join(read_lines(path, "class list")), str(path))


@cache
def label_set_names() -> tuple[str, ...]:
    """Names of the label sets that come with the package."""
    folder = resources.files("ffnet_deploy.core") / "classes"
    return tuple(sorted(Path(file.name).stem for file in folder.iterdir() if file.name.endswith(".txt")))


@cache
def label_set(name: str) -> LabelSet:
    """The label set of a data set that comes with the package: `ade20k`, `camvid`, `cityscapes` or `scenes`."""
    file = resources.files("ffnet_deploy.core") / "classes" / f"{name}.txt"
    return parse_label_set(file.read_text(encoding="utf-8"), f"{name}.txt")


def spread_palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """Well-spread colours for `count` classes that nobody gave colours."""
    return tuple(((37 * i + 70) % 256, (91 * i + 140) % 256, (173 * i + 30) % 256) for i in range(count))
