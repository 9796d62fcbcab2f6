"""Label maps without logits of the image's size.

Labels are the largest of the logits enlarged by an even factor f, bilinearly. Between four neighbouring logits, a cell,
lie f x f pixels, with the same f x f sets of four weights in every cell: pixel (k, l) of a cell is at ((k + 1/2) / f,
(l + 1/2) / f) of the way to the next row and column. Edges are repeated outwards by one logit, and the outer halves of
the cells at the frame are cut off, so that the frame is exact as well.

- `PhaseLabels` (`phase-labels`) takes the pixels of one phase (k, l) of all cells at a time: a map of the logits' size,
  reduced to labels while it is in the cache. Labels are put in their places at the end, one value each instead of one
  for each class.
- `BorderLabels` (`border-labels`) also uses that an interpolation lies between its corners: where one class is the
  largest at all four corners it is the largest in the whole cell. What is left are the cells that a border crosses.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ffnet_deploy.core.contract import OutputKind
from ffnet_deploy.export.network import Finish, label_type
from ffnet_deploy.export.rewrites.matrices import MATRIX_NAME


class PhaseLabels(nn.Module):
    """Takes the place of `Finish` for labels.

    Args:
        stride: input pixels per logit in both directions, even.
    """

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, logits: Tensor) -> Tensor:
        """Logits (batch, classes, h, w) to labels (batch, h * stride, w * stride)."""
        padded = functional.pad(logits, (1, 1, 1, 1), mode="replicate")
        top, down = padded[:, :, :-1], padded[:, :, 1:] - padded[:, :, :-1]
        labels = []
        for vertical in phases(self.stride):
            row = top + vertical * down
            left, right = row[..., :-1], row[..., 1:] - row[..., :-1]
            labels += [(left + horizontal * right).argmax(1) for horizontal in phases(self.stride)]
        return placed(torch.stack(labels, dim=1).to(logits.dtype), self.stride, logits.shape[1])

    def multiply_adds(self, classes: int, height: int, width: int) -> int:
        """Of matrix products, at most, for labels of height x width pixels: none, it only adds and scales."""
        return 0


class BorderLabels(nn.Module):
    """Takes the place of `Finish` for labels; the number of cells that it interpolates depends on the image.

    Args:
        stride: input pixels per logit in both directions, even.
    """

    resize_matrix: Tensor

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride
        pairs = [(vertical, horizontal) for vertical in phases(stride) for horizontal in phases(stride)]
        corners = [((1 - v) * (1 - h), (1 - v) * h, v * (1 - h), v * h) for v, h in pairs]
        self.register_buffer(MATRIX_NAME, torch.tensor(corners))  # multiples of 1 / (4 stride^2): exact

    def forward(self, logits: Tensor) -> Tensor:
        """Logits (batch, classes, h, w) to labels (batch, h * stride, w * stride)."""
        corners = functional.pad(logits, (1, 1, 1, 1), mode="replicate")
        batch, classes, height, width = corners.shape
        labels = corners.argmax(1)
        first, *others = (labels[:, :-1, :-1], labels[:, :-1, 1:], labels[:, 1:, :-1], labels[:, 1:, 1:])
        crossed = (first != others[0]) | (first != others[1]) | (first != others[2])
        # the first cell too: ONNX Runtime multiplies no empty matrices
        first_cell = torch.zeros(1, 3, dtype=torch.int64, device=logits.device)
        image, row, column = torch.cat((first_cell, crossed.nonzero())).unbind(1)
        at = (image * height + row) * width + column
        flat = corners.permute(0, 2, 3, 1).reshape(-1, classes)
        around = flat[torch.stack((at, at + 1, at + width, at + width + 1), dim=1)]
        inside = (self.resize_matrix.to(logits.dtype) @ around).argmax(2).to(logits.dtype)
        cells = first.to(logits.dtype).reshape(-1, 1).repeat(1, self.stride**2)
        cell = (image * (height - 1) + row) * (width - 1) + column
        filled = cells.index_put((cell,), inside)
        by_phase = filled.reshape(batch, height - 1, width - 1, self.stride**2).permute(0, 3, 1, 2)
        return placed(by_phase, self.stride, classes)

    def multiply_adds(self, classes: int, height: int, width: int) -> int:
        """Of matrix products, at most, for labels of height x width pixels: a border crosses every cell."""
        return 4 * classes * (height + self.stride) * (width + self.stride)


def phases(stride: int) -> list[float]:
    """How far the pixels of a cell are from its first corner, in cells."""
    return [(index + 0.5) / stride for index in range(stride)]


def placed(by_phase: Tensor, stride: int, classes: int) -> Tensor:
    """Labels (batch, h * stride, w * stride) from those of each phase, floats (batch, stride ** 2, h + 1, w + 1)."""
    half = stride // 2
    pixels = functional.pixel_shuffle(by_phase, stride)[:, 0, half:-half, half:-half]
    return pixels.to(label_type(classes))


def makes_even_labels(finish: Finish) -> bool:
    """Whether `finish` makes label maps whose side is an even multiple of that of the logits."""
    return finish.output_kind is OutputKind.LABELS and finish.stride % 2 == 0
