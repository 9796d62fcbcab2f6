"""The GPUs that an engine is built for."""

from dataclasses import dataclass
from typing import Any

from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.engines.cuda import NoDeviceError, find_device
from ffnet_deploy.engines.tensorrt.flavour import Flavour, feature, load
from ffnet_deploy.engines.tensorrt.options import BuildOptions


@dataclass(frozen=True)
class Target:
    """Where an engine will run.

    Attributes:
        capabilities: compute capabilities, as ``"8.9"``.
        gpu: model of the GPU that it is built on; None when built without one.
        driver: newest CUDA version that this GPU's driver knows, as CUDA codes it.
    """

    capabilities: tuple[str, ...]
    gpu: str | None = None
    driver: int | None = None


def find_target(options: BuildOptions) -> Target:
    """The GPU at hand, or for TensorRT for RTX those that `options` names.

    Raises:
        NoDeviceError: there is no GPU at hand, and none was named or can be.
        OptionError: this TensorRT for RTX does not build for a GPU that was named.
    """
    if options.compute_capabilities:
        named = tuple(dict.fromkeys(options.compute_capabilities))
        for capability in named:
            capability_value(load(options.flavour), capability)
        return Target(named)
    try:
        device = find_device(options.device)
    except NoDeviceError as error:
        if options.flavour is not Flavour.RTX:
            raise
        raise NoDeviceError(f"{error}, or name the GPUs to build for: --compute-capability 8.6,8.9,12.0") from error
    target = Target((".".join(map(str, device.compute_capability)),), device.name, device.driver_version)
    if options.flavour is Flavour.RTX:
        capability_value(load(options.flavour), target.capabilities[0])
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
