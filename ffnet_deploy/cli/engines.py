"""The options of ``ffnet-export`` that ask for an engine or for a server's files, and what is printed of them."""

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ffnet_deploy.cli.console import console, progress_bar, report_error, report_note
from ffnet_deploy.cli.shapes import parse_batch, parse_shape
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.engines.cuda import NoDeviceError, UnusableDeviceError
from ffnet_deploy.engines.onnx_metadata import read_description
from ffnet_deploy.engines.tensorrt.options import BuildOptions, HardwareCompatibility
from ffnet_deploy.engines.tensorrt.variant import Variant
from ffnet_deploy.evaluation.verify import VerifyOptions, usual_tolerance
from ffnet_deploy.export.engine import BuildResult, EngineVerification, build_engine
from ffnet_deploy.serving.triton import write_repository
from ffnet_deploy.serving.triton_config import TritonOptions

if TYPE_CHECKING:  # it needs the conversion layer
    from ffnet_deploy.segmentor.load import Segmentor

NO_DEVICE = 3
"""Exit code when the engine asked for cannot be built for want of a GPU; the graph is written."""
ENGINES = Path("engines")
"""Where engines land unless ``--out`` says otherwise."""
_TIMES = "timing.cache"
_OFF = "off"


class Backend(str, Enum):
    """What the export ends in."""

    ONNX = "onnx"
    TRT = "trt"
    RTX = "trt-rtx"


Onnx = Annotated[
    Path | None, typer.Option("--onnx", help="Build from this exported graph; needs no --config and no PyTorch.")
]
BackendOption = Annotated[
    Backend, typer.Option(help="What the export ends in: the graph, or an engine of TensorRT or TensorRT for RTX.")
]
Capability = Annotated[
    str | None,
    typer.Option("--compute-capability", metavar="LIST", help="trt-rtx: GPUs to build for, as 8.6,8.9,12.0."),
]
Workspace = Annotated[int | None, typer.Option(metavar="MIB", help="Most scratch memory of an engine's layer.")]
OptimizationLevel = Annotated[int | None, typer.Option(help="0 to 5: how long the builder searches.")]
TimingCache = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="trt: measured kernel times; by default beside the engine; 'off' for none."),
]
VersionCompatible = Annotated[
    bool, typer.Option("--version-compatible", help="Let later TensorRTs of the same major version load the engine.")
]
HardwareCompatible = Annotated[
    HardwareCompatibility, typer.Option(help="trt: other GPUs that the engine may run on, at the cost of speed.")
]
AuxStreams = Annotated[int | None, typer.Option(help="Most additional CUDA streams of one inference.")]
Refit = Annotated[bool, typer.Option("--refit", help="Let the engine's weights be replaced later.")]
StripWeights = Annotated[bool, typer.Option("--strip-weights", help="Leave the weights out of the engine.")]
Device = Annotated[int, typer.Option(help="Number of the GPU to build on.")]
Triton = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Also write a model repository for Triton Inference Server.")
]
Ensemble = Annotated[
    bool, typer.Option("--ensemble", help="With --triton: a model that takes bytes, for graphs that do not.")
]


@dataclass(frozen=True)
class EngineFlags:
    """What the command line says of an engine; the fields are named after its options."""

    backend: Backend
    compute_capability: str | None
    workspace: int | None
    optimization_level: int | None
    timing_cache: str | None
    version_compatible: bool
    hardware_compatible: HardwareCompatibility
    aux_streams: int | None
    refit: bool
    strip_weights: bool
    device: int

    def options(self, out: Path) -> BuildOptions | None:
        """How to build an engine at `out`; None when the export ends in a graph.

        Raises:
            OptionError: an option does not go with the backend.
        """
        if self.backend is Backend.ONNX:
            self._refuse_lone_flags()
            return None
        variant = Variant(self.backend.value)
        listed = tuple(part.strip() for part in (self.compute_capability or "").split(",") if part.strip())
        return BuildOptions(
            variant=variant,
            workspace=self.workspace,
            optimization_level=self.optimization_level,
            timing_cache=self._times(variant, out),
            version_compatible=self.version_compatible,
            hardware_compatibility=self.hardware_compatible,
            aux_streams=self.aux_streams,
            refit=self.refit,
            strip_weights=self.strip_weights,
            compute_capabilities=listed,
            device=self.device,
        )

    def _times(self, variant: Variant, out: Path) -> Path | None:
        if self.timing_cache == _OFF:
            return None
        if self.timing_cache is None:
            return out.parent / _TIMES if variant is Variant.TENSORRT else None
        return Path(self.timing_cache)

    def _refuse_lone_flags(self) -> None:
        plain = EngineFlags(
            Backend.ONNX, None, None, None, None, False, HardwareCompatibility.NONE, None, False, False, 0
        )
        lone = [field.name for field in fields(self) if getattr(self, field.name) != getattr(plain, field.name)]
        if lone:
            named = " and ".join(f"--{name.replace('_', '-')}" for name in lone)
            raise OptionError(f"{named} goes with --backend trt or trt-rtx")


def with_profile(options: BuildOptions, shape: str | None, batch: str | None) -> BuildOptions:
    """`options` with the optimisation profile of ``--shape`` and ``--batch``, where they are given."""
    if shape is not None:
        height, width = parse_shape(shape, dynamic=False)
        options = replace(options, height=height, width=width)
    return options if batch is None else replace(options, batch=parse_batch(batch, dynamic=False))


def build_watched(
    graph: Path, out: Path, options: BuildOptions, verification: EngineVerification | None = None
) -> BuildResult:
    """The engine of `graph`, its steps shown as they go.

    Raises:
        typer.Exit: there is no GPU to build on; one line has said so, and what to do on a machine that has one.
    """
    try:
        with progress_bar("reading") as progress:
            return build_engine(graph, out, options, verification, progress, report_note)
    except UnusableDeviceError:
        raise
    except NoDeviceError as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        report_error(f"{reason}; written: {graph}; on the machine with the GPU run: {options.command(graph, out)}")
        raise typer.Exit(NO_DEVICE) from error


def this_command() -> str:
    """The command line that is running."""
    return shlex.join(["ffnet-export", *sys.argv[1:]])


def show_engine(made: BuildResult) -> None:
    """Print what an engine was proved and measured to be, and where it is."""
    manifest = made.bundle.manifest
    build, proof, verification = manifest["build"], manifest["proof"], manifest["verification"]
    target = build["target"]["gpu"] or f"compute capability {', '.join(build['target']['capabilities'])}"
    how = "reused: built before from the same graph, options and tools" if made.reused else f"{build['seconds']} s"
    console.print(f"{made.bundle.variant.label} {build['version']} for {target} ({how})", soft_wrap=True)
    seen = proof["engine"] if proof["engine"] and proof["engine"]["convolutions"] else proof["network"]
    counted = ", ".join(f"{count} in {name}" for name, count in seen["convolutions"].items())
    console.print(f"convolutions: {counted}; proof rests on {proof['rests on']}", soft_wrap=True)
    if verification["state"] == "not run":
        report_note(f"not verified: {verification['reason']}; on the machine it is for run: {verification['command']}")
    else:
        show_verification(verification)
    console.print(f"engine: {made.bundle.path}", soft_wrap=True)


def show_verification(verification: dict[str, object]) -> None:
    """Print what was measured on the engine."""
    line = f"against {verification['reference']}: same label {verification['agreement']:.3f} %"
    miou = verification["mIoU"]
    if isinstance(miou, dict):
        line += (
            f"; mIoU on {miou['images']} images {miou['reference']:.2f} -> {miou['candidate']:.2f} "
            f"({miou['candidate'] - miou['reference']:+.3f} points)"
        )
    console.print(line, soft_wrap=True)


def write_triton(artifact: Path, folder: Path, ensemble: bool) -> None:
    """Write the model repository of `artifact` and print how to serve it."""
    repository = write_repository(artifact, folder, TritonOptions(ensemble=ensemble))
    console.print(f"triton: {', '.join(repository.models)} in {repository.folder}", soft_wrap=True)
    console.print(f"serve: {repository.command}", soft_wrap=True)


def engine_verification(
    segmentor: "Segmentor",
    graph: Path,
    images: VerifyOptions,
    max_drop: float | None,
    agreement: float | None,
) -> EngineVerification:
    """What the engine of `graph` is verified on: the same images as the graph, against the same PyTorch model."""
    from ffnet_deploy.engines.torch import TorchEngine

    _, record = read_description(graph)
    return EngineVerification(
        replace(images, tolerance=usual_tolerance(record.precision, agreement, max_drop)),
        lambda contract: TorchEngine(segmentor.model, contract),
        this_command(),
    )


@dataclass(frozen=True)
class Ending:
    """What the export ends in.

    Attributes:
        flags: of the engine.
        onnx: of ``--onnx``: the graph that is exported already.
        out: of ``--out``.
        is_default: whether `out` is the command's default, which is for graphs.
        profile: ``--shape`` and ``--batch``; they are the engine's where the graph is exported already.
        triton: folder of the model repository.
        ensemble: whether it gets an ensemble.
    """

    flags: EngineFlags
    onnx: Path | None
    out: Path
    is_default: bool
    profile: tuple[str | None, str | None]
    triton: Path | None
    ensemble: bool

    def __post_init__(self) -> None:
        if self.onnx is not None and self.flags.backend is Backend.ONNX and self.triton is None:
            raise OptionError(
                "--onnx gives an exported graph: say what for, with --backend trt, trt-rtx or --triton DIR"
            )
        if self.out.suffix == Variant.TENSORRT.suffix and self.onnx is None:
            raise OptionError(f"--out {self.out} names an engine; the graph needs a place too: give a folder")
        if self.ensemble and self.triton is None:
            raise OptionError("--ensemble goes with --triton DIR")
        self.flags.options(self.out)  # refuses what does not go together before anything is exported

    def finish(self, graph: Path, verification: "Callable[[], EngineVerification] | None" = None) -> None:
        """Build the engine of `graph` and write the server's files, where they are asked for.

        Args:
            graph: the ONNX file.
            verification: gives what to verify an engine on; None: there is no PyTorch model to compare it with.
        """
        artifact = graph
        if self.flags.backend is not Backend.ONNX:
            artifact = self._build(graph, verification() if verification else None)
        if self.triton is not None:
            write_triton(artifact, self.triton, self.ensemble)

    def _build(self, graph: Path, verification: EngineVerification | None) -> Path:
        out = self._engine(graph)
        options = self.flags.options(out)
        if options is None:
            return graph
        profile = self.profile if self.onnx is not None else (None, None)
        made = build_watched(graph, out, with_profile(options, *profile), verification)
        show_engine(made)
        return made.bundle.path

    def _engine(self, graph: Path) -> Path:
        """Where the engine goes: ``--out`` if it names one; else a folder, `ENGINES` unless ``--out`` says where."""
        if self.out.suffix == Variant.TENSORRT.suffix:
            return self.out
        folder = ENGINES if self.is_default else self.out.parent if self.out.suffix == ".onnx" else self.out
        return folder / f"{graph.stem}{Variant(self.flags.backend.value).suffix}"
