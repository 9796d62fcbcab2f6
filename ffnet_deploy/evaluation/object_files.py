"""Data sets whose labels are objects in annotation files: COCO JSON, and YOLO YAML with polygons or masks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from ffnet_deploy.core.errors import DataError
from ffnet_deploy.core.label_sets import LabelSet, read_label_set, spread_palette
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.text import read_lines
from ffnet_deploy.evaluation.data_source import SPLITS, DataSource, Layout, drawn_split, own_classes
from ffnet_deploy.evaluation.images import image_files
from ffnet_deploy.evaluation.label_readers import CocoImage, CocoObjects, PanopticMaps, YoloPolygons


def with_background(names: Sequence[str], listed: LabelSet | None) -> tuple[LabelSet, int, str]:
    """Classes of a data set of objects, the label of pixels outside all objects, and what was assumed.

    A class called `background` takes these pixels. Where the classes are `listed` by the user without one, they are
    ignored; else it is added as the last class.
    """
    own = listed or LabelSet(tuple(names), spread_palette(len(names)))
    lowered = [name.lower() for name in own.classes]
    if "background" in lowered:
        return own, lowered.index("background"), "pixels outside all objects are background"
    if listed is not None:
        return own, 255, "pixels outside all objects are ignored: the class list has no `background`"
    added = LabelSet((*own.classes, "background"), (*own.palette, (0, 0, 0)))
    return added, len(own.classes), "pixels outside all objects are a class of their own, background, added as the last"


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in the YAML file `path`; empty where it holds something else.

    Raises:
        DataError: it is no YAML.
        MissingPackageError: PyYAML is not installed.
    """
    yaml = optional("yaml", extra="convert", purpose=f"reading {path.name}")
    try:
        content = yaml.safe_load("\n".join(read_lines(path, "data description")))
    except DataError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # of dates and numbers that are none, too
        raise DataError(f"{path} cannot be read as YAML: {str(error).splitlines()[0]}") from error
    return content if isinstance(content, dict) else {}


def find_yolo(source: DataSource, path: Path, split: tuple[str, ...]) -> Layout:
    """A YAML file with `names`, `train` and `val`; labels are polygons in `labels`, or masks in `masks`."""
    content = read_yaml(path)
    names = content.get("names")
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise DataError(f"{path}: names should be numbered 0..{len(names) - 1}")
        names = [names[label] for label in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: expected `names` with the name of every class, found a {type(names).__name__}")
    entry = next((content[name] for name in split if content.get(name)), None)
    if entry is None:
        raise DataError(f"{path} has no entry {' or '.join(split)}: it should say where these images are")
    entries = entry if isinstance(entry, list) else [entry]
    below, masks_dir = content.get("path") or ".", content.get("masks_dir") or "masks"
    if not all(isinstance(one, str | int) for one in (below, masks_dir, *entries)):
        raise DataError(f"{path}: path, masks_dir and the entries of the splits should be names of folders or files")
    base = path.parent / str(below)
    base = base if base.is_dir() else path.parent  # written on another machine
    images = {file.with_suffix("").as_posix(): file for one in entries for file in _yolo_images(base, str(one), path)}
    listed = read_label_set(source.classes) if source.classes is not None else None
    polygons = {name: _beside(file, "labels", ".txt") for name, file in images.items()}
    for kind in (str(masks_dir), "labels"):
        masks = {name: _beside(file, kind, ".png") for name, file in images.items()}
        if any(mask.is_file() for mask in masks.values()):
            present = {name: mask for name, mask in masks.items() if mask.is_file()}
            classes = listed or LabelSet(tuple(names), spread_palette(len(names)))
            folder = next(iter(present.values())).parent
            return Layout(f"YOLO with masks, {path.name}", images, present, (base, folder), classes=classes)
    empty = sum(not file.is_file() for file in polygons.values())
    if empty == len(polygons):
        first = next(iter(polygons.values()), base / "labels")
        raise DataError(f"{path}: no image has a label file; expected {first} or masks in a folder {masks_dir}")
    classes, background, note = with_background(names, listed)
    notes = (note, *([f"{empty} images have no label file: they are all background"] if empty else []))
    reader = YoloPolygons(len(names), background)
    return Layout(f"YOLO polygons, {path.name}", images, polygons, (base, base), reader, classes, notes)


def _yolo_images(base: Path, entry: str, path: Path) -> list[Path]:
    places = (base / entry, path.parent / entry, base / entry.removeprefix("../"))
    target = next((place for place in places if place.exists()), None)
    if target is None:
        raise DataError(f"{path} names {entry}, which does not exist below {base}")
    if target.is_dir():
        return image_files(target)
    lines = [line.strip() for line in read_lines(target, "list of images") if line.strip()]
    return [base / line.removeprefix("./") for line in lines]


def _without_suffix(file: Path) -> str:
    """The path of `file` without its suffix, which is the name of its sample."""
    return (file.parent / file.stem).as_posix()


def _beside(image: Path, kind: str, suffix: str) -> Path:
    """The label file of `image`: in the folder `kind` in place of the last `images` of its path."""
    parts = list(image.parts)
    places = [index for index, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = kind
    return Path(*parts).with_suffix(suffix)


class _CocoPicture(msgspec.Struct):
    id: int
    file_name: str
    height: int
    width: int


class _CocoCategory(msgspec.Struct):
    id: int
    name: str
    color: list[int] | None = None


class _CocoSegment(msgspec.Struct):
    id: int
    category_id: int


class _CocoAnnotation(msgspec.Struct):
    image_id: int
    category_id: int | None = None
    segmentation: Any = None
    file_name: str | None = None
    segments_info: list[_CocoSegment] | None = None


class _CocoFile(msgspec.Struct):
    images: list[_CocoPicture]
    annotations: list[_CocoAnnotation]
    categories: list[_CocoCategory]


def coco_file(root: Path, split: tuple[str, ...]) -> Path | None:
    """The JSON of a split, panoptic ones first; the only JSON where no name tells a split."""
    folders = [*(root / name for name in split), root / "annotations", root]
    files = [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.json"))]
    known = [path for path in files if not path.stem.startswith(("captions", "person_keypoints"))]
    mine = [path for path in known if path.parent.name in split or any(name in path.stem for name in split)]
    if not mine and len(known) == 1:
        mine = known
    return min(mine, key=lambda path: "panoptic" not in path.stem, default=None)


def find_coco(source: DataSource, path: Path, split: tuple[str, ...]) -> Layout:
    """A COCO file: panoptic where annotations name segments, else polygons and run lengths."""
    path, drawn = _coco_split(path, split)
    try:
        content = msgspec.json.decode(path.read_bytes(), type=_CocoFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is no COCO file of images, annotations and categories: {error}") from error
    categories = sorted(content.categories, key=lambda category: category.id)
    names = [category.name for category in categories]
    if not names or len(set(names)) < len(names) or not content.images:
        raise DataError(f"{path} should have images, and categories with different names: found {', '.join(names[:8])}")
    listed = own_classes(source) if source.classes is not None or (source.root / "classes.txt").is_file() else None
    root = source.root if source.root.is_dir() else path.parent
    folder = _coco_images(source, root, path, split, content.images[0].file_name)
    images = {_without_suffix(Path(one.file_name)): folder / one.file_name for one in content.images}
    by_id = {one.id: _without_suffix(Path(one.file_name)) for one in content.images}
    odd = next((one.image_id for one in content.annotations if one.image_id not in by_id), None)
    if odd is not None:
        raise DataError(f"{path}: an annotation belongs to image {odd}, which is not listed")
    is_panoptic = any(one.segments_info is not None for one in content.annotations)
    colours = [category.color for category in categories]
    if is_panoptic:
        palette = spread_palette(len(names))
        if all(colour is not None and len(colour) == 3 for colour in colours):
            palette = tuple((c[0], c[1], c[2]) for c in colours if c is not None)
        classes = listed or LabelSet(tuple(names), palette)
        label_of = _labels_of_categories(categories, classes, path)
        layout = _panoptic(content, path, images, by_id, label_of, folder, classes)
    else:
        classes, background, note = with_background(names, listed)
        label_of = _labels_of_categories(categories, classes, path)
        objects: dict[str, list[tuple[int, Any]]] = {name: [] for name in images}
        for one in content.annotations:
            if one.segmentation and one.category_id in label_of:
                objects[by_id[one.image_id]].append((label_of[one.category_id], one.segmentation))
        sizes = {by_id[one.id]: (one.height, one.width) for one in content.images}
        reader = CocoObjects(
            {name: CocoImage(sizes[name], tuple(found)) for name, found in objects.items()}, background
        )
        labels = dict.fromkeys(images, path)
        layout = Layout(f"COCO polygons, {path.name}", images, labels, (folder, path), reader, classes, (note,))
    if not drawn:
        return layout
    keep, note = drawn_split(source, sorted(images), split)
    return replace(
        layout,
        images={name: file for name, file in layout.images.items() if name in keep},
        labels={name: file for name, file in layout.labels.items() if name in keep},
        notes=(*layout.notes, note),
    )


def _coco_split(path: Path, split: tuple[str, ...]) -> tuple[Path, bool]:
    """The file of `split` beside `path`, and whether the split must be drawn because there is none."""
    if path.parent.name in split or any(name in path.stem for name in split):
        return path, False
    for own in (name for name in SPLITS if name in path.stem or path.parent.name == name):
        for name in split:
            for other in (path.with_name(path.name.replace(own, name)), path.parent.parent / name / path.name):
                if other.is_file() and other != path:
                    return other, False
    return path, True


def _coco_images(source: DataSource, root: Path, path: Path, split: tuple[str, ...], first: str) -> Path:
    """The folder in which the file names of `path` are found."""
    years = [f"{name}{year}" for name in split for year in ("", "2017", "2014")]
    folders = [root / source.images_dir] if source.images_dir else []
    folders += [
        path.parent,
        root,
        *(root / name for name in ("images", "image", "imgs", "img", "JPEGImages")),
        path.parent.parent / "images",
    ]
    folders += [parent / year for parent in (root, root / "images", path.parent.parent) for year in years]
    found = next((folder for folder in folders if (folder / first).is_file()), None)
    if found is None:
        raise DataError(
            f"the images of {path} were not found: {first} is neither beside it nor in a folder images, train or val.\n"
            "  to do    name their folder with --images-dir"
        )
    return found


def _labels_of_categories(categories: Sequence[_CocoCategory], classes: LabelSet, path: Path) -> dict[int, int]:
    """Label of each category, by its name."""
    missing = [category.name for category in categories if category.name not in classes.classes]
    if missing:
        raise DataError(f"the class list lacks the categories {', '.join(missing[:6])} of {path}")
    return {category.id: classes.classes.index(category.name) for category in categories}


def _panoptic(
    content: _CocoFile,
    path: Path,
    images: Mapping[str, Path],
    by_id: Mapping[int, str],
    label_of: Mapping[int, int],
    folder: Path,
    classes: LabelSet,
) -> Layout:
    annotated = [one for one in content.annotations if one.file_name and one.segments_info is not None]
    maps = path.with_suffix("")
    if annotated and not (maps / str(annotated[0].file_name)).is_file():
        maps = next(
            (one for one in (path.parent, path.parent / "panoptic") if (one / str(annotated[0].file_name)).is_file()),
            maps,
        )
    labels = {by_id[one.image_id]: maps / str(one.file_name) for one in annotated}
    segments: dict[str, dict[int, int]] = {}
    for one in annotated:
        known = [segment for segment in one.segments_info or [] if segment.category_id in label_of]
        segments[by_id[one.image_id]] = {segment.id: label_of[segment.category_id] for segment in known}
    present = {name: file for name, file in labels.items() if file.is_file()}
    return Layout(f"COCO panoptic, {path.name}", images, present, (folder, maps), PanopticMaps(segments), classes)
