"""``ffnet-export``: a config and a checkpoint become a verified ONNX graph."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ffnet_deploy.cli.console import console, download_bar, error_console, report_note, run_command
from ffnet_deploy.cli.engines import (
    AuxStreams,
    Backend,
    BackendOption,
    Capability,
    Device,
    Ending,
    EngineFlags,
    Ensemble,
    HardwareCompatible,
    Onnx,
    OptimizationLevel,
    Refit,
    StripWeights,
    TimingCache,
    Triton,
    VersionCompatible,
    Workspace,
    engine_verification,
)
from ffnet_deploy.cli.lowering import (
    Bf16,
    CalibCount,
    CalibImages,
    CalibList,
    CalibMethod,
    Fp8,
    Fp16,
    Int8,
    Int8Base,
    LayerTimings,
    LoweringFlags,
    MaxDrop,
    MinAgreement,
    Mixed,
    Ranges,
    SearchBudget,
    SearchState,
    chosen_target,
    lower_watched,
    show_lowered,
)
from ffnet_deploy.cli.shapes import parse_batch, parse_shape
from ffnet_deploy.contract import STRIDE, InputKind, OutputKind, TestProtocol
from ffnet_deploy.engines.tensorrt.options import HardwareCompatibility
from ffnet_deploy.errors import OptionError
from ffnet_deploy.evaluation.datasets import open_dataset, open_images
from ffnet_deploy.optional import optional
from ffnet_deploy.zoo import chosen_checkpoint

if TYPE_CHECKING:  # these need the conversion layer
    from ffnet_deploy.config import SegmentorConfig
    from ffnet_deploy.export.lower import LowerOptions
    from ffnet_deploy.export.onnx import ExportOptions
    from ffnet_deploy.export.pipeline import Exported, VerifyOptions
    from ffnet_deploy.segmentor import Segmentor

app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)
_IMAGES = 4
_OUT = Path("export")


def default_shape(protocol: TestProtocol) -> str:
    """Input size when none is asked for: the sliding window, or the protocol's scale, in multiples of 32.

    Of a scale whose long side is only a limit (ADE20K's 2048x512) a square of the short side.
    """
    long, short = max(protocol.scale), min(protocol.scale)
    height, width = protocol.crop or (short, long if long <= 2 * short else short)
    return f"{-(-height // STRIDE) * STRIDE}x{-(-width // STRIDE) * STRIDE}"


def open_for_export(config: "SegmentorConfig", checkpoint: str | None) -> "Segmentor":
    """The segmentor to export, its download shown as a bar, and what was assumed or left out as notes."""
    from ffnet_deploy.segmentor import open_segmentor

    choice = chosen_checkpoint(checkpoint, config.name)
    with download_bar("downloading the checkpoint") as progress:
        segmentor = open_segmentor(config, choice, progress)
    for note in segmentor.notes:
        report_note(note)
    return segmentor


def export_watched(
    segmentor: "Segmentor", options: "ExportOptions", out: Path, verification: "VerifyOptions"
) -> "Exported":
    """The export, its steps shown as they go."""
    from ffnet_deploy.export.pipeline import export_onnx

    with error_console.status("exporting") as status:
        return export_onnx(
            segmentor,
            options,
            out,
            verification,
            stage=status.update,
            progress=lambda done, total: status.update(f"scoring image {done} of {total}"),
        )


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


@app.command()
@run_command
def command(
    config: Annotated[
        str | None, typer.Option(help="Config name, or a config file (a Python file: it is run).")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="File, 'published', 'bundled' or 'random'; by default the bundled one.")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="HEIGHTxWIDTH in pixels, or MIN:OPT:MAX of these; multiples of 32."),
    ] = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Accept any size and batch, --shape being typical.")
    ] = False,
    batch: Annotated[
        str | None, typer.Option(metavar="N", help="Batch size, or MIN:OPT:MAX.", show_default="1")
    ] = None,
    opset: Annotated[int, typer.Option(help="Operator set: 20, or 17 for TensorRT 8.5.")] = 20,
    input_kind: Annotated[
        InputKind, typer.Option("--input", help="float (normalised NCHW), or uint8 NHWC images: rgb, bgr.")
    ] = InputKind.FLOAT,
    output_kind: Annotated[OutputKind, typer.Option("--output", help="What the graph gives.")] = OutputKind.LOGITS,
    out: Annotated[Path, typer.Option(help="Folder, or a file ending in .onnx or .engine.")] = _OUT,
    data: Annotated[Path | None, typer.Option(help="Labelled data set: verify on it and compare mIoU.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Meaning of its labels: ade20k, cityscapes, ...")] = None,
    split: Annotated[str, typer.Option(help="Part of the data set.")] = "val",
    images: Annotated[Path | None, typer.Option(help="Folder of images to verify on.")] = None,
    limit: Annotated[int, typer.Option(help="Labelled images to score at most.")] = 20,
    tolerance: Annotated[float, typer.Option(help="Largest relative error of an output value in FP32.")] = 1e-4,
    fp16: Fp16 = False,
    bf16: Bf16 = False,
    int8: Int8 = False,
    fp8: Fp8 = False,
    mixed: Mixed = False,
    int8_base: Int8Base = None,
    calib_images: CalibImages = None,
    calib_count: CalibCount = None,
    calib_list: CalibList = None,
    calib_method: CalibMethod = None,
    ranges: Ranges = None,
    search_budget: SearchBudget = None,
    search_state: SearchState = None,
    layer_timings: LayerTimings = None,
    max_drop: MaxDrop = None,
    min_agreement: MinAgreement = None,
    onnx: Onnx = None,
    backend: BackendOption = Backend.ONNX,
    compute_capability: Capability = None,
    workspace: Workspace = None,
    optimization_level: OptimizationLevel = None,
    timing_cache: TimingCache = None,
    version_compatible: VersionCompatible = False,
    hardware_compatible: HardwareCompatible = HardwareCompatibility.NONE,
    aux_streams: AuxStreams = None,
    refit: Refit = False,
    strip_weights: StripWeights = False,
    device: Device = 0,
    triton: Triton = None,
    ensemble: Ensemble = False,
) -> None:
    """Write an FFNet segmentor as an ONNX graph, verified against PyTorch on the same images, or as an engine of it.

    Exit codes: 0 done, 1 something is wrong, 3 the graph is written but there is no GPU to build its engine.
    """
    flags = EngineFlags(
        backend,
        compute_capability,
        workspace,
        optimization_level,
        timing_cache,
        version_compatible,
        hardware_compatible,
        aux_streams,
        refit,
        strip_weights,
        device,
    )
    ending = Ending(flags, onnx, out, out == _OUT, (shape, batch), triton, ensemble)
    if config is None:
        if onnx is None:
            raise OptionError("give --config, or --onnx with a graph that is exported already")
        ending.finish(onnx)
        return
    target = chosen_target(fp16=fp16, bf16=bf16, int8=int8, fp8=fp8, mixed=mixed)
    if onnx is not None and target is not None:
        raise OptionError(f"--onnx takes a graph as it is: leave --{target.value} out, or give --config alone")
    if data is not None and images is not None:
        raise OptionError("give --data (labelled) or --images, not both")
    if limit < 1:
        raise OptionError(f"--limit takes a number of images from 1: got {limit}")
    # read when PyTorch is loaded: threads that spin while they wait slow it down several times on a busy machine
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for package in ("torch", "mmseg", "onnx", "onnxslim"):
        optional(package, extra="convert", purpose="ffnet-export")
    from ffnet_deploy.config import load_config
    from ffnet_deploy.export.images import generated_images, images_of
    from ffnet_deploy.export.onnx import ExportOptions
    from ffnet_deploy.export.pipeline import VerifyOptions
    from ffnet_deploy.export.verify import Tolerance

    gate = (max_drop, min_agreement) if target or backend is Backend.ONNX else (None, None)  # else the engine's alone
    lowering = LoweringFlags(
        int8_base,
        *gate,
        calib_images,
        calib_count,
        calib_list,
        calib_method,
        ranges,
        search_budget,
        search_state,
        layer_timings,
    ).options(target)
    settings = load_config(config)
    height, width = parse_shape(shape or default_shape(settings.protocol), dynamic)
    options = ExportOptions(height, width, parse_batch(batch or "1", dynamic), opset, input_kind, output_kind)
    labelled = open_dataset(data, settings.dataset, dataset, split).limited(limit) if data else None
    source = labelled or (open_images(images) if images else None)
    verification = VerifyOptions(
        images=images_of(source, _IMAGES) if source else generated_images(2),
        source=str(data or images or "generated street scenes"),
        labelled=labelled,
        tolerance=Tolerance(relative=tolerance),
    )
    segmentor = open_for_export(settings, checkpoint)
    graph = onnx or write_graphs(segmentor, options, out, verification, lowering)
    ending.finish(graph, lambda: engine_verification(segmentor, graph, verification, max_drop, min_agreement))


def write_graphs(
    segmentor: "Segmentor",
    options: "ExportOptions",
    out: Path,
    verification: "VerifyOptions",
    lowering: "LowerOptions | None",
) -> Path:
    """The exported graph, or its lowered form where one is asked for; what was measured is printed."""
    exported = export_watched(segmentor, options, out, verification)
    show(exported)
    if lowering is None:
        return exported.path
    lowered = lower_watched(segmentor, exported, lowering, verification)
    show_lowered(lowered)
    return lowered.path


def main() -> None:
    """Entry point of ``ffnet-export``."""
    app()
