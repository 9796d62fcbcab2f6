"""One data set of twelve images, written in every layout that `open_dataset` reads."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

CLASSES = ("ground", "box", "background")
COLOURS = ((90, 60, 30), (200, 40, 40), (0, 0, 0))
LISTED = "".join(f"{name} {r} {g} {b}\n" for name, (r, g, b) in zip(CLASSES, COLOURS, strict=True))
COUNT, HEIGHT, WIDTH = 12, 64, 96

Box = tuple[int, int, int, int, int]
"""Class, left, top, right and bottom, right and bottom excluded."""


def boxes(number: int) -> list[Box]:
    """The ground, and a smaller box that may lie on it."""
    return [(0, 0, 24 + number % 5, WIDTH, HEIGHT), (1, 8 + 2 * number, 6 + number, 20 + 2 * number, 30)]


def truth(number: int) -> np.ndarray:
    """Labels of image `number`, uint8 (64, 96), painted box by box."""
    labels = np.full((HEIGHT, WIDTH), 2, np.uint8)
    for label, left, top, right, bottom in boxes(number):
        labels[top:bottom, left:right] = label
    return labels


def image(number: int) -> np.ndarray:
    noise = np.random.default_rng(number).normal(0, 8, (HEIGHT, WIDTH, 3))
    return np.clip(np.array(COLOURS)[truth(number)][..., ::-1] + 60 + noise, 0, 255).astype(np.uint8)


def counted(numbers: range) -> tuple[int, ...]:
    """Pixels of each class in the images `numbers`."""
    return tuple(sum(int((truth(number) == label).sum()) for number in numbers) for label in range(len(CLASSES)))


def save(path: Path, content: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), content)


def split_of(number: int) -> str:
    return "train" if number < 9 else "val"


def in_colour(number: int) -> np.ndarray:
    return np.array(COLOURS, np.uint8)[truth(number)][..., ::-1]


def folders(root: Path) -> None:
    for number in range(COUNT):
        save(root / "images" / split_of(number) / f"{number}.jpg", image(number))
        save(root / "annotations" / split_of(number) / f"{number}.png", truth(number))
    (root / "classes.txt").write_text(LISTED)


def other_names(root: Path) -> None:
    for number in range(COUNT):
        save(root / "photos" / split_of(number) / f"{number}.tif", image(number))
        save(root / "truth" / split_of(number) / f"{number}_classes.png", truth(number))
    (root / "classes.txt").write_text(LISTED)


def split_above(root: Path) -> None:
    for number in range(COUNT):
        save(root / split_of(number) / "imgs" / f"{number}.png", image(number))
        save(root / split_of(number) / "masks" / f"{number}_mask.png", truth(number))
    (root / "classes.txt").write_text(LISTED)


def voc(root: Path) -> None:
    for number in range(COUNT):
        save(root / "JPEGImages" / f"{number}.jpg", image(number))
        save(root / "SegmentationClass" / f"{number}.png", in_colour(number))
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split in ("train", "val"):
        (lists / f"{split}.txt").write_text("".join(f"{n}\n" for n in range(COUNT) if split_of(n) == split))
    rows = "".join(f"{name}:{r},{g},{b}::\n" for name, (r, g, b) in zip(CLASSES, COLOURS, strict=True))
    (root / "labelmap.txt").write_text(f"# label:color_rgb:parts:actions\n{rows}")


def colours(root: Path) -> None:
    for number in range(COUNT):
        save(root / "images" / split_of(number) / f"{number}.png", image(number))
        save(root / "masks" / split_of(number) / f"{number}.png", in_colour(number))
    (root / "classes.txt").write_text(LISTED)


def side_by_side(root: Path) -> None:
    for number in range(COUNT):
        save(root / f"{number}.jpg", image(number))
        save(root / f"{number}.png", truth(number))
    (root / "classes.txt").write_text(LISTED)


def without_splits(root: Path) -> None:
    for number in range(COUNT):
        save(root / "images" / f"{number}.jpg", image(number))
        save(root / "masks" / f"{number}.png", truth(number))
    (root / "classes.txt").write_text(LISTED)


def roboflow(root: Path) -> None:
    for number in range(COUNT):
        folder = root / split_of(number).replace("val", "valid")
        save(folder / f"{number}.jpg", image(number))
        save(folder / f"{number}_mask.png", truth(number))
        (folder / "_classes.csv").write_text("Pixel Value, Class\n0, ground\n1, box\n2, background\n")


def coco(root: Path) -> None:
    for split in ("train", "val"):
        content: dict[str, list[dict[str, object]]] = {"images": [], "annotations": []}
        content["categories"] = [{"id": 7, "name": "ground"}, {"id": 9, "name": "box"}]
        for number in (n for n in range(COUNT) if split_of(n) == split):
            save(root / f"{split}2017" / f"{number}.jpg", image(number))
            content["images"].append({"id": number, "file_name": f"{number}.jpg", "height": HEIGHT, "width": WIDTH})
            for label, left, top, right, bottom in boxes(number):
                corners = [left, top, right, top, right, bottom, left, bottom]
                annotation = {"id": 1, "image_id": number, "category_id": (7, 9)[label], "segmentation": [corners]}
                content["annotations"].append(annotation)
        (root / "annotations").mkdir(exist_ok=True)
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(content))


def coco_panoptic(root: Path) -> None:
    for split in ("train", "val"):
        content: dict[str, list[dict[str, object]]] = {"images": [], "annotations": []}
        content["categories"] = [{"id": 3 * label + 1, "name": name} for label, name in enumerate(CLASSES)]
        for number in (n for n in range(COUNT) if split_of(n) == split):
            save(root / "images" / f"{number}.jpg", image(number))
            ids = 70_000 + 1000 * truth(number).astype(np.int64)
            red, green, blue = ids % 256, ids // 256 % 256, ids // 65536
            maps = root / f"annotations/panoptic_{split}"
            save(maps / f"{number}.png", np.stack([blue, green, red], -1).astype(np.uint8))
            content["images"].append({"id": number, "file_name": f"{number}.jpg", "height": HEIGHT, "width": WIDTH})
            segments = [{"id": 70_000 + 1000 * label, "category_id": 3 * label + 1} for label in range(3)]
            content["annotations"].append({"image_id": number, "file_name": f"{number}.png", "segments_info": segments})
        (root / f"annotations/panoptic_{split}.json").write_text(json.dumps(content))


def yolo(root: Path) -> None:
    for number in range(COUNT):
        save(root / "images" / split_of(number) / f"{number}.jpg", image(number))
        lines = []
        for label, left, top, right, bottom in boxes(number):
            corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
            lines.append(" ".join([str(label), *(f"{x / WIDTH} {y / HEIGHT}" for x, y in corners)]))
        path = root / "labels" / split_of(number) / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines))
    (root / "data.yaml").write_text(
        "path: /somewhere/else\ntrain: images/train\nval: images/val\nnames:\n  0: ground\n  1: box\n"
    )


def yolo_masks(root: Path) -> None:
    for number in range(COUNT):
        save(root / "images" / split_of(number) / f"{number}.jpg", image(number))
        save(root / "labels_png" / split_of(number) / f"{number}.png", truth(number))
    (root / "data.yaml").write_text(
        "train: images/train\nval: images/val\nmasks_dir: labels_png\nnames: [ground, box, background]\n"
    )


LAYOUTS: dict[str, Callable[[Path], None]] = {
    function.__name__: function
    for function in (
        folders, other_names, split_above, voc, colours, side_by_side, without_splits, roboflow, coco, coco_panoptic,
        yolo, yolo_masks,
    )
}  # fmt: skip
OPTIONS = {"other_names": {"images_dir": "photos", "masks_dir": "truth", "mask_suffix": "_classes.png"}}
"""What must be said of a layout that cannot be recognised."""
DRAWN = ("side_by_side", "without_splits")
"""Layouts without splits."""
