"""Images as the network wants them, bit for bit as MMSegmentation's test pipeline prepares them."""

from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.contract import Contract, InputKind, Normalization, TestProtocol
from ffnet_deploy.core.errors import DataError
from ffnet_deploy.engines.engine import input_type


def rescaled_size(height: int, width: int, scale: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the largest image of the same shape whose sides fit the (long, short) limits `scale`.

    Rounds as the keep-ratio ``Resize`` does: half up, each side by itself.

    Raises:
        DataError: the shorter side would vanish.
    """
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    resized = int(height * factor + 0.5), int(width * factor + 0.5)
    if min(resized) < 1:
        raise DataError(
            f"an image of {width}x{height} (width x height) is too narrow: fitted into {max(scale)}x{min(scale)} "
            "its shorter side would have no pixel left.\n  to do    leave it out, or crop it"
        )
    return resized


def enlarged_size(height: int, width: int, divisor: int) -> tuple[int, int]:
    """(height, width) enlarged to multiples of `divisor`."""
    return ceil(height / divisor) * divisor, ceil(width / divisor) * divisor


def scaled_protocol_size(height: int, width: int, protocol: TestProtocol, ratio: float = 1.0) -> tuple[int, int]:
    """(height, width) at which `protocol` shows an image to the network; `ratio` scales the protocol's limits.

    Raises:
        DataError: a side would vanish.
    """
    return enlarged_size(*_first_size(height, width, protocol, ratio), protocol.divisor)


def _first_size(height: int, width: int, protocol: TestProtocol, ratio: float) -> tuple[int, int]:
    """(height, width) before the enlargement to multiples."""
    long, short = (max(int(side * ratio), 1) for side in protocol.scale)
    return rescaled_size(height, width, (long, short)) if protocol.keep_ratio else (short, long)


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """`image`, uint8 (height, width, 3), bilinearly resized to `size` (height, width)."""
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def resize_for_test(image: NDArray[np.uint8], protocol: TestProtocol, ratio: float = 1.0) -> NDArray[np.uint8]:
    """`image`, uint8 (height, width, 3), resized as `protocol` says: to its scale, then up to multiples.

    Two resizes in a row, as in ``Resize`` then ``ResizeToMultiple``; each is skipped where it changes nothing.

    Raises:
        DataError: a side would vanish.
    """
    first = _first_size(image.shape[0], image.shape[1], protocol, ratio)
    for size in (first, enlarged_size(*first, protocol.divisor)):
        if image.shape[:2] != size:
            image = resize_image(image, size)
    return image


def normalized(images: NDArray[np.uint8], normalization: Normalization) -> NDArray[np.float32]:
    """uint8 (batch, height, width, 3) BGR as float32 (batch, 3, height, width) RGB, (value - mean) / deviation."""
    planes = np.ascontiguousarray(images[..., ::-1].transpose(0, 3, 1, 2), dtype=np.float32)
    planes -= np.array(normalization.mean, np.float32)[:, None, None]
    planes /= np.array(normalization.std, np.float32)[:, None, None]
    return planes


def network_input(images: NDArray[np.uint8], contract: Contract) -> NDArray[np.generic]:
    """uint8 (batch, height, width, 3) BGR images as the tensor that `contract` describes."""
    if contract.input is InputKind.FLOAT:
        return normalized(images, contract.normalization).astype(input_type(contract), copy=False)
    return np.ascontiguousarray(images[..., ::-1] if contract.input is InputKind.RGB else images)
