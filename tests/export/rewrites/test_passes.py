"""Each rewrite against what it replaces, in float64; and the rewritten networks."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mmseg")

from torch import Tensor, nn  # noqa: E402

from ffnet_deploy.core.contract import STRIDE, DimensionRange, InputKind, Normalization, OutputKind  # noqa: E402
from ffnet_deploy.export.enlarging import Enlarge, EnlargedConv, Interpolation  # noqa: E402
from ffnet_deploy.export.network import DeployedNetwork  # noqa: E402
from ffnet_deploy.export.rewrites import LABEL_FORMS, Rewrite, rewrite  # noqa: E402
from ffnet_deploy.export.rewrites.matrix_resize import MatrixResize  # noqa: E402
from ffnet_deploy.export.rewrites.passes import relative_error  # noqa: E402
from ffnet_deploy.export.rewrites.squeeze_first import SqueezeFirst  # noqa: E402
from ffnet_deploy.export.rewrites.taps_first import TapsFirst, tapped_multiply_adds, worth_tapping  # noqa: E402

BOUND = 1e-12
FACTORS = (2, 4, 8)
SIZES = 200
FIXED, FREE = DimensionRange.fixed(96), DimensionRange(32, 96, 256)


def input_sizes() -> list[tuple[int, int]]:
    """Heights and widths of inputs, multiples of 32 pixels; at least every second one odd in both directions."""
    draw = np.random.default_rng(13)
    drawn = [(int(h), int(w)) for h, w in draw.integers(1, 11, (SIZES, 2))]
    odd = [(h | 1, w | 1) if index % 2 else (h, w) for index, (h, w) in enumerate(drawn)]
    return [(STRIDE * h, STRIDE * w) for h, w in odd]


def parts(found: Tensor, expected: Tensor) -> tuple[float, float]:
    """Relative error on the outermost pixels, and on all others."""
    difference, magnitude = (found - expected).abs(), expected.abs().max()
    inside = torch.zeros_like(difference)
    inside[..., 1:-1, 1:-1] = difference[..., 1:-1, 1:-1]
    frame = difference - inside
    return float(frame.max() / magnitude), float(inside.max() / magnitude)


def levels(height: int, width: int, factors: tuple[int, ...], channels: int) -> list[Tensor]:
    sizes = [(height // factor, width // factor) for factor in (1, *factors)]
    return [torch.randn(1, channels, *size, dtype=torch.float64) for size in sizes]


def enlarged_conv(kernel: int, mode: Interpolation, factors: tuple[int, ...], channels: int, out: int) -> EnlargedConv:
    torch.manual_seed(0)
    conv = nn.Conv2d(channels * (1 + len(factors)), out, kernel, padding=kernel // 2, dtype=torch.float64)
    return EnlargedConv(conv.requires_grad_(False), [Enlarge(mode, factor) for factor in factors])


@pytest.mark.parametrize("mode", Interpolation)
def test_matrix_resize_is_exact(mode: Interpolation) -> None:
    worst = (0.0, 0.0)
    for index, (height, width) in enumerate(input_sizes()):
        factor = FACTORS[index % 3]
        x = torch.randn(1, 2, height // STRIDE, width // STRIDE, dtype=torch.float64)
        size = (x.shape[2] * factor, x.shape[3] * factor)
        errors = parts(MatrixResize(mode, (None, None), torch.float64)(x, size), Enlarge(mode, factor)(x, size))
        worst = max(worst[0], errors[0]), max(worst[1], errors[1])
    assert max(worst) <= BOUND, f"frame {worst[0]:.1e}, inside {worst[1]:.1e}"


def test_squeeze_first_is_exact() -> None:
    whole = enlarged_conv(1, Interpolation.BICUBIC, (2, 4), 3, 5)
    rewritten = SqueezeFirst(whole, [3, 3, 3])
    worst = (0.0, 0.0)
    for height, width in input_sizes():
        given = levels(height // 8, width // 8, (2, 4), 3)
        errors = parts(rewritten(given), whole(given))
        worst = max(worst[0], errors[0]), max(worst[1], errors[1])
    assert max(worst) <= BOUND, f"frame {worst[0]:.1e}, inside {worst[1]:.1e}"


def test_taps_first_is_exact() -> None:
    channels = 48  # enough that taps cost less at every size
    whole = enlarged_conv(3, Interpolation.BILINEAR, FACTORS, channels, 2)
    worst = (0.0, 0.0)
    for height, width in input_sizes():
        given = levels(height // 4, width // 4, FACTORS, channels)
        maps = [(level.shape[1], level.shape[2], level.shape[3]) for level in given]
        rewritten = TapsFirst(whole, maps, [(None, None)] * 3)
        assert rewritten.tapped, (height, width)
        errors = parts(rewritten(given), whole(given))
        worst = max(worst[0], errors[0]), max(worst[1], errors[1])
    assert max(worst) <= BOUND, f"frame {worst[0]:.1e}, inside {worst[1]:.1e}"


def test_taps_first_falls_back_level_by_level() -> None:
    channels, out = 64, 2
    maps = [(channels, 32 // factor, 1024 // factor) for factor in (1, *FACTORS)]
    assert worth_tapping(out, maps) == (3,), "on this wide map of few channels two levels are cheaper enlarged"
    whole = enlarged_conv(3, Interpolation.BILINEAR, FACTORS, channels, out)
    given = levels(32, 1024, FACTORS, channels)
    assert relative_error(TapsFirst(whole, maps, [(None, None)] * 3)(given), whole(given)) <= BOUND
    for index in (1, 2, 3):
        count = tapped_multiply_adds(out, maps[index], (32, 1024))
        assert (count < 9 * channels * out * 32 * 1024) is (index == 3)


def deployed(model: Any) -> DeployedNetwork:
    return DeployedNetwork(model, Normalization(), InputKind.FLOAT, OutputKind.LOGITS).eval()


EXPECTED = {
    "tiny_seg": [Rewrite.SQUEEZE_FIRST, Rewrite.MATRIX_RESIZE],
    "tiny_upernet": [Rewrite.TAPS_FIRST, Rewrite.MATRIX_RESIZE],
}


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("name", EXPECTED)
def test_rewritten_network_is_proved_and_equal(tiny: dict[str, Any], name: str, fixed: bool) -> None:
    network = deployed(tiny[name].model)
    before = list(network.decode_head.state_dict())
    size = (FIXED, DimensionRange.fixed(160)) if fixed else (FREE, FREE)
    rewritten, applied = rewrite(network, list(Rewrite), *size, torch.randn(1, 3, 64, 96))
    assert [one.name for one in applied] == EXPECTED[name]
    assert list(network.decode_head.state_dict()) == before, "the network given is left alone"
    for one in applied:
        assert one.places
        assert one.float64_error <= BOUND
        assert one.float32_error <= 1e-5
    x = torch.randn(2, 3, 96, 160)
    with torch.no_grad():
        assert relative_error(rewritten(x), network(x)) < 1e-5
    constants = [key for key in rewritten.state_dict() if key.endswith(".resize_matrix")]
    assert bool(constants) is fixed


@pytest.mark.parametrize("name", EXPECTED)
def test_operations_never_grow_but_by_matrix_resize(tiny: dict[str, Any], name: str) -> None:
    for side in (64, 256):
        _, applied = rewrite(
            deployed(tiny[name].model),
            [Rewrite.SQUEEZE_FIRST, Rewrite.TAPS_FIRST],
            DimensionRange.fixed(side),
            DimensionRange.fixed(2 * side),
            torch.randn(1, 3, 64, 64),
        )
        assert all(one.macs_after < one.macs_before for one in applied)


def test_nothing_asked_changes_nothing(tiny: dict[str, Any]) -> None:
    network = deployed(tiny["tiny_seg"].model)
    rewritten, applied = rewrite(network, [], FIXED, FIXED, torch.randn(1, 3, 64, 64))
    assert not applied
    assert rewritten.decode_head is network.decode_head


def test_one_direction_may_be_fixed_alone(tiny: dict[str, Any]) -> None:
    network = deployed(tiny["tiny_upernet"].model)
    rewritten, _ = rewrite(network, list(Rewrite), FIXED, FREE, torch.randn(1, 3, 64, 64))
    for width in (32, 160):
        x = torch.randn(1, 3, 96, width)
        with torch.no_grad():
            assert relative_error(rewritten(x), network(x)) < 1e-5


@pytest.mark.parametrize("form", LABEL_FORMS)
def test_labels_are_proved_too(tiny: dict[str, Any], form: Rewrite) -> None:
    model = tiny["tiny_upernet"].model
    network = DeployedNetwork(model, Normalization(), InputKind.FLOAT, OutputKind.LABELS).eval()
    rewritten, applied = rewrite(network, [form], FREE, FREE, torch.randn(1, 3, 64, 96))
    assert [(one.name, one.places, one.float64_error) for one in applied] == [(form, ("finish",), 0.0)]
    x = torch.randn(2, 3, 96, 160)
    with torch.no_grad():
        assert torch.equal(rewritten(x), network(x))
