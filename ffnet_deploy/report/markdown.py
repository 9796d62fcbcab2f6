"""The report as Markdown: the same sections, tables and numbers, figures in words."""

import re
from collections.abc import Iterable

from ffnet_deploy.artifacts.outputs import WRITTEN_BY
from ffnet_deploy.report.data import ReportData
from ffnet_deploy.report.document import (
    Block,
    Chart,
    Conclusion,
    Drawn,
    Facts,
    Judgement,
    Notes,
    Table,
    Text,
    Tiles,
)
from ffnet_deploy.report.markup import plain
from ffnet_deploy.report.sections.contents import sections

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")


def markdown(data: ReportData) -> str:
    """The whole report as GitHub-flavoured Markdown."""
    blocks = (
        text
        for part in sections(data)
        for text in (f"## {_text(part.heading)}", *(_block(block) for block in part.blocks))
    )
    parts = [f"# {_text(data.title)}", *blocks]
    return "\n\n".join([*parts, f"<!-- {WRITTEN_BY} -->"]) + "\n"


def _text(text: str) -> str:
    """`text` on one line, with nothing that Markdown would take for its own."""
    return _SPECIAL.sub(r"\\\1", " ".join(plain(text).split()))


def _block(block: Block) -> str:
    match block:
        case Conclusion():
            first, *rest = (_text(sentence) for sentence in block.sentences)
            return "\n\n".join([f"**{first}**", *rest])
        case Judgement():
            return f"**Gate: {_text(block.outcome.value)}.** {_text(block.sentence)}"
        case Tiles():
            return _bullets(f"{tile.label}: {tile.value} ({tile.note})" for tile in block.tiles)
        case Text():
            return _text(block.text)
        case Notes():
            return _bullets(block.notes)
        case Table():
            return _table(block)
        case Chart():
            return f"*{_text(block.title)}.* {_text(block.alt_text)}"
        case Facts():
            entries = _bullets(f"{name}: {value}" for name, value in block.facts.items())
            return f"### {_text(block.heading)}\n\n{entries}"
        case Drawn():
            return _table(block.otherwise)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_text(line)}" for line in lines)


def _table(block: Table) -> str:
    kept = [index for index, column in enumerate(block.columns) if not column.drawn]
    headings = [_text(block.columns[index].heading) for index in kept]
    rules = ["---:" if block.columns[index].numeric else "---" for index in kept]
    rows = [[_text(row[index].text) for index in kept] for row in block.rows]
    lines = [f"| {' | '.join(cells)} |" for cells in (headings, rules, *rows)]
    return "\n".join([f"**{_text(block.caption)}**", "", *lines])
