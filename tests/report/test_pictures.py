import base64

import cv2
import numpy as np
import pytest

from ffnet_deploy.report import pictures
from ffnet_deploy.report.pictures import (
    Hit,
    PixelChange,
    change_map,
    hit_map,
    indexed_png,
    map_uri,
    panel_size,
    photo_uri,
)
from tests.toy import CAMVID, label_map, picture


def decoded(uri: str) -> np.ndarray:
    """RGB pixels of a data URI."""
    head, _, body = uri.partition(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64", "data:image/webp;base64")
    return cv2.imdecode(np.frombuffer(base64.b64decode(body), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


@pytest.mark.parametrize("classes", [1, 2, 4, 11, 16, 17, 150])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (40, 61)])
def test_a_palette_png_holds_every_pixels_colour(classes: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(classes)
    palette = tuple(map(tuple, rng.integers(0, 256, (classes, 3)).tolist()))
    values = rng.integers(0, classes, size).astype(np.uint8)
    found = cv2.imdecode(np.frombuffer(indexed_png(values, palette), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(found, np.array(palette, np.uint8)[values])


@pytest.mark.parametrize("webp", [True, False])
def test_label_maps_are_exact_and_unscored_pixels_grey(webp: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_has_webp", lambda: webp)
    labels = label_map(90, 120)
    assert 255 in labels
    expected = np.array([*CAMVID.palette, *[pictures.UNSCORED] * 245], np.uint8)[labels]
    assert np.array_equal(decoded(map_uri(labels, (90, 120), CAMVID.palette)), expected)


@pytest.mark.parametrize("webp", [True, False])
def test_photographs_look_the_same_at_the_size_asked_for(webp: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_has_webp", lambda: webp)
    image = picture(200, 300)
    found = decoded(photo_uri(image, (100, 150)))
    expected = cv2.resize(image, (150, 100), interpolation=cv2.INTER_AREA)[..., ::-1]
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 4


def test_the_shortest_format_is_chosen() -> None:
    noise = np.random.default_rng(0).integers(0, 2, (64, 64)).astype(np.uint8)
    uri = map_uri(noise, (64, 64), ((0, 0, 0), (255, 255, 255)))
    assert len(uri) <= len("data:image/png;base64,") + 4 * -(-len(indexed_png(noise, ((0, 0, 0), (255,) * 3))) // 3)


def test_changes_are_told_apart_by_the_truth() -> None:
    truth = np.array([[0, 0, 0, 0, 0, 255, 255]], np.uint8)
    first = np.array([[0, 1, 0, 1, 1, 1, 1]], np.uint8)
    other = np.array([[0, 1, 1, 0, 2, 1, 2]], np.uint8)
    kinds = [
        PixelChange.SAME_RIGHT,
        PixelChange.SAME_WRONG,
        PixelChange.LOST,
        PixelChange.GAINED,
        PixelChange.BOTH_WRONG,
        PixelChange.SAME,
    ]
    assert change_map(first, other, truth).tolist() == [[*kinds, PixelChange.CHANGED]]
    assert set(change_map(first, other, None).ravel()) == {PixelChange.SAME, PixelChange.CHANGED}
    assert hit_map(first, truth).tolist() == [[Hit.RIGHT, Hit.WRONG, Hit.RIGHT, *[Hit.WRONG] * 2, *[Hit.UNSCORED] * 2]]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1024, 2048), (384, 768)), ((100, 50), (100, 50)), ((4000, 10), (768, 2)), ((1, 5000), (1, 768))],
)
def test_panels_shrink_to_fit_and_never_grow(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert panel_size(*size, 768) == expected
