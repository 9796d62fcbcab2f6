"""Scoring a quantised graph: its logits and its mIoU beside those of the FP32 graph, simulated by ONNX Runtime.

Graph optimisations are off: with them ONNX Runtime replaces Q/DQ by integer kernels of its own, which saturate on some
processors, and the simulation would no longer be of what TensorRT computes.
"""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ffnet_deploy.calib.collect import Images, open_session
from ffnet_deploy.core.closing import Closing
from ffnet_deploy.core.label_maps import LabelMap
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeOptions
from ffnet_deploy.evaluation.datasets import Dataset, Sample
from ffnet_deploy.evaluation.evaluate import evaluate
from ffnet_deploy.evaluation.scores import confusion_matrix
from ffnet_deploy.precision.graph_index import GraphIndex


def outputs(model: onnx.ModelProto, images: Images) -> list[NDArray[Any]]:
    """What `model` gives for each of `images`, every node run as written."""
    session = open_session(model, optimize=False)
    feed = session.get_inputs()[0].name
    return [np.asarray(session.run(None, {feed: batch})[0]) for batch in images]


def sqnr(reference: Sequence[NDArray[Any]], found: Sequence[NDArray[Any]]) -> float:
    """Signal to quantisation noise of `found`, in dB: the power of `reference` over that of the difference."""
    signal = sum(float(np.square(one, dtype=np.float64).sum()) for one in reference)
    noise = sum(
        float(np.square(one.astype(np.float64) - other).sum()) for one, other in zip(reference, found, strict=True)
    )
    return float(10 * np.log10(signal / noise)) if noise > 0 else float("inf")


@contextmanager
def simulated(model: onnx.ModelProto, threads: int = 0) -> Iterator[Engine]:
    """`model`, with its contract in the metadata, as an engine that runs every node as written."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "simulated.onnx"
        onnx.save(model, path)
        with OnnxRuntimeEngine(path, OnnxRuntimeOptions(threads, optimize=False, check_manifest=False)) as engine:
            yield engine


@dataclass
class Recorded(Closing):
    """An engine that keeps everything it gives; an `Engine`.

    Attributes:
        engine: The engine that runs the network.
        given: The outputs of that engine in order.
    """

    engine: Engine
    given: list[NDArray[Any]]

    def __post_init__(self) -> None:
        self.contract, self.name, self.notes = self.engine.contract, self.engine.name, self.engine.notes

    def run(self, batch: NDArray[np.generic]) -> NDArray[np.generic]:
        """The network's output for `batch`."""
        result = self.engine.run(batch)
        self.given.append(np.asarray(result))
        return result

    def close(self) -> None:
        """Release the engine."""
        self.engine.close()


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
        logits: Output for each image, or window of one.
        confusions: Confusion matrix of each labelled image, int64 (classes, classes).
        miou: Mean IoU in percent; None where nothing is labelled.
    """

    logits: Outputs
    confusions: Sequence[NDArray[np.int64]]
    miou: float | None


def tried(model: onnx.ModelProto, dataset: Dataset) -> Trial:
    """Logits and score of `model` on `dataset`, by its own protocol, every node run as it is written."""
    confusions: list[NDArray[np.int64]] = []
    with simulated(model) as engine:
        recorded, classes = Recorded(engine, []), len(engine.contract.classes)

        def watch(sample: Sample, image: NDArray[np.uint8], predicted: LabelMap, labels: LabelMap | None) -> None:
            if labels is not None:
                confusions.append(confusion_matrix(predicted, labels, classes))

        scores = evaluate(recorded, dataset, watch=watch).scores
    scored = scores is not None and math.isfinite(scores.mean_iou)
    return Trial(recorded.given, confusions, scores.mean_iou if scores is not None and scored else None)


def disagreement(reference: Outputs, found: Outputs) -> float:
    """Share in percent of the positions whose strongest class is another; logits (batch, classes, h, w)."""
    differing = [np.mean(x.argmax(1) != y.argmax(1)) for x, y in zip(reference, found, strict=True)]
    return 100 * float(np.mean(differing))
