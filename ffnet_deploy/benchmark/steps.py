"""One sample: the call of an engine, with or without what comes before and after it."""

from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.benchmark.interleaved import Step
from ffnet_deploy.benchmark.outputs import label_maps
from ffnet_deploy.benchmark.record import Setting, TimingMethod, TimingScope
from ffnet_deploy.core.closing import Closing
from ffnet_deploy.core.contract import Contract, DimensionRange, check_multiples
from ffnet_deploy.core.errors import DataError, OptionError
from ffnet_deploy.engines.cuda import Cuda, CudaError, DeviceArray
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.evaluation.preprocessing import network_input, resize_image

if TYPE_CHECKING:
    from ffnet_deploy.engines.tensorrt.runner import TensorRTEngine


@runtime_checkable
class DeviceTimedEngine(Protocol):
    """An engine that can run on input which already lies in its device's memory."""

    def device_step(self, batch: NDArray[np.generic], queue: int) -> Step:
        """A call that runs the network on `batch`, copied to the device beforehand, and leaves the output there.

        It runs the network `queue` times in a row, waits until the device is done, and gives the time of one run on the
        device in milliseconds by its events; None where it has none. It may have a method `close`.
        """
        ...


@runtime_checkable
class PinnedEngine(Protocol):
    """An engine that takes its input from page-locked host memory and leaves its output there."""

    def pinned_step(self, batch: NDArray[np.generic], queue: int) -> Step:
        """A call that runs the network on `batch`, laid into that memory beforehand, `queue` times in a row.

        The copies to and from the device are part of it. It may have a method `close`.
        """
        ...


@dataclass(frozen=True)
class Picture:
    """The image that is timed with: encoded, as a camera or a disk delivers it.

    Attributes:
        encoded: Bytes of a JPEG or PNG file.
        name: Name of the file or sample that it is from.
    """

    encoded: bytes
    name: str

    def decoded(self) -> NDArray[np.uint8]:
        """The image, uint8 (height, width, 3), BGR.

        Raises:
            DataError: the bytes are no image.
        """
        image = cv2.imdecode(np.frombuffer(self.encoded, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise DataError(f"{self.name} cannot be decoded as an image.\n  to do    give a JPEG or PNG file")
        return np.asarray(image, dtype=np.uint8)


def check_setting(contract: Contract, setting: Setting, name: str) -> None:
    """Raise `OptionError`, naming what is accepted, unless a candidate with `contract` takes inputs of `setting`."""
    for what, dimension, value in (
        ("batch", contract.batch, setting.batch),
        ("height", contract.height, setting.height),
        ("width", contract.width, setting.width),
    ):
        if value not in dimension:
            raise OptionError(
                f"{name} accepts a {what} of {dimension}, not {value}.\n"
                "  to do    choose another --batch or --shape, or export it with a range that holds it"
            )
    check_multiples("height", DimensionRange.fixed(setting.height))
    check_multiples("width", DimensionRange.fixed(setting.width))


def batch_of(picture: Picture, contract: Contract, setting: Setting) -> NDArray[np.generic]:
    """The network's input: `picture` at the setting's size, as often as its batch says."""
    shown = resize_image(picture.decoded(), (setting.height, setting.width))
    return network_input(np.stack([shown] * setting.batch), contract)


def make_step(engine: Engine, method: TimingMethod, setting: Setting, picture: Picture) -> Step:
    """One sample of `engine`: a call that is complete when it returns."""
    contract, size, queue = engine.contract, (setting.height, setting.width), method.queue
    batch = batch_of(picture, contract, setting)
    if method.scope is TimingScope.NETWORK and isinstance(engine, DeviceTimedEngine):
        return engine.device_step(batch, queue)
    if method.scope is TimingScope.DEVICE and isinstance(engine, PinnedEngine):
        return engine.pinned_step(batch, queue)
    image = picture.decoded()

    def call() -> None:
        for _ in range(queue):
            engine.run(batch)

    def from_images(images: list[NDArray[np.uint8]]) -> None:
        shown = np.stack([resize_image(one, size) for one in images])
        label_maps(engine.run(network_input(shown, contract)), contract, image.shape[:2])

    def end_to_end() -> None:
        from_images([image] * setting.batch)

    def from_file() -> None:
        from_images([picture.decoded() for _ in range(setting.batch)])

    return {TimingScope.END_TO_END: end_to_end, TimingScope.FILE: from_file}.get(method.scope, call)


class TensorRTOnDevice(Closing):
    """A `TensorRTEngine` that is also a `DeviceTimedEngine` and a `PinnedEngine`.

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
        """See `DeviceTimedEngine`."""
        return DeviceStep(self._engine, Cuda(self._device), batch, queue)

    def pinned_step(self, batch: NDArray[np.generic], queue: int) -> Step:
        """See `PinnedEngine`."""
        return PinnedStep(self._engine, batch, queue)

    def close(self) -> None:
        """Release the engine; calling it twice is harmless."""
        self._engine.close()


class PinnedStep:
    """Runs an engine on one batch in page-locked memory, `queue` times in a row, with the copies up and down."""

    def __init__(self, engine: "TensorRTEngine", batch: NDArray[np.generic], queue: int) -> None:
        self._held, self._queue = ExitStack(), queue
        pinned = self._held.enter_context(engine.pinned(batch.shape))
        pinned.input[...] = batch
        self._run = pinned.run

    def __call__(self) -> None:
        """The runs, complete on return."""
        for _ in range(self._queue):
            self._run()

    def close(self) -> None:
        """Give the engine's context back."""
        self._held.close()


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
