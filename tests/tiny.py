"""Small configs of both families, built from the parts of the published ones, and weights as after training."""

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


def write_config(folder: Path, name: str) -> Path:
    """A config file of the family `name`."""
    path = folder / f"{name}.py"
    path.write_text(FAMILIES[name])
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
    classifier = model.decode_head.conv_seg
    nn.init.normal_(classifier.weight, 0, 0.3)
    with torch.no_grad():  # no class may win everywhere: take out what all positions have in common
        image = torch.randn(4, 3, 64, 64)
        classifier.bias -= model.decode_head(model.backbone(image)).mean((0, 2, 3))
