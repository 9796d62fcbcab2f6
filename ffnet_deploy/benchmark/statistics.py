"""What can be said of samples that were taken in rounds on a machine that drifts.

Resampling draws whole rounds: samples of one round are neighbours in time and share its disturbances, so that a round
tells less than its number of samples suggests. Two candidates of one run are resampled with the same rounds, so that
what slowed a round down hits both alike and cancels in their ratio.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile interval); Field and Welsh,
Bootstrapping clustered data, JRSS B 69, 2007 (drawing whole clusters); Hesterberg, arXiv 1411.5279, section 3.2
(widening for few samples).
"""

from collections.abc import Sequence
from itertools import chain, pairwise
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.benchmark.record import Interval, Ratio, Samples, Summary, Verdict

LEVEL = 0.95
"""Probability that an interval holds the true value."""

CERTAIN = 0.999
"""Probability asked for before one candidate is called faster than another."""

MARGIN = 0.01
"""Differences of time below this share are not called faster or slower, however certain."""

UNSTEADY = 2.5
"""Spread, in percent, from which a candidate's times are called unsteady."""

LEAST_ROUNDS = 6
"""Below this many rounds there is no interval: resampling a handful promises more than it knows."""

DRAWS = 4000
_CELLS = 256

_MOST_ROUNDS = 200
"""With more, neighbours are joined: what is resampled must outlast the disturbances that samples share."""

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
    filled = _joined([one for one in rounds if one])
    if len(filled) < LEAST_ROUNDS:
        return None
    picks = _picks(len(filled), seed)
    return _interval(resampled_medians(filled, picks), len(filled), level)


def ratio(mine: Rounds, other: Rounds, against: str, seed: int = 0) -> Ratio | None:
    """The ratio of the medians of two candidates that were timed in the same rounds; None where one has no sample.

    Args:
        mine: samples of the candidate, one tuple for each round.
        other: samples of the other candidate in the same rounds.
        against: name of the other candidate.
        seed: of the resampling.
    """
    pairs = [(first, second) for first, second in zip(mine, other, strict=False) if first and second]
    if not pairs:
        return None
    first, second = _joined([pair[0] for pair in pairs]), _joined([pair[1] for pair in pairs])
    value = _median(first) / _median(second)
    if len(first) < LEAST_ROUNDS:
        return Ratio(against, value, None, Verdict.SAME)
    picks = _picks(len(first), seed)
    draws = resampled_medians(first, picks) / resampled_medians(second, picks)
    return Ratio(against, value, _interval(draws, len(first), LEVEL), verdict(value, draws, len(first)))


def independent_ratio(mine: Rounds, other: Rounds, against: str, seed: int = 0) -> Ratio | None:
    """The ratio of the medians of samples from two runs, whose rounds have nothing in common."""
    first, second = (_joined([one for one in rounds if one]) for rounds in (mine, other))
    if not first or not second:
        return None
    value = _median(first) / _median(second)
    if min(len(first), len(second)) < LEAST_ROUNDS:
        return Ratio(against, value, None, Verdict.SAME)
    draws = resampled_medians(first, _picks(len(first), seed)) / resampled_medians(
        second, _picks(len(second), seed + 1)
    )
    fewest = min(len(first), len(second))
    return Ratio(against, value, _interval(draws, fewest, LEVEL), verdict(value, draws, fewest))


def verdict(value: float, draws: NDArray[np.float64], rounds: int) -> Verdict:
    """Faster or slower where that is `CERTAIN`, and by more than `MARGIN`.

    Args:
        value: ratio of the medians.
        draws: the same, resampled.
        rounds: number of rounds that were resampled.
    """
    certain = _interval(draws, rounds, CERTAIN)
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
    ranking = _Ranking(samples[order], owner[order], len(rounds))
    weights = _times_picked(picks, len(rounds))
    total = weights @ np.array([len(one) for one in rounds], np.float64)
    lower, upper = (ranking.at(weights, rank) for rank in ((total + 1) // 2, total // 2 + 1))
    middle: NDArray[np.float64] = (lower + upper) / 2
    return middle


class _Ranking:
    """All samples by size, each with its round, in cells of a few samples, so that a rank is found in two steps.

    Args:
        values: (n,), ascending.
        owner: (n,), index of each sample's round.
        rounds: number of rounds.
    """

    def __init__(self, values: NDArray[np.float64], owner: NDArray[np.intp], rounds: int) -> None:
        cells = max(min(_CELLS, len(values) // 16), 1)
        self._values, self._owner = values, owner
        self._edges = np.linspace(0, len(values), cells + 1).astype(np.intp)
        self._widest = int(np.diff(self._edges).max())
        cell = np.repeat(np.arange(cells), np.diff(self._edges))
        counts = np.bincount(cell * rounds + owner, minlength=cells * rounds).reshape(cells, rounds)
        self._reached = counts.cumsum(axis=0).astype(np.float64)

    def at(self, weights: NDArray[np.float64], rank: NDArray[np.float64]) -> NDArray[np.float64]:
        """The value at `rank` (draws,), from 1, where each sample counts as often as `weights` (draws, rounds) says."""
        reached = weights @ self._reached.T
        cell = (reached >= rank[:, None]).argmax(axis=1)
        draw = np.arange(len(rank))
        before = np.where(cell > 0, reached[draw, cell - 1], 0.0)
        start = self._edges[cell]
        members = np.minimum(start[:, None] + np.arange(self._widest), len(self._values) - 1)
        within = before[:, None] + weights[draw[:, None], self._owner[members]].cumsum(axis=1)
        found: NDArray[np.float64] = self._values[start + (within >= rank[:, None]).argmax(axis=1)]
        return found


def _times_picked(picks: NDArray[np.intp], rounds: int) -> NDArray[np.float64]:
    """(draws, rounds): how often each draw picked each round."""
    draws = len(picks)
    flat = (picks + np.arange(draws)[:, None] * rounds).ravel()
    return np.bincount(flat, minlength=draws * rounds).reshape(draws, rounds).astype(np.float64)


def _joined(rounds: Rounds) -> Rounds:
    """`rounds`, neighbours joined where there are more than `_MOST_ROUNDS`."""
    if len(rounds) <= _MOST_ROUNDS:
        return rounds
    edges = np.linspace(0, len(rounds), _MOST_ROUNDS + 1).astype(int)
    return [tuple(chain.from_iterable(rounds[a:b])) for a, b in pairwise(edges)]


def _picks(rounds: int, seed: int) -> NDArray[np.intp]:
    return np.random.default_rng(seed).integers(0, rounds, (DRAWS, rounds)).astype(np.intp)


def _median(rounds: Rounds) -> float:
    return float(np.median(np.concatenate([np.asarray(one, np.float64) for one in rounds])))


def _interval(draws: NDArray[np.float64], rounds: int, level: float) -> Interval:
    share = tail(rounds, level) * 100
    low, high = np.percentile(draws, (share, 100 - share))
    return Interval(float(low), float(high), level)


def tail(rounds: int, level: float) -> float:
    """Share of the draws that lies beyond each end of the interval from so many rounds.

    Less than (1 - level) / 2: the spread of few samples is less than that of what they were drawn from. Like the
    interval of a mean with Student's t; its quantile by the expansion of Abramowitz and Stegun, 26.7.5.
    """
    z, freedom = NormalDist().inv_cdf((1 + level) / 2), rounds - 1
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return NormalDist().cdf(-t * (rounds / freedom) ** 0.5)
