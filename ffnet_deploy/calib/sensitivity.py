"""What quantising each block alone costs: the table that says where INT8 hurts."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import onnx

from ffnet_deploy.calib.equalize import equalize
from ffnet_deploy.calib.options import CalibrationOptions
from ffnet_deploy.calib.plan import is_named
from ffnet_deploy.calib.quantize import apply
from ffnet_deploy.calib.ranges import Calibration
from ffnet_deploy.calib.simulate import sqnr
from ffnet_deploy.calib.trials import blocks_of, disagreement, tried
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.evaluation.datasets import Dataset
from ffnet_deploy.precision.graph_index import GraphIndex

JUDGED_ON = 32
"""Images that each block is tried on, at most: enough to rank them, and every block is tried on all."""

_EXACT_DB = 150.0
"""What float32 can tell apart at best."""


@dataclass(frozen=True)
class Sensitivity:
    """What it costs to quantise one block and nothing else.

    Attributes:
        block: its name.
        convs: names of its convolutions.
        macs_percent: its share of the convolutions' multiply-adds.
        sqnr_db: of the logits, signal to noise.
        disagreement_percent: positions of the logits whose label changes.
        drop: fall of mIoU, points; None where there are no labels.
    """

    block: str
    convs: tuple[str, ...]
    macs_percent: float
    sqnr_db: float
    disagreement_percent: float
    drop: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "convs": list(self.convs)}


def sensitivities(
    model: onnx.ModelProto,
    ranges: Calibration,
    options: CalibrationOptions,
    dataset: Dataset,
    known: Collection[str] = (),
    progress: Progress = no_progress,
) -> Iterator[Sensitivity]:
    """The cost of each block of the FP32 graph `model`, in graph order, each as soon as it is measured.

    Args:
        model: FP32, with logits as its output.
        ranges: calibration of all of it.
        options: how it is quantised; what `keep` names is never quantised and left out.
        dataset: images to compare logits on, and mIoU where they are labelled; the first `JUDGED_ON` are taken.
        known: blocks to leave out.
        progress: told of blocks done.
    """
    blocks, judged = blocks_of(model), dataset.limited(JUDGED_ON)
    open_blocks = {name: convs for name, convs in blocks.items() if _is_open(convs, options) and name not in known}
    if not open_blocks:
        return
    shares, before = _mac_shares(model, ranges), tried(model, judged)
    for done, (name, convs) in enumerate(open_blocks.items(), len(blocks) - len(open_blocks) + 1):
        others = tuple(conv for block, names in blocks.items() if block != name for conv in names)
        after = tried(apply(model, ranges, replace(options, keep=(*options.keep, *others))).model, judged)
        yield Sensitivity(
            block=name,
            convs=convs,
            macs_percent=sum(shares[conv] for conv in convs),
            sqnr_db=min(sqnr(before.logits, after.logits), _EXACT_DB),
            disagreement_percent=disagreement(before.logits, after.logits),
            drop=None if before.miou is None or after.miou is None else before.miou - after.miou,
        )
        progress("trying each block alone", done, len(blocks))


def ranked(rows: Sequence[Sensitivity]) -> tuple[Sensitivity, ...]:
    """Most costly first: by noise in the logits, which small changes move where mIoU only jitters."""
    return tuple(sorted(rows, key=lambda row: row.sqnr_db))


def _is_open(convs: Sequence[str], options: CalibrationOptions) -> bool:
    return not all(is_named(conv, options.keep) for conv in convs)


def _mac_shares(model: onnx.ModelProto, ranges: Calibration) -> Mapping[str, float]:
    equalized = onnx.ModelProto()
    equalized.CopyFrom(model)
    equalize(equalized, ranges.factors)  # ranges and shapes are of the equalised graph
    macs = {conv.name: conv.macs(ranges.shapes[conv.input]) for conv in GraphIndex(equalized).convs}
    total = sum(macs.values())
    return {name: 100 * count / total for name, count in macs.items()}
