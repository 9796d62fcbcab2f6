"""INT8 graphs in each CPU runtime and instruction set: logit noise and change of mIoU beside the simulation, and speed.

python -m benchmarks.int8_runtimes export/NET.onnx export/NET.int8-cpu.onnx --data data/scenes   # what it costs
python -m benchmarks.int8_runtimes make graphs --images data/scenes       # graphs of three networks to be timed
python -m benchmarks.int8_runtimes time graphs --json int8.json           # each network's graphs in turns

oneDNN, which computes in OpenVINO and in PyTorch, reads the cap when it is loaded: each instruction set has a process
of its own. ONNX Runtime has no such cap.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
from cyclopts import Parameter
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.rewrites import CASES, NETWORK_FORMS, Case, eager, numbers, opened, result, save_weights, timed, written
from ffnet_deploy.artifacts.manifest import tool_versions
from ffnet_deploy.benchmark.candidates import ArtifactOptions, artifact_candidates
from ffnet_deploy.benchmark.files import run_to_dict
from ffnet_deploy.benchmark.record import TimingMethod
from ffnet_deploy.calib.scoring import Recorded, simulated, sqnr
from ffnet_deploy.cli.console import console, make_app, progress_bar, run_command
from ffnet_deploy.core.contract import OutputKind
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.files import check_target, make_folder, write_json
from ffnet_deploy.core.precision import Hardware, Target
from ffnet_deploy.engines.backend import Backend
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine
from ffnet_deploy.engines.openvino import OpenVinoEngine
from ffnet_deploy.evaluation.datasets import Dataset, open_dataset
from ffnet_deploy.evaluation.evaluate import evaluate
from ffnet_deploy.evaluation.intervals import difference_interval
from ffnet_deploy.evaluation.scores import confusion_matrix
from ffnet_deploy.export.calibration import CalibrationRequest, quantized
from ffnet_deploy.export.graph_file import contract_in, write_graph
from ffnet_deploy.segmentor.config import load_config

CAP = "ONEDNN_MAX_CPU_ISA"
"""Environment variable by which OpenVINO's kernels leave instruction sets unused."""

CAPS = "AVX512_CORE_VNNI,AVX2"
TIMED = tuple(case for case in CASES if case.output is OutputKind.LOGITS)
"""Networks at one size each; their graphs lie in a folder of the network's name."""
FP32, INT8 = ("as traced.onnx", "rewritten.onnx"), "int8-cpu.onnx"

Scored = tuple[float, list[NDArray[Any]], list[NDArray[np.int64]]]
"""mIoU in percent, logits, and confusion matrices of all images."""


def score(engine: Engine, dataset: Dataset) -> Scored:
    """What `engine` makes of all of `dataset`."""
    confusions: list[NDArray[np.int64]] = []

    def watch(sample: Any, image: Any, predicted: Any, truth: Any) -> None:
        confusions.append(confusion_matrix(predicted, truth, len(engine.contract.classes)))

    recorded = Recorded(engine, [])
    with progress_bar(engine.name) as progress:
        scores = evaluate(recorded, dataset, progress=progress, watch=watch).scores
    assert scores is not None
    return scores.mean_iou, recorded.given, confusions


def row(before: Scored, engine: Engine, dataset: Dataset, what: str) -> dict[str, Any]:
    """Logit noise and change of mIoU of `engine` against `before`."""
    after = score(engine, dataset)
    low, high = difference_interval(before[2], after[2])
    change = {"change": after[0] - before[0], "change_interval": [low, high]}
    return {"runtime": what, "cap": os.environ.get(CAP, ""), "sqnr_db": sqnr(before[1], after[1]), **change}


def make_graphs(case: Case, images: CalibrationRequest, folder: Path) -> None:
    """Write to `folder` the FP32 graph of `case` as traced and rewritten, its INT8 graph for CPUs, and its weights."""
    settings = load_config(case.config)
    segmentor, _ = opened(settings)
    forms = NETWORK_FORMS[str(settings.cfg.model.decode_head.type)]
    save_weights(segmentor, folder)
    for (path, _, _), name in zip(written(segmentor, case, (forms[0], forms[-1]), folder), FP32, strict=True):
        path.rename(folder / name)
    model = onnx.load(folder / FP32[-1])
    with progress_bar(str(case)) as progress:
        quantization = quantized(model, contract_in(model), Target.INT8, images, progress=progress)
    write_graph(quantization.model, folder / INT8)


def time_graphs(case: Case, folder: Path, method: TimingMethod, threads: int) -> dict[str, Any]:
    """PyTorch eager and what `make_graphs` wrote, in turns; the record of it, for the JSON file."""
    both = ArtifactOptions((Backend.ONNXRUNTIME, Backend.OPENVINO))
    as_traced, rewritten = (folder / name for name in FP32)
    candidates = [
        *eager(case, folder),
        *artifact_candidates([as_traced], ArtifactOptions()),
        *artifact_candidates([rewritten, folder / INT8], both),
    ]
    run = timed(candidates, case, method, threads)
    rows = [{"candidate": one.name, **result(run, one.name)} for one in candidates]
    return {
        "network": case.config,
        "size": case.size,
        "cap": os.environ.get(CAP, ""),
        "run": run_to_dict(run),
        "rows": rows,
    }


app = make_app("benchmarks/int8_runtimes.py", "Score or time INT8 graphs in each CPU runtime and instruction set.")


@app.default
def main(
    fp32: Annotated[Path, Parameter(help="FP32 graph that ffnet-export wrote.")],
    int8: Annotated[Path, Parameter(help="INT8 graph made from it.")],
    *,
    data: Annotated[Path, Parameter(help="Labelled data set with a val split.")],
    caps: Annotated[str, Parameter(help="Instruction sets to cap OpenVINO to, with commas between them.")] = "AVX2",
    limit: Annotated[int | None, Parameter(help="Images to score at most.")] = None,
    json_file: Annotated[Path | None, Parameter(name="--json", help="File to write the rows to.")] = None,
    capped: Annotated[bool, Parameter(show=False)] = False,
) -> None:
    """Compare the runtimes; with a cap in the environment OpenVINO alone, as one line of JSON."""
    if json_file is not None:
        check_target(json_file)
    dataset = open_dataset(data, contract_in(onnx.load(fp32)).dataset, split="val").limited(limit)
    with OnnxRuntimeEngine(fp32) as engine:
        before = score(engine, dataset)
    if capped:
        with OpenVinoEngine(int8) as engine:
            print(json.dumps(row(before, engine, dataset, "OpenVINO")))
        return
    opened: dict[str, Callable[[], Any]] = {
        "simulation": lambda: simulated(onnx.load(int8)),
        "ONNX Runtime": lambda: OnnxRuntimeEngine(int8),
        "OpenVINO": lambda: OpenVinoEngine(int8),
    }
    found = []
    for what, make in opened.items():
        with make() as engine:
            found.append(row(before, engine, dataset, what))
    for cap in (name.strip() for name in caps.split(",") if name.strip()):
        command = [sys.executable, "-m", "benchmarks.int8_runtimes", *sys.argv[1:], "--capped"]
        done = subprocess.run(command, env=os.environ | {CAP: cap}, check=True, stdout=subprocess.PIPE, text=True)
        found.append(json.loads(done.stdout.strip().splitlines()[-1]))
    table = Table("runtime", "capped to", "SQNR, dB", "change of mIoU, points", title=f"FP32: {before[0]:.2f}")
    for one in found:
        between = "{:+.2f}..{:+.2f}".format(*one["change_interval"])
        table.add_row(one["runtime"], one["cap"] or "-", f"{one['sqnr_db']:.2f}", f"{one['change']:+.2f} ({between})")
    console.print(table)
    if json_file is not None:
        about = {"graph": int8.name, "reference_mIoU": before[0], "scored_images": len(dataset)}
        write_json(json_file, {**about, "rows": found, "tools": tool_versions()})


def cases_named(config: Sequence[str]) -> list[Case]:
    """The cases that are timed, or only these of the configs."""
    chosen = [case for case in TIMED if not config or case.config in config]
    if not chosen:
        raise OptionError(f"--config takes {', '.join(case.config for case in TIMED)}")
    return chosen


@app.command
def make(
    folder: Annotated[Path, Parameter(help="Folder to write to.")],
    *,
    images: Annotated[Path, Parameter(help="Images to calibrate on.")],
    count: Annotated[int, Parameter(help="How many of them: few will do, times do not depend on it.")] = 4,
    config: Annotated[tuple[str, ...], Parameter(help="Only these of the configs; may be repeated.")] = (),
) -> None:
    """Write the graphs that `time` measures."""
    request = CalibrationRequest(images, count, hardware=Hardware.CPU)
    for case in cases_named(config):
        make_graphs(case, request, make_folder(folder / case.config))
        console.print(f"graphs in {folder / case.config}")


@app.command
def time(
    folder: Annotated[Path, Parameter(help="Folder that `make` wrote.")],
    *,
    config: Annotated[tuple[str, ...], Parameter(help="Only these of the configs; may be repeated.")] = (),
    caps: Annotated[str, Parameter(help="Instruction sets to cap oneDNN to, with commas between them.")] = CAPS,
    seconds: Annotated[float, Parameter(help="Least time for each candidate.")] = 3.0,
    rounds: Annotated[int, Parameter(help="Least number of rounds, and of samples.")] = 15,
    threads: Annotated[int, Parameter(help="CPU threads; 0: all cores.")] = 0,
    json_file: Annotated[Path | None, Parameter(name="--json", help="File to write everything to.")] = None,
) -> None:
    """Time PyTorch eager, FP32 and INT8 in turns, once for each instruction set."""
    if json_file is not None:
        check_target(json_file)
    method = TimingMethod(warmup_runs=2, seconds=seconds, samples=rounds, rounds=rounds)
    found = []
    for case in cases_named(config):
        found.append(time_graphs(case, folder / case.config, method, threads))
        for cap in (name.strip() for name in caps.split(",") if name.strip()):
            with tempfile.TemporaryDirectory() as place:
                path = Path(place) / "capped.json"
                own = ["--config", case.config, "--caps", "", "--json", str(path)]
                own += ["--seconds", str(seconds), "--rounds", str(rounds), "--threads", str(threads)]
                command = [sys.executable, "-m", "benchmarks.int8_runtimes", "time", str(folder), *own]
                subprocess.run(command, env=os.environ | {CAP: cap}, check=True, stdout=subprocess.DEVNULL)
                found += json.loads(path.read_text())["runs"]
        console.print(speeds([run for run in found if run["network"] == case.config]))
        if json_file is not None:  # after each, so that a run that is stopped keeps what it has
            write_json(json_file, {"kind": "int8_runtimes", "runs": found})


def speeds(runs: Sequence[Mapping[str, Any]]) -> Table:
    """Medians of one network, and how much faster than the first candidate of the same run."""
    height, width = runs[0]["size"]
    table = Table("oneDNN capped to", "candidate", title=f"{runs[0]['network']} {height}x{width}")
    for column in ("ms", "speed", "same, %"):
        table.add_column(column, justify="right")
    for run in runs:
        for row in run["rows"]:
            table.add_row(run["cap"] or "-", row["candidate"], *numbers(row))
    return table


if __name__ == "__main__":
    run_command(app)
