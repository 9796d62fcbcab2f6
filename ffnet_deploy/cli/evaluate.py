"""``ffnet-eval``: the scores of a network, or of what was exported from it, on labelled images."""

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ffnet_deploy.cli.against import ReportOptions, finish, score_others, take_its_sizes
from ffnet_deploy.cli.console import console, progress_bar, report_note, run_command
from ffnet_deploy.cli.shapes import parse_sides
from ffnet_deploy.cli.source import Backend, Source
from ffnet_deploy.core.contract import TestProtocol
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.files import check_target, sha256
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.evaluation.datasets import Dataset, open_dataset, open_images
from ffnet_deploy.evaluation.evaluate import EvaluateOptions, Evaluation, write_evaluation
from ffnet_deploy.evaluation.protocol import MULTI_SCALE, PredictOptions
from ffnet_deploy.report.compare import Comparison

PICTURES = Path("predictions")
"""Where pictures go when there are no labels to score by and no other folder is named."""

app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)


class Mode(str, Enum):
    """Whole images, or sliding windows."""

    WHOLE = "whole"
    SLIDE = "slide"


def parse_size(text: str | None, option: str) -> tuple[int, int] | None:
    """(height, width) from ``"1024"`` or ``"512x1024"``; None stays None."""
    return None if text is None else parse_sides(text, option)


def chosen_protocol(
    own: TestProtocol, mode: Mode | None, crop: tuple[int, int] | None, stride: tuple[int, int] | None
) -> TestProtocol:
    """The network's `own` protocol with what the options change.

    Raises:
        OptionError: windows are described for whole images, or sliding lacks a crop size.
    """
    chosen = mode.value if mode else own.mode
    if chosen == "whole":
        if crop or stride:
            raise OptionError("--crop and --stride belong to sliding windows: add --mode slide")
        return replace(own, mode="whole", crop=None, stride=None)
    crop = crop or own.crop
    if crop is None:
        raise OptionError("--mode slide needs --crop HEIGHTxWIDTH (and takes --stride, by default two thirds of it)")
    default = own.stride if own.crop == crop and own.stride else (-(-crop[0] * 2 // 3), -(-crop[1] * 2 // 3))
    return replace(own, mode="slide", crop=crop, stride=stride or default)


def chosen_dataset(
    engine: Engine, data: Path | None, images: Path | None, dataset: str | None, split: str, pictures: Path | None
) -> Dataset:
    """The labelled split in `data`, or the images in `images` but for those below `pictures`."""
    if images is not None:
        return open_images(images, leave_out=pictures)
    assert data is not None
    return open_dataset(data, engine.contract.dataset, dataset, split)


def check_inputs(data: Path | None, images: Path | None, limit: int | None) -> None:
    """Raise `OptionError` unless there is one source of images."""
    if (data is None) == (images is None):
        raise OptionError("give either --data ROOT (labelled images) or --images DIR (to predict only)")
    if limit is not None and limit < 1:
        raise OptionError(f"--limit takes a number of images from 1: got {limit}")


def score_table(evaluation: Evaluation) -> Table:
    """Per-class and mean scores, in percent."""
    assert evaluation.scores is not None
    table = Table("class", title=f"{evaluation.dataset} {evaluation.split}, {evaluation.images} images")
    for column in ("IoU", "Acc"):
        table.add_column(column, justify="right")
    for name, score in evaluation.scores.per_class.items():
        table.add_row(name, _percent(score.iou), _percent(score.accuracy))
    table.add_section()
    table.add_row("mean", _percent(evaluation.scores.mean_iou), _percent(evaluation.scores.mean_accuracy), style="bold")
    table.add_row("all pixels", "", _percent(evaluation.scores.pixel_accuracy), style="bold")
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def show(evaluation: Evaluation, save_images: Path | None) -> None:
    """Print the scores, notes, speed and where the pictures are."""
    if evaluation.scores is not None:
        console.print(score_table(evaluation))
        console.print(
            f"mIoU {evaluation.scores.mean_iou:.2f}  aAcc {evaluation.scores.pixel_accuracy:.2f}  "
            f"mAcc {evaluation.scores.mean_accuracy:.2f}"
        )
    for note in evaluation.notes:
        report_note(note)
    console.print(f"{evaluation.images} images in {evaluation.seconds:.1f} s")
    if save_images is not None:
        console.print(f"pictures in {save_images}", soft_wrap=True)


def about(engine: Engine, source: Source) -> dict[str, Any]:
    """What was scored, for the JSON file."""
    return {
        "backend": source.fitting_backend.value,
        "engine": engine.name,
        "network": engine.contract.network,
        "artifact": None if source.artifact is None else str(source.artifact),
        "sha256": None if source.artifact is None else sha256(source.artifact),
        "sources": dict(engine.contract.sources),
    }


DeviceName = Annotated[
    str | None, typer.Option(help="cpu, cuda or cuda:N; ONNX Runtime also tensorrt.", show_default="cpu")
]
TrustEngine = Annotated[bool, typer.Option("--trust-engine", help="Run an engine that this toolkit did not build.")]
EngineCache = Annotated[
    Path | None, typer.Option(help="Engines of --device tensorrt.", show_default="engines/onnxruntime")
]
SaveImages = Annotated[Path | None, typer.Option(help="Write a picture of each image here (--images: predictions).")]
Against = Annotated[
    list[Path] | None, typer.Option(help="Another artefact to score on the same images; may be repeated.")
]
MaxDrop = Annotated[float | None, typer.Option(help="Fail where mIoU of --against falls by more points than this.")]


@app.command()
@run_command
def command(
    artifact: Annotated[Path | None, typer.Option(help="Exported ONNX file or engine to score.")] = None,
    config: Annotated[str | None, typer.Option(help="Config name or file, for the PyTorch network.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="File, 'published', 'bundled' or 'random'.")] = None,
    backend: Annotated[Backend | None, typer.Option(help="By default the one that fits.", show_default=False)] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of a labelled data set.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Meaning of the labels: ade20k, cityscapes, camvid, ...")] = None,
    split: Annotated[str, typer.Option(help="Part of the data set: train, val or test.")] = "val",
    images: Annotated[Path | None, typer.Option(help="Folder or file to predict, without labels.")] = None,
    limit: Annotated[int | None, typer.Option(help="Score the first N images only.")] = None,
    multi_scale: Annotated[bool, typer.Option("--multi-scale", help="Average scales 0.5 to 1.75.")] = False,
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored image.")] = False,
    mode: Annotated[Mode | None, typer.Option(help="In place of the network's own mode.", show_default=False)] = None,
    crop: Annotated[str | None, typer.Option(help="Sliding window, HEIGHTxWIDTH in pixels.")] = None,
    stride: Annotated[str | None, typer.Option(help="Step between windows, HEIGHTxWIDTH in pixels.")] = None,
    batch: Annotated[int, typer.Option(help="Windows run together at most.")] = 4,
    threads: Annotated[int, typer.Option(help="CPU threads of ONNX Runtime; 0 takes all cores.")] = 0,
    device: DeviceName = None,
    trust_engine: TrustEngine = False,
    engine_cache: EngineCache = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the scores to this file.")] = None,
    save_images: SaveImages = None,
    against: Against = None,
    max_drop: MaxDrop = None,
    html: Annotated[Path | None, typer.Option(help="Write a report for the browser here (.html).")] = None,
    bench: Annotated[Path | None, typer.Option(help="JSON of ffnet-bench to show in the report.")] = None,
    pictures: Annotated[int, typer.Option(help="Images in the report's gallery.")] = 12,
) -> None:
    """Score an exported network, or a config with its checkpoint, by the published protocol."""
    source = Source(backend, artifact, config, checkpoint, device, threads, trust_engine, engine_cache)
    check_inputs(data, images, limit)
    if images is not None and save_images is None:
        save_images = PICTURES
    looks = PredictOptions(MULTI_SCALE if multi_scale else (1.0,), flip, batch)
    if json_file is not None:
        check_target(json_file)
    besides = ReportOptions(tuple(against or ()), html, bench, pictures, max_drop, json_file)
    run = besides.read_bench()
    comparison = Comparison(besides.gallery)
    with source.open() as engine:
        notes = take_its_sizes(engine, source, besides.against)
        samples = chosen_dataset(engine, data, images, dataset, split, save_images)
        protocol = chosen_protocol(
            engine.contract.protocol, mode, parse_size(crop, "--crop"), parse_size(stride, "--stride")
        )
        scoring = EvaluateOptions(protocol, looks, limit, save_images)
        with progress_bar() as progress:
            result = comparison.score(engine, samples, scoring, source.artifact, progress, notes)
        show(result, save_images)
        described = about(engine, source)
    others = list(score_others(comparison, source, besides, samples, scoring, about))
    if json_file is not None:
        write_evaluation(json_file, result, {**described, "against": others} if others else described)
    finish(comparison, source, besides, run)


def main() -> None:
    """Entry point of ``ffnet-eval``."""
    app()
