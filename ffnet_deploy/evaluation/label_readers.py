"""From the files in which labels are kept to class labels: id maps, colour masks, COCO and YOLO polygons."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.contract import IGNORE_LABEL
from ffnet_deploy.core.errors import DataError
from ffnet_deploy.core.label_maps import LabelMap, label_type
from ffnet_deploy.core.label_sets import LabelSet
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.text import read_lines
from ffnet_deploy.evaluation.images import max_pixels, read_image, read_label_map, read_label_pixels

LabelReader = Callable[[Path, Path, str, int], LabelMap]
"""From an image file, its label file, the sample's name and the network's number of classes to class labels (height,
width) of `label_type`, whose largest value is ignored."""

CITYSCAPES_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Label id of each of the 19 train ids. Source: the Cityscapes label definitions."""
LABEL_ID_END = "_gtFine_labelIds"
"""How the names of Cityscapes files with label ids end."""
_BAND_PIXELS = 4_000_000
_UNNAMED_COLOURS = {(0, 0, 0), (224, 224, 192)}
"""Colours that are ignored unless a class has them: black, and the border of PASCAL VOC's objects."""


@dataclass(frozen=True)
class LabelMaps:
    """Reads one image file of labels a sample: ids, or colours where `classes` gives the classes colours.

    Attributes:
        dataset: What stored ids mean: ADE20K counts from 1 and ignores 0, Cityscapes `labelIds` files become train ids,
            other ids are classes.
        classes: Names and colours of the data's own classes; None: colours cannot be read.
    """

    dataset: str
    classes: LabelSet | None = None

    def __call__(self, image: Path, labels: Path, name: str, classes: int) -> LabelMap:
        """The class labels in the file `labels`.

        Raises:
            DataError: it cannot be decoded, or is in colours that no class has.
        """
        if self.classes is None:
            return class_labels(read_label_map(labels), self.dataset, labels, classes)
        pixels = read_label_pixels(labels)
        if pixels.ndim == 3:
            return labels_of_colours(pixels[..., 2::-1].astype(np.uint8), self.classes, labels, classes)
        greys = {colour[0] for colour in self.classes.palette if len(set(colour)) == 1}
        if len(self.classes.palette) > 1 and len(greys) == len(self.classes.palette):  # black and white of binary masks
            return labels_of_colours(
                np.repeat(pixels[..., None], 3, axis=2).astype(np.uint8), self.classes, labels, classes
            )
        return class_labels(pixels, self.dataset, labels, classes)


def class_labels(stored: LabelMap, dataset: str, path: Path, classes: int) -> LabelMap:
    """Class labels from the ids stored in the file `path` of `dataset`; their range is not checked.

    ADE20K counts from 1 and ignores 0; Cityscapes `labelIds` files become train ids; others are taken as they are.
    What is not scored is 255 in the file where the network has at most 255 classes, and 65535 where it has more.

    Returns:
        Labels of `label_type(classes)`, uint16 also where the file holds ids that uint8 does not.
    """
    ignored = int(np.iinfo(label_type(classes)).max)
    table = np.arange(int(np.iinfo(stored.dtype).max) + 1, dtype=np.int32)
    if dataset == "ade20k":
        table = np.where((table == 0) | (table == ignored), ignored, table - 1)
    elif path.stem.endswith(LABEL_ID_END):
        table[:] = ignored
        table[list(CITYSCAPES_LABEL_IDS)] = np.arange(len(CITYSCAPES_LABEL_IDS))
    kind = stored.dtype if ignored <= IGNORE_LABEL else label_type(classes)
    labels: LabelMap = np.empty(stored.shape, kind)
    step = max(_BAND_PIXELS // max(stored.shape[1], 1), 1)  # NumPy makes eight bytes of every index
    for start in range(0, stored.shape[0], step):
        labels[start : start + step] = table[stored[start : start + step]]
    return labels


def labels_of_colours(colours: NDArray[np.uint8], classes: LabelSet, path: Path, count: int) -> LabelMap:
    """Class labels, for a network of `count` classes, of a mask `colours`, uint8 (height, width, 3), RGB.

    Black that no class has is ignored.

    Raises:
        DataError: a colour is no class's.
    """
    packed = _packed(colours)
    table = {_pack(colour): label for label, colour in enumerate(classes.palette)}
    if len(table) < len(classes.palette):
        raise DataError(f"two classes of {path.parent} have the same colour: masks in colour need one colour a class")
    found, places = np.unique(packed, return_inverse=True)
    ignored = {_pack(colour) for colour in _UNNAMED_COLOURS}
    odd = [int(value) for value in found if int(value) not in table and int(value) not in ignored]
    if odd:
        shown = ", ".join(
            f"{value >> 16} {value >> 8 & 255} {value & 255} ({int((packed == value).sum())} pixels)"
            for value in odd[:6]
        )
        raise DataError(
            f"the mask {path} has {len(odd)} colours that no class has: {shown}.\n"
            f"  expected the {len(table)} colours of the class list, red green blue\n"
            "  to do    name these classes and their colours in classes.txt, one `name r g b` a line; masks must be "
            "saved without anti-aliasing and lossy compression"
        )
    kind = label_type(max(count, len(table)))
    lookup = np.array([table.get(int(value), np.iinfo(kind).max) for value in found], kind)
    return lookup[places].reshape(packed.shape)


def _packed(colours: NDArray[np.uint8]) -> NDArray[np.int64]:
    wide = colours.astype(np.int64)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def _pack(colour: tuple[int, int, int]) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


@dataclass(frozen=True)
class PanopticMaps:
    """Reads COCO panoptic PNGs, whose colours are segment ids R + 256 G + 65536 B; segment 0 is ignored.

    Attributes:
        segments: Class of each segment id, by sample.
    """

    segments: Mapping[str, Mapping[int, int]]

    def __call__(self, image: Path, labels: Path, name: str, classes: int) -> LabelMap:
        """The class labels in the file `labels`.

        Raises:
            DataError: it is no colour image, or holds a segment that the JSON does not list.
        """
        pixels = read_label_pixels(labels)
        if pixels.ndim != 3:
            raise DataError(f"the panoptic map {labels} is not in colour; its pixels should be segment ids in RGB")
        ids = _packed(pixels[..., :3])  # BGR: blue counts 65536, red 1
        found, places = np.unique(ids, return_inverse=True)
        kind = label_type(classes)
        known = {0: int(np.iinfo(kind).max), **self.segments[name]}
        odd = [int(value) for value in found if int(value) not in known]
        if odd:
            raise DataError(f"the panoptic map {labels} holds segment {odd[0]}, which the JSON does not list")
        return np.array([known[int(value)] for value in found], kind)[places].reshape(ids.shape)


@dataclass(frozen=True)
class CocoImage:
    """Size and objects of one image of a COCO file.

    Attributes:
        size: Height and width in pixels.
        objects: Class and COCO segmentation (polygons or run lengths) of each.
    """

    size: tuple[int, int]
    objects: tuple[tuple[int, Any], ...]


@dataclass(frozen=True)
class CocoObjects:
    """Draws the objects of a COCO file, larger ones first; what lies outside all of them is `background`.

    Attributes:
        images: Size and objects by sample.
        background: Label of pixels without object.
    """

    images: Mapping[str, CocoImage]
    background: int

    def __call__(self, image: Path, labels: Path, name: str, classes: int) -> LabelMap:
        """The class labels of the sample `name`.

        Raises:
            DataError: a segmentation cannot be drawn.
            MissingPackageError: pycocotools is not installed.
        """
        masks = optional("pycocotools.mask", extra="coco", purpose="reading COCO segmentations")
        height, width = self.images[name].size
        if min(height, width) < 1 or height * width > max_pixels():
            raise DataError(f"{labels} gives {name} a size of {height}x{width} pixels, which no image has")
        drawn = np.full((height, width), self.background, label_type(classes))
        objects = []
        for label, segmentation in self.images[name].objects:
            try:
                runs = _run_lengths(masks, segmentation, height, width)
                objects.append((-int(masks.area(runs)), label, runs))
            except Exception as error:  # the C code raises nearly anything
                raise DataError(f"{labels}: a segmentation of {name} cannot be drawn: {error}") from error
        for _, label, runs in sorted(objects, key=lambda one: one[0]):
            drawn[masks.decode(runs).astype(bool)] = label
        return drawn


def _run_lengths(masks: Any, segmentation: Any, height: int, width: int) -> Any:
    """The segmentation as pycocotools keeps it. Its C code trusts what it is given, so that all is checked before.

    Raises:
        ValueError: corners or run lengths do not fit an image of that size.
    """
    if isinstance(segmentation, list):
        for polygon in segmentation:
            corners = np.array(polygon, np.float64)
            if corners.ndim != 1 or len(corners) < 6 or len(corners) % 2:
                raise ValueError("a polygon is a list of at least three corners x, y")
            x, y = corners[::2], corners[1::2]
            if not (((-width <= x) & (x <= 2 * width)).all() and ((-height <= y) & (y <= 2 * height)).all()):
                raise ValueError(f"its corners lie far outside of the image of {height}x{width}")
        return masks.merge(masks.frPyObjects(segmentation, height, width))
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"its run lengths are of size {segmentation['size']}, the image of {height}x{width}")
    counts = segmentation["counts"]
    counts = counts if isinstance(counts, list) else _decoded_counts(counts)
    if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != height * width:
        raise ValueError(f"its run lengths do not add up to the {height * width} pixels of the image")
    return masks.frPyObjects({"size": [height, width], "counts": counts}, height, width)


def _decoded_counts(text: str) -> list[int]:
    """Run lengths of COCO's compressed form: five bits a character, from the third on differences to the last but one.

    Source: pycocotools, common/maskApi.c, rleFrString.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        part = ord(character) - 48
        value |= (part & 0x1F) << shift
        shift += 5
        if part & 0x20:
            continue
        if part & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts


@dataclass(frozen=True)
class YoloPolygons:
    """Draws the polygons of YOLO label files, larger ones first; what lies outside all of them is `background`.

    Each line is a class and the corners ``x y`` of its polygon, in shares of the image's width and height. An image
    without a label file has no objects.

    Attributes:
        classes: Number of classes that labels may name.
        background: Label of pixels without object.
    """

    classes: int
    background: int

    def __call__(self, image: Path, labels: Path, name: str, classes: int) -> LabelMap:
        """The class labels of `image`.

        Raises:
            DataError: a line is no polygon, or names a class that does not exist.
        """
        height, width = read_image(image).shape[:2]
        drawn = np.full((height, width), self.background, label_type(classes))
        lines = read_lines(labels, "label file") if labels.is_file() else []
        polygons = [self._polygon(line, f"{labels}, line {i}") for i, line in enumerate(lines, 1) if line.strip()]
        masks = [(label, filled(corners * (width, height), height, width)) for label, corners in polygons]
        for label, mask in sorted(masks, key=lambda one: -int(one[1].sum())):
            drawn[mask] = label
        return drawn

    def _polygon(self, line: str, where: str) -> tuple[int, NDArray[np.float64]]:
        try:
            label, *values = (float(part) for part in line.split())
        except ValueError as error:
            raise DataError(f"{where}: expected numbers, found {line[:60]!r}") from error
        if len(values) == 4:
            raise DataError(
                f"{where} is a box, not a polygon: boxes do not say which pixels belong to an object.\n"
                "  to do    export the data set for segmentation"
            )
        if len(values) < 6 or len(values) % 2:
            raise DataError(f"{where}: expected a class and at least three corners `x y`, found {len(values)} numbers")
        if label != int(label) or not 0 <= label < self.classes:
            raise DataError(f"{where} names the class {label:g}; the data set has the classes 0..{self.classes - 1}")
        corners = np.array(values).reshape(-1, 2)
        if not (np.isfinite(corners).all() and (corners >= -0.01).all() and (corners <= 1.01).all()):
            raise DataError(f"{where}: corners are shares of width and height in 0..1, found {corners.max():g}")
        return int(label), corners


def filled(corners: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """Pixels (height, width) whose centres lie inside the polygon `corners` (n, 2), x and y, by the even-odd rule."""
    (x, y), (next_x, next_y) = corners.T, np.roll(corners, -1, axis=0).T
    centres = np.arange(height) + 0.5
    edge, row = np.nonzero((y[:, None] <= centres) != (next_y[:, None] <= centres))
    crossing = x[edge] + (centres[row] - y[edge]) / (next_y[edge] - y[edge]) * (next_x[edge] - x[edge])
    toggles = np.zeros((height, width + 1), np.uint8)
    np.bitwise_xor.at(toggles, (row, np.clip(np.ceil(crossing - 0.5), 0, width).astype(int)), 1)
    return np.bitwise_xor.accumulate(toggles, axis=1)[:, :width].astype(bool)
