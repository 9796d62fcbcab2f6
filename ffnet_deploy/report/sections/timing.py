"""How fast: distributions, ratios, the sweep, and where the time goes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain

from ffnet_deploy.benchmark.record import (
    BenchRun,
    LayerProfile,
    Peaks,
    ProfileRow,
    Ratio,
    Summary,
    TimingResult,
)
from ffnet_deploy.report.charts import (
    Curve,
    CurvePoint,
    Roof,
    RooflineBlock,
    ScatterPoint,
    cell_bars,
    curves,
    roofline,
    scatter,
)
from ffnet_deploy.report.data import CandidateResults, ReportData
from ffnet_deploy.report.distributions import RatioRow, Times, histograms, ratio_chart
from ffnet_deploy.report.document import Block, Cell, Chart, Column, Facts, Notes, Section, Table, Text
from ffnet_deploy.report.drawing import candidate_mark
from ffnet_deploy.report.format import factor, interval, milliseconds, percent, quantity, share, significant


@dataclass(frozen=True)
class _Timed:
    index: int
    one: CandidateResults
    measurement: TimingResult
    summary: Summary


def trade_off(data: ReportData) -> Section | None:
    """Accuracy against time, where at least two candidates have both."""
    both = [entry for entry in _timed(data) if entry.one.scores is not None]
    if len(both) < 2:
        return None
    points = [_point(entry) for entry in both]
    alt_text = "; ".join(f"{p.name}: {percent(p.y)} % mIoU at {milliseconds(p.x)}" for p in points)
    chart = Chart(
        "chart-trade-off",
        "mIoU against median time",
        alt_text,
        lambda width: scatter(points, "median time of a call, ms", "mIoU, %", width),
        "Whiskers are the 95 % interval of the median.",
    )
    return Section("trade-off", "Accuracy against latency", (chart,))


def _point(entry: _Timed) -> ScatterPoint:
    scores = entry.one.scores
    assert scores is not None
    median, spread = entry.summary.median, entry.summary.median_interval
    low, high = (spread.low, spread.high) if spread else (median, median)
    return ScatterPoint(entry.index, entry.one.name, median, scores.mean_iou, low, high)


def latency(data: ReportData) -> Section | None:
    """Times, where any candidate was timed."""
    timed = _timed(data)
    if data.run is None or not timed:
        return None
    blocks: list[Block] = [Text(_method(data.run)), _histograms_chart(timed)]
    ratios = [(entry, entry.measurement.ratio) for entry in timed if entry.measurement.ratio is not None]
    if ratios:
        blocks.append(_ratios_chart(ratios))
    blocks.append(_times_table(timed, f"Times at {timed[0].measurement.setting}, ms"))
    if any(len(one.measurements) > 1 for one in data.candidates):
        blocks += [_sweep_chart(data), _sweep_table(data)]
    warnings = (
        *data.run.warnings,
        *_errors(data),
        *(("The run was stopped by hand.",) if data.run.interrupted else ()),
    )
    if warnings:
        blocks.append(Notes(warnings, alarming=True))
    missing = tuple(f"Not timed: {one.candidate}. {one.reason}" for one in data.run.missing)
    if missing:
        blocks.append(Notes(missing))
    blocks.append(Facts("Machine while it was timed", _states(data.run)))
    return Section("latency", "Latency", tuple(blocks))


def _timed(data: ReportData) -> list[_Timed]:
    """Candidates with samples at the setting of the first that has any."""
    setting = next((one.timing.setting for one in data.candidates if one.timing), None)
    return [
        _Timed(index, one, measurement, measurement.summary)
        for index, one in enumerate(data.candidates)
        for measurement in one.measurements
        if measurement.setting == setting and measurement.summary is not None
    ]


def _method(run: BenchRun) -> str:
    method = run.method
    return (
        f"The clock held: {method.scope.sentence}. Each candidate was warmed up for {method.warmup_ms:g} ms and "
        f"{method.warmup_runs} calls at least, then timed for {method.seconds:g} s and {method.samples} calls at "
        f"least, in {method.rounds} rounds in which all took turns. Every sample was kept."
    )


def _histograms_chart(timed: list[_Timed]) -> Chart:
    rows = [
        Times(
            index=entry.index,
            name=entry.one.name,
            samples=tuple(chain.from_iterable(entry.measurement.rounds_ms)),
            median=entry.summary.median,
            p95=entry.summary.p95,
            p99=entry.summary.p99,
            text=f"median {milliseconds(entry.summary.median)}",
        )
        for entry in timed
    ]
    alt_text = "; ".join(f"{row.name}: {row.text}, 99th percentile {milliseconds(row.p99)}" for row in rows)
    note = (
        "Each histogram has its own height. The long line is the median, the short ones the 95th and 99th percentile."
    )
    return Chart("chart-latency", "Distribution of times", alt_text, lambda width: histograms(rows, width), note)


def _ratios_chart(ratios: list[tuple[_Timed, Ratio]]) -> Chart:
    rows = []
    for entry, ratio in ratios:
        low, high = (ratio.interval.low, ratio.interval.high) if ratio.interval else (ratio.value, ratio.value)
        text = f"{factor(ratio.value)} {interval(low, high)}, {ratio.verdict.value}"
        rows.append(RatioRow(entry.index, entry.one.name, ratio.value, low, high, text))
    baseline = ratios[0][1].against
    return Chart(
        "chart-ratios",
        "Time compared",
        f"Against {baseline}: " + "; ".join(f"{row.name} {row.text}" for row in rows),
        lambda width: ratio_chart(rows, baseline, width),
        "Ratio of the medians with its 95 % interval.",
    )


def _times_table(timed: list[_Timed], caption: str) -> Table:
    names = ("median", "95 % interval", "minimum", "mean", "p90", "p95", "p99", "spread, %", "samples", "images/s")
    rows = tuple(
        (Cell(entry.one.name, candidate_mark(entry.index)), *_times(entry.measurement, entry.summary))
        for entry in timed
    )
    return Table(caption, (Column("candidate", False), *map(Column, names)), rows)


def _times(measurement: TimingResult, summary: Summary) -> list[Cell]:
    spread = summary.median_interval
    values = [summary.minimum, summary.mean, summary.p90, summary.p95, summary.p99]
    rate = measurement.throughput
    return [
        Cell(significant(summary.median)),
        Cell(interval(spread.low, spread.high) if spread else "\N{EN DASH}"),
        *(Cell(significant(value)) for value in values),
        Cell(f"{summary.spread:.1f}"),
        Cell(str(summary.count)),
        Cell(significant(rate) if rate is not None else "\N{EN DASH}"),
    ]


def _sweep_chart(data: ReportData) -> Chart:
    """Throughput against latency, a curve for each candidate from its lowest to its highest latency."""
    settings = {entry.setting for one in data.candidates for entry in one.measurements}
    by_batch = len({replace(setting, batch=1) for setting in settings}) == 1
    rows = []
    for index, one in enumerate(data.candidates):
        found = [
            CurvePoint(
                entry.summary.p95,
                entry.throughput,
                f"{one.name}, {entry.setting}",
                str(entry.setting.batch) if by_batch else "",
            )
            for entry in one.measurements
            if entry.summary is not None and entry.throughput is not None
        ]
        if found:
            rows.append(Curve(index, one.name, tuple(sorted(found, key=lambda point: point.x))))
    alt_text = "; ".join(
        f"{point.label}: {significant(point.y)} images/s at {milliseconds(point.x)}"
        for row in rows
        for point in row.points
    )
    return Chart(
        "chart-sweep",
        "Throughput against latency",
        alt_text,
        lambda width: curves(rows, "95th percentile of a call, ms", "images/s", width),
        f"One point for each setting{', with its images per call' if by_batch else ''}; up and left is better.",
    )


def _sweep_table(data: ReportData) -> Table:
    rows = []
    for index, one in enumerate(data.candidates):
        for measurement in one.measurements:
            if measurement.summary is not None:
                cells = _times(measurement, measurement.summary)
                rows.append((Cell(one.name, candidate_mark(index)), Cell(str(measurement.setting)), *cells))
    names = ("median", "95 % interval", "minimum", "mean", "p90", "p95", "p99", "spread, %", "samples", "images/s")
    columns = (Column("candidate", False), Column("setting", False), *map(Column, names))
    return Table("All settings, ms", columns, tuple(rows), folded=len(rows) > 12)


def _errors(data: ReportData) -> tuple[str, ...]:
    return tuple(
        f"{one.name} at {measurement.setting} ended early: {measurement.error}"
        for one in data.candidates
        for measurement in one.measurements
        if measurement.error
    )


def _states(run: BenchRun) -> dict[str, str]:
    cpu = run.before.cpu
    facts = {"CPU": f"{cpu.model}, {len(cpu.affinity)} of {cpu.cores} logical cores"}
    for name, state in (("before", run.before), ("after", run.after)):
        facts[f"load {name}"] = ", ".join(f"{value:.2f}" for value in state.cpu.load)
        speed, governor = state.cpu.megahertz, state.cpu.governor
        clock = [f"{speed:.0f} MHz" if speed else "", f"governor {governor}" if governor else ""]
        facts[f"clock {name}"] = ", ".join(filter(None, clock))
        if state.jetson is not None:
            facts[f"power mode {name}"] = state.jetson.power_mode or ""
        for gpu in state.gpus:
            heat = (gpu.celsius, "\N{DEGREE SIGN}C")
            known = ((gpu.sm_megahertz, "MHz"), (gpu.watts, "W"), heat, (gpu.processes, "others"))
            values = (f"{value:g} {unit}" for value, unit in known if value is not None)
            facts[f"GPU {gpu.index} {name}"] = ", ".join([gpu.name, *values, *gpu.throttle])
    notes = dict.fromkeys((*run.before.notes, *run.after.notes))
    facts["not known"] = "; ".join(notes)
    return {name: value for name, value in facts.items() if value}


_NOTHING = Cell("\N{EN DASH}")


@dataclass(frozen=True)
class _Profiled:
    """A candidate with its profile."""

    index: int
    name: str
    profile: LayerProfile


def profile(data: ReportData) -> Section | None:
    """Time by block, where any candidate was profiled."""
    profiled = [_Profiled(index, one.name, one.profile) for index, one in enumerate(data.candidates) if one.profile]
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
    """Time of each block for all candidates that name it."""
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
    limits = found.peaks
    peaks = ""
    if limits is not None:
        peaks = f"; limits: {quantity(limits.flops)}op/s and {quantity(limits.bytes)}B/s ({limits.source})"
    caption = f"{one.name}: time by block, mean of {found.runs} calls, {found.tool}{peaks}"
    return Table(caption, columns, tuple(rows), summary_row=True, folded=folded)


def _work(block: ProfileRow) -> tuple[Cell, ...]:
    return (
        Cell(quantity(block.flops).strip()) if block.flops is not None else _NOTHING,
        Cell(quantity(block.bytes).strip()) if block.bytes is not None else _NOTHING,
        Cell(share(block.of_limit)) if block.of_limit is not None else _NOTHING,
        Cell(block.bound) if block.bound else _NOTHING,
    )


def _bubbles(blocks: tuple[ProfileRow, ...], numbers: Mapping[str, int]) -> list[RooflineBlock]:
    return [
        RooflineBlock(
            name=block.name,
            number=numbers[block.name],
            intensity=block.flops / block.bytes,
            speed=block.flops / (block.milliseconds / 1e3),
            share=block.share,
        )
        for block in blocks
        if block.flops and block.bytes and block.milliseconds > 0
    ]


def _roofline_chart(one: _Profiled, bubbles: list[RooflineBlock], peaks: Peaks) -> Chart:
    alt_text = "; ".join(
        f"{bubble.name}: {significant(bubble.intensity)} operations a byte at {quantity(bubble.speed)}op/s"
        for bubble in bubbles
    )
    roof = Roof(peaks.flops, peaks.bytes)
    note = "Numbers are the blocks as in the tables; a larger circle takes more time; on the line is as fast as can be."
    return Chart(
        f"chart-roofline-{one.index}",
        f"Roofline of {one.name}",
        alt_text,
        lambda width: roofline(bubbles, roof, one.index, width),
        note,
    )
