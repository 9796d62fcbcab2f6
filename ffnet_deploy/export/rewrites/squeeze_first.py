"""`squeeze-first`: a 1x1 convolution of enlarged maps is done before they are enlarged.

A 1x1 convolution acts on channels, enlarging on positions, so they commute; and a convolution of a concatenation is
the sum of the convolutions of its parts: ``W cat(x0, up(x1), up(x2)) + b = W0 x0 + b + up(W1 x1) + up(W2 x2)``. Each
part costs its own size, and the concatenation is gone.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ffnet_deploy.export.enlarging import EnlargedConv
from ffnet_deploy.export.rewrites.weights import sliced_conv


class SqueezeFirst(nn.Module):
    """Takes the place of an `EnlargedConv` whose kernel is 1x1.

    Args:
        whole: what it replaces.
        channels: of each level, finest first.
    """

    def __init__(self, whole: EnlargedConv, channels: Sequence[int]):
        super().__init__()
        starts = [sum(channels[:index]) for index in range(len(channels))]
        self.levels = nn.ModuleList(
            sliced_conv(whole.conv, [range(start, start + count)], bias=start == 0)
            for start, count in zip(starts, channels, strict=True)
        )
        self.upsampler = whole.upsampler

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """(batch, out_channels, H, W) from maps (batch, channels, h, w), the first of H x W."""
        first, *others = [conv(level) for conv, level in zip(self.levels, levels, strict=True)]
        total: Tensor = first
        for up, level in zip(self.upsampler, others, strict=True):
            total = total + up(level, first.shape[2:])
        return total
