"""Time of day and weather: the colours of sky and light, where shadows fall, how far one sees."""

from dataclasses import dataclass

from scenes.rng import Colour, Rng


@dataclass(frozen=True)
class Lighting:
    """How a scene is lit.

    Colours are BGR; `gain` scales the channels of the finished picture; `facing` is the brightness of surfaces that
    look left, towards the camera, and right; shadows have a strength 0..1 and a direction in metres of x and z per
    metre of height; `fog_depth` is the distance in metres at which half of the light is the fog's; `lit` is the part
    of the windows with light inside.
    """

    sky_top: Colour
    sky_bottom: Colour
    clouds: float
    cloud: Colour
    gain: tuple[float, float, float]
    facing: tuple[float, float, float]
    shadow: float
    shadow_direction: tuple[float, float]
    fog_depth: float
    lit: float


@dataclass(frozen=True)
class _Hour:
    """One time of day, before chance has touched it."""

    sky_top: Colour
    sky_bottom: Colour
    cloud: Colour
    gain: tuple[float, float, float]
    shadow: float
    lit: float


_HOURS = (
    _Hour((215, 150, 80), (240, 220, 190), (250, 248, 245), (1.0, 1.0, 1.0), 0.5, 0.03),
    _Hour((190, 120, 50), (225, 205, 175), (240, 240, 240), (1.02, 1.03, 1.04), 0.55, 0.03),
    _Hour((185, 180, 172), (215, 213, 208), (160, 158, 155), (1.03, 1.0, 0.96), 0.12, 0.1),
    _Hour((150, 140, 130), (180, 175, 168), (110, 108, 105), (0.97, 0.93, 0.89), 0.08, 0.2),
    _Hour((170, 130, 105), (130, 185, 240), (150, 170, 225), (0.78, 0.95, 1.12), 0.45, 0.15),
    _Hour((120, 70, 50), (130, 130, 190), (90, 80, 110), (0.84, 0.78, 0.78), 0.1, 0.4),
)


def choose_lighting(rng: Rng) -> Lighting:
    """A time of day, weather and light direction."""
    hour = rng.pick(_HOURS)
    exposure = rng.between(0.88, 1.18)
    blue, green, red = (value * exposure * rng.between(0.95, 1.05) for value in hour.gain)
    sun = rng.between(-1, 1)
    return Lighting(
        sky_top=rng.near(hour.sky_top, 25),
        sky_bottom=rng.near(hour.sky_bottom, 15),
        clouds=rng.between(-0.2, 1),
        cloud=rng.near(hour.cloud, 12),
        gain=(blue, green, red),
        facing=(0.9 - hour.shadow * 0.5 * sun, rng.between(0.7, 1.05), 0.9 + hour.shadow * 0.5 * sun),
        shadow=hour.shadow * rng.between(0.7, 1.1),
        shadow_direction=(sun * rng.between(0.3, 1.1), rng.between(-0.4, 0.5)),
        fog_depth=rng.between(35, 90) if rng.chance(0.2) else rng.between(150, 700),
        lit=hour.lit * rng.between(0.3, 1.3),
    )
