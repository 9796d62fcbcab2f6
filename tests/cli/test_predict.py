"""ffnet-predict: images, folders, patterns and videos; what is written, what is skipped, what is refused."""

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import ffnet_deploy
from ffnet_deploy.cli.predict import app
from ffnet_deploy.evaluation.images import read_label_map
from tests.commands import Result, invoke
from tests.disks import largest_file, read_only
from tests.toy import contract, picture


def run(*arguments: object) -> Result:
    return invoke(app, *arguments, env={"COLUMNS": "200"})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "more/c.png")):
        cv2.imwrite(str(folder / name), picture(60, 90, seed=number))
    return folder


def write_video(path: Path, frames: int = 12, size: tuple[int, int] = (64, 96), codec: str = "mpeg4") -> Path:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p" if codec == "mpeg4" else "yuvj444p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(*size, seed=number), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_label_maps_and_class_shares_of_a_folder(artifact: Path, photos: Path, tmp_path: Path) -> None:
    done = run(artifact, photos, "--save-labels", tmp_path / "labels", "--csv", tmp_path / "shares.csv")
    assert done.exit_code == 0, done.output
    rows = list(csv.reader((tmp_path / "shares.csv").open()))
    assert rows[0] == ["image", "no class", *contract().classes]
    with ffnet_deploy.open_engine(artifact) as engine:
        for name, *shares in rows[1:]:
            labels = engine.predict(cv2.imread(str(photos / f"{name}.png")))
            assert (read_label_map(tmp_path / "labels" / f"{name}.png") == labels).all()
            expected = np.bincount(labels.ravel(), minlength=11) / labels.size
            assert np.abs(np.array(shares[1:], float) - expected).max() < 1e-6
    assert [row[0] for row in rows[1:]] == ["a", "b", "more/c"]


def test_pictures_are_written_where_nothing_else_is_asked_for(
    artifact: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(artifact, photos / "*.png").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "predictions").iterdir()) == ["a.png", "b.png"]


def test_what_cannot_be_read_is_listed_and_the_exit_code_says_so(artifact: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    done = run(artifact, photos, "--save-labels", tmp_path / "labels")
    assert done.exit_code == 5 and "broken.png" in done.stderr
    assert len(list((tmp_path / "labels").rglob("*.png"))) == 3


def test_thresholds_leave_pixels_without_a_class(artifact: Path, photos: Path, tmp_path: Path) -> None:
    options = "--threshold", "0.2", "--threshold", "road=1"
    assert run(artifact, photos / "a.png", "--save-labels", tmp_path / "labels", *options).exit_code == 0
    assert (read_label_map(tmp_path / "labels" / "a.png") == 255).any()


def test_a_video_keeps_its_frames_and_their_times(artifact: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    film = write_video(tmp_path / "film.mp4")
    for _ in range(2):  # its own video is replaced
        done = run(artifact, film, "--save-video", tmp_path / "out.mp4")
        assert done.exit_code == 0, done.output
    assert "12 frames" in done.stdout
    times = []
    for path in (film, tmp_path / "out.mp4"):
        with av.open(str(path)) as container:
            times.append([float(frame.pts * frame.time_base) for frame in container.decode(video=0)])
            rate = float(container.streams.video[0].average_rate)
    assert np.allclose(times[0], times[1], atol=1e-3) and rate == 10


def test_a_raster_keeps_its_place_and_is_replaced_by_the_next(artifact: Path, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.2, 0, 430_000, 0, -0.2, 5_500_000)}
    form = {"driver": "GTiff", "count": 3, "height": 200, "width": 300, "dtype": "uint8", **place}
    with rasterio.open(tmp_path / "ground.tif", "w", **form) as file:
        file.write(np.moveaxis(picture(200, 300), -1, 0))
    for _ in range(2):
        done = run(artifact, tmp_path / "ground.tif", "--save-raster", tmp_path / "labels.tif", "--memory", "64MiB")
        assert done.exit_code == 0, done.output
        assert "300x200 pixels" in done.stdout and "seam error" in done.stdout
    with rasterio.open(tmp_path / "labels.tif") as file:
        assert (file.crs, file.transform, file.shape) == (place["crs"], place["transform"], (200, 300))
    assert (
        "is not a raster of ffnet-predict" in run(artifact, tmp_path, "--save-raster", tmp_path / "ground.tif").stderr
    )


def test_rasters_name_the_extra_and_their_options(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground, out = tmp_path / "ground.tif", tmp_path / "labels.tif"
    cv2.imwrite(str(ground), picture(64, 96))
    assert "ends in .tif" in run(artifact, ground, "--save-raster", tmp_path / "labels.png").stderr
    assert "1500MiB or 2GiB" in run(artifact, ground, "--save-raster", out, "--memory", "much").stderr
    assert "becomes a raster" in run(artifact, ground, "--save-raster", out, "--csv", tmp_path / "x.csv").stderr
    monkeypatch.setitem(sys.modules, "rasterio", None)
    refused = run(artifact, ground, "--save-raster", out)
    assert "[raster]" in refused.stderr and "rasterio" in refused.stderr and not out.exists()


def test_what_does_not_go_together_is_refused(artifact: Path, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    film = write_video(tmp_path / "film.mp4", frames=2)
    before = film.read_bytes()
    assert "is an input" in run(artifact, film, "--save-video", film).stderr
    assert film.read_bytes() == before
    assert "are of images" in run(artifact, film, "--csv", tmp_path / "x.csv").stderr
    assert "read as images" in run(artifact, photos, "--save-video", tmp_path / "x.mp4").stderr
    assert "CLASS=SHARE" in run(artifact, photos, "--threshold", "often").stderr
    assert "does not exist" in run(artifact, tmp_path / "nothing").stderr
    (tmp_path / "no.mp4").write_bytes(b"no film")
    assert "cannot open the video" in run(artifact, tmp_path / "no.mp4", "--save-video", tmp_path / "y.mp4").stderr
    assert not (tmp_path / "y.mp4").exists()


@pytest.mark.parametrize(
    ("source", "number", "code"), [("photos", signal.SIGINT, 130), ("film.mp4", signal.SIGTERM, 143)]
)
def test_a_signal_leaves_whole_files_alone(
    artifact: Path, tmp_path: Path, source: str, number: signal.Signals, code: int
) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    cv2.imwrite(str(folder / "0.png"), picture(600, 800))
    for index in range(1, 400):
        (folder / f"{index}.png").symlink_to(folder / "0.png")
    if source == "film.mp4":
        write_video(tmp_path / source, frames=3000)
    saved = ("--save-video", out / "film.mp4") if source == "film.mp4" else ("--save-labels", out)
    command = [sys.executable, "-c", "from ffnet_deploy.cli.predict import main; main()", artifact, tmp_path / source]
    running = subprocess.Popen(
        [*map(str, command), *map(str, saved), "--threads", "1"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list(out.glob(".film*" if source == "film.mp4" else "*.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(number)
    _, errors = running.communicate(timeout=120)
    assert running.returncode == code, errors
    assert errors.count("error:") == 1 and "Traceback" not in errors
    left = sorted(out.iterdir())
    assert (source == "film.mp4") == (not left) and len(left) < 400
    for path in left:
        assert path.suffix == ".png" and read_label_map(path).shape == (600, 800)


@pytest.mark.parametrize("option", ["--csv", "--save-images", "--save-labels", "--save-scores", "--save-video"])
@pytest.mark.parametrize("disk", ["full", "read-only"])
def test_a_disk_that_takes_nothing_is_one_line(
    artifact: Path, photos: Path, tmp_path: Path, option: str, disk: str
) -> None:
    source, target = photos, tmp_path / "out"
    if option == "--save-video":
        source = write_video(tmp_path / "film.mp4")
    if option in ("--csv", "--save-video"):
        target /= f"new{'.mp4' if option == '--save-video' else '.csv'}"
    with largest_file(100) if disk == "full" else read_only(tmp_path / "out"):
        done = run(artifact, source, option, target)
    assert done.exit_code == 1 and done.stderr.count("error:") == 1, done.output
    assert ("no room left to write" if disk == "full" else "cannot write") in done.stderr and "to do" in done.stderr
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_numbers_that_no_run_reaches_are_refused(artifact: Path, photos: Path) -> None:
    assert "--limit takes a number up to" in run(artifact, photos, "--limit", 10**30).stderr
    assert "0 to 1" in run(artifact, photos, "--threshold", "nan").stderr


def test_images_and_frames_above_the_limit_of_pixels_are_not_decoded(
    artifact: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FFNET_MAX_PIXELS", "100000000")  # what the command sets ends with this test
    film = write_video(tmp_path / "film.mp4")
    image = run(artifact, photos / "a.png", "--save-labels", tmp_path / "out", "--max-pixels", 5000)
    assert image.exit_code == 1 and "FFNET_MAX_PIXELS=5400" in image.stderr, image.output
    frame = run(artifact, film, "--save-video", tmp_path / "out" / "x.mp4", "--max-pixels", 5000)
    assert frame.exit_code == 1 and "FFNET_MAX_PIXELS=6144" in frame.stderr, frame.output
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("size", "message"),
    [((64, 1), "are 1 pixel wide"), ((1, 20_000), "a frame of"), ((640, 17_000), "cannot be encoded")],
)
def test_frames_that_no_video_holds_are_one_error(
    artifact: Path, tmp_path: Path, size: tuple[int, int], message: str
) -> None:
    film = write_video(tmp_path / "film.avi", 1, size, "mjpeg")
    done = run(artifact, film, "--save-video", tmp_path / "out" / "x.mp4")
    assert done.exit_code == 1 and done.stderr.count("error:") == 1 and message in done.stderr, done.output
    assert "VideoFrame" not in done.stderr and list((tmp_path / "out").iterdir()) == []
