"""How an engine is built, and for which GPUs."""

import re
import shlex
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from ffnet_deploy.core.contract import Contract, DimensionRange, check_multiples
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.engines.cuda import NoDeviceError, find_device
from ffnet_deploy.engines.tensorrt.variant import Variant, feature, load

OPTIMIZATION_LEVELS = range(6)
"""TensorRT's optimisation levels: higher ones search longer for faster kernels; 3 is its default."""


class HardwareCompatibility(str, Enum):
    """On which other GPUs an engine may run; all but `NONE` cost speed."""

    NONE = "none"
    """Only on the GPU model that it was built on."""
    SAME_COMPUTE_CAPABILITY = "same-compute-capability"
    """On GPUs of the same compute capability."""
    AMPERE_PLUS = "ampere-plus"
    """On GPUs of compute capability 8.0 and above."""


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built; what the TensorRT at hand does not offer is refused when the build begins.

    Attributes:
        variant: TensorRT or TensorRT for RTX.
        batch: batch sizes of the optimisation profile; None: those of the graph's contract.
        height: input heights of the profile, pixels; None: the contract's.
        width: input widths of the profile, pixels; None: the contract's.
        workspace: most scratch memory of a layer, MiB; None: all that the GPU has.
        optimization_level: 0 to 5; None: TensorRT's default.
        timing_cache: file that keeps measured kernel times between builds (not for RTX, which measures nothing);
            None: no such file.
        version_compatible: let later TensorRT releases of the same major version load the engine.
        hardware_compatibility: on which other GPUs it may run (RTX: name compute capabilities instead).
        aux_streams: most additional CUDA streams of one inference; None: TensorRT's choice.
        refit: allow the weights to be replaced later.
        strip_weights: leave the weights out of the file; they must be refitted before it can run.
        compute_capabilities: for RTX, the GPUs to build for, as ``"8.9"``; none: the GPU at hand.
        device: number of the CUDA device to build on.
    """

    variant: Variant = Variant.TENSORRT
    batch: DimensionRange | None = None
    height: DimensionRange | None = None
    width: DimensionRange | None = None
    workspace: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware_compatibility: HardwareCompatibility = HardwareCompatibility.NONE
    aux_streams: int | None = None
    refit: bool = False
    strip_weights: bool = False
    compute_capabilities: tuple[str, ...] = ()
    device: int = 0

    def __post_init__(self) -> None:
        for name, dimension in (("height", self.height), ("width", self.width)):
            if dimension is not None:
                check_multiples(name, dimension)
        if self.workspace is not None and self.workspace < 1:
            raise OptionError(f"the workspace is given in MiB, from 1: got {self.workspace}")
        if self.optimization_level is not None and self.optimization_level not in OPTIMIZATION_LEVELS:
            raise OptionError(f"the optimisation level is 0 to 5: got {self.optimization_level}")
        if self.aux_streams is not None and self.aux_streams < 0:
            raise OptionError(f"the number of auxiliary streams is 0 or more: got {self.aux_streams}")
        for capability in self.compute_capabilities:
            if not re.fullmatch(r"\d+\.\d", capability):
                raise OptionError(f"a compute capability is written as 8.9: got {capability!r}")
        self._check_variant()

    def _check_variant(self) -> None:
        rtx = self.variant is Variant.RTX
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

    def narrowed(self, contract: Contract) -> Contract:
        """`contract` with the ranges of the profile.

        Raises:
            OptionError: a range goes beyond what the graph accepts.
        """
        chosen = {name: getattr(self, name) or getattr(contract, name) for name in ("batch", "height", "width")}
        for name, dimension in chosen.items():
            accepted = getattr(contract, name)
            if dimension.min not in accepted or dimension.max not in accepted:
                raise OptionError(
                    f"the graph accepts a {name} of {accepted}, not {dimension}.\n"
                    f"  to do    choose a {name} within {accepted}, or export the graph again with that range"
                )
        return replace(contract, **chosen)

    def to_dict(self) -> dict[str, Any]:
        """What shapes the engine, for the manifest and for comparing builds: all but the timing cache."""
        described = {name: value for name, value in asdict(self).items() if name not in ("timing_cache", "device")}
        # engines of earlier versions are recognised by this description
        return {"flavour": described.pop("variant"), **described}

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
        ):
            words += [] if value is None else [option, str(value)]
        if self.hardware_compatibility is not HardwareCompatibility.NONE:
            words += ["--hardware-compatible", self.hardware_compatibility.value]
        for flag, chosen in (
            ("--version-compatible", self.version_compatible),
            ("--refit", self.refit),
            ("--strip-weights", self.strip_weights),
        ):
            words += [flag] if chosen else []
        words += ["--device", str(self.device)] if self.device else []
        return shlex.join([*words, "--out", str(out)])


def _written(dimension: DimensionRange) -> str:
    return str(dimension.opt) if dimension.is_fixed else f"{dimension.min}:{dimension.opt}:{dimension.max}"


def _written_sides(height: DimensionRange, width: DimensionRange) -> str:
    sizes = [f"{getattr(height, part)}x{getattr(width, part)}" for part in ("min", "opt", "max")]
    return sizes[0] if len(set(sizes)) == 1 else ":".join(sizes)


@dataclass(frozen=True)
class BuildTarget:
    """Where an engine will run.

    Attributes:
        capabilities: compute capabilities, as ``"8.9"``.
        gpu: model of the GPU that it is built on; None when built without one.
        driver: newest CUDA version that this GPU's driver knows, as CUDA codes it.
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
