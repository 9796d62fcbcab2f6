"""Data sets as mmseg's loaders take them: read by `evaluation.datasets`, checked while loading, cropped by class."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import DefaultScope
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import RandomCrop
from mmseg.registry import DATASETS, TRANSFORMS
from numpy.typing import NDArray

from ffnet_deploy.core.contract import IGNORE_LABEL
from ffnet_deploy.core.errors import ConfigError, DataError, OptionError
from ffnet_deploy.core.quiet import quiet
from ffnet_deploy.evaluation.data_source import DataSource
from ffnet_deploy.evaluation.data_summary import LABELS_READ, DataSummary, summarize
from ffnet_deploy.evaluation.datasets import Dataset, open_dataset

Box = tuple[int, int, int, int]
"""Top, bottom, left and right border in pixels."""


@DATASETS.register_module()
class FolderDataset(BaseSegDataset):  # type: ignore[misc]
    """One split of any data set that `evaluation.datasets.open_dataset` reads.

    Args:
        data_root: folder or file of the data set.
        split: ``"train"`` or ``"val"``.
        network: data set whose classes the network predicts; tells what ids mean.
        source: the other attributes of `DataSource`.
        **options: of mmseg's `BaseSegDataset`: metainfo, pipeline, indices, ...
    """

    def __init__(
        self,
        data_root: str,
        split: str = "train",
        network: str = "custom",
        source: Mapping[str, Any] | None = None,
        **options: Any,
    ):
        options.pop("data_prefix", None)
        self.found = open_split({"data_root": data_root, "split": split, "network": network, "source": source or {}})
        super().__init__(data_prefix={}, **options)

    def load_data_list(self) -> list[dict[str, Any]]:
        """One entry a pair, sorted by name."""
        return [
            {"img_path": str(one.image), "seg_map_path": str(one.labels), "number": number, "seg_fields": []}
            for number, one in enumerate(self.found.samples)
        ]

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The entry `idx` with a function that reads its labels."""
        info: dict[str, Any] = super().get_data_info(idx)
        sample = self.found.samples[info.pop("number")]
        return {
            **info,
            "read_labels": lambda: self.found.read_labels(sample, len(self.metainfo["classes"])),
            "reduce_zero_label": False,
        }


def open_split(settings: Mapping[str, Any]) -> Dataset:
    """The data set that the loader settings `settings` of a `FolderDataset` describe.

    Raises:
        DataError: it cannot be read.
    """
    options = {key: value for key, value in dict(settings.get("source") or {}).items() if value is not None}
    if "classes" in options:
        options["classes"] = Path(options["classes"])
    source = DataSource(Path(settings["data_root"]), **options)
    return open_dataset(source, settings.get("network", "custom"), split=settings.get("split", "train"))


@TRANSFORMS.register_module()
class LoadLabels(BaseTransform):  # type: ignore[misc]
    """Loads `gt_seg_map`, uint8 (height, width), by the reader of a `FolderDataset`."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """`results` with the labels."""
        read: Callable[[], NDArray[np.uint8]] = results.pop("read_labels")
        results["gt_seg_map"] = read()
        results["seg_fields"].append("gt_seg_map")
        return results


@TRANSFORMS.register_module()
class CheckLabels(BaseTransform):  # type: ignore[misc]
    """Raises `DataError` for a label map of the wrong size or with labels that no class has.

    Args:
        classes: number of classes; labels are 0..classes - 1, or 255 for pixels to ignore.
    """

    def __init__(self, classes: int):
        if classes > IGNORE_LABEL:
            raise OptionError(
                f"training takes at most {IGNORE_LABEL} classes, as label {IGNORE_LABEL} is ignored: {classes}"
            )
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


@TRANSFORMS.register_module()
class ClassCrop(RandomCrop):  # type: ignore[misc]
    """mmseg's `RandomCrop`, which with probability `class_prob` is placed to hold a pixel of a class drawn by lot.

    Every class of the image has the same chance, however few pixels it has.

    Args:
        class_prob: share of the crops placed so, 0..1; the others are placed anywhere.
        **options: of `RandomCrop`: crop_size (height, width), cat_max_ratio, ignore_index.
    """

    def __init__(self, class_prob: float, **options: Any):
        super().__init__(**options)
        self.class_prob = class_prob

    def crop_bbox(self, results: dict[str, Any]) -> Box:
        """Top, bottom, left and right pixel borders of the crop."""
        labels = results["gt_seg_map"]
        present = np.unique(labels)
        present = present[present != self.ignore_index]
        if not present.size or np.random.random() >= self.class_prob:
            box: Box = super().crop_bbox(results)
            return box
        rows, columns = np.nonzero(labels == np.random.choice(present))
        pixel = np.random.randint(rows.size)
        top = _first_line(rows[pixel], self.crop_size[0], labels.shape[0])
        left = _first_line(columns[pixel], self.crop_size[1], labels.shape[1])
        return top, top + self.crop_size[0], left, left + self.crop_size[1]


def _first_line(position: int, size: int, limit: int) -> int:
    """First of `size` lines that hold the line `position`, by lot, within 0..limit where it fits."""
    first = int(position) - np.random.randint(size)
    return int(np.clip(first, 0, max(limit - size, 0)))


def check_data(cfg: Any) -> dict[str, DataSummary]:
    """The training and the validation split of the run `cfg`, once up to `LABELS_READ` of their label maps were read.

    Raises:
        DataError: folders or files are missing, or labels are wrong; the first such file is named.
        ConfigError: the config's own data set cannot be opened.
    """
    classes, summaries = tuple(cfg.metainfo["classes"]), {}
    for split in ("train", "val"):
        settings = cfg[f"{split}_dataloader"].dataset
        if settings.type == "FolderDataset":
            summaries[split] = summarize(open_split(settings), classes, LABELS_READ)
        else:
            summaries[split] = _summarize_foreign(settings, split, classes)
    return summaries


def _summarize_foreign(settings: Any, split: str, classes: tuple[str, ...]) -> DataSummary:
    """As `summarize`, of a data set class that a config brings itself."""
    try:
        with quiet(), DefaultScope.overwrite_default_scope("mmseg"):
            dataset = DATASETS.build({**settings, "lazy_init": True})
            entries = list(dataset.load_data_list())
            steps = [step for step in settings.pipeline if step["type"] in ("LoadAnnotations", "CheckLabels")]
            load, *checks = (TRANSFORMS.build(dict(step)) for step in steps)
    except (KeyError, TypeError, ValueError, FileNotFoundError, AssertionError) as error:
        raise ConfigError(f"the data set {settings.type} cannot be opened: {error}") from error
    lonely = [one for one in entries if not Path(one["seg_map_path"]).is_file()]
    if not entries or lonely:
        found = f"{len(lonely)} of {len(entries)} images have no label map" if lonely else "no images"
        first = f", first {lonely[0]['img_path']}" if lonely else ""
        raise DataError(
            f"the data set {settings.type} in {settings.get('data_root')}: {found}{first}.\n  to do    check --data"
        )
    counts = np.zeros(IGNORE_LABEL + 1, np.int64)
    chosen = entries[:: max(len(entries) // LABELS_READ, 1)]
    for entry in chosen:
        try:
            labelled = load({**entry, "seg_fields": []})
        except Exception as error:  # decoders raise nearly anything
            raise DataError(f"label map {entry['seg_map_path']} cannot be read: {error}") from error
        for check in checks:
            check(labelled)
        counts += np.bincount(labelled["gt_seg_map"].ravel(), minlength=IGNORE_LABEL + 1)
    pixels = tuple(int(count) for count in counts[: len(classes)])
    return DataSummary(split, str(settings.type), len(entries), len(chosen), classes, pixels, int(counts[IGNORE_LABEL]))
