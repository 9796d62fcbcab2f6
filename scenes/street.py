"""The plan of a street: where the road, the pavements and the house fronts are, in metres."""

from dataclasses import dataclass

from scenes.rng import Rng


@dataclass(frozen=True)
class Street:
    """Road edges at x = -half_road and half_road, house fronts at `left_front` < 0 and `right_front` > 0.

    The street ends at z = `end`. A side road, if any, crosses at z in `crossing`; `zebra` is the near edge of a
    zebra crossing, if any. `lanes` counts both directions. `bend` is as for the camera.
    """

    half_road: float
    left_front: float
    right_front: float
    end: float
    lanes: int
    crossing: tuple[float, float] | None
    zebra: float | None
    bend: float

    def front(self, side: int) -> float:
        """The x of the house fronts on the left (side -1) or right (side 1)."""
        return self.left_front if side < 0 else self.right_front


def plan_street(rng: Rng) -> Street:
    """A street with one to four lanes, straight or bending."""
    lanes = rng.pick((1, 2, 2, 2, 3, 4))
    half_road = lanes * rng.between(1.5, 1.9) + rng.between(0, 1.8)
    end = rng.between(55, 150)
    start = rng.between(14, 32)
    crossing = (start, start + rng.between(6, 11)) if rng.chance(0.35) else None
    zebra = start - 4.5 if crossing else rng.between(7, 18)
    narrowest = half_road + 1.8
    return Street(
        half_road=half_road,
        left_front=-half_road - rng.between(1.8, 5.5),
        right_front=half_road + rng.between(1.8, 5.5),
        end=end,
        lanes=lanes,
        crossing=crossing,
        zebra=zebra if rng.chance(0.45) else None,
        bend=rng.between(-1, 1) * 1.4 * narrowest / (end * end) if rng.chance(0.5) else 0.0,
    )
