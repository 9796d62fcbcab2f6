"""The plan of a street: where the road, the pavements and the house fronts are, in metres."""

from dataclasses import dataclass

from ffnet_deploy.scenes.dice import Dice


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


def plan_street(dice: Dice) -> Street:
    """A street with one to four lanes, straight or bending."""
    lanes = dice.pick((1, 2, 2, 2, 3, 4))
    half_road = lanes * dice.between(1.5, 1.9) + dice.between(0, 1.8)
    end = dice.between(55, 150)
    start = dice.between(14, 32)
    crossing = (start, start + dice.between(6, 11)) if dice.chance(0.35) else None
    zebra = start - 4.5 if crossing else dice.between(7, 18)
    narrowest = half_road + 1.8
    return Street(
        half_road=half_road,
        left_front=-half_road - dice.between(1.8, 5.5),
        right_front=half_road + dice.between(1.8, 5.5),
        end=end,
        lanes=lanes,
        crossing=crossing,
        zebra=zebra if dice.chance(0.45) else None,
        bend=dice.between(-1, 1) * 1.4 * narrowest / (end * end) if dice.chance(0.5) else 0.0,
    )
