"""People: head, hair, torso, arms, legs, now and then a bag or an umbrella's worth of colour."""

from ffnet_deploy.scenes.canvas import Label
from ffnet_deploy.scenes.dice import Colour, Dice, shade
from ffnet_deploy.scenes.stage import Cutout, Stage, box, circle

_SKIN: tuple[Colour, ...] = ((150, 180, 225), (120, 150, 200), (80, 110, 160), (50, 70, 105), (175, 200, 235))
_HAIR: tuple[Colour, ...] = ((25, 25, 30), (40, 60, 90), (90, 140, 180), (130, 130, 130), (30, 50, 110))
_SMALLEST = 0.1  # of the picture size: no person appears less tall


def paint_person(stage: Stage, x: float, z: float) -> None:
    """A standing or walking person, 1.5 to 1.95 m tall, with clothes of any colour."""
    dice = stage.dice
    person = Cutout(stage, x, z, Label.PERSON)
    tall = max(dice.between(1.5, 1.95), _SMALLEST * stage.camera.size / person.scale)
    wide = tall * dice.between(0.115, 0.15)
    coat, skin = dice.any_colour(), dice.near(dice.pick(_SKIN), 12)
    _paint_legs(person, dice, tall, wide)
    _paint_arms(person, dice, tall, wide, shade(coat, 0.85), skin)
    _paint_torso(person, dice, tall, wide, coat)
    _paint_head(person, dice, tall, skin)


def _paint_legs(person: Cutout, dice: Dice, tall: float, wide: float) -> None:
    cloth = dice.near(dice.pick(((60, 50, 45), (110, 80, 60), (50, 50, 55), (120, 140, 150), (90, 90, 95))), 30)
    stride = dice.between(0, 0.11) * tall
    hip, leg = 0.5 * tall, 0.075 * tall
    for side in (-1, 1):
        foot = side * max(stride, 0.045 * tall)
        thigh = side * 0.04 * tall
        tone = shade(cloth, 1.0 if side > 0 else 0.8)
        person.fill(tone, [(foot - leg * 0.8, 0), (foot + leg * 0.8, 0), (thigh + leg, hip), (thigh - leg, hip)])
        person.fill((35, 35, 40), box(foot - leg, 0, foot + leg, 0.04 * tall))


def _paint_arms(person: Cutout, dice: Dice, tall: float, wide: float, coat: Colour, skin: Colour) -> None:
    swing = dice.between(0, 0.06) * tall
    thick = 0.035 * tall
    for side in (-1, 1):
        hand = side * (wide + thick) + dice.pick((-1, 1)) * swing
        shoulder = side * wide * 0.95
        sleeve = [(hand - thick, 0.46 * tall), (hand + thick, 0.46 * tall)]
        person.fill(coat, [*sleeve, (shoulder + thick, 0.8 * tall), (shoulder - thick, 0.8 * tall)])
        person.fill(skin, box(hand - thick * 0.9, 0.42 * tall, hand + thick * 0.9, 0.46 * tall))


def _paint_torso(person: Cutout, dice: Dice, tall: float, wide: float, coat: Colour) -> None:
    hem = dice.pick((0.3, 0.44, 0.46, 0.46)) * tall
    flare = wide * (1.1 if hem < 0.4 * tall else 0.85)
    person.fill(
        coat,
        [
            (-flare, hem),
            (flare, hem),
            (wide, 0.8 * tall),
            (0.4 * wide, 0.84 * tall),
            (-0.4 * wide, 0.84 * tall),
            (-wide, 0.8 * tall),
        ],
    )
    person.fill(shade(coat, 0.8), [(0.35 * flare, hem), (flare, hem), (wide, 0.8 * tall), (0.5 * wide, 0.8 * tall)])
    if dice.chance(0.3):
        person.fill(dice.any_colour(), box(-0.7 * wide, 0.52 * tall, 0.7 * wide, 0.77 * tall))


def _paint_head(person: Cutout, dice: Dice, tall: float, skin: Colour) -> None:
    centre, radius = (0.0, 0.915 * tall), 0.08 * tall
    person.fill(shade(skin, 0.85), box(-0.03 * tall, 0.82 * tall, 0.03 * tall, 0.88 * tall))
    person.fill(dice.near(dice.pick(_HAIR), 15), circle(centre, radius * 1.08, 0.85, 4))
    if dice.chance(0.65):
        person.fill(skin, circle((0, 0.9 * tall), radius * 0.85, 0.8, 4))
