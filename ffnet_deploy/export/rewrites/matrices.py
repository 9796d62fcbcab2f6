"""Enlarging as two matrix products: `rows @ x @ columns`, with the weights of the interpolation as matrices."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ffnet_deploy.export.enlarging import Interpolation
from ffnet_deploy.precision.graph_index import RESIZE_MATRIX

MATRIX_NAME = RESIZE_MATRIX
"""Name of the constants: the last part of the name of each initializer that holds such a matrix."""


def resize_matrix(size: Any, out: Any, mode: Interpolation, dtype: torch.dtype) -> Tensor:
    """(out, size): row i holds the weights of the `size` values for position i of `out` values.

    For enlargements by 2, 4 and 8 every weight is a multiple of 2^-14, so that float32 holds the matrix exactly.

    Args:
        size: number of values to enlarge: an int, or a traced scalar.
        out: number of values wanted, alike; of any ratio to `size` from 1 upwards.
        mode: the interpolation.
        dtype: of the matrix and of all arithmetic.
    """
    position = ((torch.arange(out).to(dtype) + 0.5) * size / out - 0.5).view(-1, 1)
    if mode is Interpolation.BILINEAR:
        position = position.clamp(min=0)
    before = torch.floor(position)
    rest = position - before
    column = torch.arange(size).to(dtype).view(1, -1)
    last = column[:, -1:]
    parts = [
        (torch.minimum((before + offset).clamp(min=0), last) == column).to(dtype) * weight(rest)
        for offset, weight in mode.taps
    ]
    return torch.stack(parts).sum(0)


def tap_matrix(size: Any, out: Any, mode: Interpolation, dtype: torch.dtype) -> Tensor:
    """(out, 3 * size): the resize matrix moved down by one row, as it is, and moved up by one row, side by side.

    The row that comes in is zero, as is what a 3x3 convolution reads in its padding.
    """
    padded = functional.pad(resize_matrix(size, out, mode, dtype), (0, 0, 1, 1))
    return torch.cat((padded[:-2], padded[1:-1], padded[2:]), dim=1)


class ResizeMatrix(nn.Module):
    """The matrix of one axis: a constant where both sizes are known, else computed from them in the graph.

    Args:
        mode: the interpolation.
        sizes: (size, out) where they are known.
        dtype: of the constant.
        taps: give `tap_matrix` instead of `resize_matrix`.
        transposed: give the transposed matrix, for the columns of a map.
    """

    resize_matrix: Tensor

    def __init__(
        self,
        mode: Interpolation,
        sizes: tuple[int, int] | None,
        dtype: torch.dtype,
        taps: bool = False,
        transposed: bool = False,
    ):
        super().__init__()
        self.mode = mode
        self.function = tap_matrix if taps else resize_matrix
        self.transposed = transposed
        self.is_constant = sizes is not None
        if sizes is not None:
            exact = self.function(*sizes, mode, torch.float64)
            self.register_buffer(MATRIX_NAME, (exact.t() if transposed else exact).contiguous().to(dtype))

    def forward(self, size: Any, out: Any, like: Tensor) -> Tensor:
        """The matrix from `size` to `out` values, in the type and on the device of `like`."""
        if self.is_constant:
            return self.resize_matrix
        matrix = self.function(size, out, self.mode, like.dtype).to(like.device)
        return matrix.t() if self.transposed else matrix
