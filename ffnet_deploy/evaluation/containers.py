"""What must be known of PNG and JPEG files before a decoder sees them: whether they are whole, and palette indices."""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
PNG_PALETTE = 3
"""Colour type of a PNG whose samples are indices into a palette."""
_PNG_GREY = 0
_JPEG_SCAN = 0xDA
_JPEG_END = b"\xff\xd9"
_JPEG_BARE = {0x01, *range(0xD0, 0xD9)}
"""JPEG markers without a length: TEM, RST0..RST7, SOI."""


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


def is_whole(content: bytes) -> bool:
    """Whether a PNG or JPEG file reaches its end marker, undamaged as far as its checksums tell; others pass."""
    if content.startswith(PNG_SIGNATURE):
        return _png_is_whole(content)
    return _jpeg_is_whole(content) if content.startswith(JPEG_SIGNATURE) else True


def _png_is_whole(content: bytes) -> bool:
    chunks = list(png_chunks(content))
    critical = [chunk for chunk in chunks if chunk.kind[:1].isupper()]
    return bool(chunks) and chunks[-1].kind == b"IEND" and all(chunk.intact for chunk in critical)


def _jpeg_is_whole(content: bytes) -> bool:
    # only after the first scan: the thumbnail inside an EXIF header has an end marker of its own
    scan = _first_jpeg_scan(content)
    return scan is not None and content.find(_JPEG_END, scan) >= 0


def _first_jpeg_scan(content: bytes) -> int | None:
    """Position of the first start-of-scan marker. Source: ITU-T T.81, annex B."""
    at = 2
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            return None
        marker = content[at + 1]
        if marker == _JPEG_SCAN:
            return at
        if marker == 0xFF:
            at += 1
        elif marker in _JPEG_BARE:
            at += 2
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return None
