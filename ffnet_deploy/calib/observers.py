"""What is remembered of a tensor while images pass: bounded memory, the same result in whatever order they come."""

from dataclasses import dataclass, field
from math import ceil, floor, log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.calib.options import Method
from ffnet_deploy.core.optional import optional

BINS = 16384
"""Bins of a histogram; at least half of them lie below the largest magnitude."""
CHANNEL_BINS = 512
"""Bins of each channel's histogram."""
_LEAST_LIMIT = 2.0**-40
"""Upper edge below which no histogram begins: bins of values next to nothing would leave float32."""
_CHUNK = 1 << 14
"""Values binned at once: they stay in a processor's cache."""


@dataclass
class Histogram:
    """Counts of magnitudes in equal bins over 0..limit.

    The limit is a power of two that doubles, with bins merged in pairs, whenever a value outgrows it. Bin edges are
    then exact, so that the counts depend neither on the order nor on the grouping of the values.

    Attributes:
        counts: Number of values in each bin, int64 (BINS,).
        limit: Upper edge of the last bin; 0 until a value differs from zero.
        maximum: Largest magnitude so far.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    limit: float = 0.0
    maximum: float = 0.0

    @property
    def width(self) -> float:
        """Of a bin."""
        return self.limit / BINS

    @property
    def total(self) -> int:
        """Number of values counted."""
        return int(self.counts.sum())

    def update(self, values: NDArray[np.float32]) -> None:
        """Count the magnitudes of finite `values` of any shape."""
        flat = values.reshape(-1)
        for start in range(0, flat.size, _CHUNK):
            self._count(np.abs(flat[start : start + _CHUNK]))

    def _count(self, magnitudes: NDArray[np.float32]) -> None:
        largest = float(magnitudes.max())
        self.maximum = max(self.maximum, largest)
        if largest >= self.limit and largest > 0:
            self._grow(largest)
        if self.limit == 0:
            self.counts[0] += magnitudes.size
            return
        # a power of two: the product is exact
        indices = (magnitudes * np.float32(BINS / self.limit)).astype(np.int32)
        self.counts += np.bincount(indices, minlength=BINS)

    def _grow(self, largest: float) -> None:
        limit = max(2.0 ** ceil(log2(largest)), _LEAST_LIMIT)
        limit = 2 * limit if limit <= largest else limit
        while 0 < self.limit < limit:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros(BINS // 2, np.int64)])
            self.limit *= 2
        self.limit = limit

    def cumulative(self, edges: NDArray[np.float64]) -> NDArray[np.float64]:
        """Number of values below each of `edges`, counts spread evenly within a bin."""
        below = np.concatenate([[0], np.cumsum(self.counts)])
        return np.interp(edges, np.arange(BINS + 1) * self.width, below.astype(np.float64))


@dataclass
class ChannelHistograms:
    """Counts of magnitudes for each channel of (batch, channels, height, width) tensors, as `Histogram` but coarser.

    Attributes:
        counts: Number of values in each bin, int64 (channels, CHANNEL_BINS); empty until the first update.
        limits: Upper edge of each channel's last bin, float64 (channels,).
        maximum: Largest magnitude of each channel so far, float64 (channels,).
        squares: Sum of squares of each channel, float64 (channels,).
        count: Number of values per channel so far.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, CHANNEL_BINS), np.int64))
    limits: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    maximum: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    count: int = 0

    def update(self, values: NDArray[np.float32]) -> None:
        """Count the magnitudes of a finite tensor (batch, channels, height, width)."""
        channels = values.shape[1]
        if not self.maximum.size:
            self.counts = np.zeros((channels, CHANNEL_BINS), np.int64)
            # so small that every channel that is not silent outgrows it
            self.limits = np.full(channels, _LEAST_LIMIT)
            self.maximum, self.squares = np.zeros(channels), np.zeros(channels)
        for image in values.reshape(values.shape[0], channels, -1):
            self._count(np.abs(image))

    def _count(self, magnitudes: NDArray[np.float32]) -> None:
        largest = magnitudes.max(axis=1).astype(np.float64)
        self.maximum = np.maximum(self.maximum, largest)
        self.squares += np.einsum("ci,ci->c", magnitudes, magnitudes)
        self.count += magnitudes.shape[1]
        for channel in np.flatnonzero(largest >= self.limits):
            self._grow(int(channel), float(largest[channel]))
        for row, values in enumerate(magnitudes):
            indices = (values * np.float32(CHANNEL_BINS / self.limits[row])).astype(np.int32)
            self.counts[row] += np.bincount(indices, minlength=CHANNEL_BINS)

    def _grow(self, channel: int, largest: float) -> None:
        doublings = floor(log2(largest / self.limits[channel])) + 1
        # from there on all bins fall into the first
        merged = 2 ** min(doublings, CHANNEL_BINS.bit_length() - 1)
        counts = self.counts[channel].reshape(-1, merged).sum(axis=1)
        self.counts[channel] = 0
        self.counts[channel, : len(counts)] = counts
        self.limits[channel] *= 2.0**doublings

    @property
    def mean_square(self) -> NDArray[np.float64]:
        """float64 (channels,)."""
        return self.squares / max(self.count, 1)


_BITS = 8
_METHODS = {Method.ENTROPY: "entropy", Method.PERCENTILE: "percentile"}


class ModelOptHistogram:
    """An observer that leaves bins and thresholds to `HistogramCalibrator`; its range grows from the first image on.

    Attributes:
        maximum: Largest magnitude so far.

    Raises:
        MissingPackageError: Model Optimizer is not installed.
    """

    def __init__(self) -> None:
        purpose = "the calibrator modelopt"
        self._torch = optional("torch", extra="convert", purpose=purpose)
        calib = optional("modelopt.torch.quantization.calib", extra="modelopt", purpose=purpose)
        self._calibrator: Any = calib.HistogramCalibrator(_BITS, None, False)
        self.maximum = 0.0

    def update(self, values: NDArray[np.float32]) -> None:
        """Count the magnitudes of a finite tensor; one that holds nothing but zeros tells it nothing."""
        magnitudes = np.abs(values)
        largest = float(magnitudes.max())
        if largest > 0:
            self._calibrator.collect(self._torch.from_numpy(magnitudes))
        self.maximum = max(self.maximum, largest)

    def threshold(self, method: Method, percentile: float) -> float:
        """The clipping threshold; 0 where the tensor was always zero."""
        if method is Method.MINMAX or self.maximum == 0:
            return self.maximum
        settings = {"percentile": percentile} if method is Method.PERCENTILE else {}
        return min(float(self._calibrator.compute_amax(_METHODS[method], **settings)), self.maximum)
