"""What was verified when each artefact was made: its manifest's comparisons with what it came from."""

from collections.abc import Mapping
from typing import Any

from ffnet_deploy.report.data import Contender, ReportData
from ffnet_deploy.report.document import Block, Cell, Column, Notes, Section, Table, Text
from ffnet_deploy.report.format import points, significant
from ffnet_deploy.report.gate import not_run

_FOLD_FROM = 12


def verification(data: ReportData) -> Section | None:
    """The comparisons that manifests hold, where any does."""
    blocks: list[Block] = []
    for one in data.contenders:
        record = (one.manifest or {}).get("verification")
        if isinstance(record, Mapping):
            blocks.extend(_blocks(one, record))
    return Section("verification", "Verification at export", tuple(blocks)) if blocks else None


def _blocks(one: Contender, record: Mapping[str, Any]) -> list[Block]:
    if not isinstance(record.get("passed"), bool):
        return [Text(f"{one.name}: {not_run(record)}.")]
    text = f"{one.name}: {record.get('candidate', 'it')} against {record.get('reference', 'its source')}"
    scores = record.get("mIoU")
    if isinstance(scores, Mapping):
        change = float(scores["candidate"]) - float(scores["reference"])
        text += f"; mIoU {points(change)} points on {scores.get('images', '?')} images"
    out: list[Block] = [Text(f"{text}.")]
    comparisons = record.get("comparisons") or ()
    if comparisons:
        out.append(_table(one, comparisons))
    failures = tuple(str(failure) for failure in record.get("failures") or ())
    if failures:
        out.append(Notes(failures, alarming=True))
    return out


def _table(one: Contender, comparisons: list[Mapping[str, Any]]) -> Table:
    columns = (
        Column("image", False),
        *map(Column, ("input", "largest error", "relative", "mean error", "same label, %")),
    )
    rows = tuple(
        (
            Cell(str(row["image"])),
            Cell("x".join(map(str, row["size"]))),
            *(Cell(significant(float(row[name]))) for name in ("largest", "relative", "mean")),
            Cell(f"{float(row['agreement']):.4f}"),
        )
        for row in comparisons
    )
    return Table(f"Outputs of {one.name} against its reference", columns, rows, folded=len(rows) > _FOLD_FROM)
