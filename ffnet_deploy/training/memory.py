"""Less memory for activations, at the price of computing them twice."""

from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from ffnet_deploy.models.blocks import FFBlock
from ffnet_deploy.models.ffnet_head import HeadBlock


def recompute_activations(model: nn.Module) -> int:
    """Let the blocks of `model` forget their activations in the forward pass; returns how many blocks there are.

    Gradients stay the same, stochastic depth included.
    """
    blocks = [module for module in model.modules() if isinstance(module, FFBlock | HeadBlock)]
    for block in blocks:
        _halve_momentum(block)
        _recompute(block)
    return len(blocks)


def _recompute(block: nn.Module) -> None:
    forward = block.forward

    def recomputed(*inputs: Any) -> Any:
        if not block.training:
            return forward(*inputs)
        return checkpoint(forward, *inputs, use_reentrant=False)

    block.forward = recomputed  # type: ignore[method-assign]


def _halve_momentum(block: nn.Module) -> None:
    """Running statistics are updated twice a step then: (1 - m')^2 = 1 - m leaves them as they would have been."""
    for module in block.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            module.momentum = 1 - (1 - module.momentum) ** 0.5
