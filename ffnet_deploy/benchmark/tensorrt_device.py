"""A TensorRT engine timed on input that lies in the GPU's memory already."""

from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.benchmark.method import Step
from ffnet_deploy.engines.cuda import Cuda, CudaError, DeviceArray

if TYPE_CHECKING:
    from ffnet_deploy.engines.tensorrt.runner import TensorRTEngine


class TensorRTOnDevice:
    """A `TensorRTEngine` that is also a `DeviceEngine`.

    Args:
        engine: closed together with this.
        device: number of the GPU it is on.
    """

    def __init__(self, engine: "TensorRTEngine", device: int = 0) -> None:
        self._engine = engine
        self._device = device
        self.contract, self.name, self.precision = engine.contract, engine.name, getattr(engine, "precision", None)

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of its results."""
        return self._engine.notes

    def run(self, batch: NDArray[np.generic]) -> NDArray[np.generic]:
        """The network's output for `batch`, copies to and from the GPU included."""
        return self._engine.run(batch)

    def device_step(self, batch: NDArray[np.generic], queue: int) -> Step:
        """See `DeviceEngine`."""
        return DeviceStep(self._engine, Cuda(self._device), batch, queue)

    def close(self) -> None:
        """Release the engine; calling it twice is harmless."""
        self._engine.close()

    def __enter__(self) -> "TensorRTOnDevice":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class DeviceStep:
    """Runs an engine on one batch in the GPU's memory, `queue` times in a row, between two events of a stream."""

    def __init__(self, engine: "TensorRTEngine", cuda: Cuda, batch: NDArray[np.generic], queue: int) -> None:
        self._engine, self._cuda, self._queue = engine, cuda, queue
        output = engine.run(batch)
        cuda.use()
        self._stream = cuda.create_stream()
        self._begin, self._end = cuda.create_event(timing=True), cuda.create_event(timing=True)
        self._input = self._array(batch)
        self._output = self._array(output)
        self._upload(batch)

    def _array(self, like: NDArray[np.generic]) -> DeviceArray:
        return DeviceArray(self._cuda.allocate(like.nbytes), like.shape, like.dtype.str, int(self._stream))

    def _upload(self, batch: NDArray[np.generic]) -> None:
        batch = np.ascontiguousarray(batch)
        self._cuda.upload(self._input.address, batch.ctypes.data, batch.nbytes, self._stream)
        self._cuda.synchronize(self._stream)

    def __call__(self) -> float:
        """Milliseconds of one run by the GPU's events."""
        cuda = self._cuda
        cuda.record(self._begin, self._stream)
        for _ in range(self._queue):
            self._engine.run_device(self._input, self._output)
        cuda.record(self._end, self._stream)
        cuda.wait_on_host(self._end)
        return cuda.elapsed(self._begin, self._end) / self._queue

    def close(self) -> None:
        """Release memory, stream and events."""
        cuda = self._cuda
        for release, what in (
            (cuda.synchronize, self._stream),
            (cuda.free, self._input.address),
            (cuda.free, self._output.address),
            (cuda.destroy_event, self._begin),
            (cuda.destroy_event, self._end),
            (cuda.destroy_stream, self._stream),
        ):
            with suppress(CudaError):  # of a device that vanished nothing can be released
                release(what)
