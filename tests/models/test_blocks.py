"""What the blocks of the networks promise by themselves."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mmseg")

from ffnet_deploy.models.blocks import Residual, classification_rep_dw, drop_path_rates, seg_rep_dw  # noqa: E402
from ffnet_deploy.models.ffnet import ChannelLayerNorm, ffnet_2, ffnet_3  # noqa: E402
from ffnet_deploy.models.ffnet_head import up_sample  # noqa: E402


def kernels(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: branch.c.kernel_size for name, branch in module.named_children()}


def test_classification_branches() -> None:
    assert kernels(classification_rep_dw(4, 7)) == {"conv": (7, 7), "conv1": (3, 3)}


@pytest.mark.parametrize("kernel", [3, 9])
def test_segmentation_branches(kernel: int) -> None:
    expected = {"conv1": (kernel, kernel), "strip_conv1": (1, kernel), "strip_conv2": (kernel, 1)}
    if kernel > 3:
        expected["conv2"] = (kernel - 4, kernel - 4)
    assert kernels(seg_rep_dw(4, kernel)) == expected


def test_branches_are_summed() -> None:
    block, x = seg_rep_dw(4, 9).eval(), torch.randn(2, 4, 11, 13)
    assert torch.allclose(block(x), sum(branch(x) for branch in block.branches()), atol=1e-6)


def test_drop_path_rates_rise_linearly_over_all_blocks() -> None:
    rates = drop_path_rates((2, 3), 0.4)
    assert [len(stage) for stage in rates] == [2, 3]
    assert [*rates[0], *rates[1]] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_a_residual_without_a_branch_is_its_input() -> None:
    block = Residual(torch.nn.Conv2d(4, 4, 1), 4, layer_scale=0.0)
    x = torch.randn(1, 4, 3, 3)
    assert torch.equal(block(x), x)


def test_drop_path_drops_whole_samples_in_training_only() -> None:
    block = Residual(torch.nn.Identity(), 4, drop_path=0.5)
    x = torch.ones(400, 4, 1, 1)
    torch.manual_seed(0)
    kept = block.train()(x)[:, :, 0, 0]
    assert set(kept.flatten().tolist()) == {1.0, 3.0}, "dropped, or scaled by 1 / (1 - rate)"
    assert (kept == kept[:, :1]).all()
    assert torch.equal(block.eval()(x), 2 * x)


def test_channel_layer_norm_is_pytorchs_over_channels() -> None:
    norm, reference = ChannelLayerNorm(6), torch.nn.LayerNorm(6, eps=1e-6)
    for values in (norm.weight, norm.bias):
        torch.nn.init.normal_(values)
    reference.load_state_dict(norm.state_dict())
    x = torch.randn(2, 6, 3, 5) * 7 + 3
    assert torch.allclose(norm(x), reference(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), atol=1e-5)


def test_layer_scale_exists_where_the_published_networks_have_it() -> None:
    with torch.device("meta"):
        scaled = [any("layer_scale" in name for name in net().state_dict()) for net in (ffnet_2, ffnet_3)]
    assert scaled == [False, True]


def test_up_sampling_is_bicubic_between_pixel_centres() -> None:
    x = torch.randn(1, 2, 5, 7)
    expected = torch.nn.functional.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
    assert torch.equal(up_sample(2)(x), expected)
    assert up_sample(1)(x) is x
