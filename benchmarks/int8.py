"""INT8 by each calibration method, with and without each remedy: mIoU, its drop, and the logits' noise, as a table.

python benchmarks/int8.py --config ffnet_seg_nano_camvid --data data/camvid --json int8.json
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
from cyclopts import Parameter
from numpy.typing import NDArray
from rich.table import Table

from ffnet_deploy.artifacts.manifest import tool_versions
from ffnet_deploy.calib import CalibrationImages, CalibrationOptions, Method, apply, choose_images
from ffnet_deploy.calib.quantize import measure, observe
from ffnet_deploy.calib.scoring import Recorded, simulated, sqnr
from ffnet_deploy.cli.console import console, make_app, progress_bar, run_command
from ffnet_deploy.cli.export_options import default_shape
from ffnet_deploy.cli.options import parse_shape
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.files import check_target, write_json
from ffnet_deploy.evaluation.datasets import Dataset, open_dataset
from ffnet_deploy.evaluation.evaluate import evaluate
from ffnet_deploy.evaluation.intervals import difference_interval
from ffnet_deploy.evaluation.scores import confusion_matrix
from ffnet_deploy.export.graph_file import contract_in
from ffnet_deploy.export.onnx import ExportOptions, build_graph
from ffnet_deploy.segmentor.config import load_config
from ffnet_deploy.segmentor.load import open_segmentor
from ffnet_deploy.segmentor.zoo import chosen_checkpoint


@dataclass(frozen=True)
class Row:
    """One way to quantise and what became of the network.

    Attributes:
        method: of calibration; "fp32" for the network as it was.
        equalized: whether cross-layer equalisation was on.
        corrected: whether biases were corrected.
        miou: percent.
        drop: points of mIoU lost.
        drop_interval: 95 % interval of that, had other images been drawn; None for the network as it was.
        sqnr: of the logits, dB; None for the network as it was.
        mac_share: of the convolutions' multiply-adds in INT8, percent.
        report: of the quantisation.
    """

    method: str
    equalized: bool
    corrected: bool
    miou: float
    drop: float
    drop_interval: tuple[float, float] | None
    sqnr: float | None
    mac_share: float
    report: dict[str, Any]


def fp32_graph(config: str, checkpoint: str | None, shape: str | None) -> onnx.ModelProto:
    """The graph that ffnet-export would write."""
    settings = load_config(config)
    segmentor = open_segmentor(settings, chosen_checkpoint(checkpoint, settings.name))
    height, width = parse_shape(shape or default_shape(settings.protocol), dynamic=False)
    return build_graph(segmentor, ExportOptions(height, width))


@dataclass(frozen=True)
class Scored:
    """What scoring a graph gave: mIoU in percent, logits and confusion matrix of every image."""

    miou: float
    logits: list[Any]
    confusions: list[NDArray[np.int64]]


def score(model: onnx.ModelProto, dataset: Dataset, what: str, threads: int) -> Scored:
    """`model` on all of `dataset`."""
    confusions: list[NDArray[np.int64]] = []
    classes = len(contract_in(model).classes)

    def watch(sample: Any, image: Any, predicted: NDArray[np.uint8], truth: NDArray[np.uint8] | None) -> None:
        assert truth is not None
        confusions.append(confusion_matrix(predicted, truth, classes))

    with simulated(model, threads) as engine, progress_bar(what) as progress:
        recorded = Recorded(engine, [])
        scores = evaluate(recorded, dataset, progress=progress, watch=watch).scores
    assert scores is not None
    return Scored(scores.mean_iou, recorded.given, confusions)


def rows(
    model: onnx.ModelProto, images: CalibrationImages, dataset: Dataset, ways: list[CalibrationOptions], threads: int
) -> Iterator[Row]:
    """FP32, then every way."""
    before = score(model, dataset, "fp32", threads)
    yield Row("fp32", False, False, before.miou, 0.0, None, None, 0.0, {})
    for equalized in sorted({way.equalize for way in ways}):
        with progress_bar("calibrating") as progress:
            observed = observe(model, images, CalibrationOptions(equalize=equalized), progress)
        for way in (way for way in ways if way.equalize is equalized):
            quantized = apply(model, measure(observed, images, way), way)
            found = score(quantized.model, dataset, way.method.value, threads)
            low, high = difference_interval(before.confusions, found.confusions)
            yield Row(
                way.method.value,
                way.equalize,
                way.correct_bias,
                found.miou,
                before.miou - found.miou,
                (-high, -low),
                sqnr(before.logits, found.logits),
                quantized.report["mac_share_percent"],
                quantized.report,
            )


def table(found: list[Row]) -> Table:
    """The rows as a table: remedies, mIoU, its drop, noise in the logits, share of multiply-adds in INT8."""
    out = Table("method", "equal.", "bias")
    for column in ("mIoU", "drop", "95 % interval", "SQNR, dB", "MACs, %"):
        out.add_column(column, justify="right", no_wrap=True)
    for row in found:
        noise = "-" if row.sqnr is None else f"{row.sqnr:.2f}"
        between = "-" if row.drop_interval is None else "{:+.2f}..{:+.2f}".format(*row.drop_interval)
        flags = ("yes" if flag else "no" for flag in (row.equalized, row.corrected))
        out.add_row(row.method, *flags, f"{row.miou:.2f}", f"{row.drop:+.2f}", between, noise, f"{row.mac_share:.1f}")
    return out


def parsed_methods(text: str) -> list[Method]:
    """The methods that `text` names, with commas between them."""
    known = {method.value: method for method in Method}
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in known]:
        raise OptionError(f"--methods takes {', '.join(known)}, not {unknown[0]!r}")
    return [known[name] for name in names]


app = make_app("benchmarks/int8.py", "Compare the ways to quantise a network.")


@app.default
def main(
    *,
    config: Annotated[str, Parameter(help="Config name or file.")],
    data: Annotated[Path, Parameter(help="Labelled data set with a train and a val split.")],
    checkpoint: Annotated[str | None, Parameter(help="File, 'published', 'bundled' or 'random'.")] = None,
    shape: Annotated[str | None, Parameter(help="HEIGHTxWIDTH in pixels; by default the protocol's.")] = None,
    images: Annotated[int, Parameter(help="Images of the train split to calibrate on.")] = 64,
    limit: Annotated[int | None, Parameter(help="Images of the val split to score at most.")] = None,
    methods: Annotated[str, Parameter(help="Methods, with commas between them.")] = "minmax,percentile,entropy,mse",
    percentile: Annotated[float, Parameter(help="For the method percentile.")] = 99.99,
    threads: Annotated[int, Parameter(help="Of ONNX Runtime when it scores; 0: all cores.")] = 0,
    json_file: Annotated[Path | None, Parameter(name="--json", help="File to write the rows to.")] = None,
) -> None:
    """Compare the ways to quantise a network."""
    if json_file is not None:
        check_target(json_file)
    model = fp32_graph(config, checkpoint, shape)
    contract = contract_in(model)
    chosen = choose_images(open_dataset(data, contract.dataset, split="train"), contract, images)
    dataset = open_dataset(data, contract.dataset, split="val").limited(limit)
    ways = [
        CalibrationOptions(method, percentile, equalize, correct)
        for equalize, correct, method in product((False, True), (False, True), parsed_methods(methods))
    ]
    found = []
    for row in rows(model, chosen, dataset, ways, threads):
        found.append(row)
        console.print(f"{row.method} eq={row.equalized} bias={row.corrected}: {row.miou:.3f} {row.sqnr}")
    console.print(table(found))
    if json_file is not None:
        about = {"config": config, "calibration_images": len(chosen), "scored_images": len(dataset)}
        write_json(json_file, {**about, "rows": [asdict(row) for row in found], "tools": tool_versions()})


if __name__ == "__main__":
    run_command(app)
