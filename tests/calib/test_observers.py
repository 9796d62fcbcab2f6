"""Histograms take bounded memory and give the same whatever the order; thresholds agree with independent references."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from ffnet_deploy.calib.observers import BINS, ChannelHistograms, Histogram
from ffnet_deploy.calib.options import Method
from ffnet_deploy.calib.thresholds import LEVELS, channel_thresholds, threshold
from ffnet_deploy.core.precision import Precision

Draw = Callable[[np.random.Generator, int], np.ndarray]
DISTRIBUTIONS: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(0, 2.3, n),
    "laplace": lambda rng, n: rng.laplace(0, 0.7, n),
    "rectified": lambda rng, n: np.maximum(rng.normal(0, 1.1, n), 0),
    "heavy": lambda rng, n: rng.standard_t(4, n),
    "uniform": lambda rng, n: rng.uniform(-3, 3, n),
}


def draw(name: str, count: int = 200_000) -> np.ndarray:
    return DISTRIBUTIONS[name](np.random.default_rng(1), count).astype(np.float32)


def observed(values: np.ndarray, parts: int = 1) -> Histogram:
    histogram = Histogram()
    for part in np.array_split(values, parts):
        histogram.update(part)
    return histogram


def rounded(values: np.ndarray, limit: float) -> np.ndarray:
    """Symmetric INT8, written down once more."""
    step = limit / 127
    return np.clip(np.round(values / step), -127, 127) * step


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_counts_are_those_of_numpy(name: str) -> None:
    values = draw(name)
    histogram = observed(values, parts=7)
    expected, _ = np.histogram(np.abs(values), bins=BINS, range=(0, histogram.limit))
    np.testing.assert_array_equal(histogram.counts, expected)
    assert histogram.maximum == np.abs(values).max()
    assert histogram.limit / 2 <= histogram.maximum < histogram.limit


def test_order_and_grouping_do_not_matter() -> None:
    values = draw("heavy")
    up, down = observed(np.sort(np.abs(values)), parts=50), observed(np.sort(-np.abs(values)), parts=3)
    np.testing.assert_array_equal(up.counts, down.counts)
    assert (up.limit, up.maximum) == (down.limit, down.maximum)


def test_memory_stays_the_same_however_large_values_become() -> None:
    histogram = Histogram()
    for power in range(-20, 30):
        histogram.update(np.full(10, 2.0**power, np.float32))
    assert histogram.counts.nbytes == BINS * 8
    assert histogram.total == 500
    assert histogram.maximum == 2.0**29


def test_a_tensor_of_zeros_has_no_threshold_until_something_else_comes() -> None:
    histogram = observed(np.zeros(100, np.float32))
    assert [threshold(histogram, method) for method in Method] == [0.0] * 4
    histogram.update(np.full(3, 0.5, np.float32))
    assert histogram.total == 103
    assert threshold(histogram, Method.MINMAX) == 0.5


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_minmax_is_the_largest_magnitude(name: str) -> None:
    values = draw(name)
    assert threshold(observed(values), Method.MINMAX) == np.abs(values).max()


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("percentile", [99.0, 99.9, 99.99])
def test_percentile_is_that_of_numpy(name: str, percentile: float) -> None:
    values = draw(name)
    found = threshold(observed(values, parts=5), Method.PERCENTILE, percentile)
    assert found == pytest.approx(np.percentile(np.abs(values), percentile), rel=0.01)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_mse_is_as_good_as_the_best_of_a_fine_search_on_the_values(name: str) -> None:
    values = draw(name, 10_000).astype(np.float64)
    found = threshold(observed(values.astype(np.float32)), Method.MSE)

    def error(limit: float) -> float:
        return float(np.square(values - rounded(values, limit)).mean())

    best = min(error(limit) for limit in np.linspace(0.05, 1, 150) * np.abs(values).max())
    assert error(found) <= 1.01 * best, f"{error(found):.3e} against {best:.3e}"


def reference_entropy(values: np.ndarray) -> float:
    """The 2048-bin search with scipy's divergence, levels found by digitising, from the published description."""
    counts, edges = np.histogram(np.abs(values), bins=2048, range=(0, np.abs(values).max()))
    counts = counts.astype(np.float64)
    counts[0] = counts[1]
    results = []
    for kept in range(128, 2049):
        level = np.digitize(np.arange(kept), np.linspace(0, kept, 129)) - 1
        present = counts[:kept] > 0
        sums = stats.binned_statistic(level[present], counts[:kept][present], "mean", bins=np.arange(129)).statistic
        quantised = np.where(present, np.nan_to_num(sums)[level], 0.0)
        reference = counts[:kept].copy()
        reference[-1] += counts[kept:].sum()
        # what is clipped counts as mass that the quantised distribution lacks
        whole = quantised.sum() + counts[kept:].sum()
        reference /= reference.sum()
        divergence = np.inf
        if not np.any((reference > 0) & (quantised == 0)):
            both = reference > 0
            divergence = stats.entropy(reference[both], quantised[both] / quantised[both].sum())
            divergence -= np.log(quantised[both].sum() / whole)
        results.append(divergence)
    best = len(results) - 1 - int(np.argmin(results[::-1]))
    return float(edges[128 + best])


@pytest.mark.parametrize("name", ["laplace", "heavy"])
def test_entropy_agrees_with_scipy(name: str) -> None:
    values = draw(name)
    assert threshold(observed(values, parts=4), Method.ENTROPY) == pytest.approx(reference_entropy(values), rel=0.01)


def test_entropy_clips_what_hardly_ever_occurs() -> None:
    values = np.concatenate([draw("normal"), np.float32([80.0])])
    assert threshold(observed(values), Method.ENTROPY) < 15


def test_channels_are_observed_each_at_its_own_scale() -> None:
    rng = np.random.default_rng(2)
    sizes = np.array([0.0, 1e-3, 1.0, 300.0], np.float32)
    seen, parts = ChannelHistograms(), rng.laplace(0, 1, (6, 1, 4, 40, 50)).astype(np.float32)
    for part in parts:
        seen.update(part * sizes[None, :, None, None])
    values = (parts * sizes[:, None, None]).transpose(2, 0, 1, 3, 4).reshape(4, -1)
    np.testing.assert_array_equal(seen.maximum, np.abs(values).max(axis=1))
    np.testing.assert_allclose(seen.mean_square, np.square(values, dtype=np.float64).mean(axis=1), rtol=1e-4)
    assert (seen.counts.sum(axis=1) == values.shape[1]).all()
    found = channel_thresholds(seen)
    assert found[0] == 0
    for limit, row in zip(found[1:], values[1:], strict=True):
        errors = [np.square(row - rounded(row, part * np.abs(row).max())).mean() for part in np.linspace(0.1, 1, 300)]
        assert np.square(row - rounded(row, limit)).mean() <= 1.02 * min(errors)
    assert found[2:] / found[1] == pytest.approx(sizes[2:] / sizes[1], rel=0.15)
    assert LEVELS == 127


def test_values_next_to_nothing_are_counted() -> None:
    histogram = Histogram()
    for values in ([1e-36] * 10, [1e-30] * 10):
        histogram.update(np.array(values, np.float32))
    assert histogram.total == 20 and histogram.maximum == pytest.approx(1e-30)
    for method in Method:
        assert 0 <= threshold(histogram, method) <= histogram.maximum
    histogram.update(np.full(10, 3.0, np.float32))
    assert histogram.limit == 4 and histogram.counts[0] == 20


def test_fp8_is_not_clipped_by_the_least_error() -> None:
    histogram = Histogram()
    histogram.update(np.random.default_rng(0).standard_t(4, 100_000).astype(np.float32))
    assert threshold(histogram, Method.MSE) < histogram.maximum
    assert threshold(histogram, Method.MSE, precision=Precision.FP8) == histogram.maximum
