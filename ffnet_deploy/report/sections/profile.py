"""Where the time goes: blocks of the network, and how near each is to what the device could do."""

from ffnet_deploy.benchmark.record import Layer, Peaks, Profile
from ffnet_deploy.report.charts.bars import cell_bars
from ffnet_deploy.report.charts.roofline import Block as Bubble
from ffnet_deploy.report.charts.roofline import Roof, roofline
from ffnet_deploy.report.data import ReportData
from ffnet_deploy.report.document import Block, Cell, Chart, Column, Section, Table, Text
from ffnet_deploy.report.format import quantity, share, significant

_NOTHING = Cell("\N{EN DASH}")


def profile(data: ReportData) -> Section | None:
    """Time by block, where any contender was profiled."""
    profiled = [(index, one.name, one.profile) for index, one in enumerate(data.contenders) if one.profile]
    if not profiled:
        return None
    blocks: list[Block] = [
        Text("Profiling costs time itself: compare the blocks, not their sums with the times above.")
    ]
    if len(profiled) > 1:
        blocks.append(_side_by_side(profiled))
    for index, name, found in profiled:
        blocks.append(_table(index, name, found, folded=len(profiled) > 1))
        bubbles = _bubbles(found.blocks)
        if found.peaks is not None and bubbles:
            blocks.append(_roofline_chart(index, name, bubbles, found.peaks))
    return Section("profile", "Where the time goes", tuple(blocks))


def _side_by_side(profiled: list[tuple[int, str, Profile]]) -> Table:
    """Time of each block for all contenders that name it, in the order of the first that does."""
    times = [
        (index, name, {block.name: block.milliseconds for block in found.blocks}) for index, name, found in profiled
    ]
    names = list(dict.fromkeys(block for _, _, own in times for block in own))
    longest = max((ms for _, _, own in times for ms in own.values()), default=0.0) or 1.0
    rows = tuple(
        (
            Cell(block),
            Cell("", cell_bars([(index, own.get(block)) for index, _, own in times], longest)),
            *(Cell(significant(own[block])) if block in own else _NOTHING for _, _, own in times),
        )
        for block in names
    )
    columns = (Column("block", False), Column("", False, drawn=True), *(Column(name) for _, name, _ in times))
    return Table("Time by block, ms", columns, rows)


def _table(index: int, name: str, found: Profile, folded: bool) -> Table:
    longest = max((block.milliseconds for block in found.blocks), default=0.0) or 1.0
    rows = [
        (
            Cell(f"{number} {block.name}"),
            Cell("", cell_bars([(index, block.milliseconds)], longest)),
            Cell(significant(block.milliseconds)),
            Cell(share(block.share)),
            *_work(block),
        )
        for number, block in enumerate(found.blocks, 1)
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
    caption = f"{name}: time by block, mean of {found.runs} calls, {found.tool}{peaks}"
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


def _bubbles(blocks: tuple[Layer, ...]) -> list[Bubble]:
    return [
        Bubble(
            name=block.name,
            number=number,
            intensity=block.flops / block.bytes,
            speed=block.flops / (block.milliseconds / 1e3),
            share=block.share,
        )
        for number, block in enumerate(blocks, 1)
        if block.flops and block.bytes and block.milliseconds > 0
    ]


def _roofline_chart(index: int, name: str, bubbles: list[Bubble], peaks: Peaks) -> Chart:
    told = "; ".join(
        f"{one.name}: {significant(one.intensity)} operations a byte at {quantity(one.speed)}op/s" for one in bubbles
    )
    roof = Roof(peaks.flops, peaks.bytes)
    note = (
        "Numbers are the blocks of the table above; a larger circle takes more time; on the line is as fast as can be."
    )
    return Chart(
        f"chart-roofline-{index}", f"Roofline of {name}", told, lambda w: roofline(bubbles, roof, index, w), note
    )
