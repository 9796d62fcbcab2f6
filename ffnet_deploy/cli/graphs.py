"""The options of ``ffnet-export`` that describe the graph and its verification, and what is printed of it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ffnet_deploy.cli.console import console, progress_bar, report_note
from ffnet_deploy.cli.lowering import lower_watched, show_lowered
from ffnet_deploy.cli.shapes import parse_batch, parse_shape
from ffnet_deploy.core.contract import STRIDE, InputKind, OutputKind, TestProtocol
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.optional import optional
from ffnet_deploy.evaluation.datasets import open_dataset, open_images
from ffnet_deploy.segmentor.zoo import chosen_checkpoint

if TYPE_CHECKING:  # these need the conversion layer
    from ffnet_deploy.evaluation.verify import VerifyOptions
    from ffnet_deploy.export.onnx import Exported, ExportOptions
    from ffnet_deploy.export.reduce import ReductionOptions
    from ffnet_deploy.segmentor.config import SegmentorConfig
    from ffnet_deploy.segmentor.load import Segmentor

OUT = Path("export")
"""Folder of what is exported when no other is named."""
_IMAGES = 4

Config = Annotated[str | None, typer.Option(help="Config name, or a config file (a Python file: it is run).")]
Checkpoint = Annotated[
    str | None, typer.Option(help="File, 'published', 'bundled' or 'random'; by default the bundled one.")
]
Shape = Annotated[
    str | None, typer.Option(metavar="SIZE", help="HEIGHTxWIDTH in pixels, or MIN:OPT:MAX of these; multiples of 32.")
]
Dynamic = Annotated[bool, typer.Option("--dynamic", help="Accept any size and batch, --shape being typical.")]
Batch = Annotated[str | None, typer.Option(metavar="N", help="Batch size, or MIN:OPT:MAX.", show_default="1")]
Opset = Annotated[int, typer.Option(help="Operator set: 20, or 17 for TensorRT 8.5.")]
Input = Annotated[InputKind, typer.Option("--input", help="float (normalised NCHW), or uint8 NHWC images: rgb, bgr.")]
Output = Annotated[OutputKind, typer.Option("--output", help="What the graph gives.")]
Out = Annotated[Path, typer.Option(help="Folder, or a file ending in .onnx or .engine.")]
Data = Annotated[Path | None, typer.Option(help="Labelled data set: verify on it and compare mIoU.")]
DatasetName = Annotated[str | None, typer.Option("--dataset", help="Meaning of its labels: ade20k, cityscapes, ...")]
Split = Annotated[str, typer.Option(help="Part of the data set.")]
Images = Annotated[Path | None, typer.Option(help="Folder of images to verify on.")]
Limit = Annotated[int, typer.Option(help="Labelled images to score at most.")]
MaxError = Annotated[float, typer.Option("--tolerance", help="Largest relative error of an output value in FP32.")]


@dataclass(frozen=True)
class GraphFlags:
    """What the command line says of the graph and its verification; the fields are named after its options."""

    config: str
    checkpoint: str | None
    shape: str | None
    dynamic: bool
    batch: str | None
    opset: int
    input_kind: InputKind
    output_kind: OutputKind
    out: Path
    data: Path | None
    dataset: str | None
    split: str
    images: Path | None
    limit: int
    tolerance: float

    def __post_init__(self) -> None:
        if self.data is not None and self.images is not None:
            raise OptionError("give --data (labelled) or --images, not both")
        if self.limit < 1:
            raise OptionError(f"--limit takes a number of images from 1: got {self.limit}")

    def options(self, settings: "SegmentorConfig") -> "ExportOptions":
        """The boundary and form of the graph of the config `settings`."""
        from ffnet_deploy.export.onnx import ExportOptions

        height, width = parse_shape(self.shape or default_shape(settings.protocol), self.dynamic)
        batch = parse_batch(self.batch or "1", self.dynamic)
        return ExportOptions(height, width, batch, self.opset, self.input_kind, self.output_kind)

    def verification(self, settings: "SegmentorConfig") -> "VerifyOptions":
        """What the graph is verified on: labelled data, other images, or the packaged scenes.

        Raises:
            DataError: the images cannot be used.
        """
        from ffnet_deploy.evaluation.verify import Tolerance, VerifyOptions, images_of, packaged_images

        labelled = None
        if self.data is not None:
            labelled = open_dataset(self.data, settings.dataset, self.dataset, self.split).limited(self.limit)
        source = labelled or (open_images(self.images) if self.images else None)
        return VerifyOptions(
            images=images_of(source, _IMAGES) if source else packaged_images(2),
            source=str(self.data or self.images or "packaged street scenes"),
            labelled=labelled,
            tolerance=Tolerance(relative=self.tolerance),
        )


def load_settings(config: str) -> "SegmentorConfig":
    """The config of that name or file, after a check that the conversion layer is installed.

    Raises:
        MissingPackageError: it is not.
        ConfigError: there is no such config.
    """
    # read when PyTorch is loaded: threads that spin while they wait slow it down several times on a busy machine
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for package in ("torch", "mmseg", "onnx", "onnxslim"):
        optional(package, extra="convert", purpose="ffnet-export")
    from ffnet_deploy.segmentor.config import load_config

    return load_config(config)


def default_shape(protocol: TestProtocol) -> str:
    """Input size when none is asked for: the sliding window, or the protocol's scale, in multiples of 32.

    Of a scale whose long side is only a limit (ADE20K's 2048x512) a square of the short side.
    """
    long, short = max(protocol.scale), min(protocol.scale)
    height, width = protocol.crop or (short, long if long <= 2 * short else short)
    return f"{-(-height // STRIDE) * STRIDE}x{-(-width // STRIDE) * STRIDE}"


def open_for_export(config: "SegmentorConfig", checkpoint: str | None) -> "Segmentor":
    """The segmentor to export, its download shown as a bar, and what was assumed or left out as notes."""
    from ffnet_deploy.segmentor.load import open_segmentor

    choice = chosen_checkpoint(checkpoint, config.name)
    with progress_bar() as progress:
        segmentor = open_segmentor(config, choice, progress)
    for note in segmentor.notes:
        report_note(note)
    return segmentor


def export_watched(
    segmentor: "Segmentor", options: "ExportOptions", out: Path, verification: "VerifyOptions"
) -> "Exported":
    """The export, its steps shown as they go."""
    from ffnet_deploy.export.onnx import export_onnx

    with progress_bar("exporting") as progress:
        return export_onnx(segmentor, options, out, verification, progress)


def verification_table(exported: "Exported") -> Table:
    """What the verification measured, image by image."""
    result = exported.verification
    table = Table("image", "input", title=f"{result.candidate} against {result.reference}")
    for column in ("largest error", "relative", "mean error", "same label"):
        table.add_column(column, justify="right")
    for row in result.comparisons:
        table.add_row(
            row.image,
            f"{row.size[0]}x{row.size[1]}",
            f"{row.largest:.2e}",
            f"{row.relative:.2e}",
            f"{row.mean:.2e}",
            f"{row.agreement:.4f} %",
        )
    return table


def show(exported: "Exported") -> None:
    """Print what was measured and where the files are."""
    console.print(verification_table(exported))
    worst = max(exported.blocks, key=lambda block: block.relative)
    console.print(f"re-parameterisation: {len(exported.blocks)} blocks, worst {worst.relative:.1e} ({worst.name})")
    if exported.verification.miou is not None:
        before, after = exported.verification.miou
        console.print(
            f"mIoU on {exported.verification.scored_images} images: PyTorch {before:.2f}, ONNX {after:.2f}, "
            f"difference {after - before:+.3f} points"
        )
    for note in exported.verification.notes:
        report_note(note)
    console.print(f"verified within {exported.verification.tolerance.relative:.0e}: {exported.path}", soft_wrap=True)
    console.print(f"manifest: {exported.manifest}", soft_wrap=True)


def write_graphs(
    segmentor: "Segmentor",
    options: "ExportOptions",
    out: Path,
    verification: "VerifyOptions",
    lowering: "ReductionOptions | None",
) -> Path:
    """The exported graph, or its lowered form where one is asked for; what was measured is printed."""
    exported = export_watched(segmentor, options, out, verification)
    show(exported)
    if lowering is None:
        return exported.path
    lowered = lower_watched(segmentor, exported, lowering, verification)
    show_lowered(lowered)
    return lowered.path
