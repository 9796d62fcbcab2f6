"""What quantising each block alone costs: the table that says where INT8 hurts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import onnx

from ffnet_deploy.calib.collect import Images, Progress
from ffnet_deploy.calib.equalize import equalize
from ffnet_deploy.calib.graph import Graph
from ffnet_deploy.calib.options import CalibrationOptions
from ffnet_deploy.calib.plan import is_named
from ffnet_deploy.calib.quantize import apply
from ffnet_deploy.calib.ranges import Calibration
from ffnet_deploy.calib.simulate import outputs, sqnr
from ffnet_deploy.calib.trials import blocks_of, disagreement, miou
from ffnet_deploy.evaluation.datasets import Dataset


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
    images: Images,
    labelled: Dataset | None = None,
    progress: Progress | None = None,
) -> tuple[Sensitivity, ...]:
    """The cost of each block of the FP32 graph `model`, most costly first.

    Args:
        model: FP32, with logits as its output.
        ranges: calibration of all of it.
        options: how it is quantised; what `keep` names is never quantised and not listed.
        images: network inputs to compare logits on.
        labelled: data to compare mIoU on.
        progress: told of blocks done.
    """
    reference = outputs(model, images)
    before = miou(model, labelled) if labelled else None
    blocks, shares = blocks_of(model), _mac_shares(model, ranges)
    always = set(_kept_always(model, options))
    found = []
    for done, (name, convs) in enumerate(blocks.items(), 1):
        if always.issuperset(convs):
            continue
        others = tuple(conv for block, names in blocks.items() if block != name for conv in names)
        trial = apply(model, ranges, replace(options, keep=(*options.keep, *others))).model
        logits = outputs(trial, images)
        found.append(
            Sensitivity(
                name,
                convs,
                sum(shares[conv] for conv in convs),
                sqnr(reference, logits),
                disagreement(reference, logits),
                None if before is None or labelled is None else before - miou(trial, labelled),
            )
        )
        if progress is not None:
            progress("trying each block alone", done, len(blocks))
    return ranked(found)


def ranked(rows: Sequence[Sensitivity]) -> tuple[Sensitivity, ...]:
    """Most costly first: by noise in the logits, which small changes move where mIoU only jitters."""
    return tuple(sorted(rows, key=lambda row: row.sqnr_db))


def _kept_always(model: onnx.ModelProto, options: CalibrationOptions) -> tuple[str, ...]:
    return tuple(conv.name for conv in Graph(model).convs if is_named(conv.name, options.keep))


def _mac_shares(model: onnx.ModelProto, ranges: Calibration) -> Mapping[str, float]:
    equalized = onnx.ModelProto()
    equalized.CopyFrom(model)
    equalize(equalized, ranges.factors)  # ranges and shapes are of the equalised graph
    macs = {conv.name: conv.macs(ranges.shapes[conv.input]) for conv in Graph(equalized).convs}
    total = sum(macs.values())
    return {name: 100 * count / total for name, count in macs.items()}
