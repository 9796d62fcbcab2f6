"""Weight scales for CPUs: no pair of products saturates, and little precision is given up for it."""

import numpy as np
import pytest

from ffnet_deploy.calib.qdq import rounded_weight, weight_scales
from ffnet_deploy.core.precision import Hardware, Precision

SHAPES = [(32, 64, 1, 1), (8, 63, 1, 1), (16, 12, 3, 3), (4, 3, 3, 3)]


def weight(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def steps(values: np.ndarray, hardware: Hardware) -> np.ndarray:
    scales = weight_scales(values, Precision.INT8, hardware)
    return np.rint(values / scales.reshape(-1, 1, 1, 1))


def worst_pair(quantised: np.ndarray) -> float:
    """Largest magnitude that two neighbouring input channels add up to, each times an activation of 255."""
    odd = quantised.shape[1] % 2
    even = np.pad(quantised, ((0, 0), (0, odd), (0, 0), (0, 0))).reshape(len(quantised), -1, 2, *quantised.shape[2:])
    return 255 * float(max(np.maximum(even, 0).sum(2).max(), np.maximum(-even, 0).sum(2).max()))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(5))
def test_no_pair_saturates_16_bits(shape: tuple[int, ...], seed: int) -> None:
    values = weight(shape, seed)
    assert worst_pair(steps(values, Hardware.CPU)) <= 32767 < worst_pair(steps(values, Hardware.TRT))


def test_a_pair_of_equal_weights_gets_seven_bits_and_a_lone_one_eight() -> None:
    pair, lone = np.full((1, 2, 1, 1), 0.5, np.float32), np.array([[[[0.5]], [[-0.5]]]], np.float32)
    assert np.abs(steps(pair, Hardware.CPU)).max() == 64
    assert np.abs(steps(lone, Hardware.CPU)).max() == 127, "products of opposite signs do not add up"


def test_depthwise_weights_have_no_neighbours() -> None:
    values = weight((16, 1, 9, 9))
    np.testing.assert_array_equal(
        weight_scales(values, Precision.INT8, Hardware.CPU), weight_scales(values, Precision.INT8)
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_less_noise_than_seven_bits(shape: tuple[int, ...]) -> None:
    values = weight(shape)
    seven = 2 * weight_scales(values, Precision.INT8).reshape(-1, 1, 1, 1) * 127 / 126
    coarse = np.square(np.rint(values / seven) * seven - values).mean()
    found = np.square(rounded_weight(values, Precision.INT8, Hardware.CPU) - values).mean()
    assert found < coarse / 1.5, f"{10 * np.log10(coarse / found):.1f} dB"
