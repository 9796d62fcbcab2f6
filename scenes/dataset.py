"""A folder of generated scenes in the layout that training and evaluation read."""

from importlib import resources
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.files import make_folder, write_bytes
from ffnet_deploy.core.progress import Progress, no_progress
from scenes.options import SceneOptions
from scenes.rng import SEED_LIMIT
from scenes.scene import make_scene

SPLITS = ("train", "val", "test")
SPLIT_SIZE = 2**32  # seeds set aside for each split
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 3]


def split_seed(split: str, seed: int) -> int:
    """The first scene seed of a split, for a user's `seed` (0 .. 2**31 - 1): splits never share a scene."""
    if split not in SPLITS:
        raise OptionError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    if not 0 <= seed < 2**31:
        raise OptionError(f"seed {seed}: expected 0..{2**31 - 1}")
    return SPLITS.index(split) * SPLIT_SIZE + seed


def write_scenes(
    root: Path,
    split: str,
    count: int,
    first_seed: int,
    options: SceneOptions | None = None,
    progress: Progress = no_progress,
) -> None:
    """Write scenes `first_seed` .. `first_seed + count - 1` as one split of a data set.

    Makes `images/{split}/scene_00000.png`, `annotations/{split}/scene_00000.png` (labels 0..7) and so on, and
    `classes.txt`. Each file is written whole or not at all; existing ones are replaced. `progress`
    is told of the scenes written.

    Raises:
        OptionError: `count` is not positive, or a seed is out of range.
        StorageError: the folder cannot be written, or the disk is full.
    """
    if count < 1:
        raise OptionError(f"scene count {count}: expected at least 1")
    if not 0 <= first_seed <= SEED_LIMIT - count:
        raise OptionError(f"seeds {first_seed}..{first_seed + count - 1}: expected 0..{SEED_LIMIT - 1}")
    images, annotations = make_folder(root / "images" / split), make_folder(root / "annotations" / split)
    write_bytes(root / "classes.txt", _class_list())
    for index in range(count):
        scene = make_scene(first_seed + index, options)
        name = f"scene_{index:05d}.png"
        write_bytes(images / name, _png(scene.image))
        write_bytes(annotations / name, _png(scene.labels))
        progress(f"rendering {split}", index + 1, count)


def _class_list() -> bytes:
    return (resources.files("ffnet_deploy.core") / "classes" / "scenes.txt").read_bytes()


def _png(image: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(".png", image, _PNG)[1])
