"""The report as one HTML page that needs nothing else: no network, no library, and for the figures no script."""

import base64
import hashlib
from functools import cache
from importlib import resources

from ffnet_deploy.artifacts.outputs import WRITTEN_BY
from ffnet_deploy.report.data import ReportData
from ffnet_deploy.report.document import (
    Block,
    Cell,
    Chart,
    Column,
    Conclusion,
    Drawn,
    Facts,
    Judgement,
    Notes,
    Section,
    Table,
    Text,
    Tiles,
)
from ffnet_deploy.report.drawing import candidate_mark, figure
from ffnet_deploy.report.gate import GateOutcome
from ffnet_deploy.report.markup import Content, Markup, element, join
from ffnet_deploy.report.sections.contents import sections

_SYMBOLS = {GateOutcome.HOLDS: "\N{CHECK MARK}", GateOutcome.FAILS: "\N{MULTIPLICATION X}", GateOutcome.UNKNOWN: "?"}
_HEADLINES = {
    GateOutcome.HOLDS: "Holds the gate.",
    GateOutcome.FAILS: "Does not hold the gate.",
    GateOutcome.UNKNOWN: "Not judged.",
}


def page(data: ReportData) -> str:
    """The whole document, as text to be stored in UTF-8."""
    parts = sections(data)
    style, script = _resource("page.css"), _resource("page.js")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", data.title),
        element("link", rel="icon", href="data:,"),
        element("style", Markup(style)),
    )
    candidates = (element("li", candidate_mark(index), one.name) for index, one in enumerate(data.candidates))
    links = (element("li", element("a", part.heading, href=f"#{part.ident}")) for part in parts)
    navigation = element("nav", element("ul", links), aria_label="Sections")
    body = element(
        "body",
        element("a", "Skip to the summary", href="#summary", class_="skip"),
        element("header", element("h1", data.title), element("ul", candidates, class_="candidates")),
        element("div", navigation, element("main", map(_section, parts), id="main"), class_="columns"),
        element("footer", element("p", f"{WRITTEN_BY}, {data.created}. This file needs nothing else.")),
        element("script", Markup(script)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


@cache
def _resource(name: str) -> str:
    return (resources.files("ffnet_deploy.report") / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """A policy that lets this style and this script alone run, and loads nothing from anywhere."""
    allowed = f"style-src {_hash(style)}; script-src {_hash(script)}; img-src data:"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _section(part: Section) -> Markup:
    heading = element("h2", part.heading, id=f"{part.ident}-heading")
    blocks = (_block(block, f"{part.ident}-{number}") for number, block in enumerate(part.blocks))
    return element("section", heading, blocks, id=part.ident, aria_labelledby=f"{part.ident}-heading")


def _block(block: Block, ident: str) -> Markup:
    match block:
        case Conclusion():
            first, *rest = block.sentences
            sentences = (element("p", sentence) for sentence in rest)
            return element("div", element("p", first, class_="lead"), sentences, class_="conclusion")
        case Judgement():
            symbol = element("span", _SYMBOLS[block.outcome], class_="symbol", aria_hidden="true")
            words = element("p", element("strong", _HEADLINES[block.outcome]), " ", block.sentence)
            return element("div", symbol, words, class_=f"judgement {_class(block.outcome)}")
        case Tiles():
            return _tiles(block)
        case Text():
            return element("p", block.text)
        case Notes():
            items = (element("li", note) for note in block.notes)
            return element("ul", items, class_="notes alarming" if block.alarming else "notes")
        case Table():
            return _table(block, ident)
        case Chart():
            return figure(block.ident, block.title, block.alt_text, block.draw, block.note)
        case Facts():
            return _facts(block)
        case Drawn():
            return block.markup


def _class(outcome: GateOutcome) -> str:
    return outcome.name.lower()


def _tiles(block: Tiles) -> Markup:
    tiles = (
        element("div", element("dt", tile.label), element("dd", tile.value, element("small", tile.note)))
        for tile in block.tiles
    )
    return element("dl", tiles, class_="tiles")


def _table(block: Table, ident: str) -> Markup:
    columns = (
        element("td", class_="drawn")
        if column.drawn
        else element("th", column.heading, scope="col", class_="number" if column.numeric else None)
        for column in block.columns
    )
    headings = element("tr", columns)
    rows = [_row(row, block.columns) for row in block.rows]
    foot = element("tfoot", rows.pop()) if block.summary_row else None
    caption = element("caption", element("span", block.caption), id=f"{ident}-caption")
    table = element("table", caption, element("thead", headings), element("tbody", rows), foot)
    # wide tables scroll in a region of their own, which the keyboard must reach
    region = element("div", table, class_="scroll", role="region", tabindex="0", aria_labelledby=f"{ident}-caption")
    return element("details", element("summary", block.caption), region) if block.folded else region


def _row(row: tuple[Cell, ...], columns: tuple[Column, ...]) -> Markup:
    name, *values = row
    cells = (
        element("td", _content(cell), class_="drawn" if column.drawn else "number" if column.numeric else None)
        for cell, column in zip(values, columns[1:], strict=True)
    )
    return element("tr", element("th", _content(name), scope="row"), cells)


def _content(cell: Cell) -> Content:
    if cell.outcome is None:
        return [cell.mark, cell.text]
    symbol = element("span", _SYMBOLS[cell.outcome], aria_hidden="true")
    return element("span", symbol, " ", cell.text, class_=f"outcome {_class(cell.outcome)}")


def _facts(block: Facts) -> Markup:
    entries = (
        element("div", element("dt", name), element("dd", element("code", value) if block.code else value))
        for name, value in block.facts.items()
    )
    return join(element("h3", block.heading), element("dl", entries, class_="facts code" if block.code else "facts"))
