"""The plan for a GPU machine without a network: stages of less than ten minutes, each run once, results after each.

    python -m benchmarks.gpu parts FOLDER --out PARTS       # here: what to carry, in files of at most 45 MiB
    python -m benchmarks.gpu join PARTS FOLDER              # there
    python -m benchmarks.gpu run FOLDER --results RESULTS   # there; again after an interruption: goes on where it was
    python -m benchmarks.gpu status --results RESULTS

FOLDER comes from benchmarks/prepare_gpu.py, once for each network. RESULTS holds small files alone; its ``state.json``
says of each stage what came of it, how long it took and what it wrote. A stage is a list of commands, each a process of
its own under the stage's time limit, so that a crash or a hang costs that stage only. ``--tensorrt-python`` names the
Python that has TensorRT where that is another one than this (TensorRT 8.5.3 needs Python 3.10).
"""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from benchmarks.gpu_reference import DATA, find_references
from ffnet_deploy.cli.console import console, make_app, run_command
from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.core.files import make_folder, sha256, write_json

STATE = "state.json"
LIST = "parts.json"
MIB = 1 << 20
_TAIL = 4000


@dataclass(frozen=True)
class Site:
    """Where stages run.

    Attributes:
        folder: of benchmarks/prepare_gpu.py.
        results: folder of small files that is taken home.
        work: folder for engines and other large files that stay.
        python: the interpreter with PyTorch, triton, onnx and ONNX Runtime.
        tensorrt: the interpreter with TensorRT and cuda-bindings.
        seconds: time each candidate for at least this long.
    """

    folder: Path
    results: Path
    work: Path
    python: str
    tensorrt: str
    seconds: float = 3.0


@dataclass(frozen=True)
class Stage:
    """A part of the plan.

    Attributes:
        name: of the stage, and of its files in the results.
        purpose: what it measures, in words.
        limit: most seconds that it may take.
        memory: bytes of GPU memory that it needs.
        disk: bytes that it writes.
        commands: its processes, for a site.
    """

    name: str
    purpose: str
    limit: int
    memory: int
    disk: int
    commands: Callable[[Site], list[list[str]]]


def _ceilings(site: Site) -> list[list[str]]:
    return [[site.python, "-m", "benchmarks.gpu_ceilings", "--out", str(site.results / "ceilings.json")]]


def _pytorch(site: Site) -> list[list[str]]:
    commands = []
    for reference in find_references(site.folder):
        contract = reference.contract
        shape = f"{contract.height.opt}x{contract.width.opt}"
        for batch in (1, 8):
            out = site.results / f"pytorch.{reference.network}.batch{batch}.json"
            commands.append(
                [
                    *(site.python, "-m", "ffnet_deploy.cli.bench", "--config", reference.network),
                    *("--checkpoint", "random", "--device", "cuda", "--shape", shape, "--batch", str(batch)),
                    *("--torch-forms", "published,reparameterized,channels-last,fp16,compiled"),
                    *("--seconds", str(site.seconds), "--json", str(out)),
                ]
            )
    return commands


def _tensorrt(site: Site) -> list[list[str]]:
    return [
        [
            *(site.tensorrt, "-m", "benchmarks.gpu_engines", str(site.folder), "--out", str(site.results)),
            *("--engines", str(site.work / "engines"), "--seconds", str(site.seconds)),
        ]
    ]


def _onnxruntime(site: Site) -> list[list[str]]:
    return [
        [
            *(site.python, "-m", "ffnet_deploy.cli.bench", *map(str, reference.graphs), "--device", "cuda"),
            *("--provider", "cuda", "--seconds", str(site.seconds)),
            *("--json", str(site.results / f"onnxruntime.{reference.network}.json")),
        ]
        for reference in find_references(site.folder)
    ]


def _end_to_end(site: Site) -> list[list[str]]:
    commands = []
    for reference in find_references(site.folder):
        if not (reference.folder / DATA).is_dir():
            continue
        for graph in reference.graphs:
            engine = site.work / "engines" / f"{graph.name.removesuffix('.onnx')}.engine"
            commands.append(
                [
                    *(site.tensorrt, "-m", "ffnet_deploy.cli.evaluate", "--artifact", str(engine)),
                    *("--data", str(reference.folder / DATA)),
                    *("--json", str(site.results / f"evaluate.{graph.name.removesuffix('.onnx')}.json")),
                ]
            )
    return commands


def _tests(site: Site) -> list[list[str]]:
    return [[site.tensorrt, "-m", "pytest", "-q", "-rs", "tests/gpu", "-m", "gpu", "-p", "no:cacheprovider"]]


STAGES = (
    Stage("ceilings", "copy, FP16 and INT8 matrix products, state of the device", 120, 1 << 30, 1 << 16, _ceilings),
    Stage("pytorch", "PyTorch's forms, batch 1 and 8", 590, 8 << 30, 4 << 20, _pytorch),
    Stage(
        "tensorrt", "engines: proof, parity, latency with and without graphs, layers", 590, 8 << 30, 1 << 30, _tensorrt
    ),
    Stage("onnxruntime", "ONNX Runtime's CUDA provider", 300, 4 << 30, 4 << 20, _onnxruntime),
    Stage("end-to-end", "mIoU and speed by the evaluation pipeline", 590, 4 << 30, 4 << 20, _end_to_end),
    Stage("tests", "tests/gpu", 590, 4 << 30, 1 << 30, _tests),
)
"""In their order; a later one may use the engines of an earlier one."""


def read_state(results: Path) -> dict[str, Any]:
    """What came of each stage so far, by its name; empty before the first."""
    path = results / STATE
    if not path.is_file():
        return {}
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged.\n  to do    remove it: all stages run again") from error
    return dict(state)


def run_stage(stage: Stage, site: Site) -> dict[str, Any]:
    """Run the commands of `stage` under its time limit; what came of it, for the state."""
    began, commands = time.monotonic(), []
    environment = {**os.environ, "FFNET_GPU_FOLDER": str(site.folder)}
    outcome = "done"
    for command in stage.commands(site):
        left = stage.limit - (time.monotonic() - began)
        if left <= 0:
            outcome = "out of time"
            break
        start = time.monotonic()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=left, env=environment)
            code, told = done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired as error:
            code, told = None, "".join(_text(part) for part in (error.stdout, error.stderr))
        except OSError as error:
            code, told = None, str(error)
        commands.append(
            {"command": command, "exit": code, "seconds": round(time.monotonic() - start, 1), "output": told[-_TAIL:]}
        )
        if code != 0:
            outcome = "failed" if code is not None or time.monotonic() - began < stage.limit else "out of time"
    return {
        "state": outcome,
        "seconds": round(time.monotonic() - began, 1),
        "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commands": commands,
    }


def _text(part: str | bytes | None) -> str:
    return part.decode(errors="replace") if isinstance(part, bytes) else part or ""


def run_plan(site: Site, chosen: Sequence[str] = (), again: bool = False) -> dict[str, Any]:
    """Run the stages that are not done yet, in order; the state is written after each.

    Args:
        site: where.
        chosen: names of the stages; none: all.
        again: run them also where they are done.

    Returns:
        The state of all stages.

    Raises:
        OptionError: there is no such stage.
    """
    names = [stage.name for stage in STAGES]
    unknown = [name for name in chosen if name not in names]
    if unknown:
        raise OptionError(f"there is no stage {unknown[0]!r}; they are {', '.join(names)}")
    make_folder(site.results)
    make_folder(site.work)
    state = read_state(site.results)
    for stage in STAGES:
        if chosen and stage.name not in chosen:
            continue
        if not again and state.get(stage.name, {}).get("state") == "done":
            console.print(f"{stage.name}: done before")
            continue
        console.print(f"{stage.name}: {stage.purpose} (at most {stage.limit} s, {stage.memory // MIB} MiB on the GPU)")
        state[stage.name] = run_stage(stage, site)
        write_json(site.results / STATE, state)
        console.print(f"{stage.name}: {state[stage.name]['state']} in {state[stage.name]['seconds']} s")
    return state


def write_parts(folders: Sequence[Path], out: Path, size: int = 45) -> list[Path]:
    """Pack `folders` into files of at most `size` MiB, with the list of them; the command line `parts`.

    Returns:
        The parts, and then the list with the SHA-256 of each.
    """
    if size < 1:
        raise OptionError(f"a part has at least 1 MiB: got {size}")
    make_folder(out)
    packed = out / "all.tar"
    with tarfile.open(packed, "w") as archive:
        for folder in folders:
            archive.add(folder, folder.name)
    whole, parts = sha256(packed), list[Path]()
    with packed.open("rb") as file:
        while content := file.read(size * MIB):
            parts.append(out / f"part.{len(parts):03d}")
            parts[-1].write_bytes(content)
    packed.unlink()
    listed = out / LIST
    write_json(listed, {"sha256": whole, "parts": {part.name: sha256(part) for part in parts}})
    return [*parts, listed]


def join_parts(parts: Path, out: Path) -> Path:
    """Unpack what `write_parts` packed into `out`, after checking every byte.

    Raises:
        ArtifactError: a part is missing or has changed.
    """
    listed = json.loads((parts / LIST).read_text(encoding="utf-8"))
    for name, expected in listed["parts"].items():
        path = parts / Path(name).name
        if not path.is_file() or sha256(path) != expected:
            raise ArtifactError(f"{path} is missing or has changed.\n  to do    carry it again")
    make_folder(out)
    packed, digest = out / ".all.tar", hashlib.sha256()
    with packed.open("wb") as file:
        for name in listed["parts"]:
            content = (parts / Path(name).name).read_bytes()
            digest.update(content)
            file.write(content)
    if digest.hexdigest() != listed["sha256"]:
        raise ArtifactError(f"the parts in {parts} do not make up what was packed.\n  to do    pack them again")
    with tarfile.open(packed) as archive:
        archive.extractall(out, filter="data")
    packed.unlink()
    return out


app = make_app("gpu", "Measure everything that needs a GPU, in stages.")


@app.command
def run(
    folder: Path,
    /,
    *,
    results: Path = Path("results"),
    work: Path = Path("work"),
    tensorrt_python: Annotated[str, Parameter(help="Python that has TensorRT.")] = sys.executable,
    stage: Annotated[list[str] | None, Parameter(help="Name of a stage; all by default.")] = None,
    again: bool = False,
    seconds: float = 3.0,
) -> None:
    """Run the stages that are not done yet."""
    site = Site(folder, results, work, sys.executable, tensorrt_python, seconds)
    state = run_plan(site, stage or (), again)
    broken = [name for name, one in state.items() if one["state"] != "done"]
    if broken:
        console.print(f"not done: {', '.join(broken)}; see {results / STATE}")


@app.command
def status(*, results: Path = Path("results")) -> None:
    """Say what each stage needs and what came of it."""
    state = read_state(results)
    for stage in STAGES:
        came = state.get(stage.name, {}).get("state", "not run")
        console.print(
            f"{stage.name:12} {came:12} at most {stage.limit} s, {stage.memory // MIB} MiB on the GPU, "
            f"{stage.disk / MIB:.1f} MiB on disk: {stage.purpose}"
        )


@app.command
def parts(folders: list[Path], /, *, out: Path = Path("parts"), size: int = 45) -> None:
    """Pack folders (prepared networks, wheels, the checkout) for a machine that takes small files alone."""
    for path in write_parts(folders, out, size):
        console.print(f"{path}  {path.stat().st_size / MIB:.1f} MiB")


@app.command
def join(parts_folder: Path, out: Path, /) -> None:
    """Unpack the parts on the other machine."""
    console.print(f"unpacked into {join_parts(parts_folder, out)}")


if __name__ == "__main__":
    run_command(app)
