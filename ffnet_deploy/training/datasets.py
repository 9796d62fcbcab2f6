"""Own data without code, and the checks that every data set passes before and while it is trained on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import DefaultScope
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, TRANSFORMS

from ffnet_deploy.core.contract import IGNORE_LABEL
from ffnet_deploy.core.errors import ConfigError, DataError
from ffnet_deploy.core.quiet import quiet

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
LABELS_READ = 64
"""Label maps that are read before a run, spread evenly over a split; all others are checked as they are loaded."""


@DATASETS.register_module()
class FolderDataset(BaseSegDataset):  # type: ignore[misc]
    """Images of any usual format beside `.png` label maps of the same name; labels 0..N-1, 255 ignored.

    Args:
        **options: of mmseg's `BaseSegDataset`: data_root, data_prefix, metainfo, pipeline, ...
    """

    def __init__(self, **options: Any):
        super().__init__(img_suffix="", seg_map_suffix=".png", **options)

    def load_data_list(self) -> list[dict[str, Any]]:
        """One entry a pair, in the order of the file names."""
        folder = Path(self.data_prefix["img_path"])
        return [self._entry(path) for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES]

    def _entry(self, image: Path) -> dict[str, Any]:
        return {
            "img_path": str(image),
            "seg_map_path": str(Path(self.data_prefix["seg_map_path"]) / f"{image.stem}.png"),
            "label_map": self.label_map,
            "reduce_zero_label": self.reduce_zero_label,
            "seg_fields": [],
        }


@TRANSFORMS.register_module()
class CheckLabels(BaseTransform):  # type: ignore[misc]
    """Raises `DataError` for a label map of the wrong size or with labels that no class has.

    Args:
        classes: number of classes; labels are 0..classes - 1, or 255 for pixels to ignore.
    """

    def __init__(self, classes: int):
        self.classes = classes

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """`results` unchanged; it holds `gt_seg_map` (height, width) and the image's `ori_shape`."""
        labels = results["gt_seg_map"]
        if labels.ndim != 2:
            raise DataError(f"label map {results['seg_map_path']} has shape {labels.shape}; expected one channel")
        wrong = np.unique(labels[(labels >= self.classes) & (labels != IGNORE_LABEL)])
        if wrong.size:
            raise DataError(
                f"label map {results['seg_map_path']} holds the labels {', '.join(map(str, wrong[:8]))}; "
                f"expected 0..{self.classes - 1}, or {IGNORE_LABEL} for pixels to ignore.\n"
                "  to do    correct the file, or name all classes with --classes FILE"
            )
        size = results.get("ori_shape", labels.shape)  # the image may have been resized by now
        if tuple(size) != labels.shape:
            raise DataError(
                f"label map {results['seg_map_path']} has {labels.shape[0]}x{labels.shape[1]} pixels, its image "
                f"{size[0]}x{size[1]}"
            )
        return results


def check_data(cfg: Any) -> dict[str, int]:
    """Number of pairs of the training and the validation split, once their files have been looked at.

    Raises:
        DataError: folders or files are missing, or labels are wrong; the first such file is named.
    """
    return {split: _check_split(cfg[f"{split}_dataloader"].dataset) for split in ("train", "val")}


def _check_split(settings: Any) -> int:
    _check_folders(settings)
    entries = _entries(settings)
    if not entries:
        raise DataError(
            f"no images in {_folder(settings, 'img_path')}.\n  to do    check --data; the formats read are "
            f"{', '.join(IMAGE_SUFFIXES)}"
        )
    _check_pairs(entries)
    _check_maps(entries, settings)
    return len(entries)


def _folder(settings: Any, prefix: str) -> Path:
    return Path(settings.data_root, settings.data_prefix[prefix])


def _check_folders(settings: Any) -> None:
    for prefix, what in (("img_path", "images"), ("seg_map_path", "label maps")):
        folder = _folder(settings, prefix)
        if not folder.is_dir():
            raise DataError(
                f"no folder {folder} with {what}.\n  to do    say where the data set is with --data ROOT; {what} are "
                f"expected in ROOT/{settings.data_prefix[prefix]}"
            )


def _entries(settings: Any) -> list[Mapping[str, Any]]:
    try:
        with quiet(), DefaultScope.overwrite_default_scope("mmseg"):
            dataset = DATASETS.build({**settings, "lazy_init": True})
            return list(dataset.load_data_list())
    except (KeyError, TypeError, FileNotFoundError, AssertionError) as error:
        raise ConfigError(f"the data set {settings.type} cannot be opened: {error}") from error


def _check_pairs(entries: list[Mapping[str, Any]]) -> None:
    lonely = [entry for entry in entries if not Path(entry["seg_map_path"]).is_file()]
    if lonely:
        raise DataError(
            f"{len(lonely)} of {len(entries)} images have no label map, first {lonely[0]['img_path']}; "
            f"expected {lonely[0]['seg_map_path']}"
        )


def _check_maps(entries: list[Mapping[str, Any]], settings: Any) -> None:
    """Read up to `LABELS_READ` label maps."""
    steps = [step for step in settings.pipeline if step["type"] in ("LoadAnnotations", "CheckLabels")]
    with DefaultScope.overwrite_default_scope("mmseg"):
        load, *checks = (TRANSFORMS.build(dict(step)) for step in steps)
    useful = False
    for entry in entries[:: max(len(entries) // LABELS_READ, 1)]:
        labelled = _load(load, entry)
        useful |= bool((labelled["gt_seg_map"] != IGNORE_LABEL).any())
        for check in checks:
            check(labelled)
    if not useful:
        raise DataError(
            f"every pixel of {Path(entries[0]['seg_map_path']).parent} is ignored ({IGNORE_LABEL}): nothing to learn"
        )


def _load(load: Any, entry: Mapping[str, Any]) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = load({**entry, "seg_fields": []})
    except Exception as error:  # decoders raise nearly anything
        raise DataError(f"label map {entry['seg_map_path']} cannot be read: {error}") from error
    return loaded
