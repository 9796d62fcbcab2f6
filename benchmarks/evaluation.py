"""How fast images are scored around the network: ``python -m benchmarks.evaluation --data DATA``.

The engine costs nothing: it gives logits made beforehand, with regions and noise as a network's have, or label maps.
What remains is reading, resizing, enlarging, argmax and scoring. Three ways take turns, image sets in full each time:
one image after the other with the scores of all classes at all pixels; the pipeline; the pipeline over label maps.
"""

import argparse
import json
import os
import platform
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.contract import Contract, DimensionRange, InputKind, OutputKind, TestProtocol
from ffnet_deploy.core.files import write_json
from ffnet_deploy.core.label_sets import label_set
from ffnet_deploy.evaluation import finishing
from ffnet_deploy.evaluation.datasets import Dataset, open_dataset
from ffnet_deploy.evaluation.evaluate import Evaluation, evaluate
from ffnet_deploy.evaluation.protocol import PredictOptions, prepare, run_network
from ffnet_deploy.evaluation.scores import confusion_matrix
from ffnet_deploy.evaluation.windows import ScoredWindow, ScoreMap

PROTOCOLS = {
    "ade20k": TestProtocol(scale=(2048, 512)),
    "cityscapes": TestProtocol(scale=(2048, 1024), mode="slide", crop=(1024, 1024), stride=(768, 768)),
    "camvid": TestProtocol(scale=(480, 360)),
}


class FreeEngine:
    """An engine without a network: what it gives for a window was made from the picture when it first came.

    Args:
        contract: What it takes and gives.
        keep: Whether outputs are kept, so that only the first round makes them.
    """

    name = "nothing"
    notes = ()

    def __init__(self, contract: Contract, keep: bool = True) -> None:
        self.contract = contract
        self._keep = keep
        self._outputs: dict[bytes, NDArray[Any]] = {}
        self._colours = np.random.default_rng(0).uniform(0, 255, (len(contract.classes), 3)).astype(np.float32)

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Logits at a quarter of the size, or labels at the size."""
        outputs = []
        for window in batch:
            key = window[::16, ::16].tobytes()
            output = self._outputs.get(key)
            if output is None:
                output = self._made(window)
            if self._keep:
                self._outputs[key] = output
            outputs.append(output)
        return np.stack(outputs)

    def _made(self, window: NDArray[np.uint8]) -> NDArray[Any]:
        """Regions of alike colours, with noise of its own, so that overlapping windows agree but for the noise."""
        height, width = window.shape[0] // 4, window.shape[1] // 4
        smooth = cv2.GaussianBlur(cv2.resize(window, (width, height), interpolation=cv2.INTER_AREA), (0, 0), 6)
        rng = np.random.default_rng(int(window[::16, ::16].sum()))
        scores = [
            -np.square(smooth - colour).sum(axis=2) / 2000
            + 1.5 * cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 1.5)
            for colour in self._colours
        ]
        logits = np.stack(scores).astype(np.float32)
        if self.contract.output is OutputKind.LABELS:
            return cv2.resize(logits.argmax(0).astype(np.uint8), window.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        return logits

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> "FreeEngine":
        return self

    def __exit__(self, *_: object) -> None:
        return None


def one_by_one(engine: FreeEngine, dataset: Dataset) -> NDArray[np.int64]:
    """The confusion matrix, one image after the other in one thread, from the scores of all classes at all pixels."""
    contract = engine.contract
    classes = len(contract.classes)
    confusion = np.zeros((classes, classes), np.int64)
    options = PredictOptions()
    for sample in dataset.samples:
        image, labels = dataset.read(sample, classes)
        prepared = prepare(contract, image, contract.protocol, options)
        (outputs,) = run_network(engine, [prepared], options.batch)
        (view,) = prepared.views
        windows = tuple(ScoredWindow(box, scores) for box, scores in zip(view.boxes, outputs, strict=True))
        scored, size = ScoreMap(view.size, windows), prepared.size
        found = np.empty(size, np.uint8)
        step = max(finishing.BAND_VALUES // (classes * size[1]), 1)
        for start in range(0, size[0], step):
            stop = min(start + step, size[0])
            found[start:stop] = scored.resized_rows(size, start, stop).argmax(axis=-1)
        confusion += confusion_matrix(found, labels, classes)
    return confusion


def main() -> None:
    """Print images per second of each way, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled data set")
    parser.add_argument("--label-set", choices=sorted(PROTOCOLS), required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=1, help="times that each image counts")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    labels = label_set(arguments.label_set)
    side = DimensionRange(32, 512, 4096)
    contract = Contract(
        "free", arguments.label_set, labels.classes, labels.palette, height=side, width=side,
        batch=DimensionRange(1, 1, 8), protocol=PROTOCOLS[arguments.label_set], input=InputKind.BGR,
    )  # fmt: skip
    dataset = open_dataset(arguments.data, arguments.label_set)
    dataset = replace(dataset, samples=dataset.samples * arguments.repeat)
    engine = FreeEngine(contract)
    whole = FreeEngine(replace(contract, output=OutputKind.LABELS, protocol=replace(contract.protocol, mode="whole")))
    pipeline: list[Evaluation] = []
    ways = {
        "one by one, all scores": lambda: one_by_one(engine, dataset),
        "pipeline": lambda: pipeline.append(evaluate(engine, dataset)),
        "pipeline, labels from the device": lambda: evaluate(whole, dataset),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(arguments.rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if turn:  # the first round makes the logits
                times[name].append(time.perf_counter() - began)
    assert pipeline[0].scores is not None
    reference = one_by_one(engine, dataset)
    found = sum(one.confusion(len(labels.classes)) for one in pipeline[0].per_image)
    record = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "images": len(dataset.samples),
        "pixels that differ": int(np.abs(reference - found).sum()) // 2,
        "images per second": {
            name: {"median": len(dataset.samples) / statistics.median(seconds), "runs": seconds}
            for name, seconds in times.items()
        },
        "stages of the pipeline": pipeline[-1].clock.to_dict(),
    }
    if arguments.json is not None:
        write_json(arguments.json, record)
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
