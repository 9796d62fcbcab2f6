"""The panels of the help pages, and how values are read from the command line."""

import re
from collections.abc import Sequence
from enum import Enum
from functools import partial
from typing import Any, TypeVar

from cyclopts import Group, Parameter, Token

from ffnet_deploy.core.contract import STRIDE, DimensionRange
from ffnet_deploy.core.errors import OptionError

ANY_SIDE = (STRIDE, 4096)
"""Heights and widths, in pixels, that ``--dynamic`` accepts unless ``--shape`` says otherwise."""
ANY_BATCH = (1, 64)
"""Batch sizes that ``--dynamic`` accepts unless ``--batch`` says otherwise."""

EVERYDAY = Group("Everyday options", sort_key=0)
GRAPH = Group("Graph", sort_key=1)
PRECISION = Group("Precision", sort_key=2)
CALIBRATION = Group("Calibration (INT8, FP8)", sort_key=3)
ENGINE = Group("Engine", sort_key=4)
DATA = Group("Data", sort_key=5)
SCHEDULE = Group("Training", sort_key=6)
PROTOCOL = Group("Protocol", sort_key=5.5)
MEASUREMENT = Group("Measurement", sort_key=7)
OUTPUT = Group("Output", sort_key=8)

Choice = TypeVar("Choice", bound=Enum)


def choice(kind: type[Enum], group: Group) -> Parameter:
    """A parameter that takes one value of `kind`, in any case."""
    values = [str(member.value) for member in kind]
    return Parameter(group=group, converter=partial(_member, kind), choices=values)


def _member(kind: type[Choice], hint: Any, tokens: Sequence[Token]) -> Choice:
    return kind(tokens[0].value.lower())


def lowered(hint: Any, tokens: Sequence[Token]) -> str:
    """The value in lower case: a converter for names that the library checks."""
    return tokens[0].value.lower()


def parse_numbers(text: str, option: str) -> tuple[int, ...]:
    """Whole numbers from ``"1,8"``, each once.

    Raises:
        OptionError: the text is something else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise OptionError(f"{option} takes whole numbers with commas between them: got {text!r}")
    return tuple(dict.fromkeys(int(part) for part in parts))


def parse_choices(text: str, kind: type[Choice], option: str) -> tuple[Choice, ...]:
    """Members of `kind` by their values in any case, with commas between them, each once.

    Raises:
        OptionError: a value is not one of `kind`.
    """
    parts = [part.strip() for part in text.split(",")]
    try:
        return tuple(dict.fromkeys(kind(part.lower()) for part in parts))
    except ValueError as error:  # an enumeration may know old spellings
        values = ", ".join(member.value for member in kind)
        raise OptionError(f"{option} takes {values}, with commas between them: got {text!r}") from error


def parse_sizes(text: str, option: str) -> tuple[tuple[int, int], ...]:
    """(height, width) of each size in ``"512x512,512x1024"``, each once.

    Raises:
        OptionError: the text is something else.
    """
    return tuple(dict.fromkeys(parse_sides(part, option) for part in text.split(",")))


def parse_sides(text: str, option: str) -> tuple[int, int]:
    """(height, width) from ``"1024"`` or ``"512x1024"``.

    Raises:
        OptionError: the text is neither.
    """
    match = re.fullmatch(r"(\d+)(?:[xX,](\d+))?", text.strip())
    if match is None or 0 in (int(match[1]), int(match[2] or match[1])):
        raise OptionError(f"{option} takes HEIGHTxWIDTH or one number, in pixels: got {text!r}")
    return int(match[1]), int(match[2] or match[1])


def parse_shape(text: str, dynamic: bool, option: str = "--shape") -> tuple[DimensionRange, DimensionRange]:
    """Accepted heights and widths from ``HEIGHTxWIDTH`` or ``MIN:OPT:MAX`` of such sizes.

    Args:
        text: what the user gave.
        dynamic: widen one size to the range `ANY_SIDE` around it.
        option: its name, for errors.

    Raises:
        OptionError: the text is neither, or the sizes do not rise.
    """
    sizes = [parse_sides(part, option) for part in _parts(text, option)]
    heights, widths = [size[0] for size in sizes], [size[1] for size in sizes]
    return _extent(heights, ANY_SIDE if dynamic else None, option), _extent(
        widths, ANY_SIDE if dynamic else None, option
    )


def parse_batch(text: str, dynamic: bool, option: str = "--batch") -> DimensionRange:
    """Accepted batch sizes from ``N`` or ``MIN:OPT:MAX``.

    Raises:
        OptionError: the text is neither, or the numbers do not rise.
    """
    parts = _parts(text, option)
    if not all(re.fullmatch(r"[1-9]\d*", part.strip()) for part in parts):
        raise OptionError(f"{option} takes a number from 1, or MIN:OPT:MAX: got {text!r}")
    return _extent([int(part) for part in parts], ANY_BATCH if dynamic else None, option)


def _parts(text: str, option: str) -> list[str]:
    parts = text.split(":")
    if len(parts) not in (1, 3):
        raise OptionError(f"{option} takes one size, or MIN:OPT:MAX: got {text!r}")
    return parts


def _extent(values: list[int], around: tuple[int, int] | None, option: str) -> DimensionRange:
    try:
        if len(values) == 3:
            return DimensionRange(*values)
        if around is None:
            return DimensionRange.fixed(values[0])
        return DimensionRange(min(around[0], values[0]), values[0], max(around[1], values[0]))
    except OptionError as error:
        raise OptionError(f"{option}: {error}") from error
