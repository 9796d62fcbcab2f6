from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ffnet_deploy.core.errors import DataError, OptionError
from ffnet_deploy.core.label_sets import LabelSet
from ffnet_deploy.evaluation.data_source import DataSource
from ffnet_deploy.evaluation.data_summary import summarize, write_contact_sheet
from ffnet_deploy.evaluation.datasets import Dataset, open_dataset
from ffnet_deploy.evaluation.label_readers import CocoImage, CocoObjects, filled
from tests.evaluation import layout_examples as examples

CLASSES = examples.CLASSES


def source(root: Path, layout: str) -> DataSource:
    examples.LAYOUTS[layout](root)
    return DataSource(root, **examples.OPTIONS.get(layout, {}))


def opened(root: Path, layout: str) -> dict[str, Dataset]:
    if layout in ("coco", "coco_panoptic"):
        pytest.importorskip("pycocotools", reason="COCO files need the extra coco")
    given = source(root, layout)
    return {split: open_dataset(given, "custom", split=split) for split in ("train", "val")}


@pytest.mark.parametrize("layout", examples.LAYOUTS)
def test_classes_and_pixels_are_those_of_an_independent_count(tmp_path: Path, layout: str) -> None:
    splits = opened(tmp_path, layout)
    found = {split: summarize(dataset, CLASSES) for split, dataset in splits.items()}
    labels = splits["train"].label_set
    assert labels is not None and labels.classes == CLASSES
    pixels = np.add(found["train"].pixels, found["val"].pixels)
    assert tuple(pixels) == examples.counted(range(12)), found
    assert found["train"].ignored == found["val"].ignored == 0
    if layout in examples.DRAWN:
        assert (found["train"].pairs, found["val"].pairs) == (10, 2)
    else:
        assert found["train"].pixels == examples.counted(range(9)) and found["val"].pairs == 3


@pytest.mark.parametrize("layout", examples.LAYOUTS)
def test_every_label_map_is_the_one_that_was_painted(tmp_path: Path, layout: str) -> None:
    for dataset in opened(tmp_path, layout).values():
        for sample in dataset.samples:
            image, labels = dataset.read(sample, 3)
            number = int(Path(sample.name).stem)
            assert labels is not None and np.array_equal(labels, examples.truth(number)), sample.name
            assert np.abs(image.astype(int) - examples.image(number)).mean() < 12


def test_a_drawn_split_is_the_same_each_time_and_another_for_another_seed(tmp_path: Path) -> None:
    examples.without_splits(tmp_path)

    def names(split: str, seed: int = 0) -> set[str]:
        drawn = open_dataset(DataSource(tmp_path, split_seed=seed), "custom", split=split)
        assert f"seed {seed}" in " ".join(drawn.notes)
        return {sample.name for sample in drawn.samples}

    assert names("val") == names("val") and not names("val") & names("train")
    assert len(names("val") | names("train")) == 12
    assert any(names("val", seed) != names("val") for seed in range(1, 5))
    with pytest.raises(DataError, match="test is not"):
        open_dataset(tmp_path, "custom", split="test")


def test_a_file_is_a_data_set_too(tmp_path: Path) -> None:
    examples.yolo(tmp_path)
    assert len(open_dataset(tmp_path / "data.yaml", "custom", split="val")) == 3
    pytest.importorskip("pycocotools", reason="COCO files need the extra coco")
    examples.coco(tmp_path / "coco")
    path = tmp_path / "coco/annotations/instances_train2017.json"
    assert len(open_dataset(path, "custom", split="train")) == 9
    assert len(open_dataset(path, "custom", split="val")) == 3


def test_masks_of_black_and_white_are_read_by_their_greys(tmp_path: Path) -> None:
    examples.folders(tmp_path)
    for path in tmp_path.glob("annotations/*/*.png"):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(labels == 1, 255, 0).astype(np.uint8))
    (tmp_path / "classes.txt").unlink()
    binary = open_dataset(tmp_path, "custom", split="train")
    with pytest.raises(DataError, match=r"only 0 and 255[\s\S]*object 255 255 255"):
        summarize(binary, ("background", "object"))
    (tmp_path / "classes.txt").write_text("background 0 0 0\nobject 255 255 255\n")
    found = summarize(open_dataset(tmp_path, "custom", split="train"), ("background", "object"))
    counts = examples.counted(range(9))
    assert found.pixels == (counts[0] + counts[2], counts[1]) and found.ignored == 0


def test_absent_classes_are_warned_of(tmp_path: Path) -> None:
    examples.folders(tmp_path)
    found = summarize(open_dataset(tmp_path, "custom", split="train"), (*CLASSES, "unicorn"))
    assert found.warnings() == ["1 of 4 classes are in no label map of train: unicorn"]
    assert "unicorn 0.00 %" in "\n".join(found.lines())


@pytest.mark.parametrize(
    ("layout", "damage", "told"),
    [
        ("colours", lambda root: (root / "classes.txt").unlink(), r"in colour[\s\S]*classes\.txt"),
        ("colours", lambda root: (root / "classes.txt").write_text("ground 90 60 30\n"), r"colours that no class has"),
        ("folders", lambda root: shift_names(root / "annotations/train"), r"1 of 9 images have no label map[^\n]*: 0"),
        ("other_names", lambda root: None, r"is not laid out[\s\S]*--images-dir"),
        ("yolo", lambda root: rewrite(root / "labels/train/3.txt", "0 0.5 0.5 0.1 0.1"), r"3\.txt, line 1 is a box"),
        ("yolo", lambda root: rewrite(root / "labels/train/3.txt", "7 0 0 0 1 1 1"), r"names the class 7"),
        ("yolo", lambda root: rewrite(root / "labels/train/3.txt", "0 0 0 0 99 99 99"), r"shares of width and height"),
        ("yolo", lambda root: rewrite(root / "data.yaml", "names: [a\ntrain: x"), r"cannot be read as YAML"),
        ("coco", lambda root: rewrite(root / "annotations/instances_train2017.json", "{}"), r"no COCO file"),
        ("coco_panoptic", lambda root: repaint(root / "annotations/panoptic_train/3.png"), r"does not list"),
        ("voc", lambda root: (root / "SegmentationClass/2.png").unlink(), r"1 of 9 names[\s\S]*: 2"),
        ("voc", lambda root: rewrite(root / "labelmap.txt", "ground:1,2::"), r"three values"),
    ],
)
def test_wrong_data_is_one_clear_error(tmp_path: Path, layout: str, damage: Callable[[Path], Any], told: str) -> None:
    if layout.startswith("coco"):
        pytest.importorskip("pycocotools", reason="COCO files need the extra coco")
    examples.LAYOUTS[layout](tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match=told):
        summarize(open_dataset(tmp_path, "custom", split="train"), CLASSES)


def shift_names(folder: Path) -> None:
    """Rename every mask to the next image's number."""
    for number in reversed(range(9)):
        (folder / f"{number}.png").rename(folder / f"{number + 1}.png")


def rewrite(path: Path, text: str) -> None:
    path.write_text(text)


def repaint(path: Path) -> None:
    cv2.imwrite(str(path), np.full((64, 96, 3), 9, np.uint8))


def test_the_full_ade20k_is_named(tmp_path: Path) -> None:
    for split in ("training", "validation"):
        examples.save(tmp_path / f"images/{split}/a/abbey/ADE_train_00000970.jpg", examples.image(0))
        examples.save(tmp_path / f"images/{split}/a/abbey/ADE_train_00000970_seg.png", examples.in_colour(0))
    with pytest.raises(DataError, match="ADEChallengeData2016"):
        open_dataset(tmp_path, "ade20k", split="train")
    (tmp_path / "annotations/training").mkdir(parents=True)
    with pytest.raises(DataError, match="ADEChallengeData2016"):
        open_dataset(tmp_path, "ade20k", split="train")


def test_other_classes_than_the_networks_are_refused(tmp_path: Path) -> None:
    examples.folders(tmp_path)
    assert len(open_dataset(tmp_path, "custom", classes=CLASSES)) == 3
    with pytest.raises(DataError, match="class 1 is 'box' in the data, 'bax' in the network"):
        open_dataset(tmp_path, "custom", classes=("ground", "bax", "background"))
    with pytest.raises(DataError, match="3 against 2, and class 2 is 'background' in the data, 'nothing'"):
        open_dataset(tmp_path, "custom", classes=("ground", "box"))


def test_folders_go_together() -> None:
    with pytest.raises(OptionError, match="name both"):
        DataSource(Path(), images_dir="photos")


def test_a_contact_sheet_shows_eight_samples(tmp_path: Path) -> None:
    examples.folders(tmp_path)
    dataset = open_dataset(tmp_path, "custom", split="train")
    write_contact_sheet(tmp_path / "sheet.png", dataset, LabelSet(CLASSES, examples.COLOURS))
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape[0] > 2 * 213 and sheet.shape[1] > 4 * 320
    tile = sheet[30 : 30 + 213, 12 : 12 + 320]
    image, labels = dataset.read(dataset.samples[0], 3)
    assert labels is not None
    wanted = 0.4 * image + 0.6 * np.array(examples.COLOURS)[labels][..., ::-1]
    assert np.abs(cv2.resize(wanted, (320, 213)) - tile).mean() < 16


@pytest.mark.parametrize("seed", range(3))
def test_polygons_hold_the_pixels_whose_centres_lie_inside(seed: int) -> None:
    corners = np.random.default_rng(seed).uniform(-5, 45, (3, 2))
    rows, columns = np.mgrid[0:40, 0:40] + 0.5
    sides = []
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        sides.append((x1 - x0) * (rows - y0) - (y1 - y0) * (columns - x0) > 0)
    inside = (sides[0] == sides[1]) & (sides[1] == sides[2])
    assert np.array_equal(filled(corners, 40, 40), inside)


@pytest.mark.parametrize(
    ("segmentation", "told"),
    [
        ([[0, 0, 1e12, 0, 1e12, 1e12]], "far outside"),
        ([[0, 0, float("nan"), 0, 4, 4]], "far outside"),
        ([[0, 0, 4, 4]], "three corners"),
        ([[[0, 0], [4, 0], [4, 4]]], "three corners"),
        ({"size": [64, 96], "counts": [0, 10**9]}, "do not add up"),
        ({"size": [64, 96], "counts": [-5, 64 * 96 + 5]}, "do not add up"),
        ({"size": [64, 96], "counts": "PPPPPPPPPP"}, "do not add up"),
        ({"size": [64, 97], "counts": [64 * 96]}, "are of size"),
    ],
)
def test_segmentations_that_do_not_fit_their_image_never_reach_c_code(
    segmentation: Any, told: str, tmp_path: Path
) -> None:
    pytest.importorskip("pycocotools", reason="COCO files need the extra coco")
    reader = CocoObjects({"a": CocoImage((64, 96), ((1, segmentation),))}, 2)
    with pytest.raises(DataError, match=told):
        reader(tmp_path / "a.jpg", tmp_path / "a.json", "a", 3)


def test_run_lengths_in_both_forms_are_drawn_as_pycocotools_draws_them(tmp_path: Path) -> None:
    masks = pytest.importorskip("pycocotools.mask", reason="COCO files need the extra coco")
    rng = np.random.default_rng(0)
    for height, width in ((64, 96), (7, 5), (1, 300)):
        mask = rng.random((height, width)) < rng.choice([0.01, 0.5, 0.99])
        packed = masks.encode(np.asfortranarray(mask.astype(np.uint8)))
        flat = mask.ravel(order="F").astype(int)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
        plain = np.diff(np.concatenate([[0], edges])).tolist()
        for counts in (packed["counts"].decode(), plain):
            one = CocoImage((height, width), ((1, {"size": [height, width], "counts": counts}),))
            found = CocoObjects({"a": one}, 0)(tmp_path / "a.jpg", tmp_path / "a.json", "a", 2)
            assert np.array_equal(found == 1, mask)


def test_an_image_of_a_size_that_none_has_is_not_drawn(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools", reason="COCO files need the extra coco")
    for size in ((10**9, 10**9), (0, 4), (-4, -4)):
        with pytest.raises(DataError, match="which no image has"):
            CocoObjects({"a": CocoImage(size, ())}, 0)(tmp_path / "a.jpg", tmp_path / "a.json", "a", 2)


def test_data_descriptions_name_files_by_text(tmp_path: Path) -> None:
    examples.yolo(tmp_path)
    bomb = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(22)
    )
    for changed, told in (
        (f"{bomb}names: [ground, box]\npath: *w\nval: images/val\n", "names of folders or files"),
        (f"{bomb}names: *w\nval: images/val\n", "the name of every class"),
        ("names: {0: a, b: c}\nval: images/val\n", "numbered 0..1"),
        ("names: [2001-99-99]\nval: images/val\n", "cannot be read as YAML"),
    ):
        (tmp_path / "data.yaml").write_text(changed)
        with pytest.raises(DataError, match=told):
            open_dataset(tmp_path / "data.yaml", "custom")


@pytest.mark.parametrize(
    ("layout", "file"),
    [("voc", "ImageSets/Segmentation/val.txt"), ("voc", "labelmap.txt"), ("roboflow", "valid/_classes.csv"),
     ("yolo", "data.yaml"), ("coco", "annotations/instances_val2017.json"), ("folders", "classes.txt")],
)  # fmt: skip
def test_files_that_are_no_text_are_one_error(layout: str, file: str, tmp_path: Path) -> None:
    given = source(tmp_path, layout)
    (tmp_path / file).write_bytes(b"\xff\xfe" + (tmp_path / file).read_bytes())
    with pytest.raises(DataError, match=Path(file).name):
        open_dataset(given, "custom")
