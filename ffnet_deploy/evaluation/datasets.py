"""Folders of labelled images: where the pairs are, and what the label values mean."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.errors import DataError, OptionError
from ffnet_deploy.core.label_maps import LabelMap, ignore_label, label_type
from ffnet_deploy.core.label_sets import LabelSet, label_set, label_set_names
from ffnet_deploy.core.text import shown_line
from ffnet_deploy.evaluation.data_source import SPLITS, DataSource, Layout
from ffnet_deploy.evaluation.images import image_files, read_image
from ffnet_deploy.evaluation.label_readers import CITYSCAPES_LABEL_IDS, LabelMaps, LabelReader
from ffnet_deploy.evaluation.layouts import ade20k_hint, find_layout

DATASETS = ("ade20k", "cityscapes", "camvid", "scenes", "custom")
"""Names that tell what label values mean."""


@dataclass(frozen=True)
class Sample:
    """One image and, where there is one, its label map.

    Attributes:
        image: The image file.
        labels: The label map's file, or None where the image is not labelled.
        name: Unique in its data set, without suffix; ``/`` separates sub-folders.
    """

    image: Path
    labels: Path | None
    name: str


@dataclass(frozen=True)
class Dataset:
    """The samples of one split.

    Attributes:
        name: One of `DATASETS`: it says what the label values mean.
        root: The folder it was read from.
        split: ``"train"``, ``"val"`` or ``"test"``; empty for images without labels.
        samples: Sorted by name of image file.
        layout: How the folder is laid out, in words.
        label_set: Classes and colours that lie with the data; None: it names none.
        reader: Reads class labels from a sample's files; None: label maps whose ids mean what `name` says.
        notes: What was assumed to read it, in words.
    """

    name: str
    root: Path
    split: str
    samples: tuple[Sample, ...]
    layout: str = ""
    label_set: LabelSet | None = None
    reader: LabelReader | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    def limited(self, count: int | None) -> "Dataset":
        """The first `count` samples, or all of them for None.

        Raises:
            OptionError: `count` is less than 1.
        """
        if count is not None and count < 1:
            raise OptionError(f"at least one image must be scored: got a limit of {count}")
        return replace(self, samples=self.samples[:count])

    def read(self, sample: Sample, classes: int) -> tuple[NDArray[np.uint8], LabelMap | None]:
        """The image, uint8 (height, width, 3) BGR, and its labels (height, width), or None.

        Labels are in 0..classes-1, or the type's largest value (255; 65535 above 255 classes) where nothing is scored.

        Raises:
            DataError: a file cannot be decoded, the sizes differ, or labels are out of range.
        """
        image = read_image(sample.image)
        if sample.labels is None:
            return image, None
        labels = self.read_labels(sample, classes)
        check_size(image, labels, sample)
        check_range(labels, classes, sample.labels, self.name)
        return image, labels.astype(label_type(classes), copy=False)

    def read_labels(self, sample: Sample, classes: int) -> LabelMap:
        """The labels (height, width) of a labelled `sample` for a network of so many classes; no range is checked.

        Raises:
            DataError: its file cannot be decoded.
        """
        assert sample.labels is not None, f"{sample.image} is not labelled"
        return (self.reader or LabelMaps(self.name))(sample.image, sample.labels, sample.name, classes)


def check_size(image: NDArray[np.uint8], labels: LabelMap, sample: Sample) -> None:
    """Raise `DataError` unless image and labels have the same height and width."""
    if image.shape[:2] != labels.shape:
        raise DataError(
            f"image and label map of {sample.name} differ in size (width x height):\n"
            f"  image    {image.shape[1]}x{image.shape[0]}  {sample.image}\n"
            f"  labels   {labels.shape[1]}x{labels.shape[0]}  {sample.labels}\n"
            "  to do    pair the image with its own label map; resize label maps with nearest neighbour only"
        )


def check_range(labels: LabelMap, classes: int, path: Path, dataset: str) -> None:
    """Raise `DataError`, with the likely cause, unless all `labels` are in 0..classes-1 or ignored."""
    ignored = int(np.iinfo(label_type(classes)).max)
    pixels = np.zeros(ignore_label(labels) + 1, np.int64)
    for row in labels:
        pixels += np.bincount(row, minlength=len(pixels))
    wrong = [int(label) for label in np.flatnonzero(pixels) if label >= classes and label != ignored]
    if not wrong:
        return
    shift = 1 if dataset == "ade20k" else 0
    shown = ", ".join(f"{label + shift} ({pixels[label]} pixels)" for label in wrong[:8])
    more = f" and {len(wrong) - 8} more" if len(wrong) > 8 else ""
    raise DataError(
        f"{path} holds ids that the network's {classes} classes do not have: {shown}{more}.\n"
        f"  expected {shift}..{classes - 1 + shift}, and {0 if shift else ignored} for what is not scored\n"
        f"  to do    {_range_hint(wrong, classes, dataset)}"
    )


def _range_hint(wrong: list[int], classes: int, dataset: str) -> str:
    if dataset == "cityscapes" or (classes == len(CITYSCAPES_LABEL_IDS) and max(wrong) <= max(CITYSCAPES_LABEL_IDS)):
        return (
            "these may be Cityscapes label ids; the 19 classes need train ids: keep the official file names "
            "(*_gtFine_labelIds.png are mapped) or convert them"
        )
    if wrong == [classes] and dataset != "ade20k":
        return "labels that count from 1, with 0 for what is not scored, need --dataset ade20k"
    return "check that the labels belong to the network's classes"


def open_dataset(
    source: Path | DataSource,
    network: str,
    dataset: str | None = None,
    split: str = "val",
    classes: Sequence[str] | None = None,
) -> Dataset:
    """The labelled images of one split of `source`, in whichever layout it has.

    Args:
        source: folder or file of the data set, or that with what its folders do not tell.
        network: the data set whose classes the network predicts (`Contract.dataset`).
        dataset: what stored ids mean, one of `DATASETS`; None takes `network`, which must fit the layout.
        split: ``train``, ``val`` or ``test``, or their long forms.
        classes: names that the data must have, where it names any; None: any names will do.

    Raises:
        OptionError: `dataset` or `split` is not a known name.
        DataError: the folder is missing, empty, in another layout, images and labels do not pair up, or the data's
            classes are not `classes`.
    """
    source = source if isinstance(source, DataSource) else DataSource(source)
    if split not in SPLITS:
        raise OptionError(f"unknown split {split!r}; expected train, val or test")
    if dataset is not None and dataset not in DATASETS:
        raise OptionError(f"unknown data set {dataset!r}; expected one of {', '.join(DATASETS)}")
    names = SPLITS[split]
    try:
        layout = find_layout(source, names)
    except OSError as error:  # a folder without permission, or a name in a file that no file can have
        named = shown_line(str(error.filename or source.root))
        raise DataError(f"{named:.200} cannot be read: {error.strerror}.\n  to do    check --data") from error
    if layout.name == "Cityscapes":
        _check_cityscapes_fits(source.root, network, dataset)
    if classes is not None and layout.classes is not None:
        check_classes(layout.classes.classes, classes, source.root)
    meaning = dataset or _meaning(layout, network)
    return Dataset(
        name=meaning,
        root=source.root,
        split=names[0],
        samples=_paired(layout),
        layout=layout.name,
        label_set=layout.classes,
        reader=layout.reader or LabelMaps(meaning, layout.classes),
        notes=layout.notes,
    )


def _meaning(layout: Layout, network: str) -> str:
    """What stored ids mean: the layout's own, the classes that lie with the data, or the network's data set."""
    if layout.name == "Cityscapes":
        return "cityscapes"
    if layout.classes is None:
        return network
    known = network in label_set_names() and label_set(network).classes == layout.classes.classes
    return network if known else "custom"


def check_classes(found: Sequence[str], expected: Sequence[str], root: Path) -> None:
    """Raise `DataError` unless the classes `found` with the data in `root` are the `expected` ones, in order."""
    if list(found) == list(expected):
        return
    odd = next(
        (i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), min(len(found), len(expected))
    )
    theirs, ours = (names[odd] if odd < len(names) else "nothing" for names in (found, expected))
    raise DataError(
        f"the classes of {root} are not the network's: {len(found)} against {len(expected)}, and class {odd} is "
        f"{theirs!r} in the data, {ours!r} in the network.\n"
        "  to do    use the data set that the network was trained for, or correct its class list"
    )


def open_images(path: Path, leave_out: Sequence[Path] = ()) -> Dataset:
    """The images below the folder `path`, the one image file `path`, or those that the pattern `path` matches.

    Args:
        path: folder, file, or pattern (``photos/*.jpg``, ``**`` for any depth).
        leave_out: folders below `path` whose images do not count: where predictions are written.

    Raises:
        DataError: nothing is there, or the folder holds no image.
    """
    matches = [] if path.exists() else sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    if not path.exists() and not matches:
        raise DataError(f"{path} does not exist.\n  to do    check the path")
    files = image_files(path) if path.is_dir() else matches or [path]
    if path.is_dir():
        written = {folder.resolve() for folder in leave_out}
        files = [file for file in files if written.isdisjoint(file.resolve().parents)]
    if not files:
        raise DataError(f"no images below {path}.\n  to do    give a folder with .jpg, .png, .bmp, .tif or .webp files")
    base = path if path.is_dir() else Path(os.path.commonpath([file.parent for file in files]))
    relative = [file.relative_to(base) for file in files]
    count = Counter(path.with_suffix("") for path in relative)  # two files may differ by their suffix alone
    names = [(path.with_suffix("") if count[path.with_suffix("")] == 1 else path).as_posix() for path in relative]
    return Dataset("custom", path, "", tuple(Sample(file, None, name) for file, name in zip(files, names, strict=True)))


def _check_cityscapes_fits(root: Path, network: str, dataset: str | None) -> None:
    if dataset is None and network not in ("cityscapes", "custom"):
        raise DataError(
            f"{root} is laid out as Cityscapes, but the network predicts the classes of {network}.\n"
            "  to do    give the data the network was trained for, or say what the labels mean with --dataset"
        )


def _paired(layout: Layout) -> tuple[Sample, ...]:
    images, labels = layout.images, layout.labels
    image_folder, label_folder = layout.folders
    if not images:
        raise DataError(f"no images below {image_folder}.\n  to do    check the data folder and --split")
    without_labels = sorted(images.keys() - labels.keys())
    without_image = sorted(labels.keys() - images.keys())
    if without_labels or without_image:
        if any(name.endswith("_seg") for name in without_labels):
            raise DataError(f"{image_folder} mixes images and *_seg.png files.{ade20k_hint(image_folder)}")
        lines = _missing(without_labels, len(images), "images", f"no label map below {label_folder}")
        lines += _missing(without_image, len(labels), "label maps", f"no image below {image_folder}")
        raise DataError(
            "images and label maps do not pair up:\n"
            + lines
            + "  to do    complete the folders, or take the rest out; "
            "names that differ by an ending need --mask-suffix"
        )
    return tuple(Sample(images[name], labels[name], name) for name in sorted(images))


def _missing(names: list[str], total: int, what: str, lack: str) -> str:
    if not names:
        return ""
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"  {len(names)} of {total} {what} have {lack}: {shown}\n"
