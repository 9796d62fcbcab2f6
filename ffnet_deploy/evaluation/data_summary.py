"""What was understood of a data set: layout, pairs, classes with their share of the pixels, and what looks wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ffnet_deploy.core.errors import DataError
from ffnet_deploy.core.label_maps import label_type
from ffnet_deploy.core.label_sets import LabelSet
from ffnet_deploy.evaluation.datasets import Dataset, Sample, check_range
from ffnet_deploy.evaluation.overlays import contact_sheet, write_picture

LABELS_READ = 64
"""Label maps that are read to describe a split, at even distances."""
SHEET_SAMPLES = 8
"""Samples on a contact sheet."""
_NAMED = 24
"""Classes whose shares are printed one by one."""


@dataclass(frozen=True)
class DataSummary:
    """One split of a data set, as it was understood.

    Attributes:
        split: ``"train"``, ``"val"`` or ``"test"``.
        layout: How the folder is laid out, in words.
        pairs: Number of labelled images.
        maps_read: Number of label maps whose pixels were counted.
        classes: Names, in label order.
        pixels: Number of pixels of each class in these maps.
        ignored: Number of pixels without class in these maps.
        notes: What was assumed, in words.
    """

    split: str
    layout: str
    pairs: int
    maps_read: int
    classes: tuple[str, ...]
    pixels: tuple[int, ...]
    ignored: int
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The summary in words: layout and pairs, assumptions, shares of pixels."""
        total = max(sum(self.pixels) + self.ignored, 1)
        order = sorted(range(len(self.classes)), key=lambda label: -self.pixels[label])
        shown = order if len(order) <= _NAMED else order[:_NAMED]
        shares = [f"{self.classes[label]} {100 * self.pixels[label] / total:.2f} %" for label in shown]
        rest = [f"{len(order) - len(shown)} other classes"] if len(shown) < len(order) else []
        which = "all" if self.maps_read == self.pairs else f"{self.maps_read}"
        return [
            f"{self.split}: {self.pairs} pairs, {self.layout}",
            *(f"  {note}" for note in self.notes),
            f"  pixels of {which} label maps: {', '.join(shares + rest)}; ignored {100 * self.ignored / total:.2f} %",
        ]

    def warnings(self) -> list[str]:
        """What looks wrong, a line each: classes that no label map shows."""
        absent = [name for name, count in zip(self.classes, self.pixels, strict=True) if count == 0]
        if not absent:
            return []
        shown = ", ".join(absent[:8]) + (", ..." if len(absent) > 8 else "")
        read = f"no label map of {self.split}"
        if self.maps_read < self.pairs:
            read = f"none of the {self.maps_read} label maps of {self.split} that were read"
        return [f"{len(absent)} of {len(self.classes)} classes are in {read}: {shown}"]


def summarize(dataset: Dataset, classes: Sequence[str], most: int = LABELS_READ) -> DataSummary:
    """Count the pixels of each of `classes` in at most `most` label maps of `dataset`.

    Raises:
        DataError: a label map cannot be read or holds labels that no class has, all pixels are ignored, or the label
            maps are binary ones whose 255 would be ignored.
    """
    ignored = int(np.iinfo(label_type(len(classes))).max)
    counts = np.zeros(ignored + 1, np.int64)
    chosen = spread(dataset.samples, most)
    for sample in chosen:
        labels = dataset.read_labels(sample, len(classes))
        check_range(labels, len(classes), Path(str(sample.labels)), dataset.name)
        counts += np.bincount(labels.ravel(), minlength=ignored + 1)
    folder = Path(str(chosen[0].labels)).parent
    if not counts[:ignored].any():
        raise DataError(f"every pixel of {folder} is ignored ({ignored}): nothing to learn")
    if len(classes) > 1 and counts[ignored] and not counts[1:ignored].any():
        raise DataError(
            f"the label maps in {folder} hold only 0 and {ignored}: {ignored} is ignored, so that nothing "
            f"but {classes[0]} would be learnt.\n"
            "  to do    where 255 means an object, name the greys in a classes.txt in the data folder: the lines "
            "`background 0 0 0` and `object 255 255 255`"
        )
    return DataSummary(
        split=dataset.split,
        layout=dataset.layout,
        pairs=len(dataset),
        maps_read=len(chosen),
        classes=tuple(classes),
        pixels=tuple(int(count) for count in counts[: len(classes)]),
        ignored=int(counts[ignored]),
        notes=dataset.notes,
    )


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """`count` of `samples` at even distances; all where there are fewer."""
    total = len(samples)
    return [samples[index * total // count] for index in range(count)] if count < total else list(samples)


def write_contact_sheet(path: Path, dataset: Dataset, classes: LabelSet, count: int = SHEET_SAMPLES) -> None:
    """Write a picture of `count` samples of `dataset`, tinted by class, to the PNG file `path`.

    Raises:
        DataError: a file cannot be decoded, or image and labels differ in size.
        StorageError: the picture cannot be written.
    """
    shown = []
    for sample in spread(dataset.samples, count):
        image, labels = dataset.read(sample, len(classes.classes))
        if labels is not None:
            shown.append((sample.name, image, labels))
    write_picture(path, contact_sheet(shown, classes))
