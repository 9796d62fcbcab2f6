"""What the rewrites of the decoder bring: every form of a network on every runtime, in turns, beside PyTorch eager.

python -m benchmarks.rewrites --json rewrites.json            # networks x sizes x runtimes
python -m benchmarks.rewrites --quick                         # the small network only, a few samples
python -m benchmarks.rewrites --json rewrites.json --table    # also make the table that ffnet-export decides by
"""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any

import onnx
import torch
from cyclopts import Parameter
from rich.table import Table

from ffnet_deploy.benchmark.bench import BenchOptions, bench
from ffnet_deploy.benchmark.candidates import (
    ArtifactOptions,
    Candidate,
    TorchSource,
    artifact_candidates,
    torch_candidates,
)
from ffnet_deploy.benchmark.files import run_to_dict
from ffnet_deploy.benchmark.record import BenchRun, TimingMethod
from ffnet_deploy.benchmark.sweep import Grid
from ffnet_deploy.cli.bench import chosen_picture
from ffnet_deploy.cli.console import console, make_app, progress_bar, run_command
from ffnet_deploy.core.contract import DimensionRange, OutputKind
from ffnet_deploy.core.errors import CheckpointError, OptionError
from ffnet_deploy.core.files import write_json
from ffnet_deploy.engines.backend import Backend
from ffnet_deploy.engines.torch import TorchForm
from ffnet_deploy.export.graph_file import write_graph
from ffnet_deploy.export.onnx import ExportOptions, build_graph
from ffnet_deploy.export.rewrites import LABEL_FORMS, Rewrite
from ffnet_deploy.export.rewrites.choice import MEASUREMENTS
from ffnet_deploy.segmentor.config import SegmentorConfig, load_config
from ffnet_deploy.segmentor.load import Segmentor, open_segmentor
from ffnet_deploy.segmentor.zoo import chosen_checkpoint

Form = tuple[Rewrite, ...]

NETWORK_FORMS: Mapping[str, tuple[Form, ...]] = {
    "FFNetHead": (
        (),
        (Rewrite.MATRIX_RESIZE,),
        (Rewrite.SQUEEZE_FIRST,),
        (Rewrite.SQUEEZE_FIRST, Rewrite.MATRIX_RESIZE),
    ),
    "UPerHead": (
        (),
        (Rewrite.MATRIX_RESIZE,),
        (Rewrite.TAPS_FIRST,),
        (Rewrite.TAPS_FIRST, Rewrite.MATRIX_RESIZE),
    ),
}
"""By kind of decoder; the first is the graph without rewrites."""
TABLE = Path(__file__).resolve().parents[1] / "ffnet_deploy" / "export" / "rewrites" / MEASUREMENTS

WEIGHTS = "weights.pth"


@dataclass(frozen=True)
class Case:
    """A network at one size.

    Attributes:
        config: its name.
        size: input (height, width), pixels.
        output: what the graphs give.
    """

    config: str
    size: tuple[int, int]
    output: OutputKind = OutputKind.LOGITS

    def __str__(self) -> str:
        return f"{self.config} {self.size[0]}x{self.size[1]}, {self.output.value}"


CASES = tuple(
    Case(config, size, output)
    for output in (OutputKind.LOGITS, OutputKind.LABELS)
    for config, size in (
        ("ffnet_seg_nano_scenes", (288, 576)),
        ("ffnet_seg_512_ade_160k", (512, 512)),
        ("upernet_ffnet_2_512_160k_ade20k", (512, 512)),
    )
)


def form_name(form: Form) -> str:
    """The names of the rewrites, or ``as traced``."""
    return ", ".join(one.value for one in form) or "as traced"


def multiply_adds(graph: onnx.ModelProto) -> int:
    """Of the convolutions and matrix products of a graph whose shapes are fixed."""
    inferred = onnx.shape_inference.infer_shapes(graph, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    total = 0
    for node in inferred.node:
        if node.op_type == "Conv":
            total += prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
        elif node.op_type in ("MatMul", "Gemm"):
            total += prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return total


def measure(case: Case, runtimes: Sequence[Backend], method: TimingMethod, threads: int) -> dict[str, Any]:
    """All forms of one network on all runtimes, in turns; the record of it, for the JSON file."""
    began = time.perf_counter()
    settings = load_config(case.config)
    segmentor, checkpoint = opened(settings)
    decoder = settings.decoder
    forms = NETWORK_FORMS[decoder]
    if case.output is OutputKind.LABELS:  # all else rewritten
        forms = (forms[-1], *((*forms[-1], one) for one in LABEL_FORMS))
    with tempfile.TemporaryDirectory() as folder:
        candidates: list[Candidate] = []
        if case.output is OutputKind.LOGITS:
            save_weights(segmentor, Path(folder))
            candidates += eager(case, Path(folder))
        counts = {}
        for path, form, counted in written(segmentor, case, forms, Path(folder)):
            counts[form_name(form)] = counted
            candidates += artifact_candidates([path], ArtifactOptions(runtimes))
        run = timed(candidates, case, method, threads)
    return {
        "network": case.config,
        "checkpoint": checkpoint,
        "decoder": decoder,
        "output": case.output.value,
        "size": case.size,
        "forms": [
            {"name": form_name(form), "rewrites": list(form), "multiply_adds": counts[form_name(form)]}
            for form in forms
        ],
        "seconds": round(time.perf_counter() - began, 1),
        "run": run_to_dict(run),
        "rows": [
            {
                "runtime": runtime.value,
                "form": form_name(form),
                "rewrites": list(form),
                **result(run, f"{form_name(form)}, {runtime.label}"),
            }
            for runtime in runtimes
            for form in forms
        ],
    }


def opened(settings: SegmentorConfig) -> tuple[Segmentor, str]:
    """The segmentor with the weights that come along, else with random ones, and which.

    Times do not depend on the weights, but for those of border-labels: random labels have more borders than real ones.
    """
    try:
        return open_segmentor(settings, chosen_checkpoint(None, settings.name)), "bundled"
    except CheckpointError:
        return open_segmentor(settings, None), "random"


def save_weights(segmentor: Segmentor, folder: Path) -> None:
    """Write the weights of `segmentor` for `eager`: random ones are drawn once for all candidates."""
    torch.save({"state_dict": segmentor.model.state_dict(), "meta": {}}, folder / WEIGHTS)


def written(segmentor: Segmentor, case: Case, forms: Sequence[Form], folder: Path) -> Iterator[tuple[Path, Form, int]]:
    """The graph of each form, and its multiply-adds."""
    height, width = (DimensionRange.fixed(side) for side in case.size)
    for form in forms:
        graph = build_graph(segmentor, ExportOptions(height, width, output=case.output, rewrites=form))
        path = folder / f"{form_name(form)}.onnx"
        write_graph(graph, path)
        yield path, form, multiply_adds(graph)


def eager(case: Case, folder: Path) -> list[Candidate]:
    """The network as published in PyTorch, with the weights that `save_weights` wrote to `folder`."""
    return torch_candidates(TorchSource(case.config, str(folder / WEIGHTS)), [TorchForm.PUBLISHED])


def timed(candidates: Sequence[Candidate], case: Case, method: TimingMethod, threads: int) -> BenchRun:
    """All candidates in turns at the size of `case`."""
    grid = Grid(sizes=(case.size,), threads=(threads,))
    with progress_bar(str(case)) as progress:
        return bench(candidates, BenchOptions(grid, chosen_picture(None), method), progress=progress)


def result(run: BenchRun, name: str) -> dict[str, Any]:
    """Of the candidate `name`: median in milliseconds, ratio to the first candidate with its interval, same labels."""
    row = next((one for one in run.measurements if one.candidate == name), None)
    if row is None or row.summary is None:
        return {"median_ms": None, "error": row.error if row else "it could not start"}
    ratio = row.ratio
    return {
        "median_ms": row.summary.median,
        "samples": row.summary.count,
        "of_baseline": ratio.value if ratio else 1.0,
        "interval": [ratio.interval.low, ratio.interval.high] if ratio and ratio.interval else None,
        "same_label_percent": row.check.agreement if row.check else None,
    }


def measured_table(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What ``ffnet-export`` decides by: per runtime and case the medians of all forms, and the machine."""
    rows = []
    for case in cases:
        cpu, versions = case["run"]["before"]["cpu"], case["run"]["versions"]
        for runtime in dict.fromkeys(row["runtime"] for row in case["rows"]):
            forms = [row for row in case["rows"] if row["runtime"] == runtime and row["median_ms"] is not None]
            rows.append(
                {
                    "backend": runtime,
                    "network": case["network"],
                    "decoder": case["decoder"],
                    "output": case["output"],
                    "size": case["size"],
                    "forms": [
                        {"rewrites": row["rewrites"], "milliseconds": round(row["median_ms"], 2)} for row in forms
                    ],
                    "machine": f"{cpu['model']}, {len(cpu['affinity'])} cores, load {cpu['load'][0]:.1f}, "
                    f"{runtime} {versions.get(runtime, '?')}",
                }
            )
    return {"measurements": rows}


def shown(case: Mapping[str, Any]) -> Table:
    """The rows of a case as a table."""
    height, width = case["size"]
    table = Table("runtime", "rewrites", title=f"{case['network']} {height}x{width}, {case['output']}")
    for column in ("G MACs", "ms", "speed", "same, %"):
        table.add_column(column, justify="right")
    counts = {form["name"]: form["multiply_adds"] for form in case["forms"]}
    for row in case["rows"]:
        table.add_row(row["runtime"], row["form"], f"{counts[row['form']] / 1e9:.2f}", *numbers(row))
    return table


def numbers(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Of a `result`: milliseconds, speed of the first candidate = 1, percent of pixels with its label."""
    if row["median_ms"] is None:
        return "-", "-", "-"
    agreement = row["same_label_percent"]
    same = "-" if agreement is None else f"{agreement:.3f}"
    return f"{row['median_ms']:.1f}", f"{1 / row['of_baseline']:.2f}", same


app = make_app("benchmarks/rewrites.py", "Time the forms of the decoder that give the same result.")


@app.default
def main(
    *,
    config: Annotated[tuple[str, ...], Parameter(help="Only these of the configs; may be repeated.")] = (),
    runtime: Annotated[tuple[str, ...], Parameter(help="onnxruntime, openvino; may be repeated.")] = (
        "onnxruntime",
        "openvino",
    ),
    output: Annotated[OutputKind | None, Parameter(help="Only graphs that give this.")] = None,
    seconds: Annotated[float, Parameter(help="Least time for each form.")] = 5.0,
    rounds: Annotated[int, Parameter(help="Least number of rounds, and of samples.")] = 15,
    threads: Annotated[int, Parameter(help="CPU threads; 0: all cores.")] = 0,
    quick: Annotated[bool, Parameter(help="The small network only, five rounds.")] = False,
    json_file: Annotated[Path | None, Parameter(name="--json", help="File to write everything to.")] = None,
    table: Annotated[bool, Parameter(help="Write the table that ffnet-export decides by.")] = False,
) -> None:
    """Time every form, print the tables, and write them."""
    if quick and table:
        raise OptionError("--table is for whole runs: leave --quick out")
    if quick:
        config, seconds, rounds = config or (CASES[0].config,), 0.0, 5
    chosen = [case for case in CASES if (not config or case.config in config) and output in (None, case.output)]
    if not chosen:
        raise OptionError(f"--config takes {', '.join(dict.fromkeys(case.config for case in CASES))}")
    method = TimingMethod(warmup_runs=2, seconds=seconds, samples=rounds, rounds=rounds)
    cases = []
    for case in chosen:
        cases.append(measure(case, [Backend(name) for name in runtime], method, threads))
        if json_file is not None:  # after each, so that a run that is stopped keeps what it has
            write_json(json_file, {"kind": "rewrites", "cases": cases})
        console.print(shown(cases[-1]))
        baseline = cases[-1]["run"]["candidates"][0]["name"]
        console.print(
            f"took {cases[-1]['seconds']:.0f} s; speed is that of {baseline} = 1; warnings are in the JSON file"
        )
    if table:
        write_json(TABLE, measured_table(cases))


if __name__ == "__main__":
    run_command(app)
