"""How fast images are scored, and in how much memory: ``python -m benchmarks.evaluation --data DATA --label-set SET``.

Around the network: the engine costs nothing, it gives logits made beforehand, with regions and noise as a network's
have, or label maps. What remains is reading, resizing, enlarging, argmax and scoring. Three ways take turns, image sets
in full each time: one image after the other with the scores of all classes at all pixels; the pipeline; the pipeline
over label maps.

``--memory N``: resident memory of the process in a run of N images through the pipeline.

``--whole-run ARTIFACT``: a real network. The pipeline on an exported graph in ONNX Runtime and MMSegmentation's
``Runner.test`` of the bundled CamVid network in PyTorch take turns on CamVid's validation images, with as many threads.

``--raster ARTIFACT --side N``: a GeoTIFF of N x N pixels, put together from the images, is labelled with an exported
graph; what it takes of memory and time, and how far the windows' labels differ in their overlaps.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.contract import Contract, DimensionRange, InputKind, OutputKind, TestProtocol
from ffnet_deploy.core.files import write_json
from ffnet_deploy.core.label_sets import label_set
from ffnet_deploy.core.optional import optional
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeOptions
from ffnet_deploy.evaluation import finishing
from ffnet_deploy.evaluation.datasets import Dataset, open_dataset
from ffnet_deploy.evaluation.evaluate import Evaluation, evaluate
from ffnet_deploy.evaluation.image_scores import total
from ffnet_deploy.evaluation.images import read_image
from ffnet_deploy.evaluation.protocol import PredictOptions, prepare, run_network
from ffnet_deploy.evaluation.rasters import predict_raster
from ffnet_deploy.evaluation.scores import confusion_matrix
from ffnet_deploy.evaluation.windows import ScoredWindow, ScoreMap

PROTOCOLS = {
    "ade20k": TestProtocol(scale=(2048, 512)),
    "cityscapes": TestProtocol(scale=(2048, 1024), mode="slide", crop=(1024, 1024), stride=(768, 768)),
    "camvid": TestProtocol(scale=(480, 360)),
}

MARKS = (20, 100, 500)
"""Numbers of images after which memory is told."""


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


def around_the_network(contract: Contract, dataset: Dataset, rounds: int) -> dict[str, Any]:
    """Images per second of each way around an engine that costs nothing."""
    engine = FreeEngine(contract)
    whole = FreeEngine(replace(contract, output=OutputKind.LABELS, protocol=replace(contract.protocol, mode="whole")))
    pipeline: list[Evaluation] = []
    ways = {
        "one by one, all scores": lambda: one_by_one(engine, dataset),
        "pipeline": lambda: pipeline.append(evaluate(engine, dataset)),
        "pipeline, labels from the device": lambda: evaluate(whole, dataset),
    }
    times = taking_turns(ways, rounds)
    reference = one_by_one(engine, dataset)
    return {
        "images": len(dataset.samples),
        "pixels that differ": int(np.abs(reference - total(pipeline[0].per_image, len(contract.classes))).sum()) // 2,
        "images per second": per_second(times, len(dataset.samples)),
        "stages of the pipeline": pipeline[-1].clock.to_dict(),
    }


def memory(contract: Contract, dataset: Dataset, images: int) -> dict[str, Any]:
    """Resident memory in MiB after some of so many images, those of `dataset` again and again; logits are not kept."""
    samples = dataset.samples
    many = [replace(samples[number % len(samples)], name=f"{number}") for number in range(images)]
    resident: dict[int, float] = {}

    def progress(_: str, done: float = 0, __: float | None = None) -> None:
        if done in MARKS or done == images:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident[int(done)] = round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)

    evaluate(FreeEngine(contract, keep=False), replace(dataset, samples=tuple(many)), progress=progress)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {"classes": len(contract.classes), "MiB after images": resident, "MiB at most": round(peak, 1)}


def whole_run(artifact: Path, data: Path, rounds: int, threads: int) -> dict[str, Any]:
    """Images per second of a real network, here and in MMSegmentation, and the network's share of the time."""
    dataset = open_dataset(data, "camvid")
    scored: list[Evaluation] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        OnnxRuntimeEngine(artifact, OnnxRuntimeOptions(threads=threads)) as engine,
    ):
        runner = mmseg_runner(data, Path(folder), threads)
        metrics: list[dict[str, float]] = []
        times = taking_turns(
            {
                engine.name: lambda: scored.append(evaluate(engine, dataset)),
                "MMSegmentation, Runner.test": lambda: metrics.append(runner.test()),
            },
            rounds,
        )
    assert scored[-1].scores is not None
    return {
        "images": len(dataset.samples),
        "threads": threads,
        "mIoU": {engine.name: scored[-1].scores.mean_iou, "MMSegmentation, Runner.test": float(metrics[-1]["mIoU"])},
        "images per second": per_second(times, len(dataset.samples)),
        "network, share of the wall time": [round(one.clock.network / one.seconds, 4) for one in scored[1:]],
        "stages": scored[-1].clock.to_dict(),
        "notes": list(scored[-1].notes),
    }


def raster(artifact: Path, dataset: Dataset, side: int, threads: int) -> dict[str, Any]:
    """Peak memory, time and seam error of labelling a raster of `side` x `side` pixels."""
    with (
        tempfile.TemporaryDirectory() as folder,
        OnnxRuntimeEngine(artifact, OnnxRuntimeOptions(threads=threads)) as engine,
    ):
        ground, labels = Path(folder) / "ground.tif", Path(folder) / "labels.tif"
        write_mosaic(ground, [read_image(sample.image) for sample in dataset.samples[:32]], side)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        found = predict_raster(engine, ground, labels)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        written = labels.stat().st_size / 2**20
    return {
        "side": side,
        "classes": len(engine.contract.classes),
        "windows": found.windows,
        "MiB before": round(before, 1),
        "MiB at most": round(peak, 1),
        "MiB written": round(written, 1),
        "seconds": round(found.seconds, 1),
        "seam error, percent": round(100 * found.seam_error, 2),
    }


def write_mosaic(path: Path, images: Sequence[NDArray[np.uint8]], side: int) -> None:
    """Write a GeoTIFF of `side` x `side` pixels in which `images`, BGR and all of one size, lie side by side."""
    rasterio = optional("rasterio", extra="raster", purpose="writing rasters")
    height, width = images[0].shape[:2]
    across = -(-side // width)
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.2, 0, 430_000, 0, -0.2, 5_500_000)}
    form = {"tiled": True, "compress": "jpeg", "photometric": "ycbcr", "bigtiff": "if_safer", **place}
    with rasterio.open(path, "w", "GTiff", side, side, 3, dtype="uint8", **form) as file:
        for row, top in enumerate(range(0, side, height)):
            tiles = [images[(row * across + column) % len(images)] for column in range(across)]
            strip = np.concatenate(tiles, axis=1)[: min(height, side - top), :side, ::-1]
            file.write(np.moveaxis(strip, -1, 0), window=rasterio.windows.Window(0, top, side, len(strip)))


def mmseg_runner(data: Path, folder: Path, threads: int) -> Any:
    """MMSegmentation's own Runner, data set, pipeline and metric for the bundled CamVid network."""
    # read when PyTorch is loaded: threads that spin while they wait slow it down several times on a busy machine
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch
    from mmengine.runner import Runner

    from ffnet_deploy.segmentor.load import open_segmentor

    torch.set_num_threads(threads)
    segmentor = open_segmentor("ffnet_seg_nano_camvid", "bundled")
    cfg = segmentor.config.cfg
    labels = label_set("camvid")
    images = {
        "type": "BaseSegDataset",
        "data_root": str(data),
        "data_prefix": {"img_path": "images/val", "seg_map_path": "annotations/val"},
        "metainfo": {"classes": labels.classes, "palette": [list(colour) for colour in labels.palette]},
        "pipeline": cfg.test_pipeline,
    }
    runner = Runner(
        model=cfg.model,
        work_dir=str(folder),
        test_dataloader={
            "batch_size": 1,
            "num_workers": threads,
            "persistent_workers": True,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "dataset": images,
        },
        test_cfg={"type": "TestLoop"},
        test_evaluator={"type": "IoUMetric", "iou_metrics": ["mIoU"]},
        default_scope="mmseg",
        log_level="ERROR",
    )
    runner.model.load_state_dict(segmentor.model.state_dict())
    return runner


def taking_turns(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each of the rounds but for a first one that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if turn:
                times[name].append(time.perf_counter() - began)
    return times


def per_second(times: Mapping[str, list[float]], images: int) -> dict[str, Any]:
    """Images per second, median, with the seconds of each round; and the second way's rate over the first's."""
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    first, second, *_ = medians.values()
    found = {name: {"median": images / medians[name], "runs": seconds} for name, seconds in times.items()}
    return {**found, "second over first": first / second}


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled data set")
    parser.add_argument("--label-set", choices=sorted(PROTOCOLS), default="camvid", help="what the data are of")
    parser.add_argument("--classes", choices=sorted(PROTOCOLS), help="label set whose classes the network has")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=1, help="times that each image counts")
    parser.add_argument("--memory", type=int, metavar="N", help="measure memory over so many images")
    parser.add_argument("--whole-run", type=Path, metavar="ARTIFACT", help="measure a real network")
    parser.add_argument("--raster", type=Path, metavar="ARTIFACT", help="measure the labelling of a raster")
    parser.add_argument("--side", type=int, default=20_000, help="of the raster, in pixels")
    parser.add_argument("--threads", type=int, default=2, help="of the network, with --whole-run and --raster")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.whole_run is not None:
        measured = whole_run(arguments.whole_run, arguments.data, arguments.rounds, arguments.threads)
    elif arguments.raster is not None:
        dataset = open_dataset(arguments.data, arguments.label_set)
        measured = raster(arguments.raster, dataset, arguments.side, arguments.threads)
    else:
        labels = label_set(arguments.classes or arguments.label_set)
        side = DimensionRange(32, 512, 4096)
        contract = Contract(
            "free", arguments.label_set, labels.classes, labels.palette, height=side, width=side,
            batch=DimensionRange(1, 1, 8), protocol=PROTOCOLS[arguments.label_set], input=InputKind.BGR,
        )  # fmt: skip
        dataset = open_dataset(arguments.data, arguments.label_set)
        if arguments.memory is not None:
            measured = memory(contract, dataset, arguments.memory)
        else:
            repeated = replace(dataset, samples=dataset.samples * arguments.repeat)
            measured = around_the_network(contract, repeated, arguments.rounds)
    record = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), **measured}
    if arguments.json is not None:
        write_json(arguments.json, record)
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
