"""Random numbers that are the same on every machine, from the raw 64-bit stream of Philox."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.errors import OptionError

T = TypeVar("T")
Colour = tuple[int, int, int]

SEED_LIMIT = 2**64
_BATCH = 1024


class Rng:
    """A stream of random choices fixed by `seed` (0 .. 2**64 - 1).

    Only the raw words of the bit generator are used, which numpy keeps stable between versions.
    """

    def __init__(self, seed: int) -> None:
        if not 0 <= seed < SEED_LIMIT:
            raise OptionError(f"scene seed {seed}: expected 0..{SEED_LIMIT - 1}")
        self._bits = np.random.Philox(key=seed)
        self._pool: list[float] = []

    def _unit(self) -> float:
        if not self._pool:
            words = self._bits.random_raw(_BATCH)
            self._pool = ((words >> np.uint64(11)) * 2.0**-53).tolist()
        return self._pool.pop()

    def between(self, low: float, high: float) -> float:
        """A number in [low, high), all equally likely."""
        return low + (high - low) * self._unit()

    def several(self, low: float, high: float, count: int) -> NDArray[np.float64]:
        """`count` numbers in [low, high)."""
        words = self._bits.random_raw(count)
        parts: NDArray[np.float64] = (words >> np.uint64(11)) * 2.0**-53
        return low + (high - low) * parts

    def whole(self, low: int, high: int) -> int:
        """A whole number in low..high, both included."""
        return low + int(self._unit() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._unit() < probability

    def pick(self, choices: Sequence[T]) -> T:
        """One of `choices`, all equally likely."""
        return choices[int(self._unit() * len(choices))]

    def near(self, colour: Colour, spread: int) -> Colour:
        """A BGR colour whose channels differ from `colour` by a common and an own step, of at most `spread` in all."""
        common = self.between(-0.7, 0.7) * spread
        blue, green, red = (int(value + common + self.between(-0.3, 0.3) * spread) for value in colour)
        return clip(blue), clip(green), clip(red)

    def any_colour(self) -> Colour:
        """A BGR colour with channels 20..235."""
        return self.whole(20, 235), self.whole(20, 235), self.whole(20, 235)

    def bytes(self, *shape: int) -> NDArray[np.uint8]:
        """Uniform noise of the given shape, values 0..255."""
        count = int(np.prod(shape))
        words = self._bits.random_raw(-(-count // 8)).astype("<u8")
        return words.view(np.uint8)[:count].reshape(shape)


def clip(value: int) -> int:
    """The nearest value in 0..255."""
    return min(max(value, 0), 255)


def shade(colour: Colour, factor: float) -> Colour:
    """A BGR colour made darker (factor below 1) or lighter (above 1)."""
    blue, green, red = colour
    return clip(int(blue * factor)), clip(int(green * factor)), clip(int(red * factor))


def blend(first: Colour, second: Colour, part: float) -> Colour:
    """The BGR colour that lies the given part (0..1) of the way from `first` to `second`."""
    blue, green, red = (clip(int(a + (b - a) * part)) for a, b in zip(first, second, strict=True))
    return blue, green, red
