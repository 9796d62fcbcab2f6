"""Memory that grows to the largest batch seen and is kept: on the device, and page-locked on the host."""

import ctypes

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ffnet_deploy.engines.cuda import Cuda


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

    def view(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
        """The first bytes as an array of `shape`; it must not be used after `reserve` or `release`."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        content = (ctypes.c_uint8 * size).from_address(self.address)
        array: NDArray[np.generic] = np.ndarray(shape, np.dtype(dtype), buffer=memoryview(content))
        return array

    def _allocate(self, size: int) -> int:
        return self._cuda.allocate_pinned(size)

    def _free(self, address: int) -> None:
        self._cuda.free_pinned(address)
