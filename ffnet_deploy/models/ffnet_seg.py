"""Segmentation family: the FFNet_seg backbone, in the published size or any other."""

from collections.abc import Sequence
from typing import Any

from mmseg.registry import MODELS
from torch import Tensor, nn

from ffnet_deploy.models.blocks import (
    ChannelMixer,
    ConvBN,
    FFBlock,
    Residual,
    TokenMixer,
    drop_path_rates,
    seg_rep_dw,
)


class SegDownSample(nn.Module):
    """Halves height and width: `ConvBN` 3x3 stride 2 to twice the outputs, GELU, `ConvBN` 1x1."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.proj = nn.Sequential(
            ConvBN(in_channels, 2 * out_channels, 3, stride=2), nn.GELU(), ConvBN(2 * out_channels, out_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, height, width) -> (batch, out_channels, height / 2, width / 2)."""
        out: Tensor = self.proj(x)
        return out


def stem(stem_channels: int, channels: int) -> nn.Sequential:
    """Four 3x3 `ConvBN`, the first and the last with stride 2: (batch, 3, H, W) -> (batch, channels, H / 4, W / 4)."""
    return nn.Sequential(
        ConvBN(3, stem_channels, 3, stride=2),
        nn.GELU(),
        ConvBN(stem_channels, stem_channels, 3),
        nn.GELU(),
        ConvBN(stem_channels, channels, 3),
        ConvBN(channels, channels, 3, stride=2),
    )


def seg_block(channels: int, token_kernel: int, ratio: int, drop_path: float, layer_scale: float) -> FFBlock:
    """One block of the segmentation family's backbone."""
    token = TokenMixer(channels, seg_rep_dw(channels, token_kernel), seg_rep_dw(channels, token_kernel))
    channel = ChannelMixer(channels, ratio, ConvBN(channels, channels, 3, groups=channels))
    return FFBlock(
        Residual(token, channels, drop_path, layer_scale), Residual(channel, channels, drop_path, layer_scale)
    )


@MODELS.register_module()
class FFNetSeg(nn.Module):
    """Backbone with four stages; the last three (strides 8, 16, 32) are its outputs.

    Args:
        depths: blocks per stage.
        dims: channels per stage.
        stem_channels: channels inside the stem.
        token_kernels: depthwise kernel of the token mixers, by stage; 3 or at least 7.
        ratio: expansion of the channel mixers.
        layer_scale_init_value: initial layer scale.
        drop_path_rate: stochastic depth of the last block; rises linearly from 0 at the first.
    """

    def __init__(
        self,
        depths: Sequence[int] = (3, 4, 18, 5),
        dims: Sequence[int] = (96, 192, 384, 768),
        stem_channels: int = 64,
        token_kernels: Sequence[int] = (3, 3, 9, 9),
        ratio: int = 4,
        layer_scale_init_value: float = 1e-5,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        self.patch_embed = stem(stem_channels, dims[0])
        self.stages = nn.ModuleList()
        rates = drop_path_rates(depths, drop_path_rate)
        for stage, channels in enumerate(dims):
            down = [SegDownSample(dims[stage - 1], channels)] if stage else []
            blocks = [
                seg_block(channels, token_kernels[stage], ratio, rate, layer_scale_init_value) for rate in rates[stage]
            ]
            self.stages.append(nn.Sequential(*down, *blocks))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Features at strides 8, 16, 32 of normalised RGB images `x` (batch, 3, height, width)."""
        x = self.patch_embed(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return tuple(features[1:])


@MODELS.register_module()
def ffnet_seg(**options: Any) -> FFNetSeg:
    """FFNet_seg as published."""
    return FFNetSeg(**options)
