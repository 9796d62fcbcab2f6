"""How an engine is built, and for which GPUs."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from ffnet_deploy.core.contract import STRIDE, Contract, DimensionRange, check_multiples
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.engines.cuda import NoDeviceError, find_device
from ffnet_deploy.engines.tensorrt.variant import Variant, feature, load

OPTIMIZATION_LEVELS = range(6)
"""TensorRT's optimisation levels: higher ones search longer for faster kernels; 3 is its default."""
_USUAL_BATCH = 8
_ANY_SIDE = 4096
_ANY_BATCH = 64
"""What a graph of ``--dynamic`` accepts at most: limits of the graph, and no wish for an engine that large."""


class HardwareCompatibility(str, Enum):
    """On which other GPUs an engine may run; all but `NONE` cost speed."""

    NONE = "none"
    """Only on the GPU model that it was built on."""
    SAME_COMPUTE_CAPABILITY = "same-compute-capability"
    """On GPUs of the same compute capability."""
    AMPERE_PLUS = "ampere-plus"
    """On GPUs of compute capability 8.0 and above."""


@dataclass(frozen=True)
class ProfileShapes:
    """Input shapes of one optimisation profile.

    Attributes:
        batch: Batch sizes.
        height: Input heights in pixels, multiples of 32.
        width: Input widths in pixels, multiples of 32.
    """

    batch: DimensionRange
    height: DimensionRange
    width: DimensionRange

    def __post_init__(self) -> None:
        check_multiples("height", self.height)
        check_multiples("width", self.width)

    def __str__(self) -> str:
        return f"batch {self.batch} at {self.height} x {self.width}"

    def as_option(self) -> str:
        """The profile as ``--profile`` takes it: ``BATCH@SHAPE``, for instance ``1:1:8@256x256:512x512:1024x1024``."""
        return f"{_written(self.batch)}@{_written_sides(self.height, self.width)}"


class TacticSource(str, Enum):
    """Libraries whose kernels the builder may choose besides TensorRT's own."""

    CUBLAS = "cublas"
    CUBLAS_LT = "cublas-lt"
    CUDNN = "cudnn"


@dataclass(frozen=True)
class BuilderConfig:
    """What TensorRT's builder is configured with, whatever the graph and the GPU."""

    workspace: int | None = None
    """Largest scratch memory of a layer in MiB. By default all that the GPU has."""
    optimization_level: int | None = None
    """Builder optimisation level, 0 to 5: higher ones search longer for faster kernels."""
    version_compatible: bool = False
    """Let later TensorRT releases of the same major version load the engine."""
    hardware_compatibility: HardwareCompatibility = HardwareCompatibility.NONE
    """Other GPUs that a trt engine may run on, at the cost of speed."""
    aux_streams: int | None = None
    """Largest number of additional CUDA streams of one inference."""
    refit: bool = False
    """Let the engine's weights be replaced later."""
    strip_weights: bool = False
    """Leave the weights out of the engine; it must be refitted before it can run."""
    sparsity: bool = False
    """Use sparse kernels for weights with two zeros in every four."""
    dla: int | None = None
    """Core of the deep learning accelerator (Jetson) that runs what it can; the GPU runs the rest."""

    def __post_init__(self) -> None:
        if self.workspace is not None and self.workspace < 1:
            raise OptionError(f"the workspace is given in MiB, from 1: got {self.workspace}")
        if self.optimization_level is not None and self.optimization_level not in OPTIMIZATION_LEVELS:
            raise OptionError(f"the optimisation level is 0 to 5: got {self.optimization_level}")
        if self.aux_streams is not None and self.aux_streams < 0:
            raise OptionError(f"the number of auxiliary streams is 0 or more: got {self.aux_streams}")
        if self.dla is not None and self.dla < 0:
            raise OptionError(f"DLA cores are numbered from 0: got {self.dla}")


@dataclass(frozen=True)
class BuildOptions(BuilderConfig):
    """How an engine is built; what the TensorRT at hand does not offer is refused when the build begins."""

    variant: Variant = Variant.TENSORRT
    """TensorRT or TensorRT for RTX."""
    batch: DimensionRange | None = None
    """Batch sizes of the optimisation profile; None: 1 to 8, as far as the graph accepts them."""
    height: DimensionRange | None = None
    """Input heights of the profile in pixels; None: those of the network's test protocol."""
    width: DimensionRange | None = None
    """Input widths of the profile in pixels; None: those of the protocol."""
    profiles: tuple[ProfileShapes, ...] = ()
    """Further optimisation profiles; TensorRT chooses its kernels for each one's typical shape."""
    timing_cache: Path | None = None
    """File that keeps measured kernel times between builds (not for RTX, which measures nothing); None: no file."""
    compute_capabilities: tuple[str, ...] = ()
    """GPUs that RTX builds for, as ``"8.9"``; none: the GPU at hand."""
    device: int = 0
    """Number of the CUDA device to build on."""
    tactic_sources: tuple[TacticSource, ...] | None = None
    """Libraries whose kernels may be used besides TensorRT's own; the engine then needs them where it runs.

    Only TensorRT 8.5 to 10 offers them. None: those whose libraries can be loaded here.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, dimension in (("height", self.height), ("width", self.width)):
            if dimension is not None:
                check_multiples(name, dimension)
        for capability in self.compute_capabilities:
            if not re.fullmatch(r"\d+\.\d", capability):
                raise OptionError(f"a compute capability is written as 8.9: got {capability!r}")
        self._check_variant()

    def _check_variant(self) -> None:
        rtx = self.variant is Variant.RTX
        if rtx and (self.tactic_sources or self.dla is not None):
            raise OptionError(
                "TensorRT for RTX uses its own kernels on GPUs alone.\n"
                "  to do    leave --tactic-sources and --dla out, or use --backend trt"
            )
        if self.dla is not None and self.profiles:
            raise OptionError("a DLA core runs fixed shapes: leave --profile out and export without --dynamic")
        if self.compute_capabilities and not rtx:
            raise OptionError(
                "TensorRT builds for the GPU at hand; only TensorRT for RTX takes compute capabilities.\n"
                "  to do    use --backend trt-rtx, or leave --compute-capability out"
            )
        if rtx and self.hardware_compatibility is not HardwareCompatibility.NONE:
            raise OptionError(
                "TensorRT for RTX takes the GPUs to build for by name.\n"
                "  to do    list them: --compute-capability 8.6,8.9,12.0"
            )
        if rtx and self.timing_cache is not None:
            raise OptionError(
                "TensorRT for RTX measures no kernels when it builds, so that it has no timing cache.\n"
                "  to do    leave --timing-cache out"
            )

    def profile_shapes(self, contract: Contract) -> tuple[ProfileShapes, ...]:
        """The optimisation profiles for a graph of `contract`, the usual one first.

        What a graph accepts and what an engine covers are two things: a tensor of TensorRT holds at most 2^31 - 1
        elements, and its memory is taken for the largest shape of a profile.

        Raises:
            OptionError: a range goes beyond what the graph accepts.
        """
        usual = default_profile(contract)
        first = ProfileShapes(self.batch or usual.batch, self.height or usual.height, self.width or usual.width)
        for shapes in (first, *self.profiles):
            for name in ("batch", "height", "width"):
                chosen, accepted = getattr(shapes, name), getattr(contract, name)
                if chosen.min not in accepted or chosen.max not in accepted:
                    raise OptionError(
                        f"the graph accepts a {name} of {accepted}, not {chosen}.\n"
                        f"  to do    choose a {name} within {accepted}, or export the graph again with that range"
                    )
        return (first, *self.profiles)

    def narrowed(self, contract: Contract) -> Contract:
        """`contract` with the ranges that the optimisation profiles cover together.

        Raises:
            OptionError: a range goes beyond what the graph accepts.
        """
        return covering(contract, self.profile_shapes(contract))

    def to_dict(self) -> dict[str, Any]:
        """What shapes the engine, for the manifest and for comparing builds: all but the timing cache."""
        described = {name: value for name, value in asdict(self).items() if name not in ("timing_cache", "device")}
        # engines of earlier versions are recognised by this description, which knew less
        for name in ("profiles", "tactic_sources", "sparsity", "dla"):
            if described[name] == getattr(BuildOptions, name):
                del described[name]
        return described

    def command(self, graph: Path, out: Path, network: str | None = None) -> str:
        """The command line that builds this engine from the file `graph`; with `network`, a config, verifies it too."""
        words = ["ffnet-export", *(["--config", network, "--checkpoint", "CHECKPOINT"] if network else [])]
        words += ["--onnx", str(graph), "--backend", self.variant.value]
        if self.batch is not None:
            words += ["--batch", _written(self.batch)]
        if self.height is not None and self.width is not None:
            words += ["--shape", _written_sides(self.height, self.width)]
        for option, value in (
            ("--workspace", self.workspace),
            ("--optimization-level", self.optimization_level),
            ("--aux-streams", self.aux_streams),
            ("--compute-capability", ",".join(self.compute_capabilities) or None),
            ("--tactic-sources", None if self.tactic_sources is None else ",".join(self.tactic_sources) or "none"),
            ("--dla", self.dla),
            *(("--profile", shapes.as_option()) for shapes in self.profiles),
        ):
            words += [] if value is None else [option, str(value)]
        if self.hardware_compatibility is not HardwareCompatibility.NONE:
            words += ["--hardware-compatible", self.hardware_compatibility.value]
        for flag, chosen in (
            ("--version-compatible", self.version_compatible),
            ("--refit", self.refit),
            ("--strip-weights", self.strip_weights),
            ("--sparsity", self.sparsity),
        ):
            words += [flag] if chosen else []
        words += ["--device", str(self.device)] if self.device else []
        return shlex.join([*words, "--out", str(out)])


def default_profile(contract: Contract) -> ProfileShapes:
    """The ranges a graph was exported with; for ``--dynamic`` what its test protocol shows it, in batches of 1 to 8.

    Sliding windows are as large as the crop; a whole image that keeps its ratio may be as high or wide as the longer
    limit of the protocol's scale.
    """
    protocol = contract.protocol
    if protocol.mode == "slide" and protocol.crop is not None:
        height, width = protocol.crop
    elif protocol.keep_ratio:
        height = width = max(protocol.scale)
    else:
        width, height = protocol.scale

    def usual(accepted: DimensionRange, largest: int, anything: int) -> DimensionRange:
        if accepted.max < anything:  # chosen when the graph was exported
            return accepted
        high = max(accepted.min, min(largest, accepted.max))
        return DimensionRange(accepted.min, min(accepted.opt, high), high)

    return ProfileShapes(
        batch=usual(contract.batch, max(_USUAL_BATCH, contract.batch.opt), _ANY_BATCH),
        height=usual(contract.height, -(-height // STRIDE) * STRIDE, _ANY_SIDE),
        width=usual(contract.width, -(-width // STRIDE) * STRIDE, _ANY_SIDE),
    )


def covering(contract: Contract, profiles: Sequence[ProfileShapes]) -> Contract:
    """`contract` with the ranges that `profiles` cover together."""

    def hull(ranges: Sequence[DimensionRange]) -> DimensionRange:
        return DimensionRange(min(one.min for one in ranges), ranges[0].opt, max(one.max for one in ranges))

    return replace(
        contract,
        batch=hull([shapes.batch for shapes in profiles]),
        height=hull([shapes.height for shapes in profiles]),
        width=hull([shapes.width for shapes in profiles]),
    )


def _written(dimension: DimensionRange) -> str:
    return str(dimension.opt) if dimension.is_fixed else f"{dimension.min}:{dimension.opt}:{dimension.max}"


def _written_sides(height: DimensionRange, width: DimensionRange) -> str:
    sizes = [f"{getattr(height, part)}x{getattr(width, part)}" for part in ("min", "opt", "max")]
    return sizes[0] if len(set(sizes)) == 1 else ":".join(sizes)


@dataclass(frozen=True)
class BuildTarget:
    """Where an engine will run.

    Attributes:
        capabilities: Compute capabilities, as ``"8.9"``.
        gpu: Model of the GPU that it is built on; None when built without one.
        driver: Newest CUDA version that this GPU's driver knows, as CUDA codes it.
    """

    capabilities: tuple[str, ...]
    gpu: str | None = None
    driver: int | None = None


def find_target(options: BuildOptions) -> BuildTarget:
    """The GPU at hand, or for TensorRT for RTX those that `options` names.

    Raises:
        NoDeviceError: there is no GPU at hand, and none was named or can be.
        OptionError: this TensorRT for RTX does not build for a GPU that was named.
    """
    if options.compute_capabilities:
        named = tuple(dict.fromkeys(options.compute_capabilities))
        for capability in named:
            capability_value(load(options.variant), capability)
        return BuildTarget(named)
    try:
        device = find_device(options.device)
    except NoDeviceError as error:
        if options.variant is not Variant.RTX:
            raise
        raise NoDeviceError(f"{error}, or name the GPUs to build for: --compute-capability 8.6,8.9,12.0") from error
    target = BuildTarget((".".join(map(str, device.compute_capability)),), device.name, device.driver_version)
    if options.variant is Variant.RTX:
        capability_value(load(options.variant), target.capabilities[0])
    return target


def capability_value(trt: Any, capability: str) -> Any:
    """TensorRT for RTX's name of a compute capability.

    Raises:
        OptionError: this version does not build for it.
    """
    value = feature(trt, f"ComputeCapability.SM{capability.replace('.', '')}")
    if value is None:
        names = [name[2:] for name in dir(feature(trt, "ComputeCapability")) if name.startswith("SM")]
        known = sorted((f"{name[:-1]}.{name[-1]}" for name in names), key=float)
        raise OptionError(
            f"TensorRT for RTX {trt.__version__} does not build for compute capability {capability}; "
            f"it knows {', '.join(known)}.\n  to do    choose among these, or use --backend trt on that GPU"
        )
    return value
