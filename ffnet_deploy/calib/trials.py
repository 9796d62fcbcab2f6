"""Trying a partly quantised graph: its logits and its scores beside those of the FP32 graph."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from ffnet_deploy.calib.simulate import Recorded, simulated
from ffnet_deploy.core.errors import DataError
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.evaluation.datasets import Dataset
from ffnet_deploy.evaluation.evaluate import evaluate
from ffnet_deploy.precision.graph_index import GraphIndex

Outputs = Sequence[NDArray[np.generic]]


def blocks_of(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Names of the convolutions of each block, in graph order.

    A block is what is kept or quantised as one: a mixer, a down-sampling, the stem, or a single layer of the head.
    """
    blocks: dict[str, list[str]] = {}
    for conv in GraphIndex(model).convs:
        blocks.setdefault(_block(conv.name), []).append(conv.name)
    return {name: tuple(convs) for name, convs in blocks.items()}


def _block(name: str) -> str:
    parts = name.strip("/").split("/")
    for end, part in enumerate(parts):
        if part in ("token_mixer", "channel_mixer", "patch_embed", "proj"):
            return "/" + "/".join(parts[: end + 1])
    return "/" + "/".join(parts[:-1] or parts)


@dataclass(frozen=True)
class Trial:
    """What a graph made of a data set.

    Attributes:
        logits: of each image, or window of one.
        miou: percent; None where nothing is labelled.
    """

    logits: Outputs
    miou: float | None


def tried(model: onnx.ModelProto, dataset: Dataset) -> Trial:
    """Logits and score of `model` on `dataset`, by its own protocol, every node run as it is written."""
    with simulated(model) as engine:
        recorded = Recorded(engine, [])
        return Trial(recorded.given, _mean_iou(recorded, dataset))


def miou(model: onnx.ModelProto, labelled: Dataset) -> float:
    """Mean IoU in percent of `model` on `labelled`, by its own protocol, every node run as it is written.

    Raises:
        DataError: no class of the data was found in the labels.
    """
    with simulated(model) as engine:
        found = _mean_iou(engine, labelled)
    if found is None:
        raise DataError("the labels hold no class that the network knows: there is no mIoU to hold")
    return found


def _mean_iou(engine: Engine, dataset: Dataset) -> float | None:
    scores = evaluate(engine, dataset).scores
    return scores.mean_iou if scores is not None and math.isfinite(scores.mean_iou) else None


def disagreement(reference: Outputs, found: Outputs) -> float:
    """Share in percent of the positions whose strongest class is another; logits (batch, classes, h, w)."""
    differing = [np.mean(x.argmax(1) != y.argmax(1)) for x, y in zip(reference, found, strict=True)]
    return 100 * float(np.mean(differing))
