"""TensorRT 8.5 to 11 and TensorRT for RTX behind one door: by what a version offers, never by its number."""

from enum import Enum
from typing import Any

from ffnet_deploy.core.errors import MissingPackageError
from ffnet_deploy.core.optional import install_command, optional
from ffnet_deploy.engines.backend import Backend


class Variant(str, Enum):
    """Which of NVIDIA's two engine builders; the value is that of its `Backend`."""

    TENSORRT = "trt"
    RTX = "trt-rtx"

    @property
    def module(self) -> str:
        """Import name of its Python bindings."""
        return "tensorrt" if self is Variant.TENSORRT else "tensorrt_rtx"

    @property
    def extra(self) -> str:
        """The extra of this project that installs it."""
        return "tensorrt" if self is Variant.TENSORRT else "rtx"

    @property
    def label(self) -> str:
        """Its name, for people."""
        return Backend(self.value).label

    @property
    def suffix(self) -> str:
        """How the names of its engine files end."""
        return ".engine" if self is Variant.TENSORRT else ".rtx.engine"


def load(variant: Variant) -> Any:
    """The Python module of `variant`.

    Importing it needs no GPU; creating its `Runtime`, or `tensorrt`'s `Builder`, without one may end the process:
    `engines.cuda.find_device` comes first.

    Raises:
        MissingPackageError: it is not installed, or its libraries cannot be loaded.
    """
    try:
        return optional(variant.module, extra=variant.extra, purpose=f"{variant.label} engines")
    except MissingPackageError:
        raise
    except (OSError, RuntimeError) as error:  # its own loader gives up on a library
        raise MissingPackageError(
            f"{variant.label} is installed but its libraries cannot be loaded ({error}).\n"
            f"  to do    {install_command(variant.extra)} --force-reinstall"
        ) from error


def has(owner: Any, path: str) -> bool:
    """Whether this version offers `path`, dotted, on `owner`: for instance ``has(trt, "BuilderFlag.FP16")``."""
    for name in path.split("."):
        if not hasattr(owner, name):
            return False
        owner = getattr(owner, name)
    return True


def feature(owner: Any, path: str) -> Any:
    """What `path`, dotted, names on `owner`; None where this version has no such name."""
    for name in path.split("."):
        owner = getattr(owner, name, None)
    return owner


def is_strongly_typed(trt: Any) -> bool:
    """Whether networks of this version take their types from the graph; below 10 builder flags merely allow them."""
    return has(trt, "NetworkDefinitionCreationFlag.STRONGLY_TYPED")
