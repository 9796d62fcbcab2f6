"""The matrices of one axis, against PyTorch's own interpolation."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mmseg")

from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

from ffnet_deploy.export.enlarging import Interpolation  # noqa: E402
from ffnet_deploy.export.rewrites.matrices import ResizeMatrix, resize_matrix, tap_matrix  # noqa: E402


def interpolated(size: int, out: int, mode: Interpolation) -> Tensor:
    """(out, size) float64: the columns of the identity, each enlarged along its rows by PyTorch."""
    identity = torch.eye(size, dtype=torch.float64)[None, None]
    return functional.interpolate(identity, size=(out, size), mode=mode.value, align_corners=False)[0, 0]


@pytest.mark.parametrize("mode", Interpolation)
@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 32, 37])
def test_integer_factors_equal_pytorch_exactly(size: int, factor: int, mode: Interpolation) -> None:
    matrix = resize_matrix(size, size * factor, mode, torch.float64)
    assert torch.equal(matrix, matrix.float().double()), "float32 holds every weight"
    assert (matrix - interpolated(size, size * factor, mode)).abs().max() < 1e-15


@pytest.mark.parametrize(("size", "out"), [(1, 16), (2, 17), (3, 16), (6, 16), (6, 41), (5, 5)])
def test_any_ratio_equals_pytorch(size: int, out: int) -> None:
    matrix = resize_matrix(size, out, Interpolation.BILINEAR, torch.float64)
    assert (matrix - interpolated(size, out, Interpolation.BILINEAR)).abs().max() < 1e-14


@pytest.mark.parametrize("mode", Interpolation)
def test_half_precision_holds_bilinear_factors_and_bicubic_doubling(mode: Interpolation) -> None:
    factors = (2, 4, 8) if mode is Interpolation.BILINEAR else (2,)
    for factor in factors:
        matrix = resize_matrix(16, 16 * factor, mode, torch.float64)
        assert torch.equal(matrix, matrix.half().double()), f"x{factor}"


def test_rows_that_come_in_are_zero() -> None:
    taps = tap_matrix(4, 8, Interpolation.BILINEAR, torch.float64).reshape(8, 3, 4)
    whole = resize_matrix(4, 8, Interpolation.BILINEAR, torch.float64)
    assert torch.equal(taps[:, 1], whole)
    assert torch.equal(taps[1:, 0], whole[:-1])
    assert not taps[0, 0].any()
    assert torch.equal(taps[:-1, 2], whole[1:])
    assert not taps[-1, 2].any()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("taps", [False, True])
def test_constant_equals_what_the_graph_computes(taps: bool, transposed: bool) -> None:
    like = torch.zeros(1)
    constant = ResizeMatrix(Interpolation.BICUBIC, (7, 28), torch.float32, taps, transposed)(7, 28, like)
    computed = ResizeMatrix(Interpolation.BICUBIC, None, torch.float32, taps, transposed)(7, 28, like)
    assert torch.equal(constant, computed)
