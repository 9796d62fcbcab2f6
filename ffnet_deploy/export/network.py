"""The network that is exported: everything between the artefact's input and its output, and nothing else.

It is re-parameterised and written so that every size-dependent step stays exact when height and width are dynamic.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models.decode_heads import UPerHead
from torch import Tensor, nn
from torch.nn import functional

from ffnet_deploy.core.contract import IGNORE_LABEL, STRIDE, InputKind, Normalization, OutputKind
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.export.reparameterize import reparameterize
from ffnet_deploy.models.ffnet import FFNet
from ffnet_deploy.models.ffnet_head import FFNetHead
from ffnet_deploy.models.ffnet_seg import FFNetSeg


class DeployedNetwork(nn.Module):
    """A segmentor between the boundaries of its artefact.

    Args:
        model: segmentor as loaded; it is copied and re-parameterised.
        normalization: applied in the graph when the input is uint8.
        input_kind: what `forward` is given.
        output_kind: what `forward` returns.
    """

    def __init__(self, model: Any, normalization: Normalization, input_kind: InputKind, output_kind: OutputKind):
        super().__init__()
        folded = reparameterize(model)
        self.normalize = None if input_kind is InputKind.FLOAT else Normalize(normalization, input_kind)
        self.backbone = folded.backbone
        self.decode_head = deployed_head(folded.decode_head)
        self.finish = Finish(output_kind, output_stride(self.backbone, self.decode_head))
        if input_kind is InputKind.BGR:
            _swap_input_channels(self.backbone)

    def forward(self, image: Tensor) -> Tensor:
        """The output for a batch of images, kinds as in the constructor."""
        x = image if self.normalize is None else self.normalize(image)
        out: Tensor = self.finish(self.decode_head(self.backbone(x)))
        return out


class Normalize(nn.Module):
    """uint8 (batch, H, W, 3) to float32 (batch, 3, H, W), zero mean and unit deviation, channels in the order given."""

    mean: Tensor
    std: Tensor

    def __init__(self, normalization: Normalization, input_kind: InputKind):
        super().__init__()
        order = slice(None, None, -1) if input_kind is InputKind.BGR else slice(None)
        self.register_buffer("mean", torch.tensor(normalization.mean[order]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(normalization.std[order]).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Normalised images."""
        # cast first: TensorRT transposes no uint8
        return (image.float().permute(0, 3, 1, 2) - self.mean) / self.std


class Finish(nn.Module):
    """From logits at the decoder's stride to the artefact's output."""

    def __init__(self, output_kind: OutputKind, stride: int):
        super().__init__()
        self.output_kind = output_kind
        self.stride = float(stride)

    def forward(self, logits: Tensor) -> Tensor:
        """Logits as they are, or enlarged to the input size (bilinear) and turned into labels or probabilities."""
        if self.output_kind is OutputKind.LOGITS:
            return logits
        enlarged = _enlarge(logits, self.stride)
        if self.output_kind is OutputKind.LABELS:
            return (
                enlarged.argmax(1).float().to(label_type(logits.shape[1]))
            )  # TensorRT 8.5 makes uint8 of floats alone
        return enlarged.softmax(1)


def label_type(classes: int) -> torch.dtype:
    """Type of the label maps of a network: torch traces no uint16, which the graph gets in the place of int32."""
    return torch.uint8 if classes <= IGNORE_LABEL else torch.int32


class DeployedUPerHead(nn.Module):
    """UPerHead whose every resize is by a constant factor and whose pyramid pooling is exact for every size.

    Input features have strides 4, 8, 16, 32; each level is exactly half the one before, because input sizes are
    multiples of 32.
    """

    def __init__(self, head: UPerHead):
        super().__init__()
        branches = zip(head.psp_modules.pool_scales, head.psp_modules, strict=True)
        self.psp_modules = nn.ModuleList(PyramidPool(int(scale), branch[1]) for scale, branch in branches)
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
            laterals[index - 1] = laterals[index - 1] + _enlarge(laterals[index], 2.0)
        outputs = [conv(lateral) for conv, lateral in zip(self.fpn_convs, laterals, strict=False)]
        outputs.append(laterals[-1])
        enlarged = [outputs[0], *(_enlarge(out, float(2**level)) for level, out in enumerate(outputs[1:], 1))]
        logits: Tensor = self.conv_seg(self.fpn_bottleneck(torch.cat(enlarged, dim=1)))
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
            rows = pooling_matrix(height, self.scale).to(x)
            columns = pooling_matrix(width, self.scale).to(x)
            pooled = rows @ x @ columns.transpose(0, 1)
        out: Tensor = self.conv(pooled)
        return out


def pooling_matrix(size: Any, bins: int) -> Tensor:
    """float32 (bins, size): row i averages positions floor(i * size / bins) up to ceil((i + 1) * size / bins) - 1.

    Args:
        size: number of positions: an int, or a traced scalar.
        bins: number of averages, as in `torch.nn.AdaptiveAvgPool1d`.
    """
    # float32 holds these small integers exactly, so the rounded quotients are those of whole numbers
    index = torch.arange(bins, dtype=torch.float32).view(bins, 1)
    start = torch.floor(index * size / bins)
    end = torch.ceil((index + 1) * size / bins)
    position = torch.arange(size).float().view(1, -1)
    inside = (position >= start) & (position < end)
    return inside.float() / (end - start)


def deployed_head(head: nn.Module) -> nn.Module:
    """The decoder in its exportable form.

    Raises:
        OptionError: the decoder is of another kind than FFNet segmentors have.
    """
    if isinstance(head, UPerHead):
        return DeployedUPerHead(head)
    if isinstance(head, FFNetHead):
        return head
    raise OptionError(f"no exportable form is known of the decoder {type(head).__name__}; known: UPerHead, FFNetHead")


def output_stride(backbone: nn.Module, head: nn.Module) -> int:
    """Input pixels per logit, in both directions."""
    size = 2 * STRIDE
    with torch.no_grad():
        return size // int(head(backbone(torch.zeros(1, 3, size, size))).shape[-1])


def _enlarge(x: Tensor, factor: float) -> Tensor:
    return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def _swap_input_channels(backbone: Any) -> None:
    """Make a backbone for RGB take BGR: exact, and free at run time."""
    if not isinstance(backbone, FFNet | FFNetSeg):
        raise OptionError(f"BGR input needs an FFNet backbone, not {type(backbone).__name__}; use --input rgb")
    conv: Any = backbone.patch_embed[0]
    with torch.no_grad():
        conv.weight.copy_(conv.weight.flip(1))
