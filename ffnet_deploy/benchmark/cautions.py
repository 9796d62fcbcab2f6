"""What to know before trusting the numbers of a run."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ffnet_deploy.benchmark.record import BenchRun, DeviceState, Measurement
from ffnet_deploy.benchmark.statistics import UNSTEADY

BUSY = 0.5
"""Load average per core, before the run, from which the machine counts as busy."""


def cautions(run: BenchRun, notes: Sequence[str] = ()) -> BenchRun:
    """`run` with its warnings, `notes` among them, each once."""
    found = [*(text for row in run.measurements for text in _of_measurement(row)), *_of_machine(run), *notes]
    if run.interrupted:
        found.append("stopped by hand: fewer samples than the method asks for")
    return replace(run, warnings=tuple(dict.fromkeys(found)))


def _of_measurement(row: Measurement) -> Iterator[str]:
    who, count = f"{row.contender} ({row.setting})", row.summary.count if row.summary else 0
    if row.check is not None and not row.check.passed:
        yield (
            f"{who}: WRONG OUTPUT, its time says nothing: {row.check.agreement:.2f} % of the pixels have the label of "
            f"{row.check.against}, at least {row.check.least:g} % are expected"
        )
    if row.error is not None:
        yield f"{who} ended early, after {count} samples: {row.error}"
    if row.summary is not None and row.summary.spread > UNSTEADY:
        yield (
            f"{who}: unsteady, the samples spread by {row.summary.spread:.1f} % of their mean (standard deviation; "
            f"steady is up to {UNSTEADY} %)"
        )


def _of_machine(run: BenchRun) -> Iterator[str]:
    load, cores = run.before.cpu.load[0], len(run.before.cpu.affinity) or run.before.cpu.cores
    if load > BUSY * cores:
        yield f"the machine was busy before the run began: load {load:.1f} on {cores} cores"
    for state in (run.before, run.after):
        yield from _of_gpus(state)
        yield from state.notes


def _of_gpus(state: DeviceState) -> Iterator[str]:
    for gpu in state.gpus:
        if gpu.throttle:
            yield f"GPU {gpu.index} held its clocks down: {', '.join(gpu.throttle)}"
        if gpu.processes:
            yield f"GPU {gpu.index} was shared with {gpu.processes} other processes"
