"""A written data set: pairs of files, a class list, splits apart, plain errors, nothing half-written."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from ffnet_deploy.core.errors import OptionError, StorageError
from ffnet_deploy.core.label_sets import label_set, read_label_set
from scenes import SceneOptions, make_scene, split_seed, write_scenes

SMALL = SceneOptions(64, 96)


def test_files_hold_the_scenes_in_pairs(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_scenes(tmp_path, "train", 3, 40, SMALL, lambda stage, done, count: calls.append((done, count)))
    names = [f"scene_{index:05d}.png" for index in range(3)]
    assert sorted(path.name for path in (tmp_path / "images/train").iterdir()) == names
    assert sorted(path.name for path in (tmp_path / "annotations/train").iterdir()) == names
    scene = make_scene(42, SMALL)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "images/train/scene_00002.png")), scene.image)
    labels = cv2.imread(str(tmp_path / "annotations/train/scene_00002.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(labels, scene.labels)
    assert read_label_set(tmp_path / "classes.txt") == label_set("scenes")
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_splits_never_share_a_seed() -> None:
    firsts = [split_seed(split, seed) for split in ("train", "val", "test") for seed in (0, 2**31 - 1)]
    assert firsts == sorted(firsts)
    assert min(split_seed("val", 0) - split_seed("train", 2**31 - 1), split_seed("test", 0) - firsts[3]) > 2**30


@pytest.mark.parametrize(("split", "seed"), [("holdout", 0), ("train", -1), ("val", 2**31)])
def test_a_bad_split_or_seed_is_refused(split: str, seed: int) -> None:
    with pytest.raises(OptionError):
        split_seed(split, seed)


def test_no_scenes_or_too_many_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="at least 1"):
        write_scenes(tmp_path, "train", 0, 0, SMALL)
    with pytest.raises(OptionError, match="seeds"):
        write_scenes(tmp_path, "train", 2, 2**64 - 1, SMALL)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    with pytest.raises(StorageError, match="cannot write"):
        write_scenes(blocker, "train", 1, 0, SMALL)


def test_the_command_writes_both_splits(tmp_path: Path) -> None:
    arguments = [str(tmp_path), "--train", "2", "--val", "1", "--size", "64x96", "--seed", "5"]
    subprocess.run([sys.executable, "-m", "scenes", *arguments], check=True)
    assert len(list(tmp_path.rglob("*.png"))) == 6
    image = cv2.imread(str(tmp_path / "images/val/scene_00000.png"))
    np.testing.assert_array_equal(image, make_scene(split_seed("val", 5), SMALL).image)


def test_the_command_reports_a_bad_size_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scenes", str(tmp_path / "out"), "--size", "12x40"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines() == [
        "error: scene height 12: expected a whole number of pixels in 64..4096"
    ]
    assert not (tmp_path / "out").exists()
