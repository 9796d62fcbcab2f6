"""Small marks in running text: a contender's shape and colour, a class's colour."""

from ffnet_deploy.report.charts.drawing import marker
from ffnet_deploy.report.markup import Markup, element

_SIDE = 14


def contender_mark(index: int) -> Markup:
    """The mark of the contender of that number, as in the figures."""
    return _inline(marker(index, _SIDE / 2, _SIDE / 2))


def swatch(colour: tuple[int, int, int]) -> Markup:
    """A square of the RGB `colour`."""
    fill = "#" + "".join(f"{part:02x}" for part in colour)
    return _inline(element("rect", x=1, y=1, width=_SIDE - 2, height=_SIDE - 2, rx=2, fill=fill, class_="swatch"))


def _inline(content: Markup) -> Markup:
    box = f"0 0 {_SIDE} {_SIDE}"
    return element("svg", content, class_="key", viewBox=box, width=_SIDE, height=_SIDE, aria_hidden="true")
