"""From the magnitudes of a tensor to the threshold beyond which they are clipped."""

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.calib.observers import CHANNEL_BINS, ChannelHistograms, Histogram
from ffnet_deploy.calib.options import Method
from ffnet_deploy.core.precision import Precision

LEVELS = 127
"""Steps from zero to the largest value of symmetric INT8."""
ENTROPY_BINS = 2048
"""Bins between zero and the largest magnitude that the entropy method compares."""
_FIRST_BIN = LEVELS + 1
_MSE_CANDIDATES = 200
"""Thresholds tried by the mean squared error: multiples of one 200th of the largest magnitude."""
_MSE_LEAST = 10


def threshold(
    histogram: Histogram, method: Method, percentile: float = 99.99, precision: Precision = Precision.INT8
) -> float:
    """The clipping threshold of a tensor for symmetric INT8, or FP8; 0 where the tensor was always zero.

    FP8's steps shrink with the values: clipping gains nothing there, and the least error is that of the largest
    magnitude.
    """
    if histogram.maximum == 0:
        return 0.0
    if precision is Precision.FP8 and method is Method.MSE:
        return histogram.maximum
    if method is Method.PERCENTILE:
        return percentile_threshold(histogram, percentile)
    if method is Method.ENTROPY:
        return entropy_threshold(histogram)
    return mse_threshold(histogram) if method is Method.MSE else histogram.maximum


def percentile_threshold(histogram: Histogram, percentile: float) -> float:
    """The magnitude that `percentile` percent of the values do not exceed."""
    wanted = histogram.total * percentile / 100
    below = np.cumsum(histogram.counts)
    index = int(np.searchsorted(below, wanted))
    before = int(below[index - 1]) if index else 0
    inside = max(int(histogram.counts[index]), 1)
    return min((index + (wanted - before) / inside) * histogram.width, histogram.maximum)


def mse_threshold(histogram: Histogram) -> float:
    """The threshold of the least mean squared rounding and clipping error, to half a percent of the range."""
    used = np.flatnonzero(histogram.counts)
    values = np.asarray((used + 0.5) * histogram.width, np.float64)
    counts = histogram.counts[used].astype(np.float64)
    candidates = [histogram.maximum * part / _MSE_CANDIDATES for part in range(_MSE_LEAST, _MSE_CANDIDATES + 1)]
    errors = [_squared_error(values, counts, candidate) for candidate in candidates]
    return candidates[int(np.argmin(errors))]


def _squared_error(values: NDArray[np.float64], counts: NDArray[np.float64], limit: float) -> float:
    step = limit / LEVELS
    rounded = np.minimum(np.rint(values / step), LEVELS) * step
    return float(counts @ np.square(values - rounded))


def channel_thresholds(histograms: ChannelHistograms) -> NDArray[np.float64]:
    """The threshold of each channel, float64 (channels,), that would serve it best if it had a scale of its own.

    Values within a threshold t are taken to err by the mean square of rounding, (t / 127)^2 / 12.
    """
    widths = (histograms.limits / CHANNEL_BINS)[:, None]
    edges = (np.arange(CHANNEL_BINS) + 1) * widths
    counts, values = histograms.counts, edges - widths / 2
    number, first, second = (_sums_beyond(counts * values**power) for power in range(3))
    clipped = second - 2 * edges * first + edges**2 * number
    rounded = (counts.sum(axis=1, keepdims=True) - number) * np.square(edges / LEVELS) / 12
    best = np.argmin(clipped + rounded, axis=1)
    return np.asarray(np.minimum(edges[np.arange(len(best)), best], histograms.maximum), np.float64)


def _sums_beyond(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row, the sum of what comes after each place."""
    return np.asarray(values.sum(axis=1, keepdims=True) - np.cumsum(values, axis=1), np.float64)


def entropy_threshold(histogram: Histogram) -> float:
    """The threshold whose quantised distribution diverges least from the clipped one.

    Of 2048 equal bins over the magnitudes the first i are kept, the rest is clipped into the last of them, and they
    are merged into 128 levels; i with the least Kullback-Leibler divergence wins.
    Source: Migacz, "8-bit Inference with TensorRT", GTC 2017.
    """
    edges = np.linspace(0, histogram.maximum, ENTROPY_BINS + 1)
    below = histogram.cumulative(edges)
    below[-1] = histogram.total
    counts = np.diff(below)
    # values at and around zero are exact in INT8; their peak must not decide
    counts[0] = counts[1]
    divergences = [_divergence(counts, kept) for kept in range(_FIRST_BIN, ENTROPY_BINS + 1)]
    # of equal ones the widest
    best = len(divergences) - 1 - int(np.argmin(divergences[::-1]))
    return float(edges[_FIRST_BIN + best])


def _divergence(counts: NDArray[np.float64], kept: int) -> float:
    """Kullback-Leibler divergence of the first `kept` bins, the clipped rest in the last, from their 128 levels."""
    inside = counts[:kept]
    present = inside > 0
    level = np.arange(kept) * _FIRST_BIN // kept
    sums = np.bincount(level, weights=inside, minlength=_FIRST_BIN)
    bins = np.bincount(level, weights=present, minlength=_FIRST_BIN)
    spread = np.where(present, (sums / np.maximum(bins, 1))[level], 0.0)
    clipped = inside.copy()
    clipped[-1] += counts[kept:].sum()
    lost = counts[kept:].sum()
    reference = clipped / clipped.sum()
    quantised = spread / (spread.sum() + lost)
    shared = (reference > 0) & (quantised > 0)
    if np.any((reference > 0) & ~shared):
        return float("inf")
    return float(np.sum(reference[shared] * np.log(reference[shared] / quantised[shared])))
