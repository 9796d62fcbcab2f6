"""Time and memory of calibrating a network, and whether a second run measures the same.

python benchmarks/calibration.py export/ffnet_seg_512_ade_160k.onnx --data ADEChallengeData2016 --json calibration.json
"""

import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import onnx
from cyclopts import Parameter
from rich.table import Table

from ffnet_deploy.artifacts.manifest import tool_versions
from ffnet_deploy.calib import CalibrationOptions, Method, calibrate, choose_images, write_calibration
from ffnet_deploy.cli.console import ExitCode, console, make_app, progress_bar, run_command
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.core.files import check_target, write_json
from ffnet_deploy.evaluation.datasets import open_dataset
from ffnet_deploy.export.graph_file import contract_in

RUNS = 2


def once(graph: Path, data: Path, images: int, method: Method, out: Path) -> None:
    """Calibrate in this process, and write the ranges to `out`."""
    if not graph.is_file():
        raise ArtifactError(f"there is no graph {graph}.\n  to do    write it with ffnet-export")
    model = onnx.load(graph)
    contract = contract_in(model)
    chosen = choose_images(open_dataset(data, contract.dataset, split="train"), contract, images)
    with progress_bar("calibrating") as progress:
        write_calibration(out, calibrate(model, chosen, CalibrationOptions(method), progress))


def in_a_process_of_its_own(out: Path) -> dict[str, float | str]:
    """The same command again with `--out`; its wall time, processor time, peak of memory and the hash of its ranges."""
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *sys.argv, "--out", str(out)], check=False)
    if done.returncode:  # it has said why
        raise SystemExit(done.returncode)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_gib": after.ru_maxrss / 2**20,  # the most of all children so far; in KiB on Linux
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
    }


app = make_app("benchmarks/calibration.py", "Calibrate twice, each time in a process of its own, and compare.", "GRAPH")


@app.default
def main(
    graph: Annotated[Path, Parameter(help="FP32 graph that ffnet-export wrote.")],
    /,
    *,
    data: Annotated[Path, Parameter(help="Data set with a train split.")],
    images: Annotated[int, Parameter(help="Images to calibrate on.")] = 64,
    method: Annotated[Method, Parameter(help="Of calibration.")] = Method.MSE,
    json_file: Annotated[Path | None, Parameter(name="--json", help="File to write the figures to.")] = None,
    out: Annotated[Path | None, Parameter(show=False)] = None,
) -> int:
    """Calibrate twice, each time in a process of its own, and compare."""
    if out is not None:
        once(graph, data, images, method, out)
        return ExitCode.DONE
    if json_file is not None:
        check_target(json_file)
    with tempfile.TemporaryDirectory() as folder:
        found = [in_a_process_of_its_own(Path(folder) / f"{number}.json") for number in range(RUNS)]
    table = Table("run", "wall, s", "processor, s", "peak, GiB", "ranges")
    for number, run in enumerate(found, 1):
        numbers = (f"{run[name]:.1f}" for name in ("seconds", "cpu_seconds", "peak_gib"))
        table.add_row(str(number), *numbers, str(run["sha256"])[:12])
    console.print(table)
    same = len({run["sha256"] for run in found}) == 1
    console.print("ranges are identical" if same else "ranges differ")
    if json_file is not None:
        about = {"graph": graph.name, "images": images, "method": method.value, "cores": os.cpu_count()}
        write_json(json_file, {**about, "runs": found, "identical": same, "tools": tool_versions()})
    return ExitCode.DONE if same else ExitCode.FAILED


if __name__ == "__main__":
    run_command(app)
