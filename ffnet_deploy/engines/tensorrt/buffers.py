"""Memory that a batch passes through: device buffers, page-locked host buffers, and callers' tensors on the GPU."""

import ctypes
import sys
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.engines.cuda import Cuda, DeviceArray
from ffnet_deploy.engines.tensorrt.tensors import Shape


class DeviceBuffer:
    """Memory on the device; `address` is 0 while there is none."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self.address = 0
        self.capacity = 0

    def reserve(self, size: int) -> bool:
        """Hold at least `size` bytes; whether that took new memory, at another address and without the old content.

        Nothing may be using the buffer. What is held already is given back first: both might not fit at once.

        Raises:
            CudaError: no room is left; the buffer is empty then.
        """
        if size <= self.capacity:
            return False
        self.release()
        self.address = self._allocate(size)
        self.capacity = size
        return True

    def release(self) -> None:
        """Give the memory back; calling it twice is harmless."""
        address, self.address, self.capacity = self.address, 0, 0
        if address:
            self._free(address)

    def _allocate(self, size: int) -> int:
        return self._cuda.allocate(size)

    def _free(self, address: int) -> None:
        self._cuda.free(address)


class PinnedBuffer(DeviceBuffer):
    """Page-locked memory on the host, which the device copies from and to while the host goes on."""

    _view: NDArray[np.generic] | None = None

    def view(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
        """The first bytes as an array of `shape`; it must not be used after `reserve` or `release`."""
        kept = self._view
        if kept is not None and kept.shape == shape and kept.dtype == dtype:
            return kept
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        content = (ctypes.c_uint8 * size).from_address(self.address)
        array: NDArray[np.generic] = np.ndarray(shape, np.dtype(dtype), buffer=memoryview(content))
        self._view = array
        return array

    def release(self) -> None:
        """Give the memory back; calling it twice is harmless."""
        self._view = None
        super().release()

    def _allocate(self, size: int) -> int:
        return self._cuda.allocate_pinned(size)

    def _free(self, address: int) -> None:
        self._cuda.free_pinned(address)


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
    torch = _torch(tensor)
    known = None if torch is None else getattr(tensor.device, "index", None)
    device = known if isinstance(known, int) else cuda.device_of(array.address)
    if device != cuda.device.index:
        raise OptionError(f"the tensor is on CUDA device {device}, and the engine on {cuda.device.index}")
    # PyTorch's interface leaves the stream out
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
