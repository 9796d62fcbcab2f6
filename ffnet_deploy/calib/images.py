"""The images that a network is calibrated on: which of a data set's, and how the network sees them.

A list names images of a data set by a rule on their file names, so that the same ones are picked everywhere.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.calib.collect import is_constant
from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.errors import DataError, OptionError
from ffnet_deploy.core.text import read_lines
from ffnet_deploy.evaluation.datasets import Dataset, Sample
from ffnet_deploy.evaluation.images import read_image
from ffnet_deploy.evaluation.preprocessing import network_input, resize_for_test, resize_image
from ffnet_deploy.evaluation.windows import window_boxes

DEFAULT_COUNT = 64
"""Images when no number is asked for."""
MOST_UNUSABLE = 0.1
"""Share of the images looked at that may be unreadable or constant."""
_POOL = 16
"""Label maps read for each image wanted: enough to meet rare classes without reading a whole data set."""


@dataclass(frozen=True)
class Rule:
    """How many of the images whose file names fit a pattern: evenly spaced among them, sorted by name."""

    pattern: str
    count: int

    def select(self, samples: Sequence[Sample]) -> list[Sample]:
        """The samples that the rule picks."""
        fitting = [sample for sample in samples if fnmatchcase(sample.image.name, self.pattern)]
        return _evenly(sorted(fitting, key=lambda sample: sample.image.name), self.count)


@dataclass(frozen=True)
class ImageList:
    """Rules that name images of a data set.

    Attributes:
        path: Path of the file that they were read from.
        rules: The patterns in the order of the file.
    """

    path: Path
    rules: tuple[Rule, ...]

    @property
    def count(self) -> int:
        """Images that the rules ask for."""
        return sum(rule.count for rule in self.rules)

    def select(self, samples: Sequence[Sample]) -> list[Sample]:
        """The samples that the rules pick, each once; rules take turns, so that the first few are mixed too.

        Raises:
            DataError: no sample fits.
        """
        turns = zip_longest(*(rule.select(samples) for rule in self.rules))
        chosen = dict.fromkeys(sample for turn in turns for sample in turn if sample is not None)
        if not chosen:
            raise DataError(
                f"none of {len(samples)} images fits the list {self.path} (first pattern: {self.rules[0].pattern}).\n"
                "  to do    name the list of this data set, and its training split"
            )
        return list(chosen)


def read_image_list(path: Path) -> ImageList:
    """The list in the text file `path`: one `PATTERN [COUNT]` a line, ``#`` before comments.

    Raises:
        DataError: the file is missing or empty, or a line is neither.
    """
    rules = []
    for number, line in enumerate(read_lines(path, "image list"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        pattern, *rest = line.split()
        if len(rest) > 1 or (rest and not (rest[0].isdecimal() and int(rest[0]) > 0)):
            raise DataError(f"{path}, line {number}: expected `PATTERN [COUNT]`, found {line.strip()!r}")
        rules.append(Rule(pattern, int(rest[0]) if rest else 1))
    if not rules:
        raise DataError(f"the image list {path} names no image; expected one `PATTERN [COUNT]` a line")
    return ImageList(path, tuple(rules))


@dataclass(frozen=True)
class CalibrationImages(Sequence[NDArray[Any]]):
    """Network inputs, each read from its file when it is asked for.

    Attributes:
        paths: Image files.
        contract: Contract of the network that calibrates on them.
        notes: What was skipped or missing, in words.
    """

    paths: tuple[Path, ...]
    contract: Contract
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> NDArray[Any]: ...

    @overload
    def __getitem__(self, index: slice) -> "CalibrationImages": ...

    def __getitem__(self, index: "int | slice") -> "NDArray[Any] | CalibrationImages":
        if isinstance(index, slice):
            return CalibrationImages(self.paths[index], self.contract, self.notes)
        position = range(len(self.paths))[index]
        return shown_to_network(read_image(self.paths[position]), self.contract, position)


def shown_to_network(image: NDArray[np.uint8], contract: Contract, number: int = 0) -> NDArray[Any]:
    """`image`, uint8 (height, width, 3) BGR, as a network input: resized by the test protocol, then to fit the network.

    Of sliding windows one is taken, another for each `number`; the smallest accepted batch is filled with copies.
    """
    protocol = contract.protocol
    shown = resize_for_test(image, protocol)
    if protocol.mode == "slide" and protocol.crop and protocol.stride:
        boxes = window_boxes((shown.shape[0], shown.shape[1]), protocol.crop, protocol.stride)
        box = boxes[number % len(boxes)]
        shown = np.ascontiguousarray(shown[box.top : box.bottom, box.left : box.right])
    if not (shown.shape[0] in contract.height and shown.shape[1] in contract.width):
        shown = resize_image(shown, (contract.height.opt, contract.width.opt))
    return network_input(np.repeat(shown[None], contract.batch.min, axis=0), contract)


def choose_images(
    dataset: Dataset, contract: Contract, count: int = DEFAULT_COUNT, listed: ImageList | None = None
) -> CalibrationImages:
    """`count` images of `dataset`, the same ones each time.

    Spread over the classes where images are labelled, evenly over the names where they are not. Unreadable images and
    images of one constant colour are replaced by the next and counted.

    Args:
        dataset: labelled or not.
        contract: of the network.
        count: images wanted.
        listed: a list to take instead.

    Raises:
        OptionError: `count` is not positive.
        DataError: there are no images, or more than a tenth of them cannot be used.
    """
    if count < 1:
        raise OptionError(f"calibration needs at least one image: got a count of {count}")
    if not dataset.samples:
        raise DataError(f"no images to calibrate on in {dataset.root}.\n  to do    give a folder of typical images")
    if listed:
        candidates = _evenly_first(listed.select(dataset.samples), count)
    else:
        candidates = order_samples(dataset, count, len(contract.classes))

    def look(sample: Sample, number: int) -> None:
        if is_constant(shown_to_network(read_image(sample.image), contract, number)):
            raise DataError(f"{sample.image} shows the network one constant colour")

    chosen, unusable = _usable(dataset, candidates, count, look)
    notes = []
    if unusable:
        notes.append(f"{len(unusable)} calibration images were skipped; the first: {unusable[0]}")
    if len(chosen) < count:
        notes.append(f"only {len(chosen)} images to calibrate on; {count} were asked for")
    return CalibrationImages(tuple(sample.image for sample in chosen), contract, tuple(notes))


def order_samples(dataset: Dataset, count: int, classes: int) -> list[Sample]:
    """The samples in the order in which calibration takes them, the first `count` being the best choice."""
    pool = _evenly(dataset.samples, _POOL * count)
    if all(sample.labels is None for sample in pool):
        return _evenly_first(dataset.samples, count)
    present = np.stack([_classes_in(dataset, sample, classes) for sample in pool])
    return [pool[index] for index in spread_over_classes(present)]


def spread_over_classes(present: NDArray[np.bool_]) -> list[int]:
    """Rows of `present` (images, classes), in an order that meets all classes evenly.

    Each step takes the image that shows the most of the classes shown least so far; the first of equal ones.
    """
    shown = np.zeros(present.shape[1])
    left = np.ones(len(present), bool)
    order = []
    for _ in range(len(present)):
        worth = np.where(left, present @ (1 / (1 + shown) ** 2), -1.0)
        best = int(np.argmax(worth))
        order.append(best)
        left[best] = False
        shown += present[best]
    return order


def labelled_samples(dataset: Dataset, count: int, classes: int) -> Dataset:
    """`count` labelled samples of `dataset` at even distances, those that cannot be read replaced by the next.

    Raises:
        DataError: there are none, or more than a tenth cannot be read.
    """
    labelled = [sample for sample in dataset.samples if sample.labels]
    chosen, _ = _usable(dataset, _evenly_first(labelled, count), count, lambda sample, _: dataset.read(sample, classes))
    return replace(dataset, samples=tuple(sorted(chosen, key=lambda sample: sample.name)))


def _evenly_first(samples: Sequence[Sample], count: int) -> list[Sample]:
    """All `samples`, `count` at even distances before the others."""
    first = _evenly(samples, count)
    taken = set(first)
    return first + [sample for sample in samples if sample not in taken]


def _evenly(samples: Sequence[Sample], count: int) -> list[Sample]:
    total = len(samples)
    return [samples[index * total // count] for index in range(count)] if count < total else list(samples)


def _classes_in(dataset: Dataset, sample: Sample, classes: int) -> NDArray[np.bool_]:
    """Which of the classes an image shows; none where its label map is missing or cannot be read."""
    if sample.labels is None:
        return np.zeros(classes, bool)
    try:
        labels = dataset.read_labels(sample, classes)
    except DataError:
        return np.zeros(classes, bool)
    return np.bincount(labels.ravel(), minlength=classes)[:classes] > 0


def _usable(
    dataset: Dataset, candidates: Iterable[Sample], count: int, look: Callable[[Sample, int], object]
) -> tuple[list[Sample], list[str]]:
    """The first `count` candidates that can be used, and why others before them cannot.

    Args:
        dataset: that they are of.
        candidates: in the order in which they are taken.
        count: how many are wanted.
        look: raises `DataError` for one that cannot be used; called with the number taken before.

    Raises:
        DataError: more than a tenth of those looked at cannot be used, or none can.
    """
    chosen: list[Sample] = []
    unusable: list[str] = []
    for sample in candidates:
        if len(chosen) == count:
            break
        try:
            look(sample, len(chosen))
            chosen.append(sample)
        except DataError as error:
            unusable.append(str(error).partition("\n")[0])
    _check_unusable(unusable, len(chosen), dataset)
    return chosen, unusable


def _check_unusable(unusable: Sequence[str], usable: int, dataset: Dataset) -> None:
    looked_at = usable + len(unusable)
    if usable and len(unusable) <= MOST_UNUSABLE * looked_at:
        return
    shown = "\n".join(f"  found    {reason}" for reason in unusable[:3])
    raise DataError(
        f"{len(unusable)} of {looked_at} calibration images in {dataset.root} cannot be used; at most "
        f"{MOST_UNUSABLE:.0%} may fail:\n{shown}\n  to do    replace them, or calibrate on other images"
    )
