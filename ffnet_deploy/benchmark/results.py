"""From the samples of a candidate to its line in the record, and the warnings that belong beside the numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ffnet_deploy.benchmark.interleaved import CandidateSamples
from ffnet_deploy.benchmark.record import (
    BenchRun,
    DeviceState,
    LayerProfile,
    OutputCheck,
    Ratio,
    Setting,
    TimingMethod,
    TimingResult,
    Verdict,
)
from ffnet_deploy.benchmark.statistics import UNSTEADY, ratio, summarize

BUSY = 0.5
"""Load average per core, before the run, from which the machine counts as busy."""


@dataclass(frozen=True)
class Findings:
    """What is known of a candidate beside its times; None where there is nothing."""

    check: OutputCheck | None = None
    profile: LayerProfile | None = None


def failed(name: str, setting: Setting, reason: str) -> TimingResult:
    """The line of a candidate that gave no output at all."""
    return TimingResult(name, setting, rounds_ms=(), error=reason)


def timing_result(
    samples: CandidateSamples, baseline: CandidateSamples, findings: Findings, setting: Setting, method: TimingMethod
) -> TimingResult:
    """The line of the candidate with the samples `samples`, compared with `baseline` unless it is that itself."""
    host, device = samples.milliseconds, samples.device_milliseconds
    wall = samples.wall_ns / 1e9
    return TimingResult(
        candidate=samples.name,
        setting=setting,
        rounds_ms=host,
        device_ms=device,
        wall_s=round(wall, 6),
        summary=summarize(host, method.seed),
        device_summary=summarize(device, method.seed),
        throughput=round(samples.count * method.queue * setting.batch / wall, 3) if wall and samples.count else None,
        ratio=None if samples is baseline else _ratio(samples, baseline, findings.check, method.seed),
        check=findings.check,
        profile=findings.profile,
        error=samples.error,
    )


def _ratio(samples: CandidateSamples, baseline: CandidateSamples, check: OutputCheck | None, seed: int) -> Ratio | None:
    """Of the devices' own times where both have them, else of the host's."""
    if samples.device_milliseconds and baseline.device_milliseconds:
        found = ratio(samples.device_milliseconds, baseline.device_milliseconds, baseline.name, seed)
    else:
        found = ratio(samples.milliseconds, baseline.milliseconds, baseline.name, seed)
    if found is not None and check is not None and not check.passed:
        return replace(found, verdict=Verdict.WRONG)
    return found


def with_warnings(run: BenchRun, notes: Sequence[str] = ()) -> BenchRun:
    """`run` with its warnings and `notes`, each once."""
    found = [*(text for row in run.measurements for text in _of_measurement(row)), *_of_machine(run), *notes]
    if run.interrupted:
        found.append("stopped by hand: fewer samples than the method asks for")
    return replace(run, warnings=tuple(dict.fromkeys(found)))


def _of_measurement(row: TimingResult) -> Iterator[str]:
    who, count = f"{row.candidate} ({row.setting})", row.summary.count if row.summary else 0
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
