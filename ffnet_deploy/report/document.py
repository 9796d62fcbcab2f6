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
        heading: Name and unit.
        numeric: Whether its cells are set flush right.
        drawn: Whether it holds pictures that only repeat other columns; those are left out of the Markdown.
    """

    heading: str
    numeric: bool = True
    drawn: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What it says.
        mark: Mark drawn before the text on the page.
        outcome: Outcome that colours the text on the page.
    """

    text: str
    mark: Markup | None = None
    outcome: GateOutcome | None = None


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row names the row.

    Attributes:
        caption: What it lists.
        columns: The columns from left to right.
        rows: The rows, each as long as `columns`.
        summary_row: Whether the last row sums up the others.
        folded: Whether it is shown on the page only after a click; it always is in print and Markdown.
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
        ident: Identifier of the element on the page.
        title: Beginning of the caption.
        alt_text: The same for those who do not see it.
        draw: Draws the chart for a width in pixels.
        note: The rest of the caption.
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
