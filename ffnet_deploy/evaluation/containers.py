"""What must be known of image files before a decoder sees them: sizes, losses, whether they are whole, palettes."""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
PNG_PALETTE = 3
"""Colour type of a PNG whose samples are indices into a palette."""
_PNG_GREY = 0
_JPEG_SCAN = 0xDA
_JPEG_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_JPEG_END = b"\xff\xd9"
_JPEG_BARE = {0x01, *range(0xD0, 0xD9)}
"""JPEG markers without a length: TEM, RST0..RST7, SOI."""


_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_COMPRESSION = 256, 257, 259
_TIFF_LOSSY = {6, 7, 33003, 33005, 34712, 34892}
"""Values of the tag Compression: JPEG old and new, JPEG 2000 (three numbers), and the lossy JPEG of DNG."""
_TIFF_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""Types of whole numbers."""


class PngChunk(NamedTuple):
    """One chunk of a PNG file."""

    kind: bytes
    body: bytes
    intact: bool
    """Whether its checksum holds."""


class PngHeader(NamedTuple):
    """What the IHDR chunk says of the samples."""

    depth: int
    """Bits per sample: 1, 2, 4, 8 or 16."""
    colour_type: int
    """0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA."""


def png_chunks(content: bytes) -> Iterator[PngChunk]:
    """The chunks of a PNG file in order; ends early, without IEND, where the file is cut.

    Source: W3C, PNG specification, section 5.3.
    """
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        end = at + 12 + length
        if end > len(content):
            return
        kind, body = content[at + 4 : at + 8], content[at + 8 : end - 4]
        yield PngChunk(
            kind, body, zlib.crc32(content[at + 4 : end - 4]) == int.from_bytes(content[end - 4 : end], "big")
        )
        if kind == b"IEND":
            return
        at = end


def png_header(content: bytes) -> PngHeader | None:
    """Bit depth and colour type, or None where `content` is no PNG."""
    if not content.startswith(PNG_SIGNATURE) or len(content) < 26:
        return None
    return PngHeader(content[24], content[25])


def png_indices_as_grey(content: bytes) -> bytes:
    """The palette PNG `content` as a grey PNG whose samples are the palette indices."""
    parts = [PNG_SIGNATURE]
    for chunk in png_chunks(content):
        if chunk.kind == b"IHDR":
            parts.append(_png_chunk(chunk.kind, chunk.body[:9] + bytes([_PNG_GREY]) + chunk.body[10:]))
        elif chunk.kind in (b"IDAT", b"IEND"):
            parts.append(_png_chunk(chunk.kind, chunk.body))
    return b"".join(parts)


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def palette_png(indices: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """The file of a palette PNG.

    Args:
        indices: Index of each pixel, uint8 (height, width).
        palette: RGB colour of each index, uint8 (colours, 3), 256 at most.

    Source: W3C, PNG specification, sections 11.2 and 7.2: each row begins with its filter, here none.
    """
    height, width = indices.shape
    rows = np.zeros((height, 1 + width), np.uint8)
    rows[:, 1:] = indices
    header = struct.pack(">IIBBBBB", width, height, 8, PNG_PALETTE, 0, 0, 0)
    chunks = (b"IHDR", header), (b"PLTE", palette.tobytes()), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")
    return PNG_SIGNATURE + b"".join(_png_chunk(kind, body) for kind, body in chunks)


def is_lossy(content: bytes) -> bool:
    """Whether the file is a JPEG, a TIFF compressed as one, or a WebP whose pixels are a lossy stream.

    Sources: RFC 9649, section 2; TIFF 6.0, sections 8 and 22.
    """
    if content.startswith(JPEG_SIGNATURE) or _tiff_tags(content).get(_TIFF_COMPRESSION) in _TIFF_LOSSY:
        return True
    return any(kind == b"VP8 " for kind, _ in _webp_chunks(content))


def pixel_count(content: bytes) -> int | None:
    """Pixels that the file's header announces; None where the format is none of PNG, JPEG, WebP, BMP and TIFF."""
    if content.startswith(PNG_SIGNATURE) and len(content) >= 24:
        width, height = struct.unpack_from(">II", content, 16)
    elif content.startswith(JPEG_SIGNATURE):
        frame = next((at for marker, at in _jpeg_markers(content) if marker in _JPEG_FRAMES), len(content))
        height, width = struct.unpack_from(">HH", content, frame + 5) if frame + 9 <= len(content) else (0, 0)
    elif content.startswith(b"BM") and len(content) >= 26:
        width, height = struct.unpack_from("<ii", content, 18)
    elif tags := _tiff_tags(content):
        width, height = tags.get(_TIFF_WIDTH, 0), tags.get(_TIFF_HEIGHT, 0)
    else:
        return next((_webp_pixels(kind, body) for kind, body in _webp_chunks(content)), None)
    return abs(int(width) * int(height))


def _webp_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        return
    at = 12
    while at + 8 <= len(content):
        kind, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        yield kind, content[at + 8 : at + 8 + min(size, 64)]
        at += 8 + size + size % 2


def _webp_pixels(kind: bytes, body: bytes) -> int:
    """Pixels by the first chunk of a WebP file; 0 where it is too short."""
    if kind == b"VP8X":
        return (int.from_bytes(body[4:7], "little") + 1) * (int.from_bytes(body[7:10], "little") + 1)
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return ((bits & 0x3FFF) + 1) * (((bits >> 14) & 0x3FFF) + 1)
    return (int.from_bytes(body[6:8], "little") & 0x3FFF) * (int.from_bytes(body[8:10], "little") & 0x3FFF)


def _tiff_tags(content: bytes) -> dict[int, int]:
    """First value of each whole number in the first directory of a TIFF or BigTIFF file; empty where there is none."""
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    if order is None:
        return {}
    tags = {}
    try:
        (version,) = struct.unpack_from(f"{order}H", content, 2)
        big = version == 43  # 42 is TIFF
        (at,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", content, 8 if big else 4)
        (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", content, at)
        first, size, value = (at + 8, 20, 12) if big else (at + 2, 12, 8)
        for entry in range(first, first + size * count, size):
            tag, kind = struct.unpack_from(f"{order}HH", content, entry)
            if kind in _TIFF_NUMBERS:
                (tags[tag],) = struct.unpack_from(f"{order}{_TIFF_NUMBERS[kind]}", content, entry + value)
    except (struct.error, OverflowError):  # it ends early
        pass
    return tags


def is_whole(content: bytes) -> bool:
    """Whether a PNG or JPEG file reaches its end marker, undamaged as far as its checksums tell; others pass."""
    if content.startswith(PNG_SIGNATURE):
        chunks = list(png_chunks(content))
        critical = [chunk for chunk in chunks if chunk.kind[:1].isupper()]
        return bool(chunks) and chunks[-1].kind == b"IEND" and all(chunk.intact for chunk in critical)
    if content.startswith(JPEG_SIGNATURE):
        # only after the first scan: the thumbnail inside an EXIF header has an end marker of its own
        scan = next((at for marker, at in _jpeg_markers(content) if marker == _JPEG_SCAN), -1)
        return scan >= 0 and content.find(_JPEG_END, scan) >= 0
    return True


def _jpeg_markers(content: bytes) -> Iterator[tuple[int, int]]:
    """Each marker before the first scan, that of the scan included, with its position. Source: ITU-T T.81, annex B."""
    at = 2
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            return
        marker = content[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        yield marker, at
        if marker == _JPEG_SCAN:
            return
        at += 2 if marker in _JPEG_BARE else 2 + int.from_bytes(content[at + 2 : at + 4], "big")
