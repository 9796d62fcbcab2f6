"""People: head, hair, torso, arms, legs, now and then a bag or an umbrella's worth of colour."""

from scenes.canvas import Label
from scenes.render_context import Cutout, RenderContext, box, circle
from scenes.rng import Colour, Rng, shade

_SKIN: tuple[Colour, ...] = ((150, 180, 225), (120, 150, 200), (80, 110, 160), (50, 70, 105), (175, 200, 235))
_HAIR: tuple[Colour, ...] = ((25, 25, 30), (40, 60, 90), (90, 140, 180), (130, 130, 130), (30, 50, 110))
_SMALLEST = 0.1  # of the picture size: no person appears less tall


def paint_person(context: RenderContext, x: float, z: float) -> None:
    """A standing or walking person, 1.5 to 1.95 m tall, with clothes of any colour."""
    rng = context.rng
    person = Cutout(context, x, z, Label.PERSON)
    tall = max(rng.between(1.5, 1.95), _SMALLEST * context.camera.size / person.scale)
    wide = tall * rng.between(0.115, 0.15)
    coat, skin = rng.any_colour(), rng.near(rng.pick(_SKIN), 12)
    _paint_legs(person, rng, tall, wide)
    _paint_arms(person, rng, tall, wide, shade(coat, 0.85), skin)
    _paint_torso(person, rng, tall, wide, coat)
    _paint_head(person, rng, tall, skin)


def _paint_legs(person: Cutout, rng: Rng, tall: float, wide: float) -> None:
    cloth = rng.near(rng.pick(((60, 50, 45), (110, 80, 60), (50, 50, 55), (120, 140, 150), (90, 90, 95))), 30)
    stride = rng.between(0, 0.11) * tall
    hip, leg = 0.5 * tall, 0.075 * tall
    for side in (-1, 1):
        foot = side * max(stride, 0.045 * tall)
        thigh = side * 0.04 * tall
        tone = shade(cloth, 1.0 if side > 0 else 0.8)
        person.fill(tone, [(foot - leg * 0.8, 0), (foot + leg * 0.8, 0), (thigh + leg, hip), (thigh - leg, hip)])
        person.fill((35, 35, 40), box(foot - leg, 0, foot + leg, 0.04 * tall))


def _paint_arms(person: Cutout, rng: Rng, tall: float, wide: float, coat: Colour, skin: Colour) -> None:
    swing = rng.between(0, 0.06) * tall
    thick = 0.035 * tall
    for side in (-1, 1):
        hand = side * (wide + thick) + rng.pick((-1, 1)) * swing
        shoulder = side * wide * 0.95
        sleeve = [(hand - thick, 0.46 * tall), (hand + thick, 0.46 * tall)]
        person.fill(coat, [*sleeve, (shoulder + thick, 0.8 * tall), (shoulder - thick, 0.8 * tall)])
        person.fill(skin, box(hand - thick * 0.9, 0.42 * tall, hand + thick * 0.9, 0.46 * tall))


def _paint_torso(person: Cutout, rng: Rng, tall: float, wide: float, coat: Colour) -> None:
    hem = rng.pick((0.3, 0.44, 0.46, 0.46)) * tall
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
    if rng.chance(0.3):
        person.fill(rng.any_colour(), box(-0.7 * wide, 0.52 * tall, 0.7 * wide, 0.77 * tall))


def _paint_head(person: Cutout, rng: Rng, tall: float, skin: Colour) -> None:
    centre, radius = (0.0, 0.915 * tall), 0.08 * tall
    person.fill(shade(skin, 0.85), box(-0.03 * tall, 0.82 * tall, 0.03 * tall, 0.88 * tall))
    person.fill(rng.near(rng.pick(_HAIR), 15), circle(centre, radius * 1.08, 0.85, 4))
    if rng.chance(0.65):
        person.fill(skin, circle((0, 0.9 * tall), radius * 0.85, 0.8, 4))
