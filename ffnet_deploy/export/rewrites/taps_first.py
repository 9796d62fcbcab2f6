"""`taps-first`: a 3x3 convolution of enlarged maps does its products at their own size.

The output at row y and column x is the sum over the nine taps of ``W[dy, dx] enlarged[y + dy, x + dx]``, zero outside
the map. With ``enlarged = R x C`` the products with W, which act on channels, come first: ``z[dy, dx] = W[dy, dx] x``
is one 1x1 convolution to nine times the channels at the size of x. What is left acts on positions:
``sum over dx of (sum over dy of R_dy z[dy, dx]) C_dx``, where row y of R_dy is row y + dy of R, or zeros outside. Both
inner sums are matrix products with the three matrices side by side. Zero rows are the padding of the convolution, so
the frame of the map is exact without a case of its own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ffnet_deploy.export.enlarging import Enlarge, EnlargedConv
from ffnet_deploy.export.rewrites.fake_run import Map
from ffnet_deploy.export.rewrites.matrices import ResizeMatrix
from ffnet_deploy.export.rewrites.matrix_resize import Sides
from ffnet_deploy.export.rewrites.weights import new_conv, sliced_conv

TAPS = 3
"""Side of the kernels that this rewrite knows."""


class TappedLevel(nn.Module):
    """A 3x3 convolution with padding 1 of an enlarged map, its products before the enlargement.

    Args:
        weight: (out, in, 3, 3).
        enlarge: the enlargement.
        sides: of the map, where they are known.
    """

    def __init__(self, weight: Tensor, enlarge: Enlarge, sides: Sides):
        super().__init__()
        # output channels in the order (out, dx, dy): the three taps of a column lie in memory as one higher map
        self.taps = new_conv(weight.permute(0, 3, 2, 1).flatten(0, 2)[:, :, None, None], 0)
        self.upsampler = TapSum(len(weight), enlarge, sides, weight.dtype)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """(batch, in, h, w) to (batch, out, *size)."""
        out: Tensor = self.upsampler(self.taps(x), size)
        return out


class TapSum(nn.Module):
    """Enlarges the nine taps of each channel, moves each to its place and sums them: two matrix products."""

    def __init__(self, channels: int, enlarge: Enlarge, sides: Sides, dtype: torch.dtype):
        super().__init__()
        rows, columns = sides
        self.channels = channels
        self.rows = ResizeMatrix(enlarge.mode, rows, dtype, taps=True)
        self.columns = ResizeMatrix(enlarge.mode, columns, dtype, taps=True, transposed=True)

    def forward(self, taps: Tensor, size: Sequence[int]) -> Tensor:
        """(batch, channels * dx * dy, h, w) to (batch, channels, *size)."""
        height, width = taps.shape[2:]
        rows: Tensor = self.rows(height, size[0], taps)
        columns: Tensor = self.columns(width, size[1], taps)
        summed = rows @ taps.reshape(-1, TAPS * self.channels, TAPS * height, width)
        by_column = summed.reshape(-1, self.channels, TAPS, size[0], width).transpose(2, 3)
        return by_column.reshape(-1, self.channels, size[0], TAPS * width) @ columns


class TapsFirst(nn.Module):
    """Takes the place of an `EnlargedConv` whose kernel is 3x3 with padding 1.

    Args:
        whole: what it replaces.
        maps: of each level, finest first, at the usual size.
        sides: of the levels after the first, where they are known.
    """

    def __init__(self, whole: EnlargedConv, maps: Sequence[Map], sides: Sequence[Sides]):
        super().__init__()
        starts = [sum(channels for channels, _, _ in maps[:index]) for index in range(len(maps))]
        parts = [range(start, start + channels) for start, (channels, _, _) in zip(starts, maps, strict=True)]
        self.tapped = worth_tapping(whole.conv.out_channels, maps)
        kept = [index for index in range(1, len(maps)) if index not in self.tapped]
        self.kept = EnlargedConv(
            sliced_conv(whole.conv, [parts[0], *(parts[index] for index in kept)], bias=True),
            [whole.upsampler[index - 1] for index in kept],  # type: ignore[misc]
        )
        self.levels = nn.ModuleList(
            TappedLevel(
                whole.conv.weight[:, parts[index].start : parts[index].stop],
                whole.upsampler[index - 1],  # type: ignore[arg-type]
                sides[index - 1],
            )
            for index in self.tapped
        )

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """(batch, out_channels, H, W) from maps (batch, channels, h, w), the first of H x W."""
        size = levels[0].shape[2:]
        total: Tensor = self.kept([level for index, level in enumerate(levels) if index not in self.tapped])
        for index, tapped in zip(self.tapped, self.levels, strict=True):
            total = total + tapped(levels[index], size)
        return total


def worth_tapping(out_channels: int, maps: Sequence[Map]) -> tuple[int, ...]:
    """Indices of the levels, the first aside, that need fewer multiply-adds by `TappedLevel` than enlarged.

    Matrix products grow with the square of the side: on very wide maps of few channels the convolution is cheaper.
    """
    _, out_height, out_width = maps[0]
    return tuple(
        index
        for index, (channels, height, width) in enumerate(maps)
        if index
        and tapped_multiply_adds(out_channels, maps[index], (out_height, out_width))
        < TAPS**2 * channels * out_channels * out_height * out_width
    )


def tapped_multiply_adds(out_channels: int, level: Map, out: tuple[int, int]) -> int:
    """Of a `TappedLevel` that enlarges the map `level` to `out` (height, width)."""
    channels, height, width = level
    taps = TAPS**2 * channels * out_channels * height * width
    rows = out_channels * TAPS * width * out[0] * TAPS * height
    return taps + rows + out_channels * out[0] * out[1] * TAPS * width


def is_tappable(conv: nn.Conv2d) -> bool:
    """Whether `TapsFirst` can take the place of this convolution of enlarged maps."""
    plain = conv.stride == (1, 1) and conv.dilation == (1, 1) and conv.groups == 1 and conv.padding_mode == "zeros"
    return plain and conv.kernel_size == (TAPS, TAPS) and conv.padding == (1, 1)
