"""Folders of labelled images: where the pairs are, and what the label values mean."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.contract import IGNORE_LABEL
from ffnet_deploy.core.errors import DataError, OptionError
from ffnet_deploy.evaluation.images import image_files, read_image, read_label_map

DATASETS = ("ade20k", "cityscapes", "camvid", "scenes", "custom")
"""Names that tell what label values mean."""

_SPLITS = {
    name: names for names in (("train", "training"), ("val", "validation"), ("test", "testing")) for name in names
}
_IMAGE_END = "_leftImg8bit"
_TRAIN_ID_END = "_gtFine_labelTrainIds"
_LABEL_ID_END = "_gtFine_labelIds"
_CITYSCAPES_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Label id of each of the 19 train ids. Source: the Cityscapes label definitions."""
_LAYOUTS = """expected one of
    images/SPLIT and annotations/SPLIT            (ADE20K, CamVid, folders of your own)
    leftImg8bit/SPLIT/CITY and gtFine/SPLIT/CITY  (Cityscapes)"""


@dataclass(frozen=True)
class Sample:
    """One image and, where there is one, its label map.

    Attributes:
        image: the image file.
        labels: the label map's file, or None where the image is not labelled.
        name: unique in its data set, without suffix; ``/`` separates sub-folders.
    """

    image: Path
    labels: Path | None
    name: str


@dataclass(frozen=True)
class Dataset:
    """The samples of one split.

    Attributes:
        name: one of `DATASETS`: what the label values mean.
        root: the folder it was read from.
        split: ``"train"``, ``"val"`` or ``"test"``; empty for images without labels.
        samples: sorted by name of image file.
    """

    name: str
    root: Path
    split: str
    samples: tuple[Sample, ...]

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

    def read(self, sample: Sample, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """The image, uint8 (height, width, 3) BGR, and its labels, uint8 (height, width), or None.

        Labels are in 0..classes-1, or 255 where nothing is scored.

        Raises:
            DataError: a file cannot be decoded, the sizes differ, or labels are out of range.
        """
        image = read_image(sample.image)
        if sample.labels is None:
            return image, None
        labels = class_labels(read_label_map(sample.labels), self.name, sample.labels)
        check_size(image, labels, sample)
        check_range(labels, classes, sample.labels, self.name)
        return image, labels


def class_labels(stored: NDArray[np.uint8], dataset: str, path: Path) -> NDArray[np.uint8]:
    """Class labels (0.., 255 ignored) from the ids stored in the file `path` of `dataset`.

    ADE20K counts from 1 and ignores 0; Cityscapes `labelIds` files become train ids; others are taken as they are.
    """
    if dataset == "ade20k":
        return shifted_down(stored)
    return _train_ids()[stored] if path.stem.endswith(_LABEL_ID_END) else stored


def shifted_down(stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every id less one; 0 and 255 become 255 (ignored)."""
    table = np.arange(-1, IGNORE_LABEL, dtype=np.int16) % 256
    table[IGNORE_LABEL] = IGNORE_LABEL
    return table.astype(np.uint8)[stored]


def _train_ids() -> NDArray[np.uint8]:
    table = np.full(256, IGNORE_LABEL, np.uint8)
    table[list(_CITYSCAPES_LABEL_IDS)] = np.arange(len(_CITYSCAPES_LABEL_IDS))
    return table


def check_size(image: NDArray[np.uint8], labels: NDArray[np.uint8], sample: Sample) -> None:
    """Raise `DataError` unless image and labels have the same height and width."""
    if image.shape[:2] != labels.shape:
        raise DataError(
            f"image and label map of {sample.name} differ in size (width x height):\n"
            f"  image    {image.shape[1]}x{image.shape[0]}  {sample.image}\n"
            f"  labels   {labels.shape[1]}x{labels.shape[0]}  {sample.labels}\n"
            "  to do    pair the image with its own label map; resize label maps with nearest neighbour only"
        )


def check_range(labels: NDArray[np.uint8], classes: int, path: Path, dataset: str) -> None:
    """Raise `DataError`, with the likely cause, unless all `labels` are in 0..classes-1 or 255."""
    pixels = np.bincount(labels.ravel(), minlength=256)
    wrong = [int(label) for label in np.flatnonzero(pixels[:IGNORE_LABEL]) if label >= classes]
    if not wrong:
        return
    shift = 1 if dataset == "ade20k" else 0
    shown = ", ".join(f"{label + shift} ({pixels[label]} pixels)" for label in wrong[:8])
    more = f" and {len(wrong) - 8} more" if len(wrong) > 8 else ""
    raise DataError(
        f"{path} holds ids that the network's {classes} classes do not have: {shown}{more}.\n"
        f"  expected {shift}..{classes - 1 + shift}, and {0 if shift else IGNORE_LABEL} for what is not scored\n"
        f"  to do    {_range_hint(wrong, classes, dataset)}"
    )


def _range_hint(wrong: list[int], classes: int, dataset: str) -> str:
    if dataset == "cityscapes" or (classes == len(_CITYSCAPES_LABEL_IDS) and max(wrong) <= max(_CITYSCAPES_LABEL_IDS)):
        return (
            "these may be Cityscapes label ids; the 19 classes need train ids: keep the official file names "
            "(*_gtFine_labelIds.png are mapped) or convert them"
        )
    if wrong == [classes] and dataset != "ade20k":
        return "labels that count from 1, with 0 for what is not scored, need --dataset ade20k"
    return "check that the labels belong to the network's classes"


def open_dataset(root: Path, network: str, dataset: str | None = None, split: str = "val") -> Dataset:
    """The labelled images of one split below `root`, in whichever layout the folder has.

    Args:
        root: folder of the data set.
        network: the data set whose classes the network predicts (`Contract.dataset`).
        dataset: what the label values mean, one of `DATASETS`; None takes `network`, which must fit the layout.
        split: ``train``, ``val`` or ``test``, or their long forms.

    Raises:
        OptionError: `dataset` or `split` is not a known name.
        DataError: the folder is missing, empty, in another layout, or images and labels do not pair up.
    """
    names = _split_names(split)
    if dataset is not None and dataset not in DATASETS:
        raise OptionError(f"unknown data set {dataset!r}; expected one of {', '.join(DATASETS)}")
    _check_root(root)
    if (root / "leftImg8bit").is_dir():
        _check_cityscapes_fits(root, network, dataset)
        return Dataset(dataset or "cityscapes", root, names[0], _cityscapes_samples(root, names))
    if (root / "images").is_dir() and (root / "annotations").is_dir():
        return Dataset(dataset or network, root, names[0], _paired_samples(root, names))
    raise DataError(f"{root} is not laid out as a data set; {_LAYOUTS}{_nested_hint(root)}")


def open_images(path: Path, leave_out: Path | None = None) -> Dataset:
    """The images below the folder `path`, or the one image file `path`, without labels.

    Args:
        path: folder or file.
        leave_out: folder below `path` whose images do not count: where pictures are written.

    Raises:
        DataError: nothing is there, or the folder holds no image.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist.\n  to do    check the path given with --images")
    files = image_files(path) if path.is_dir() else [path]
    if leave_out is not None and path.is_dir():
        files = [file for file in files if leave_out.resolve() not in file.resolve().parents]
    if not files:
        raise DataError(f"no images below {path}.\n  to do    give a folder with .jpg, .png, .bmp, .tif or .webp files")
    base = path if path.is_dir() else path.parent
    names = _unique_names(files, base)
    return Dataset("custom", path, "", tuple(Sample(file, None, name) for file, name in zip(files, names, strict=True)))


def _unique_names(files: list[Path], base: Path) -> list[str]:
    """Paths below `base` without suffix; with it where two files would share a name."""
    relative = [file.relative_to(base) for file in files]
    count = Counter(path.with_suffix("") for path in relative)
    return [(path.with_suffix("") if count[path.with_suffix("")] == 1 else path).as_posix() for path in relative]


def _split_names(split: str) -> tuple[str, ...]:
    if split not in _SPLITS:
        raise OptionError(f"unknown split {split!r}; expected train, val or test")
    return _SPLITS[split]


def _check_root(root: Path) -> None:
    if not root.is_dir():
        raise DataError(f"the data folder {root} does not exist.\n  to do    check the path given with --data")
    if next(root.iterdir(), None) is None:
        raise DataError(f"the data folder {root} is empty; {_LAYOUTS}")


def _nested_hint(root: Path) -> str:
    for child in sorted(root.iterdir()):
        if (child / "leftImg8bit").is_dir() or (child / "images").is_dir():
            return f"\n  to do    perhaps --data {child}"
    return ""


def _check_cityscapes_fits(root: Path, network: str, dataset: str | None) -> None:
    if dataset is None and network not in ("cityscapes", "custom"):
        raise DataError(
            f"{root} is laid out as Cityscapes, but the network predicts the classes of {network}.\n"
            "  to do    give the data the network was trained for, or say what the labels mean with --dataset"
        )


def _split_folder(parent: Path, names: Iterable[str]) -> Path:
    folder = next((parent / name for name in names if (parent / name).is_dir()), None)
    if folder is None:
        found = sorted(path.name for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
        raise DataError(
            f"{parent} has no folder {' or '.join(names)}; found {', '.join(found) or 'none'}.\n"
            "  to do    choose the split with --split, or check the data folder"
        )
    return folder


def _paired_samples(root: Path, names: tuple[str, ...]) -> tuple[Sample, ...]:
    images = _split_folder(root / "images", names)
    annotations = _split_folder(root / "annotations", names)
    return _paired(images, _by_name(images, ""), annotations, _by_name(annotations, ""))


def _cityscapes_samples(root: Path, names: tuple[str, ...]) -> tuple[Sample, ...]:
    images = _split_folder(root / "leftImg8bit", names)
    annotations = _split_folder(root / "gtFine", names)
    labels = _by_name(annotations, _LABEL_ID_END) | _by_name(annotations, _TRAIN_ID_END)
    return _paired(images, _by_name(images, _IMAGE_END), annotations, labels)


def _by_name(folder: Path, ending: str) -> dict[str, Path]:
    """Image files below `folder` whose name ends with `ending`, by their path without it and without suffix."""
    files = [file for file in image_files(folder) if file.stem.endswith(ending)]
    names = [file.relative_to(folder).with_suffix("").as_posix().removesuffix(ending) for file in files]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{folder} holds {twice[0]} twice, with different suffixes.\n  to do    remove one of them")
    return dict(zip(names, files, strict=True))


def _paired(
    image_folder: Path, images: Mapping[str, Path], label_folder: Path, labels: Mapping[str, Path]
) -> tuple[Sample, ...]:
    if not images:
        raise DataError(f"no images below {image_folder}.\n  to do    check the data folder and --split")
    without_labels = sorted(images.keys() - labels.keys())
    without_image = sorted(labels.keys() - images.keys())
    if without_labels or without_image:
        lines = _missing(without_labels, len(images), "images", f"no label map below {label_folder}")
        lines += _missing(without_image, len(labels), "label maps", f"no image below {image_folder}")
        raise DataError(
            "images and label maps do not pair up:\n" + lines + "  to do    complete the folders, or take the rest out"
        )
    return tuple(Sample(images[name], labels[name], name) for name in sorted(images))


def _missing(names: list[str], total: int, what: str, lack: str) -> str:
    if not names:
        return ""
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"  {len(names)} of {total} {what} have {lack}: {shown}\n"
