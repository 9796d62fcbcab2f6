"""``ffnet-export``: a config and a checkpoint become a verified ONNX graph, and that an engine."""

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ffnet_deploy.artifacts import Kind, Outputs
from ffnet_deploy.cli.console import (
    FLAT,
    console,
    make_app,
    progress_bar,
    report_note,
    run_command,
)
from ffnet_deploy.cli.export_options import (
    CalibrationFlags,
    EngineFlags,
    GraphFlags,
    PrecisionFlags,
    TargetFlags,
    VerificationFlags,
    check_options,
    reduction_options,
)
from ffnet_deploy.cli.export_tables import show_engine, show_exported, show_layer_comparison, show_reduced
from ffnet_deploy.cli.options import (
    DataFlags,
    parse_batch,
    parse_shape,
    refresh_checkpoint,
)
from ffnet_deploy.cli.zoo import zoo_table
from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.precision import Hardware
from ffnet_deploy.core.progress import Progress
from ffnet_deploy.engines.backend import Backend
from ffnet_deploy.engines.cuda import NoDeviceError, UnusableDeviceError
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.engines.onnx_metadata import read_description
from ffnet_deploy.engines.tensorrt.options import BuildOptions
from ffnet_deploy.evaluation.verify import (
    Verification,
    VerifyOptions,
    numerical_tolerance,
    usual_tolerance,
)
from ffnet_deploy.export.engine import BuildResult, EngineVerification, build_engine, export_layers, refit_engine
from ffnet_deploy.segmentor.overrides import read_config
from ffnet_deploy.segmentor.zoo import chosen_checkpoint
from ffnet_deploy.serving.artifact import read_served
from ffnet_deploy.serving.deepstream import CONFIG_FILE, scale_error, write_deepstream
from ffnet_deploy.serving.sample import sample_path, write_sample
from ffnet_deploy.serving.triton import model_names, write_repository
from ffnet_deploy.serving.triton_config import TritonOptions

if TYPE_CHECKING:  # these need the conversion layer
    from ffnet_deploy.export.onnx import ExportOptions
    from ffnet_deploy.export.reduce import ReductionOptions
    from ffnet_deploy.segmentor.config import SegmentorConfig
    from ffnet_deploy.segmentor.load import Segmentor

app = make_app(
    "ffnet-export",
    "Write an FFNet segmentor as an ONNX graph, verified against PyTorch on the same images, or as an engine of it.",
)


@app.default
def command(
    *,
    graph: Annotated[GraphFlags, FLAT] = GraphFlags(),
    precision: Annotated[PrecisionFlags, FLAT] = PrecisionFlags(),
    calibration: Annotated[CalibrationFlags, FLAT] = CalibrationFlags(),
    engine: Annotated[EngineFlags, FLAT] = EngineFlags(),
    data: Annotated[DataFlags, FLAT] = DataFlags(),
    verification: Annotated[VerificationFlags, FLAT] = VerificationFlags(),
    target: Annotated[TargetFlags, FLAT] = TargetFlags(),
) -> None:
    """Export what is named, as far as is asked for."""
    if graph.list_configs:
        console.print(zoo_table())
        return
    data.allow_pixels()
    check_options(graph, precision, engine, data, verification, target)
    if graph.compare_layers is not None:
        compare_graphs(graph, data, verification)
        return
    if engine.refit_engine is not None:
        refit(graph, engine, data, verification, target)
        return
    reductions = reduction_options(precision, calibration, verification, engine)
    # graphs of a lower precision are for TensorRT unless made for CPUs, plain ones for what runs files ending in .onnx
    for_trt = bool(reductions) and precision.hardware is Hardware.TRT
    backend = engine.backend or (Backend.TENSORRT if for_trt else Backend.ONNXRUNTIME)
    start = open_start(graph, data, verification, target, backend, bool(reductions) or engine.builds)
    outputs = Outputs(graph.config, graph.checkpoint, graph.onnx, *data.files, *calibration.files)
    outputs.refuse_input(target.out)
    if start.form is not None:
        outputs.claim(start.graph, Kind.ARTIFACT)
    beside = None if start.form is not None else target.out
    reduced = [one.path(start.graph, beside) for one in reductions]
    for path in reduced:
        outputs.claim(path, Kind.ARTIFACT)
    for path in (reduced or [start.graph]) if engine.builds else ():
        engine.claim(outputs, target.engine_path(path, engine))
    sampled = [*([start.graph] if start.form is not None or not reduced else []), *reduced] if target.sample else []
    for path in sampled:
        outputs.claim(sample_path(path), Kind.SAMPLE)
    outputs.claim(calibration.ranges, Kind.RANGES)
    outputs.claim(calibration.search_state, Kind.SEARCH)
    if len(reduced) > 1 and (target.deepstream is not None or target.export_layers is not None):
        raise OptionError("--deepstream and --export-layers take one artefact at a time: ask for one precision")
    outputs.claim_folder(target.deepstream)
    outputs.claim(target.deepstream and target.deepstream / CONFIG_FILE, Kind.DEEPSTREAM)
    outputs.claim(target.export_layers, Kind.LAYERS)
    outputs.claim_folder(target.triton)
    if target.triton is not None:
        for path in reduced or [start.graph]:
            served = target.engine_path(path, engine) if engine.builds else path
            for model in model_names(served, TritonOptions(ensemble=target.ensemble)):
                outputs.claim_replaced(target.triton / model)

    images = start.images
    if start.form is not None:
        images = export_graph(start)
    for reduction, path in zip(reductions, reduced, strict=True):
        images = reduce_graph(start, path, reduction, images)
    for path in sampled:
        console.print(f"sample: python {write_sample(path)} IMAGE LABELS.png", soft_wrap=True)
    for path in reduced or [start.graph]:
        artifact = path
        if engine.builds:
            out = target.engine_path(path, engine)
            options = engine_options(out, graph, engine)
            check = engine_verification(path, start, verification)
            with watched_build(path, out, options) as progress:
                made = build_engine(path, out, options, check, progress, report_note)
            show_engine(made)
            artifact = made.bundle.path
            if target.export_layers is not None and not export_layers(made.bundle, target.export_layers):
                report_note("no layers are listed: the engine inspector needs a GPU that takes the engine")
        write_servers(artifact, target)


def write_servers(artifact: Path, target: TargetFlags) -> None:
    """Write what servers need to run `artifact`, for those that are asked for."""
    if target.triton is not None:
        repository = write_repository(artifact, target.triton, TritonOptions(ensemble=target.ensemble))
        console.print(f"triton: {', '.join(repository.models)} in {repository.folder}", soft_wrap=True)
        console.print(f"serve: {repository.command}", soft_wrap=True)
    if target.deepstream is not None:
        console.print(f"deepstream: {write_deepstream(artifact, target.deepstream)}", soft_wrap=True)
        off = scale_error(read_served(artifact, "DeepStream").contract)
        report_note(f"Gst-nvinfer scales all channels alike: its input is up to {off:.1%} off")


@dataclass(frozen=True)
class Start:
    """What the export starts from.

    Attributes:
        graph: The FP32 graph: given by ``--onnx``, or to be written.
        form: Form of the graph to be written; None: the graph is given.
        segmentor: The network in PyTorch; None: the graph is all there is.
        images: What is verified on; None: nothing is verified.
    """

    graph: Path
    form: "ExportOptions | None" = None
    segmentor: "Segmentor | None" = None
    images: VerifyOptions | None = None

    def reference(self, contract: Contract) -> Engine:
        """The network as it should be: PyTorch's as published, else the given graph."""
        if self.segmentor is None:
            from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine

            return OnnxRuntimeEngine(self.graph)
        from ffnet_deploy.engines.torch import TorchEngine

        return TorchEngine(self.segmentor.model, contract)


def open_start(
    graph: GraphFlags,
    data: DataFlags,
    verification: VerificationFlags,
    target: TargetFlags,
    backend: Backend,
    verifies: bool,
) -> Start:
    """Open what the export starts from: a graph for `backend`, or a given one, which is not always verified.

    Raises:
        FFNetDeployError: config, checkpoint, graph or images cannot be used.
    """
    if graph.config is None:
        assert graph.onnx is not None  # check_options saw to it
        if not verifies:
            return Start(graph.onnx)
        contract, _ = read_description(graph.onnx)
        return Start(graph.onnx, images=verification.options(data, contract.dataset, contract.classes))
    settings = load_settings(graph.config, graph.cfg_options)
    form = None if graph.onnx is not None else graph.options(settings, backend)
    images = verification.options(data, settings.dataset, settings.labels.classes)
    segmentor = open_for_export(settings, graph.checkpoint, graph.refresh)
    images = replace(images, labels=segmentor.checkpoint is not None)
    return Start(graph.onnx or target.graph_path(settings.name), form, segmentor, images)


def load_settings(config: str, cfg_options: Sequence[str] = ()) -> "SegmentorConfig":
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

    changed = read_config(config, cfg_options)
    return load_config(config) if changed is config else changed


def open_for_export(config: "SegmentorConfig", checkpoint: str | None, refresh: bool = False) -> "Segmentor":
    """The segmentor to export, its download shown as a bar, and what was assumed or left out as notes."""
    from ffnet_deploy.segmentor.load import open_segmentor

    choice = chosen_checkpoint(checkpoint, config.name)
    with progress_bar() as progress:
        refresh_checkpoint(refresh, checkpoint, config.name, progress)
        segmentor = open_segmentor(config, choice, progress)
    for note in segmentor.notes:
        report_note(note)
    return segmentor


def export_graph(start: Start) -> VerifyOptions:
    """Write the FP32 graph and print what was measured; what to verify further graphs on, with the mIoU of PyTorch."""
    from ffnet_deploy.export.onnx import export_onnx

    assert start.segmentor is not None and start.form is not None and start.images is not None  # there is a config
    with progress_bar("exporting") as progress:
        exported = export_onnx(start.segmentor, start.form, start.graph, start.images, progress)
    show_exported(exported)
    return with_reference(start.images, exported.verification)


def reduce_graph(start: Start, out: Path, options: "ReductionOptions", images: VerifyOptions | None) -> VerifyOptions:
    """Write the graph in a lower precision and print what was measured; see `export_graph`."""
    from ffnet_deploy.export.reduce import reduce_precision

    assert images is not None  # a lower precision is verified
    contract, _ = read_description(start.graph)
    with progress_bar("reducing the precision") as progress, start.reference(contract) as reference:
        reduced = reduce_precision(start.graph, out, options, images, reference, progress)
    show_reduced(reduced)
    return with_reference(images, reduced.verification)


def compare_graphs(graph: GraphFlags, data: DataFlags, verification: VerificationFlags) -> None:
    """Print where the graph of ``--onnx`` begins to differ from its FP32 graph."""
    optional("onnx", extra="convert", purpose="comparing layers")
    from ffnet_deploy.export.layer_comparison import compare_layers

    assert graph.onnx is not None and graph.compare_layers is not None  # check_options saw to it
    contract, _ = read_description(graph.onnx)
    image = verification.options(data, contract.dataset, contract.classes).images[0]
    with progress_bar("comparing layers") as progress:
        show_layer_comparison(compare_layers(graph.compare_layers, graph.onnx, image, progress), graph.onnx)


def refit(
    graph: GraphFlags, engine: EngineFlags, data: DataFlags, verification: VerificationFlags, target: TargetFlags
) -> None:
    """Give an engine the weights of a graph, and print what was verified."""
    assert graph.onnx is not None and engine.refit_engine is not None  # check_options saw to it
    Outputs(graph.onnx, engine.refit_engine, *data.files).claim(target.out, Kind.ARTIFACT)
    start = open_start(graph, data, verification, target, Backend.TENSORRT, verifies=True)
    check = engine_verification(graph.onnx, start, verification)
    with progress_bar("refitting") as progress:
        bundle = refit_engine(engine.refit_engine, graph.onnx, target.out, engine.gpu(), check, progress, report_note)
    show_engine(BuildResult(bundle, reused=False))


def with_reference(images: VerifyOptions, result: Verification) -> VerifyOptions:
    """`images` with the mIoU of the reference, where `result` has it, so that it is scored once."""
    return images if result.miou is None else replace(images, reference_miou=result.miou[0])


def engine_options(out: Path, graph: GraphFlags, engine: EngineFlags) -> BuildOptions:
    """How to build the engine `out`; the sizes that are asked for beside a given graph are those of its profile."""
    options = engine.options(out)
    assert options is not None  # an engine is asked for
    if graph.onnx is not None and graph.shape is not None:
        height, width = parse_shape(graph.shape, dynamic=False)
        options = replace(options, height=height, width=width)
    if graph.onnx is not None and graph.batch is not None:
        options = replace(options, batch=parse_batch(graph.batch, dynamic=False))
    return options


def engine_verification(path: Path, start: Start, verification: VerificationFlags) -> EngineVerification | None:
    """What to verify the engine of the graph `path` on; None where nothing here runs the network as it should be."""
    if start.segmentor is None and find_spec("onnxruntime") is None:
        return None
    assert start.images is not None  # an engine is asked for
    _, record = read_description(path)
    gate = numerical_tolerance(record.precision)
    if start.images.labels:
        limits = (verification.min_agreement, verification.max_drop, verification.tier)
        gate = usual_tolerance(record.precision, *limits)
    command = shlex.join(["ffnet-export", *sys.argv[1:]])
    return EngineVerification(replace(start.images, tolerance=gate), start.reference, command)


@contextmanager
def watched_build(graph: Path, out: Path, options: BuildOptions) -> Iterator[Progress]:
    """Show the steps of the block, which builds the engine of `graph`; yields what they are reported to.

    Raises:
        NoDeviceError: there is no GPU to build on; one line says so, and what to do on a machine that has one.
    """
    try:
        with progress_bar("reading") as progress:
            yield progress
    except UnusableDeviceError:
        raise
    except NoDeviceError as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise NoDeviceError(
            f"{reason}; written: {graph}; on the machine with the GPU run: {options.command(graph, out)}"
        ) from error


def main() -> None:
    """Entry point of ``ffnet-export``."""
    run_command(app)


if __name__ == "__main__":
    main()
