"""Config files of the 0.x era load as they were published, with their base files and without."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mmseg")

from ffnet_deploy.core.errors import ConfigError  # noqa: E402
from ffnet_deploy.segmentor.config import (  # noqa: E402
    SegmentorConfig,
    build_segmentor,
    load_config,
)
from ffnet_deploy.segmentor.published_config import merge  # noqa: E402

NORM = "img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)\n"
UPERNET_BASE = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    pretrained=None,
    backbone=dict(type='ConvNeXt', arch='tiny', depths=[3, 3, 9, 3]),
    decode_head=dict(
        type='UPerHead', in_channels=[1, 2, 3, 4], in_index=[0, 1, 2, 3], pool_scales=(1, 2, 3, 6), channels=512,
        dropout_ratio=0.1, num_classes=19, norm_cfg=norm_cfg, align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    auxiliary_head=dict(
        type='FCNHead', in_channels=3, in_index=2, channels=256, num_convs=1, concat_input=False, dropout_ratio=0.1,
        num_classes=19, norm_cfg=norm_cfg, align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
"""
FFNET_BASE = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    backbone=dict(type='ffnet_seg'),
    decode_head=dict(
        type='FFNetHead', in_channels=[192, 384, 768], in_index=[0, 1, 2], spatial_ks=9, channel_ks=9, head_stride=8,
        head_width=256, head_depth=3, expansion_ratio=4, final_expansion_ratio=4, channels=1024, dropout_ratio=0.1,
        num_classes=150, norm_cfg=norm_cfg, align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
"""
UPERNET = """
_base_ = [
    '../_base_/models/upernet_ffnet.py', '../_base_/datasets/ade20k.py',
    '../_base_/default_runtime.py', '../_base_/schedules/schedule_160k.py'
]
checkpoint_file = '/root/ffnet_4_384.pth.tar'
model = dict(
    backbone=dict(
        _delete_=True, type='ffnet_4', layer_scale_init_value=1., drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file, prefix='backbone.')),
    decode_head=dict(in_channels=[128, 256, 512, 1024], num_classes=150),
    auxiliary_head=dict(in_channels=512, num_classes=150))
optimizer = dict(_delete_=True, constructor='LayerDecayOptimizerConstructor', type='AdamW', lr=0.0001,
                 betas=(0.9, 0.999), weight_decay=0.05, paramwise_cfg=dict(decay_rate=0.9, num_layers=12))
lr_config = dict(_delete_=True, policy='poly', warmup='linear', warmup_iters=1500, power=1.0, by_epoch=False)
data = dict(samples_per_gpu=2)
"""
FFNET_ADE = """
_base_ = ['../_base_/models/ffnet.py', '../_base_/datasets/ade20k_repeat.py',
          '../_base_/default_runtime.py', '../_base_/schedules/schedule_160k_adamw.py']
find_unused_parameters = True
model = dict(
    pretrained=None,
    backbone=dict(_delete_=True, type='ffnet_seg', layer_scale_init_value=1e-5, drop_path_rate=0.3,
                  init_cfg=dict(type='Pretrained', checkpoint='ffnet_seg.pth.tar')),
    decode_head=dict(num_classes=150, drop_path=0.1))
data = dict(samples_per_gpu=2)
evaluation = dict(interval=4000, metric='mIoU')
"""
FFNET_CITY = """
_base_ = ['../_base_/models/ffnet.py', '../_base_/datasets/cityscapes_1024x1024_repeat.py',
          '../_base_/default_runtime.py', '../_base_/schedules/schedule_160k_adamw.py']
model = dict(
    backbone=dict(_delete_=True, type='ffnet_seg_3', drop_path_rate=0.35,
                  init_cfg=dict(type='Pretrained', checkpoint='ffnet_seg.pth.tar')),
    decode_head=dict(num_classes=19, head_depth=5, expansion_ratio=1, drop_path=0.),
    test_cfg=dict(mode='slide', crop_size=(1024, 1024), stride=(768, 768)))
data = dict(samples_per_gpu=2)
"""
FILES = {
    "upernet_ffnet_4_512_160k_ade20k": UPERNET,
    "ffnet_seg_512_ade_160k": FFNET_ADE,
    "ffnet_seg_1024_city_160k": FFNET_CITY,
}


def dataset(kind: str, scale: str, resizing: str) -> str:
    """A data set's base file with the test pipeline written as 0.x had it."""
    return f"""
dataset_type = '{kind}'
data_root = 'data'
{NORM}
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiScaleFlipAug', img_scale={scale}, flip=False,
        transforms=[
            {resizing}
            dict(type='RandomFlip'),
            dict(type='Normalize', **img_norm_cfg),
            dict(type='ImageToTensor', keys=['img']),
            dict(type='Collect', keys=['img']),
        ])
]
data = dict(samples_per_gpu=2, test=dict(type=dataset_type, data_root=data_root, pipeline=test_pipeline))
"""


STEPS = "dict(type='Resize', keep_ratio=True), dict(type='ResizeToMultiple', size_divisor=32),"
ALIGN = "dict(type='AlignResize', keep_ratio=True, size_divisor=32),"
BASES = {
    "models/upernet_ffnet.py": UPERNET_BASE,
    "models/ffnet.py": FFNET_BASE,
    "datasets/ade20k.py": dataset("ADE20KDataset", "(2048, 512)", STEPS),
    "datasets/ade20k_repeat.py": dataset("ADE20KDataset", "(2048, 512)", ALIGN),
    "datasets/cityscapes_1024x1024_repeat.py": dataset(
        "CityscapesDataset", "(2048, 1024)", "dict(type='Resize', keep_ratio=True),"
    ),
    "schedules/schedule_160k.py": "optimizer = dict(type='SGD', lr=0.01)\nlr_config = dict(policy='poly')\n",
    "schedules/schedule_160k_adamw.py": "optimizer = dict(type='AdamW', lr=0.00006)\n",
    "default_runtime.py": "log_level = 'INFO'\nworkflow = [('train', 1)]\n",
}


def publish(root: Path, name: str, text: str, bases: tuple[str, ...] = ()) -> Path:
    """The config `text` in its folder, with the base files `bases` beside it."""
    for base in bases:
        path = root / "_base_" / base
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(BASES[base])
    path = root / "ffnet" / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def shapes(config: SegmentorConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = build_segmentor(config)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def assert_same(found: SegmentorConfig, expected: SegmentorConfig) -> None:
    assert shapes(found) == shapes(expected)
    assert found.protocol == expected.protocol
    assert found.normalization == expected.normalization
    assert (found.dataset, found.labels) == (expected.dataset, expected.labels)


@pytest.mark.parametrize("name", FILES)
def test_with_its_base_files_it_is_the_packaged_segmentor(tmp_path: Path, name: str) -> None:
    config = load_config(publish(tmp_path, name, FILES[name], tuple(BASES)))
    assert_same(config, load_config(name))
    assert [line for line in config.assumptions if "missing" in line] == []


@pytest.mark.parametrize("name", FILES)
def test_without_its_base_files_it_is_the_packaged_segmentor_and_says_so(tmp_path: Path, name: str) -> None:
    config = load_config(publish(tmp_path, name, FILES[name]))
    assert_same(config, load_config(name))
    told = "\n".join(config.assumptions)
    assert told.count("stand in for it") == 2 and told.count("only matters in training and is left out") == 2


def test_the_published_cityscapes_file_says_what_was_assumed(tmp_path: Path) -> None:
    bases = tuple(base for base in BASES if "cityscapes" not in base)
    config = load_config(publish(tmp_path, "ffnet_seg_1024_city_160k", FFNET_CITY, bases))
    assert_same(config, load_config("ffnet_seg_1024_city_160k"))
    assert len(config.assumptions) == 3
    assert "says nothing of normalisation" in config.assumptions[2]
    assert "cityscapes_1024x1024_repeat.py is missing; the packaged cityscapes settings" in config.assumptions[0]
    assert "ffnet_seg_3 is taken as ffnet_seg" in config.assumptions[1]


def test_paths_to_pretrained_backbones_are_not_followed(tmp_path: Path) -> None:
    config = load_config(publish(tmp_path, "upernet_ffnet_4_512_160k_ade20k", UPERNET, tuple(BASES)))
    assert "init_cfg" not in config.cfg.model.backbone and "pretrained" not in config.cfg.model


def test_options_of_the_file_win_over_those_of_its_bases(tmp_path: Path) -> None:
    backbone = load_config(publish(tmp_path, "a", UPERNET, tuple(BASES))).cfg.model.backbone
    assert dict(backbone) == {"type": "ffnet_4", "layer_scale_init_value": 1.0, "drop_path_rate": 0.3}


def test_a_missing_base_without_equivalent_is_named(tmp_path: Path) -> None:
    path = publish(tmp_path, "a", "_base_ = ['../_base_/models/segformer.py']\n")
    with pytest.raises(ConfigError, match=r"needs the base file \.\./_base_/models/segformer\.py, which is missing"):
        load_config(path)


def test_bases_in_a_circle_are_one_clear_error_where_others_are_missing(tmp_path: Path) -> None:
    publish(tmp_path, "b", "_base_ = ['a.py', '../_base_/models/ffnet.py']\n")
    with pytest.raises(ConfigError, match="is its own base"):
        load_config(publish(tmp_path, "a", "_base_ = ['../_base_/schedules/schedule_160k.py', 'b.py']\n"))


def test_an_error_in_a_base_names_the_base(tmp_path: Path) -> None:
    publish(tmp_path, "b", "x = 1 / 0\n")
    with pytest.raises(ConfigError, match=r"b\.py cannot be read: ZeroDivisionError"):
        load_config(publish(tmp_path, "a", "_base_ = ['../_base_/schedules/schedule_160k.py', 'b.py']\n"))


@pytest.mark.parametrize(
    ("base", "changes", "expected"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}}, {"a": {"x": 1, "y": 3}}),
        ({"a": {"x": 1}}, {"a": {"_delete_": True, "y": 3}}, {"a": {"y": 3}}),
        ({"a": {"x": 1}}, {"a": {"_delete_": False, "y": 3}}, {"a": {"x": 1, "y": 3}}),
        ({"a": {"x": {"p": 1}}}, {"a": {"x": {"_delete_": True}}}, {"a": {"x": {}}}),
        ({}, {"a": {"_delete_": True, "b": {"_delete_": True, "c": 1}}}, {"a": {"b": {"c": 1}}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": 1}, {"a": {"x": 1}}, {"a": {"x": 1}}),
        ({"a": {"x": 1}}, {"a": None}, {"a": None}),
    ],
)
def test_changes_are_merged_dict_by_dict(base: dict[str, Any], changes: dict[str, Any], expected: Any) -> None:
    before = repr((base, changes))
    assert merge(base, changes) == expected
    assert repr((base, changes)) == before
