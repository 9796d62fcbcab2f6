"""From painted surfaces to a photograph: surface texture, fog, blur, exposure, vignette, sensor noise."""

import cv2
import numpy as np
from numpy.typing import NDArray

from scenes.camera import Camera
from scenes.canvas import HALF_WAY, LEVELS, Label, matter
from scenes.lighting import Lighting
from scenes.render_context import RenderContext
from scenes.rng import Rng

Image = NDArray[np.uint8]


# how strongly texture shows, by label: road, pavement, house, sky, leaves, car, pole, person
_ROUGHNESS = (8, 8, 9, 0, 30, 2, 2, 6)


def post_process(context: RenderContext) -> Image:
    """The picture a camera takes of the canvas: BGR, uint8 (height, width, 3)."""
    rng = context.rng
    blue, green, red, what = cv2.split(context.canvas.strokes)
    grain, (fog_weight, sky) = _texture(what, rng), (_fog(what, context), context.lighting.sky_bottom)
    channels = [_veiled(channel, grain, fog_weight, fog) for channel, fog in zip((blue, green, red), sky, strict=True)]
    image = np.asarray(cv2.merge(channels), np.uint8)
    if rng.chance(0.85):
        image = np.asarray(cv2.GaussianBlur(image, (3, 3), rng.between(0.4, 0.9)), np.uint8)
    return _noisy(_exposed(image, context.lighting, rng), rng)


def _texture(what: Image, rng: Rng) -> NDArray[np.int16]:
    """Change of brightness (height, width) by noise of three grain sizes, as strong as the surface is rough."""
    height, width = what.shape
    grain = rng.bytes(height, width).astype(np.int16)
    for size in (3, 16):
        small = rng.bytes(-(-height // size) + 1, -(-width // size) + 1)
        grain += cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    grain -= 384
    rough = np.repeat(np.array(_ROUGHNESS) * rng.between(0.8, 1.4), LEVELS).astype(np.uint8)
    grain *= cv2.LUT(what, rough)
    grain >>= 7
    return grain


def _veiled(channel: Image, grain: NDArray[np.int16], weight: NDArray[np.int16], fog: int) -> Image:
    """One channel (height, width) with its texture, blended towards the fog by `weight` / 128."""
    levels = _added(channel, grain).astype(np.int16)
    levels += ((fog - levels) * weight) >> 7
    return levels.astype(np.uint8)


def _added(image: Image, change: NDArray[np.int16]) -> Image:
    return np.asarray(cv2.add(image, change, dtype=cv2.CV_8U), np.uint8)


def _fog(what: Image, context: RenderContext) -> NDArray[np.int16]:
    """How much of each pixel is fog, 0..128, by distance; none before the sky. int16 (height, width)."""
    level = np.arange(256) % LEVELS
    weights = _fog_weight(HALF_WAY * level / np.maximum(LEVELS - 1 - level, 1), context.lighting)
    flat = matter(Label.BUILDING, 0)  # below: road and pavement, whose distance follows from the row
    by_row = _fog_weight(_row_distances(context.camera), context.lighting)[:, None]
    return np.where(what < flat, by_row, cv2.LUT(what, weights)).astype(np.int16)


def _fog_weight(metres: NDArray[np.float64], lighting: Lighting) -> Image:
    return (128 * metres / (metres + lighting.fog_depth)).astype(np.uint8)


def _row_distances(camera: Camera) -> NDArray[np.float64]:
    """Metres to the ground seen in each row, at most 400 (height,): focal * eye / (row - horizon)."""
    below = np.arange(camera.height) - camera.horizon
    lens = camera.focal * camera.eye
    distances: NDArray[np.float64] = lens / np.maximum(below, lens / 400)
    return distances


def _exposed(image: Image, lighting: Lighting, rng: Rng) -> Image:
    """Gain by channel, contrast around mid-grey, and a vignette towards the corners."""
    contrast, lift = rng.between(0.8, 1.2), rng.between(-8, 8)
    levels = np.arange(256)
    curves = [np.clip((levels * gain - 118) * contrast + 118 + lift, 0, 255).astype(np.uint8) for gain in lighting.gain]
    exposed = cv2.LUT(image, np.stack(curves, axis=-1)[None])
    return _vignetted(exposed, rng.between(0, 0.35)) if rng.chance(0.6) else exposed


def _vignetted(image: Image, strength: float) -> Image:
    height, width = image.shape[:2]
    rows = ((np.arange(height) * 2 + 1) / height - 1) ** 2
    columns = ((np.arange(width) * 2 + 1) / width - 1) ** 2
    kept = (255 * (1 - strength * (rows[:, None] + columns) / 2)).astype(np.uint8)
    return np.asarray(cv2.multiply(image, cv2.merge([kept, kept, kept]), scale=1 / 256), np.uint8)


def _noisy(image: Image, rng: Rng) -> Image:
    """Add noise with a triangular distribution, one to about eight levels strong."""
    amount = rng.whole(3, 20)
    noise = rng.bytes(*image.shape).astype(np.int16) - rng.bytes(*image.shape)
    return _added(image, (noise * amount) >> 8)
