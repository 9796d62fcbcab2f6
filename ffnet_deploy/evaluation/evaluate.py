"""Scores of an engine on a data set."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.artifacts import Kind, Outputs
from ffnet_deploy.core.contract import TestProtocol
from ffnet_deploy.core.errors import DataError
from ffnet_deploy.core.files import write_json
from ffnet_deploy.core.label_maps import LabelMap
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.evaluation.datasets import Dataset, Sample
from ffnet_deploy.evaluation.overlays import write_overlay
from ffnet_deploy.evaluation.pipeline import StageClock, predict_stream
from ffnet_deploy.evaluation.protocol import Prediction, PredictOptions, check_protocol
from ffnet_deploy.evaluation.scores import Scores, confusion_matrix, scores

Watch = Callable[[Sample, NDArray[np.uint8], LabelMap, LabelMap | None], None]
"""Called with each sample, its image (BGR), the predicted labels, and the true ones where there are any."""


@dataclass(frozen=True)
class EvaluateOptions:
    """How to score.

    Attributes:
        protocol: resizing and windows; None takes the artefact's own.
        predict: scales, mirroring and batch of windows.
        limit: images at most, the first by name; None for all.
        save_images: folder for one picture per image (`overlays.write_overlay`); None for none.
    """

    protocol: TestProtocol | None = None
    predict: PredictOptions = field(default_factory=PredictOptions)
    limit: int | None = None
    save_images: Path | None = None


@dataclass(frozen=True)
class Evaluation:
    """What came out, and how it was measured.

    Attributes:
        scores: None where the images are not labelled.
        images: number of images.
        seconds: wall time of reading, predicting, scoring and drawing.
        notes: deviations from the protocol, each once.
        protocol: resizing and windows that were used.
        predict: scales and mirroring that were used.
        dataset: what the label values meant.
        split: the part of the data set.
        skipped: images without labels that could not be read, each with the reason.
        clock: where the time went.
    """

    scores: Scores | None
    images: int
    seconds: float
    notes: tuple[str, ...]
    protocol: TestProtocol
    predict: PredictOptions
    dataset: str
    split: str
    skipped: tuple[str, ...] = ()
    clock: StageClock = field(default_factory=StageClock)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: `Scores.to_dict`, ``images``, ``seconds``, ``stages``, ``notes``, ``dataset``, ``protocol``."""
        return {
            **(self.scores.to_dict() if self.scores else {}),
            "images": self.images,
            "seconds": round(self.seconds, 3),
            "stages": self.clock.to_dict(),
            "notes": list(self.notes),
            "dataset": {"name": self.dataset, "split": self.split},
            "protocol": {**asdict(self.protocol), "ratios": list(self.predict.ratios), "flip": self.predict.flip},
            **({"skipped": list(self.skipped)} if self.skipped else {}),
        }


def evaluate(
    engine: Engine,
    dataset: Dataset,
    options: EvaluateOptions | None = None,
    progress: Progress = no_progress,
    watch: Watch | None = None,
) -> Evaluation:
    """Predict every image of `dataset`, score what is labelled, and draw what is asked for.

    Of several images without labels, those that cannot be read are left out and listed; a labelled one that cannot be
    read is an error, since a score without it would be another score.

    Args:
        engine: runs the network.
        dataset: images, labelled or not.
        options: how to score; None for the artefact's own protocol.
        progress: told of the images done.
        watch: shown every prediction, in another thread than the caller's.

    Raises:
        OptionError: the artefact cannot run what `options` ask for, or a picture would replace something else.
        DataError: an image or label map cannot be used, no image without labels can, or no pixel is labelled.
        StorageError: pictures cannot be written.
    """
    options = options or EvaluateOptions()
    contract = engine.contract
    protocol = options.protocol or contract.protocol
    check_protocol(contract, protocol, options.predict)
    samples = dataset.limited(options.limit).samples
    if options.save_images is not None:
        outputs = Outputs(*(path for sample in samples for path in (sample.image, sample.labels)))
        outputs.claim_folder(options.save_images)
        for sample in samples:
            outputs.claim(options.save_images / f"{sample.name}.png", Kind.PICTURE)
    confusion = np.zeros((len(contract.classes),) * 2, np.int64)
    notes: dict[str, None] = {}
    skipped: list[str] = []
    clock = StageClock()

    def read(sample: Sample) -> tuple[NDArray[np.uint8], LabelMap | None]:
        return dataset.read(sample, len(contract.classes))

    def handle(sample: Sample, image: NDArray[np.uint8], labels: LabelMap | None, prediction: Prediction) -> None:
        notes.update(dict.fromkeys(prediction.notes))
        if labels is not None:
            confusion[...] += confusion_matrix(prediction.labels, labels, len(contract.classes))
        if options.save_images is not None:
            write_overlay(options.save_images / f"{sample.name}.png", image, prediction.labels, labels, contract)
        if watch is not None:
            watch(sample, image, prediction.labels, labels)

    # a score without one of its labelled images would be another score
    alone = any(sample.labels is not None for sample in samples) or len(samples) == 1
    skip = None if alone else lambda error: skipped.append(str(error).partition("\n")[0])
    begin = time.perf_counter()
    stream = predict_stream(
        engine, samples, read, handle, protocol, options.predict, clock, skip, lambda sample: str(sample.image)
    )
    for done, _ in enumerate(stream, 1):
        progress(f"scoring with {engine.name}", done + len(skipped), len(samples))
    if skipped and len(skipped) == len(samples):
        raise DataError(f"none of the {len(samples)} images can be read; the first:\n  {skipped[0]}")
    labelled = any(sample.labels is not None for sample in samples)
    return Evaluation(
        scores=scores(confusion, contract.classes) if labelled else None,
        images=len(samples) - len(skipped),
        seconds=time.perf_counter() - begin,
        notes=tuple(notes),
        protocol=protocol,
        predict=options.predict,
        dataset=dataset.name,
        split=dataset.split,
        skipped=tuple(skipped),
        clock=clock,
    )


def write_evaluation(path: Path, evaluation: Evaluation, about: Mapping[str, Any]) -> None:
    """Write `evaluation` to `path` as JSON, atomically, with `about` (backend, artefact, ...) at the top level too.

    Raises:
        StorageError: the file cannot be written.
    """
    write_json(path, {**evaluation.to_dict(), **about})
