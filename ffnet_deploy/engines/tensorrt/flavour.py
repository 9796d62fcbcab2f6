"""One way to TensorRT 8.5 to 11 and to TensorRT for RTX: by what a version offers, never by its number."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

from ffnet_deploy.core.errors import MissingPackageError
from ffnet_deploy.core.optional import optional


class Flavour(str, Enum):
    """Which of NVIDIA's two engine builders; the value is the name of the command line's ``--backend``."""

    TENSORRT = "trt"
    RTX = "trt-rtx"

    @property
    def module(self) -> str:
        """Import name of its Python bindings."""
        return "tensorrt" if self is Flavour.TENSORRT else "tensorrt_rtx"

    @property
    def extra(self) -> str:
        """The extra of this project that installs it."""
        return "tensorrt" if self is Flavour.TENSORRT else "rtx"

    @property
    def label(self) -> str:
        """Its name, for people."""
        return "TensorRT" if self is Flavour.TENSORRT else "TensorRT for RTX"

    @property
    def suffix(self) -> str:
        """How the names of its engine files end."""
        return ".engine" if self is Flavour.TENSORRT else ".rtx.engine"


def load(flavour: Flavour) -> Any:
    """The Python module of `flavour`.

    Importing it needs no GPU; creating its `Runtime`, or `tensorrt`'s `Builder`, without one may end the process:
    `engines.cuda.find_device` comes first.

    Raises:
        MissingPackageError: it is not installed, or its libraries cannot be loaded.
    """
    try:
        return optional(flavour.module, extra=flavour.extra, purpose=f"{flavour.label} engines")
    except MissingPackageError:
        raise
    except (OSError, RuntimeError) as error:  # its own loader gives up on a library
        raise MissingPackageError(
            f"{flavour.label} is installed but its libraries cannot be loaded ({error}).\n"
            f"  to do    pip install --force-reinstall 'ffnet-deploy[{flavour.extra}]'"
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
    """Whether networks of this version take their types from the graph; below 10 flags merely permit them."""
    return has(trt, "NetworkDefinitionCreationFlag.STRONGLY_TYPED")


@dataclass(frozen=True)
class Message:
    """A line that TensorRT logged.

    Attributes:
        severity: ``"INTERNAL_ERROR"``, ``"ERROR"``, ``"WARNING"`` or ``"INFO"``.
        text: the line.
    """

    severity: str
    text: str

    @property
    def is_error(self) -> bool:
        """Whether something failed."""
        return self.severity in ("ERROR", "INTERNAL_ERROR")


@cache
def logger(trt: Any) -> Any:
    """The one logger of the module `trt`: TensorRT keeps the first it is given. Read it with `listen`."""

    class Log(trt.ILogger):  # type: ignore[misc]  # the base is known only at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.listeners: list[list[Message]] = []
            self.lock = threading.Lock()

        def log(self, severity: Any, text: str) -> None:
            name = str(severity).rpartition(".")[2]
            if name == "VERBOSE":
                return
            with self.lock:
                for listener in self.listeners:
                    listener.append(Message(name, text))

    return Log()


@contextmanager
def listen(trt: Any) -> Iterator[list[Message]]:
    """A list that grows by every line, but verbose ones, that TensorRT logs while the block runs."""
    log, messages = logger(trt), list[Message]()
    with log.lock:
        log.listeners.append(messages)
    try:
        yield messages
    finally:
        with log.lock:
            log.listeners = [listener for listener in log.listeners if listener is not messages]
