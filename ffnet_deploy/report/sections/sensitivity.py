"""Where quantisation hurts: what each block alone costs, and which ones a search left out."""

from collections.abc import Mapping
from typing import Any

from ffnet_deploy.report.charts.bars import Bar, Group, grouped_bars
from ffnet_deploy.report.data import Contender, ReportData
from ffnet_deploy.report.document import Block, Cell, Chart, Column, Section, Table, Text
from ffnet_deploy.report.format import percent, points, share

_SHOWN = 20
"""Bars at most; the table has all blocks."""


def sensitivity(data: ReportData) -> Section | None:
    """What searches measured, where a manifest holds one."""
    blocks: list[Block] = []
    for index, one in enumerate(data.contenders):
        search = _search(one)
        if search is not None:
            blocks += [Text(_outcome(one, search)), _chart(index, one, search), _table(one, search)]
    return Section("sensitivity", "Sensitivity to quantisation", tuple(blocks)) if blocks else None


def _search(one: Contender) -> Mapping[str, Any] | None:
    """The search in the contender's manifest; None where it has none."""
    section: Any = one.manifest
    for name in ("precision", "quantization", "search"):
        section = section.get(name) if isinstance(section, Mapping) else None
    return section if isinstance(section, Mapping) and section.get("sensitivity") else None


def _outcome(one: Contender, search: Mapping[str, Any]) -> str:
    kept = len(search["kept"])
    left = f"{kept} of {len(search['sensitivity'])} blocks are left unquantised" if kept else "every block is quantised"
    ended = "" if search["finished"] else " The search ran out of time: fewer might do."
    return (
        f"{one.name}: {left}; mIoU changes by {points(-search['drop'])} points from "
        f"{percent(search['reference_mIoU'])} on the labels that were searched with, after "
        f"{search['trials']} trials.{ended}"
    )


def _noises(search: Mapping[str, Any]) -> list[float]:
    """Each block's part of the noise that all blocks add, one by one, percent."""
    powers = [10 ** (-row["sqnr_db"] / 10) for row in search["sensitivity"]]
    return [100 * power / (sum(powers) or 1.0) for power in powers]


def _chart(index: int, one: Contender, search: Mapping[str, Any]) -> Chart:
    rows = list(zip(search["sensitivity"], _noises(search), strict=True))[:_SHOWN]
    bars = tuple(Bar(index, _name(row, search), noise, share(noise)) for row, noise in rows)
    told = "; ".join(f"{bar.name}: {bar.text}" for bar in bars)
    most = max(noise for _, noise in rows) or 1.0
    return Chart(
        f"chart-sensitivity-{index}",
        f"Noise of the blocks of {one.name}",
        told,
        lambda width: grouped_bars((Group("each block quantised alone", bars),), most, "part of the noise, %", width),
        "Power of the error in the logits. The noisiest blocks are listed; an asterisk marks those left unquantised.",
    )


def _name(row: Mapping[str, Any], search: Mapping[str, Any]) -> str:
    return str(row["block"]).strip("/") + (" *" if row["block"] in search["kept"] else "")


def _table(one: Contender, search: Mapping[str, Any]) -> Table:
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
