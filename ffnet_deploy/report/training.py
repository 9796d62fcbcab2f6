"""Learning curve of a training run, from the records in its work folder."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ffnet_deploy.core.decoding import ADDED, DecodingError, decode, document_bytes
from ffnet_deploy.core.errors import ArtifactError

_RECORDS = "*/vis_data/scalars.json"
"""Where mmengine keeps them below a work folder: a folder for each start of the run, named by its time."""
_NOT_FINITE = re.compile(rb"(?<=: )(?:NaN|-?Infinity)\b")
"""What Python writes for values that JSON does not have, for instance a gradient that overflows in FP16."""
_MAX_LOSS = 1e9


@dataclass(frozen=True)
class _Record:
    """A line of the records: the loss of a training step, or the scores of a validation."""

    step: int
    loss: float | None = field(default=None, metadata=ADDED)
    mIoU: float | None = field(default=None, metadata=ADDED)  # noqa: N815  mmseg's name

    def __post_init__(self) -> None:
        if not 0 <= self.step < 1 << 31:
            raise ValueError(f"step {self.step} is no number of iterations")
        if self.loss is not None and not abs(self.loss) <= _MAX_LOSS:
            raise ValueError(f"a loss of {self.loss:g} is out of range")
        if self.mIoU is not None and not 0 <= self.mIoU <= 100:
            raise ValueError(f"an mIoU of {self.mIoU:g} % is out of range")


@dataclass(frozen=True)
class LearningCurve:
    """How a training went.

    Attributes:
        losses: Iteration and loss, averaged since the pair before; in rising order.
        validations: Iteration and mIoU in percent; in rising order.
    """

    losses: tuple[tuple[int, float], ...]
    validations: tuple[tuple[int, float], ...]


def learning_curve(work_dir: Path) -> LearningCurve | None:
    """The curve of the run in `work_dir`, over all its starts; None where nothing is recorded there.

    A start that resumed an earlier one, or began anew, replaces what was recorded from its first iteration on.

    Raises:
        ArtifactError: the records are damaged or cannot be read.
    """
    losses: dict[int, float] = {}
    validations: dict[int, float] = {}
    for path in sorted(work_dir.glob(_RECORDS)):
        try:
            records = tuple(_records(path))
        except (OSError, DecodingError) as error:
            raise ArtifactError(
                f"the records of a training, {path}, are damaged: {error}.\n"
                "  to do    move the file away to score without its learning curve"
            ) from error
        begin = min((record.step for record in records), default=0)
        losses = {step: loss for step, loss in losses.items() if step < begin}
        validations = {step: score for step, score in validations.items() if step < begin}
        losses.update((record.step, record.loss) for record in records if record.loss is not None)
        validations.update((record.step, record.mIoU) for record in records if record.mIoU is not None)
    if not losses and not validations:
        return None
    return LearningCurve(tuple(sorted(losses.items())), tuple(sorted(validations.items())))


def _records(path: Path) -> Iterator[_Record]:
    """The lines of `path`; a last one without its end, which a killed run leaves, is no record."""
    for number, text in enumerate(document_bytes(path).split(b"\n")[:-1], 1):
        try:
            yield decode(_NOT_FINITE.sub(b"null", text), _Record)
        except DecodingError as error:
            raise DecodingError(f"line {number}: {error}") from error
