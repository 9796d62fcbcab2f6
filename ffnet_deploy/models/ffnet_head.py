"""The decoder of the segmentation family."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from ffnet_deploy.models.blocks import ChannelMixer, ConvBN, Residual, TokenMixer, seg_rep_dw


class HeadBlock(nn.Module):
    """A decoder block: token mixer and channel mixer, each `GELU(x + drop_path(main(x)))`."""

    def __init__(self, channels: int, token_kernel: int, channel_kernel: int, ratio: int, drop_path: float):
        super().__init__()
        token = TokenMixer(channels, seg_rep_dw(channels, token_kernel), seg_rep_dw(channels, token_kernel))
        channel = ChannelMixer(channels, ratio, seg_rep_dw(channels, channel_kernel))
        self.token_mixer = Residual(token, channels, drop_path, act=nn.GELU())
        self.channel_mixer = Residual(channel, channels, drop_path, act=nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape as `x`."""
        out: Tensor = self.channel_mixer(self.token_mixer(x))
        return out


def up_sample(factor: int) -> nn.Module:
    """Bicubic enlargement by `factor` in both directions, pixel centres at half positions."""
    return nn.Identity() if factor == 1 else nn.Upsample(scale_factor=factor, mode="bicubic", align_corners=False)


@MODELS.register_module()
class FFNetHead(BaseDecodeHead):  # type: ignore[misc]
    """Concatenates all levels at the finest stride, squeezes them, mixes them and classifies each pixel.

    Args:
        spatial_ks: depthwise kernel of the token mixers.
        channel_ks: depthwise kernel of the channel mixers.
        head_stride: stride of the output, in input pixels.
        head_width: channels of the blocks.
        head_depth: number of blocks.
        expansion_ratio: of the channel mixers.
        final_expansion_ratio: of the layer before the classifier.
        drop_path: stochastic depth of the last block; rises linearly from 0.
        strides: stride of each input level, in input pixels.
        **options: of mmseg's `BaseDecodeHead`: in_channels, channels, num_classes, dropout_ratio, ...
    """

    def __init__(
        self,
        spatial_ks: int,
        channel_ks: int,
        head_stride: int,
        head_width: int,
        head_depth: int,
        expansion_ratio: int,
        final_expansion_ratio: int = 4,
        drop_path: float = 0.0,
        strides: Sequence[int] = (8, 16, 32),
        **options: Any,
    ):
        super().__init__(input_transform="multiple_select", **options)
        total = sum(self.in_channels)
        self.upsampler = nn.ModuleList(up_sample(stride // head_stride) for stride in strides)
        self.squeeze = nn.Sequential(ConvBN(total, total), nn.GELU(), ConvBN(total, head_width))
        rates = np.linspace(0, drop_path, head_depth).tolist()
        self.head_blocks = nn.Sequential(
            *(HeadBlock(head_width, spatial_ks, channel_ks, expansion_ratio, rate) for rate in rates)
        )
        self.align = nn.Sequential(ConvBN(head_width, head_width * final_expansion_ratio), nn.GELU())

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits (batch, classes, H / head_stride, W / head_stride) from the backbone's features, finest first."""
        levels = [up(level) for up, level in zip(self.upsampler, self._transform_inputs(inputs), strict=True)]
        x = self.align(self.head_blocks(self.squeeze(torch.cat(levels, dim=1))))
        logits: Tensor = self.cls_seg(x)
        return logits
