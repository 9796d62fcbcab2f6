"""Enlarging of feature maps, alone and before a convolution, as modules that a rewrite can replace."""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CUBIC = -0.75
"""Parameter `a` of the bicubic kernel, that of `torch.nn.functional.interpolate` and of ONNX's `Resize`."""


class Interpolation(str, Enum):
    """Which values between pixel centres are taken; centres lie at half positions, edges are repeated outwards."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"

    @property
    def taps(self) -> Sequence[tuple[int, Callable[[Tensor], Tensor]]]:
        """Weight of each neighbour, by its offset from the centre at or before a position, as function of the rest.

        Source of the bicubic kernel: Keys, Cubic convolution interpolation for digital image processing, 1981, eq. 4.
        """
        if self is Interpolation.BILINEAR:
            return ((0, lambda rest: 1 - rest), (1, lambda rest: rest))
        return (
            (-1, lambda rest: _far(rest + 1)),
            (0, lambda rest: _near(rest)),
            (1, lambda rest: _near(1 - rest)),
            (2, lambda rest: _far(2 - rest)),
        )


def _near(distance: Tensor) -> Tensor:
    return ((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1


def _far(distance: Tensor) -> Tensor:
    return ((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC


def enlarged(x: Tensor, factor: float) -> Tensor:
    """`x` (batch, channels, h, w) enlarged bilinearly by `factor` in both directions."""
    return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


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
