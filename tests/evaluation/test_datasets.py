from pathlib import Path

import cv2
import numpy as np
import pytest

from ffnet_deploy.core.errors import DataError, OptionError
from ffnet_deploy.evaluation.datasets import check_range, open_dataset, open_images
from ffnet_deploy.evaluation.label_readers import class_labels
from tests.toy import label_map, picture, write_pairs


def write(path: Path, content: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), content)
    return path


def write_cityscapes(root: Path, kinds: tuple[str, ...] = ("labelTrainIds",), values: np.ndarray | None = None) -> Path:
    for number in range(2):
        name = f"ulm_{number:06d}_000019"
        write(root / "leftImg8bit/val/ulm" / f"{name}_leftImg8bit.png", picture(32, 64, number))
        for kind in kinds:
            content = label_map(32, 64, 19, number) if values is None else values
            write(root / "gtFine/val/ulm" / f"{name}_gtFine_{kind}.png", content)
    return root


@pytest.mark.parametrize(
    ("folder", "network", "split", "count"),
    [
        ("camvid", "camvid", "val", 101),
        ("camvid", "camvid", "training", 367),
        ("ade20k_sample", "ade20k", "val", 23),
        ("ade20k_sample", "ade20k", "train", 11),
        ("cityscapes_sample", "cityscapes", "validation", 2),
        ("cityscapes_sample", "cityscapes", "train", 3),
    ],
)
def test_real_folders_are_recognised(shared_data: Path, folder: str, network: str, split: str, count: int) -> None:
    found = open_dataset(shared_data / folder, network, split=split)
    assert (found.name, len(found)) == (network, count)
    image, labels = found.read(found.samples[0], {"camvid": 11, "ade20k": 150, "cityscapes": 19}[network])
    assert labels is not None and labels.shape == image.shape[:2]


def test_real_ade20k_labels_equal_mmsegs_reduced_ones(shared_data: Path) -> None:
    loading = pytest.importorskip("mmseg.datasets.transforms.loading")
    found = open_dataset(shared_data / "ade20k_sample", "ade20k")
    for sample in found.samples:
        results = {"seg_map_path": str(sample.labels), "reduce_zero_label": True, "seg_fields": []}
        expected = loading.LoadAnnotations().transform(results)["gt_seg_map"]
        assert np.array_equal(found.read(sample, 150)[1], expected), sample.name


def test_real_cityscapes_label_ids_map_to_the_train_ids(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "leftImg8bit").symlink_to(shared_data / "cityscapes_sample/leftImg8bit")
    for path in (shared_data / "cityscapes_sample/gtFine").glob("val/*/*_labelIds.png"):
        link = tmp_path / path.relative_to(shared_data / "cityscapes_sample")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    mapped = open_dataset(tmp_path, "cityscapes")
    official = open_dataset(shared_data / "cityscapes_sample", "cityscapes")
    assert len(mapped) == len(official) == 2
    for ours, theirs in zip(mapped.samples, official.samples, strict=True):
        assert str(ours.labels).endswith("_labelIds.png") and str(theirs.labels).endswith("_labelTrainIds.png")
        assert np.array_equal(mapped.read(ours, 19)[1], official.read(theirs, 19)[1])


def moved_down(stored: np.ndarray) -> np.ndarray:
    return class_labels(stored, "ade20k", Path("a.png"), 255)


def test_zero_is_ignored_and_the_rest_moves_down() -> None:
    assert moved_down(np.array([[0, 1, 150, 254, 255]], np.uint8)).tolist() == [[255, 0, 149, 253, 255]]


def test_train_ids_are_preferred_to_label_ids(tmp_path: Path) -> None:
    found = open_dataset(write_cityscapes(tmp_path, ("labelTrainIds", "labelIds", "color")), "custom")
    assert found.name == "cityscapes"
    assert [sample.name for sample in found.samples] == ["ulm/ulm_000000_000019", "ulm/ulm_000001_000019"]
    assert all(str(sample.labels).endswith("_labelTrainIds.png") for sample in found.samples)


def test_folders_of_your_own_may_be_nested(tmp_path: Path) -> None:
    for kind, content in (("images", picture(8, 9)), ("annotations", label_map(8, 9))):
        write(tmp_path / kind / "val/day/a.png", content)
        write(tmp_path / kind / "val/night/a.png", content)
    assert [sample.name for sample in open_dataset(tmp_path, "camvid").samples] == ["day/a", "night/a"]


def test_the_meaning_of_labels_can_be_given(tmp_path: Path) -> None:
    root = write_pairs(tmp_path, 1)
    found = open_dataset(root, "camvid", "ade20k")
    stored = cv2.imread(str(found.samples[0].labels), cv2.IMREAD_UNCHANGED)
    labels = found.read(found.samples[0], 11)[1]
    assert np.array_equal(labels, moved_down(stored))


def test_a_limit_takes_the_first(tmp_path: Path) -> None:
    found = open_dataset(write_pairs(tmp_path), "camvid")
    assert [sample.name for sample in found.limited(2).samples] == ["scene_0", "scene_1"]
    assert len(found.limited(None)) == len(found.limited(10)) == 3
    with pytest.raises(OptionError, match="limit of 0"):
        found.limited(0)


def test_missing_pairs_are_counted_and_named(tmp_path: Path) -> None:
    root = write_pairs(tmp_path, 9)
    for number in range(1, 8):
        (root / f"annotations/val/scene_{number}.png").unlink()
    (root / "images/val/scene_0.png").unlink()
    with pytest.raises(DataError) as caught:
        open_dataset(root, "camvid")
    message = str(caught.value)
    assert "7 of 8 images have no label map" in message
    assert "scene_1, scene_2, scene_3, scene_4, scene_5, ..." in message
    assert "1 of 2 label maps have no image" in message and "scene_0" in message


def test_missing_cityscapes_labels_are_named(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path)
    (root / "gtFine/val/ulm/ulm_000001_000019_gtFine_labelTrainIds.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 images have no label map .*: ulm/ulm_000001_000019"):
        open_dataset(root, "cityscapes")


@pytest.mark.parametrize(
    "made", [(), ("images",), ("images/val", "annotations/val"), ("images/train", "annotations/train")]
)
def test_folders_without_what_is_needed_are_one_error(tmp_path: Path, made: tuple[str, ...]) -> None:
    for name in made:
        (tmp_path / name).mkdir(parents=True)
    expected = {0: "is empty", 1: "not laid out"}.get(len(made)) or (
        "no images" if "images/val" in made else "found train"
    )
    with pytest.raises(DataError, match=expected):
        open_dataset(tmp_path, "camvid")


def test_a_missing_folder_and_one_level_too_high_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_dataset(tmp_path / "absent", "camvid")
    write_pairs(tmp_path / "camvid")
    with pytest.raises(DataError, match=f"perhaps --data {tmp_path / 'camvid'}"):
        open_dataset(tmp_path, "camvid")


def test_another_size_of_labels_is_an_error(tmp_path: Path) -> None:
    root = write_pairs(tmp_path, 1)
    write(root / "annotations/val/scene_0.png", label_map(30, 45))
    found = open_dataset(root, "camvid")
    with pytest.raises(DataError, match=r"differ in size[\s\S]*90x60[\s\S]*45x30"):
        found.read(found.samples[0], 11)


def test_ids_out_of_range_are_named_with_pixels_and_range(tmp_path: Path) -> None:
    root = write_pairs(tmp_path, 1)
    labels = np.zeros((60, 90), np.uint8)
    labels[0, :5], labels[1, :3] = 11, 40
    write(root / "annotations/val/scene_0.png", labels)
    found = open_dataset(root, "camvid")
    with pytest.raises(DataError) as caught:
        found.read(found.samples[0], 11)
    message = str(caught.value)
    assert "11 (5 pixels), 40 (3 pixels)" in message
    assert "0..10" in message and "scene_0.png" in message


def test_ids_that_count_from_one_get_a_hint(tmp_path: Path) -> None:
    root = write_pairs(tmp_path, 1)
    write(root / "annotations/val/scene_0.png", np.full((60, 90), 11, np.uint8))
    found = open_dataset(root, "camvid")
    with pytest.raises(DataError, match="--dataset ade20k"):
        found.read(found.samples[0], 11)


def test_ids_of_ade20k_are_reported_as_stored(tmp_path: Path) -> None:
    root = write_pairs(tmp_path, 1)
    write(root / "annotations/val/scene_0.png", np.full((60, 90), 151, np.uint8))
    found = open_dataset(root, "ade20k")
    with pytest.raises(DataError, match=r"151 \(5400 pixels\)[\s\S]*expected 1\.\.150, and 0 for"):
        found.read(found.samples[0], 150)


def test_label_ids_under_the_name_of_train_ids_get_a_hint(tmp_path: Path) -> None:
    found = open_dataset(write_cityscapes(tmp_path, values=np.full((32, 64), 26, np.uint8)), "cityscapes")
    with pytest.raises(DataError, match="label ids"):
        found.read(found.samples[0], 19)


def test_unknown_names_are_errors(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="unknown data set 'coco'"):
        open_dataset(tmp_path, "camvid", "coco")
    with pytest.raises(OptionError, match="unknown split 'minival'"):
        open_dataset(tmp_path, "camvid", split="minival")


def test_cityscapes_does_not_fit_a_network_for_ade20k(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="classes of ade20k"):
        open_dataset(write_cityscapes(tmp_path), "ade20k")


def test_images_without_labels(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "sub/b.png"):
        write(tmp_path / name, picture(8, 9))
    found = open_images(tmp_path)
    assert [sample.name for sample in found.samples] == ["a.jpg", "a.png", "sub/b"]
    assert found.read(found.samples[0], 11)[1] is None
    assert [sample.name for sample in open_images(tmp_path / "a.png").samples] == ["a"]
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no images"):
        open_images(tmp_path / "none")
    with pytest.raises(DataError, match="does not exist"):
        open_images(tmp_path / "absent")


@pytest.mark.parametrize("count", [256, 300, 4000])
def test_more_classes_than_uint8_holds_are_told_apart(count: int) -> None:
    ids = np.arange(count, dtype=np.uint16).reshape(1, -1)
    plain = class_labels(ids, "custom", Path("a.png"), count)
    assert plain.dtype == np.uint16 and np.array_equal(plain, ids), "255 is a class like any other"
    shifted = class_labels(np.append(ids + 1, [[0, 65535]], axis=1).astype(np.uint16), "ade20k", Path("a.png"), count)
    assert np.array_equal(shifted[:, :-2], ids) and shifted[0, -2:].tolist() == [65535, 65535]
    with pytest.raises(DataError, match=rf"do not have: {count} \(1 pixels\)[\s\S]*65535 for what is not scored"):
        check_range(np.array([[count, 65535]], np.uint16), count, Path("a.png"), "custom")


def test_ids_above_255_for_few_classes_are_refused_by_number(tmp_path: Path) -> None:
    root = write_pairs(tmp_path, 1)
    sample = open_dataset(root, "camvid").samples[0]
    write(sample.labels, np.full((60, 90), 260, np.uint16))
    with pytest.raises(DataError, match=r"11 classes do not have: 260 \(5400 pixels\)"):
        open_dataset(root, "camvid").read(sample, 11)
