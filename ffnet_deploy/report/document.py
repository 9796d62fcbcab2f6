"""A report as sections of blocks: what the page and the Markdown are both written from."""

from collections.abc import Mapping
from dataclasses import dataclass

from ffnet_deploy.report.drawing import Draw
from ffnet_deploy.report.gate import GateOutcome
from ffnet_deploy.report.markup import Markup


@dataclass(frozen=True)
class Judgement:
    """The first thing to read: the outcome, and a sentence that says why."""

    outcome: GateOutcome
    sentence: str


@dataclass(frozen=True)
class Conclusion:
    """What follows from the numbers, in sentences; the first one is what to do."""

    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Tile:
    """A number that matters: what it is, the number, and what it refers to."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Tiles:
    """Numbers side by side."""

    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Notes:
    """A list of remarks; `alarming` ones spoil what stands beside them."""

    notes: tuple[str, ...]
    alarming: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: its name and unit.
        numeric: set flush right.
        drawn: pictures that only repeat other columns; left out of the Markdown.
    """

    heading: str
    numeric: bool = True
    drawn: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what it says.
        mark: drawn before the text on the page.
        outcome: colours the text on the page.
    """

    text: str
    mark: Markup | None = None
    outcome: GateOutcome | None = None


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row names the row.

    Attributes:
        caption: what it lists.
        columns: from left to right.
        rows: each as long as `columns`.
        summary_row: whether the last row sums up the others.
        folded: shown on the page after a click; always in print and Markdown.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    summary_row: bool = False
    folded: bool = False


@dataclass(frozen=True)
class Chart:
    """A figure.

    Attributes:
        ident: of the element on the page.
        title: begins the caption.
        alt_text: the same for those who do not see it.
        draw: gives the drawing for a width in pixels.
        note: the rest of the caption.
    """

    ident: str
    title: str
    alt_text: str
    draw: Draw
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """Names and values under a heading; `code` sets the values in a fixed pitch."""

    heading: str
    facts: Mapping[str, str]
    code: bool = False


@dataclass(frozen=True)
class Drawn:
    """Markup for the page, and the table that says the same elsewhere."""

    markup: Markup
    otherwise: Table


Block = Conclusion | Judgement | Tiles | Text | Notes | Table | Chart | Facts | Drawn


@dataclass(frozen=True)
class Section:
    """A part of the report with a heading of its own."""

    ident: str
    heading: str
    blocks: tuple[Block, ...]
