"""What to know first: whether the gate holds, the numbers that decide it, and who took part."""

from collections.abc import Callable
from dataclasses import dataclass

from ffnet_deploy.report.data import CandidateResults, ReportData
from ffnet_deploy.report.document import (
    Block,
    Cell,
    Column,
    Conclusion,
    Judgement,
    Notes,
    Section,
    Table,
    Text,
    Tile,
    Tiles,
)
from ffnet_deploy.report.drawing import candidate_mark
from ffnet_deploy.report.format import factor, file_size, interval, listed, milliseconds, percent, points, share
from ffnet_deploy.report.gate import Check, GateOutcome, checks, miou_drop, verdict
from ffnet_deploy.report.verdict import conclusions, findings, gate_in_words, not_judged


def summary(data: ReportData) -> Section:
    """The first section; there always is one."""
    found = checks(data)
    blocks: list[Block] = []
    if sentences := conclusions(data, found):
        blocks.append(Conclusion(sentences))
    blocks.append(_judgement(data, found))
    if tiles := _tiles(data):
        blocks.append(Tiles(tiles))
    blocks.append(_candidates_table(data, found))
    if standing_out := findings(data):
        blocks.append(Notes(standing_out))
    if found:
        blocks += [Text(gate_in_words(data)), _checks_table(found)]
    if notes := _notes(data):
        blocks.append(Notes(notes))
    return Section("summary", "Summary", tuple(blocks))


def _judgement(data: ReportData, found: tuple[Check, ...]) -> Judgement:
    outcome = verdict(found)
    failing = [check for check in found if check.outcome is GateOutcome.FAILS]
    judged = sum(not check.is_open for check in found)
    rest = f" {open_points}" if (open_points := not_judged(data, found)) else ""
    if outcome is GateOutcome.FAILS:
        names = listed(list(dict.fromkeys(check.candidate for check in failing)))
        return Judgement(outcome, f"{len(failing)} of {judged} checks fail: {names}.{rest}")
    if outcome is GateOutcome.HOLDS:
        return Judgement(outcome, f"{'The one check holds' if judged == 1 else f'All {judged} checks hold'}.{rest}")
    return Judgement(outcome, f"There is nothing to judge by: no check could be made.{rest}")


def _tiles(data: ReportData) -> tuple[Tile, ...]:
    out = []
    if data.first.scores is not None:
        out.append(Tile("mIoU", f"{percent(data.first.scores.mean_iou)} %", data.first.name))
    drops = [(drop, one.name) for one in data.candidates[1:] if (drop := miou_drop(data.first, one)) is not None]
    if drops:
        drop, name = max(drops)
        out.append(Tile("largest change of mIoU", f"{points(-drop)} points", name))
    alike = [(found, one.name) for one in data.candidates if (found := _agreement(one)) is not None]
    if alike:
        agreement, name = min(alike)
        out.append(Tile("same labels at least", share(agreement), f"{name} as {data.first.name}"))
    return (*out, *_speed_tiles(data))


def _speed_tiles(data: ReportData) -> list[Tile]:
    timed = [(one.timing.summary.median, one) for one in data.candidates if one.timing and one.timing.summary]
    if not timed:
        return []
    median, fastest = min(timed, key=lambda entry: entry[0])
    out = [Tile("shortest median", milliseconds(median), fastest.name)]
    ratio = fastest.timing.ratio if fastest.timing else None
    if ratio is not None:
        spread = f", 95 % {interval(ratio.interval.low, ratio.interval.high)}" if ratio.interval else ""
        out.append(Tile("of the time", factor(ratio.value), f"of {ratio.against}{spread}: {ratio.verdict.value}"))
    return out


def _agreement(candidate: CandidateResults) -> float | None:
    return candidate.accuracy.agreement if candidate.accuracy else None


@dataclass(frozen=True)
class _Field:
    """A column of the table of candidates: its heading, and its text for each; empty where it says nothing."""

    heading: str
    text: Callable[[CandidateResults], str]
    numeric: bool = True


def _candidates_table(data: ReportData, found: tuple[Check, ...]) -> Table:
    fields = [field for field in _fields(data) if any(field.text(one) for one in data.candidates)]
    columns = [Column("candidate", False), Column("gate", False)]
    columns += [Column(field.heading, field.numeric) for field in fields]
    rows = []
    for index, one in enumerate(data.candidates):
        outcome = verdict(tuple(check for check in found if check.candidate == one.name))
        cells = [Cell(field.text(one) or "\N{EN DASH}") for field in fields]
        judged = (
            Cell(outcome.value, outcome=outcome) if index or outcome is not GateOutcome.UNKNOWN else Cell("reference")
        )
        rows.append((Cell(one.name, candidate_mark(index)), judged, *cells))
    caption = "Candidates; the first is what the others are compared with"
    return Table(caption, tuple(columns), tuple(rows))


def _fields(data: ReportData) -> list[_Field]:
    drops = {one.name: miou_drop(data.first, one) for one in data.candidates if one is not data.first}
    changes = {name: points(-drop) for name, drop in drops.items() if drop is not None}
    return [
        _Field("mIoU, %", lambda one: percent(one.scores.mean_iou) if one.scores else ""),
        _Field("change, points", lambda one: changes.get(one.name, "")),
        _Field("95 % interval", _change_interval),
        _Field("same labels", lambda one: share(_agreement(one)) if _agreement(one) is not None else ""),
        _Field("median", lambda one: _time(one, "median")),
        _Field("p99", lambda one: _time(one, "p99")),
        _Field("of the time", lambda one: factor(one.timing.ratio.value) if one.timing and one.timing.ratio else ""),
        _Field("file", lambda one: file_size(one.size) if one.size else ""),
        _Field("precision", lambda one: one.precision.upper(), False),
        _Field("engine", lambda one: one.engine, False),
    ]


def _change_interval(one: CandidateResults) -> str:
    difference = one.accuracy.difference if one.accuracy else None
    return "" if difference is None else f"{points(difference.interval[0])} to {points(difference.interval[1])}"


def _time(one: CandidateResults, name: str) -> str:
    return milliseconds(getattr(one.timing.summary, name)) if one.timing and one.timing.summary else ""


def _checks_table(found: tuple[Check, ...]) -> Table:
    columns = (Column("candidate", False), Column("asked", False), Column("found", False), Column("outcome", False))
    rows = tuple(
        (Cell(check.candidate), Cell(check.asked), Cell(check.found), Cell(check.outcome.value, outcome=check.outcome))
        for check in found
    )
    return Table("What the gate asks", columns, rows)


def _notes(data: ReportData) -> tuple[str, ...]:
    """Remarks, each once, with the names of those it is about unless it is about all."""
    said: dict[str, list[str]] = {}
    for one in data.candidates:
        for note in dict.fromkeys((*one.notes, *(one.accuracy.notes if one.accuracy else ()))):
            said.setdefault(note, []).append(one.name)
    everyone = len(data.candidates)
    own = (note if len(names) == everyone else f"{listed(names)}: {note}" for note, names in said.items())
    return (*data.notes, *own)
