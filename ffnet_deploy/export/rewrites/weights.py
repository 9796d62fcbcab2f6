"""Convolutions made of parts of others."""

from collections.abc import Sequence

import torch
from torch import nn


def sliced_conv(conv: nn.Conv2d, channels: Sequence[range], bias: bool) -> nn.Conv2d:
    """The part of `conv` (one group, zero padding) that reads the input channels in `channels`.

    Args:
        conv: the whole.
        channels: ranges of its input channels, one after another.
        bias: whether the part adds the bias of the whole.
    """
    index = torch.tensor([channel for part in channels for channel in part])
    with torch.no_grad():
        part = new_conv(conv.weight[:, index.to(conv.weight.device)], conv.padding[0])  # type: ignore[arg-type]
        if bias and conv.bias is not None:
            part.bias = nn.Parameter(conv.bias.detach().clone(), requires_grad=False)
    return part


def new_conv(weight: torch.Tensor, padding: int) -> nn.Conv2d:
    """A convolution with `weight` (out, in, kh, kw), `padding` on all sides and no bias."""
    out_channels, in_channels, height, width = weight.shape
    conv = nn.Conv2d(in_channels, out_channels, (height, width), padding=padding, bias=False, device="meta")
    conv.weight = nn.Parameter(weight.detach().contiguous(), requires_grad=False)
    return conv.eval()
