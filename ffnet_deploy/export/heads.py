"""Decoders in the form that is exported: those that are exact at every input size, and all others as they are.

Where a decoder enlarges maps before a convolution, that step is a module of its own, which rewrites look for.
"""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import (
    ASPPHead,
    DepthwiseSeparableASPPHead,
    DepthwiseSeparableFCNHead,
    FCNHead,
    PSPHead,
    SegformerHead,
    STDCHead,
    UPerHead,
)
from mmseg.models.decode_heads.psp_head import PPM
from torch import Tensor, nn
from torch.nn import functional

from ffnet_deploy.export.enlarging import Enlarge, EnlargedConv, Interpolation, enlarged
from ffnet_deploy.models.ffnet_head import FFNetHead


class DeployedUPerHead(nn.Module):
    """UPerHead whose every resize is by a constant factor and whose pyramid pooling is exact for every size.

    Input features have strides 4, 8, 16, 32; each level is exactly half the one before, because input sizes are
    multiples of 32.
    """

    def __init__(self, head: UPerHead):
        super().__init__()
        self.psp_modules = pyramid_pools(head.psp_modules)
        self.bottleneck = head.bottleneck
        self.lateral_convs = head.lateral_convs
        self.fpn_convs = head.fpn_convs
        self.fpn_bottleneck = head.fpn_bottleneck
        self.conv_seg = head.conv_seg
        self.in_index = head.in_index

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits (batch, classes, H / 4, W / 4) from the backbone's features, finest first."""
        levels = [features[index] for index in self.in_index]
        top = levels[-1]
        pyramid = [top, *(pool(top) for pool in self.psp_modules)]
        laterals = [conv(level) for conv, level in zip(self.lateral_convs, levels, strict=False)]
        laterals.append(self.bottleneck(torch.cat(pyramid, dim=1)))
        for index in range(len(laterals) - 1, 0, -1):
            laterals[index - 1] = laterals[index - 1] + enlarged(laterals[index], 2.0)
        outputs = [conv(lateral) for conv, lateral in zip(self.fpn_convs, laterals, strict=False)]
        outputs.append(laterals[-1])
        equal = [outputs[0], *(enlarged(out, float(2**level)) for level, out in enumerate(outputs[1:], 1))]
        logits: Tensor = self.conv_seg(self.fpn_bottleneck(torch.cat(equal, dim=1)))
        return logits


class PyramidPool(nn.Module):
    """Adaptive average pooling to `scale` x `scale`, a 1x1 convolution, and bilinear enlargement to the input size.

    Pooling is written as two matrix products whose matrices follow from the input's height and width, so it is exact
    for sizes that `scale` does not divide, also when they are only known at run time.
    """

    def __init__(self, scale: int, conv: nn.Module):
        super().__init__()
        self.scale = scale
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, h, w) to (batch, out_channels, h, w)."""
        height, width = x.shape[2:]
        pooled = self.pooled(x, height, width)
        return functional.interpolate(pooled, size=(height, width), mode="bilinear", align_corners=False)

    def pooled(self, x: Tensor, height: Any, width: Any) -> Tensor:
        """(batch, channels, height, width) to (batch, out_channels, scale, scale)."""
        if self.scale == 1:
            pooled = x.mean((2, 3), keepdim=True)
        else:
            rows = pooling_matrix(height, self.scale, x.device).to(x)
            columns = pooling_matrix(width, self.scale, x.device).to(x)
            pooled = rows @ x @ columns.transpose(0, 1)
        out: Tensor = self.conv(pooled)
        return out


class DeployedPSPHead(nn.Module):
    """`PSPHead` with a pyramid pooling that is exact for every size."""

    def __init__(self, head: PSPHead):
        super().__init__()
        self.in_index = head.in_index
        self.psp_modules = pyramid_pools(head.psp_modules)
        pyramid = [Enlarge(Interpolation.BILINEAR, None) for _ in head.psp_modules]
        self.bottleneck = enlarged_conv(head.bottleneck, pyramid)
        self.conv_seg = head.conv_seg

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits (batch, classes, H / s, W / s) from the backbone's features, s the stride of the one that is read."""
        x = features[self.in_index]
        pools: Iterable[Any] = self.psp_modules
        logits: Tensor = self.conv_seg(self.bottleneck([x, *(pool.pooled(x, *x.shape[2:]) for pool in pools)]))
        return logits


class DeployedSegformerHead(nn.Module):
    """`SegformerHead`: all levels brought to equal channels, enlarged to the finest, and fused by a 1x1 convolution."""

    def __init__(self, head: SegformerHead, enlargements: Sequence[Enlarge]):
        super().__init__()
        self.in_index = head.in_index
        self.convs = head.convs
        self.fusion_conv = enlarged_conv(head.fusion_conv, enlargements)
        self.conv_seg = head.conv_seg

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits (batch, classes, H / s, W / s) from the backbone's features, s the stride of the finest."""
        levels = [conv(features[index]) for conv, index in zip(self.convs, self.in_index, strict=True)]
        logits: Tensor = self.conv_seg(self.fusion_conv(levels))
        return logits


class DeployedFCNHead(nn.Module):
    """`FCNHead` of several levels (HRNet): all enlarged to the finest and convolved together."""

    def __init__(self, head: FCNHead, enlargements: Sequence[Enlarge]):
        super().__init__()
        self.in_index = head.in_index
        first, *others = head.convs
        self.convs = nn.Sequential(enlarged_conv(first, enlargements), *others)
        self.conv_seg = head.conv_seg

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits (batch, classes, H / s, W / s) from the backbone's features, s the stride of the finest."""
        logits: Tensor = self.conv_seg(self.convs([features[index] for index in self.in_index]))
        return logits


class DeployedASPPHead(nn.Module):
    """`ASPPHead` (DeepLabV3) and `DepthwiseSeparableASPPHead` (DeepLabV3+).

    The branch that averages the whole map comes last in the bottleneck, behind those of the map's own size.

    Args:
        head: re-parameterised.
        enlarge: from the size of the bottleneck to that of the finest level, which DeepLabV3 does not read.
    """

    def __init__(self, head: ASPPHead, enlarge: Enlarge):
        super().__init__()
        self.in_index = head.in_index
        self.aspp_modules = head.aspp_modules
        self.image_pool = PyramidPool(1, head.image_pool[1])
        bottleneck = copy.deepcopy(head.bottleneck)
        with torch.no_grad():
            bottleneck.conv.weight.copy_(head.bottleneck.conv.weight.roll(-head.channels, 1))
        self.bottleneck = enlarged_conv(bottleneck, [Enlarge(Interpolation.BILINEAR, None)])
        self.c1_bottleneck = getattr(head, "c1_bottleneck", None)
        if self.c1_bottleneck is not None:
            self.upsampler = enlarge
        self.sep_bottleneck = getattr(head, "sep_bottleneck", nn.Identity())
        self.conv_seg = head.conv_seg

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits (batch, classes, H / s, W / s) from the backbone's features."""
        x = features[self.in_index]
        branches = torch.cat(self.aspp_modules(x), dim=1)
        context: Tensor = self.bottleneck([branches, self.image_pool.pooled(x, *x.shape[2:])])
        if self.c1_bottleneck is not None:
            detail = self.c1_bottleneck(features[0])
            context = torch.cat((self.upsampler(context, detail.shape[2:]), detail), dim=1)
        logits: Tensor = self.conv_seg(self.sep_bottleneck(context))
        return logits


class CascadedHeads(nn.Module):
    """Decoders one behind the other, each of which also reads what the one before it gives (OCRNet)."""

    def __init__(self, heads: nn.ModuleList):
        super().__init__()
        self.heads = heads

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits of the last decoder."""
        first, *others = self.heads
        out: Tensor = first(features)
        for head in others:
            out = head(features, out)
        return out


ANY_SIZE = (
    FFNetHead,
    DeployedUPerHead,
    DeployedPSPHead,
    DeployedSegformerHead,
    DeployedASPPHead,
    DeployedFCNHead,
    FCNHead,
    DepthwiseSeparableFCNHead,
    STDCHead,
)
"""Exported decoders that are exact at every input size; all others hold for the size of the trace alone."""


def deployed_head(head: nn.Module, features: Sequence[Tensor]) -> nn.Module:
    """The decoder in the form that is exported; one of which no such form is known is given back as it is.

    Args:
        head: re-parameterised.
        features: that the backbone gives for an image of a size that the network accepts.
    """
    kind = type(head)
    if isinstance(head, nn.ModuleList):
        return CascadedHeads(head)
    if kind is UPerHead and all(
        one.factor == 2 ** (level + 1) for level, one in enumerate(enlargements(head, features))
    ):
        return DeployedUPerHead(head)
    if kind is PSPHead and head.input_transform is None:
        return DeployedPSPHead(head)
    if kind is SegformerHead and head.interpolate_mode in list(Interpolation):
        return DeployedSegformerHead(head, enlargements(head, features, Interpolation(head.interpolate_mode)))
    if kind in (ASPPHead, DepthwiseSeparableASPPHead) and head.input_transform is None:
        sizes = [feature.shape[2:] for feature in (features[0], features[head.in_index])]
        return DeployedASPPHead(head, Enlarge(Interpolation.BILINEAR, factor(*sizes)))
    if kind is FCNHead and head.input_transform == "resize_concat" and head.num_convs and not head.concat_input:
        return DeployedFCNHead(head, enlargements(head, features))
    return head


def enlargements(head: Any, features: Sequence[Tensor], mode: Interpolation = Interpolation.BILINEAR) -> list[Enlarge]:
    """How each level that `head` reads after the first is enlarged to the size of the first."""
    first, *others = [features[index].shape[2:] for index in head.in_index]
    return [Enlarge(mode, factor(first, size)) for size in others]


def factor(finer: Sequence[int], coarser: Sequence[int]) -> int | None:
    """How many times larger `finer` is in both directions; None where that is no whole number."""
    rows, columns = (divmod(large, small) for large, small in zip(finer, coarser, strict=True))
    return rows[0] if rows == columns and not rows[1] else None


def enlarged_conv(conv: ConvModule, enlarging: Sequence[Enlarge]) -> nn.Sequential:
    """`conv` of the concatenation of maps, those after the first enlarged to the size of the first."""
    rest = [part for part in (conv.norm, getattr(conv, "activate", None)) if part is not None]
    return nn.Sequential(EnlargedConv(conv.conv, enlarging), *rest)


def pyramid_pools(pyramid: PPM) -> nn.ModuleList:
    """The branches of a pyramid pooling."""
    branches = zip(pyramid.pool_scales, pyramid, strict=True)
    return nn.ModuleList(PyramidPool(int(scale), branch[1]) for scale, branch in branches)


def pooling_matrix(size: Any, bins: int, device: torch.device | None = None) -> Tensor:
    """float32 (bins, size): row i averages positions floor(i * size / bins) up to ceil((i + 1) * size / bins) - 1.

    Args:
        size: number of positions: an int, or a traced scalar.
        bins: number of averages, as in `torch.nn.AdaptiveAvgPool1d`.
        device: where it is computed: a copy from the CPU waits for the GPU, and no CUDA graph can capture it.
    """
    # float32 holds these small integers exactly, so the rounded quotients are those of whole numbers
    index = torch.arange(bins, dtype=torch.float32, device=device).view(bins, 1)
    start = torch.floor(index * size / bins)
    end = torch.ceil((index + 1) * size / bins)
    position = torch.arange(size, device=device).float().view(1, -1)
    inside = (position >= start) & (position < end)
    return inside.float() / (end - start)
