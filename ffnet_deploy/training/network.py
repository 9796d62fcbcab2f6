"""What training does to a network: start weights, recomputed activations, batch norm over all processes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.utils.checkpoint import checkpoint

from ffnet_deploy.core.errors import CheckpointError
from ffnet_deploy.models.blocks import FFBlock
from ffnet_deploy.models.ffnet_head import HeadBlock
from ffnet_deploy.segmentor.checkpoint import Checkpoint
from ffnet_deploy.segmentor.weights import BACKBONE, CLASSIFIER_PREFIXES, SEGMENTOR_PREFIXES, grouped, shapes_of


@dataclass(frozen=True)
class InitialWeights:
    """What a checkpoint gives a network to start from.

    Attributes:
        tensors: Tensors that fit, by their names in the network.
        reshaped: Names in the network whose tensors have another shape in the checkpoint.
        missing: Names in the network that the checkpoint lacks.
        ignored: Names in the checkpoint that the network lacks.
    """

    tensors: Mapping[str, Tensor]
    reshaped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """What became of the tensors, a line a group."""
        fresh = [("starts anew, other shape", self.reshaped), ("starts anew, not in the checkpoint", self.missing)]
        lines = [f"loaded {len(self.tensors)} tensors"]
        for what, names in [*fresh, ("not needed", self.ignored)]:
            lines += [f"{what}: {group}" for group in grouped(names)]
        return lines


def fit_weights(model: nn.Module, checkpoint: Checkpoint) -> InitialWeights:
    """Find for each tensor of the segmentor `model` its counterpart in `checkpoint`.

    Bare keys, as of ImageNet classifiers, are taken as a backbone's; their classifier is left out.

    Raises:
        CheckpointError: less than half of the backbone fits.
    """
    found = with_prefix(checkpoint.tensors)
    wanted, shapes = shapes_of(model.state_dict()), shapes_of(found)
    names = [name for name in model.state_dict() if name in found and wanted.get(name) == shapes.get(name)]
    fitting = {name: found[name] for name in names}
    weights = InitialWeights(
        fitting,
        tuple(name for name in wanted if name in shapes and shapes[name] != wanted[name]),
        tuple(name for name in wanted if name not in shapes),
        tuple(name for name in shapes if name not in wanted),
    )
    _check_backbone(weights, wanted, checkpoint)
    return weights


def with_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` under a segmentor's names; those of a classifier head are gone."""
    if any(name.startswith(SEGMENTOR_PREFIXES) for name in tensors):
        return dict(tensors)
    return {BACKBONE + name: value for name, value in tensors.items() if not name.startswith(CLASSIFIER_PREFIXES)}


def _check_backbone(weights: InitialWeights, wanted: Mapping[str, tuple[int, ...]], checkpoint: Checkpoint) -> None:
    needed = [name for name in wanted if name.startswith(BACKBONE)]
    fitting = [name for name in needed if name in weights.tensors]
    if 2 * len(fitting) < len(needed):
        odd = next(name for name in needed if name not in weights.tensors)
        raise CheckpointError(
            f"checkpoint {checkpoint.path} does not fit: {len(fitting)} of {len(needed)} backbone tensors have the "
            f"name and shape of this network, first that has not: {odd}.\n"
            "  to do    use a checkpoint of the same backbone"
        )


def recompute_activations(model: nn.Module) -> int:
    """Let the blocks of `model` forget their activations in the forward pass; returns how many blocks there are.

    Gradients stay the same, stochastic depth included.
    """
    blocks = [module for module in model.modules() if isinstance(module, FFBlock | HeadBlock)]
    for block in blocks:
        for module in block.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
                # statistics are updated twice a step then: (1 - m')^2 = 1 - m leaves them as they would have been
                module.momentum = 1 - (1 - module.momentum) ** 0.5
        _recompute(block)
    return len(blocks)


def _recompute(block: nn.Module) -> None:
    forward = block.forward

    def recomputed(*inputs: Any) -> Any:
        if not block.training:
            return forward(*inputs)
        return checkpoint(forward, *inputs, use_reentrant=False)

    block.forward = recomputed  # type: ignore[method-assign]


class SyncBatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose training statistics are those of the images of all processes together.

    Source: Ioffe and Szegedy, arXiv 1502.03167, with the sums of x and x^2 added over the processes.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalised `x` (batch, channels, height, width)."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(x)
        count = x.numel() // x.shape[1]
        local = torch.cat([x.sum((0, 2, 3)), (x * x).sum((0, 2, 3)), x.new_tensor([float(count)])])
        total: Tensor = all_reduce(local)  # type: ignore[no-untyped-call]
        mean, square = (total[:-1] / total[-1]).chunk(2)
        variance = (square - mean * mean).clamp_min(0)
        self._update_statistics(mean.detach(), variance.detach(), total[-1].detach())
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)


def synchronise_batch_norm(model: nn.Module) -> None:
    """Turn every `nn.BatchNorm2d` of `model` into `SyncBatchNorm`, in place; names and values stay."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm
