"""Engines of TensorRT on a GPU: built, proved, compared with PyTorch and timed; one stage of `benchmarks.gpu`.

    python -m benchmarks.gpu_engines FOLDER --out engines/records

FOLDER comes from benchmarks/prepare_gpu.py. For each network in it: engines of all its graphs are built and proved,
compared with PyTorch's FP32 outputs and mIoU, and timed against each other (by the GPU's events, with the copies, and
as a stream of batches) with the time of every layer; ONNX Runtime on the GPU and, with --checkpoint, PyTorch's forms
take part where they are installed. One JSON file a network, with every sample.

Needs TensorRT 8.5 or later, cuda-bindings, numpy, OpenCV, cyclopts and rich; neither PyTorch nor ONNX Runtime.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from itertools import repeat
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from benchmarks.gpu_reference import DATA, Case, Gate, Reference, find_references, verify_engine
from ffnet_deploy.benchmark.bench import BenchOptions, bench
from ffnet_deploy.benchmark.candidates import (
    ArtifactOptions,
    Candidate,
    TorchSource,
    artifact_candidates,
    distinct,
    torch_candidates,
)
from ffnet_deploy.benchmark.device_state import environment, package_versions
from ffnet_deploy.benchmark.files import run_to_dict
from ffnet_deploy.benchmark.record import BenchRun, TimingMethod, TimingScope
from ffnet_deploy.benchmark.steps import Picture
from ffnet_deploy.benchmark.sweep import Grid
from ffnet_deploy.cli.console import console, make_app, progress_bar, report_note, run_command
from ffnet_deploy.cli.options import ENGINE, choice
from ffnet_deploy.core.errors import FFNetDeployError, OptionError, VerificationError
from ffnet_deploy.core.files import make_folder, write_json
from ffnet_deploy.engines.backend import Provider
from ffnet_deploy.engines.cuda import CudaDevice, NoDeviceError, find_device
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.engines.tensorrt.options import BuildOptions
from ffnet_deploy.engines.tensorrt.runner import TensorRTEngine, TensorRTOptions
from ffnet_deploy.engines.tensorrt.variant import Variant
from ffnet_deploy.engines.torch import TorchForm
from ffnet_deploy.evaluation.images import image_files, read_whole
from ffnet_deploy.evaluation.preprocessing import network_input
from ffnet_deploy.export.engine import build_engine

KIND, FORMAT = "ffnet-gpu", 1
_QUEUE = 20
"""Calls that the GPU is given in a row when it is timed alone."""
FORMS = (TorchForm.PUBLISHED, TorchForm.CHANNELS_LAST, TorchForm.FP16, TorchForm.COMPILED)
GPU_PROVIDERS = (Provider.CUDA, Provider.TENSORRT)


@dataclass(frozen=True)
class Plan:
    """What to measure, and how.

    Attributes:
        engines: folder for the engines; those that are there and fit are reused.
        out: folder for the records.
        variant: TensorRT or TensorRT for RTX.
        device: number of the GPU.
        seconds: time each candidate for at least this long,
        samples: and at least this often,
        rounds: in so many turns,
        warmup: after a warm-up of this long, milliseconds.
        batch: images per call that are timed; 0: what the graphs are made for.
        profile: time the layers too.
        checkpoint: of the networks, for PyTorch's forms; None leaves them out.
        stream: batches of a stream that is timed, and how often.
    """

    engines: Path
    out: Path
    variant: Variant = Variant.TENSORRT
    device: int = 0
    seconds: float = 3.0
    samples: int = 100
    rounds: int = 50
    warmup: float = 200.0
    batch: int = 0
    profile: bool = True
    checkpoint: str | None = None
    stream: tuple[int, int] = (100, 7)

    def __post_init__(self) -> None:
        if self.batch < 0 or self.device < 0 or min(self.stream) < 1:
            raise OptionError(f"batch and device are counted from 0, streams from 1: got {self}")


@dataclass
class Findings:
    """What came out for one network: its engines' entries in the record, the files that can be timed, their times."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    engines: list[Path] = field(default_factory=list)
    timing: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def measure(reference: Reference, plan: Plan, device: CudaDevice) -> tuple[Path, list[str]]:
    """Build, compare and time all graphs of one network; write the record.

    Returns:
        The record's file, and what is out of tolerance.
    """
    findings = Findings()
    path = make_folder(plan.out) / f"{reference.network}.{_slug(device.name)}.{plan.variant.value}.json"
    for graph in reference.graphs:
        _measure_graph(graph, reference, plan, findings)
        write_json(path, _record(reference, device, findings))
    for scope in (TimingScope.NETWORK, TimingScope.DEVICE) if findings.engines else ():
        _time(scope, reference, plan, findings)
        write_json(path, _record(reference, device, findings))
    _show(reference, findings)
    return path, findings.failures


def _record(reference: Reference, device: CudaDevice, findings: Findings) -> dict[str, Any]:
    """All that is known so far: it is written after each step, since time on a GPU may end at any moment."""
    return {
        "kind": KIND,
        "format": FORMAT,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "network": reference.network,
        "gpu": asdict(device),
        "versions": package_versions(),
        "environment": environment(),
        "reference": {name: reference.about[name] for name in ("engine", "mIoU", "data", "tools", "created")},
        "engines": findings.entries,
        "timing": findings.timing,
        "failures": findings.failures,
    }


def _measure_graph(graph: Path, reference: Reference, plan: Plan, findings: Findings) -> None:
    """One graph: its engine, its precision check, its comparison with PyTorch, and its stream of batches."""
    engine_path = plan.engines / f"{graph.name.removesuffix('.onnx')}{plan.variant.suffix}"
    entry: dict[str, Any] = {"graph": graph.name}
    findings.entries.append(entry)
    try:
        with progress_bar(f"building {engine_path.name}") as progress:
            options = BuildOptions(variant=plan.variant, device=plan.device)
            made = build_engine(graph, engine_path, options, progress=progress, notes=report_note)
        manifest = made.bundle.manifest
        entry.update(engine=engine_path.name, precision=manifest["precision"]["precision"], build=manifest["build"])
        entry.update(precision_check=manifest["precision_check"], bytes=manifest["bytes"], sha256=manifest["sha256"])
        with TensorRTEngine(engine_path, TensorRTOptions(device=plan.device)) as engine:
            result = verify_engine(engine, reference, Gate.of(made.bundle.record.precision))
            entry["verification"] = result.to_dict()
            entry["streams"] = _streams(engine, next(reference.cases()), plan)
            entry["notes"] = list(engine.notes)
        findings.failures += [f"{engine_path.name}: {failure}" for failure in result.failures]
        findings.engines.append(engine_path)
    except Exception as error:  # bindings raise nearly anything, and the other graphs are worth measuring all the same
        findings.failures.append(f"{graph.name}: {_reason(error)}")
        entry["error"] = str(error) if isinstance(error, FFNetDeployError) else _reason(error)


def _streams(engine: TensorRTEngine, case: Case, plan: Plan) -> dict[str, Any]:
    """Seconds for a number of batches, one after the other and as a stream, in turns."""
    batch = network_input(case.images, engine.contract)
    count, turns = plan.stream
    times: dict[str, list[float]] = {"one by one": [], "stream": []}
    for turn in range(turns + 1):
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


def _time(scope: TimingScope, reference: Reference, plan: Plan, findings: Findings) -> None:
    """All candidates timed side by side: on the GPU alone, with layers, or with the copies."""
    alone = scope is TimingScope.NETWORK
    # calls in a row keep the GPU busy, so that the time between them is not Python's
    queue = _QUEUE if alone else 1
    method = TimingMethod(
        scope, plan.warmup, seconds=plan.seconds, samples=plan.samples, rounds=plan.rounds, queue=queue
    )
    grid = Grid((plan.batch,) if plan.batch else ())
    options = BenchOptions(grid, _picture(reference), method, profile=plan.profile and alone)
    try:
        with progress_bar(f"timing {reference.network}, {scope.sentence}") as progress:
            candidates = [_or_missing(one) for one in _candidates(reference, findings.engines, plan)]
            run = bench(candidates, options, progress=progress)
    except Exception as error:  # what was built and compared so far must not be lost
        findings.failures.append(f"timing, {scope.sentence}: {_reason(error)}")
        findings.timing[scope.value] = {"error": findings.failures[-1]}
        return
    _print_times(run, scope)
    findings.timing[scope.value] = run_to_dict(run)


def _reason(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    return text if isinstance(error, FFNetDeployError) else f"{type(error).__name__}: {text}"


def _or_missing(candidate: Candidate) -> Candidate:
    """`candidate`, which takes no part where it cannot be opened, whatever the reason."""

    def opened(threads: int, streams: int) -> Engine:
        try:
            return candidate.open(threads, streams)
        except Exception as error:  # bindings raise nearly anything; the others are timed all the same
            raise NoDeviceError(_reason(error)) from error

    return replace(candidate, open=opened)


def _candidates(reference: Reference, engines: Sequence[Path], plan: Plan) -> list[Candidate]:
    options = ArtifactOptions(providers=GPU_PROVIDERS, device=plan.device)
    without_graph = ArtifactOptions(cuda_graph=False, device=plan.device)
    plain = [
        Candidate(f"{one.name}, no CUDA graph", one.open, one.artifact, one.precision, on_gpu=True)
        for one in artifact_candidates(engines, without_graph)
    ]
    torch: list[Candidate] = []
    if plan.checkpoint is not None:
        source = TorchSource(reference.network, plan.checkpoint, f"cuda:{plan.device}")
        torch = torch_candidates(source, FORMS)
    ours = [*artifact_candidates(engines, options), *plain]
    return distinct([*torch, *ours, *artifact_candidates(reference.graphs, options)])


def _picture(reference: Reference) -> Picture:
    """The first labelled image; where there is none, the first case's."""
    files = image_files(reference.folder / DATA) if (reference.folder / DATA).is_dir() else []
    images = [file for file in files if "annotations" not in file.parts and "gtFine" not in file.parts]
    if images:
        return Picture(read_whole(images[0], "image"), images[0].name)
    import cv2

    case = next(reference.cases())
    return Picture(cv2.imencode(".png", case.images[0])[1].tobytes(), case.name)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _show(reference: Reference, findings: Findings) -> None:
    table = Table("engine", "precision", "agreement %", "relative error", "mIoU (PyTorch)", title=reference.network)
    for entry in findings.entries:
        if "verification" not in entry:
            table.add_row(entry["graph"], "-", "-", "-", entry["error"].splitlines()[0])
            continue
        found = entry["verification"]
        shown = "-" if found["miou"] is None else f"{found['miou'][1]:.2f} ({found['miou'][0]:.2f})"
        agreement, relative = f"{found['agreement']:.3f}", f"{found['relative']:.1e}"
        table.add_row(entry["engine"], entry["precision"], agreement, relative, shown)
    console.print(table)


def _print_times(run: BenchRun, scope: TimingScope) -> None:
    table = Table("candidate", "median ms", "p95 ms", "samples", title=scope.sentence)
    for row in run.measurements:
        summary = row.device_summary or row.summary
        if summary is None:
            table.add_row(row.candidate, "-", "-", row.error or "")
        else:
            table.add_row(row.candidate, f"{summary.median:.3f}", f"{summary.p95:.3f}", str(summary.count))
    console.print(table)
    for one in run.missing:
        report_note(f"{one.candidate}: {one.reason.splitlines()[0]}")


app = make_app(
    "benchmarks/gpu.py", "Build, compare and time everything that FOLDER holds, on this machine's GPU.", "FOLDER"
)


@app.default
def command(
    folder: Annotated[Path, Parameter(help="Made by benchmarks/prepare_gpu.py.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="Folder for the records.")] = Path("engines/records"),
    engines: Annotated[Path, Parameter(help="Folder for the engines.")] = Path("engines"),
    variant: Annotated[Variant, choice(Variant, ENGINE)] = Variant.TENSORRT,
    device: Annotated[int, Parameter(help="Number of the GPU.")] = 0,
    seconds: Annotated[float, Parameter(help="Time each candidate for at least this long.")] = 3.0,
    samples: Annotated[int, Parameter(help="And at least this often.")] = 100,
    batch: Annotated[int, Parameter(help="Images per call; 0: what the graphs are made for.")] = 0,
    profile: Annotated[bool, Parameter(negative="--no-profile", help="Time the layers too.")] = True,
    checkpoint: Annotated[str | None, Parameter(help="Time PyTorch's forms too: file, 'published', ...")] = None,
) -> None:
    """Build, compare and time everything that FOLDER holds, on this machine's GPU."""
    references = find_references(folder)
    found = find_device(device)
    plan = Plan(engines, out, variant, device, seconds, samples, batch=batch, profile=profile, checkpoint=checkpoint)
    failures: list[str] = []
    for reference in references:
        path, failed = measure(reference, plan, found)
        console.print(f"every sample is in {path}", soft_wrap=True)
        failures += failed
    if failures:
        raise VerificationError("out of tolerance, or failed:\n  " + "\n  ".join(failures))


if __name__ == "__main__":
    run_command(app)
