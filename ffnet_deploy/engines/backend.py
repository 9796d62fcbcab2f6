"""What can run a network, and on which device."""

from enum import Enum
from pathlib import Path

from ffnet_deploy.core.errors import OptionError


class Backend(str, Enum):
    """What runs a network; the value is what ``--backend`` takes, in every command."""

    TORCH = "torch"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    TENSORRT = "trt"
    TENSORRT_RTX = "trt-rtx"

    @property
    def label(self) -> str:
        """Its name, for people."""
        return {
            Backend.TORCH: "PyTorch",
            Backend.ONNXRUNTIME: "ONNX Runtime",
            Backend.OPENVINO: "OpenVINO",
            Backend.TENSORRT: "TensorRT",
            Backend.TENSORRT_RTX: "TensorRT for RTX",
        }[self]

    @property
    def runs_graphs(self) -> bool:
        """Whether it runs ONNX files as they are."""
        return self in (Backend.ONNXRUNTIME, Backend.OPENVINO)

    @property
    def runs_engines(self) -> bool:
        """Whether what it runs was built for one GPU."""
        return self in (Backend.TENSORRT, Backend.TENSORRT_RTX)


class Provider(str, Enum):
    """An execution provider of ONNX Runtime; what TensorRT or CUDA cannot run, the next one does."""

    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


def backend_of(artifact: Path | None) -> Backend:
    """The backend that runs `artifact` by default, by its name; PyTorch where there is none."""
    if artifact is None:
        return Backend.TORCH
    if artifact.name.endswith(".rtx.engine"):
        return Backend.TENSORRT_RTX
    return Backend.TENSORRT if artifact.suffix == ".engine" else Backend.ONNXRUNTIME


def gpu_index(device: str, runner: str = "the network") -> int | None:
    """Number of the GPU in ``"cuda"`` or ``"cuda:1"``; None for ``"cpu"``.

    Args:
        device: what ``--device`` was given.
        runner: what would run there, for the message.

    Raises:
        OptionError: the text is none of these.
    """
    kind, colon, index = device.strip().lower().partition(":")
    if kind == "cpu" and not colon:
        return None
    if kind != "cuda" or (colon and not index.isdecimal()):
        raise OptionError(f"{runner} can run on cpu, cuda or cuda:N, not {device!r}")
    return int(index or 0)
