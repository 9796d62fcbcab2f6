"""Engines of TensorRT on a GPU: built, checked, compared and timed; the largest part of `benchmarks.gpu`.

    python -m benchmarks.gpu_engines build FOLDER GRAPH.onnx --engine FILE --out RECORD.json
    python -m benchmarks.gpu_engines time FOLDER ENGINE... --out RECORD.json

FOLDER is that of one network (gpu_reference.py). Records are written after each part: time on a GPU may end at any
moment. Needs TensorRT 8.5 or later, cuda-bindings, numpy, OpenCV, cyclopts, rich, msgspec and filelock; neither PyTorch
nor onnx nor ONNX Runtime.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from itertools import repeat
from pathlib import Path
from typing import Annotated, Any

import cv2
from cyclopts import Parameter
from rich.table import Table

from benchmarks.gpu_reference import Case, Reference, build_options, find_references, verify_engine
from ffnet_deploy.benchmark.bench import BenchOptions, bench
from ffnet_deploy.benchmark.candidates import ArtifactOptions, Candidate, artifact_candidates
from ffnet_deploy.benchmark.device_state import environment, package_versions
from ffnet_deploy.benchmark.files import run_to_dict
from ffnet_deploy.benchmark.record import BenchRun, TimingMethod, TimingScope
from ffnet_deploy.benchmark.steps import Picture
from ffnet_deploy.benchmark.sweep import Grid
from ffnet_deploy.cli.console import console, make_app, progress_bar, report_note, run_command
from ffnet_deploy.cli.options import ENGINE, choice
from ffnet_deploy.core.errors import FFNetDeployError, OptionError, VerificationError
from ffnet_deploy.core.files import write_json
from ffnet_deploy.engines.cuda import CudaDevice, NoDeviceError, find_device
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.engines.tensorrt.runner import TensorRTEngine, TensorRTOptions
from ffnet_deploy.engines.tensorrt.variant import Variant
from ffnet_deploy.evaluation.preprocessing import network_input
from ffnet_deploy.export.engine import build_engine

QUEUE = 20
"""Calls that the GPU is given in a row when it is timed alone, so that the time between them is not Python's."""
WARMUP = 100.0
"""Milliseconds of warm-up for each second that is timed."""
SAMPLES, ROUNDS = 100, 50
STREAMS = 7
"""How often a stream of batches is timed."""


def build(
    reference: Reference,
    graph: Path,
    path: Path,
    out: Path,
    variant: Variant = Variant.TENSORRT,
    device: int = 0,
    samples: int = SAMPLES,
) -> list[str]:
    """Build the engine `path` of `graph`, check its precision, compare it, and time a stream of `samples` batches.

    The record is `out`.

    Returns:
        What is out of tolerance, in words.

    Raises:
        FFNetDeployError: there is no GPU, or TensorRT does not build the engine.
    """
    record = _about(reference, find_device(device))
    with progress_bar(f"building {path.name}") as progress:
        options = build_options(graph, variant, device)
        if variant is Variant.TENSORRT:  # layers that a network's graphs share are timed once
            options = replace(options, timing_cache=path.with_name("timing.cache"))
        made = build_engine(graph, path, options, progress=progress, notes=report_note)
    manifest = made.bundle.manifest
    record |= {"graph": graph.name, "engine": path.name}
    record |= {key: manifest[key] for key in ("precision", "build", "profiles", "precision_check", "bytes", "sha256")}
    write_json(out, record)
    with TensorRTEngine(path, TensorRTOptions(device=device)) as engine:
        found = verify_engine(engine, reference, made.bundle.record.precision)
        record |= {"verification": found.to_dict()}
        write_json(out, record)
        last = list(reference.cases())[-2:]  # a single image, and the largest batch
        record |= {"streams": [_stream(engine, case, samples) for case in last], "notes": list(engine.notes)}
        write_json(out, record)
    miou = "" if found.miou is None else f", mIoU {found.miou[1]:.2f} (FP32 {found.miou[0]:.2f})"
    worst = max(row.relative for row in found.comparisons)
    console.print(f"{path.name}: agreement {found.agreement:.3f} %, relative error {worst:.1e}{miou}", soft_wrap=True)
    return found.failures


def _about(reference: Reference, device: CudaDevice) -> dict[str, Any]:
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "network": reference.network,
        "gpu": asdict(device),
        "versions": package_versions(),
        "environment": environment(),
        "reference": {name: reference.about[name] for name in ("engine", "trained", "mIoU", "data", "commit")},
    }


def _stream(engine: TensorRTEngine, case: Case, count: int) -> dict[str, Any]:
    """Seconds for `count` batches, one after the other and as a stream, in turns."""
    batch = network_input(case.images, engine.contract)
    times: dict[str, list[float]] = {"one by one": [], "stream": []}
    for turn in range(STREAMS + 1):
        begin = time.perf_counter()
        for _ in range(count):
            engine.run(batch)
        middle = time.perf_counter()
        for _ in engine.run_stream(repeat(batch, count)):
            pass
        if turn:  # the first warms up
            times["one by one"].append(middle - begin)
            times["stream"].append(time.perf_counter() - middle)
    return {"batches": count, "images per batch": len(batch), "size": list(case.images.shape[1:3]), "seconds": times}


def time_engines(
    reference: Reference,
    engines: Sequence[Path],
    out: Path,
    seconds: float,
    samples: int = SAMPLES,
    device: int = 0,
) -> list[str]:
    """Time `engines` of one network side by side: on the GPU alone with every layer, then with the copies.

    Args:
        reference: gives the image and the batch sizes.
        engines: those that are missing take no part.
        out: the record.
        seconds: minimum time in seconds for which each candidate is timed.
        samples: minimum number of samples per candidate.
        device: number of the GPU.

    Returns:
        What failed, in words.

    Raises:
        OptionError: none of the engines is there.
        NoDeviceError: there is no GPU.
    """
    there = [engine for engine in engines if engine.is_file()]
    if not there:
        raise OptionError(f"none of {len(engines)} engines is built.\n  to do    build them first")
    cases = list(reference.cases())
    batches = tuple(dict.fromkeys(len(case.images) for case in cases))
    picture = Picture(cv2.imencode(".png", cases[0].images[0])[1].tobytes(), cases[0].name)
    record, failures = {**_about(reference, find_device(device)), "timing": {}}, []
    for scope in (TimingScope.NETWORK, TimingScope.DEVICE):
        alone = scope is TimingScope.NETWORK
        queue = min(QUEUE, samples) if alone else 1
        rounds = min(ROUNDS, samples)
        method = TimingMethod(scope, WARMUP * seconds, seconds=seconds, samples=samples, rounds=rounds, queue=queue)
        options = BenchOptions(Grid(batches), picture, method, profile=alone, least_agreement=0)
        try:
            with progress_bar(f"timing {reference.network}, {scope.sentence}") as progress:
                run = bench(_candidates(there, device), options, progress=progress)
        except Exception as error:  # bindings raise nearly anything, and what was measured so far must not be lost
            failures.append(f"{scope.sentence}: {_reason(error)}")
            record["timing"][scope.value] = {"error": failures[-1]}
        else:
            record["timing"][scope.value] = run_to_dict(run)
            _show(run, scope)
        write_json(out, record)
    return failures


def _candidates(engines: Sequence[Path], device: int) -> list[Candidate]:
    """Every engine with and without CUDA graphs; one that cannot be opened, whatever the reason, takes no part."""

    def or_missing(candidate: Candidate, name: str) -> Candidate:
        def opened(threads: int, streams: int) -> Engine:
            try:
                return candidate.open(threads, streams)
            except Exception as error:  # bindings raise nearly anything; the others are timed all the same
                raise NoDeviceError(_reason(error)) from error

        return replace(candidate, open=opened, name=name)

    with_graph = artifact_candidates(engines, ArtifactOptions(device=device))
    plain = artifact_candidates(engines, ArtifactOptions(cuda_graph=False, device=device))
    return [or_missing(one, one.name) for one in with_graph] + [
        replace(or_missing(one, f"{one.name}, no CUDA graph"), profile=None) for one in plain
    ]


def _reason(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    return text if isinstance(error, FFNetDeployError) else f"{type(error).__name__}: {text}"


def _show(run: BenchRun, scope: TimingScope) -> None:
    table = Table("candidate", "setting", "median ms", "p95 ms", "samples", title=scope.sentence)
    for row in run.measurements:
        summary = row.device_summary or row.summary
        if summary is None:
            table.add_row(row.candidate, str(row.setting), "-", "-", row.error or "")
        else:
            shown = (f"{summary.median:.3f}", f"{summary.p95:.3f}", str(summary.count))
            table.add_row(row.candidate, str(row.setting), *shown)
    console.print(table)
    for one in run.missing:
        report_note(f"{one.candidate}: {one.reason.splitlines()[0]}")


app = make_app("gpu_engines", "Build, compare and time the engines of one network on this machine's GPU.")
Device = Annotated[int, Parameter(help="Number of the GPU.")]
Record = Annotated[Path, Parameter(help="JSON file for what is measured.")]
Samples = Annotated[int, Parameter(help="Batches of a stream, and least samples of each time.")]


@app.command(name="build")
def build_command(
    folder: Path,
    graph: Annotated[str, Parameter(help="Name of one of its graphs.")],
    /,
    *,
    engine: Annotated[Path, Parameter(help="The engine; reused where it is there and fits.")],
    out: Record,
    variant: Annotated[Variant, choice(Variant, ENGINE)] = Variant.TENSORRT,
    device: Device = 0,
    samples: Samples = SAMPLES,
) -> None:
    """Build the engine of a graph, check its precision, and compare it with the network in FP32."""
    (reference,) = find_references(folder)
    (path,) = (path for path in reference.graphs if path.name == graph)
    if failures := build(reference, path, engine, out, variant, device, samples):
        raise VerificationError("out of tolerance:\n  " + "\n  ".join(failures))


@app.command(name="time")
def time_command(
    folder: Path,
    /,
    *engines: Path,
    out: Record,
    device: Device = 0,
    seconds: Annotated[float, Parameter(help="Minimum time in seconds for which each candidate is timed.")] = 3.0,
    samples: Samples = SAMPLES,
) -> None:
    """Time engines of one network side by side, with their layers."""
    (reference,) = find_references(folder)
    if failures := time_engines(reference, engines, out, seconds, samples, device):
        raise VerificationError("failed:\n  " + "\n  ".join(failures))


if __name__ == "__main__":
    run_command(app)
