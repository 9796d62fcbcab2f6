"""What conversion did: precision asked for and found, sensitivity to quantisation, verification."""

from collections.abc import Mapping
from typing import Any

from ffnet_deploy.report.charts import Bar, BarGroup, Part, Stack, grouped_bars, stacks
from ffnet_deploy.report.data import CandidateResults, ReportData
from ffnet_deploy.report.document import Block, Cell, Chart, Column, Notes, Section, Table, Text
from ffnet_deploy.report.format import percent, points, share, significant
from ffnet_deploy.report.gate import (
    GateOutcome,
    PrecisionFindings,
    RequestedPrecision,
    not_run,
    precision_findings,
    requested_precision,
)

_KINDS = ("fp32", "bf16", "fp16", "fp8", "int8")
_SHOWN = 12
_FOLD_FROM = 12
_MOST_BARS = 20
"""Maximum number of bars; the table has all blocks."""


def precision(data: ReportData) -> Section | None:
    """What manifests say of precision, where any does."""
    asked = [(one, found) for one in data.candidates if (found := requested_precision(one)) is not None]
    checked = [(one, findings) for one in data.candidates for findings in precision_findings(one)]
    blocks: list[Block] = []
    if asked:
        blocks.append(_asked_table(asked))
    if checked:
        blocks.append(_findings_table(checked))
    if rows := [stack for one, findings in checked for stack in _stacks(one, findings)]:
        counts = (f"{row.name}: {', '.join(f'{part.count} {part.text}' for part in row.parts)}" for row in rows)
        blocks.append(
            Chart("chart-precision", "Layers by precision", "; ".join(counts), lambda width: stacks(rows, width))
        )
    for one, findings in checked:
        if findings.violations:
            more = len(findings.violations) - _SHOWN
            rest = (f"{one.name}: {more} more of the kind",) if more > 0 else ()
            blocks.append(Notes((*(f"{one.name}: {v}" for v in findings.violations[:_SHOWN]), *rest), alarming=True))
    return Section("precision", "Precision check", tuple(blocks)) if blocks else None


def _asked_table(asked: list[tuple[CandidateResults, RequestedPrecision]]) -> Table:
    columns = (
        Column("candidate", False),
        Column("asked for", False),
        Column("where not quantised", False),
        Column("quantised convolutions"),
        Column("nodes kept in FP32"),
    )
    rows = tuple(
        (
            Cell(one.name),
            Cell(found.precision.upper()),
            Cell(found.base.upper()),
            Cell(str(found.quantized)),
            Cell(str(found.float32)),
        )
        for one, found in asked
    )
    return Table("What the graphs ask for", columns, rows)


def _findings_table(found: list[tuple[CandidateResults, PrecisionFindings]]) -> Table:
    names = list(dict.fromkeys(name for _, findings in found for name in findings.numbers))
    columns = (Column("candidate", False), Column("basis", False), *map(Column, names), Column("outcome", False))
    rows = []
    for one, findings in found:
        outcome = GateOutcome.FAILS if findings.violations else GateOutcome.HOLDS
        numbers = (Cell(str(findings.numbers.get(name, "\N{EN DASH}"))) for name in names)
        rows.append((Cell(one.name), Cell(findings.basis), *numbers, Cell(outcome.value, outcome=outcome)))
    return Table("What was found in them", columns, tuple(rows))


def _stacks(one: CandidateResults, findings: PrecisionFindings) -> list[Stack]:
    return [
        Stack(
            f"{one.name}: {what}",
            tuple(
                Part(kind if kind in _KINDS else "other", kind.upper(), count)
                for kind, count in sorted(counts.items(), key=_order)
            ),
        )
        for what, counts in findings.counts.items()
        if counts
    ]


def _order(entry: tuple[str, int]) -> int:
    return _KINDS.index(entry[0]) if entry[0] in _KINDS else len(_KINDS)


def sensitivity(data: ReportData) -> Section | None:
    """What searches measured, where a manifest holds one."""
    blocks: list[Block] = []
    for index, one in enumerate(data.candidates):
        search = _search(one)
        if search is not None:
            blocks += [Text(_outcome(one, search)), _noise_chart(index, one, search), _noise_table(one, search)]
    return Section("sensitivity", "Sensitivity to quantisation", tuple(blocks)) if blocks else None


def _search(one: CandidateResults) -> Mapping[str, Any] | None:
    """The search in the candidate's manifest; None where it has none."""
    section: Any = one.manifest
    for name in ("precision", "quantization", "search"):
        section = section.get(name) if isinstance(section, Mapping) else None
    return section if isinstance(section, Mapping) and section.get("sensitivity") else None


def _outcome(one: CandidateResults, search: Mapping[str, Any]) -> str:
    kept = len(search["kept"])
    left = f"{kept} of {len(search['sensitivity'])} blocks are left unquantised" if kept else "every block is quantised"
    ended = "" if search["finished"] else " The search ran out of time: fewer might do."
    if search["drop"] is None:
        changed = f"the logits have {search['sqnr_db']:.1f} dB of signal to noise, without labels to score"
    else:
        fall = points(-search["drop"])
        changed = f"mIoU changes by {fall} points from {percent(search['reference_mIoU'])} on the labels searched with"
    return f"{one.name}: {left}; {changed}, after {search['trials']} trials.{ended}"


def _noises(search: Mapping[str, Any]) -> list[float]:
    """Each block's part of the noise that all blocks add, one by one, percent."""
    powers = [10 ** (-row["sqnr_db"] / 10) for row in search["sensitivity"]]
    return [100 * power / (sum(powers) or 1.0) for power in powers]


def _noise_chart(index: int, one: CandidateResults, search: Mapping[str, Any]) -> Chart:
    rows = list(zip(search["sensitivity"], _noises(search), strict=True))[:_MOST_BARS]
    bars = tuple(
        Bar(index, row["block"].strip("/") + (" *" if row["block"] in search["kept"] else ""), noise, share(noise))
        for row, noise in rows
    )
    alt_text = "; ".join(f"{bar.name}: {bar.text}" for bar in bars)
    most = max(noise for _, noise in rows) or 1.0
    return Chart(
        f"chart-sensitivity-{index}",
        f"Noise of the blocks of {one.name}",
        alt_text,
        lambda width: grouped_bars(
            (BarGroup("each block quantised alone", bars),), most, "part of the noise, %", width
        ),
        "Power of the error in the logits. The noisiest blocks are listed; an asterisk marks those left unquantised.",
    )


def _noise_table(one: CandidateResults, search: Mapping[str, Any]) -> Table:
    columns = (
        Column("block", False),
        Column("part of the noise"),
        Column("logit SQNR, dB"),
        Column("labels changed, %"),
        Column("change of mIoU, points"),
        Column("multiply-adds, %"),
        Column("left unquantised", False),
    )
    rows = tuple(
        (
            Cell(row["block"].strip("/")),
            Cell(share(noise)),
            Cell(f"{row['sqnr_db']:.1f}"),
            Cell(percent(row["disagreement_percent"])),
            Cell(points(None if row["drop"] is None else -row["drop"])),
            Cell(percent(row["macs_percent"])),
            Cell("yes" if row["block"] in search["kept"] else ""),
        )
        for row, noise in zip(search["sensitivity"], _noises(search), strict=True)
    )
    return Table(f"{one.name}: each block quantised alone", columns, rows, folded=True)


def verification(data: ReportData) -> Section | None:
    """The comparisons that manifests hold, where any does."""
    blocks: list[Block] = []
    for one in data.candidates:
        record = (one.manifest or {}).get("verification")
        if isinstance(record, Mapping):
            blocks.extend(_blocks(one, record))
    return Section("verification", "Verification at export", tuple(blocks)) if blocks else None


def _blocks(one: CandidateResults, record: Mapping[str, Any]) -> list[Block]:
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
        out.append(_comparison_table(one, comparisons))
    failures = tuple(str(failure) for failure in record.get("failures") or ())
    if failures:
        out.append(Notes(failures, alarming=True))
    return out


def _comparison_table(one: CandidateResults, comparisons: list[Mapping[str, Any]]) -> Table:
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
