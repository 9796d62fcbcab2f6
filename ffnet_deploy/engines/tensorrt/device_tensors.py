"""Tensors that are in GPU memory already, PyTorch's above all, without importing any of the packages they come from."""

import sys
from dataclasses import replace
from typing import Any

import numpy as np

from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.engines.cuda import Cuda, DeviceArray
from ffnet_deploy.engines.tensorrt.tensors import Shape

_ALIGNMENT = 256
"""Bytes to whose multiples TensorRT wants tensors aligned."""


def check_tensor(tensor: Any, dtype: np.dtype[Any], cuda: Cuda, shape: Shape | None = None) -> DeviceArray:
    """The memory of `tensor`, with the stream that it is written on.

    Raises:
        OptionError: it is not of `dtype` or `shape`, not packed, not aligned, or not on the device of `cuda`.
    """
    array = DeviceArray.of(tensor)
    if np.dtype(array.typestr) != dtype:
        raise OptionError(f"the network takes and gives {dtype} tensors, not {np.dtype(array.typestr)}")
    if shape is not None and array.shape != shape:
        raise OptionError(f"the output has the shape {shape}, and the tensor for it {array.shape}")
    if array.address % _ALIGNMENT:
        raise OptionError(
            f"the tensor begins at an address that is not a multiple of {_ALIGNMENT} bytes, as a part of another one "
            "does.\n  to do    give a copy (PyTorch: tensor.clone())"
        )
    device = cuda.device_of(array.address)
    if device != cuda.device.index:
        raise OptionError(f"the tensor is on CUDA device {device}, and the engine on {cuda.device.index}")
    torch = _torch(tensor)  # its interface leaves the stream out
    return array if torch is None else replace(array, stream=int(torch.cuda.current_stream(device).cuda_stream))


def new_output(tensor: Any, shape: Shape, dtype: np.dtype[Any]) -> Any:
    """An uninitialised PyTorch tensor beside `tensor`.

    Raises:
        OptionError: `tensor` is not PyTorch's.
    """
    torch = _torch(tensor)
    if torch is None:
        raise OptionError(
            f"cannot make a {type(tensor).__name__} for the output.\n"
            f"  to do    pass out=, of shape {shape} and type {dtype}, in GPU memory"
        )
    return torch.empty(shape, dtype=getattr(torch, dtype.name), device=tensor.device)


def _torch(tensor: Any) -> Any:
    """PyTorch, where `tensor` is one of its tensors, so that it is imported already; else None."""
    classes = {kind.__module__.partition(".")[0] for kind in type(tensor).__mro__}
    return sys.modules.get("torch") if "torch" in classes else None
