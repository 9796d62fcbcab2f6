"""Decoders with their resizing as modules: the form in which rewrites find what they replace.

A linear step after an enlargement has one shape in both families: a convolution of the concatenation of maps that were
enlarged to the size of the finest. `EnlargedConv` is that step.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ffnet_deploy.export.network import DeployedUPerHead
from ffnet_deploy.export.rewrites.matrices import Interpolation
from ffnet_deploy.models.ffnet_head import FFNetHead


class Enlarge(nn.Module):
    """Enlargement of a map to a given size, pixel centres at half positions.

    Args:
        mode: the interpolation.
        factor: how many times larger the size is in both directions; None: any ratio.
    """

    def __init__(self, mode: Interpolation, factor: int | None):
        super().__init__()
        self.mode = mode
        self.factor = factor

    def forward(self, x: Tensor, size: Sequence[Any]) -> Tensor:
        """(batch, channels, h, w) to (batch, channels, *size)."""
        scaling: dict[str, Any] = {"scale_factor": float(self.factor)} if self.factor else {"size": tuple(size)}
        return functional.interpolate(x, mode=self.mode.value, align_corners=False, **scaling)


class EnlargedConv(nn.Module):
    """`conv(cat(levels))`, every level but the first enlarged to the size of the first."""

    def __init__(self, conv: nn.Conv2d, upsampler: Sequence[Enlarge]):
        super().__init__()
        self.conv = conv
        self.upsampler = nn.ModuleList(upsampler)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """(batch, out_channels, H, W) from maps (batch, channels, h, w), the first of H x W."""
        first, *others = levels
        enlarged = [up(level, first.shape[2:]) for up, level in zip(self.upsampler, others, strict=True)]
        out: Tensor = self.conv(torch.cat((first, *enlarged), dim=1) if enlarged else first)
        return out


class OpenFFNetHead(nn.Module):
    """`FFNetHead`, re-parameterised, with the squeeze of its concatenation as an `EnlargedConv`."""

    def __init__(self, head: FFNetHead):
        super().__init__()
        first, *others = head.upsampler
        assert isinstance(first, nn.Identity), "the finest level is the head's own size"
        factors: list[Any] = [up.scale_factor for up in others]
        conv, *rest = head.squeeze
        assert isinstance(conv, nn.Conv2d), "the head is re-parameterised"
        self.in_index = head.in_index
        self.squeeze = nn.Sequential(
            EnlargedConv(conv, [Enlarge(Interpolation.BICUBIC, int(factor)) for factor in factors]), *rest
        )
        self.head_blocks = head.head_blocks
        self.align = head.align
        self.conv_seg = head.conv_seg

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits (batch, classes, H / head_stride, W / head_stride) from the backbone's features, finest first."""
        levels = [features[index] for index in self.in_index]
        logits: Tensor = self.conv_seg(self.align(self.head_blocks(self.squeeze(levels))))
        return logits


class OpenUPerHead(nn.Module):
    """`DeployedUPerHead` with its bottlenecks as `EnlargedConv`, its top-down path with enlargements as modules."""

    def __init__(self, head: DeployedUPerHead):
        super().__init__()
        self.in_index = head.in_index
        self.psp_modules = head.psp_modules
        pyramid = [Enlarge(Interpolation.BILINEAR, None) for _ in head.psp_modules]
        self.bottleneck = nn.Sequential(EnlargedConv(head.bottleneck.conv, pyramid), head.bottleneck.activate)
        self.lateral_convs = head.lateral_convs
        self.upsampler = nn.ModuleList(Enlarge(Interpolation.BILINEAR, 2) for _ in head.lateral_convs)
        self.fpn_convs = head.fpn_convs
        levels = [Enlarge(Interpolation.BILINEAR, 2 ** (level + 1)) for level in range(len(head.lateral_convs))]
        fusion = head.fpn_bottleneck
        self.fpn_bottleneck = nn.Sequential(EnlargedConv(fusion.conv, levels), fusion.activate)
        self.conv_seg = head.conv_seg

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits (batch, classes, H / 4, W / 4) from the backbone's features, finest first."""
        *levels, top = [features[index] for index in self.in_index]
        pools: Iterable[Any] = self.psp_modules
        path = [self.bottleneck([top, *(pool.pooled(top, *top.shape[2:]) for pool in pools)])]
        for conv, up, level in zip(
            reversed(self.lateral_convs), reversed(self.upsampler), reversed(levels), strict=True
        ):
            lateral = conv(level)
            path.insert(0, lateral + up(path[0], lateral.shape[2:]))
        outputs = [conv(lateral) for conv, lateral in zip(self.fpn_convs, path, strict=False)]
        logits: Tensor = self.conv_seg(self.fpn_bottleneck([*outputs, path[-1]]))
        return logits


def open_head(head: nn.Module) -> nn.Module:
    """The deployed decoder `head` in its form with resizing as modules; it computes the same."""
    if isinstance(head, FFNetHead):
        return OpenFFNetHead(head)
    assert isinstance(head, DeployedUPerHead), type(head)
    return OpenUPerHead(head)
