"""What is kept of each scored image, so that runs can be interrupted, shared between processes, and summed exactly."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ffnet_deploy.core.closing import Closing
from ffnet_deploy.core.decoding import converted, decode
from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.core.files import storage_errors

KIND = "ffnet-deploy evaluation state"
FORMAT = 1
MAX_PIXELS = 1 << 40
"""Most pixels of an image that an entry may count."""
_LINE = 16 << 20


Counts = NDArray[np.unsignedinteger[Any]]
"""Whole numbers in the smallest type that holds them all: a few kilobytes an image, whose set may have thousands."""


def _smallest(numbers: ArrayLike) -> Counts:
    wide: Counts = np.asarray(numbers, np.uint64)
    return wide.astype(np.min_scalar_type(wide.max(initial=0)))


@dataclass(frozen=True, eq=False)
class ImageScore:
    """The confusion matrix of one image, only its entries that are not 0.

    Attributes:
        image: Name of the image.
        cells: Index of each entry, label * classes + prediction, rising: (entries,).
        counts: Pixels of each entry: (entries,).
        notes: How the evaluation of this image differed from the protocol.
    """

    image: str
    cells: Counts = field(default_factory=lambda: _smallest(()))
    counts: Counts = field(default_factory=lambda: _smallest(()))
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, image: str, confusion: NDArray[np.int64] | None, notes: tuple[str, ...] = ()) -> "ImageScore":
        """What is kept of `confusion`, int64 (classes, classes); of an image without labels, None."""
        if confusion is None:
            return cls(image, notes=notes)
        flat = confusion.reshape(-1)
        cells = np.flatnonzero(flat)
        return cls(image, _smallest(cells), _smallest(flat[cells]), notes)

    def confusion(self, classes: int) -> NDArray[np.int64]:
        """The confusion matrix, int64 (classes, classes)."""
        flat = np.zeros(classes * classes, np.int64)
        flat[self.cells] = self.counts
        return flat.reshape(classes, classes)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ImageScore)
            and (self.image, self.notes) == (other.image, other.notes)
            and np.array_equal(self.cells, other.cells)
            and np.array_equal(self.counts, other.counts)
        )


def total(parts: Iterable[ImageScore], classes: int) -> NDArray[np.int64]:
    """The confusion matrix of all images together, int64 (classes, classes)."""
    summed = np.zeros((classes, classes), np.int64)
    for one in parts:
        summed += one.confusion(classes)
    return summed


@dataclass(frozen=True)
class _Entry:
    """An `ImageScore` as a line of a `StateFile` has it."""

    image: str
    cells: tuple[int, ...]
    counts: tuple[int, ...]
    notes: tuple[str, ...]


class StateFile(Closing):
    """A file that grows by one line for each scored image; what a killed run has left is taken up again.

    The first line says what is scored; a last line that was not written to its end is dropped.

    Attributes:
        done: Scores by the names of the images.

    Args:
        path: Of the file; it is made where there is none. None: scores are kept in memory alone.
        key: What is scored, and how: an earlier file must have the same.
        classes: Number of classes.

    Raises:
        OptionError: the file is of another artefact, data set or protocol.
        ArtifactError: it is damaged, or no such file.
        StorageError: it cannot be written.
    """

    def __init__(self, path: Path | None, key: Mapping[str, Any], classes: int) -> None:
        self.done: dict[str, ImageScore] = {}
        self._file: BinaryIO | None = None
        if path is None:
            return
        header = {"kind": KIND, "format": FORMAT, "key": json.loads(json.dumps(key))}
        if path.is_file() and path.stat().st_size:
            self._read(path, header, classes)
        with storage_errors(path):
            self._file = path.open("ab")
        if self._file.tell() == 0:
            self._write(header)

    def _read(self, path: Path, header: dict[str, Any], classes: int) -> None:
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.splitlines()
        remedy = f"to do    remove {path} and score from the beginning, or name another file"
        try:
            found = decode(lines[0], dict[str, Any], _LINE) if lines else {}
            if lines and (found.get("kind") != KIND or found.get("format") != FORMAT):
                raise ArtifactError("it does not begin as one")
            if lines and not isinstance(found.get("key"), dict):
                raise ArtifactError("it does not say what was scored")
            for line in lines[1:]:
                one = converted(decode(line, dict[str, Any], _LINE), _Entry)
                if len(one.cells) != len(one.counts) or not all(0 <= cell < classes**2 for cell in one.cells):
                    raise ArtifactError(f"its entry of {one.image} does not fit {classes} classes")
                if not all(0 < count <= MAX_PIXELS for count in one.counts):
                    raise ArtifactError(f"its entry of {one.image} counts what no image has")
                self.done[one.image] = ImageScore(one.image, _smallest(one.cells), _smallest(one.counts), one.notes)
        except ArtifactError as error:
            raise ArtifactError(f"{path} is no state of an evaluation: {error}.\n  {remedy}") from error
        if lines and found["key"] != header["key"]:
            differing = [name for name, value in header["key"].items() if found["key"].get(name) != value]
            raise OptionError(
                f"{path} is of another evaluation: {', '.join(differing) or 'its key'} differ.\n  {remedy}"
            )
        if len(whole) < len(content):
            with storage_errors(path):
                os.truncate(path, len(whole))

    def add(self, score: ImageScore) -> None:
        """Keep the score of one more image.

        Raises:
            StorageError: there is no room.
        """
        self.done[score.image] = score
        self._write({**vars(score), "cells": score.cells.tolist(), "counts": score.counts.tolist()})

    def _write(self, document: Mapping[str, Any]) -> None:
        if self._file is not None:
            with storage_errors(Path(self._file.name)):
                self._file.write(json.dumps(document, ensure_ascii=False).encode() + b"\n")
                self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
