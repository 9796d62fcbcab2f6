"""What ``ffnet-bench`` prints."""

from rich.table import Table

from ffnet_deploy.benchmark.compare import Comparison
from ffnet_deploy.benchmark.record import BenchRun, Contender, Interval, Layer, Measurement, Verdict
from ffnet_deploy.benchmark.sweep import best_within, frontier, points
from ffnet_deploy.cli.console import console, report_note

_STYLE = {Verdict.FASTER: "green", Verdict.SLOWER: "yellow", Verdict.SAME: "", Verdict.WRONG: "bold red"}


def show_run(run: BenchRun) -> None:
    """Print what the clock held, a line for each measurement, what is missing, and what to beware of."""
    console.print(f"clock: {run.method.content.sentence}", soft_wrap=True)
    console.print(_machine(run), soft_wrap=True)
    console.print(_run_table(run))
    for missing in run.missing:
        report_note(f"{missing.contender} is left out: {missing.reason}")
    for warning in run.warnings:
        report_note(warning)


def _machine(run: BenchRun) -> str:
    cpu = run.before.cpu
    parts = [cpu.model, f"{len(cpu.affinity) or cpu.cores} of {cpu.cores} cores"]
    parts += [f"governor {cpu.governor}"] if cpu.governor else []
    parts += [f"load {cpu.load[0]:.2f} before, {run.after.cpu.load[0]:.2f} after"]
    parts += [gpu.name for gpu in run.before.gpus]
    return ", ".join(parts)


def _run_table(run: BenchRun) -> Table:
    contenders = {one.name: one for one in run.contenders}
    table = Table("contender", "precision", "input", title="milliseconds for a call")
    for column in ("median", "95 % interval", "p95", "p99", "images/s", "time ratio", "same label"):
        table.add_column(column, justify="right")
    on_device = any(row.device_summary is not None for row in run.measurements)
    if on_device:
        table.add_column("GPU median", justify="right")
    table.add_column("verdict")
    for row in run.measurements:
        table.add_row(*_cells(row, contenders[row.contender], on_device), style=_style(row))
    return table


def _cells(row: Measurement, contender: Contender, on_device: bool) -> list[str]:
    summary = row.summary
    ratio, check = row.ratio, row.check
    cells = [row.contender, contender.precision, str(row.setting)]
    if summary is None:
        cells += ["-"] * 4
    else:
        cells += [_ms(summary.median), _interval(summary.median_interval), _ms(summary.p95), _ms(summary.p99)]
    cells += ["-" if row.throughput is None else f"{row.throughput:.2f}"]
    cells += ["1" if ratio is None else f"{ratio.value:.3f} {_interval(ratio.interval)}"]
    cells += ["" if check is None else f"{check.agreement:.2f} %"]
    if on_device:
        cells.append("-" if row.device_summary is None else _ms(row.device_summary.median))
    return [*cells, "failed" if row.error else ("baseline" if ratio is None else ratio.verdict.value)]


def _style(row: Measurement) -> str:
    if row.error is not None:
        return "red"
    return "" if row.ratio is None else _STYLE[row.ratio.verdict]


def _ms(value: float) -> str:
    return f"{value:.4g}" if value < 1000 else f"{value:.0f}"


def _interval(interval: Interval | None) -> str:
    return "-" if interval is None else f"{_ms(interval.low)}..{_ms(interval.high)}"


def show_profiles(run: BenchRun) -> None:
    """Print where the time goes, by the blocks of the network."""
    for row in run.measurements:
        if row.profile is None:
            continue
        title = f"{row.contender} ({row.setting}): {row.profile.tool}, mean of {row.profile.runs} calls"
        table = Table("block", title=title)
        for column in ("ms", "share", "GFLOP", "MB", "least ms", "of the limit"):
            table.add_column(column, justify="right")
        table.add_column("limit")
        for block in row.profile.blocks:
            table.add_row(*_block_cells(block))
        console.print(table)
        if row.profile.peaks is not None:
            peaks = row.profile.peaks
            text = f"limits: {peaks.flops / 1e9:.4g} GFLOP/s, {peaks.bytes / 1e9:.4g} GB/s, {peaks.source}"
            console.print(text, soft_wrap=True)


def _block_cells(block: Layer) -> list[str]:
    return [
        block.name,
        f"{block.milliseconds:.3f}",
        f"{block.share:.1f} %",
        _scaled(block.flops, 1e9),
        _scaled(block.bytes, 1e6),
        "-" if block.limit_ms is None else f"{block.limit_ms:.3f}",
        "-" if block.of_limit is None else f"{block.of_limit:.0f} %",
        block.bound or "-",
    ]


def _scaled(value: float | None, unit: float) -> str:
    return "-" if value is None else f"{value / unit:.3f}"


def show_sweep(run: BenchRun, budget_ms: float | None) -> None:
    """Print the points that nothing beats in both latency and throughput, and the best one within the budget."""
    found = points(run)
    if len({row.setting for row in run.measurements}) > 1:
        table = Table("contender", "input", title="best throughput for its latency")
        for column in ("median ms", "p95 ms", "images/s"):
            table.add_column(column, justify="right")
        for point in frontier(found):
            numbers = _ms(point.median), _ms(point.p95), f"{point.throughput:.2f}"
            table.add_row(point.contender, str(point.setting), *numbers)
        console.print(table)
    if budget_ms is None:
        return
    best = best_within(found, budget_ms)
    if best is None:
        report_note(f"nothing holds the budget of {budget_ms:g} ms in 95 % of its calls")
    else:
        text = f"best within {budget_ms:g} ms (p95): {best.contender} ({best.setting}), {best.throughput:.2f} images/s"
        console.print(text, soft_wrap=True)


def show_changes(comparison: Comparison) -> None:
    """Print what became of each contender since the old run."""
    table = Table("contender", "input", title="against the old run")
    for column in ("time ratio", "95 % interval", "slower by"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for change in comparison.changes:
        ratio = change.ratio
        table.add_row(
            change.contender,
            str(change.setting),
            f"{ratio.value:.3f}",
            _interval(ratio.interval),
            f"{change.percent:+.1f} %",
            ratio.verdict.value,
            style=_STYLE[ratio.verdict],
        )
    console.print(table)
    for note in comparison.notes:
        report_note(note)
