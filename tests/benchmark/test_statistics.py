import numpy as np
import pytest

from ffnet_deploy.benchmark import statistics
from ffnet_deploy.benchmark.record import Verdict
from ffnet_deploy.benchmark.statistics import independent_ratio, median_interval, ratio, resampled_medians, summarize
from tests.benchmark.simulated import NOISES

ROUNDS = 50


def as_rounds(samples: np.ndarray) -> list[tuple[float, ...]]:
    return [tuple(row) for row in samples.tolist()]


def recorded(seed: int = 0, rounds: int = ROUNDS, each: int = 3) -> np.ndarray:
    """Times with a long tail, (rounds, each)."""
    random = np.random.default_rng(seed)
    return 10 * np.exp(random.normal(0, 0.05, (rounds, each))) + random.exponential(0.3, (rounds, each))


def test_every_number_is_numpys() -> None:
    samples = recorded()
    found = summarize(as_rounds(samples))
    assert found is not None
    assert (found.count, found.minimum, found.maximum) == (samples.size, samples.min(), samples.max())
    assert found.median == np.median(samples)
    assert (found.p90, found.p95, found.p99) == tuple(np.percentile(samples, (90, 95, 99)))
    assert found.mean == pytest.approx(samples.mean(), rel=1e-12)
    assert found.spread == pytest.approx(samples.std() / samples.mean() * 100, rel=1e-12)


@pytest.mark.parametrize("rounds", [49, 50])
def test_interval_of_the_median_is_scipys_bootstrap(rounds: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    samples = recorded(rounds=rounds, each=1)
    expected = stats.bootstrap(
        (samples[:, 0],),
        np.median,
        n_resamples=statistics.DRAWS,
        confidence_level=1 - 2 * statistics.tail(rounds, 0.95),
        method="percentile",
        rng=np.random.default_rng(7),
    ).confidence_interval
    found = median_interval(as_rounds(samples), seed=7)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_interval_of_the_ratio_is_scipys_paired_bootstrap() -> None:
    stats = pytest.importorskip("scipy.stats")
    mine, other = recorded(0, each=1) * 1.3, recorded(1, each=1)
    expected = stats.bootstrap(
        (mine[:, 0], other[:, 0]),
        lambda a, b, axis=-1: np.median(a, axis=axis) / np.median(b, axis=axis),
        paired=True,
        n_resamples=statistics.DRAWS,
        confidence_level=1 - 2 * statistics.tail(ROUNDS, 0.95),
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    found = ratio(as_rounds(mine), as_rounds(other), "other", seed=3)
    assert found is not None
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert found.value == np.median(mine) / np.median(other)


@pytest.mark.parametrize("rounds", [6, 10, 50, 1000])
def test_few_rounds_widen_the_interval_as_students_t_does(rounds: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.norm.cdf(-stats.t.ppf(0.975, rounds - 1) * np.sqrt(rounds / (rounds - 1)))
    assert statistics.tail(rounds, 0.95) == pytest.approx(expected, rel=0.1)
    assert statistics.tail(rounds, 0.95) < 0.025


def test_rounds_are_resampled_whole_whatever_their_length() -> None:
    random = np.random.default_rng(0)
    rounds = [tuple(random.random(size)) for size in (1, 4, 2, 7, 3)]
    picks = random.integers(0, 5, (200, 5))
    expected = [np.median(np.concatenate([rounds[index] for index in row])) for row in picks]
    assert resampled_medians(rounds, picks).tolist() == pytest.approx(expected, rel=1e-15)


def test_thousands_of_rounds_are_joined_and_say_the_same() -> None:
    samples = recorded(rounds=6000, each=4)
    found, few = (median_interval(as_rounds(part)) for part in (samples, samples.reshape(200, -1)))
    assert found == few


def samples_of(noise: str, random: np.random.Generator, each: int) -> np.ndarray:
    """(ROUNDS, each) calls of 10 ms as the simulated machine would take them, a fifth of a second between rounds."""
    moments = np.arange(ROUNDS) * 0.2
    call = NOISES[noise](10.0)
    return np.array([[call(random, moment) for _ in range(each)] for moment in moments])


@pytest.mark.parametrize(("noise", "each"), [("steady", 1), ("outliers", 1), ("bimodal", 3), ("drift", 3)])
def test_intervals_hold_the_truth_in_93_of_100_trials(noise: str, each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "DRAWS", 500)
    random = np.random.default_rng(each)
    trials = 1000
    pool = samples_of(noise, random, 400)
    truth = float(np.median(pool))
    held = ones = 0
    for trial in range(trials):
        mine, other = (np.take_along_axis(pool, random.integers(0, 400, (ROUNDS, each)), 1) for _ in "ab")
        interval = median_interval(as_rounds(mine), trial)
        compared = ratio(as_rounds(mine), as_rounds(other), "itself", trial)
        assert interval is not None
        assert compared is not None
        assert compared.interval is not None
        held += truth in interval
        ones += 1.0 in compared.interval
    assert held >= 0.93 * trials, f"{noise}: the median's interval held it in {held} of {trials} trials"
    assert ones >= 0.93 * trials, f"{noise}: the interval of A against A held 1 in {ones} of {trials} trials"


@pytest.mark.parametrize("noise", sorted(NOISES))
def test_ten_percent_are_told_from_noise(noise: str) -> None:
    random = np.random.default_rng(1)
    fast, slow = samples_of(noise, random, 3), samples_of(noise, random, 3) * 1.1
    slower, faster = ratio(as_rounds(slow), as_rounds(fast), "fast"), ratio(as_rounds(fast), as_rounds(slow), "slow")
    assert slower is not None
    assert faster is not None
    if noise == "bimodal":  # its modes are further apart than what was planted
        assert slower.value > 1 > faster.value
    else:
        assert (slower.verdict, faster.verdict) == (Verdict.SLOWER, Verdict.FASTER)


def test_a_certain_difference_too_small_to_matter_is_none() -> None:
    exact = [(1.0,)] * ROUNDS
    found = ratio([(1.005,)] * ROUNDS, exact, "other")
    assert found is not None
    assert found.verdict is Verdict.SAME
    found = ratio([(1.02,)] * ROUNDS, exact, "other")
    assert found is not None
    assert found.verdict is Verdict.SLOWER


def test_drift_cancels_in_the_ratio_of_one_run_and_not_between_two() -> None:
    slope = np.linspace(10, 20, ROUNDS)[:, None]
    random = np.random.default_rng(0)
    mine, other = (as_rounds(slope * np.exp(random.normal(0, 0.01, (ROUNDS, 2)))) for _ in range(2))
    paired, apart = ratio(mine, other, "other"), independent_ratio(mine, other, "other")
    assert paired is not None
    assert paired.interval is not None
    assert apart is not None
    assert apart.interval is not None
    width = paired.interval.high - paired.interval.low
    assert width < 0.2 * (apart.interval.high - apart.interval.low)


def test_too_little_gives_no_interval_and_nothing_gives_none() -> None:
    few = [(1.0,), (2.0,)]
    found = summarize(few)
    assert found is not None
    assert (found.median, found.median_interval) == (1.5, None)
    compared = ratio(few, [(4.0,), (4.0,)], "other")
    assert compared is not None
    assert (compared.value, compared.interval, compared.verdict) == (0.375, None, Verdict.SAME)
    assert summarize([]) is summarize([()]) is ratio([], few, "other") is independent_ratio(few, [()], "other") is None
