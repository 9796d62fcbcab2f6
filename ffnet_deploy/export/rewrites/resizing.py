"""Decoders with their resizing as modules: the form in which rewrites find what they replace.

A linear step after an enlargement has one shape in all decoders: a convolution of the concatenation of maps that were
enlarged to the size of the finest. `EnlargedConv` is that step. The graphs of FFNet's decoders without rewrites are
those of 0.1.0 to the byte, so that they get this form here; others have it from the start.
"""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from ffnet_deploy.export.enlarging import Enlarge, EnlargedConv, Interpolation
from ffnet_deploy.export.heads import DeployedUPerHead, enlarged_conv
from ffnet_deploy.models.ffnet_head import FFNetHead


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
        self.bottleneck = enlarged_conv(head.bottleneck, pyramid)
        self.lateral_convs = head.lateral_convs
        self.upsampler = nn.ModuleList(Enlarge(Interpolation.BILINEAR, 2) for _ in head.lateral_convs)
        self.fpn_convs = head.fpn_convs
        levels = [Enlarge(Interpolation.BILINEAR, 2 ** (level + 1)) for level in range(len(head.lateral_convs))]
        self.fpn_bottleneck = enlarged_conv(head.fpn_bottleneck, levels)
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
    """A copy of the deployed decoder `head` with its resizing as modules, which shares the weights."""
    if isinstance(head, FFNetHead):
        return OpenFFNetHead(head)
    if isinstance(head, DeployedUPerHead):
        return OpenUPerHead(head)
    # other modules, the same weights
    return copy.deepcopy(head, {id(tensor): tensor for tensor in (*head.parameters(), *head.buffers())})
