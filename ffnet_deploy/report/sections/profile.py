"""Where the time goes: blocks of the network, and how near each is to what the device could do."""

from collections.abc import Mapping
from dataclasses import dataclass

from ffnet_deploy.benchmark.record import Layer, Peaks, Profile
from ffnet_deploy.report.charts.bars import cell_bars
from ffnet_deploy.report.charts.roofline import Block as Bubble
from ffnet_deploy.report.charts.roofline import Roof, roofline
from ffnet_deploy.report.data import ReportData
from ffnet_deploy.report.document import Block, Cell, Chart, Column, Section, Table, Text
from ffnet_deploy.report.format import quantity, share, significant

_NOTHING = Cell("\N{EN DASH}")


@dataclass(frozen=True)
class _Profiled:
    """A contender with its profile."""

    index: int
    name: str
    profile: Profile


def profile(data: ReportData) -> Section | None:
    """Time by block, where any contender was profiled."""
    profiled = [_Profiled(index, one.name, one.profile) for index, one in enumerate(data.contenders) if one.profile]
    if not profiled:
        return None
    names = dict.fromkeys(block.name for one in profiled for block in one.profile.blocks)
    numbers = {name: number for number, name in enumerate(names, 1)}
    remark = "Profiling costs time itself: compare the blocks, not their sums with the times above."
    blocks: list[Block] = [Text(remark)]
    if len(profiled) > 1:
        blocks.append(_side_by_side(profiled, numbers))
    for one in profiled:
        blocks.append(_table(one, numbers, folded=len(profiled) > 1))
        bubbles = _bubbles(one.profile.blocks, numbers)
        if one.profile.peaks is not None and bubbles:
            blocks.append(_roofline_chart(one, bubbles, one.profile.peaks))
    return Section("profile", "Where the time goes", tuple(blocks))


def _side_by_side(profiled: list[_Profiled], numbers: Mapping[str, int]) -> Table:
    """Time of each block for all contenders that name it."""
    times = [(one.index, {block.name: block.milliseconds for block in one.profile.blocks}) for one in profiled]
    longest = max((ms for _, own in times for ms in own.values()), default=0.0) or 1.0
    rows = tuple(
        (
            Cell(f"{number} {block}"),
            Cell("", cell_bars([(index, own.get(block)) for index, own in times], longest)),
            *(Cell(significant(own[block])) if block in own else _NOTHING for _, own in times),
        )
        for block, number in numbers.items()
    )
    columns = (Column("block", False), Column("", False, drawn=True), *(Column(one.name) for one in profiled))
    return Table("Time by block, ms", columns, rows)


def _table(one: _Profiled, numbers: Mapping[str, int], folded: bool) -> Table:
    found = one.profile
    longest = max((block.milliseconds for block in found.blocks), default=0.0) or 1.0
    rows = [
        (
            Cell(f"{numbers[block.name]} {block.name}"),
            Cell("", cell_bars([(one.index, block.milliseconds)], longest)),
            Cell(significant(block.milliseconds)),
            Cell(share(block.share)),
            *_work(block),
        )
        for block in found.blocks
    ]
    total = sum(block.milliseconds for block in found.blocks)
    rows.append((Cell("sum"), Cell(""), Cell(significant(total)), *[Cell("")] * 5))
    columns = (
        Column("block", False),
        Column("", False, drawn=True),
        *map(Column, ("ms", "share", "operations", "bytes", "of the limit")),
        Column("limited by", False),
    )
    peaks = f"; limits: {_peaks(found.peaks)}" if found.peaks else ""
    caption = f"{one.name}: time by block, mean of {found.runs} calls, {found.tool}{peaks}"
    return Table(caption, columns, tuple(rows), summary_row=True, folded=folded)


def _peaks(peaks: Peaks) -> str:
    return f"{quantity(peaks.flops)}op/s and {quantity(peaks.bytes)}B/s ({peaks.source})"


def _work(block: Layer) -> tuple[Cell, ...]:
    return (
        Cell(quantity(block.flops).strip()) if block.flops is not None else _NOTHING,
        Cell(quantity(block.bytes).strip()) if block.bytes is not None else _NOTHING,
        Cell(share(block.of_limit)) if block.of_limit is not None else _NOTHING,
        Cell(block.bound) if block.bound else _NOTHING,
    )


def _bubbles(blocks: tuple[Layer, ...], numbers: Mapping[str, int]) -> list[Bubble]:
    return [
        Bubble(
            name=block.name,
            number=numbers[block.name],
            intensity=block.flops / block.bytes,
            speed=block.flops / (block.milliseconds / 1e3),
            share=block.share,
        )
        for block in blocks
        if block.flops and block.bytes and block.milliseconds > 0
    ]


def _roofline_chart(one: _Profiled, bubbles: list[Bubble], peaks: Peaks) -> Chart:
    told = "; ".join(
        f"{bubble.name}: {significant(bubble.intensity)} operations a byte at {quantity(bubble.speed)}op/s"
        for bubble in bubbles
    )
    roof = Roof(peaks.flops, peaks.bytes)
    note = "Numbers are the blocks as in the tables; a larger circle takes more time; on the line is as fast as can be."
    return Chart(
        f"chart-roofline-{one.index}",
        f"Roofline of {one.name}",
        told,
        lambda width: roofline(bubbles, roof, one.index, width),
        note,
    )
