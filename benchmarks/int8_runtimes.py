"""An INT8 graph in each CPU runtime and instruction set beside its simulation: logit noise and change of mIoU.

python benchmarks/int8_runtimes.py export/NET.onnx export/NET.int8-cpu.onnx --data data/scenes

OpenVINO reads the cap when it is loaded, so each instruction set has a process of its own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
from cyclopts import Parameter
from numpy.typing import NDArray
from rich.table import Table

from ffnet_deploy.artifacts.manifest import tool_versions
from ffnet_deploy.calib.scoring import Recorded, simulated, sqnr
from ffnet_deploy.cli.console import console, make_app, progress_bar, run_command
from ffnet_deploy.core.files import check_target, write_json
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine
from ffnet_deploy.engines.openvino import OpenVinoEngine
from ffnet_deploy.evaluation.datasets import Dataset, open_dataset
from ffnet_deploy.evaluation.evaluate import evaluate
from ffnet_deploy.evaluation.intervals import difference_interval
from ffnet_deploy.evaluation.scores import confusion_matrix
from ffnet_deploy.export.onnx_file import contract_in

CAP = "ONEDNN_MAX_CPU_ISA"
"""Environment variable by which OpenVINO's kernels leave instruction sets unused."""

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


app = make_app("benchmarks/int8_runtimes.py", "Score an INT8 graph in each CPU runtime and instruction set.")


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
        command = [sys.executable, *sys.argv, "--capped"]
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


if __name__ == "__main__":
    run_command(app)
