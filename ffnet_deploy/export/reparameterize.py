"""Folding the training form of a segmentor into its inference form: exact, with fewer and larger operations.

Parallel branches become one convolution, batch norms, layer scales and identities disappear into the convolutions
beside them. All arithmetic is done in float64 and rounded once. What is known of no convolution beside it stays.
"""

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from ffnet_deploy.core.quiet import quiet

with quiet():  # mmcv-lite warns of compiled operators that no network here needs
    from mmcv.cnn import ConvModule
    from mmcv.cnn.bricks import DropPath
    from mmcv.cnn.bricks.wrappers import Conv2d
    from mmseg.models.backbones import HRNet, ResNet
    from mmseg.models.backbones.mit import EfficientMultiheadAttention
    from mmseg.models.backbones.resnet import BasicBlock, Bottleneck
    from mmseg.models.utils import Upsample

    from ffnet_deploy.export.attention import FoldedAttention
    from ffnet_deploy.models.blocks import ChannelMixer, ConvBN, FFBlock, RepDW, Residual, TokenMixer
    from ffnet_deploy.models.ffnet import ResidualPointwise

Model = TypeVar("Model", bound=nn.Module)
_NUMBERED = (BasicBlock, Bottleneck, ResNet, HRNet)
"""Modules of MMSegmentation that run ``conv1``, then the norm called `norm1_name`, and so on."""


def reparameterize(model: Model, inplace: bool = False) -> Model:
    """The inference form of `model`, equal to it in evaluation mode.

    Args:
        model: a segmentor, a backbone or a block of one; it is left alone unless `inplace`.
        inplace: change `model` itself.

    Returns:
        The folded model, in evaluation mode. One of this package holds no batch norm, dropout or layer scale.
    """
    folded = model if inplace else copy.deepcopy(model)
    with torch.no_grad():
        return _fold(folded.eval()).eval()  # type: ignore[return-value]


def _fold(module: nn.Module) -> nn.Module:
    """`module` with everything in it folded; the module itself, or the one that takes its place."""
    if isinstance(module, ConvBN):
        return fold_batch_norm(module.c, module.bn)
    if isinstance(module, RepDW):
        return merge_branches(module)
    if isinstance(module, ResidualPointwise):
        return absorb_identity(module)
    if isinstance(module, DropPath | nn.Dropout | nn.Dropout2d):
        return nn.Identity()
    if type(module) is EfficientMultiheadAttention:
        module = FoldedAttention(module)
    if isinstance(module, Upsample) and not module.size:  # traced, it would hold the size as a constant
        return nn.Upsample(scale_factor=module.scale_factor, mode=module.mode, align_corners=module.align_corners)
    for name, child in module.named_children():
        setattr(module, name, _fold(child))
    if isinstance(module, ConvModule):
        if module.order[:2] == ("conv", "norm") and (merged := _merged(module.conv, module.norm)):
            module.conv = merged
            delattr(module, module.norm_name)
            module.norm_name, module.with_norm = None, False
    elif isinstance(module, nn.Sequential):
        for index, pair in enumerate(pairwise(module)):
            if merged := _merged(*pair):
                module[index], module[index + 1] = merged, nn.Identity()
    elif isinstance(module, _NUMBERED):
        for number in (1, 2, 3):
            norm_name = getattr(module, f"norm{number}_name", "")
            if merged := _merged(getattr(module, f"conv{number}", None), getattr(module, norm_name, None)):
                setattr(module, f"conv{number}", merged)
                setattr(module, norm_name, nn.Identity())
    elif isinstance(module, Residual):
        _absorb_layer_scale(module)
    elif isinstance(module, FFBlock):
        module.token_mixer = nn.Sequential(module.token_mixer[0])
    return module


def _merged(conv: object, norm: object) -> nn.Conv2d | None:
    """`norm` behind `conv` as one convolution, where that is a plain one, and this a batch norm with statistics."""
    if type(conv) not in (nn.Conv2d, Conv2d) or not isinstance(norm, nn.BatchNorm2d):
        return None
    return fold_batch_norm(conv, norm) if norm.affine and norm.track_running_stats else None  # type: ignore[arg-type]


def batch_norm_affine(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift, float64 (channels,), such that ``bn(x) == x * scale + shift`` in evaluation mode.

    Source: Ioffe and Szegedy, arXiv 1502.03167, algorithm 2.
    """
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("a batch norm without running statistics cannot be folded")
    scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
    return scale, bn.bias.double() - bn.running_mean.double() * scale


def fold_batch_norm(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution equal to ``bn(conv(x))`` in evaluation mode."""
    scale, shift = batch_norm_affine(bn)
    bias = torch.zeros_like(shift) if conv.bias is None else conv.bias.double()
    return _conv_like(conv, conv.weight.double() * scale[:, None, None, None], bias * scale + shift)


def merge_branches(module: RepDW) -> nn.Conv2d:
    """One depthwise convolution equal to the sum of the branches.

    Smaller kernels are padded with zeros to the largest, which keeps their centres aligned because all are odd.
    """
    folded = [_folded_weights(branch) for branch in module.branches()]
    weight = torch.stack([_pad_kernel(weight, module.kernel_size) for weight, _ in folded]).sum(0)
    bias = torch.stack([bias for _, bias in folded]).sum(0)
    largest = next(branch.c for branch in module.branches() if branch.c.kernel_size == module.kernel_size)
    return _conv_like(largest, weight, bias)


def _folded_weights(branch: ConvBN) -> tuple[Tensor, Tensor]:
    scale, shift = batch_norm_affine(branch.bn)
    return branch.c.weight.double() * scale[:, None, None, None], shift


def _pad_kernel(weight: Tensor, size: tuple[int, int]) -> Tensor:
    rows, columns = (size[0] - weight.shape[2]) // 2, (size[1] - weight.shape[3]) // 2
    return nn.functional.pad(weight, (columns, columns, rows, rows))


def absorb_identity(module: ResidualPointwise) -> nn.Conv2d:
    """One 1x1 convolution equal to ``x + c(bn(x))``."""
    scale, shift = batch_norm_affine(module.conv.bn)
    weight = module.conv.c.weight.double()[:, :, 0, 0]
    identity = torch.eye(len(weight), dtype=torch.float64, device=weight.device)
    return _conv_like(module.conv.c, (identity + weight * scale)[:, :, None, None], weight @ shift)


def _absorb_layer_scale(module: Residual) -> None:
    """Move the layer scale into the last convolution of the branch."""
    if module.layer_scale is None:
        return
    name = {TokenMixer: "conv2", ChannelMixer: "fc2"}[type(module.main)]
    last: nn.Conv2d = getattr(module.main, name)
    scale = module.layer_scale.double().flatten()
    bias = torch.zeros_like(scale) if last.bias is None else last.bias.double() * scale
    setattr(module.main, name, _conv_like(last, last.weight.double() * scale[:, None, None, None], bias))
    module.layer_scale = None


def _conv_like(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution with the geometry, type and device of `conv`, and these weights (float64) and bias."""
    folded = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        padding_mode=conv.padding_mode,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    folded.weight.copy_(weight)
    assert folded.bias is not None
    folded.bias.copy_(bias)
    return folded.requires_grad_(False).eval()
