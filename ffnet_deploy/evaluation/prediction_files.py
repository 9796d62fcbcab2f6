"""Predictions as files: pictures to look at, label maps and probabilities to go on with, and what test servers take."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.artifacts.outputs import WRITTEN_BY, Kind, Outputs, mark_png
from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.files import atomic_path, write_bytes
from ffnet_deploy.core.label_maps import LabelMap, ignore_label
from ffnet_deploy.core.label_sets import label_set
from ffnet_deploy.evaluation.containers import palette_png
from ffnet_deploy.evaluation.datasets import Sample
from ffnet_deploy.evaluation.label_readers import CITYSCAPES_LABEL_IDS
from ffnet_deploy.evaluation.overlays import write_overlay
from ffnet_deploy.evaluation.protocol import Prediction


class LabelFormat(str, Enum):
    """How label maps are written."""

    INDEXED = "indexed"
    """PNG with the palette of the classes, under the image's name; 16-bit grey above 255 classes."""
    CITYSCAPES = "cityscapes"
    """What the Cityscapes server takes: grey PNG of label ids (not train ids), all in one folder."""
    ADE20K = "ade20k"
    """What the server of the MIT Scene Parsing Benchmark takes: grey PNG that counts classes from 1, in one folder."""


@dataclass(frozen=True)
class SaveOptions:
    """What is written of each prediction.

    Attributes:
        images: Folder of pictures to look at (`overlays.overlay_picture`); None for none.
        labels: Folder of label maps at the images' own sizes; None for none.
        scores: Folder of probabilities, one .npz file an image: ``probabilities``, float16 (classes, height, width),
            and ``classes``; None for none.
        label_format: How label maps are written.
    """

    images: Path | None = None
    labels: Path | None = None
    scores: Path | None = None
    label_format: LabelFormat = LabelFormat.INDEXED

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders that are written to."""
        return tuple(folder for folder in (self.images, self.labels, self.scores) if folder is not None)

    def label_path(self, folder: Path, sample: Sample) -> Path:
        """The file of a label map in `folder`; servers know images by the names of their files."""
        name = sample.name if self.label_format is LabelFormat.INDEXED else sample.image.stem
        return folder / f"{name}.png"

    def claim(self, outputs: Outputs, samples: Sequence[Sample], contract: Contract) -> None:
        """Check that everything may be written, before any work begins.

        Raises:
            OptionError: the classes are not those of the server, two images have one name there, or a file would
                replace an input or what the toolkit did not write.
            StorageError: a folder cannot be written.
        """
        if self.label_format is not LabelFormat.INDEXED and self.labels is not None:
            if contract.classes != label_set(self.label_format.value).classes:
                raise OptionError(
                    f"--label-format {self.label_format.value} takes the classes of that data set; the network "
                    f"predicts those of {contract.dataset}.\n  to do    leave out --label-format"
                )
            names = {self.label_path(self.labels, sample) for sample in samples}
            if len(names) < len(samples):
                raise OptionError(
                    f"{len(samples)} images have {len(names)} names between them, and the server tells them by name.\n"
                    "  to do    predict them in parts"
                )
        for folder in self.folders:
            outputs.claim_folder(folder)
        for sample in samples:
            if self.images is not None:
                outputs.claim(self.images / f"{sample.name}.png", Kind.PICTURE)
            if self.labels is not None:
                outputs.claim(self.label_path(self.labels, sample), Kind.LABELS)
            if self.scores is not None:
                outputs.claim(self.scores / f"{sample.name}.npz", Kind.PROBABILITIES)

    def write(
        self,
        sample: Sample,
        image: NDArray[np.uint8],
        prediction: Prediction,
        truth: LabelMap | None,
        contract: Contract,
    ) -> None:
        """Write what is asked for of one prediction, each file atomically.

        Args:
            sample: Names the files.
            image: uint8 (height, width, 3), BGR.
            prediction: With `scores` where these are written.
            truth: The true labels, for the picture; None where there are none.
            contract: Names and colours of the classes.

        Raises:
            StorageError: a file cannot be written.
        """
        if self.images is not None:
            write_overlay(self.images / f"{sample.name}.png", image, prediction.labels, truth, contract)
        if self.labels is not None:
            content = label_png(prediction.labels, contract, self.label_format)
            write_bytes(self.label_path(self.labels, sample), content)
        if self.scores is not None:
            assert prediction.scores is not None  # `PredictOptions.scores` was asked for
            write_probabilities(self.scores / f"{sample.name}.npz", prediction.scores, contract)


def label_png(labels: LabelMap, contract: Contract, label_format: LabelFormat = LabelFormat.INDEXED) -> bytes:
    """The PNG file of `labels` (height, width); what is ignored is 255 or 65535, and 0 for servers."""
    if label_format is LabelFormat.INDEXED and labels.dtype == np.uint8:
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(contract.palette)] = contract.palette
        return mark_png(palette_png(labels.astype(np.uint8, copy=False), palette))
    ids = labels
    if label_format is not LabelFormat.INDEXED:
        table = np.zeros(ignore_label(labels) + 1, np.uint8)
        cityscapes = label_format is LabelFormat.CITYSCAPES
        numbers = CITYSCAPES_LABEL_IDS if cityscapes else range(1, len(contract.classes) + 1)
        table[: len(contract.classes)] = list(numbers)
        ids = table[labels]
    return mark_png(cv2.imencode(".png", ids)[1].tobytes())


def write_probabilities(path: Path, scores: NDArray[np.float32], contract: Contract) -> None:
    """Write `scores`, float32 (classes, height, width), to the .npz file `path` as float16, with the class names.

    Raises:
        StorageError: the file cannot be written.
    """
    arrays = {"probabilities": scores.astype(np.float16), "classes": np.array(contract.classes)}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.comment = WRITTEN_BY.encode()
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
