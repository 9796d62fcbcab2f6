"""A whole run: open the candidates, time them against each other at every setting, and record the results."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.benchmark.candidates import Candidate
from ffnet_deploy.benchmark.device_state import environment, package_versions, read_state
from ffnet_deploy.benchmark.interleaved import Clock, Step, Workload, run_interleaved
from ffnet_deploy.benchmark.nsight import Profiler, range_marker
from ffnet_deploy.benchmark.outputs import LEAST_AGREEMENT, check_output
from ffnet_deploy.benchmark.profiling import profile
from ffnet_deploy.benchmark.record import (
    BenchRun,
    CandidateInfo,
    DeviceState,
    LayerProfile,
    Missing,
    OutputCheck,
    Setting,
    TimingMethod,
    TimingResult,
    TimingScope,
)
from ffnet_deploy.benchmark.results import Findings, failed, timing_result, with_warnings
from ffnet_deploy.benchmark.roofline import peaks_of
from ffnet_deploy.benchmark.steps import DeviceTimedEngine, Picture, batch_of, check_setting, make_step
from ffnet_deploy.benchmark.sweep import Grid
from ffnet_deploy.core import stopping
from ffnet_deploy.core.errors import FFNetDeployError, MissingPackageError, OptionError
from ffnet_deploy.core.files import sha256
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.cuda import NoDeviceError
from ffnet_deploy.engines.engine import Engine

Array = NDArray[np.generic]


@dataclass(frozen=True)
class BenchOptions:
    """What to measure.

    Attributes:
        grid: Points of the sweep.
        picture: Image that is timed with.
        method: How samples are taken.
        profile: Whether the layers are timed too.
        least_agreement: Pixels with the baseline's label, percent, below which an output is wrong. None takes it from
            the precision; 0 judges no labels.
        profiler: What the calls are marked for, so that its timeline names them; None for nothing.
    """

    grid: Grid
    picture: Picture
    method: TimingMethod = field(default_factory=TimingMethod)
    profile: bool = False
    least_agreement: float | None = None
    profiler: Profiler | None = None

    def __post_init__(self) -> None:
        if self.least_agreement is not None and not 0 <= self.least_agreement <= 100:
            raise OptionError(f"an agreement lies in 0..100 percent: got {self.least_agreement}")


@dataclass(frozen=True)
class _Opened:
    """A candidate with its engine, and what the record says of it."""

    candidate: Candidate
    info: CandidateInfo
    engine: Engine

    @property
    def name(self) -> str:
        return self.info.name


@dataclass
class _Findings:
    """What is known so far."""

    before: DeviceState
    candidates: dict[str, CandidateInfo] = field(default_factory=dict)
    missing: dict[str, Missing] = field(default_factory=dict)
    measurements: list[TimingResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False


def bench(
    candidates: Sequence[Candidate],
    options: BenchOptions,
    clock: Clock | None = None,
    progress: Progress = no_progress,
) -> BenchRun:
    """Time `candidates` against each other; the first that opens is the baseline.

    Candidates that cannot start are listed, those that fail later keep their samples, and Ctrl-C ends the run early.

    Args:
        candidates: at least one, with unique names.
        options: what to measure.
        clock: clock of the host samples; None takes the host's own.
        progress: called with the rounds done at each setting.

    Raises:
        OptionError: no candidate can start here, or one does not accept a setting.
        ArtifactError: an artefact is missing, damaged, or not the one its manifest describes.
    """
    found = _Findings(before=read_state())
    try:
        for threads, streams in options.grid.openings:
            with ExitStack() as stack:
                opened = _open(candidates, (threads, streams), options.method.scope, found, stack)
                settings = options.grid.settings([one.engine.contract for one in opened], threads, streams)
                for one in opened:
                    for setting in settings:
                        check_setting(one.engine.contract, setting, one.name)
                for setting in settings:
                    _measure(opened, setting, options, found, clock, progress)
    except KeyboardInterrupt:
        stopping.heed()  # what was measured is kept
        found.interrupted = True
    run = BenchRun(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        method=options.method,
        candidates=tuple(found.candidates.values()),
        measurements=tuple(found.measurements),
        missing=tuple(found.missing.values()),
        before=found.before,
        after=read_state(),
        environment=environment(),
        versions=package_versions(),
        interrupted=found.interrupted,
    )
    return with_warnings(run, found.notes)


def _open(
    candidates: Sequence[Candidate],
    opening: tuple[int, int],
    scope: TimingScope,
    found: _Findings,
    stack: ExitStack,
) -> list[_Opened]:
    """Open every candidate that can start with `opening` (threads, streams)."""
    opened = []
    for candidate in candidates:
        try:
            engine = stack.enter_context(candidate.open(*opening))
        except (MissingPackageError, NoDeviceError) as error:
            found.missing[candidate.name] = Missing(candidate.name, str(error))
            continue
        path, record = candidate.artifact, getattr(engine, "precision", None)
        notes = engine.notes
        if candidate.on_gpu and scope is TimingScope.NETWORK and not isinstance(engine, DeviceTimedEngine):
            notes += (f"{candidate.name} cannot be timed on the GPU alone: its times hold the copies to and from it",)
        info = CandidateInfo(
            name=candidate.name,
            engine=engine.name,
            precision=candidate.precision or ("fp32" if record is None else str(record.precision.value)),
            network=engine.contract.network,
            artifact=None if path is None else path.name,
            sha256=None if path is None else sha256(path),
            notes=notes,
        )
        found.candidates[candidate.name] = info
        opened.append(_Opened(candidate, info, engine))
    if not opened:
        reasons = "\n".join(f"  {one.candidate}: {one.reason}" for one in found.missing.values())
        raise OptionError(f"no candidate can start here.\n{reasons}")
    return opened


def _measure(
    opened: Sequence[_Opened],
    setting: Setting,
    options: BenchOptions,
    found: _Findings,
    clock: Clock | None,
    progress: Progress,
) -> None:
    """Check, time and profile all candidates at one setting.

    Raises:
        KeyboardInterrupt: stopped by hand; what was measured is in `found`.
    """
    outputs: dict[str, Array] = {}
    for one in opened:
        try:
            outputs[one.name] = one.engine.run(batch_of(options.picture, one.engine.contract, setting))
        except (FFNetDeployError, RuntimeError) as error:  # RuntimeError: PyTorch's own
            reason = str(error).strip() or type(error).__name__
            found.measurements.append(failed(one.name, setting, reason))
    able = [one for one in opened if one.name in outputs]
    checks = _checks(able, outputs, setting, options)
    mark, note = range_marker(options.profiler)
    if note is not None and note not in found.notes:
        found.notes.append(note)
    with ExitStack() as stack:
        workloads = [_workload(one, setting, options, mark, stack) for one in able]
        taken = run_interleaved(workloads, options.method, clock, progress, str(setting))
    profiles: Mapping[str, LayerProfile] = {}
    if options.profile and not taken.interrupted:
        profiles = _profiles(able, setting, options, found)
    for samples in taken.samples:
        findings = Findings(checks.get(samples.name), profiles.get(samples.name))
        found.measurements.append(timing_result(samples, taken.samples[0], findings, setting, options.method))
    if taken.interrupted:
        raise KeyboardInterrupt


def _workload(
    one: _Opened, setting: Setting, options: BenchOptions, mark: Callable[[Step, str], Step], stack: ExitStack
) -> Workload:
    steps = []
    for _ in range(setting.streams):
        step = make_step(one.engine, options.method, setting, options.picture)
        if hasattr(step, "close"):
            stack.callback(step.close)
        steps.append(mark(step, one.name))
    return Workload(one.name, steps, options.method.queue)


def _checks(
    able: Sequence[_Opened], outputs: Mapping[str, Array], setting: Setting, options: BenchOptions
) -> dict[str, OutputCheck]:
    """Every candidate's output compared with the first's."""
    size = (setting.height, setting.width)
    checks = {}
    for one in able[1:]:
        least = options.least_agreement
        if least is None:
            precisions = (one.info.precision, able[0].info.precision)
            least = min(LEAST_AGREEMENT.get(name, min(LEAST_AGREEMENT.values())) for name in precisions)
        mine, other = ((outputs[each.name], each.engine.contract) for each in (one, able[0]))
        checks[one.name] = check_output(mine, other, size, able[0].name, least)
    return checks


def _profiles(
    able: Sequence[_Opened], setting: Setting, options: BenchOptions, found: _Findings
) -> dict[str, LayerProfile]:
    profiles = {}
    for one in able:
        if one.candidate.profile is None:
            found.notes.append(f"{one.name} has no profile: its layers cannot be timed one by one")
            continue
        batch = batch_of(options.picture, one.engine.contract, setting)
        gpu = next((state.name for state in found.before.gpus), "") if one.candidate.on_gpu else None
        try:
            timed = one.candidate.profile(batch, setting.threads)
        except (FFNetDeployError, RuntimeError) as error:  # RuntimeError: PyTorch's own
            found.notes.append(f"{one.name} could not be profiled: {str(error).strip()}")
            continue
        profiles[one.name] = profile(timed, peaks_of(gpu, one.info.precision))
    return profiles
