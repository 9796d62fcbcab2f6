"""The panels of the help pages, and how values are read from the command line."""

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from cyclopts import Group, Parameter, Token, default_name_transform

from ffnet_deploy.artifacts import Kind, Outputs
from ffnet_deploy.core.contract import MAX_BATCH, MAX_SIZE, STRIDE, DimensionRange
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.progress import Progress
from ffnet_deploy.evaluation.data_source import DataSource
from ffnet_deploy.evaluation.datasets import Dataset, open_dataset
from ffnet_deploy.evaluation.images import MAX_PIXELS_VARIABLE
from ffnet_deploy.evaluation.prediction_files import LabelFormat, SaveOptions
from ffnet_deploy.report.write import report_files
from ffnet_deploy.segmentor.zoo import published_checkpoint

ANY_SIDE = (STRIDE, 4096)
"""Heights and widths, in pixels, that ``--dynamic`` accepts unless ``--shape`` says otherwise."""
ANY_BATCH = (1, 64)
"""Batch sizes that ``--dynamic`` accepts unless ``--batch`` says otherwise."""

MAX_NUMBER = 1_000_000_000
"""Largest whole number that an option takes, unless it has a limit of its own."""
MAX_THREADS = 1024
"""Most CPU threads within a call."""
PICTURES = Path("predictions")
"""Where predictions go when there are no labels to score by and no other place is named."""
MAX_STREAMS = 256
"""Most calls in flight at a time."""

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
Options = TypeVar("Options")


_CYCLOPTS_5 = "metavar" in signature(Parameter).parameters
"""Python 3.10 has cyclopts 4: it knows no metavar, and cannot show the default of a choice that has none."""


NOT_TYPED = Parameter(parse=False)
"""A field that the command fills in itself."""


def option(group: Group, metavar: str | None = None, **more: Any) -> Parameter:
    """A parameter of the panel `group`, whose value the help shows as `metavar`."""
    if metavar is not None and _CYCLOPTS_5:
        more["metavar"] = metavar
    return Parameter(group=group, **more)


def choice(kind: type[Enum], group: Group, name: str | None = None) -> Parameter:
    """A parameter that takes one value of `kind`, in any case; its option is called `name` where that is given."""
    values = [str(member.value) for member in kind]
    shown: dict[str, Any] = {} if _CYCLOPTS_5 else {"show_default": False}

    def converter(hint: Any, tokens: Sequence[Token]) -> Enum:
        return kind(tokens[0].value.lower())

    return Parameter(group=group, converter=converter, choices=values, name=name, name_transform=_spelling, **shown)


def parameters(**shown: Parameter) -> Callable[[type[Options]], type[Options]]:
    """Class decorator: how the options that a dataclass inherits from one of the library are typed and shown.

    Their types, defaults, checks and help texts (the docstrings below the fields) stay the library's.

    Args:
        shown: the parameter of each inherited field.
    """

    def annotate(flags: type[Options]) -> type[Options]:
        own, hints = flags.__annotations__, get_type_hints(flags)
        unlike = (hints.keys() - own.keys()) ^ shown.keys()
        assert not unlike, f"{flags.__name__}: {sorted(unlike)}"
        flags.__annotations__ = own | {name: Annotated[hints[name], parameter] for name, parameter in shown.items()}
        return flags

    return annotate


def inherited(flags: Any, options: type) -> dict[str, Any]:
    """The values of `flags` in the fields that it inherits from the dataclass `options` of the library."""
    return {one.name: getattr(flags, one.name) for one in fields(options)}


def _spelling(text: str) -> str:
    """An option or value as it is typed; values like ``OnnxRuntime`` are no two words."""
    return default_name_transform(text) if "_" in text else text.lower()


def lowered(hint: Any, tokens: Sequence[Token]) -> str:
    """The value in lower case: a converter for names that the library checks."""
    return tokens[0].value.lower()


def check_numbers(flags: Any) -> None:
    """Raise `OptionError` unless all numbers among the fields of the dataclass `flags` are finite and sane."""
    for one in fields(flags):
        value = getattr(flags, one.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise OptionError(f"--{one.name.replace('_', '-')} takes a finite number: got {value}")
        if isinstance(value, int) and abs(value) > MAX_NUMBER:
            raise OptionError(f"--{one.name.replace('_', '-')} takes a number up to {MAX_NUMBER}: got {value:.3g}")


def check_at_most(values: Iterable[int], most: int, option: str) -> None:
    """Raise `OptionError` for a value of `option` above `most`."""
    for value in values:
        if value > most:
            raise OptionError(f"{option} takes at most {most}: got {value:.3g}")


def parse_numbers(text: str, option: str, most: int = MAX_NUMBER) -> tuple[int, ...]:
    """Whole numbers from ``"1,8"``, each once.

    Raises:
        OptionError: the text is something else, or a number is above `most`.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise OptionError(f"{option} takes whole numbers with commas between them: got {text!r:.60}")
    numbers = tuple(dict.fromkeys(_whole(part) for part in parts))
    check_at_most(numbers, most, option)
    return numbers


def _whole(digits: str) -> int:
    """The number written in decimal `digits`; no larger than a number of ten digits."""
    return int(digits.lstrip("0")[:10] or 0)


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


def parse_memory(text: str, option: str) -> int:
    """Bytes from ``"1500MiB"`` or ``"2GiB"``; M, MB, G and GB mean the same.

    Raises:
        OptionError: the text is something else.
    """
    match = re.fullmatch(r"(\d+)\s*([MG])(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None or not _whole(match[1]):
        raise OptionError(f"{option} takes memory as 1500MiB or 2GiB: got {text!r:.60}")
    return _whole(match[1]) << (20 if match[2] in "mM" else 30)


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
    sides = (0, 0) if match is None else (_whole(match[1]), _whole(match[2] or match[1]))
    if 0 in sides:
        raise OptionError(f"{option} takes HEIGHTxWIDTH or one number, in pixels: got {text!r:.60}")
    check_at_most(sides, MAX_SIZE, option)
    return sides


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
        raise OptionError(f"{option} takes a number from 1, or MIN:OPT:MAX: got {text!r:.60}")
    sizes = [_whole(part.strip()) for part in parts]
    check_at_most(sizes, MAX_BATCH, option)
    return _extent(sizes, ANY_BATCH if dynamic else None, option)


def _parts(text: str, option: str) -> list[str]:
    parts = text.split(":")
    if len(parts) not in (1, 3):
        raise OptionError(f"{option} takes one size, or MIN:OPT:MAX: got {text!r:.60}")
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


def claim_report(outputs: Outputs, page: Path | None, taken: Sequence[Path | None]) -> None:
    """Claim the three files of a report at `page`, whose JSON goes out of the way of the files `taken`.

    Raises:
        OptionError, StorageError: see `Outputs.claim`; or `page` does not end in ``.html``.
    """
    if page is not None:
        *_, values = report_files(page, taken)
        outputs.claim_report(page)
        outputs.claim(values, Kind.REPORT)


CFG_OPTIONS = option(GRAPH, "KEY=VALUE", name="--cfg-options", consume_multiple=True)
"""How ``--cfg-options`` is typed and shown."""


def refresh_checkpoint(refresh: bool, checkpoint: str | None, config: str, progress: Progress) -> None:
    """Download the published checkpoint of `config` anew, where ``--refresh`` asks for it.

    Raises:
        OptionError: ``--refresh`` goes with ``--checkpoint published`` alone.
        CheckpointError: it cannot be downloaded.
    """
    if not refresh:
        return
    if checkpoint != "published":
        raise OptionError("--refresh downloads anew: it goes with --checkpoint published")
    published_checkpoint(config, progress, refresh=True)


@dataclass(frozen=True)
class PixelFlags:
    """How large an image may be."""

    max_pixels: Annotated[int | None, option(DATA, "N")] = None
    """Largest number of pixels of an image that is decoded. By default 100 million; raise it for files you trust."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.max_pixels is not None and self.max_pixels < 1:
            raise OptionError(f"--max-pixels takes a number from 1: got {self.max_pixels}")

    def allow_pixels(self) -> None:
        """Raise or lower the limit of pixels for this process, and for those that it starts."""
        if self.max_pixels is not None:
            os.environ[MAX_PIXELS_VARIABLE] = str(self.max_pixels)


@dataclass(frozen=True)
class DataFlags(PixelFlags):
    """The images to work on, labelled or not."""

    data: Annotated[Path | None, option(EVERYDAY, "PATH")] = None
    """Labelled data set: its folder, a YOLO .yaml or a COCO .json. The layout is recognised."""
    images: Annotated[Path | None, option(DATA, "PATH")] = None
    """Folder of images without labels, or one image."""
    dataset: Annotated[str | None, option(DATA, "NAME")] = None
    """What the ids in label files mean: ade20k, cityscapes, camvid, ... By default the network's own."""
    split: Annotated[str, option(DATA)] = "val"
    """Part of the data set: train, val or test."""
    images_dir: Annotated[str | None, option(DATA, "FOLDER")] = None
    """Folder of the images below --data, where it is not recognised."""
    masks_dir: Annotated[str | None, option(DATA, "FOLDER")] = None
    """Folder of the masks below --data, where it is not recognised."""
    mask_suffix: Annotated[str | None, option(DATA, "TEXT")] = None
    """What the name of a mask adds to the name of its image, for instance _mask."""
    classes: Annotated[Path | None, option(DATA, "FILE")] = None
    """Classes of the data: 'name r g b' on each line. By default the list that lies with the data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data is not None and self.images is not None:
            raise OptionError("give either --data (labelled images) or --images, not both")
        for name in ("images_dir", "masks_dir", "mask_suffix", "classes"):
            if getattr(self, name) is not None and self.data is None:
                raise OptionError(f"--{name.replace('_', '-')} describes your own data: say where it is with --data")

    @property
    def files(self) -> tuple[Path | None, ...]:
        """What is read of the data."""
        return self.data, self.images, self.classes

    def labelled(self, network: str, classes: Sequence[str]) -> Dataset | None:
        """The labelled split, for a network that predicts `classes` of the data set `network`; None without --data.

        Raises:
            OptionError: a name is unknown.
            DataError: the data cannot be read, or its classes are not the network's.
        """
        if self.data is None:
            return None
        source = DataSource(self.data, self.images_dir, self.masks_dir, self.mask_suffix, self.classes)
        return open_dataset(source, network, self.dataset, self.split, classes)


@dataclass(frozen=True)
class SaveFlags:
    """What is written of each prediction."""

    save_images: Annotated[Path | None, option(OUTPUT, "FOLDER")] = None
    """Write a picture of each image to this folder. By default predictions, where nothing else is asked for."""
    save_labels: Annotated[Path | None, option(OUTPUT, "FOLDER")] = None
    """Write the label map of each image, at its own size, to this folder."""
    save_scores: Annotated[Path | None, option(OUTPUT, "FOLDER")] = None
    """Write the probabilities of all classes to this folder: float16, one .npz file an image."""
    label_format: Annotated[LabelFormat, choice(LabelFormat, OUTPUT)] = LabelFormat.INDEXED
    """How label maps are written: PNG with the palette, or as the Cityscapes or ADE20K test servers take them."""

    def __post_init__(self) -> None:
        if self.label_format is not LabelFormat.INDEXED and self.save_labels is None:
            raise OptionError("--label-format goes with --save-labels FOLDER")

    def options(self, labelled: bool) -> SaveOptions:
        """What to write; pictures of unlabelled images in `PICTURES` where nothing else is asked for."""
        save = SaveOptions(self.save_images, self.save_labels, self.save_scores, self.label_format)
        return save if labelled or save.folders else replace(save, images=PICTURES)
