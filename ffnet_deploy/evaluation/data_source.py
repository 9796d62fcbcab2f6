"""Where a data set is, what was recognised of it, and what every layout shares: splits and class lists."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ffnet_deploy.core.errors import DataError, OptionError
from ffnet_deploy.core.label_sets import LabelSet, read_label_set, spread_palette
from ffnet_deploy.core.text import read_lines
from ffnet_deploy.evaluation.label_readers import LabelReader

SPLITS = {
    name: names
    for names in (("train", "training"), ("val", "validation", "valid"), ("test", "testing"))
    for name in names
}
"""All names of the split that each name belongs to."""


@dataclass(frozen=True)
class DataSource:
    """Where a data set is, and what cannot be seen from its folders.

    Attributes:
        root: Folder of the data set, or a YOLO `.yaml` or COCO `.json` file.
        images_dir: Folder of the images below `root`; None: recognised.
        masks_dir: Folder of the masks below `root`; None: recognised.
        mask_suffix: What the name of a mask adds to the name of its image, for instance ``_mask``; None: recognised.
        classes: File with a class and its colour a line; None: that of the data set, where it has one.
        val_share: Share of the images that validate where the data set has no splits, 0..1.
        split_seed: Seed of that drawn split.
    """

    root: Path
    images_dir: str | None = None
    masks_dir: str | None = None
    mask_suffix: str | None = None
    classes: Path | None = None
    val_share: float = 0.2
    split_seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.val_share < 1:
            raise OptionError(f"the share of images that validate must lie between 0 and 1: got {self.val_share}")
        if (self.images_dir is None) != (self.masks_dir is None):
            raise OptionError("--images-dir and --masks-dir go together: name both")


@dataclass(frozen=True)
class Layout:
    """What was recognised of one split.

    Attributes:
        name: The layout in words.
        images: Image files by sample name.
        labels: Label files by sample name.
        folders: Where images and labels were looked for.
        reader: Reader of the label files; None: image files with ids or colours.
        classes: Names and colours that the data set brings; None: it names none.
        notes: What was assumed, in words.
    """

    name: str
    images: Mapping[str, Path]
    labels: Mapping[str, Path]
    folders: tuple[Path, Path]
    reader: LabelReader | None = None
    classes: LabelSet | None = None
    notes: tuple[str, ...] = ()


def drawn_split(source: DataSource, names: Sequence[str], split: tuple[str, ...]) -> tuple[set[str], str]:
    """The `names` that belong to `split` (its possible names) when the split is drawn by lot, and how, in words.

    Raises:
        DataError: there are too few, or the split is that of tests.
    """
    if "test" in split:
        raise DataError(f"{source.root} has no splits; train and val are drawn, test is not.\n  to do    --split val")
    if len(names) < 2:
        raise DataError(f"{source.root} has {len(names)} image and no splits: a split cannot be drawn")
    shuffled = sorted(names)
    random.Random(source.split_seed).shuffle(shuffled)
    count = min(max(round(source.val_share * len(shuffled)), 1), len(shuffled) - 1)
    chosen = shuffled[:count] if "val" in split else shuffled[count:]
    note = f"no splits found: {count} of {len(shuffled)} images validate, drawn by lot with seed {source.split_seed}"
    return set(chosen), note


def own_classes(source: DataSource, folder: Path | None = None) -> LabelSet | None:
    """The classes that lie with the data: `classes.txt`, CVAT's `labelmap.txt`, or Roboflow's `_classes.csv`."""
    if source.classes is not None:
        return read_label_set(source.classes)
    root = source.root if source.root.is_dir() else source.root.parent
    readers: list[tuple[Path, Callable[[Path], LabelSet]]] = [
        (root / "classes.txt", read_label_set),
        (root / "labelmap.txt", _read_cvat_classes),
        ((folder or root) / "_classes.csv", _read_roboflow_classes),
    ]
    return next((read(path) for path, read in readers if path.is_file()), None)


def _read_cvat_classes(path: Path) -> LabelSet:
    """Classes of `name:r,g,b:parts:actions` lines."""
    lines = [line for line in read_lines(path, "class list") if line.strip() and line[0] != "#"]
    try:
        rows = [line.split(":")[:2] for line in lines]
        colours = [tuple(int(part) for part in colour.split(",")) for _, colour in rows]
    except ValueError as error:
        raise DataError(f"{path}: expected `name:r,g,b::` lines, found {error}") from error
    if any(len(colour) != 3 or not all(0 <= part <= 255 for part in colour) for colour in colours):
        raise DataError(f"{path}: a colour is not of three values in 0..255")
    return LabelSet(tuple(name for name, _ in rows), tuple((c[0], c[1], c[2]) for c in colours))


def _read_roboflow_classes(path: Path) -> LabelSet:
    """Classes of a table `Pixel Value, Class`."""
    rows = [line.split(",", 1) for line in read_lines(path, "class list")[1:] if "," in line]
    names = {value.strip(): name.strip() for value, name in rows}
    if sorted(names) != sorted(str(label) for label in range(len(names))):
        raise DataError(f"{path}: expected the pixel values 0..{len(names) - 1}, found {', '.join(names)[:80]}")
    return LabelSet(tuple(names[str(label)] for label in range(len(names))), spread_palette(len(names)))
