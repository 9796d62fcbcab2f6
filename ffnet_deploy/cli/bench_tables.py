"""What ``ffnet-bench`` prints."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ffnet_deploy.benchmark.compare import RunComparison
from ffnet_deploy.benchmark.record import BenchRun, Interval, ProfileRow, TimingResult, Verdict
from ffnet_deploy.benchmark.sweep import best_within, frontier, points
from ffnet_deploy.cli.console import console, report_note

_STYLE = {Verdict.FASTER: "green", Verdict.SLOWER: "yellow", Verdict.SAME: "", Verdict.WRONG: "bold red"}

_COLUMNS = ("median", "95 %", "p95", "GPU median", "images/s", "time ratio", "95 % of it", "same label", "verdict")
_LEFT_OUT = ("p95", "same label")
"""On a narrow screen; a wrong output shows in the verdict too."""
_WIDE = 110


def show_run(run: BenchRun) -> None:
    """Print what the clock held, a line for each measurement, what is missing, and what to beware of."""
    console.print(f"clock: {run.method.scope.sentence}", soft_wrap=True)
    console.print(_machine(run), soft_wrap=True)
    for number, one in enumerate(run.candidates, 1):
        console.print(f"{number}  {one.name}: {one.precision}, {one.engine}", soft_wrap=True)
    console.print(_run_table(run))
    for one in run.candidates:
        for note in one.notes:
            report_note(f"{one.name}: {note}")
    for missing in run.missing:
        report_note(f"{missing.candidate} is left out: {missing.reason}")
    for warning in run.warnings:
        report_note(warning)


def _machine(run: BenchRun) -> str:
    cpu = run.before.cpu
    parts = [cpu.model, f"{len(cpu.affinity) or cpu.cores} of {cpu.cores} cores"]
    parts += [f"governor {cpu.governor}"] if cpu.governor else []
    parts += [f"load {cpu.load[0]:.2f} before, {run.after.cpu.load[0]:.2f} after"]
    parts += [gpu.name for gpu in run.before.gpus]
    jetson = run.before.jetson
    parts += [f"power mode {jetson.power_mode}"] if jetson is not None and jetson.power_mode else []
    return ", ".join(parts)


def _run_table(run: BenchRun) -> Table:
    settings = {row.setting for row in run.measurements}
    several = len(settings) > 1
    where = "" if several or not settings else f", {settings.pop()}"
    named = ["candidate" if console.width >= _WIDE else "", *(["input"] if several else [])]
    title = f"milliseconds for a call{where}"
    table = Table(*named, box=SIMPLE_HEAD, title=title, collapse_padding=True, pad_edge=False)
    columns = [one for one in _COLUMNS if _is_shown(one, run)]
    for column in columns:
        table.add_column(column, justify="left" if column == "verdict" else "right", no_wrap=True)
    for row in run.measurements:
        cells = dict(zip(_COLUMNS, (*_times(row), *_comparison(row)), strict=True))
        setting = [str(row.setting)] if several else []
        table.add_row(_short_name(row, run), *setting, *(cells[one] for one in columns), style=_style(row))
    return table


def _short_name(row: TimingResult, run: BenchRun) -> str:
    """The candidate's name, or on a narrow screen its number."""
    if console.width >= _WIDE:
        return row.candidate
    return str([one.name for one in run.candidates].index(row.candidate) + 1)


def _is_shown(column: str, run: BenchRun) -> bool:
    if column == "GPU median":
        return any(row.device_summary is not None for row in run.measurements)
    return console.width >= _WIDE or column not in _LEFT_OUT


def _times(row: TimingResult) -> list[str]:
    summary, device = row.summary, row.device_summary
    gpu = "-" if device is None else _ms(device.median)
    rate = "-" if row.throughput is None else f"{row.throughput:.4g}"
    if summary is None:
        return ["-", "-", "-", gpu, rate]
    return [_ms(summary.median), _interval(summary.median_interval), _ms(summary.p95), gpu, rate]


def _comparison(row: TimingResult) -> list[str]:
    label = "" if row.check is None else f"{row.check.agreement:.2f} %"
    if row.error is not None:
        return ["", "", label, "failed"]
    if row.ratio is None:
        return ["1", "", label, "baseline"]
    interval = row.ratio.interval
    within = "-" if interval is None else f"{interval.low:.3f}..{interval.high:.3f}"
    return [f"{row.ratio.value:.3f}", within, label, row.ratio.verdict.value]


def _style(row: TimingResult) -> str:
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
        title = f"{row.candidate} ({row.setting}): {row.profile.tool}, mean of {row.profile.runs} calls"
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


def _block_cells(block: ProfileRow) -> list[str]:
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
        table = Table("candidate", "input", title="best throughput for its latency")
        for column in ("median ms", "p95 ms", "images/s"):
            table.add_column(column, justify="right")
        for point in frontier(found):
            numbers = _ms(point.median), _ms(point.p95), f"{point.throughput:.2f}"
            table.add_row(point.candidate, str(point.setting), *numbers)
        console.print(table)
    if budget_ms is None:
        return
    best = best_within(found, budget_ms)
    if best is None:
        report_note(f"nothing holds the budget of {budget_ms:g} ms in 95 % of its calls")
    else:
        text = f"best within {budget_ms:g} ms (p95): {best.candidate} ({best.setting}), {best.throughput:.2f} images/s"
        console.print(text, soft_wrap=True)


def show_changes(comparison: RunComparison) -> None:
    """Print what became of each candidate since the old run."""
    table = Table("candidate", "input", title="against the old run")
    for column in ("time ratio", "95 % interval", "slower by"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for change in comparison.changes:
        ratio = change.ratio
        table.add_row(
            change.candidate,
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
