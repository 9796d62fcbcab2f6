"""Two runs side by side: what became slower, and how sure that is."""

from dataclasses import dataclass

from ffnet_deploy.benchmark.record import BenchRun, Ratio, Setting, TimingResult
from ffnet_deploy.benchmark.statistics import LEAST_ROUNDS, independent_ratio
from ffnet_deploy.core.errors import OptionError


@dataclass(frozen=True)
class TimingChange:
    """What became of one candidate at one setting.

    Attributes:
        candidate: Name of the candidate.
        setting: Batch size, input size and threads that were compared.
        ratio: New median as a multiple of the old one.
    """

    candidate: str
    setting: Setting
    ratio: Ratio

    @property
    def percent(self) -> float:
        """By how much it became slower; negative: faster."""
        return (self.ratio.value - 1) * 100

    def is_beyond(self, percent: float) -> bool:
        """Whether it became slower by more than `percent`, and is slower with the interval's confidence."""
        return self.percent > percent and self.ratio.interval is not None and self.ratio.interval.low > 1


@dataclass(frozen=True)
class RunComparison:
    """All that two runs have in common.

    Attributes:
        changes: The changes in the order of the new run.
        notes: What to know before trusting them.
    """

    changes: tuple[TimingChange, ...]
    notes: tuple[str, ...]

    def beyond(self, percent: float) -> tuple[TimingChange, ...]:
        """The changes that are beyond `percent`."""
        return tuple(change for change in self.changes if change.is_beyond(percent))


def compare(new: BenchRun, old: BenchRun) -> RunComparison:
    """What changed from `old` to `new`: candidates of the same name at the same setting.

    The runs were taken at different times, so that what the machine did meanwhile counts as change too.

    Raises:
        OptionError: they measured different things, or have nothing in common.
    """
    if new.method.scope is not old.method.scope:
        raise OptionError(
            f"the old run timed {old.method.scope.value} and this one {new.method.scope.value}.\n"
            f"  to do    measure with --clock {old.method.scope.value}"
        )
    earlier = {(row.candidate, row.setting): row for row in old.measurements}
    changes = []
    for row in new.measurements:
        before = earlier.get((row.candidate, row.setting))
        ratio = None if before is None else _ratio(row, before, new.method.seed)
        if ratio is not None:
            changes.append(TimingChange(row.candidate, row.setting, ratio))
    if not changes:
        raise OptionError(f"the runs have no candidate and setting in common.\n{_contents(old)}\n{_contents(new)}")
    return RunComparison(tuple(changes), (*_differences(new, old), *_unmatched(new, old, changes), *_unsure(changes)))


def _ratio(new: TimingResult, old: TimingResult, seed: int) -> Ratio | None:
    """Of the device's own times where both have them, else of the host's."""
    if new.device_ms and old.device_ms:
        return independent_ratio(new.device_ms, old.device_ms, "the old run", seed)
    return independent_ratio(new.rounds_ms, old.rounds_ms, "the old run", seed)


def _contents(run: BenchRun) -> str:
    rows = "; ".join(f"{row.candidate} ({row.setting})" for row in run.measurements) or "nothing"
    return f"  {run.created}: {rows}"


def _differences(new: BenchRun, old: BenchRun) -> list[str]:
    """How the machines differ."""
    pairs = {
        "CPU": (old.before.cpu.model, new.before.cpu.model),
        "cores": (str(len(old.before.cpu.affinity)), str(len(new.before.cpu.affinity))),
        "GPU": tuple(", ".join(gpu.name for gpu in run.before.gpus) or "none" for run in (old, new)),
        **{name: (old.environment[name], new.environment[name]) for name in old.environment.keys() & new.environment},
        **{name: (old.versions[name], new.versions[name]) for name in old.versions.keys() & new.versions},
    }
    return [f"{name} differs: {before} then, {now} now" for name, (before, now) in pairs.items() if before != now]


def _unmatched(new: BenchRun, old: BenchRun, changes: list[TimingChange]) -> list[str]:
    compared = {(change.candidate, change.setting) for change in changes}
    return [
        f"{row.candidate} ({row.setting}) is only in the {which} run"
        for which, run in (("old", old), ("new", new))
        for row in run.measurements
        if (row.candidate, row.setting) not in compared
    ]


def _unsure(changes: list[TimingChange]) -> list[str]:
    return [
        f"{change.candidate} ({change.setting}): fewer than {LEAST_ROUNDS} rounds, so nothing is certain"
        for change in changes
        if change.ratio.interval is None
    ]
