"""Numbers as people read them."""

import math
from collections.abc import Sequence

NOTHING = "\N{EN DASH}"
"""Stands where a value was not measured."""

_MINUS = "\N{MINUS SIGN}"


def percent(value: float | None) -> str:
    """A score in percent with two decimals, without its sign."""
    return NOTHING if value is None else f"{value:.2f}"


def share(value: float | None) -> str:
    """A share in percent; enough decimals that 100 % is said of all and 0 % of nothing only."""
    if value is None:
        return NOTHING
    for digits in (1, 2, 3, 4):
        text = f"{value:.{digits}f}"
        if float(text) not in (0.0, 100.0) or value in (0.0, 100.0):
            return f"{text} %"
    return "> 99.9999 %" if value > 50 else "< 0.0001 %"


def points(value: float | None) -> str:
    """A difference of scores in percentage points, signed, zero without sign."""
    if value is None:
        return NOTHING
    text = f"{abs(value):.2f}"
    if float(text) == 0:
        return text
    return f"+{text}" if value > 0 else f"{_MINUS}{text}"


def significant(value: float, digits: int = 3) -> str:
    """`value` to `digits` significant digits or whole numbers, without an exponent between 1e-4 and 1e6."""
    if value == 0 or not math.isfinite(value):
        return str(value) if value else "0"
    if 1e-4 <= abs(value) < 1e6:
        decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
        return f"{value:.{decimals}f}".replace("-", _MINUS)
    return f"{value:.{digits - 1}e}".replace("-", _MINUS)


def milliseconds(value: float | None) -> str:
    """A time in ms to three significant digits."""
    return NOTHING if value is None else f"{significant(value)} ms"


def interval(low: float, high: float) -> str:
    """Both ends of an interval, in brackets."""
    return f"[{significant(low)}, {significant(high)}]"


def factor(value: float | None) -> str:
    """A ratio."""
    return NOTHING if value is None else f"{significant(value)}\N{MULTIPLICATION SIGN}"


def file_size(count: float | None) -> str:
    """A number of bytes in decimal units."""
    return NOTHING if count is None else f"{quantity(count)}B"


def quantity(value: float | None) -> str:
    """A number with a decimal prefix (k, M, G, T) and a space before it, for a unit to follow."""
    if value is None:
        return NOTHING
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{significant(value / size)} {prefix}"
    return f"{significant(value)} " if value != int(value) else f"{int(value)} "


def seconds(value: float) -> str:
    """A wall time."""
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"


def listed(items: Sequence[str]) -> str:
    """Words with commas and a last "and"."""
    return " and ".join(part for part in (", ".join(items[:-1]), *items[-1:]) if part)
