"""What follows from the numbers, in words: which candidate to use, what was not judged, and what stands out."""

from collections.abc import Iterator
from dataclasses import dataclass

from ffnet_deploy.benchmark.record import TimingResult, Verdict
from ffnet_deploy.benchmark.statistics import UNSTEADY
from ffnet_deploy.report.data import CandidateResults, ReportData
from ffnet_deploy.report.format import listed, percent, points, share, significant
from ffnet_deploy.report.gate import Check, GateOutcome, limit_in_words, miou_drop, verdict, within

_FULL_PRECISION = ("fp32", "")
_ALIKE = 99.995
"""Percent of equal labels from which labels count as the same in words."""
_WORTH_NAMING = 1.05
"""Factor of speed below which a second, faster candidate is not named."""
_LARGE_SHARE = 40.0
"""Percent of a call from which one layer is named."""
_LARGE_BLOCK = 50.0
"""Percent of a call from which one block is named."""
_LONG_TAIL = 2.0
"""Ratio of the 99th percentile to the median from which the tail is named."""
_CLASS_FALL = 2.0
"""Fall of the IoU of one class, points, from which it is named."""


def conclusions(data: ReportData, found: tuple[Check, ...]) -> tuple[str, ...]:
    """Sentences that say what to use and what not to use, the most important one first.

    Args:
        data: what was measured.
        found: checks of the gate.
    """
    sentences = [*_speed_conclusions(data, found)] or [*_accuracy_conclusions(data)]
    for one in data.candidates:
        failing = [check for check in found if check.candidate == one.name and check.outcome is GateOutcome.FAILS]
        if failing:
            sentences.append(
                f"Do not use {one.name}: the gate asks for {failing[0].asked}, and found {failing[0].found}."
            )
    return tuple(sentences)


@dataclass(frozen=True)
class _Timed:
    """A candidate at the first setting that was timed.

    Attributes:
        one: The candidate.
        timing: Its times.
        median: Median time of a call, ms.
        outcome: Outcome of the gate.
    """

    one: CandidateResults
    timing: TimingResult
    median: float
    outcome: GateOutcome


def _speed_conclusions(data: ReportData, found: tuple[Check, ...]) -> Iterator[str]:
    timed = [_timed(one, found) for one in data.candidates]
    known = [entry for entry in timed if entry is not None]
    usable = [entry for entry in known if entry.outcome is not GateOutcome.FAILS]
    baseline = next((entry for entry in known if entry.timing.ratio is None), None)
    if len(known) < 2 or baseline is None:
        return
    if not usable:
        yield "Use none of them: all fail the gate."
        return
    fastest = min(usable, key=lambda entry: entry.median)
    exact = [entry for entry in usable if entry.one.precision in _FULL_PRECISION]
    chosen = min(exact, key=lambda entry: entry.median) if exact else fastest
    certain = chosen.timing.ratio is not None and chosen.timing.ratio.verdict is Verdict.FASTER
    if chosen is baseline:
        kind = " of its precision" if fastest is not chosen else ""
        passing = " that passes the gate" if len(usable) < len(known) else ""
        yield f"On this machine use {baseline.one.name}: nothing else{kind}{passing} is certainly faster."
    elif not certain:
        yield f"On this machine use {chosen.one.name} or {baseline.one.name}: neither is certainly faster."
    else:
        factor = significant(baseline.median / chosen.median, 2)
        yield f"On this machine use {chosen.one.name}: {factor} times as fast as {baseline.one.name}{_labels(chosen)}."
    if fastest is not chosen and chosen.median / fastest.median >= _WORTH_NAMING and _apart(fastest, chosen):
        passed = "passes the gate" if fastest.outcome is GateOutcome.HOLDS else "was not judged by the gate"
        factor = significant(chosen.median / fastest.median, 2)
        drop = miou_drop(data.first, fastest.one)
        change = f", mIoU {points(-drop)} points" if drop is not None and fastest.one is not data.first else ""
        yield (
            f"{fastest.one.name} ({fastest.one.precision.upper()}) {passed} and is {factor} times faster still"
            f"{_labels(fastest)}{change}."
        )


def _timed(one: CandidateResults, found: tuple[Check, ...]) -> _Timed | None:
    timing = one.timing
    if timing is None or timing.summary is None:
        return None
    outcome = verdict(tuple(check for check in found if check.candidate == one.name))
    return _Timed(one, timing, timing.summary.median, outcome)


def _apart(fast: _Timed, slow: _Timed) -> bool:
    """Whether the intervals of both medians exclude that they are alike."""
    first, second = (entry.timing.summary.median_interval if entry.timing.summary else None for entry in (fast, slow))
    return first is None or second is None or first.high < second.low


def _labels(entry: _Timed) -> str:
    """How its labels compare with the first's, to go on a sentence with; nothing where it is not known."""
    found = entry.one.accuracy.agreement if entry.one.accuracy else None
    if found is None:
        found = entry.timing.check.agreement if entry.timing.check else None
    if found is None:
        return ""
    return ", the same labels" if found >= _ALIKE else f", {share(found)} of the labels the same"


def _accuracy_conclusions(data: ReportData) -> Iterator[str]:
    scores = data.first.scores
    if scores is not None and data.first.accuracy is not None:
        images = data.first.accuracy.images
        yield f"{data.first.name} scores {percent(scores.mean_iou)} % mIoU on {images} images."
    for one in data.candidates[1:]:
        drop = miou_drop(data.first, one)
        if drop is not None and within(data.limit, data.first, one):
            yield f"{one.name} passes: mIoU {points(-drop)} points."


def not_judged(data: ReportData, found: tuple[Check, ...]) -> str:
    """A sentence that lists what the gate did not judge; empty where it judged everything it knows of."""
    parts = [f"{check.asked} ({check.candidate}: {check.found})" for check in found if check.is_open]
    if all(one.scores is None for one in data.candidates):
        parts.append("accuracy on labelled images (none were scored)")
    return f"Not judged: {'; '.join(parts)}." if parts else ""


def gate_in_words(data: ReportData) -> str:
    """What the gate asks of a candidate."""
    return (
        f"The gate: a candidate passes when its mIoU is {limit_in_words(data.limit, data.first.name)}, its export was "
        "verified, its layers run in the precision asked for, and its labels agree "
        "with the baseline's. What was not measured is not judged."
    )


def findings(data: ReportData) -> tuple[str, ...]:
    """A sentence for each thing that stands out: a dominating layer or block, a long tail, a class that falls."""
    return tuple(sentence for one in data.candidates for sentence in _findings(data, one))


def _findings(data: ReportData, one: CandidateResults) -> Iterator[str]:
    if one.profile is not None:
        largest = max(one.profile.layers, key=lambda row: row.share, default=None)
        block = max(one.profile.blocks, key=lambda row: row.share, default=None)
        if largest is not None and largest.share >= _LARGE_SHARE:
            layer = f"{largest.operator} {largest.name}".strip()
            yield f"{largest.share:.0f} % of the time of {one.name} is one layer: {layer}."
        elif block is not None and block.share >= _LARGE_BLOCK:
            yield f"{block.share:.0f} % of the time of {one.name} is spent in one block: {block.name}."
    summary = one.timing.summary if one.timing else None
    if summary is not None and summary.p99 >= _LONG_TAIL * summary.median:
        yield (
            f"One call in 100 of {one.name} takes {significant(summary.p99 / summary.median, 2)} times the median or "
            "longer."
        )
    if summary is not None and summary.spread > 4 * UNSTEADY:
        yield f"The times of {one.name} are unsteady: they spread by {summary.spread:.0f} % of their mean."
    if one is not data.first and one.scores is not None and data.first.scores is not None:
        before = data.first.scores.per_class
        falls = [
            (old.iou - new.iou, name)
            for name, new in one.scores.per_class.items()
            if (old := before.get(name)) is not None and old.iou is not None and new.iou is not None
        ]
        fallen = sorted((fall for fall in falls if fall[0] >= _CLASS_FALL), reverse=True)
        if fallen:
            words = listed([f"{name} ({points(-fall)})" for fall, name in fallen[:3]])
            more = f" and {len(fallen) - 3} more" if len(fallen) > 3 else ""
            yield f"Classes whose IoU falls by {_CLASS_FALL:g} points or more with {one.name}: {words}{more}."
