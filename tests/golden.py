"""Weights and inputs that follow from tensor names alone, so that any implementation of the networks can be compared.

Every tensor is drawn from a Philox stream whose key is the seed (0) and the CRC-32 of the tensor's checkpoint name.
"""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from ffnet_deploy.core.contract import Normalization

PUBLISHED = {
    "upernet_ffnet_2_512_160k_ade20k": "upernet_ffnet_2_ade20k",
    "upernet_ffnet_3_512_160k_ade20k": "upernet_ffnet_3_ade20k",
    "upernet_ffnet_4_512_160k_ade20k": "upernet_ffnet_4_ade20k",
    "ffnet_seg_512_ade_160k": "ffnet_seg_ade20k",
    "ffnet_seg_1024_city_160k": "ffnet_seg_cityscapes",
}
"""Golden file of each published segmentor, by config name."""
COMPACT = Path(__file__).with_name("golden.json")
SAMPLES = 48


def stream(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[0, crc32(name.encode())]))


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor called `name`, float32; batch counters are int64 zeros."""
    draw = stream(name)
    kind = name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if kind in ("running_mean", "bias"):
        return draw.normal(0.0, 0.1, shape).astype(np.float32)
    if kind == "weight" and len(shape) == 4:
        per_output = int(np.prod(shape[1:]))
        gain = 1.5 if shape[1] > 1 else 0.3
        return draw.normal(0.0, (gain / per_output) ** 0.5, shape).astype(np.float32)
    low, high = {"running_var": (0.5, 1.5), "layer_scale": (0.1, 0.5)}.get(kind, (0.6, 1.4))
    return draw.uniform(low, high, shape).astype(np.float32)


def picture(height: int, width: int) -> np.ndarray:
    """Six waves a channel and noise, uint8 RGB (height, width, 3)."""
    draw = stream("image")
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    image = np.zeros((height, width, 3))
    for channel in range(3):
        for _ in range(6):
            vertical, horizontal = draw.uniform(0, 0.12, 2)
            phase, strength = draw.uniform(0, 6.283), draw.uniform(10, 40)
            image[..., channel] += strength * np.sin(vertical * rows + horizontal * columns + phase)
    noisy = image + (draw.normal(0, 8, image.shape) + 118)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def network_input(height: int, width: int) -> np.ndarray:
    """The normalised picture, float32 (1, 3, height, width)."""
    norm = Normalization()
    image = (picture(height, width).astype(np.float32) - np.float32(norm.mean)) / np.float32(norm.std)
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None])


def fill(model: Any) -> Any:
    """`model` with the golden weights in place of its own, in evaluation mode."""
    import torch

    values = {name: torch.from_numpy(weight(name, tuple(value.shape))) for name, value in model.state_dict().items()}
    model.load_state_dict(values)
    return model.eval()


def build(name: str) -> Any:
    """The segmentor of the config `name` with golden weights."""
    from ffnet_deploy.segmentor.config import build_segmentor, load_config

    return fill(build_segmentor(load_config(name)))


def relative_error(found: Any, expected: Any) -> float:
    """Largest absolute difference relative to the largest expected magnitude."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, f"shape {found.shape} instead of {expected.shape}"
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@dataclass(frozen=True)
class Outputs:
    """What a segmentor gives for the golden input of one size: logits, auxiliary logits or None, backbone features."""

    logits: np.ndarray
    aux: np.ndarray | None
    features: tuple[np.ndarray, ...]


def run(model: Any, height: int, width: int) -> Outputs:
    import torch

    with torch.no_grad():
        features = model.backbone(torch.from_numpy(network_input(height, width)))
        aux = model.auxiliary_head(features).numpy() if model.with_auxiliary_head else None
        return Outputs(model.decode_head(features).numpy(), aux, tuple(feature.numpy() for feature in features))


def statistics(feature: np.ndarray) -> np.ndarray:
    """Mean, standard deviation (of a sample, as `torch.std`) and largest magnitude."""
    wide = feature.astype(np.float64)
    return np.array([wide.mean(), wide.std(ddof=1), np.abs(wide).max()])


def read_keys(path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor by name, from a table `name shape dtype`; scalars have the shape ()."""
    with path.open(newline="", encoding="utf-8") as file:
        return {row["name"]: _shape(row["shape"]) for row in csv.DictReader(file, delimiter="\t")}


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split("x") if size.isdigit())


def key_hash(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """SHA-256 of the sorted lines `name size x size ...`."""
    lines = sorted(f"{name} {'x'.join(map(str, shape))}\n" for name, shape in shapes.items())
    return sha256("".join(lines).encode()).hexdigest()


def samples(values: np.ndarray) -> np.ndarray:
    """`SAMPLES` values spread evenly over the flattened array, its last included."""
    flat = values.reshape(-1)
    return flat[np.linspace(0, flat.size - 1, SAMPLES).round().astype(int)]


@cache
def compact() -> dict[str, Any]:
    """Numbers of the published code for the golden input of 64x64, by config name."""
    content: dict[str, Any] = json.loads(COMPACT.read_text(encoding="utf-8"))
    return content
