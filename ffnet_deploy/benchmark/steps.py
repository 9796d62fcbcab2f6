"""What one sample holds: the call of an engine, with or without what comes before and after it."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.benchmark.method import Step
from ffnet_deploy.benchmark.outputs import label_maps
from ffnet_deploy.benchmark.record import Content, Method, Setting
from ffnet_deploy.core.contract import Contract, DimensionRange, check_multiples
from ffnet_deploy.core.errors import DataError, OptionError
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.evaluation.preprocessing import network_input, resize_image


@runtime_checkable
class DeviceEngine(Protocol):
    """An engine that can run on input which already lies in its device's memory."""

    def device_step(self, batch: NDArray[np.generic], queue: int) -> Step:
        """A call that runs the network on `batch`, copied to the device beforehand, and leaves the output there.

        It runs the network `queue` times in a row, waits until the device is done, and gives the time of one run on the
        device in milliseconds by its events; None where it has none. It may have a method `close`.
        """
        ...


@dataclass(frozen=True)
class Picture:
    """The image that is timed with: encoded, as a camera or a disk delivers it.

    Attributes:
        encoded: bytes of a JPEG or PNG file.
        name: where it is from.
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
    """Raise `OptionError`, naming what is accepted, unless a contender with `contract` takes inputs of `setting`."""
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


def make_step(engine: Engine, method: Method, setting: Setting, picture: Picture) -> Step:
    """One sample of `engine`: a call that is complete when it returns."""
    if method.content is Content.END_TO_END:
        return _end_to_end(engine, setting, picture)
    batch = batch_of(picture, engine.contract, setting)
    if method.content is Content.NETWORK and isinstance(engine, DeviceEngine):
        return engine.device_step(batch, method.queue)
    return _call(engine, batch, method.queue)


def _call(engine: Engine, batch: NDArray[np.generic], queue: int) -> Step:
    def step() -> None:
        for _ in range(queue):
            engine.run(batch)

    return step


def _end_to_end(engine: Engine, setting: Setting, picture: Picture) -> Step:
    size = (setting.height, setting.width)

    def step() -> None:
        images = [picture.decoded() for _ in range(setting.batch)]
        batch = network_input(np.stack([resize_image(image, size) for image in images]), engine.contract)
        label_maps(engine.run(batch), engine.contract, images[0].shape[:2])

    return step
