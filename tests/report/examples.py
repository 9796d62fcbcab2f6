"""Reports with known numbers: candidates that were scored, timed, profiled and proved, and parts of them missing."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ffnet_deploy.benchmark.record import (
    BenchRun,
    CandidateInfo,
    CpuState,
    DeviceState,
    GpuState,
    Interval,
    LayerProfile,
    Missing,
    OutputCheck,
    Peaks,
    ProfileRow,
    Ratio,
    Setting,
    Summary,
    TimingMethod,
    TimingResult,
    Verdict,
)
from ffnet_deploy.evaluation.scores import confusion_matrix, scores
from ffnet_deploy.report import data as report
from ffnet_deploy.report.gallery import GalleryOptions, PredictionCollector
from tests.toy import CAMVID, contract, label_map, picture

BLOCKS = ("stem", "stage 1 token mixer", "stage 1 channel mixer", "stage 2 token mixer", "head", "upsample")
NAMES = ("PyTorch", "camvid.fp16.onnx", "camvid.int8.engine")


def summary(samples: Sequence[float]) -> Summary:
    values = np.array(samples)
    median = float(np.median(values))
    p90, p95, p99 = (float(value) for value in np.percentile(values, [90, 95, 99]))
    mean, spread = float(values.mean()), 100 * float(values.std() / values.mean())
    interval = Interval(median * 0.99, median * 1.01)
    return Summary(len(values), median, interval, mean, float(values.min()), float(values.max()), p90, p95, p99, spread)


def profile(total: float) -> LayerProfile:
    shares = np.array([0.08, 0.2, 0.31, 0.25, 0.12, 0.04])
    blocks = tuple(
        ProfileRow(name, name, "", total * part, 100 * part, 2e9 * part, 3e6, total * part / 3, "compute", 33.3)
        for name, part in zip(BLOCKS, shares.tolist(), strict=True)
    )
    return LayerProfile("toy profiler", 20, blocks, blocks, Peaks(1.2e11, 1.6e10, "measured"))


def measurement(name: str, median: float, first: float, seed: int = 0, **changes: Any) -> TimingResult:
    times = median * np.random.default_rng(seed).lognormal(0, 0.03, (50, 4))
    rounds = tuple(tuple(float(value) for value in row) for row in times)
    found = summary(times.ravel().tolist())
    ratio = median / first
    verdict = Verdict.FASTER if ratio < 1 else Verdict.SLOWER
    described: dict[str, Any] = {
        "setting": Setting(1, 384, 768, 2),
        "rounds_ms": rounds,
        "wall_s": 3.1,
        "summary": found,
        "throughput": 1000 / found.median,
        "ratio": Ratio(NAMES[0], ratio, Interval(ratio * 0.98, ratio * 1.02), verdict) if name != NAMES[0] else None,
        "check": OutputCheck(NAMES[0], 99.93, 1e-3, 99.0, True) if name != NAMES[0] else None,
        "profile": profile(median),
    }
    return TimingResult(name, **{**described, **changes})


def state() -> DeviceState:
    cpu = CpuState("A processor at 2 GHz", 4, (0, 1), "performance", 2100.0, (0.5, 0.4, 0.3))
    gpu = GpuState(0, "A GPU", "560.1", 2520, 10501, 212.5, 61, (), 3 << 30, 24 << 30, 0)
    return DeviceState(cpu, (gpu,), ("power could not be read",))


def run(medians: Sequence[float] = (41.0, 18.5, 6.2), names: Sequence[str] = NAMES) -> BenchRun:
    engines = ("PyTorch 2.13 (cpu)", "ONNX Runtime 1.31 (CPU)", "TensorRT 10.16 (A GPU)")
    artifacts = (None, NAMES[1], NAMES[2])
    candidates = tuple(
        CandidateInfo(name, engine, precision, "camvid_network", artifact, artifact and artifact[7] * 64)
        for name, engine, precision, artifact in zip(names, engines, ("fp32", "fp16", "int8"), artifacts, strict=False)
    )
    pairs = enumerate(zip(names, medians, strict=False))
    measured = tuple(measurement(name, ms, medians[0], index) for index, (name, ms) in pairs)
    return BenchRun(
        created="2026-01-02T03:04:05+00:00",
        method=TimingMethod(),
        candidates=candidates,
        measurements=measured,
        missing=(Missing("OpenVINO", "pip install 'ffnet-deploy[openvino]'"),),
        before=state(),
        after=state(),
        environment={"system": "Linux"},
        versions={"onnxruntime": "1.31.1"},
        warnings=("the load average was 2.0 on 2 cores",),
    )


def predictions(truth: np.ndarray, wrong: float, seed: int) -> np.ndarray:
    """`truth` with blocks of wrong labels over about the share `wrong` of it."""
    rng = np.random.default_rng(seed)
    out = np.where(truth == 255, 0, truth)
    rows, columns = truth.shape
    for _ in range(int(wrong * rows * columns / 36) + 1):
        y, x = rng.integers(0, rows - 6), rng.integers(0, columns - 6)
        out[y : y + 6, x : x + 6] = rng.integers(0, len(CAMVID.classes))
    return out.astype(np.uint8)


def maps(number: int, size: tuple[int, int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Ground truth of image `number`, and what each of the three candidates made of it."""
    truth = label_map(*size, seed=number)
    first = predictions(truth, 0.10, number)
    return truth, [first, predictions(first, 0.005, number + 100), predictions(first, 0.02, number + 200)]


SENSITIVITY = (("/head/a", 10.0, 20.0, 1.5), ("/b", 60.0, 30.0, 0.01), ("/c", 30.0, 40.0, None))
"""Blocks with their share of multiply-adds, signal to noise in dB and fall of mIoU."""
SEARCH: dict[str, Any] = {
    "kept": ["/head/a"],
    "drop": 0.12,
    "reference_mIoU": 62.65,
    "trials": 7,
    "finished": True,
    "sensitivity": [
        {
            "block": block,
            "convs": [f"{block}/Conv"],
            "macs_percent": macs,
            "sqnr_db": noise,
            "disagreement_percent": 0.5,
            "drop": drop,
        }
        for block, macs, noise, drop in SENSITIVITY
    ],
}


def manifest(index: int) -> dict[str, Any]:
    comparison = {"image": "scene_0", "size": [384, 768], "largest": 1e-3, "mean": 1e-4, "magnitude": 9.5}
    violations = ["head.conv: asked for int8, runs in fp16"] if index == 2 else []
    counts = {"int8": 61, "fp16": 20} if index == 2 else {"fp16": 81}
    return {
        "sha256": NAMES[index][7] * 64,
        "bytes": 4_284_340,
        "created": "2026-01-01T00:00:00+00:00",
        "tools": {"ffnet-deploy": "0.1.0", "onnx": "1.23.2"},
        "verification": {
            "passed": True,
            "failures": [],
            "reference": "PyTorch 2.13 (cpu)",
            "candidate": "ONNX Runtime 1.31 (CPU)",
            "comparisons": [{**comparison, "agreement": 99.98, "relative": 1e-4}],
            "mIoU": {"reference": 62.65, "candidate": 62.6, "images": 3},
        },
        "precision": {
            "precision": "int8" if index == 2 else "fp16",
            "base": "fp16",
            "quantized": ["a", "b"] if index == 2 else [],
            "float32": ["norm"],
            "quantization": {"search": SEARCH} if index == 2 else None,
        },
        "precision_check": {
            "basis": "the engine inspector's layer list",
            "network": {"layers": 90, "convolutions": counts, "casts": 2, "violations": []},
            "engine": {"layers": 81, "by_precision": counts, "reformats": 3, "violations": violations},
        },
    }


def example(count: int = 3, size: tuple[int, int] = (120, 160), options: GalleryOptions | None = None) -> Any:
    """A whole report of three candidates on `count` images."""
    collector = PredictionCollector([f"scene_{number}" for number in range(count)], options)
    confusion = np.zeros((3, len(CAMVID.classes), len(CAMVID.classes)), np.int64)
    images = [maps(number, size) for number in range(count)]
    for index in range(3):
        watch = collector.next_candidate()
        for number, (truth, predicted) in enumerate(images):
            watch(source(number), picture(*size, seed=number), predicted[index], truth)
            confusion[index] += confusion_matrix(predicted[index], truth, len(CAMVID.classes))
    timed = run()
    candidates = tuple(
        report.CandidateResults(
            name=name,
            engine=timed.candidates[index].engine,
            network="camvid_network",
            artifact=timed.candidates[index].artifact,
            sha256=timed.candidates[index].sha256,
            precision=timed.candidates[index].precision,
            sources={"checkpoint": "0" * 64},
            manifest=manifest(index) if index else None,
            accuracy=report.Accuracy(
                scores(confusion[index], CAMVID.classes),
                count,
                1.5,
                "camvid",
                "val",
                {"scale": (96, 64), "keep_ratio": True, "mode": "whole", "ratios": [1.0], "flip": False},
                collector.agreement(index) if index else None,
                ("images were stretched",),
            ),
            measurements=(timed.measurements[index],),
        )
        for index, name in enumerate(NAMES)
    )
    return report.ReportData(
        title="camvid_network",
        created="2026-01-02T03:04:05+00:00",
        candidates=candidates,
        classes=CAMVID.classes,
        palette=CAMVID.palette,
        gallery=collector.gallery(contract(), NAMES),
        run=timed,
        environment={"Versions": {"numpy": "2.4.6"}},
    )


def source(number: int) -> Any:
    from pathlib import Path

    from ffnet_deploy.evaluation.datasets import Sample

    return Sample(Path(f"scene_{number}.png"), None, f"scene_{number}")
