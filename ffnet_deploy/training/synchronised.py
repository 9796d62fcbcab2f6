"""Batch norm over the batches of all processes, also on CPUs, where PyTorch's own is not available."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


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
        self._remember(mean.detach(), variance.detach(), total[-1].detach())
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)


def synchronise_batch_norm(model: nn.Module) -> None:
    """Turn every `nn.BatchNorm2d` of `model` into `SyncBatchNorm`, in place; names and values stay."""
    for norm in _batch_norms(model.modules()):
        norm.__class__ = SyncBatchNorm


def _batch_norms(modules: Iterable[nn.Module]) -> list[nn.BatchNorm2d]:
    return [module for module in modules if type(module) is nn.BatchNorm2d]
