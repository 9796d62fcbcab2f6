from pathlib import Path

import cv2
import numpy as np
import pytest

from ffnet_deploy.evaluation.overlays import (
    blended,
    differences,
    overlay_picture,
    panel_size,
    right_share,
    write_overlay,
)
from tests.toy import CAMVID, contract, label_map, picture

GREY = np.full((2, 2, 3), 100, np.uint8)


def test_panels_lie_side_by_side() -> None:
    image, labels = picture(120, 320), label_map(120, 320)
    four = overlay_picture(image, np.zeros((120, 320), np.uint8), labels, contract())
    alone = overlay_picture(image, np.zeros((120, 320), np.uint8), None, contract())  # without truth to compare with
    assert four.shape[1] == 4 * 332 + 12 and alone.shape[1] == 332 + 12
    assert np.array_equal(four[30:150, 12:332], image)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((360, 480), (360, 480)),
        ((1024, 2048), (480, 960)),
        ((32, 32), (320, 320)),
        ((4000, 100), (1200, 30)),
        ((1, 900), (1, 900)),
    ],
)
def test_panels_fit_a_screen(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert panel_size(*size) == expected


@pytest.mark.parametrize("size", [(500, 1), (1, 500), (8, 8), (1024, 2048)])
def test_odd_sizes_are_drawn(size: tuple[int, int]) -> None:
    labels = label_map(*size)
    assert overlay_picture(picture(*size), labels, labels, contract()).ndim == 3


def test_classes_show_in_their_colour() -> None:
    labels = np.array([[0, 1], [10, 255]], np.uint8)
    drawn = blended(GREY, labels, CAMVID.palette).astype(int)
    for row, column in ((0, 0), (0, 1), (1, 0)):
        expected = 40 + 0.6 * np.array(CAMVID.palette[labels[row, column]])[::-1]
        assert np.abs(drawn[row, column] - expected).max() <= 0.5


def test_wrong_pixels_are_red_and_ignored_ones_are_not() -> None:
    drawn = differences(GREY, np.array([[0, 1], [2, 2]], np.uint8), np.array([[0, 0], [2, 255]], np.uint8)).astype(int)
    red = drawn[..., 2] - drawn[..., 0]
    assert (red > 80).tolist() == [[False, True], [False, False]]
    assert drawn[1, 1].max() < drawn[0, 0].min()


def test_the_share_of_right_pixels_leaves_ignored_ones_out() -> None:
    labels = np.array([[0, 0, 255, 255]], np.uint8)
    assert right_share(np.array([[0, 1, 1, 1]], np.uint8), labels) == "50.0 % right"
    assert right_share(labels, np.full((1, 4), 255, np.uint8)) == "nothing labelled"


def test_pictures_are_written_as_png_in_folders_below(tmp_path: Path) -> None:
    image, labels = picture(60, 90), label_map(60, 90)
    write_overlay(tmp_path / "ulm" / "scene.png", image, labels, labels, contract())
    assert cv2.imread(str(tmp_path / "ulm/scene.png")).shape[1] == 4 * 332 + 12
    assert [path.name for path in (tmp_path / "ulm").iterdir()] == ["scene.png"]
