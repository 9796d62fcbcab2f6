import numpy as np
import pytest

from ffnet_deploy.evaluation.resampling import bilinear, bilinear_rows, nearest

SIZES = [
    ((16, 24), (128, 192)),
    ((64, 96), (512, 768)),
    ((33, 65), (512, 1024)),
    ((128, 160), (97, 61)),
    ((512, 704), (511, 683)),
    ((128, 176), (512, 176)),
    ((1, 1), (32, 32)),
    ((2, 32), (64, 1024)),
    ((40, 50), (1, 1)),
]


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_bilinear_equals_torchs_interpolation(source: tuple[int, int], target: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).normal(size=(*source, 5)).astype(np.float32)
    planes = torch.from_numpy(values).permute(2, 0, 1)[None].double()
    exact = torch.nn.functional.interpolate(planes, size=target, mode="bilinear", align_corners=False)
    error = np.abs(bilinear(values, target) - exact[0].permute(1, 2, 0).numpy()).max() / np.abs(values).max()
    assert error < 3e-7, f"{error:.1e}"


@pytest.mark.parametrize("target", [(90, 55), (37, 55), (90, 21), (20, 10), (37, 21)])
def test_bands_of_rows_put_together_are_the_whole(target: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(size=(37, 21, 3)).astype(np.float32)
    whole = bilinear(values, target)
    assert whole.shape == (*target, 3)
    bands = [
        bilinear_rows(lambda first, last: values[first:last], (37, 21), target, start, min(start + 7, target[0]))
        for start in range(0, target[0], 7)
    ]
    assert np.array_equal(np.concatenate(bands), whole)


def test_bilinear_at_the_same_size_changes_nothing() -> None:
    values = np.random.default_rng(0).normal(size=(9, 8, 3)).astype(np.float32)
    assert np.array_equal(bilinear(values, (9, 8)), values)


# without (128, 160) to (97, 61): there centres fall between two pixels, and float32 positions round to either
@pytest.mark.parametrize(("source", "target"), [sizes for sizes in SIZES if sizes[1] != (97, 61)])
def test_nearest_takes_the_pixel_at_the_centre(source: tuple[int, int], target: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    labels = np.random.default_rng(0).integers(0, 200, source).astype(np.uint8)
    planes = torch.from_numpy(labels)[None, None]
    expected = torch.nn.functional.interpolate(planes, size=target, mode="nearest-exact")[0, 0].numpy()
    assert np.array_equal(nearest(labels, target), expected)
