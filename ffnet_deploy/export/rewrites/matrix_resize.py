"""`matrix-resize`: an enlargement becomes two matrix products.

Interpolation is linear and separable: ``enlarged[i, j] = sum over k, l of R[i, k] x[k, l] C[l, j]``, with one matrix of
weights for the rows and one for the columns. Repeated edges are weights of the first and last value, so the borders
need no case of their own.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ffnet_deploy.export.enlarging import Interpolation
from ffnet_deploy.export.rewrites.matrices import ResizeMatrix

Sides = tuple[tuple[int, int] | None, tuple[int, int] | None]
"""(size, out) of the rows and of the columns of a map that is enlarged; None where they are not known."""


class MatrixResize(nn.Module):
    """Takes the place of an `Enlarge`."""

    def __init__(self, mode: Interpolation, sides: Sides, dtype: torch.dtype):
        super().__init__()
        rows, columns = sides
        self.rows = ResizeMatrix(mode, rows, dtype)
        self.columns = ResizeMatrix(mode, columns, dtype, transposed=True)

    def forward(self, x: Tensor, size: Sequence[Any]) -> Tensor:
        """(batch, channels, h, w) to (batch, channels, *size)."""
        height, width = x.shape[2:]
        rows: Tensor = self.rows(height, size[0], x)
        columns: Tensor = self.columns(width, size[1], x)
        return rows @ x @ columns
