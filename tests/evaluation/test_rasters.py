"""Rasters are labelled in windows as in one piece, within the memory given, and keep their place on the ground."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ffnet_deploy.core.contract import OutputKind, TestProtocol
from ffnet_deploy.core.errors import DataError, FFNetDeployError, OptionError, StorageError
from ffnet_deploy.evaluation.finishing import banded_label_map
from ffnet_deploy.evaluation.protocol import PredictOptions, predict
from ffnet_deploy.evaluation.rasters import predict_raster
from ffnet_deploy.evaluation.windows import ScoredWindow, ScoreMap, window_boxes
from tests.disks import largest_file
from tests.toy import ToyEngine, contract, fixed, logits, picture, weights

rasterio = pytest.importorskip("rasterio")

SIZE = (700, 900)
SLIDING = TestProtocol((900, 700), divisor=1, mode="slide", crop=(128, 160), stride=(86, 107))
PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.2, 0, 430_000, 0, -0.2, 5_500_000)}


def write_raster(path: Path, image: np.ndarray, **changes: Any) -> Path:
    """`image`, (height, width, bands) with red first, as a GeoTIFF of the place `PLACE`."""
    bands = np.moveaxis(image, -1, 0)
    form = dict(count=len(bands), height=image.shape[0], width=image.shape[1], dtype=image.dtype, **PLACE) | changes
    with rasterio.open(path, "w", driver="GTiff", **form) as file:
        file.write(bands)
    return path


def read_labels(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


@pytest.fixture
def image() -> np.ndarray:
    """BGR, without black pixels but for the rectangle that the raster calls no data."""
    pixels = np.maximum(picture(*SIZE), 1)
    pixels[100:180, 300:410] = 0
    return pixels


@pytest.fixture
def raster(image: np.ndarray, tmp_path: Path) -> Path:
    return write_raster(tmp_path / "ground.tif", image[..., ::-1], nodata=0)


def shaded(batch: np.ndarray) -> np.ndarray:
    """The toy network with its scores depending on the whole window, as those of a real network do."""
    scores = logits(batch, weights(11))
    scores[:, 3] += 40 * batch.mean(axis=(1, 2, 3))[:, None, None]
    return scores


def test_labels_are_those_of_one_piece(raster: Path, image: np.ndarray, tmp_path: Path) -> None:
    engine = ToyEngine(contract(protocol=SLIDING), shaded)
    found = predict_raster(engine, raster, tmp_path / "labels.tif")
    labels = read_labels(tmp_path / "labels.tif")
    has_data = image.any(axis=2)
    assert (labels[~has_data] == 255).all() and len(np.unique(labels[has_data])) > 3

    boxes = window_boxes(SIZE, SLIDING.crop, SLIDING.stride)
    assert found.windows == len(boxes) == 64 and found.size == SIZE
    windows, seen = [], np.zeros(SIZE, int)
    for box in boxes:
        part = slice(box.top, box.bottom), slice(box.left, box.right)
        seen[part] += 1
        normalized = (image[part][..., ::-1] - np.array(engine.contract.normalization.mean)) / np.array(
            engine.contract.normalization.std
        )
        windows.append(ScoredWindow(box, shaded(np.moveaxis(normalized, -1, 0)[None].astype(np.float32))[0]))
    blended = banded_label_map([ScoreMap(SIZE, tuple(windows), feathered=True)], SIZE)
    assert (labels == blended)[has_data].mean() > 0.99999
    one_piece = predict(engine, image).labels
    alone = has_data & (seen == 1)
    assert alone.any() and np.array_equal(labels[alone], one_piece[alone])
    assert 0 < found.seam_error < 0.5


def test_georeference_colours_and_no_data_are_kept(raster: Path, tmp_path: Path) -> None:
    predict_raster(ToyEngine(contract(protocol=SLIDING)), raster, tmp_path / "labels.tif")
    with rasterio.open(raster) as before, rasterio.open(tmp_path / "labels.tif") as after:
        assert (after.crs, after.transform, after.shape) == (before.crs, before.transform, before.shape)
        assert after.nodata == 255 and after.count == 1 and after.dtypes == ("uint8",)
        assert after.profile["tiled"] and after.profile["compress"] == "deflate"
        assert [after.colormap(1)[number][:3] for number in range(11)] == list(contract().palette)


def test_stripes_of_a_smaller_memory_give_the_same_labels(
    raster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, striped = tmp_path / "whole.tif", tmp_path / "striped.tif"
    first = predict_raster(ToyEngine(contract(protocol=SLIDING), shaded), raster, whole)
    monkeypatch.setattr("ffnet_deploy.evaluation.rasters._BLOCK", 256)
    second = predict_raster(ToyEngine(contract(protocol=SLIDING), shaded), raster, striped, memory=2 << 20)
    assert second.windows > first.windows
    assert np.array_equal(read_labels(whole), read_labels(striped)) and second.seam_error == first.seam_error
    with pytest.raises(OptionError, match=r"1 MiB are too little for windows of 128x160: .* \d MiB"):
        predict_raster(ToyEngine(contract(protocol=SLIDING)), raster, striped, memory=1 << 20)


def test_the_seam_error_counts_what_neighbours_disagree_on(tmp_path: Path) -> None:
    ground = write_raster(tmp_path / "ground.tif", picture(64, 160))
    classes = iter((5, 5, 2))  # of each call: the first window runs twice, since its scores say how much is to be kept

    def disagreeing(batch: np.ndarray) -> np.ndarray:
        scores = np.zeros((1, 11, 16, 24), np.float32)
        scores[:, next(classes)] = 1
        return scores

    protocol = TestProtocol(mode="slide", crop=(64, 96), stride=(64, 64))
    engine = ToyEngine(contract(protocol=protocol), disagreeing)
    found = predict_raster(engine, ground, tmp_path / "labels.tif", options=PredictOptions(batch=1))
    assert found.seam_error == 1 and found.windows == 2  # the two windows that share 32 columns
    labels = read_labels(tmp_path / "labels.tif")
    assert (labels[:, :80] == 5).all() and (labels[:, 80:] == 2).all()


def test_a_network_that_sees_whole_images_gets_windows_of_its_input_size(raster: Path, tmp_path: Path) -> None:
    engine = ToyEngine(contract(**fixed(64, 96)))
    found = predict_raster(engine, raster, tmp_path / "labels.tif")
    assert set(engine.shapes) == {(1, 3, 64, 96)}
    assert found.windows == len(window_boxes(SIZE, (64, 96), (43, 64)))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_raster_smaller_than_a_window_and_without_a_place(tmp_path: Path) -> None:
    image = picture(40, 50)
    small = write_raster(tmp_path / "small.tif", image, crs=None, transform=None)
    engine = ToyEngine(contract(**fixed(64, 96)))
    found = predict_raster(engine, small, tmp_path / "labels.tif")
    labels = read_labels(tmp_path / "labels.tif")
    assert labels.shape == (40, 50) and (found.windows, found.seam_error) == (1, 0)


def test_an_interrupted_raster_leaves_nothing(raster: Path, tmp_path: Path) -> None:
    class Stopped(ToyEngine):
        def run(self, batch: np.ndarray) -> np.ndarray:
            if len(self.shapes) == 9:
                raise KeyboardInterrupt
            return super().run(batch)

    (tmp_path / "out").mkdir()
    with pytest.raises(KeyboardInterrupt):
        predict_raster(Stopped(contract(protocol=SLIDING)), raster, tmp_path / "out" / "labels.tif")
    assert not list((tmp_path / "out").iterdir())


def test_a_full_disk_is_one_error_and_leaves_nothing(raster: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with largest_file(4096), pytest.raises(StorageError, match="no room left to write"):
        predict_raster(ToyEngine(contract(protocol=SLIDING)), raster, tmp_path / "out" / "labels.tif")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda path: path.write_bytes(b"no raster"), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "cannot be read"),
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: write_raster(path, picture(80, 100)[..., :1]), "1 bands of uint8; expected red, green and blue"),
        (lambda path: write_raster(path, picture(80, 100).astype(np.uint16)), "3 bands of uint16; expected"),
    ],
    ids=["no raster", "cut short", "missing", "grey", "16 bits"],
)
def test_a_raster_that_cannot_be_labelled_is_one_error(
    raster: Path, tmp_path: Path, change: Any, expected: str
) -> None:
    change(raster)
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=expected):
        predict_raster(ToyEngine(contract(protocol=SLIDING)), raster, tmp_path / "out" / "labels.tif")
    assert not list((tmp_path / "out").iterdir())


def test_a_raster_that_would_not_fit_the_memory_is_refused(image: np.ndarray, tmp_path: Path) -> None:
    engine = ToyEngine(contract(protocol=SLIDING))
    endless = tmp_path / "endless.tif"
    form = {"width": 500_000, "height": 500_000, "count": 3, "dtype": "uint8", "sparse_ok": True, "bigtiff": "yes"}
    rasterio.open(endless, "w", "GTiff", tiled=True, blockxsize=4096, blockysize=4096, **form, **PLACE).close()
    with pytest.raises(DataError, match="500000x500000 pixels"):
        predict_raster(engine, endless, tmp_path / "labels.tif")
    one_strip = write_raster(tmp_path / "strip.tif", image, blockysize=SIZE[0], compress="deflate")
    with pytest.raises(DataError, match=r"blocks of 900x700[\s\S]*TILED=YES"):
        predict_raster(engine, one_strip, tmp_path / "labels.tif", memory=4 << 20)
    assert not (tmp_path / "labels.tif").exists()


def test_what_blending_cannot_do_is_refused(raster: Path, tmp_path: Path) -> None:
    labels_only = contract(protocol=SLIDING, output=OutputKind.LABELS)
    for described, options in (
        (labels_only, None),
        (contract(protocol=SLIDING), PredictOptions(flip=True)),
        (contract(protocol=SLIDING), PredictOptions(thresholds=0.5)),
    ):
        with pytest.raises(FFNetDeployError, match=r"one pass|labels only"):
            predict_raster(ToyEngine(described), raster, tmp_path / "labels.tif", options=options)
    assert not (tmp_path / "labels.tif").exists()
