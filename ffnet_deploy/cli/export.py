"""``ffnet-export``: a config and a checkpoint become a verified ONNX graph, and that an engine."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import typer

from ffnet_deploy.cli import engines, graphs, lowering
from ffnet_deploy.cli.console import run_command
from ffnet_deploy.cli.engines import Backend, Ending, EngineFlags, engine_verification
from ffnet_deploy.cli.graphs import OUT, GraphFlags, load_settings, open_for_export, write_graphs
from ffnet_deploy.cli.lowering import LoweringFlags, chosen_target
from ffnet_deploy.core.contract import InputKind, OutputKind
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.precision import Target
from ffnet_deploy.engines.tensorrt.options import HardwareCompatibility

app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)
Flags = TypeVar("Flags")


@app.command()
@run_command
def command(
    config: graphs.Config = None,
    checkpoint: graphs.Checkpoint = None,
    shape: graphs.Shape = None,
    dynamic: graphs.Dynamic = False,
    batch: graphs.Batch = None,
    opset: graphs.Opset = 20,
    input_kind: graphs.Input = InputKind.FLOAT,
    output_kind: graphs.Output = OutputKind.LOGITS,
    out: graphs.Out = OUT,
    data: graphs.Data = None,
    dataset: graphs.DatasetName = None,
    split: graphs.Split = "val",
    images: graphs.Images = None,
    limit: graphs.Limit = 20,
    tolerance: graphs.MaxError = 1e-4,
    fp16: lowering.Fp16 = False,
    bf16: lowering.Bf16 = False,
    int8: lowering.Int8 = False,
    fp8: lowering.Fp8 = False,
    mixed: lowering.Mixed = False,
    int8_base: lowering.Int8Base = None,
    calib_images: lowering.CalibImages = None,
    calib_count: lowering.CalibCount = None,
    calib_list: lowering.CalibList = None,
    calib_method: lowering.CalibMethod = None,
    calibrator: lowering.Calibrator = None,
    keep: lowering.Keep = None,
    ranges: lowering.Ranges = None,
    search_budget: lowering.SearchBudget = None,
    search_state: lowering.SearchState = None,
    layer_timings: lowering.LayerTimings = None,
    max_drop: lowering.MaxDrop = None,
    min_agreement: lowering.MinAgreement = None,
    onnx: engines.Onnx = None,
    backend: engines.BackendOption = Backend.ONNX,
    compute_capability: engines.Capability = None,
    workspace: engines.Workspace = None,
    optimization_level: engines.OptimizationLevel = None,
    timing_cache: engines.TimingCache = None,
    version_compatible: engines.VersionCompatible = False,
    hardware_compatible: engines.HardwareCompatible = HardwareCompatibility.NONE,
    aux_streams: engines.AuxStreams = None,
    refit: engines.Refit = False,
    strip_weights: engines.StripWeights = False,
    device: engines.Device = 0,
    triton: engines.Triton = None,
    ensemble: engines.Ensemble = False,
) -> None:
    """Write an FFNet segmentor as an ONNX graph, verified against PyTorch on the same images, or as an engine of it.

    Exit codes: 0 done, 1 something is wrong, 3 the graph is written but there is no GPU to build its engine.
    """
    given = locals()
    ending = Ending(picked(EngineFlags, given), onnx, out, out == OUT, (shape, batch), triton, ensemble)
    if config is None:
        finish_alone(ending)
        return
    target = chosen_target(fp16=fp16, bf16=bf16, int8=int8, fp8=fp8, mixed=mixed)
    export(picked(GraphFlags, given), picked(LoweringFlags, given), target, ending)


def picked(kind: type[Flags], given: Mapping[str, Any]) -> Flags:
    """A dataclass of options, each field from the parameter of the same name."""
    return kind(**{field.name: given[field.name] for field in fields(kind)})  # type: ignore[arg-type]


def finish_alone(ending: Ending) -> None:
    """Go on from a graph that is exported already, without PyTorch.

    Raises:
        OptionError: there is none.
    """
    if ending.onnx is None:
        raise OptionError("give --config, or --onnx with a graph that is exported already")
    ending.finish(ending.onnx)


def export(flags: GraphFlags, lowering_flags: LoweringFlags, target: Target | None, ending: Ending) -> None:
    """From config and checkpoint to all that was asked for."""
    if ending.onnx is not None and target is not None:
        raise OptionError(f"--onnx takes a graph as it is: leave --{target.value} out, or give --config alone")
    settings = load_settings(flags.config)
    drop, agreement = lowering_flags.max_drop, lowering_flags.min_agreement
    if target is None and ending.flags.backend is not Backend.ONNX:  # the gate is the engine's alone
        lowering_flags = replace(lowering_flags, max_drop=None, min_agreement=None)
    lowered = lowering_flags.options(target)
    options, verification = flags.options(settings), flags.verification(settings)
    segmentor = open_for_export(settings, flags.checkpoint)
    graph: Path = ending.onnx or write_graphs(segmentor, options, flags.out, verification, lowered)
    ending.finish(graph, lambda: engine_verification(segmentor, graph, verification, drop, agreement))


def main() -> None:
    """Entry point of ``ffnet-export``."""
    app()
