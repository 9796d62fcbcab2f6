"""Bars that are divided: how many layers compute in which type."""

from collections.abc import Sequence
from dataclasses import dataclass

from ffnet_deploy.report.charts.drawing import Drawing, fitted, text_width, write
from ffnet_deploy.report.markup import Markup, element

_BAR = 20.0
_ROW = 46.0


@dataclass(frozen=True)
class Part:
    """A piece of a bar: its kind (a class of the page's styles), its name and how many it stands for."""

    kind: str
    text: str
    count: int


@dataclass(frozen=True)
class Stack:
    """A bar and its name."""

    name: str
    parts: tuple[Part, ...]


def stacks(rows: Sequence[Stack], width: int) -> Drawing:
    """Each row as a bar of the whole width, divided by the counts of its parts."""
    content = [_stack(row, number * _ROW, width) for number, row in enumerate(rows)]
    return Drawing(len(rows) * _ROW, content)


def _stack(row: Stack, top: float, width: int) -> list[Markup]:
    whole = sum(part.count for part in row.parts) or 1
    out, x = [write(fitted(row.name, width), 0, top + 12, "strong")], 0.0
    for part in row.parts:
        length = width * part.count / whole
        title = element("title", f"{part.count} {part.text}")
        out.append(element("rect", title, x=x, y=top + 18, width=length, height=_BAR, class_=f"part {part.kind}"))
        text = next((t for t in (f"{part.text} {part.count}", part.text) if text_width(t) < length - 6), None)
        if text:
            out.append(write(text, x + 6, top + 32, f"on-part {part.kind}"))
        x += length
    return out
