"""Proof of precision: what each artefact was asked to compute in, and what was found in it."""

from ffnet_deploy.report.charts.shares import Part, Stack, stacks
from ffnet_deploy.report.data import Contender, ReportData
from ffnet_deploy.report.document import Block, Cell, Chart, Column, Notes, Section, Table
from ffnet_deploy.report.gate import Outcome
from ffnet_deploy.report.proof import Asked, Proof, asked_of, proofs_of

_KINDS = ("fp32", "bf16", "fp16", "fp8", "int8")
_SHOWN = 12


def precision(data: ReportData) -> Section | None:
    """What manifests say of precision, where any does."""
    asked = [(one, found) for one in data.contenders if (found := asked_of(one)) is not None]
    proofs = [(one, proof) for one in data.contenders for proof in proofs_of(one)]
    blocks: list[Block] = []
    if asked:
        blocks.append(_asked_table(asked))
    if proofs:
        blocks.append(_proof_table(proofs))
    if rows := [stack for one, proof in proofs for stack in _stacks(one, proof)]:
        blocks.append(_chart(rows))
    for one, proof in proofs:
        if proof.violations:
            more = len(proof.violations) - _SHOWN
            rest = (f"{one.name}: {more} more of the kind",) if more > 0 else ()
            blocks.append(Notes((*(f"{one.name}: {v}" for v in proof.violations[:_SHOWN]), *rest), alarming=True))
    return Section("precision", "Proof of precision", tuple(blocks)) if blocks else None


def _asked_table(asked: list[tuple[Contender, Asked]]) -> Table:
    columns = (
        Column("contender", False),
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


def _proof_table(proofs: list[tuple[Contender, Proof]]) -> Table:
    names = list(dict.fromkeys(name for _, proof in proofs for name in proof.numbers))
    columns = (Column("contender", False), Column("rests on", False), *map(Column, names), Column("outcome", False))
    rows = []
    for one, proof in proofs:
        outcome = Outcome.FAILS if proof.violations else Outcome.HOLDS
        numbers = (Cell(str(proof.numbers.get(name, "\N{EN DASH}"))) for name in names)
        rows.append((Cell(one.name), Cell(proof.source), *numbers, Cell(outcome.value, outcome=outcome)))
    return Table("What was found in them", columns, tuple(rows))


def _stacks(one: Contender, proof: Proof) -> list[Stack]:
    return [
        Stack(f"{one.name}: {what}", tuple(_part(kind, count) for kind, count in sorted(counts.items(), key=_order)))
        for what, counts in proof.counts.items()
        if counts
    ]


def _order(entry: tuple[str, int]) -> int:
    return _KINDS.index(entry[0]) if entry[0] in _KINDS else len(_KINDS)


def _part(kind: str, count: int) -> Part:
    return Part(kind if kind in _KINDS else "other", kind.upper(), count)


def _chart(rows: list[Stack]) -> Chart:
    told = "; ".join(f"{row.name}: {', '.join(f'{part.count} {part.text}' for part in row.parts)}" for row in rows)
    return Chart("chart-precision", "Layers by precision", told, lambda width: stacks(rows, width))
