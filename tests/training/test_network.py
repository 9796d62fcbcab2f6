import copy

import pytest
import torch
from torch import nn

from ffnet_deploy.models.ffnet_seg import FFNetSeg
from ffnet_deploy.training.network import SyncBatchNorm, recompute_activations, synchronise_batch_norm


def small_backbone() -> FFNetSeg:
    torch.manual_seed(0)
    return FFNetSeg((1, 1, 1, 1), (8, 8, 8, 8), stem_channels=8, drop_path_rate=0.2, layer_scale_init_value=1.0)


def step(model: nn.Module) -> torch.Tensor:
    torch.manual_seed(1)
    loss: torch.Tensor = sum((output**2).sum() for output in model(torch.randn(2, 3, 64, 64)))  # type: ignore[assignment]
    loss.backward()
    return loss.detach()


def test_recomputed_activations_change_neither_gradients_nor_statistics() -> None:
    kept = small_backbone()
    recomputed = copy.deepcopy(kept)
    assert recompute_activations(recomputed) == 4
    assert torch.allclose(step(kept), step(recomputed), rtol=1e-5)
    for (name, one), (_, two) in zip(kept.named_parameters(), recomputed.named_parameters(), strict=True):
        assert one.grad is not None and two.grad is not None
        assert torch.allclose(one.grad, two.grad, rtol=1e-3, atol=1e-5), name
    for (name, one), (_, two) in zip(kept.named_buffers(), recomputed.named_buffers(), strict=True):
        assert name.endswith("num_batches_tracked") or torch.allclose(one, two, rtol=1e-4, atol=1e-6), name


def test_synchronised_batch_norm_is_the_plain_one_in_a_single_process() -> None:
    plain = small_backbone()
    synchronised = copy.deepcopy(plain)
    synchronise_batch_norm(synchronised)
    assert {type(module) for module in synchronised.modules() if isinstance(module, nn.BatchNorm2d)} == {SyncBatchNorm}
    assert list(synchronised.state_dict()) == list(plain.state_dict())
    assert step(plain) == pytest.approx(step(synchronised))
