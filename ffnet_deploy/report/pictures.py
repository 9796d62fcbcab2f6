"""Pictures small enough to lie inside a page: photographs lossy, label maps exact, each in its shortest format."""

import base64
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.errors import DataError
from ffnet_deploy.core.label_maps import LabelMap, colour_table, ignore_label
from ffnet_deploy.evaluation.resampling import nearest

Image = NDArray[np.uint8]
"""uint8 (height, width, 3), BGR."""
Labels = LabelMap
"""uint8 or uint16 (height, width)."""
Colour = tuple[int, int, int]
"""RGB, 0..255."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_INDEXED = 256
"""Most colours of a PNG with a palette."""
UNSCORED: Colour = (128, 128, 128)
"""Where the ground truth says nothing."""


class PixelChange(IntEnum):
    """What became of a pixel between the first candidate and another: the values of a difference map."""

    SAME_RIGHT = 0
    SAME_WRONG = 1
    LOST = 2
    GAINED = 3
    BOTH_WRONG = 4
    SAME = 5
    CHANGED = 6


class Hit(IntEnum):
    """Whether a pixel has its true label: the values of an error map."""

    RIGHT = 0
    WRONG = 1
    UNSCORED = 2


@dataclass(frozen=True)
class Key:
    """Colour and meaning of a value of a difference or error map."""

    colour: Colour
    meaning: str


CHANGES: Mapping[PixelChange, Key] = {
    PixelChange.SAME_RIGHT: Key((236, 238, 241), "same, right"),
    PixelChange.SAME_WRONG: Key((201, 193, 160), "same, wrong"),
    PixelChange.LOST: Key((208, 32, 38), "lost: right before, now wrong"),
    PixelChange.GAINED: Key((17, 105, 205), "gained: wrong before, now right"),
    PixelChange.BOTH_WRONG: Key((140, 60, 170), "changed, wrong both times"),
    PixelChange.SAME: Key((214, 217, 221), "same, not scored"),
    PixelChange.CHANGED: Key((224, 110, 20), "changed, not scored"),
}
HITS: Mapping[Hit, Key] = {
    Hit.RIGHT: Key((236, 238, 241), "right"),
    Hit.WRONG: Key((208, 32, 38), "wrong"),
    Hit.UNSCORED: Key((168, 172, 178), "not scored"),
}


def panel_size(height: int, width: int, widest: int) -> tuple[int, int]:
    """(height, width) of an image's panels: at most `widest` pixels on the longer side, never enlarged."""
    factor = min(widest / max(height, width), 1.0)
    return max(round(height * factor), 1), max(round(width * factor), 1)


def photo_uri(image: Image, size: tuple[int, int], quality: int = 80) -> str:
    """`image` shrunk to `size` (height, width) as the shorter of JPEG and, where OpenCV has it, WebP."""
    if image.shape[:2] != size:
        image = np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    options = [("image/jpeg", _encoded(".jpg", image, cv2.IMWRITE_JPEG_QUALITY, quality))]
    if _has_webp():
        options.append(("image/webp", _encoded(".webp", image, cv2.IMWRITE_WEBP_QUALITY, quality)))
    return _shortest(options)


def map_uri(labels: Labels, size: tuple[int, int], palette: tuple[Colour, ...]) -> str:
    """`labels` at `size` (height, width) in the colours of `palette`, exact; other values in `UNSCORED`."""
    shown = nearest(labels, size)
    exact = indexed_png if len(np.unique(shown)) <= _INDEXED else coloured_png
    options = [("image/png", exact(shown, palette))]
    if _has_webp():
        table = colour_table(shown, palette, UNSCORED).astype(np.uint8)
        # a quality above 100 is OpenCV's word for lossless
        options.append(("image/webp", _encoded(".webp", table[shown][..., ::-1], cv2.IMWRITE_WEBP_QUALITY, 101)))
    return _shortest(options)


def change_map(first: Labels, other: Labels, truth: Labels | None) -> Labels:
    """The `PixelChange` of each pixel, uint8 (height, width); right and wrong by `truth`, where it says anything."""
    changed = first != other
    unscored = np.where(changed, PixelChange.CHANGED, PixelChange.SAME).astype(np.uint8)
    if truth is None:
        return unscored
    before, after = first == truth, other == truth
    found = np.where(changed, PixelChange.BOTH_WRONG, PixelChange.SAME_WRONG).astype(np.uint8)
    found[before & after] = PixelChange.SAME_RIGHT
    found[before & ~after] = PixelChange.LOST
    found[after & ~before] = PixelChange.GAINED
    return np.where(truth == ignore_label(truth), unscored, found)


def hit_map(predicted: Labels, truth: Labels) -> Labels:
    """The `Hit` of each pixel, uint8 (height, width)."""
    scored = np.where(predicted == truth, Hit.RIGHT, Hit.WRONG)
    return np.where(truth == ignore_label(truth), Hit.UNSCORED, scored).astype(np.uint8)


def indexed_png(values: Labels, palette: tuple[Colour, ...]) -> bytes:
    """A PNG of `values` whose colours are `palette`; values beyond it are `UNSCORED`. Source: PNG, third edition."""
    used = np.unique(values)
    ranks = np.zeros(ignore_label(values) + 1, np.uint8)
    ranks[used] = np.arange(len(used))
    colours = bytes(part for value in used for part in (palette[value] if value < len(palette) else UNSCORED))
    depth = next(bits for bits in (1, 2, 4, 8) if len(used) <= 1 << bits)
    height, width = values.shape
    rows = _packed(ranks[values], depth)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, depth, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", colours), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(_chunk(kind, body) for kind, body in chunks)


def coloured_png(values: Labels, palette: tuple[Colour, ...]) -> bytes:
    """A PNG of `values` in full colour, for more of them than a palette holds; otherwise as `indexed_png`."""
    colours = colour_table(values, palette, UNSCORED).astype(np.uint8)[values]
    return bytes(cv2.imencode(".png", colours[..., ::-1])[1])


def _packed(values: Labels, depth: int) -> Labels:
    """Rows of values of `depth` bits, the first in the highest bits, filled up to whole bytes."""
    if depth == 8:
        return values
    together = 8 // depth
    filled = np.pad(values, ((0, 0), (0, -values.shape[1] % together)))
    parts = filled.reshape(values.shape[0], -1, together)
    shifts = np.arange(together - 1, -1, -1, dtype=np.uint8) * depth
    packed: Labels = np.bitwise_or.reduce(parts << shifts, axis=2).astype(np.uint8)
    return packed


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _shortest(options: list[tuple[str, bytes]]) -> str:
    kind, content = min(options, key=lambda option: len(option[1]))
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _encoded(suffix: str, image: Image, parameter: int, value: int) -> bytes:
    done, content = cv2.imencode(suffix, image, [parameter, value])
    if not done:
        raise DataError(f"a picture of the report cannot be encoded as {suffix}")
    return content.tobytes()


@cache
def _has_webp() -> bool:
    return bool(cv2.haveImageWriter("picture.webp"))
