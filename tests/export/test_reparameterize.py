"""Folding changes the form of a network, not what it computes."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mmseg")

from mmcv.cnn import ConvModule  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from ffnet_deploy.export.equivalence import compare_blocks  # noqa: E402
from ffnet_deploy.export.reparameterize import reparameterize  # noqa: E402
from ffnet_deploy.models.blocks import ChannelMixer, ConvBN, Residual, TokenMixer, classification_rep_dw, seg_rep_dw  # noqa: E402  # noqa: E402
from ffnet_deploy.models.ffnet import DownSample, ResidualPointwise, ffnet_block  # noqa: E402
from ffnet_deploy.models.ffnet_head import HeadBlock  # noqa: E402
from ffnet_deploy.models.ffnet_seg import SegDownSample, seg_block, stem  # noqa: E402
from ffnet_deploy.segmentor.config import build_segmentor, load_config  # noqa: E402
from tests.golden import PUBLISHED, fill, network_input, relative_error  # noqa: E402

CHANNELS = 6
EXACT, ROUNDED = 1e-9, 1e-4
IN_FLOAT64 = ("upernet_ffnet_2_512_160k_ade20k", "ffnet_seg_512_ade_160k")
"""One of each family is compared block by block; the others are where slow tests run."""


def count_batch_norms(model: torch.nn.Module) -> int:
    """Number of batch norms in the parts of a segmentor that inference uses."""
    return sum(
        isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and not name.startswith("auxiliary_head")
        for name, module in model.named_modules()
    )


def conv_module(bias: bool) -> ConvModule:
    return ConvModule(CHANNELS, 5, 3, padding=1, bias=bias, norm_cfg={"type": "BN"})


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "ConvBN": lambda: ConvBN(CHANNELS, 5, 3, stride=2),
    "RepDW classification 7": lambda: classification_rep_dw(CHANNELS, 7),
    "RepDW classification 7, stride 2, twice the outputs": lambda: classification_rep_dw(CHANNELS, 7, 2, 2),
    "RepDW segmentation 3": lambda: seg_rep_dw(CHANNELS, 3),
    "RepDW segmentation 7": lambda: seg_rep_dw(CHANNELS, 7),
    "RepDW segmentation 9": lambda: seg_rep_dw(CHANNELS, 9),
    "ResidualPointwise": lambda: ResidualPointwise(CHANNELS),
    "token mixer with layer scale": lambda: Residual(
        TokenMixer(CHANNELS, seg_rep_dw(CHANNELS, 3), seg_rep_dw(CHANNELS, 9)), CHANNELS, 0.2, 1.0
    ),
    "channel mixer with layer scale": lambda: Residual(
        ChannelMixer(CHANNELS, 2, ConvBN(CHANNELS, CHANNELS, 3, groups=CHANNELS)), CHANNELS, 0.2, 1.0
    ),
    "token mixer of plain convolutions": lambda: ffnet_block(CHANNELS, 3, 3, 3, 0.0, 1.0),
    "classification block without layer scale": lambda: ffnet_block(CHANNELS, 7, 7, 3, 0.1, None),
    "segmentation block": lambda: seg_block(CHANNELS, 9, 4, 0.1, 1.0),
    "head block": lambda: HeadBlock(CHANNELS, 9, 9, 1, 0.1),
    "classification down-sampling": lambda: DownSample(CHANNELS),
    "segmentation down-sampling": lambda: SegDownSample(CHANNELS, 5),
    "stem": lambda: nn.Sequential(nn.Conv2d(CHANNELS, 3, 1), stem(4, 5)),
    "ConvModule": lambda: conv_module(bias=False),
    "ConvModule with bias": lambda: conv_module(bias=True),
}


def shaken(block: nn.Module, seed: int) -> nn.Module:
    """`block` in float64 and evaluation mode with random weights and statistics, some of them extreme."""
    torch.manual_seed(seed)
    for value in block.double().parameters():
        nn.init.normal_(value)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 3)
            module.running_var.copy_(10 ** torch.empty_like(module.running_var).uniform_(-4, 4))
    return block.eval()


def folded_error(block: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        expected, found = block(x), reparameterize(block)(x)
    return relative_error(found, expected)


def batch_norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def nano() -> Any:
    return fill(build_segmentor(load_config("ffnet_seg_nano_scenes")))


@pytest.mark.parametrize("name", BLOCKS)
def test_each_block_computes_the_same(name: str) -> None:
    for seed in range(4):
        block = shaken(BLOCKS[name](), seed)
        error = folded_error(block, torch.randn(2, CHANNELS, 20, 12, dtype=torch.float64))
        assert error < EXACT, f"{name}, seed {seed}: {error:.1e}"


@pytest.mark.parametrize("name", BLOCKS)
def test_nothing_of_the_training_form_is_left_in_a_block(name: str) -> None:
    folded = reparameterize(BLOCKS[name]())
    assert batch_norms(folded) == 0
    assert not any("layer_scale" in key for key in folded.state_dict())
    assert not folded.training


@pytest.mark.parametrize(
    ("block", "shape"),
    [
        (seg_rep_dw(4, 9), (4, 1, 9, 9)),
        (classification_rep_dw(4, 7, stride=2, multiplier=2), (8, 1, 7, 7)),
        (ResidualPointwise(4), (4, 4, 1, 1)),
    ],
)
def test_parallel_branches_become_one_convolution(block: nn.Module, shape: tuple[int, ...]) -> None:
    folded = reparameterize(block)
    assert isinstance(folded, nn.Conv2d) and tuple(folded.weight.shape) == shape and folded.bias is not None


def test_each_published_segmentor_computes_the_same_in_float32(golden_segmentor: tuple[str, Any]) -> None:
    name, model = golden_segmentor
    error = logits_error(model, reparameterize(model), torch.from_numpy(network_input(96, 160)))
    print(f"{name}, float32: {error:.1e} of the largest logit")
    assert error < ROUNDED, f"{name}: {error:.1e}"


@pytest.mark.parametrize(
    "golden_segmentor",
    [name if name in IN_FLOAT64 else pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED],
    indirect=True,
)
def test_each_published_segmentor_computes_the_same_in_float64(golden_segmentor: tuple[str, Any]) -> None:
    name, model = golden_segmentor
    wide = copy.deepcopy(model).double()
    errors = compare_blocks(wide, reparameterize(wide), torch.from_numpy(network_input(96, 160)).double())
    worst = max(errors, key=lambda error: error.relative)
    print(f"{name}, float64: logits {errors[-1].relative:.1e}, worst block {worst.name} {worst.relative:.1e}")
    assert errors[-1].name == "logits" and worst.relative < EXACT, f"{name}: {worst.name} {worst.relative:.1e}"


def logits_error(model: Any, folded: Any, x: Tensor) -> float:
    with torch.no_grad():
        return relative_error(folded.decode_head(folded.backbone(x)), model.decode_head(model.backbone(x)))


def test_no_published_segmentor_keeps_a_batch_norm_or_layer_scale(golden_segmentor: tuple[str, Any]) -> None:
    _, model = golden_segmentor
    assert count_batch_norms(model) > 0
    folded = reparameterize(model)
    assert count_batch_norms(folded) == batch_norms(folded) == 0
    assert not any("layer_scale" in key for key in folded.state_dict())


def test_auxiliary_logits_stay_too() -> None:
    model = fill(build_segmentor(load_config("upernet_ffnet_2_512_160k_ade20k"))).auxiliary_head
    features = [torch.randn(1, channels, 4, 6) for channels in (88, 176, 352, 704)]
    with torch.no_grad():
        assert relative_error(reparameterize(model)(features), model(features)) < ROUNDED


def test_the_original_is_left_alone(nano: Any) -> None:
    nano.train()
    before, modules = state(nano), [type(module) for module in nano.modules()]
    folded = reparameterize(nano)
    assert nano.training and all(module.training for module in nano.modules())
    assert same(state(nano), before) and [type(module) for module in nano.modules()] == modules
    assert not any(module.training for module in folded.modules())
    assert not {id(value) for value in nano.parameters()} & {id(value) for value in folded.parameters()}


def test_in_place_changes_the_model_itself(nano: Any) -> None:
    expected = state(reparameterize(nano))
    assert reparameterize(nano, inplace=True) is nano
    assert batch_norms(nano) == 0 and same(state(nano), expected)


def test_folding_twice_changes_nothing_more(nano: Any) -> None:
    once = reparameterize(nano)
    assert same(state(reparameterize(once)), state(once))


def test_the_training_form_still_trains_after_folding(nano: Any) -> None:
    reparameterize(nano)
    x = torch.from_numpy(network_input(64, 64)).repeat(2, 1, 1, 1)
    nano.train()
    nano.decode_head(nano.backbone(x)).square().mean().backward()
    assert all(value.grad is not None for value in nano.parameters())


def test_half_precision_keeps_its_type() -> None:
    folded = reparameterize(shaken(seg_rep_dw(4, 3), 0).half())
    assert {value.dtype for value in folded.parameters()} == {torch.float16}


def test_the_report_names_blocks_and_the_damaged_one(nano: Any) -> None:
    folded = reparameterize(nano)
    with torch.no_grad():
        folded.backbone.stages[1][1].channel_mixer.main.fc2.bias[0] += 1
    errors = {error.name: error for error in compare_blocks(nano, folded, torch.from_numpy(network_input(64, 64)))}
    wrong = [name for name, error in errors.items() if error.relative > ROUNDED]
    assert wrong == ["backbone.stages.1.1", "logits"]
    assert {"backbone.patch_embed", "decode_head.squeeze", "decode_head.head_blocks.0", "backbone.stages.2.0"} <= set(
        errors
    )


def test_a_batch_norm_without_statistics_cannot_be_folded() -> None:
    block = ConvBN(3, 4)
    block.bn = nn.BatchNorm2d(4, track_running_stats=False)
    with pytest.raises(ValueError, match="without running statistics"):
        reparameterize(block)
