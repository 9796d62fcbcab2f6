"""Where values lie on an axis, and which of them are written beside it."""

import math
from dataclasses import dataclass

from ffnet_deploy.core.errors import OptionError

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_DECADE_STEPS = ((1, 2, 5), (1, 3), (1,))
_LOGARITHMIC_FROM = 6.0
"""Ratio of the ends of a range from which on a logarithmic axis shows it better."""


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic axis.

    Attributes:
        low: value at `start`.
        high: value at `stop`; more than `low`.
        start: coordinate of `low`, in units of the drawing.
        stop: coordinate of `high`; less than `start` for an axis that rises upwards.
        logarithmic: values are positive and spaced by their ratio.
    """

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise OptionError(f"an axis needs two finite ends that rise: got {self.low}, {self.high}")
        if self.logarithmic and self.low <= 0:
            raise OptionError(f"a logarithmic axis begins above 0: got {self.low}")

    def __call__(self, value: float) -> float:
        """The coordinate of `value`; beyond the ends for values outside of them."""
        if self.logarithmic:
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.stop - self.start)

    def ticks(self, most: int) -> list[float]:
        """At most `most` round values between the ends, in rising order; a few more if a log axis has no rounder."""
        return self._log_ticks(most) if self.logarithmic else self._linear_ticks(most)

    def _linear_ticks(self, most: int) -> list[float]:
        rough = (self.high - self.low) / max(most, 1)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(one * power for one in _STEPS if one * power >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]

    def _log_ticks(self, most: int) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found: list[float] = []
        for steps in _DECADE_STEPS:
            values = [step * 10.0**decade for decade in decades for step in steps]
            found = [value for value in values if self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9)]
            if len(found) <= most:
                break
        if len(found) >= 2:
            return found[:: -(-len(found) // most)]
        return self._linear_ticks(most)


def spanning(values: list[float], start: float, stop: float, margin: float = 0.06) -> Scale:
    """The axis from `start` to `stop` that holds `values` with some room; logarithmic where they differ manifold.

    Raises:
        OptionError: there are no values.
    """
    if not values:
        raise OptionError("an axis needs values to show")
    low, high = min(values), max(values)
    if low > 0 and high / low >= _LOGARITHMIC_FROM:
        room = (high / low) ** margin
        return Scale(low / room, high * room, start, stop, logarithmic=True)
    room = (high - low) * margin or abs(high) * 0.05 or 1.0
    return Scale(max(low - room, 0.0) if low >= 0 else low - room, high + room, start, stop)


def tick_text(value: float) -> str:
    """A round value as short as it can be."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")
