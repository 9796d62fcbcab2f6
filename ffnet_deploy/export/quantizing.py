"""Quantised graphs as an export asks for them: images read as they are needed, and the calibration's options."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import onnx
from numpy.typing import NDArray

from ffnet_deploy.contract import Contract
from ffnet_deploy.errors import DataError, OptionError
from ffnet_deploy.evaluation.datasets import Sample, open_images
from ffnet_deploy.evaluation.images import read_image
from ffnet_deploy.export.verify import NamedImage, input_batch
from ffnet_deploy.precision import Target

DEFAULT_COUNT = 128
"""Images to calibrate on where no number is asked for and the folder holds as many."""


@dataclass(frozen=True)
class Calibration:
    """What a quantised graph is calibrated on, and how.

    Attributes:
        images: folder of images.
        count: images to take, spread evenly over the folder by name; None: `DEFAULT_COUNT` or all there are.
        method: name of the calibration method; None: the calibration's own default.
        ranges: JSON file of ranges to use again, or to write; None: they are not kept.
    """

    images: Path | None = None
    count: int | None = None
    method: str | None = None
    ranges: Path | None = None

    def __post_init__(self) -> None:
        if self.images is None:
            raise OptionError(
                "a quantised graph needs images to calibrate on.\n"
                "  to do    give a folder of images like those the network will see: --calib-images DIR"
            )
        if self.count is not None and self.count < 1:
            raise OptionError(f"--calib-count takes a number of images from 1: got {self.count}")


class FolderInputs(Sequence[NDArray[np.generic]]):
    """Images of a folder as network inputs of a contract's typical size, read when they are asked for.

    Raises:
        DataError: the folder holds no images, or fewer than asked for.
    """

    def __init__(self, calibration: Calibration, contract: Contract) -> None:
        found = open_images(calibration.images or Path()).samples
        if calibration.count is not None and len(found) < calibration.count:
            raise DataError(
                f"{calibration.images} holds {len(found)} images, and {calibration.count} were asked for.\n"
                "  to do    give a folder with more images, or a smaller --calib-count"
            )
        self.samples = _spread(found, calibration.count or min(DEFAULT_COUNT, len(found)))
        self._contract = contract

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.generic]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[NDArray[np.generic]]: ...

    def __getitem__(self, index: int | slice) -> NDArray[np.generic] | Sequence[NDArray[np.generic]]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        sample, contract = self.samples[index], self._contract
        image = NamedImage(sample.name, read_image(sample.image))
        return input_batch([image] * contract.batch.min, (contract.height.opt, contract.width.opt), contract)


def _spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """`count` of `samples`, evenly spaced."""
    return [samples[index * len(samples) // count] for index in range(count)]


def quantized(
    model: onnx.ModelProto,
    contract: Contract,
    target: Target,
    calibration: Calibration,
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """`model` with Q/DQ nodes as the calibration chooses them."""
    from ffnet_deploy.calib import CalibrationOptions, Method, quantize_graph

    chosen = {} if calibration.method is None else {"method": Method(calibration.method)}
    options = CalibrationOptions(precision=target.precision, **chosen)
    return quantize_graph(model, FolderInputs(calibration, contract), options, progress)
