"""A machine whose times are known: a clock that only its candidates move."""

from collections.abc import Callable

import numpy as np

from ffnet_deploy.benchmark.interleaved import Step

Noise = Callable[[np.random.Generator, float], float]
"""Milliseconds of a call, given chance and the time of day in seconds."""


class SimulatedClock:
    def __init__(self) -> None:
        self.nanoseconds = 0.0

    def now(self) -> int:
        return int(self.nanoseconds)

    def step(self, noise: Noise, seed: int) -> Step:
        """A call that takes the time that `noise` says."""
        random = np.random.default_rng(seed)

        def step() -> None:
            self.nanoseconds += noise(random, self.nanoseconds / 1e9) * 1e6

        return step


def steady(median: float) -> Noise:
    return lambda random, now: float(median * np.exp(random.normal(0, 0.02)))


def with_outliers(median: float) -> Noise:
    """One call in twenty is interrupted."""

    def noise(random: np.random.Generator, now: float) -> float:
        return float(
            median * np.exp(random.normal(0, 0.02)) + (random.exponential(20) if random.random() < 0.05 else 0)
        )

    return noise


def bimodal(median: float) -> Noise:
    """A third of the calls meets a slower mode of the processor."""

    def noise(random: np.random.Generator, now: float) -> float:
        return float(median * (1.2 if random.random() < 0.35 else 1) * np.exp(random.normal(0, 0.01)))

    return noise


def drifting(median: float) -> Noise:
    """The machine becomes slower by a half within ten seconds, and faster again."""

    def noise(random: np.random.Generator, now: float) -> float:
        return float(median * (1 + 0.25 * np.sin(now * 2 * np.pi / 20)) * np.exp(random.normal(0, 0.02)))

    return noise


NOISES = {"steady": steady, "outliers": with_outliers, "bimodal": bimodal, "drift": drifting}
