"""Scores of an engine on a data set."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.artifacts import Outputs
from ffnet_deploy.core.contract import Contract, TestProtocol, weight_notes
from ffnet_deploy.core.errors import DataError, OptionError
from ffnet_deploy.core.files import write_json
from ffnet_deploy.core.label_maps import LabelMap
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.evaluation.datasets import Dataset, Sample
from ffnet_deploy.evaluation.image_scores import ImageScore, StateFile, total
from ffnet_deploy.evaluation.pipeline import StageClock, predict_stream
from ffnet_deploy.evaluation.prediction_files import SaveOptions
from ffnet_deploy.evaluation.protocol import Prediction, PredictOptions, check_protocol
from ffnet_deploy.evaluation.scores import Scores, confusion_matrix, scores

Watch = Callable[[Sample, NDArray[np.uint8], LabelMap, LabelMap | None], None]
"""Called with each sample, its image (BGR), the predicted labels, and the true ones where there are any."""


@dataclass(frozen=True)
class EvaluateOptions:
    """How to score.

    Attributes:
        protocol: Resizing and windows; None takes the artefact's own.
        predict: Scales, mirroring and batch of windows.
        limit: Largest number of images, the first by name; None for all.
        save: What is written of each prediction.
        state: File that keeps the score of each image, and from which an interrupted run goes on; None for none.
        part: (number, parts): score only every so many images, beginning with that number; see `merge`.
    """

    protocol: TestProtocol | None = None
    predict: PredictOptions = field(default_factory=PredictOptions)
    limit: int | None = None
    save: SaveOptions = field(default_factory=SaveOptions)
    state: Path | None = None
    part: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        if not 0 <= self.part[0] < self.part[1]:
            raise OptionError(f"part {self.part[0]} of {self.part[1]} does not exist")


@dataclass(frozen=True)
class Evaluation:
    """What came out, and how it was measured.

    Attributes:
        scores: None where the images are not labelled.
        images: Number of images.
        seconds: Wall time of reading, predicting, scoring and drawing.
        notes: That the weights are random, and deviations from the protocol, each once.
        protocol: Resizing and windows that were used.
        predict: Scales and mirroring that were used.
        dataset: What the label values meant.
        split: The part of the data set.
        skipped: Images without labels that could not be read, each with the reason.
        clock: Where the time went.
        per_image: What is kept of each image, in the order of the data set.
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
    per_image: tuple[ImageScore, ...] = ()

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
        progress: called with the images done.
        watch: shown every prediction, in another thread than the caller's.

    Raises:
        OptionError: the artefact cannot run what `options` ask for, or a picture would replace something else.
        DataError: an image or label map cannot be used, no image without labels can, or no pixel is labelled.
        StorageError: pictures cannot be written.
    """
    options = options or EvaluateOptions()
    contract, classes = engine.contract, len(engine.contract.classes)
    protocol = options.protocol or contract.protocol
    samples = dataset.limited(options.limit).samples[options.part[0] :: options.part[1]]
    labelled = any(sample.labels is not None for sample in dataset.samples)
    if labelled and options.predict.thresholds is not None:
        raise OptionError("thresholds leave pixels without a class: labelled images are scored without them")
    predicting = replace(options.predict, scores=options.save.scores is not None)
    check_protocol(contract, protocol, predicting)
    if options.save.folders:
        inputs = Outputs(*(path for sample in samples for path in (sample.image, sample.labels)))
        options.save.claim(inputs, samples, contract)
    clock, skipped, begin = StageClock(), list[str](), time.perf_counter()

    def read(sample: Sample) -> tuple[NDArray[np.uint8], LabelMap | None]:
        return dataset.read(sample, classes)

    def handle(sample: Sample, image: NDArray[np.uint8], labels: LabelMap | None, prediction: Prediction) -> None:
        confusion = None if labels is None else confusion_matrix(prediction.labels, labels, classes)
        options.save.write(sample, image, prediction, labels, contract)
        if watch is not None:
            watch(sample, image, prediction.labels, labels)
        # last: what is kept is wholly done
        state.add(ImageScore.of(sample.name, confusion, prediction.notes))

    # a score without one of its labelled images would be another score
    skip = None if labelled or len(samples) == 1 else lambda error: skipped.append(str(error).partition("\n")[0])
    with StateFile(options.state, _key(engine, dataset, options), classes) as state:
        remaining = [sample for sample in samples if sample.name not in state.done]
        stream = predict_stream(
            engine, remaining, read, handle, protocol, predicting, clock, skip, lambda sample: str(sample.image)
        )
        for finished, _ in enumerate(stream, len(samples) - len(remaining) + 1):
            progress(f"scoring with {engine.name}", finished + len(skipped), len(samples))
    if skipped and len(skipped) == len(samples):
        raise DataError(f"none of the {len(samples)} images can be read; the first:\n  {skipped[0]}")
    return _evaluation(
        contract=contract,
        labelled=labelled,
        per_image=tuple(state.done[sample.name] for sample in samples if sample.name in state.done),
        seconds=time.perf_counter() - begin,
        protocol=protocol,
        predict=options.predict,
        dataset=dataset.name,
        split=dataset.split,
        skipped=tuple(skipped),
        clock=clock,
        partial=options.part[1] > 1,
    )


def _evaluation(
    contract: Contract, labelled: bool, per_image: tuple[ImageScore, ...], partial: bool, **how: Any
) -> Evaluation:
    """The evaluation that the scores of single images make; of one part of a data set it may have no labelled pixel."""
    confusion = total(per_image, len(contract.classes))
    return Evaluation(
        scores=scores(confusion, contract.classes) if labelled and not (partial and confusion.sum() == 0) else None,
        images=len(per_image),
        notes=(*weight_notes(contract.sources), *dict.fromkeys(note for one in per_image for note in one.notes)),
        per_image=per_image,
        **how,
    )


def merge(parts: Sequence[Evaluation], contract: Contract) -> Evaluation:
    """The evaluation of a data set of which each of `parts` has scored its own images (`EvaluateOptions.part`).

    Confusion matrices are sums, so that the result is exactly that of one run.

    Args:
        parts: In the order of their numbers.
        contract: Of the network.

    Raises:
        DataError: no pixel is labelled with a class.
    """
    first = parts[0]
    longest = max(len(part.per_image) for part in parts)
    in_order = [part.per_image[row] for row in range(longest) for part in parts if row < len(part.per_image)]
    return _evaluation(
        contract=contract,
        labelled=any(one.cells.size for one in in_order) or any(part.scores is not None for part in parts),
        per_image=tuple(in_order),
        seconds=max(part.seconds for part in parts),
        protocol=first.protocol,
        predict=first.predict,
        dataset=first.dataset,
        split=first.split,
        skipped=tuple(text for part in parts for text in part.skipped),
        clock=StageClock(*(sum(vars(part.clock)[name] for part in parts) for name in vars(first.clock))),
        partial=False,
    )


def _key(engine: Engine, dataset: Dataset, options: EvaluateOptions) -> dict[str, Any]:
    """What an evaluation that goes on must have in common with its beginning."""
    protocol = options.protocol or engine.contract.protocol
    return {
        "network": engine.contract.network,
        "sources": dict(engine.contract.sources),
        "engine": engine.name,
        "output": engine.contract.output.value,
        "dataset": [dataset.name, dataset.split, str(dataset.root)],
        "protocol": asdict(protocol),
        "ratios": list(options.predict.ratios),
        "flip": options.predict.flip,
        "part": list(options.part),
    }


def write_evaluation(path: Path, evaluation: Evaluation, about: Mapping[str, Any]) -> None:
    """Write `evaluation` to `path` as JSON, atomically, with `about` (backend, artefact, ...) at the top level too.

    Raises:
        StorageError: the file cannot be written.
    """
    write_json(path, {**evaluation.to_dict(), **about})
