import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console

from ffnet_deploy.core.errors import ConfigError, DataError, OptionError
from ffnet_deploy.segmentor.overrides import parse_override
from ffnet_deploy.training import datasets
from ffnet_deploy.training.datasets import CheckLabels, ClassCrop, check_data
from ffnet_deploy.training.options import AmpType, TrainOptions
from ffnet_deploy.training.recipe import run_config
from ffnet_deploy.training.train import dry_run, train
from tests.training.tiny import NETWORK, tiny_options


@pytest.fixture
def own(data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data, tmp_path / "own"))


def spoil(path: Path, value: int) -> None:
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    labels[0, 0] = value
    cv2.imwrite(str(path), labels)


def checked(root: Path, tmp_path: Path) -> dict[str, int]:
    found = check_data(run_config(tiny_options(root, tmp_path / "run")))
    return {split: summary.pairs for split, summary in found.items()}


def test_own_data_is_counted(own: Path, tmp_path: Path) -> None:
    assert checked(own, tmp_path) == {"train": 8, "val": 2}


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda root: spoil(root / "annotations/train/003.png", 7), r"003\.png holds ids .* 3 classes do not have: 7 "),
        (lambda root: (root / "annotations/val/100.png").unlink(), r"1 of 2 images have no label map.*: 100"),
        (lambda root: shutil.rmtree(root / "images/train"), r"images has no folder train or training; found val"),
        (lambda root: [path.unlink() for path in (root / "images/val").iterdir()], r"no images below"),
        (lambda root: (root / "annotations/train/002.png").write_bytes(b"no image"), r"002\.png is not an image"),
        (lambda root: (root / "classes.txt").write_text("ground 90 90\n"), r"classes\.txt, line 1"),
    ],
)
def test_bad_data_is_one_clear_error(own: Path, tmp_path: Path, damage: Callable[[Path], Any], told: str) -> None:
    damage(own)
    with pytest.raises(DataError, match=told):
        checked(own, tmp_path)


def test_labels_that_are_all_ignored_are_told(own: Path, tmp_path: Path) -> None:
    for path in (own / "annotations/train").iterdir():
        cv2.imwrite(str(path), np.full((64, 96), 255, np.uint8))
    with pytest.raises(DataError, match="nothing to learn"):
        checked(own, tmp_path)


def test_a_wrong_label_found_on_the_way_is_told_without_traceback(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "LABELS_READ", 1)
    spoil(own / "annotations/train/001.png", 9)
    options = tiny_options(own, tmp_path / "run", workers=1, iterations=8, batch=1)
    with pytest.raises(DataError, match=r"\Alabel map .*001\.png holds the labels 9"):
        train(options, Console(quiet=True))


def test_label_and_image_of_different_sizes_are_told() -> None:
    pair = {"gt_seg_map": np.zeros((4, 6), np.uint8), "ori_shape": (4, 8), "seg_map_path": "a.png"}
    with pytest.raises(DataError, match=r"a\.png has 4x6 pixels, its image 4x8"):
        CheckLabels(3).transform(pair)


def test_a_crop_whose_labels_are_all_ignored_has_a_finite_loss(own: Path, tmp_path: Path) -> None:
    for index in range(7):
        cv2.imwrite(str(own / f"annotations/train/{index:03d}.png"), np.full((64, 96), 255, np.uint8))
    result = train(tiny_options(own, tmp_path / "run", batch=1, iterations=3), Console(quiet=True))
    assert result.iterations == 3


def test_class_crops_hold_rare_classes_more_often() -> None:
    labels = np.zeros((200, 300), np.uint8)
    labels[10:14, 20:24] = 1
    labels[150:, 250:] = 255
    shares = []
    for prob in (0.0, 1.0):
        np.random.seed(0)
        crop = ClassCrop(class_prob=prob, crop_size=(50, 60))
        held = []
        for _ in range(200):
            top, bottom, left, right = crop.crop_bbox({"gt_seg_map": labels, "img": labels})
            assert (bottom - top, right - left) == (50, 60) and 0 <= top <= 150 and 0 <= left <= 240
            held.append((labels[top:bottom, left:right] == 1).any())
        shares.append(np.mean(held))
    assert shares[0] < 0.15 and shares[1] > 0.4, f"{shares}"


@pytest.mark.parametrize(
    "changes",
    [
        {"iterations": 0},
        {"batch": 0},
        {"accumulate": 0},
        {"workers": -1},
        {"effective_batch": 0},
        {"patience": 0},
        {"name": "../x"},
        {"name": ""},
        {"resume": True, "load": "x.pth"},
    ],
)
def test_bad_options_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        TrainOptions("ffnet_seg_nano_scenes", **changes)


def test_mixed_precision_without_gpu_is_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(OptionError, match="fp16 needs a CUDA GPU"):
        run_config(tiny_options(data, tmp_path, amp=AmpType.FP16))


def test_mixed_precision_and_accumulation_reach_the_optimiser(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    wrapper = run_config(tiny_options(data, tmp_path, amp=AmpType.FP16, accumulate=4)).optim_wrapper
    assert (wrapper.type, wrapper.dtype, wrapper.loss_scale) == ("AmpOptimWrapper", "float16", "dynamic")
    assert wrapper.accumulative_counts == 4


def test_unknown_keys_offer_the_nearest(data: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="optim_wrapper"):
        run_config(tiny_options(data, tmp_path, overrides={"optim_wraper.optimizer.lr": 1}))


def test_a_config_without_training_is_told(tmp_path: Path) -> None:
    path = tmp_path / "bare.py"
    path.write_text("model = dict(backbone=dict(type='ffnet_seg'), decode_head=dict(num_classes=19))")
    with pytest.raises(ConfigError, match="describes no training"):
        run_config(TrainOptions(str(path), work_dir=tmp_path))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=1e-4", 1e-4),
        ("a.b=[1, 2]", [1, 2]),
        ("a.b=poly", "poly"),
        ("a.b=/data/x-1.pth", "/data/x-1.pth"),
        ("a.b=x=y", "x=y"),
        ("a.b=[dict(type='X', n=[1])]", [{"type": "X", "n": [1]}]),
        ("a.b=None", None),
    ],
)
def test_overrides_are_python_values_or_strings(text: str, value: object) -> None:
    assert parse_override(text) == ("a.b", value)


@pytest.mark.parametrize("text", ["a.b", "=3", " =3"])
def test_overrides_without_key_or_value_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="key=value"):
        parse_override(text)


def test_a_class_list_that_lies_with_the_data_is_read(own: Path, tmp_path: Path) -> None:
    """Four classes used to be trained as the config's eight where --classes was not given."""
    cfg = run_config(replace(tiny_options(own, tmp_path / "run"), classes=None))
    assert cfg.metainfo["classes"] == ("ground", "box", "sky")
    assert cfg.model.decode_head.num_classes == 3 and "class_weight" not in cfg.model.decode_head.loss_decode


def test_what_was_understood_of_the_data_is_told(own: Path, tmp_path: Path) -> None:
    (own / "classes.txt").write_text("ground 90 90 90\nbox 200 40 40\nsky 90 160 220\nunicorn 1 2 3\n")
    console = Console(record=True, file=io.StringIO(), width=200)
    dry_run(tiny_options(own, tmp_path / "run"), console)
    told = console.export_text()
    labels = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (own / "annotations/train").iterdir()]
    share = 100 * np.mean(np.stack(labels) == 1)
    for part in ("train: 8 pairs, images/train and annotations/train", f"box {share:.2f} %", "ignored 0.00 %"):
        assert part in told, told
    assert "1 of 4 classes are in no label map of train: unicorn" in told


def test_binary_masks_of_0_and_255_are_not_trained_on(own: Path, tmp_path: Path) -> None:
    for path in own.glob("annotations/*/*.png"):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(labels == 1, 255, 0).astype(np.uint8))
    (own / "classes.txt").write_text("background 90 90 90\nbox 200 40 40\n")
    with pytest.raises(DataError, match="only 0 and 255"):
        checked(own, tmp_path)


def test_tif_images_are_trained_on_as_they_are_scored(own: Path, tmp_path: Path) -> None:
    for path in sorted((own / "images/train").iterdir()):
        cv2.imwrite(str(path.with_suffix(".tif")), cv2.imread(str(path)))
        path.unlink()
    assert train(tiny_options(own, tmp_path / "run", iterations=1), Console(quiet=True)).iterations == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("custom_hooks=[dict(type=EMAHook)]", "no Python literal"),
        ("model.backbone.depths=[1,", "no Python literal"),
        ("train_cfg.max_iters={1: ", "no Python literal"),
        ("optim_wrapper=open('x')", "no Python literal"),
        ("visualizer={'type': 'X'}", "training does not use it[\\s\\S]*--logger"),
        ("vis_backends=[dict(type='X')]", "training does not use it[\\s\\S]*--logger"),
        ("train_pipeline=[]", "train_dataloader.dataset.pipeline"),
        ("work_dir='elsewhere'", "--work-dir"),
        ("test_dataloader.batch_size=3", "training does not use it"),
        ("modle.backbone.depths=[1]", "the config has no such part[\\s\\S]*model"),
        ("train_dataloader.dataset.data_root=/data", "--data both say where"),
    ],
)
def test_overrides_that_cannot_be_read_or_have_no_effect_are_refused(
    data: Path, tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(OptionError, match=told):
        run_config(replace(tiny_options(data, tmp_path), overrides=dict([parse_override(text)])))


@pytest.mark.parametrize(
    "overrides",
    [
        {"custom_hooks": [{"type": "NoSuchHook"}]},
        {"custom_hooks": [{"type": "EMAHook", "momentun": 0.1}]},
        {"train_cfg.no_such_option": 1},
        {"val_dataloader.dataset.no_such_option": 1},
    ],
)
def test_parts_that_cannot_be_built_fail_in_the_dry_run(data: Path, tmp_path: Path, overrides: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        dry_run(tiny_options(data, tmp_path / "run", overrides=overrides), Console(quiet=True))


@pytest.mark.parametrize("iterations", [1, 3, 1000])
def test_the_last_iteration_is_validated(data: Path, tmp_path: Path, iterations: int) -> None:
    """`val_begin` of the packaged config lies beyond short runs, which were never validated."""
    options = TrainOptions("ffnet_seg_nano_camvid", data, work_dir=tmp_path, iterations=iterations)
    loop = run_config(options).train_cfg
    assert loop.val_begin <= loop.max_iters == iterations
    assert loop.val_interval <= iterations


def test_a_short_run_of_a_packaged_schedule_has_a_best_checkpoint(data: Path, tmp_path: Path) -> None:
    overrides = {key: value for key, value in NETWORK.items() if key != "train_cfg.val_begin"}
    options = replace(tiny_options(data, tmp_path / "run", iterations=2), overrides=overrides)
    assert train(options, Console(quiet=True)).best is not None
    assert list((tmp_path / "run").glob("best_mIoU_iter_2.pth"))
