"""Comparing a segmentor with its re-parameterised form, block by block and as a whole."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ffnet_deploy.core.quiet import quiet

with quiet():  # mmcv-lite warns of compiled operators that no network here needs
    from mmcv.cnn import ConvModule
    from mmseg.models.backbones.resnet import BasicBlock, Bottleneck

    from ffnet_deploy.models.blocks import FFBlock
    from ffnet_deploy.models.ffnet import DownSample
    from ffnet_deploy.models.ffnet_head import HeadBlock
    from ffnet_deploy.models.ffnet_seg import SegDownSample

_BLOCKS = (FFBlock, HeadBlock, DownSample, SegDownSample, ConvModule, BasicBlock, Bottleneck)
_PARTS = ("backbone.patch_embed", "decode_head.squeeze", "decode_head.align")


@dataclass(frozen=True)
class BlockError:
    """Difference between the two forms of one block, both fed what the training form was fed.

    Attributes:
        name: Name of the block, as in the checkpoint; ``"logits"`` for the whole network.
        largest: Largest absolute difference.
        magnitude: Largest absolute value of the training form's output.
    """

    name: str
    largest: float
    magnitude: float

    @property
    def relative(self) -> float:
        """Largest difference relative to the largest magnitude."""
        return self.largest / self.magnitude if self.magnitude else self.largest


def compare_blocks(model: nn.Module, folded: nn.Module, x: Tensor) -> list[BlockError]:
    """Differences of all blocks and of the logits for normalised images `x` (batch, 3, H, W) of an accepted size.

    Args:
        model: segmentor in training form, evaluation mode.
        folded: its re-parameterised form, same dtype as `model` and `x`.
        x: input; use float64 models and input to see past rounding.
    """
    partners = dict(folded.named_modules())
    errors: list[BlockError] = []
    handles = [
        module.register_forward_hook(_comparing(name, partners[name], errors))
        for name, module in model.named_modules()
        if (isinstance(module, _BLOCKS) or name in _PARTS) and not name.startswith("auxiliary_head")
    ]
    try:
        with torch.no_grad():
            expected = logits(model, x)
    finally:
        for handle in handles:
            handle.remove()
    with torch.no_grad():
        return [*errors, block_error("logits", expected, logits(folded, x))]


def logits(model: Any, x: Tensor) -> Tensor:
    """The segmentor's logits (batch, classes, H / s, W / s) for normalised images `x` (batch, 3, H, W)."""
    out: Tensor = model(x)
    return out


def block_error(name: str, expected: Tensor, found: Tensor) -> BlockError:
    """The difference between two tensors of one shape."""
    return BlockError(name, float((expected - found).abs().max()), float(expected.abs().max()))


def _comparing(
    name: str, partner: nn.Module, errors: list[BlockError]
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        errors.append(block_error(name, output, partner(*inputs)))

    return hook
