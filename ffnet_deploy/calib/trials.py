"""Trying a partly quantised graph: its logits and its scores beside those of the FP32 graph."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from ffnet_deploy.calib.graph import Graph
from ffnet_deploy.calib.simulate import simulated
from ffnet_deploy.errors import DataError
from ffnet_deploy.evaluation.datasets import Dataset
from ffnet_deploy.evaluation.evaluate import EvaluateOptions, evaluate

Outputs = Sequence[NDArray[np.generic]]


def blocks_of(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Names of the convolutions of each block, in graph order.

    A block is what is kept or quantised as one: a mixer, a down-sampling, the stem, or a single layer of the head.
    """
    blocks: dict[str, list[str]] = {}
    for conv in Graph(model).convs:
        blocks.setdefault(_block(conv.name), []).append(conv.name)
    return {name: tuple(convs) for name, convs in blocks.items()}


def _block(name: str) -> str:
    parts = name.strip("/").split("/")
    for end, part in enumerate(parts):
        if part in ("token_mixer", "channel_mixer", "patch_embed", "proj"):
            return "/" + "/".join(parts[: end + 1])
    return "/" + "/".join(parts[:-1] or parts)


def miou(model: onnx.ModelProto, labelled: Dataset) -> float:
    """Mean IoU in percent of `model` on `labelled`, by its own protocol, every node run as it is written.

    Raises:
        DataError: no class of the data was found in the labels.
    """
    with simulated(model) as engine:
        result = evaluate(engine, labelled, EvaluateOptions())
    if result.scores is None or not math.isfinite(result.scores.mean_iou):
        raise DataError("the labels hold no class that the network knows: there is no mIoU to hold")
    return result.scores.mean_iou


def disagreement(reference: Outputs, found: Outputs) -> float:
    """Share in percent of the positions whose strongest class is another; logits (batch, classes, h, w)."""
    differing = [np.mean(x.argmax(1) != y.argmax(1)) for x, y in zip(reference, found, strict=True)]
    return 100 * float(np.mean(differing))


@dataclass(frozen=True)
class Timings:
    """Milliseconds of each convolution in engines of both precisions, by node name.

    A layer that is not faster in INT8 is better left alone.
    """

    quantized: Mapping[str, float]
    base: Mapping[str, float]

    def slower(self, blocks: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        """Names of the blocks that take longer quantised than not; those without timings are not among them."""
        names = []
        for block, convs in blocks.items():
            timed = [conv for conv in convs if conv in self.quantized and conv in self.base]
            if sum(self.quantized[conv] for conv in timed) > sum(self.base[conv] for conv in timed):
                names.append(block)
        return tuple(names)
