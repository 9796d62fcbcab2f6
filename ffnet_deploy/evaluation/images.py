"""Image and label files, decoded as MMSegmentation's loaders decode them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.contract import IGNORE_LABEL
from ffnet_deploy.core.errors import DataError, OptionError
from ffnet_deploy.core.label_maps import LabelMap
from ffnet_deploy.evaluation.containers import (
    PNG_PALETTE,
    is_lossy,
    is_whole,
    pixel_count,
    png_header,
    png_indices_as_grey,
)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
"""File name endings, in lower case, of what counts as an image in a folder."""

MAX_PIXELS = 100_000_000
"""Most pixels of an image that is decoded unless the environment says otherwise: 10,000 x 10,000, or 300 MB as BGR."""

MAX_PIXELS_VARIABLE = "FFNET_MAX_PIXELS"
"""Environment variable that raises or lowers the limit on pixels."""

_LARGEST_ID = 65535
_SILENT = 0
"""OpenCV's log level LOG_LEVEL_SILENT."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """The image in `path`, uint8 (height, width, 3), BGR.

    Grey, 16-bit, palette, RGBA and CMYK files become 8-bit BGR and EXIF orientation is applied, as
    ``LoadImageFromFile`` (OpenCV, colour) does; unlike there, a truncated file is an error.

    Raises:
        DataError: the file cannot be read, is empty, cut short, too large, or no image.
    """
    return _decoded(read_whole(path, "image"), cv2.IMREAD_COLOR, path, "image").astype(np.uint8, copy=False)


def read_label_map(path: Path) -> LabelMap:
    """The class ids in `path`, (height, width), exactly as stored; of a palette PNG, the palette indices.

    Raises:
        DataError: the file cannot be read, is empty, cut short, no image, in colour, too large, compressed
            with loss, or holds ids above 65535.
    """
    ids = read_label_pixels(path)
    if ids.ndim != 2:
        raise DataError(
            f"the label map {path} is in colour ({ids.shape[2]} channels); expected one class id per pixel.\n"
            "  to do    name the classes and their colours in a classes.txt in the data folder, one `name r g b` a "
            "line, or convert the colours to class ids and save a grey or palette PNG"
        )
    return ids


def read_label_pixels(path: Path) -> LabelMap:
    """The pixels of a label map as stored: ids (height, width), or colours (height, width, 3 or 4), BGR, uint8.

    Ids are uint8, or uint16 where there are any above 255.

    Raises:
        DataError: the file cannot be read, is empty, cut short, no image, too large, compressed with loss, or
            holds ids above 65535 or colours of more than 8 bits.
    """
    content = read_whole(path, "label map")
    if is_lossy(content):
        raise DataError(
            f"the label map {path} is compressed with loss, which changes class ids.\n"
            "  to do    save label maps as PNG from their source; one saved as JPEG cannot be repaired"
        )
    header = png_header(content)
    if header is not None and header.colour_type == PNG_PALETTE:
        grey = _decoded(png_indices_as_grey(content), cv2.IMREAD_UNCHANGED, path, "label map")
        return _unscaled(grey, header.depth)
    pixels = _decoded(content, cv2.IMREAD_UNCHANGED, path, "label map")
    if header is not None and header.depth < 8:
        return _unscaled(pixels, header.depth)
    if pixels.dtype != np.uint8:
        integral = np.issubdtype(pixels.dtype, np.integer)
        if not integral or pixels.ndim != 2 or pixels.min() < 0 or pixels.max() > _LARGEST_ID:
            raise DataError(
                f"the label map {path} holds {pixels.dtype} values up to {pixels.max()}; expected class ids in "
                f"0..{_LARGEST_ID}"
            )
    return pixels.astype(np.uint8 if pixels.max() <= IGNORE_LABEL else np.uint16, copy=False)


def read_whole(path: Path, what: str) -> bytes:
    """The bytes of the image file `path`, checked to be complete; `what` names it in errors."""
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"cannot read the {what} {path}: {reason}.\n  to do    check the path and its permissions"
        ) from error
    if not content:
        raise DataError(f"the {what} {path} is empty (0 bytes).\n  to do    copy or download it again")
    if not is_whole(content):
        raise DataError(
            f"the {what} {path} is cut short or damaged ({len(content)} bytes).\n  to do    copy or download it again"
        )
    pixels = pixel_count(content)
    if pixels is not None:
        check_pixels(pixels, f"the {what} {path}")
    return content


def check_pixels(pixels: int, what: str) -> None:
    """Raise `DataError` where an image of so many `pixels` is not decoded (see `max_pixels`); `what` names it."""
    if pixels > max_pixels():
        raise DataError(
            f"{what} has {pixels / 1e6:.0f} million pixels; at most {max_pixels() / 1e6:.0f} million are decoded.\n"
            f"  to do    raise the limit if you trust the file: {MAX_PIXELS_VARIABLE}={pixels}"
        )


def max_pixels() -> int:
    """Most pixels of an image that is decoded: `MAX_PIXELS`, or what the environment sets.

    Raises:
        OptionError: the environment's value is no positive number.
    """
    text = os.environ.get(MAX_PIXELS_VARIABLE)
    if text is None:
        return MAX_PIXELS
    if not text.isdecimal() or int(text) < 1:
        raise OptionError(f"{MAX_PIXELS_VARIABLE} must be a positive number of pixels: got {text!r}")
    return int(text)


def _decoded(content: bytes, flags: int, path: Path, what: str) -> NDArray[np.generic]:
    try:
        with _silent_decoder():
            decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise DataError(
            f"the {what} {path} cannot be decoded: {error.err}.\n  to do    save it again as PNG"
        ) from error
    if decoded is None:
        raise DataError(
            f"the {what} {path} is not an image that can be decoded.\n"
            "  to do    open it in a viewer and save it again as PNG"
        )
    return np.asarray(decoded)


@contextmanager
def _silent_decoder() -> Iterator[None]:
    """Keep OpenCV from printing its own account of files that our errors report."""
    # OpenCV 4 has these functions at the top, OpenCV 5 in a module of their own
    logging: Any = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
    level = logging.getLogLevel()
    logging.setLogLevel(_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _unscaled(grey: NDArray[np.generic], depth: int) -> NDArray[np.uint8]:
    """Samples of `depth` bits, which decoders stretch to 0..255, as the integers that were stored."""
    stretch = 255 // (2**depth - 1)
    ids: NDArray[np.uint8] = grey.astype(np.uint8, copy=False) // np.uint8(stretch)
    return ids


def image_files(folder: Path) -> list[Path]:
    """Every image below `folder`, sub-folders and links included, hidden files left out, sorted by path."""
    found, seen = [], set()
    for base, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(base)
        if real in seen:  # a link back to where the walk has been
            folders.clear()
            continue
        seen.add(real)
        found += [
            Path(base) / name
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
        ]
    return sorted(found)
