"""Small configs of both families and of MMSegmentation's own segmentors, and weights as after training."""

from pathlib import Path

import torch
from torch import nn

SEG = """
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(type="SegDataPreProcessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                           bgr_to_rgb=True),
    backbone=dict(type="FFNetSeg", depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), stem_channels=8,
                  layer_scale_init_value=0.5, drop_path_rate=0.1),
    decode_head=dict(type="FFNetHead", in_channels=[16, 24, 32], in_index=[0, 1, 2], spatial_ks=9, channel_ks=9,
                     head_stride=8, head_width=16, head_depth=2, expansion_ratio=2, final_expansion_ratio=2,
                     channels=32, num_classes=8, drop_path=0.1),
    test_cfg=dict(mode="whole"),
)
label_set = "scenes"
test_pipeline = [dict(type="Resize", scale=(128, 64), keep_ratio=True), dict(type="ResizeToMultiple", size_divisor=32)]
"""

UPERNET = """
norm = dict(type="BN")
dims = [16, 32, 64, 128]
model = dict(
    type="EncoderDecoder",
    backbone=dict(type="FFNet", depths=(1, 1, 1, 1), dims=dims, layer_scale_init_value=0.5),
    decode_head=dict(type="UPerHead", in_channels=dims, in_index=[0, 1, 2, 3], pool_scales=(1, 2, 3, 6), channels=24,
                     num_classes=8, norm_cfg=norm, align_corners=False),
    auxiliary_head=dict(type="FCNHead", in_channels=64, in_index=2, channels=8, num_convs=1, concat_input=False,
                        num_classes=8, norm_cfg=norm, align_corners=False),
    test_cfg=dict(mode="whole"),
)
label_set = "scenes"
test_pipeline = [dict(type="Resize", scale=(128, 64), keep_ratio=True), dict(type="ResizeToMultiple", size_divisor=32)]
"""

FAMILIES = {"tiny_seg": SEG, "tiny_upernet": UPERNET}

_OTHER = """
norm = dict(type="SyncBN", requires_grad=True)
resnet = dict(type="ResNetV1c", depth=18, base_channels=8, stem_channels=8, norm_cfg=norm)
mit = dict(type="MixVisionTransformer", embed_dims=8, num_layers=[1, 1, 1, 1], num_heads=[1, 2, 3, 4])
hrnet = dict(type="HRNet", norm_cfg=norm, extra=dict(
    stage1=dict(num_modules=1, num_branches=1, block="BOTTLENECK", num_blocks=(1,), num_channels=(8,)),
    stage2=dict(num_modules=1, num_branches=2, block="BASIC", num_blocks=(1, 1), num_channels=(8, 16)),
    stage3=dict(num_modules=1, num_branches=3, block="BASIC", num_blocks=(1, 1, 1), num_channels=(8, 16, 24)),
    stage4=dict(num_modules=1, num_branches=4, block="BASIC", num_blocks=(1, 1, 1, 1), num_channels=(8, 16, 24, 32))))
dilated = dict(resnet, dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1))
joined = dict(in_channels=[8, 16, 24, 32], in_index=(0, 1, 2, 3), input_transform="resize_concat")
options = dict(num_classes=8, norm_cfg=norm)
auxiliary = dict(type="FCNHead", in_channels=32, in_index=2, channels=8, num_convs=1, concat_input=False, **options)
model = dict(
    type="EncoderDecoder", backbone=BACKBONE, decode_head=HEAD, auxiliary_head=[auxiliary, dict(auxiliary, channels=4)],
    data_preprocessor=dict(type="SegDataPreProcessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                           bgr_to_rgb=True), test_cfg=dict(mode="whole"), MORE
)
label_set = "scenes"
test_pipeline = [dict(type="Resize", scale=(128, 64), keep_ratio=True)]
"""
_PARTS = {
    "tiny_pspnet": ("dilated", 'dict(type="PSPHead", in_channels=64, in_index=3, channels=16, **options)'),
    "tiny_segformer": (
        "mit",
        'dict(type="SegformerHead", in_channels=[8, 16, 24, 32], in_index=[0, 1, 2, 3], channels=16, **options)',
    ),
    "tiny_fcn": ("dilated", 'dict(type="FCNHead", in_channels=64, in_index=3, channels=16, num_convs=2, **options)'),
    "tiny_deeplabv3plus": (
        "dilated",
        'dict(type="DepthwiseSeparableASPPHead", in_channels=64, in_index=3, channels=16, dilations=(1, 2, 4), '
        "c1_in_channels=8, c1_channels=4, **options)",
    ),
    "tiny_hrnet": (
        "hrnet",
        'dict(type="FCNHead", channels=24, kernel_size=1, num_convs=1, concat_input=False, **joined, **options)',
    ),
    "tiny_dnl": ("dilated", 'dict(type="DNLHead", in_channels=64, in_index=3, channels=16, **options)'),
    "tiny_fpn": (
        "resnet",
        'dict(type="FPNHead", in_channels=[16] * 4, in_index=[0, 1, 2, 3], feature_strides=[4, 8, 16, 32], '
        "channels=16, **options)",
        'neck=dict(type="FPN", in_channels=[8, 16, 32, 64], out_channels=16, num_outs=4)',
    ),
    "tiny_ocrnet": (
        "hrnet",
        '[dict(type="FCNHead", channels=24, kernel_size=1, num_convs=1, concat_input=False, **joined, **options), '
        'dict(type="OCRHead", channels=16, ocr_channels=8, **joined, **options)]',
        'num_stages=2, type="CascadeEncoderDecoder"',
    ),
}
"""Backbone, decoder and what else there is of each."""


def _config(backbone: str, head: str, more: str = "") -> str:
    text = _OTHER.replace("BACKBONE", backbone).replace("HEAD", head)
    if "Cascade" in more:
        text = text.replace('type="EncoderDecoder", ', "").replace(
            "in_channels=32, in_index=2", "in_channels=24, in_index=2"
        )
    return text.replace("MORE", more)


OTHERS = {name: _config(*parts) for name, parts in _PARTS.items()}
ANY_SIZE = ("tiny_pspnet", "tiny_segformer", "tiny_fcn", "tiny_deeplabv3plus", "tiny_hrnet")
"""Of `OTHERS` those whose decoder has a form that is exact at every size."""


def write_config(folder: Path, name: str) -> Path:
    """A config file of the family `name`."""
    path = folder / f"{name}.py"
    path.write_text((FAMILIES | OTHERS)[name])
    return path


def write_checkpoint(folder: Path, name: str, seed: int = 0) -> tuple[Path, Path]:
    """A config and a checkpoint whose every tensor, batch statistics too, is random but bounded."""
    from ffnet_deploy import load_segmentor

    config = write_config(folder, name)
    torch.manual_seed(seed)
    model = load_segmentor(config)
    randomize(model)
    path = folder / f"{name}.pth"
    torch.save({"state_dict": model.state_dict(), "meta": {}}, path)
    return config, path


def randomize(model: nn.Module) -> None:
    """Give batch norms statistics and scales as after training, so that folding them is not trivial."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    head = model.decode_head
    classifier = (head[-1] if isinstance(head, nn.ModuleList) else head).conv_seg
    nn.init.normal_(classifier.weight, 0, 0.3)
    with torch.no_grad():  # no class may win everywhere: take out what all positions have in common
        image = torch.randn(4, 3, 64, 64)
        classifier.bias -= model(image).mean((0, 2, 3))
