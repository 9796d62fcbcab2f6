"""What can be said of samples that were taken in rounds on a machine that drifts.

Resampling draws whole rounds: samples of one round are neighbours in time and share its disturbances, so that a round
tells less than its number of samples suggests. Two contenders of one run are resampled with the same rounds, so that
what slowed a round down hits both alike and cancels in their ratio.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile interval); Field and Welsh,
Bootstrapping clustered data, JRSS B 69, 2007 (drawing whole clusters).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.benchmark.record import Interval, Ratio, Samples, Summary, Verdict

LEVEL = 0.95
"""Probability that an interval holds the true value."""

CERTAIN = 0.999
"""Probability asked for before one contender is called faster than another."""

MARGIN = 0.01
"""Differences of time below this share are not called faster or slower, however certain."""

UNSTEADY = 2.5
"""Spread, in percent, from which a contender's times are called unsteady."""

LEAST_ROUNDS = 6
"""Below this many rounds there is no interval: resampling a handful promises more than it knows."""

DRAWS = 4000
_DRAWS_AT_ONCE = 2_000_000
"""Weights held at once while resampling, 4 bytes each."""

Rounds = Sequence[Samples]


def summarize(rounds: Rounds, seed: int = 0) -> Summary | None:
    """The summary of samples in milliseconds, one tuple for each round; None where there is no sample."""
    samples = np.concatenate([np.empty(0), *(np.asarray(one, np.float64) for one in rounds)])
    if samples.size == 0:
        return None
    p90, p95, p99 = (float(value) for value in np.percentile(samples, (90, 95, 99)))
    mean = float(samples.mean())
    return Summary(
        count=int(samples.size),
        median=float(np.median(samples)),
        median_interval=median_interval(rounds, seed),
        mean=mean,
        minimum=float(samples.min()),
        maximum=float(samples.max()),
        p90=p90,
        p95=p95,
        p99=p99,
        spread=float(samples.std() / mean * 100) if mean > 0 else 0.0,
    )


def median_interval(rounds: Rounds, seed: int = 0, level: float = LEVEL) -> Interval | None:
    """Percentile bootstrap interval of the median; None with fewer than `LEAST_ROUNDS` rounds."""
    filled = [one for one in rounds if one]
    if len(filled) < LEAST_ROUNDS:
        return None
    picks = _picks(len(filled), seed)
    return _interval(resampled_medians(filled, picks), level)


def ratio(mine: Rounds, other: Rounds, against: str, seed: int = 0) -> Ratio | None:
    """The ratio of the medians of two contenders that were timed in the same rounds; None where one has no sample.

    Args:
        mine: samples of the contender, one tuple for each round.
        other: samples of the other contender in the same rounds.
        against: name of the other contender.
        seed: of the resampling.
    """
    pairs = [(first, second) for first, second in zip(mine, other, strict=False) if first and second]
    if not pairs:
        return None
    first, second = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    value = _median(first) / _median(second)
    if len(pairs) < LEAST_ROUNDS:
        return Ratio(against, value, None, Verdict.SAME)
    picks = _picks(len(pairs), seed)
    draws = resampled_medians(first, picks) / resampled_medians(second, picks)
    return Ratio(against, value, _interval(draws, LEVEL), verdict(value, draws))


def independent_ratio(mine: Rounds, other: Rounds, against: str, seed: int = 0) -> Ratio | None:
    """The ratio of the medians of samples from two runs, whose rounds have nothing in common."""
    first, second = [one for one in mine if one], [one for one in other if one]
    if not first or not second:
        return None
    value = _median(first) / _median(second)
    if min(len(first), len(second)) < LEAST_ROUNDS:
        return Ratio(against, value, None, Verdict.SAME)
    draws = resampled_medians(first, _picks(len(first), seed)) / resampled_medians(
        second, _picks(len(second), seed + 1)
    )
    return Ratio(against, value, _interval(draws, LEVEL), verdict(value, draws))


def verdict(value: float, draws: NDArray[np.float64]) -> Verdict:
    """Faster or slower where that is `CERTAIN`, and by more than `MARGIN`."""
    certain = _interval(draws, CERTAIN)
    if certain.high < 1 and value < 1 - MARGIN:
        return Verdict.FASTER
    if certain.low > 1 and value > 1 + MARGIN:
        return Verdict.SLOWER
    return Verdict.SAME


def resampled_medians(rounds: Rounds, picks: NDArray[np.intp]) -> NDArray[np.float64]:
    """Median of all samples of the rounds picked, for each draw.

    Args:
        rounds: none of them empty.
        picks: (draws, n), indices of rounds, as drawn with replacement.

    Returns:
        float64 (draws,).
    """
    samples = np.concatenate([np.asarray(one, np.float64) for one in rounds])
    owner = np.repeat(np.arange(len(rounds)), [len(one) for one in rounds])
    order = np.argsort(samples, kind="stable")
    ranked, owner = samples[order], owner[order]
    step = max(_DRAWS_AT_ONCE // len(ranked), 1)
    parts = [
        _weighted_medians(ranked, _times_picked(picks[start : start + step], len(rounds))[:, owner])
        for start in range(0, len(picks), step)
    ]
    return np.concatenate(parts)


def _weighted_medians(ranked: NDArray[np.float64], weights: NDArray[np.int32]) -> NDArray[np.float64]:
    """Median of `ranked` (n,), ascending, each value taken as often as `weights` (draws, n) says."""
    reached = weights.cumsum(axis=1, dtype=np.int32)
    total = reached[:, -1:]
    lower = (reached >= (total + 1) // 2).argmax(axis=1)
    upper = (reached >= total // 2 + 1).argmax(axis=1)
    middle: NDArray[np.float64] = (ranked[lower] + ranked[upper]) / 2
    return middle


def _times_picked(picks: NDArray[np.intp], rounds: int) -> NDArray[np.int32]:
    """(draws, rounds): how often each draw picked each round."""
    draws = len(picks)
    flat = (picks + np.arange(draws)[:, None] * rounds).ravel()
    return np.bincount(flat, minlength=draws * rounds).reshape(draws, rounds).astype(np.int32)


def _picks(rounds: int, seed: int) -> NDArray[np.intp]:
    return np.random.default_rng(seed).integers(0, rounds, (DRAWS, rounds)).astype(np.intp)


def _median(rounds: Rounds) -> float:
    return float(np.median(np.concatenate([np.asarray(one, np.float64) for one in rounds])))


def _interval(draws: NDArray[np.float64], level: float) -> Interval:
    tail = (1 - level) / 2 * 100
    low, high = np.percentile(draws, (tail, 100 - tail))
    return Interval(float(low), float(high), level)
