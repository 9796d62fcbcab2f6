"""Building blocks that the classification and the segmentation family of FFNet share (arXiv 2406.02021).

Attribute names are those of the published checkpoints. Tensors are (batch, channels, height, width) throughout.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

Kernel = tuple[int, int]


class ConvBN(nn.Module):
    """Convolution without bias, then batch norm; output size is input size / stride."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int | Kernel = 1, stride: int = 1, groups: int = 1):
        super().__init__()
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (size[0] // 2, size[1] // 2)
        self.c = nn.Conv2d(in_channels, out_channels, size, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """`bn(c(x))`."""
        out: Tensor = self.bn(self.c(x))
        return out


class RepDW(nn.Module):
    """Depthwise convolution trained as parallel `ConvBN` branches that are summed; all fold into the largest one.

    Args:
        channels: input channels, one group each.
        kernels: kernel size (height, width) of each branch by its checkpoint name; all odd.
        stride: of every branch.
        multiplier: output channels per input channel.
    """

    def __init__(self, channels: int, kernels: Mapping[str, Kernel], stride: int = 1, multiplier: int = 1):
        super().__init__()
        self.kernel_size = (max(h for h, _ in kernels.values()), max(w for _, w in kernels.values()))
        for name, kernel in kernels.items():
            self.add_module(name, ConvBN(channels, channels * multiplier, kernel, stride, groups=channels))

    def branches(self) -> list[ConvBN]:
        """The parallel branches."""
        return [branch for branch in self.children() if isinstance(branch, ConvBN)]

    def forward(self, x: Tensor) -> Tensor:
        """Sum of the branches."""
        first, *others = self.branches()
        out: Tensor = first(x)
        for branch in others:
            out = out + branch(x)
        return out


def classification_rep_dw(channels: int, kernel: int, stride: int = 1, multiplier: int = 1) -> RepDW:
    """`RepDW` of the classification family: k x k beside (k // 2) x (k // 2)."""
    half = kernel // 2
    return RepDW(channels, {"conv": (kernel, kernel), "conv1": (half, half)}, stride, multiplier)


def seg_rep_dw(channels: int, kernel: int) -> RepDW:
    """`RepDW` of the segmentation family: k x k, (k - 4) x (k - 4) when k > 3, and the strips 1 x k and k x 1."""
    kernels = {"conv1": (kernel, kernel), "strip_conv1": (1, kernel), "strip_conv2": (kernel, 1)}
    if kernel > 3:
        kernels["conv2"] = (kernel - 4, kernel - 4)
    return RepDW(channels, kernels)


class TokenMixer(nn.Module):
    """Spatial mixing: 1x1 `ConvBN`, depthwise convolution, GELU, depthwise convolution."""

    def __init__(self, channels: int, conv1: nn.Module, conv2: nn.Module):
        super().__init__()
        self.fc = ConvBN(channels, channels)
        self.conv1 = conv1
        self.act = nn.GELU()
        self.conv2 = conv2

    def forward(self, x: Tensor) -> Tensor:
        """Mixed features of the same shape as `x`."""
        out: Tensor = self.conv2(self.act(self.conv1(self.fc(x))))
        return out


class ChannelMixer(nn.Module):
    """Channel mixing: depthwise convolution, 1x1 to `ratio` times the channels, GELU, 1x1 back."""

    def __init__(self, channels: int, ratio: int, conv: nn.Module):
        super().__init__()
        self.conv = conv
        self.fc1 = nn.Conv2d(channels, channels * ratio, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(channels * ratio, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Mixed features of the same shape as `x`."""
        out: Tensor = self.fc2(self.act(self.fc1(self.conv(x))))
        return out


class Residual(nn.Module):
    """`x + drop_path(main(x) * layer_scale)`, followed by `act` where there is one.

    Args:
        main: the branch; keeps the shape of its input.
        channels: of its output.
        drop_path: probability that a sample's branch is dropped in training (stochastic depth).
        layer_scale: initial value of a learned factor per channel, shape (channels, 1, 1); None: no such factor.
        act: applied to the sum; None: nothing.
    """

    def __init__(
        self,
        main: nn.Module,
        channels: int,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        act: nn.Module | None = None,
    ):
        super().__init__()
        self.main = main
        self.layer_scale = None if layer_scale is None else nn.Parameter(torch.full((channels, 1, 1), layer_scale))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """The residual sum, shape of `x`."""
        branch = self.main(x) if self.layer_scale is None else self.main(x) * self.layer_scale
        out: Tensor = x + self.drop_path(branch)
        return out if self.act is None else self.act(out)


class FFBlock(nn.Module):
    """A backbone block: residual token mixer, then residual channel mixer."""

    def __init__(self, token_mixer: Residual, channel_mixer: Residual):
        super().__init__()
        # checkpoints keep the residual at index 0 of a sequence
        self.token_mixer = nn.Sequential(token_mixer, nn.Identity())
        self.channel_mixer = channel_mixer

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape as `x`."""
        out: Tensor = self.channel_mixer(self.token_mixer(x))
        return out


def drop_path_rates(depths: Sequence[int], rate: float) -> list[list[float]]:
    """Stochastic-depth rates, linear from 0 to `rate` over all blocks, grouped by stage."""
    flat = np.linspace(0, rate, sum(depths)).tolist()
    starts = [sum(depths[:stage]) for stage in range(len(depths))]
    return [flat[start : start + depth] for start, depth in zip(starts, depths, strict=True)]
