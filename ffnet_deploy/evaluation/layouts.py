"""Recognise how a data folder is laid out: which files pair up, how labels are read, which classes it names."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ffnet_deploy.core.errors import DataError
from ffnet_deploy.core.label_sets import LabelSet
from ffnet_deploy.core.text import read_lines
from ffnet_deploy.evaluation.data_source import SPLITS, DataSource, Layout, drawn_split, own_classes
from ffnet_deploy.evaluation.images import IMAGE_SUFFIXES, image_files
from ffnet_deploy.evaluation.label_readers import LABEL_ID_END
from ffnet_deploy.evaluation.object_files import coco_file, find_coco, find_yolo, read_yaml

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "img_dir", "JPEGImages")
MASK_FOLDERS = tuple(
    "annotations masks mask labels label ann_dir gt segmentations SegmentationClass".split()  # noqa: SIM905
)
MASK_ENDINGS = ("_mask", "_masks", "_label", "_labels", "_labelIds", "_gt", "_seg", "_segmentation", "_L")
"""What names of masks are tried to end with, where no mask has the name of an image."""
LAYOUTS = """expected one of
    images/SPLIT and annotations/SPLIT            (ADE20K, CamVid, folders of your own; without SPLIT it is drawn)
    leftImg8bit/SPLIT/CITY and gtFine/SPLIT/CITY  (Cityscapes)
    JPEGImages and SegmentationClass              (PASCAL VOC)
    annotations/*.json                            (COCO: panoptic, or polygons)
    data.yaml                                     (YOLO)
    images and masks side by side, NAME.jpg and NAME.png or NAME_mask.png
  to do    name other folders with --images-dir and --masks-dir, other mask names with --mask-suffix"""
_IMAGE_END = "_leftImg8bit"
_TRAIN_ID_END = "_gtFine_labelTrainIds"
_VOC_NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
)
_LOOKED_AT = 20_000
"""Files that are looked at to tell why a folder is not understood."""


def find_layout(source: DataSource, split: tuple[str, ...]) -> Layout:
    """The layout of the split of the names `split` below `source`.

    Raises:
        DataError: nothing is there, or in no layout that is known.
    """
    root = source.root
    if root.is_file():
        return _find_in_file(source, root, split)
    if not root.is_dir():
        raise DataError(f"the data folder {root} does not exist.\n  to do    check the path given with --data")
    if next(root.iterdir(), None) is None:
        raise DataError(f"the data folder {root} is empty; {LAYOUTS}")
    if source.images_dir is not None and source.masks_dir is not None:
        return _find_folders(source, source.images_dir, source.masks_dir, split)
    if (root / "leftImg8bit").is_dir():
        images, annotations = _split_folder(root / "leftImg8bit", split), _split_folder(root / "gtFine", split)
        labels = _by_name(annotations, LABEL_ID_END) | _by_name(annotations, _TRAIN_ID_END)
        return Layout("Cityscapes", _by_name(images, _IMAGE_END), labels, (images, annotations))
    if (root / "JPEGImages").is_dir() and (root / "SegmentationClass").is_dir():
        layout = _find_folders(source, "JPEGImages", "SegmentationClass", split)
        names = tuple(_VOC_NAMES.split())
        voc = LabelSet(names, tuple(_voc_colour(label) for label in range(len(names))))
        return replace(layout, name="PASCAL VOC", classes=layout.classes or voc)
    if any((root / "annotations").glob("*.json")) and (coco := coco_file(root, split)) is not None:
        return find_coco(source, coco, split)
    pairs = [(a, b) for a in IMAGE_FOLDERS for b in MASK_FOLDERS if _has_images(root, a, split, b)]
    if pairs:
        return _find_folders(source, *pairs[0], split)
    for path in (*sorted(root.glob("*.yaml")), *sorted(root.glob("*.yml"))):
        if {"names", "train"} <= read_yaml(path).keys():
            return find_yolo(source, path, split)
    if (coco := coco_file(root, split)) is not None:
        return find_coco(source, coco, split)
    side_by_side = next((folder for folder in (*(root / name for name in split), root) if _holds_pairs(folder)), None)
    if side_by_side is not None:
        return _find_side_by_side(source, side_by_side, split)
    raise DataError(f"{root} is not laid out as a data set; {LAYOUTS}{_hint(root)}")


def is_data_set(path: Path) -> bool:
    """Whether `path` has the folders or files of a labelled data set; a folder of images and masks mixed has not."""
    if path.is_file():
        return path.suffix.lower() in (".yaml", ".yml", ".json")
    names = [path / name for name in ("", *SPLITS)]
    pairs = [("leftImg8bit", "gtFine"), *((a, b) for a in IMAGE_FOLDERS for b in MASK_FOLDERS)]
    if any((folder / a).is_dir() and (folder / b).is_dir() for folder in names for a, b in pairs):
        return True
    return coco_file(path, SPLITS["train"]) is not None or any(
        {"names", "train"} <= read_yaml(one).keys() for one in sorted(path.glob("*.yaml"))
    )


def _find_in_file(source: DataSource, path: Path, split: tuple[str, ...]) -> Layout:
    if path.suffix.lower() in (".yaml", ".yml"):
        return find_yolo(source, path, split)
    if path.suffix.lower() == ".json":
        return find_coco(source, path, split)
    raise DataError(f"{path} is a file; expected a folder, a YOLO .yaml or a COCO .json.\n  to do    check --data")


def _has_images(root: Path, images: str, split: tuple[str, ...], masks: str) -> bool:
    """Whether both folders exist, in either order of folder and split, and the masks are image files."""
    places = [(root / images, root / masks), *((root / name / images, root / name / masks) for name in split)]
    for image_folder, mask_folder in places:
        if image_folder.is_dir() and mask_folder.is_dir():
            empty = next((path for path in mask_folder.rglob("*") if path.is_file()), None) is None
            return empty or any(path.suffix.lower() in IMAGE_SUFFIXES for path in mask_folder.rglob("*"))
    return False


def _find_folders(source: DataSource, images_dir: str, masks_dir: str, split: tuple[str, ...]) -> Layout:
    """Images and masks in two folders: with splits below or above them, by split lists, or drawn."""
    root = source.root
    above = [root / name for name in split if (root / name / images_dir).is_dir()]
    if above and not (root / images_dir).is_dir():
        images, masks = above[0] / images_dir, above[0] / masks_dir
        name = f"{above[0].name}/{images_dir} and {above[0].name}/{masks_dir}"
    elif any((root / images_dir / part).is_dir() for part in SPLITS):
        images, masks = _split_folder(root / images_dir, split), _split_folder(root / masks_dir, split)
        name = f"{images_dir}/{images.name} and {masks_dir}/{masks.name}"
    else:
        images, masks = root / images_dir, root / masks_dir
        name = f"{images_dir} and {masks_dir}"
    for folder, what in ((images, "images"), (masks, "masks")):
        if not folder.is_dir():
            raise DataError(f"no folder {folder} with {what}.\n  to do    check --data, --images-dir and --masks-dir")
    found = _by_name(images, "")
    labels, notes = _masks_of(masks, source.mask_suffix, found)
    if images == root / images_dir:
        keep, note = _drawn_or_listed(source, sorted(found.keys() & labels.keys()), split)
        if keep is not None:
            lonely = (found.keys() ^ labels.keys()) if not _split_list(root, split) else set()
            found = {one: path for one, path in found.items() if one in keep or one in lonely}
            labels = {one: path for one, path in labels.items() if one in keep or one in lonely}
            notes.append(note)
    return Layout(name, found, labels, (images, masks), classes=own_classes(source), notes=tuple(notes))


def _masks_of(folder: Path, suffix: str | None, images: Mapping[str, Path]) -> tuple[dict[str, Path], list[str]]:
    """Masks by the name of their image; where `suffix` is None and no name fits, the usual endings are tried."""
    if suffix is not None:
        return _by_name(folder, _stem_ending(suffix)), []
    labels = _by_name(folder, "")
    if labels.keys() & images.keys():
        return labels, []
    for ending in MASK_ENDINGS:
        ended = _by_name(folder, ending)
        if ended.keys() & images.keys():
            return ended, [f"masks are named like images with {ending} added"]
    return labels, []


def _stem_ending(suffix: str) -> str:
    """`suffix` without the ending of the file type, which may be given or not."""
    path = Path(f"x{suffix}")
    return suffix.removesuffix(path.suffix) if path.suffix.lower() in IMAGE_SUFFIXES else suffix


def _split_folder(parent: Path, names: Iterable[str]) -> Path:
    folder = next((parent / name for name in names if (parent / name).is_dir()), None)
    if folder is None:
        found = sorted(path.name for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
        raise DataError(
            f"{parent} has no folder {' or '.join(names)}; found {', '.join(found) or 'none'}.\n"
            "  to do    add that folder, or name another split where the command has --split"
        )
    return folder


def _split_list(root: Path, split: tuple[str, ...]) -> Path | None:
    """The text file that lists the images of a split, as PASCAL VOC has it."""
    folders = (root / "ImageSets/Segmentation", root / "ImageSets", root / "splits", root)
    return next((path for folder in folders for name in split if (path := folder / f"{name}.txt").is_file()), None)


def _drawn_or_listed(source: DataSource, names: Sequence[str], split: tuple[str, ...]) -> tuple[set[str] | None, str]:
    """The names that belong to `split`, by its list or drawn by lot, and how; None where nothing pairs up."""
    listed = _split_list(source.root, split)
    if listed is not None:
        lines = [line.strip() for line in read_lines(listed, "list of the split") if line.strip()]
        wanted = {Path(line.split()[0]).stem for line in lines}
        missing = sorted(wanted - {Path(name).name for name in names})
        if missing:
            raise DataError(
                f"{len(missing)} of {len(wanted)} names in {listed} have no image with a mask: {', '.join(missing[:5])}"
            )
        return {name for name in names if Path(name).name in wanted}, f"the split is listed in {listed}"
    if not names:
        return None, ""
    return drawn_split(source, names, split)


def _by_name(folder: Path, ending: str) -> dict[str, Path]:
    """Image files below `folder` whose name ends with `ending`, by their path without it and without suffix."""
    files = [file for file in image_files(folder) if file.stem.endswith(ending)]
    names = [file.relative_to(folder).with_suffix("").as_posix().removesuffix(ending) for file in files]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{folder} holds {twice[0]} twice, with different suffixes.\n  to do    remove one of them")
    return dict(zip(names, files, strict=True))


def _holds_pairs(folder: Path) -> bool:
    return folder.is_dir() and any(
        path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir() if not path.name.startswith(".")
    )


def _find_side_by_side(source: DataSource, folder: Path, split: tuple[str, ...]) -> Layout:
    """Images and masks in one folder: NAME.jpg with NAME.png, or NAME.any with NAME_mask.png."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES]
    stems = {path.stem for path in files}
    endings = MASK_ENDINGS if source.mask_suffix is None else (_stem_ending(source.mask_suffix),)
    ending = next((one for one in endings if one and any(f"{stem}{one}" in stems for stem in stems)), "")
    if ending:
        masks = [path for path in files if path.stem.endswith(ending)]
    else:
        twice = {stem for stem, count in Counter(path.stem for path in files).items() if count == 2}
        masks = [path for path in files if path.suffix.lower() == ".png" and path.stem in twice]
    if not masks:
        raise DataError(f"{folder} holds images, but no masks beside them; {LAYOUTS}{_hint(source.root)}")
    labels = {path.stem.removesuffix(ending): path for path in masks}
    images = {path.stem: path for path in files if path not in set(masks)}
    name = f"images with masks NAME{ending}{masks[0].suffix} beside them"
    notes: tuple[str, ...] = ()
    if folder == source.root:
        keep, note = _drawn_or_listed(source, sorted(images.keys() & labels.keys()), split)
        lonely = images.keys() ^ labels.keys()
        images = {one: path for one, path in images.items() if keep is None or one in keep or one in lonely}
        labels = {one: path for one, path in labels.items() if keep is None or one in keep or one in lonely}
        notes = (note,)
    return Layout(name, images, labels, (folder, folder), classes=own_classes(source, folder), notes=notes)


def _voc_colour(label: int) -> tuple[int, int, int]:
    """Colour of a PASCAL VOC class: its bits, spread over the high bits of red, green and blue."""
    red, green, blue = (
        sum((label >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)
    )
    return red, green, blue


def _hint(root: Path) -> str:
    """What the folder may be instead, in words."""
    for looked, path in enumerate(root.rglob("*")):
        if looked == _LOOKED_AT:
            break
        if path.name.endswith("_seg.png"):
            return ade20k_hint(root)
    for child in sorted(root.iterdir()):
        if child.is_dir() and any((child / name).is_dir() for name in ("leftImg8bit", "images", "JPEGImages")):
            return f"\n  to do    perhaps --data {child}"
    return ""


def ade20k_hint(root: Path) -> str:
    """What to do about a folder of the full ADE20K."""
    return (
        f"\n  found    {root} is the full ADE20K, whose *_seg.png code thousands of object names\n"
        "  to do    download ADEChallengeData2016 (the scene parsing benchmark with 150 classes: images/training, "
        "annotations/training, ...), which the recipes and scores are for"
    )
