"""Scenes: the same from the same seed everywhere, every class in them, labels that fit the picture."""

import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.label_sets import label_set
from scenes import Scene, SceneOptions, make_scene
from scenes.canvas import Canvas, Label, matter

PINNED_LABELS = "7e8cbadb79fbeb2b038b912ff74a4e91b9738e522bf0018c56f37a626b44ea69"
SHARES = {
    Label.ROAD: (0.15, 0.45),
    Label.SIDEWALK: (0.04, 0.2),
    Label.BUILDING: (0.15, 0.45),
    Label.SKY: (0.05, 0.25),
    Label.TREE: (0.06, 0.25),
    Label.CAR: (0.02, 0.12),
    Label.POLE: (0.01, 0.08),
    Label.PERSON: (0.008, 0.06),
}


def digest(scene: Scene) -> str:
    return hashlib.sha256(scene.image.tobytes() + scene.labels.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(seed) for seed in range(50)]


def test_the_same_seed_gives_the_same_bytes_in_another_process() -> None:
    code = (
        "import hashlib; from scenes import make_scene; scene = make_scene(7); "
        "print(hashlib.sha256(scene.image.tobytes() + scene.labels.tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert digest(make_scene(7)) == digest(make_scene(7)) == other.stdout.strip()


def test_the_labels_of_a_seed_never_change() -> None:
    assert hashlib.sha256(make_scene(2026).labels.tobytes()).hexdigest() == PINNED_LABELS


def test_other_seeds_give_other_scenes(scenes: list[Scene]) -> None:
    assert len({digest(scene) for scene in scenes}) == len(scenes)


def test_the_scene_does_not_depend_on_the_number_of_threads() -> None:
    threads, many = cv2.getNumThreads(), digest(make_scene(3))
    cv2.setNumThreads(1)
    try:
        assert digest(make_scene(3)) == many
    finally:
        cv2.setNumThreads(threads)


def test_labels_are_the_eight_classes_in_the_order_of_the_label_set(scenes: list[Scene]) -> None:
    assert tuple(label.name.lower() for label in Label) == label_set("scenes").classes
    assert max(int(scene.labels.max()) for scene in scenes) == len(Label) - 1


@pytest.mark.parametrize("label", Label)
def test_every_class_has_its_share(scenes: list[Scene], label: Label) -> None:
    share = np.mean([(scene.labels == label).mean() for scene in scenes])
    low, high = SHARES[label]
    assert low < share < high, f"{label.name}: {share:.3f}"


def test_every_class_is_in_most_scenes(scenes: list[Scene]) -> None:
    present = {label.name: np.mean([(scene.labels == label).any() for scene in scenes]) for label in Label}
    assert min(present.values()) >= 0.8, present


def test_tone_does_not_tell_the_classes_apart(scenes: list[Scene]) -> None:
    """The best label for each of 4096 colours, chosen on the very same pixels, is wrong for many of them."""
    colours = np.concatenate([scene.image.reshape(-1, 3) >> 4 for scene in scenes]).astype(np.int64)
    labels = np.concatenate([scene.labels.ravel() for scene in scenes]).astype(np.int64)
    counts = np.bincount((colours @ (256, 16, 1)) * 8 + labels, minlength=4096 * 8).reshape(4096, 8)
    right = counts.max(axis=1).sum() / counts.sum()
    assert right < 0.65, f"{right:.3f}"


def test_one_stroke_paints_picture_and_labels_alike() -> None:
    canvas, random = Canvas(120, 160), np.random.default_rng(0)
    for label in (Label.CAR, Label.TREE, Label.POLE):
        before, labels = canvas.colour.copy(), canvas.labels
        outline = random.integers(-40, 200, (7, 2)).astype(np.int32)
        canvas.paint([outline], (10 + 20 * label, 3, 5), matter(label, 12.0))
        recoloured = (canvas.colour != before).any(axis=-1)
        assert recoloured.any()
        np.testing.assert_array_equal(recoloured, canvas.labels != labels)


def test_a_shadow_changes_no_label() -> None:
    canvas = Canvas(80, 80)
    square = np.array([(10, 10), (60, 10), (60, 60), (10, 60)], np.int32)
    canvas.paint([square], (200, 180, 160), matter(Label.ROAD, 8))
    strokes = canvas.strokes.copy()
    canvas.darken(square, 0.5)
    np.testing.assert_array_equal(canvas.strokes[..., 3], strokes[..., 3])
    assert canvas.colour[30, 30].tolist() == [100, 90, 80]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 160), (360, 480), (512, 512), (256, 64)])
def test_any_size_is_filled(height: int, width: int) -> None:
    scene = make_scene(11, SceneOptions(height, width))
    assert scene.image.shape == (height, width, 3)
    assert scene.labels.shape == (height, width)
    assert scene.image.dtype == scene.labels.dtype == np.uint8
    assert scene.image.std() > 10


@pytest.mark.parametrize(
    ("height", "width", "said"),
    [
        (63, 128, "height 63"),
        (256, 5000, "width 5000"),
        (0, 512, "height 0"),
        (64, 300, "at least 75"),
        (True, 64, "True"),
    ],
)
def test_a_bad_size_is_refused(height: int, width: int, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        SceneOptions(height, width)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(OptionError, match="seed"):
        make_scene(seed)
