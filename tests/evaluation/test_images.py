import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ffnet_deploy.core.errors import DataError, OptionError
from ffnet_deploy.evaluation.images import image_files, read_image, read_label_map
from tests.toy import picture

RGB = picture(40, 56)[..., ::-1]
ORIENTATION = 0x112


def exif(orientation: int) -> Image.Exif:
    header = Image.Exif()
    header[ORIENTATION] = orientation
    return header


def write_kinds(folder: Path) -> dict[str, Path]:
    rgb = Image.fromarray(np.ascontiguousarray(RGB))
    alpha = Image.fromarray(np.dstack([RGB, RGB[..., 0]]))
    made = {
        "grey.png": lambda path: rgb.convert("L").save(path),
        "grey.jpg": lambda path: rgb.convert("L").save(path),
        "one-bit.png": lambda path: rgb.convert("1").save(path),
        "palette.png": lambda path: rgb.convert("P").save(path),
        "rgba.png": lambda path: alpha.save(path),
        "grey-alpha.png": lambda path: rgb.convert("LA").save(path),
        "cmyk.jpg": lambda path: rgb.convert("CMYK").save(path),
        "progressive.jpg": lambda path: rgb.save(path, progressive=True),
        "plain.bmp": lambda path: rgb.save(path),
        "plain.tif": lambda path: rgb.save(path),
        "plain.webp": lambda path: rgb.save(path),
        "grey-16-bit.png": lambda path: cv2.imwrite(str(path), RGB[..., 0].astype(np.uint16) * 257 + 3),
        "colour-16-bit.png": lambda path: cv2.imwrite(str(path), RGB.astype(np.uint16) * 255),
    }
    for turned in range(1, 9):
        made[f"exif-{turned}.jpg"] = lambda path, turned=turned: rgb.save(path, exif=exif(turned))
        made[f"exif-{turned}.png"] = lambda path, turned=turned: rgb.save(path, exif=exif(turned))
    for name, save in made.items():
        save(folder / name)
    return {name: folder / name for name in made}


def test_every_kind_of_file_is_read_as_mmseg_reads_it(tmp_path: Path) -> None:
    transforms = pytest.importorskip("mmcv.transforms")
    files = write_kinds(tmp_path)
    different = []
    for name, path in files.items():
        expected = transforms.LoadImageFromFile().transform({"img_path": str(path)})["img"]
        found = read_image(path)
        if found.dtype != expected.dtype or not np.array_equal(found, expected):
            different.append(name)
    assert not different
    assert len(files) == 29


def test_exif_orientation_turns_the_image(tmp_path: Path) -> None:
    files = write_kinds(tmp_path)
    assert read_image(files["exif-1.jpg"]).shape == (40, 56, 3)
    assert read_image(files["exif-6.jpg"]).shape == (56, 40, 3)


@pytest.mark.parametrize("name", ["progressive.jpg", "exif-3.jpg", "rgba.png", "plain.bmp", "plain.webp", "plain.tif"])
@pytest.mark.parametrize("lost", [0.5, 0.02])
def test_a_truncated_file_is_one_error(
    tmp_path: Path, name: str, lost: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_kinds(tmp_path)[name]
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * (1 - lost))])
    with pytest.raises(DataError, match=name):
        read_image(path)
    assert capfd.readouterr() == ("", "")


def test_a_truncated_jpeg_with_a_whole_thumbnail_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "camera.jpg"
    thumbnail = cv2.imencode(".jpg", picture(8, 8))[1].tobytes()
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    content = cv2.imencode(".jpg", picture(40, 56))[1].tobytes()
    path.write_bytes(content[:2] + segment + content[2:])
    assert read_image(path).shape == (40, 56, 3)
    path.write_bytes(content[:2] + segment + content[2:-30])
    with pytest.raises(DataError, match="cut short"):
        read_image(path)


def test_a_png_with_flipped_bits_is_noticed(tmp_path: Path) -> None:
    path = write_kinds(tmp_path)["rgba.png"]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="damaged"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "0 bytes"), (b"not an image", "not an image"), (b"\xff\xd8\xff", "cut short")]
)
def test_what_is_no_image_is_an_error_that_names_the_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_or_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(DataError, match="cannot read"):
        read_image(tmp_path)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_label_maps_give_their_indices(tmp_path: Path, bits: int) -> None:
    ids = np.random.default_rng(bits).integers(0, 2**bits, (9, 13)).astype(np.uint8)
    picture = Image.fromarray(ids).convert("L")
    picture = Image.frombytes("P", (13, 9), ids.tobytes())
    picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    picture.save(tmp_path / "labels.png", bits=bits)
    assert np.array_equal(read_label_map(tmp_path / "labels.png"), ids)
    assert np.array_equal(np.array(Image.open(tmp_path / "labels.png")), ids)


def test_grey_and_one_bit_label_maps_are_read_as_stored(tmp_path: Path) -> None:
    ids = np.arange(117, dtype=np.uint8).reshape(9, 13)
    Image.fromarray(ids).save(tmp_path / "grey.png")
    assert np.array_equal(read_label_map(tmp_path / "grey.png"), ids)
    Image.fromarray(ids % 2 == 1).save(tmp_path / "bits.png")
    assert np.array_equal(read_label_map(tmp_path / "bits.png"), ids % 2)


def test_sixteen_bit_label_maps_are_read_as_stored(tmp_path: Path) -> None:
    path = tmp_path / "labels.png"
    for value, kind in ((7, np.uint8), (255, np.uint8), (256, np.uint16), (65535, np.uint16)):
        cv2.imwrite(str(path), np.full((4, 5), value, np.uint16))
        assert (read_label_map(path) == value).all() and read_label_map(path).dtype == kind
    cv2.imwrite(str(path.with_suffix(".tif")), np.full((4, 5), 70_000, np.int32))
    with pytest.raises(DataError, match="up to 70000"):
        read_label_map(path.with_suffix(".tif"))


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_label_maps_are_refused_whatever_their_name(suffix: str, tmp_path: Path) -> None:
    content = cv2.imencode(suffix, np.full((40, 50), 7, np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 80])[1].tobytes()
    (tmp_path / "labels.png").write_bytes(content)
    with pytest.raises(DataError, match="compressed with loss"):
        read_label_map(tmp_path / "labels.png")
    assert read_image(tmp_path / "labels.png").shape == (40, 50, 3)


def write_tiff(path: Path, compression: str | None, big: bool = False) -> None:
    grey = Image.fromarray(np.arange(0, 200, 0.1).astype(np.uint8).reshape(40, 50))
    grey.save(path, format="TIFF", compression=compression, big_tiff=big)


@pytest.mark.parametrize("big", [False, True])
def test_tiff_label_maps_are_refused_where_they_are_compressed_with_loss(tmp_path: Path, big: bool) -> None:
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        write_tiff(tmp_path / "labels.tif", compression, big)
        assert np.array_equal(read_label_map(tmp_path / "labels.tif").ravel(), np.arange(0, 200, 0.1).astype(np.uint8))
    write_tiff(tmp_path / "labels.tif", "jpeg", big)
    with pytest.raises(DataError, match="compressed with loss"):
        read_label_map(tmp_path / "labels.tif")


def test_big_tiffs_have_the_limit_on_pixels_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiff(tmp_path / "labels.tif", "tiff_lzw", big=True)
    monkeypatch.setenv("FFNET_MAX_PIXELS", "1999")
    with pytest.raises(DataError, match="FFNET_MAX_PIXELS=2000"):
        read_label_map(tmp_path / "labels.tif")


def test_lossless_webp_label_maps_are_not_called_lossy(tmp_path: Path) -> None:
    content = cv2.imencode(".webp", picture(40, 50), [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    (tmp_path / "labels.webp").write_bytes(content)
    with pytest.raises(DataError, match="in colour"):
        read_label_map(tmp_path / "labels.webp")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_images_with_too_many_pixels_are_refused(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"image{suffix}"
    cv2.imwrite(str(path), picture(40, 50))
    monkeypatch.setenv("FFNET_MAX_PIXELS", "2000")
    assert read_image(path).shape == (40, 50, 3)
    monkeypatch.setenv("FFNET_MAX_PIXELS", "1999")
    for read in (read_image, read_label_map):
        with pytest.raises(DataError, match=r"million pixels[\s\S]*FFNET_MAX_PIXELS=2000|compressed with loss"):
            read(path)
    monkeypatch.setenv("FFNET_MAX_PIXELS", "many")
    with pytest.raises(OptionError, match="positive number of pixels"):
        read_image(path)


def test_a_small_file_of_a_billion_pixels_takes_no_memory(tmp_path: Path) -> None:
    lines = zlib.compress(bytes(4001) * 32_000, 9)  # 32,000 x 32,000 pixels of one bit each
    header = struct.pack(">IIBBBBB", 32_000, 32_000, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", lines), (b"IEND", b"")]
    content = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    for read in (read_image, read_label_map):
        with pytest.raises(DataError, match="1024 million pixels; at most 100 million"):
            read(tmp_path / "bomb.png")


def test_coloured_label_maps_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "labels.png"), picture(4, 5))
    with pytest.raises(DataError, match="one class id per pixel"):
        read_label_map(tmp_path / "labels.png")


def test_real_label_maps_equal_mmsegs_loader(shared_data: Path) -> None:
    loading = pytest.importorskip("mmseg.datasets.transforms.loading")
    files = sorted(shared_data.glob("*/annotations/val*/*.png"))[::4] + sorted(shared_data.glob("*/gtFine/val/*/*.png"))
    assert files
    for path in files:
        results = {"seg_map_path": str(path), "reduce_zero_label": False, "seg_fields": []}
        expected = loading.LoadAnnotations().transform(results)["gt_seg_map"]
        assert np.array_equal(read_label_map(path), expected), path.name


def test_image_files_are_found_in_folders_below_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "sub/c.webp", "._a.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path)] == ["a.jpg", "b.PNG", "sub/c.webp"]
