"""The plan for a GPU machine without a network: steps that each keep their record, run once, within a time limit.

    python -m benchmarks.gpu run FOLDER --results RESULTS --limit 570     # again and again until nothing is left
    python -m benchmarks.gpu status FOLDER --results RESULTS

FOLDER comes from benchmarks/prepare_gpu.py. Each step is a process of its own, so that a crash or a hang costs that
step only; a run ends at the first that may take longer than is left. RESULTS holds small files alone; its
``state.json`` is written after each step and says what came of it. ``--tensorrt-python`` names the Python that has
TensorRT where that is another one than this (TensorRT 8.5.3 needs Python 3.10).
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from benchmarks.gpu_reference import Reference, find_references
from ffnet_deploy.cli.console import console, make_app, run_command
from ffnet_deploy.core.errors import ArtifactError, MissingPackageError, OptionError
from ffnet_deploy.core.files import make_folder, write_json
from ffnet_deploy.core.optional import optional

STATE = "state.json"
PLAN = "plan.json"
"""What prepare_gpu.py writes down of the networks."""
MIB = 1 << 20
_TAIL = 4000
_CHECKOUT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Site:
    """Where steps run.

    Attributes:
        folder: of benchmarks/prepare_gpu.py.
        results: folder of small files that is taken home.
        work: folder for engines and other large files that stay.
        python: the interpreter with PyTorch, triton, onnx and ONNX Runtime.
        tensorrt: the interpreter with TensorRT and cuda-bindings.
        device: of PyTorch: "cuda"; "cpu" for a rehearsal.
        seconds: minimum time in seconds for which each candidate is timed.
        samples: minimum number of samples per candidate.
    """

    folder: Path
    results: Path
    work: Path
    python: str
    tensorrt: str
    device: str = "cuda"
    seconds: float = 2.0
    samples: int = 100

    @property
    def timed(self) -> tuple[str, ...]:
        """How long a step times, as options of its command."""
        return "--seconds", str(self.seconds), "--samples", str(self.samples)

    def engine(self, graph: Path) -> Path:
        """The engine of `graph`."""
        return self.work / "engines" / f"{graph.name.removesuffix('.onnx')}.engine"


@dataclass(frozen=True)
class Step:
    """One process of the plan.

    Attributes:
        stage: the part of the plan that it belongs to.
        subject: what it measures.
        limit: most seconds that it may take.
        memory: bytes of GPU memory that it needs.
        disk: bytes that it writes.
        command: the process.
        obstacle: why it cannot run now, in words; None where it can.
        environment: variables of its own.
    """

    stage: str
    subject: str
    limit: int
    memory: int
    disk: int
    command: list[str]
    obstacle: Callable[[], str | None] = lambda: None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the step in the state."""
        return f"{self.stage} {self.subject}".strip()


STAGES = {
    "graphs": "the weights of large networks are made, and ONNX Runtime gives the outputs to compare with",
    "ceilings": "memory copy, FP16 and INT8 matrix products, state of the device",
    "pytorch": "PyTorch's forms, plain and rewritten, batch 1 and 8",
    "tensorrt": "one engine: precision check, comparison and mIoU, stream",
    "layers": "a network's engines side by side: with and without CUDA graphs, with copies, layer by layer",
    "onnxruntime": "ONNX Runtime's CUDA provider",
    "end-to-end": "mIoU and speed by the evaluation pipeline",
    "tests": "tests/gpu on the trained networks",
    "compiled": "PyTorch's torch.compile, FP32 and FP16 max-autotune",
}
"""In their order; a later one may use what an earlier one made."""


def steps(site: Site) -> Iterator[Step]:
    """All steps for the networks in the site's folder, in their order."""
    references = sorted(find_references(site.folder), key=lambda reference: not reference.is_trained)
    networks = json.loads((site.folder / PLAN).read_text(encoding="utf-8"))["networks"]
    yield Step("graphs", "", 240, 0, 4 << 30, [site.python, "-m", "benchmarks.gpu_weights", str(site.folder)])
    yield Step(
        *("ceilings", "", 90, 4 << 30, 1 << 16),
        [
            *(site.python, "-m", "benchmarks.gpu_ceilings", "--device", site.device),
            *("--out", str(site.results / "ceilings.json")),
        ],
    )
    for network in networks:
        yield _forms(site, "pytorch", network, 240, "published,reparameterized,channels-last,fp16,cuda-graph")
    for network in dict.fromkeys(reference.network for reference in references):
        own = [reference for reference in references if reference.network == network]
        for reference in own:
            for graph in reference.graphs:
                yield _engine(site, reference, graph)
        yield _layers(site, own)
    for reference in references:
        yield Step(
            *("onnxruntime", reference.name, 120, 4 << 30, 4 << 20),
            [
                *(site.python, "-m", "ffnet_deploy.cli.bench", *map(str, reference.graphs), "--device", "cuda"),
                *("--batch", "1,8", "--json", str(site.results / f"onnxruntime.{reference.name}.json"), *site.timed),
            ],
            _missing_provider,
        )
    for reference in references:
        if reference.about["data"] is not None:
            for graph in reference.graphs:
                engine = site.engine(graph)
                yield Step(
                    *("end-to-end", graph.name, 120, 4 << 30, 1 << 20),
                    [
                        *(site.tensorrt, "-m", "ffnet_deploy.cli.evaluate", "--artifact", str(engine)),
                        *("--data", str(site.folder / "data")),
                        *("--json", str(site.results / f"evaluate.{graph.name}.json")),
                    ],
                    _until_built([engine]),
                )
    for reference in references:
        if reference.is_trained:
            yield Step(
                *("tests", reference.name, 400, 4 << 30, 1 << 30),
                [site.tensorrt, "-m", "pytest", "-q", "-rs", "tests/gpu", "-m", "gpu", "-p", "no:cacheprovider"],
                _until_built([site.engine(graph) for graph in reference.graphs]),
                {"FFNET_GPU_FOLDER": str(reference.folder), "FFNET_GPU_ENGINES": str(site.work / "engines")},
            )
    for network in networks:
        yield _forms(site, "compiled", network, 500, "published,compiled,compiled-fp16")


def _forms(site: Site, stage: str, network: dict[str, Any], limit: int, forms: str) -> Step:
    name = Path(network["config"]).stem
    return Step(
        *(stage, name, limit, 16 << 30, 4 << 20),
        [
            *(site.python, "-m", "benchmarks.gpu_forms", network["config"], "--size", network["size"]),
            *("--forms", forms, "--device", site.device, *site.timed),
            *("--out", str(site.results / f"{stage}.{name}.json")),
        ],
    )


def _engine(site: Site, reference: Reference, graph: Path) -> Step:
    return Step(
        *("tensorrt", graph.name, 180 if reference.is_trained else 420, 8 << 30, 1 << 30),
        [
            *(site.tensorrt, "-m", "benchmarks.gpu_engines", "build", str(reference.folder), graph.name),
            *("--engine", str(site.engine(graph)), "--out", str(site.results / f"engine.{graph.name}.json")),
            *("--samples", str(site.samples)),
        ],
    )


def _layers(site: Site, references: Sequence[Reference]) -> Step:
    engines = [site.engine(graph) for reference in references for graph in reference.graphs]
    network = references[0].network
    return Step(
        *("layers", network, 300, 8 << 30, 16 << 20),
        [
            *(site.tensorrt, "-m", "benchmarks.gpu_engines", "time", str(references[0].folder), *map(str, engines)),
            *("--out", str(site.results / f"layers.{network}.json"), *site.timed),
        ],
        _until_built(engines),
    )


def _until_built(engines: Sequence[Path]) -> Callable[[], str | None]:
    """What a step says that needs at least one of `engines`."""
    names = ", ".join(engine.name for engine in engines)
    return lambda: None if any(engine.is_file() for engine in engines) else f"not built: {names}"


def _missing_provider() -> str | None:
    try:
        found = optional("onnxruntime", extra="onnxruntime", purpose="this step").get_available_providers()
    except MissingPackageError as error:
        return str(error).partition("\n")[0]
    if "CUDAExecutionProvider" in found:
        return None
    return f"this ONNX Runtime has no CUDAExecutionProvider; it offers {', '.join(found)}"


def read_state(results: Path) -> dict[str, Any]:
    """What came of each step so far, by its name; empty before the first."""
    path = results / STATE
    if not path.is_file():
        return {}
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged.\n  to do    remove it: all steps run again") from error
    return dict(state)


def run_process(command: Sequence[str], limit: float, environment: Mapping[str, str]) -> tuple[int | None, str]:
    """Exit code and output of a process; None: it took longer than `limit` seconds, and ended with all it started."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        cwd=_CHECKOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # what it started would hold the GPU's memory
        output, _ = process.communicate()
        return None, output


def run_step(step: Step, site: Site) -> dict[str, Any]:
    """Run the process of `step` under its time limit; what came of it, for the state."""
    reason = step.obstacle()
    if reason is not None:
        return {"state": "skipped", "reason": reason, "seconds": 0.0}
    environment = {**os.environ, **step.environment}
    if step.command[0] != site.python:  # packages that were installed for one Python are not for the other
        environment["PYTHONPATH"] = str(_CHECKOUT)
    begin = time.monotonic()
    try:
        code, output = run_process(step.command, step.limit, environment)
        state = "out of time" if code is None else "failed" if code else "done"
    except OSError as error:
        code, output, state = None, str(error), "failed"
    return {
        "state": state,
        "seconds": round(time.monotonic() - begin, 1),
        "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": step.command,
        "exit": code,
        "output": output[-_TAIL:],
    }


def run_plan(site: Site, limit: float, stages: Sequence[str] = ()) -> dict[str, Any]:
    """Run the steps that are not done yet; the state is written after each.

    Those that were never tried come first, in their order, and then those that failed.

    Args:
        site: where.
        limit: seconds for all together: the run ends at the first step that may take longer than is left.
        stages: names of the stages to run; none: all.

    Returns:
        The state of all steps that were ever tried.

    Raises:
        OptionError: there is no such stage.
    """
    unknown = [name for name in stages if name not in STAGES]
    if unknown:
        raise OptionError(f"there is no stage {unknown[0]!r}; they are {', '.join(STAGES)}")
    make_folder(site.results)
    make_folder(site.work)
    state = read_state(site.results)
    begin = time.monotonic()
    waiting = [step for step in steps(site) if state.get(step.name, {}).get("state") != "done"]
    waiting.sort(key=lambda step: step.name in state)
    for step in (step for step in waiting if not stages or step.stage in stages):
        left = limit - (time.monotonic() - begin)
        if step.limit > left:  # no later one before it: it may need what this one makes
            console.print(f"{step.name}: needs up to {step.limit} s, {left:.0f} s are left", soft_wrap=True)
            break
        state[step.name] = run_step(step, site)
        write_json(site.results / STATE, state)
        found = state[step.name]
        told = f"{step.name}: {found['state']} in {found['seconds']} s {found.get('reason', '')}"
        console.print(told.rstrip(), soft_wrap=True)
    return state


app = make_app("gpu", "Measure everything that needs a GPU, step by step.")


@app.command
def run(
    folder: Path,
    /,
    *,
    results: Path = Path("results"),
    work: Path = Path("work"),
    tensorrt_python: Annotated[str, Parameter(help="Python that has TensorRT.")] = sys.executable,
    limit: Annotated[float, Parameter(help="Seconds for this run.")] = 570.0,
    stage: Annotated[list[str] | None, Parameter(help="Name of a stage; all by default.")] = None,
    device: Annotated[str, Parameter(help="Of PyTorch: cuda; cpu for a rehearsal.")] = "cuda",
    seconds: Annotated[float, Parameter(help="Minimum time in seconds for which each candidate is timed.")] = 2.0,
    samples: Annotated[int, Parameter(help="Minimum number of samples per candidate.")] = 100,
) -> None:
    """Run the steps that are not done yet."""
    folder, results, work = (path.resolve() for path in (folder, results, work))
    site = Site(folder, results, work, sys.executable, tensorrt_python, device, seconds, samples)
    state = run_plan(site, limit, stage or ())
    names = {step.name: state.get(step.name, {}).get("state", "not run") for step in steps(site)}
    left = [name for name, came in names.items() if came not in ("done", "skipped")]
    told = f"left: {', '.join(left)}" if left else "all steps are done, or skipped with a reason"
    console.print(f"{told}; see {results / STATE}", soft_wrap=True)


@app.command
def status(folder: Path, /, *, results: Path = Path("results")) -> None:
    """Say what each step needs and what came of it."""
    state = read_state(results)
    for stage, purpose in STAGES.items():
        console.print(f"{stage}: {purpose}", soft_wrap=True)
        for step in steps(Site(folder, results, Path("work"), sys.executable, sys.executable)):
            if step.stage == stage:
                came = state.get(step.name, {}).get("state", "not run")
                console.print(
                    f"  {step.subject:48} {came:12} at most {step.limit} s, {step.memory // MIB} MiB on the GPU, "
                    f"{step.disk / MIB:.1f} MiB on disk",
                    soft_wrap=True,
                )


if __name__ == "__main__":
    run_command(app)
