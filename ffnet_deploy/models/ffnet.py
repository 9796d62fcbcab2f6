"""Classification family: FFNet-1..4, the backbones of UPerNet."""

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn

from ffnet_deploy.models.blocks import (
    ChannelMixer,
    ConvBN,
    FFBlock,
    Residual,
    TokenMixer,
    classification_rep_dw,
    drop_path_rates,
)

STEM_CHANNELS = 64
TOKEN_KERNELS = (3, 3, 7, 7)
"""Depthwise kernel size of the token mixer, by stage."""


class ChannelLayerNorm(nn.Module):
    """Layer norm over the channels of (batch, channels, height, width), at each position."""

    def __init__(self, channels: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalised features of the same shape as `x`."""
        centred = x - x.mean(1, keepdim=True)
        variance = (centred * centred).mean(1, keepdim=True)
        normalised = centred / torch.sqrt(variance + self.eps)
        return normalised * self.weight[:, None, None] + self.bias[:, None, None]


class BNConv(nn.Module):
    """Batch norm, then a 1x1 convolution without bias."""

    def __init__(self, channels: int):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.c = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`c(bn(x))`."""
        out: Tensor = self.c(self.bn(x))
        return out


class ResidualPointwise(nn.Module):
    """`x + c(bn(x))`: one 1x1 convolution once folded."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = BNConv(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape as `x`."""
        out: Tensor = x + self.conv(x)
        return out


class DownSample(nn.Module):
    """Halves height and width: `RepDW` 7x7 stride 2 with twice as many outputs, then `ResidualPointwise`."""

    def __init__(self, channels: int):
        super().__init__()
        rep_dw = classification_rep_dw(channels, 7, stride=2, multiplier=2)
        self.proj = nn.Sequential(rep_dw, ResidualPointwise(2 * channels))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, 2 * channels, height / 2, width / 2)."""
        out: Tensor = self.proj(x)
        return out


def _token_conv(channels: int, kernel: int) -> nn.Module:
    if kernel == 3:
        return nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
    return classification_rep_dw(channels, kernel)


@MODELS.register_module()
class FFNet(nn.Module):
    """Backbone with four stages at strides 4, 8, 16 and 32, each output layer-normalised.

    Args:
        depths: blocks per stage.
        dims: channels per stage, each twice the one before.
        channel_kernel: depthwise kernel of the channel mixers, 3 or 7.
        ratio: expansion of the channel mixers.
        layer_scale_init_value: initial layer scale; None: the network has none.
        drop_path_rate: stochastic depth of the last block; rises linearly from 0 at the first.
    """

    def __init__(
        self,
        depths: Sequence[int],
        dims: Sequence[int],
        channel_kernel: int = 7,
        ratio: int = 3,
        layer_scale_init_value: float | None = None,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        self.patch_embed = nn.Sequential(
            ConvBN(3, STEM_CHANNELS, 3, stride=2), nn.GELU(), ConvBN(STEM_CHANNELS, dims[0], 3, stride=2)
        )
        self.stages = nn.ModuleList()
        rates = drop_path_rates(depths, drop_path_rate)
        for stage, channels in enumerate(dims):
            down = [DownSample(dims[stage - 1])] if stage else []
            blocks = [
                ffnet_block(channels, TOKEN_KERNELS[stage], channel_kernel, ratio, rate, layer_scale_init_value)
                for rate in rates[stage]
            ]
            self.stages.append(nn.Sequential(*down, *blocks))
            self.add_module(f"norm{stage}", ChannelLayerNorm(channels))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Features at strides 4, 8, 16, 32 of normalised RGB images `x` (batch, 3, height, width)."""
        x = self.patch_embed(x)
        features = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            features.append(getattr(self, f"norm{index}")(x))
        return tuple(features)


def ffnet_block(
    channels: int, token_kernel: int, channel_kernel: int, ratio: int, drop_path: float, layer_scale: float | None
) -> FFBlock:
    """One block of the classification family."""
    token = TokenMixer(channels, _token_conv(channels, token_kernel), _token_conv(channels, token_kernel))
    if channel_kernel == 3:
        conv: nn.Module = ConvBN(channels, channels, 3, groups=channels)
    else:
        conv = classification_rep_dw(channels, channel_kernel)
    channel = ChannelMixer(channels, ratio, conv)
    return FFBlock(
        Residual(token, channels, drop_path, layer_scale), Residual(channel, channels, drop_path, layer_scale)
    )


@MODELS.register_module()
def ffnet_1(**options: Any) -> FFNet:
    """FFNet-1."""
    return FFNet((2, 2, 8, 2), (80, 160, 320, 640), channel_kernel=3, **options)


@MODELS.register_module()
def ffnet_2(**options: Any) -> FFNet:
    """FFNet-2."""
    return FFNet((3, 3, 15, 3), (88, 176, 352, 704), **options)


@MODELS.register_module()
def ffnet_3(layer_scale_init_value: float = 1.0, **options: Any) -> FFNet:
    """FFNet-3; its layer scale is part of the architecture."""
    return FFNet((4, 4, 22, 5), (96, 192, 384, 768), layer_scale_init_value=layer_scale_init_value, **options)


@MODELS.register_module()
def ffnet_4(layer_scale_init_value: float = 1.0, **options: Any) -> FFNet:
    """FFNet-4; its layer scale is part of the architecture."""
    return FFNet((4, 4, 27, 3), (128, 256, 512, 1024), layer_scale_init_value=layer_scale_init_value, **options)
