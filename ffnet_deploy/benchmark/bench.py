"""A whole run: open the contenders, time them against each other at every setting, and write down what came out."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.benchmark.cautions import cautions
from ffnet_deploy.benchmark.clock import Clock
from ffnet_deploy.benchmark.contenders import Candidate
from ffnet_deploy.benchmark.device_state import environment, package_versions, read_state
from ffnet_deploy.benchmark.method import Entry, race
from ffnet_deploy.benchmark.outputs import LEAST_AGREEMENT, check_output
from ffnet_deploy.benchmark.profiling import profile
from ffnet_deploy.benchmark.record import (
    BenchRun,
    Contender,
    Content,
    DeviceState,
    Measurement,
    Method,
    Missing,
    OutputCheck,
    Profile,
    Setting,
)
from ffnet_deploy.benchmark.results import Findings, failed, measurement
from ffnet_deploy.benchmark.roofline import peaks_of
from ffnet_deploy.benchmark.settings import Grid
from ffnet_deploy.benchmark.steps import DeviceEngine, Picture, batch_of, check_setting, make_step
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
        grid: points of the sweep.
        picture: the image that is timed with.
        method: how samples are taken.
        profile: also measure where the time goes.
        least_agreement: pixels with the baseline's label, percent, below which an output is wrong; None: by precision.
    """

    grid: Grid
    picture: Picture
    method: Method = field(default_factory=Method)
    profile: bool = False
    least_agreement: float | None = None

    def __post_init__(self) -> None:
        if self.least_agreement is not None and not 0 <= self.least_agreement <= 100:
            raise OptionError(f"an agreement lies in 0..100 percent: got {self.least_agreement}")


@dataclass(frozen=True)
class _Opened:
    candidate: Candidate
    contender: Contender
    engine: Engine

    @property
    def name(self) -> str:
        return self.contender.name


@dataclass
class _Journal:
    """What is known so far."""

    before: DeviceState
    contenders: dict[str, Contender] = field(default_factory=dict)
    missing: dict[str, Missing] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False


def bench(
    candidates: Sequence[Candidate], options: BenchOptions, clock: Clock | None = None, progress: Progress = no_progress
) -> BenchRun:
    """Time `candidates` against each other; the first that opens is the baseline.

    What cannot start here is listed, what fails on the way keeps its samples, and stopping by hand ends the run early.

    Args:
        candidates: at least one, with names of their own.
        options: what to measure.
        clock: the host's clock, unless a test has another.
        progress: told of the rounds done at each setting.

    Raises:
        OptionError: no candidate can start here, or one does not accept a setting.
        ArtifactError: an artefact is missing, damaged, or not the one its manifest describes.
    """
    journal = _Journal(before=read_state())
    try:
        for threads, streams in options.grid.openings:
            with ExitStack() as stack:
                opened = _open(candidates, (threads, streams), options.method.content, journal, stack)
                settings = options.grid.settings([one.engine.contract for one in opened], threads, streams)
                _check_settings(opened, settings)
                for setting in settings:
                    _measure(opened, setting, options, journal, clock, progress)
    except KeyboardInterrupt:
        journal.interrupted = True
    return _record(journal, options)


def _open(
    candidates: Sequence[Candidate],
    opening: tuple[int, int],
    content: Content,
    journal: _Journal,
    stack: ExitStack,
) -> list[_Opened]:
    opened = []
    for candidate in candidates:
        try:
            engine = stack.enter_context(candidate.open(*opening))
        except (MissingPackageError, NoDeviceError) as error:
            journal.missing[candidate.name] = Missing(candidate.name, str(error))
            continue
        contender = _contender(candidate, engine, content)
        journal.contenders[candidate.name] = contender
        opened.append(_Opened(candidate, contender, engine))
    if not opened:
        reasons = "\n".join(f"  {one.contender}: {one.reason}" for one in journal.missing.values())
        raise OptionError(f"no contender can start here.\n{reasons}")
    return opened


def _contender(candidate: Candidate, engine: Engine, content: Content) -> Contender:
    path, record = candidate.artifact, getattr(engine, "precision", None)
    return Contender(
        name=candidate.name,
        engine=engine.name,
        precision=candidate.precision or ("fp32" if record is None else str(record.precision.value)),
        network=engine.contract.network,
        artifact=None if path is None else path.name,
        sha256=None if path is None else sha256(path),
        notes=(*engine.notes, *_clock_notes(candidate, engine, content)),
    )


def _clock_notes(candidate: Candidate, engine: Engine, content: Content) -> tuple[str, ...]:
    if candidate.on_gpu and content is Content.NETWORK and not isinstance(engine, DeviceEngine):
        return (f"{candidate.name} cannot be timed on the GPU alone: its times hold the copies to and from it",)
    return ()


def _check_settings(opened: Sequence[_Opened], settings: Sequence[Setting]) -> None:
    for one in opened:
        for setting in settings:
            check_setting(one.engine.contract, setting, one.name)


def _measure(
    opened: Sequence[_Opened],
    setting: Setting,
    options: BenchOptions,
    journal: _Journal,
    clock: Clock | None,
    progress: Progress,
) -> None:
    """Check, time and profile all contenders at one setting.

    Raises:
        KeyboardInterrupt: stopped by hand; what was measured is in the journal.
    """
    outputs, failures = _outputs(opened, setting, options.picture)
    journal.measurements += [failed(name, setting, reason) for name, reason in failures.items()]
    able = [one for one in opened if one.name in outputs]
    checks = _checks(able, outputs, setting, options)
    with ExitStack() as stack:
        entries = [_entry(one, setting, options, stack) for one in able]
        result = race(entries, options.method, clock, progress, str(setting))
    if result.interrupted:
        profiles: Mapping[str, Profile] = {}
    else:
        profiles = _profiles(able, setting, options, journal) if options.profile else {}
    for track in result.tracks:
        findings = Findings(checks.get(track.name), profiles.get(track.name))
        journal.measurements.append(measurement(track, result.tracks[0], findings, setting, options.method))
    if result.interrupted:
        raise KeyboardInterrupt


def _entry(one: _Opened, setting: Setting, options: BenchOptions, stack: ExitStack) -> Entry:
    steps = []
    for _ in range(setting.streams):
        step = make_step(one.engine, options.method, setting, options.picture)
        if hasattr(step, "close"):
            stack.callback(step.close)
        steps.append(step)
    return Entry(one.name, steps, options.method.queue)


def _outputs(opened: Sequence[_Opened], setting: Setting, picture: Picture) -> tuple[dict[str, Array], dict[str, str]]:
    """Each contender's output for the picture, and why some have none."""
    outputs, failures = {}, {}
    for one in opened:
        try:
            outputs[one.name] = one.engine.run(batch_of(picture, one.engine.contract, setting))
        except (FFNetDeployError, RuntimeError) as error:  # RuntimeError: PyTorch's own
            failures[one.name] = str(error).strip() or type(error).__name__
    return outputs, failures


def _checks(
    able: Sequence[_Opened], outputs: Mapping[str, Array], setting: Setting, options: BenchOptions
) -> dict[str, OutputCheck]:
    """Every contender's output beside the first's."""
    size = (setting.height, setting.width)
    return {
        one.name: check_output(
            (outputs[one.name], one.engine.contract),
            (outputs[able[0].name], able[0].engine.contract),
            size,
            able[0].name,
            _least_agreement(one.contender, able[0].contender, options),
        )
        for one in able[1:]
    }


def _least_agreement(mine: Contender, other: Contender, options: BenchOptions) -> float:
    if options.least_agreement is not None:
        return options.least_agreement
    return min(LEAST_AGREEMENT.get(one.precision, min(LEAST_AGREEMENT.values())) for one in (mine, other))


def _profiles(
    able: Sequence[_Opened], setting: Setting, options: BenchOptions, journal: _Journal
) -> dict[str, Profile]:
    profiles = {}
    for one in able:
        if one.candidate.profile is None:
            journal.notes.append(f"{one.name} has no profile: nothing can time its layers")
            continue
        batch = batch_of(options.picture, one.engine.contract, setting)
        gpu = next((state.name for state in journal.before.gpus), "") if one.candidate.on_gpu else None
        try:
            timed = one.candidate.profile(batch, setting.threads)
        except (FFNetDeployError, RuntimeError) as error:  # RuntimeError: PyTorch's own
            journal.notes.append(f"{one.name} could not be profiled: {str(error).strip()}")
            continue
        profiles[one.name] = profile(timed, peaks_of(gpu, one.contender.precision))
    return profiles


def _record(journal: _Journal, options: BenchOptions) -> BenchRun:
    after = read_state()
    run = BenchRun(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        method=options.method,
        contenders=tuple(journal.contenders.values()),
        measurements=tuple(journal.measurements),
        missing=tuple(journal.missing.values()),
        before=journal.before,
        after=after,
        environment=environment(),
        versions=package_versions(),
        interrupted=journal.interrupted,
    )
    return cautions(run, journal.notes)
