"""How fast: distributions of the times, ratios with their intervals, and what the clock held."""

from dataclasses import dataclass
from itertools import chain

from ffnet_deploy.benchmark.record import BenchRun, DeviceState, GpuState, Measurement, Ratio, Summary
from ffnet_deploy.report.charts.distributions import Multiple, Times, hills, multiples
from ffnet_deploy.report.charts.key import contender_mark
from ffnet_deploy.report.charts.scatter import Point, scatter
from ffnet_deploy.report.data import Contender, ReportData
from ffnet_deploy.report.document import Block, Cell, Chart, Column, Facts, Notes, Section, Table, Text
from ffnet_deploy.report.format import factor, interval, milliseconds, percent, significant


@dataclass(frozen=True)
class _Timed:
    index: int
    one: Contender
    measurement: Measurement
    summary: Summary


def trade_off(data: ReportData) -> Section | None:
    """Accuracy against time, where at least two contenders have both."""
    both = [entry for entry in _timed(data) if entry.one.scores is not None]
    if len(both) < 2:
        return None
    points = [_point(entry) for entry in both]
    told = "; ".join(f"{p.name}: {percent(p.y)} % mIoU at {milliseconds(p.x)}" for p in points)
    chart = Chart(
        "chart-trade-off",
        "mIoU against median time",
        told,
        lambda width: scatter(points, "median time of a call, ms", "mIoU, %", width),
        "Whiskers are the 95 % interval of the median.",
    )
    return Section("trade-off", "Accuracy against latency", (chart,))


def _point(entry: _Timed) -> Point:
    scores = entry.one.scores
    assert scores is not None
    median, spread = entry.summary.median, entry.summary.median_interval
    low, high = (spread.low, spread.high) if spread else (median, median)
    return Point(entry.index, entry.one.name, median, scores.mean_iou, low, high)


def latency(data: ReportData) -> Section | None:
    """Times, where any contender was timed."""
    timed = _timed(data)
    if data.run is None or not timed:
        return None
    blocks: list[Block] = [Text(_method(data.run)), _hills_chart(timed)]
    ratios = [(entry, entry.measurement.ratio) for entry in timed if entry.measurement.ratio is not None]
    if ratios:
        blocks.append(_multiples_chart(ratios))
    blocks.append(_times_table(timed, f"Times at {timed[0].measurement.setting}, ms"))
    if any(len(one.measurements) > 1 for one in data.contenders):
        blocks.append(_sweep_table(data))
    warnings = (
        *data.run.warnings,
        *_errors(data),
        *(("The run was stopped by hand.",) if data.run.interrupted else ()),
    )
    if warnings:
        blocks.append(Notes(warnings, alarming=True))
    missing = tuple(f"Not timed: {one.contender}. {one.reason}" for one in data.run.missing)
    if missing:
        blocks.append(Notes(missing))
    blocks.append(Facts("Machine while it was timed", _states(data.run)))
    return Section("latency", "Latency", tuple(blocks))


def _timed(data: ReportData) -> list[_Timed]:
    """Contenders with samples at the setting of the first that has any."""
    setting = next((one.timing.setting for one in data.contenders if one.timing), None)
    return [
        _Timed(index, one, measurement, measurement.summary)
        for index, one in enumerate(data.contenders)
        for measurement in one.measurements
        if measurement.setting == setting and measurement.summary is not None
    ]


def _method(run: BenchRun) -> str:
    method = run.method
    return (
        f"The clock held: {method.content.sentence}. Each contender was warmed up for {method.warmup_ms:g} ms and "
        f"{method.warmup_runs} calls at least, then timed for {method.seconds:g} s and {method.samples} calls at "
        f"least, in {method.rounds} rounds in which all took turns. Every sample was kept."
    )


def _hills_chart(timed: list[_Timed]) -> Chart:
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
    told = "; ".join(f"{row.name}: {row.text}, 99th percentile {milliseconds(row.p99)}" for row in rows)
    note = "Each hill has its own height. The long line is the median, the short ones the 95th and 99th percentile."
    return Chart("chart-latency", "Distribution of times", told, lambda width: hills(rows, width), note)


def _multiples_chart(ratios: list[tuple[_Timed, Ratio]]) -> Chart:
    rows = []
    for entry, ratio in ratios:
        low, high = (ratio.interval.low, ratio.interval.high) if ratio.interval else (ratio.value, ratio.value)
        text = f"{factor(ratio.value)} {interval(low, high)}, {ratio.verdict.value}"
        rows.append(Multiple(entry.index, entry.one.name, ratio.value, low, high, text))
    baseline = ratios[0][1].against
    return Chart(
        "chart-ratios",
        "Time compared",
        f"Against {baseline}: " + "; ".join(f"{row.name} {row.text}" for row in rows),
        lambda width: multiples(rows, baseline, width),
        "Ratio of the medians with its 95 % interval.",
    )


def _times_table(timed: list[_Timed], caption: str) -> Table:
    names = ("median", "95 % interval", "minimum", "mean", "p90", "p95", "p99", "spread, %", "samples", "images/s")
    rows = tuple(
        (Cell(entry.one.name, contender_mark(entry.index)), *_times(entry.measurement, entry.summary))
        for entry in timed
    )
    return Table(caption, (Column("contender", False), *map(Column, names)), rows)


def _times(measurement: Measurement, summary: Summary) -> list[Cell]:
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


def _sweep_table(data: ReportData) -> Table:
    rows = []
    for index, one in enumerate(data.contenders):
        for measurement in one.measurements:
            if measurement.summary is not None:
                cells = _times(measurement, measurement.summary)
                rows.append((Cell(one.name, contender_mark(index)), Cell(str(measurement.setting)), *cells))
    names = ("median", "95 % interval", "minimum", "mean", "p90", "p95", "p99", "spread, %", "samples", "images/s")
    columns = (Column("contender", False), Column("setting", False), *map(Column, names))
    return Table("All settings, ms", columns, tuple(rows), folded=len(rows) > 12)


def _errors(data: ReportData) -> tuple[str, ...]:
    return tuple(
        f"{one.name} at {measurement.setting} ended early: {measurement.error}"
        for one in data.contenders
        for measurement in one.measurements
        if measurement.error
    )


def _states(run: BenchRun) -> dict[str, str]:
    cpu = run.before.cpu
    facts = {"CPU": f"{cpu.model}, {len(cpu.affinity)} of {cpu.cores} logical cores"}
    for name, state in (("before", run.before), ("after", run.after)):
        facts[f"load {name}"] = ", ".join(f"{value:.2f}" for value in state.cpu.load)
        facts[f"clock {name}"] = ", ".join(_clock(state))
        for gpu in state.gpus:
            facts[f"GPU {gpu.index} {name}"] = ", ".join(
                [gpu.name, *(f"{value:g} {unit}" for value, unit in _gpu(gpu)), *gpu.throttle]
            )
    notes = dict.fromkeys((*run.before.notes, *run.after.notes))
    facts["not known"] = "; ".join(notes)
    return {name: value for name, value in facts.items() if value}


def _clock(state: DeviceState) -> list[str]:
    speed, governor = state.cpu.megahertz, state.cpu.governor
    return [*([f"{speed:.0f} MHz"] if speed else []), *([f"governor {governor}"] if governor else [])]


def _gpu(gpu: GpuState) -> list[tuple[float, str]]:
    known = [(gpu.sm_megahertz, "MHz"), (gpu.watts, "W"), (gpu.celsius, "\N{DEGREE SIGN}C"), (gpu.processes, "others")]
    return [(value, unit) for value, unit in known if value is not None]
