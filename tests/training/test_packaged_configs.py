"""Every packaged config trains: its data sets open on a layout of their kind, and one step has a finite loss."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from rich.console import Console

from ffnet_deploy.core.label_sets import label_set
from ffnet_deploy.segmentor.config import config_names, load_config
from ffnet_deploy.training.datasets import check_data
from ffnet_deploy.training.options import TrainOptions
from ffnet_deploy.training.recipe import run_config
from ffnet_deploy.training.train import dry_run
from tests.toy import label_map, picture

LARGE = [name for name in config_names() if "nano" not in name]
LAYOUTS = {  # images, their ending, labels, their ending; for train and val
    "ade20k": ("images", "", "annotations", "", ("training", "validation")),
    "cityscapes": ("leftImg8bit", "_leftImg8bit", "gtFine", "_gtFine_labelIds", ("train/ulm", "val/ulm")),
    "camvid": ("images", "", "annotations", "", ("train", "val")),
    "scenes": ("images", "", "annotations", "", ("train", "val")),
}


def write_layout(root: Path, dataset: str) -> Path:
    """Two pairs a split in the layout of `dataset`, with ids as its files have them."""
    images, image_end, labels, label_end, splits = LAYOUTS[dataset]
    classes = len(label_set(dataset).classes)
    for split in splits:
        for number in range(2):
            ids = label_map(64, 96, classes, number)
            if dataset == "ade20k":
                ids = np.where(ids == 255, 0, ids + 1).astype(np.uint8)
            if dataset == "cityscapes":
                ids = np.array([7, 11, 24, 33, 3, 0], np.uint8)[ids % 6]  # 3 and 0 are ignored
            for folder, end, content in ((images, image_end, picture(64, 96, number)), (labels, label_end, ids)):
                (root / folder / split).mkdir(parents=True, exist_ok=True)
                suffix = ".jpg" if folder == images and dataset == "ade20k" else ".png"
                cv2.imwrite(str(root / folder / split / f"a_{number}{end}{suffix}"), content)
    return root


def options(name: str, tmp_path: Path) -> TrainOptions:
    data = write_layout(tmp_path / "data", load_config(name).dataset)
    crops = {"model.data_preprocessor.size": (64, 64), "model.test_cfg": {"mode": "whole"}}
    pipeline = load_config(name).cfg.train_dataloader.dataset.pipeline
    for number, step in enumerate(pipeline):
        if step.type in ("RandomCrop", "ClassCrop"):
            crops[f"train_dataloader.dataset.pipeline.{number}.crop_size"] = (64, 64)
        if step.type in ("RandomResize", "Resize"):
            crops[f"train_dataloader.dataset.pipeline.{number}.scale"] = (96, 64)
    return TrainOptions(name, data, work_dir=tmp_path / "run", batch=2, workers=0, seed=0, overrides=crops)


def loader_of(cfg: Any, split: str) -> Any:
    with DefaultScope.overwrite_default_scope("mmseg"):
        return Runner.build_dataloader(cfg[f"{split}_dataloader"])


@pytest.mark.parametrize("name", config_names())
def test_both_splits_of_every_config_open_and_load(name: str, tmp_path: Path) -> None:
    cfg = run_config(options(name, tmp_path))
    assert {split: found.pairs for split, found in check_data(cfg).items()} == {"train": 2, "val": 2}
    for split in ("train", "val"):
        loader = loader_of(cfg, split)
        batch = next(iter(loader))
        labels = batch["data_samples"][0].gt_sem_seg.data
        assert loader.dataset.metainfo["classes"] == load_config(name).labels.classes
        assert labels.max() == 255 or labels.max() < load_config(name).num_classes
        assert ((labels != 255) & (labels < load_config(name).num_classes)).any()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in LARGE else []) for n in config_names()]
)
def test_every_config_takes_a_step(name: str, tmp_path: Path) -> None:
    found = dry_run(options(name, tmp_path), Console(quiet=True))
    assert 0 < found.loss < 20, f"{found.loss}"
    assert found.pairs == {"train": 2, "val": 2}


def test_cityscapes_label_ids_are_trained_as_they_are_scored(tmp_path: Path) -> None:
    cfg = run_config(options("ffnet_seg_1024_city_160k", tmp_path))
    loader = loader_of(cfg, "val")
    labels = next(iter(loader))["data_samples"][0].gt_sem_seg.data
    assert set(labels.unique().tolist()) == {0, 2, 11, 18, 255}


def test_ade20k_labels_are_those_of_mmseg(shared_data: Path, tmp_path: Path) -> None:
    """Bit by bit, on the real samples, for both splits."""
    from mmseg.datasets import ADE20KDataset

    wanted = TrainOptions("ffnet_seg_512_ade_160k", shared_data / "ade20k_sample", work_dir=tmp_path, workers=0)
    cfg = run_config(wanted)
    for split, folder in (("train", "training"), ("val", "validation")):
        ours = loader_of(cfg, split).dataset
        prefix = {"img_path": f"images/{folder}", "seg_map_path": f"annotations/{folder}"}
        theirs = ADE20KDataset(data_root=str(shared_data / "ade20k_sample"), data_prefix=prefix)
        load = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "reduce_zero_label": True}]
        assert len(ours) == len(theirs)
        with DefaultScope.overwrite_default_scope("mmseg"):
            read_ours = Compose([{"type": "LoadImageFromFile"}, {"type": "LoadLabels"}])
            read_theirs = Compose(load)
        for index in range(len(ours)):
            mine, other = read_ours(ours.get_data_info(index)), read_theirs(theirs.get_data_info(index))
            assert mine["img_path"] == other["img_path"]
            assert np.array_equal(mine["gt_seg_map"], other["gt_seg_map"])
