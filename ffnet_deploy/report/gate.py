"""Whether the candidates of a report pass the gate: what was measured, checked and promised."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ffnet_deploy.benchmark.record import OutputCheck
from ffnet_deploy.evaluation.scores import MiouLimit
from ffnet_deploy.report.data import CandidateResults, ReportData
from ffnet_deploy.report.format import percent, points, share

_DEEPEST = 4
_BASES = {"by_precision": "the built engine's layers, as its inspector lists them"}
_OTHERWISE = "the types of the network as parsed"


@dataclass(frozen=True)
class RequestedPrecision:
    """What the graph's types and Q/DQ nodes ask for.

    Attributes:
        precision: The lowest type, for instance ``"int8"``.
        base: The type of what is not quantised.
        quantized: Number of quantised convolutions.
        float32: Number of nodes kept in FP32.
    """

    precision: str
    base: str
    quantized: int
    float32: int


@dataclass(frozen=True)
class PrecisionFindings:
    """What a precision check found.

    Attributes:
        basis: What the check rests on, in words.
        counts: Numbers of layers by type, for each thing that was counted.
        numbers: Other numbers, by name.
        violations: What is not as asked for; empty where the check holds.
    """

    basis: str
    counts: Mapping[str, Mapping[str, int]]
    numbers: Mapping[str, int]
    violations: tuple[str, ...]


def requested_precision(candidate: CandidateResults) -> RequestedPrecision | None:
    """What the candidate's manifest says was asked for; None where it does not."""
    for section in _sections((candidate.manifest or {}).get("precision")):
        if "precision" in section and "base" in section:
            return RequestedPrecision(
                str(section["precision"]),
                str(section["base"]),
                len(section.get("quantized") or ()),
                len(section.get("float32") or ()),
            )
    return None


def precision_findings(candidate: CandidateResults) -> tuple[PrecisionFindings, ...]:
    """What the candidate's manifest says was found, in its sections ``precision_check`` and ``precision``."""
    manifest = candidate.manifest or {}
    sections = (*_sections(manifest.get("precision_check")), *_sections(manifest.get("precision")))
    return tuple(_findings(section) for section in sections if isinstance(section.get("violations"), list | tuple))


def _sections(value: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    if not isinstance(value, Mapping) or depth > _DEEPEST:
        return
    yield value
    for part in value.values():
        yield from _sections(part, depth + 1)


def _findings(section: Mapping[str, Any]) -> PrecisionFindings:
    counts = {
        name.replace("_", " "): {str(kind): count for kind, count in part.items() if isinstance(count, int)}
        for name, part in section.items()
        if isinstance(part, Mapping)
    }
    numbers = {name.replace("_", " "): value for name, value in section.items() if isinstance(value, int)}
    basis = next((words for name, words in _BASES.items() if name in section), _OTHERWISE)
    return PrecisionFindings(basis, counts, numbers, tuple(str(one) for one in section["violations"]))


class GateOutcome(str, Enum):
    """How a check ended."""

    HOLDS = "holds"
    FAILS = "fails"
    UNKNOWN = "not measured"


@dataclass(frozen=True)
class Check:
    """One thing that the gate asks of a candidate.

    Attributes:
        candidate: Name of the candidate.
        asked: What must hold, in words.
        found: What was measured, in words.
        outcome: Outcome of the comparison.
    """

    candidate: str
    asked: str
    found: str
    outcome: GateOutcome

    @property
    def is_open(self) -> bool:
        """Whether it was neither passed nor failed."""
        return self.outcome is GateOutcome.UNKNOWN


def checks(data: ReportData) -> tuple[Check, ...]:
    """All checks, candidate by candidate."""
    return tuple(check for candidate in data.candidates for check in _checks(data, candidate))


def verdict(found: tuple[Check, ...]) -> GateOutcome:
    """Fails when one check fails, holds when at least one holds and none fails."""
    outcomes = {check.outcome for check in found}
    return next((one for one in (GateOutcome.FAILS, GateOutcome.HOLDS) if one in outcomes), GateOutcome.UNKNOWN)


def miou_drop(first: CandidateResults, other: CandidateResults) -> float | None:
    """Fall of mIoU from the `first` candidate to the `other`, points; None where one was not scored."""
    before, after = first.scores, other.scores
    return None if before is None or after is None else before.mean_iou - after.mean_iou


def _checks(data: ReportData, candidate: CandidateResults) -> Iterator[Check]:
    if candidate is not data.first and (data.first.scores or candidate.scores):
        yield _drop_check(data, candidate)
    manifest = candidate.manifest or {}
    if isinstance(manifest.get("verification"), dict):
        yield _verification_check(candidate, manifest["verification"])
    for findings in precision_findings(candidate):
        yield _precision_check(candidate, findings)
    outputs = [one.check for one in candidate.measurements if one.check is not None]
    if outputs:
        # of a sweep the worst: one wrong setting is enough
        yield _output_check(candidate, min(outputs, key=lambda check: (check.passed, check.agreement)))


def _output_check(candidate: CandidateResults, check: OutputCheck) -> Check:
    found = f"{share(check.agreement)} same labels"
    if check.passed and check.least <= 0:
        asked = f"output as of {check.against}: any agreement was accepted"
        return Check(candidate.name, asked, found, GateOutcome.UNKNOWN)
    asked = f"output as of {check.against}: at least {share(check.least)} same labels"
    return Check(candidate.name, asked, found, GateOutcome.HOLDS if check.passed else GateOutcome.FAILS)


def _drop_check(data: ReportData, candidate: CandidateResults) -> Check:
    asked = f"mIoU {limit_in_words(data.limit, data.first.name)}"
    drop = miou_drop(data.first, candidate)
    if drop is None:
        return Check(candidate.name, asked, "not scored", GateOutcome.UNKNOWN)
    outcome = GateOutcome.HOLDS if within(data.limit, data.first, candidate) else GateOutcome.FAILS
    return Check(candidate.name, asked, f"{points(-drop)} points", outcome)


def within(limit: MiouLimit, first: CandidateResults, other: CandidateResults) -> bool:
    """Whether the mIoU of `other` has fallen no further than `limit` allows; False where one was not scored."""
    drop = miou_drop(first, other)
    return drop is not None and first.scores is not None and drop <= limit.allowed_drop(first.scores.mean_iou)


def limit_in_words(limit: MiouLimit, reference: str) -> str:
    """What `limit` asks of an mIoU, as in "mIoU at least 99.9 % of NAME's"."""
    if limit.tier is not None:
        return f"at least {limit.tier:g} % of {reference}'s"
    return f"at most {percent(limit.points)} points below {reference}"


def _verification_check(candidate: CandidateResults, verification: dict[str, Any]) -> Check:
    passed = verification.get("passed")
    asked = f"verified at export against {verification.get('reference', 'its source')}"
    if not isinstance(passed, bool):
        return Check(candidate.name, asked, not_run(verification), GateOutcome.UNKNOWN)
    failures = [str(failure) for failure in verification.get("failures") or ()]
    count = len(verification.get("comparisons") or ())
    found = f"within tolerance in {count} comparisons" if passed else "; ".join(failures) or "out of tolerance"
    return Check(candidate.name, asked, found, GateOutcome.HOLDS if passed else GateOutcome.FAILS)


def not_run(verification: Mapping[str, Any]) -> str:
    """Why a verification was not run, and what runs it, as far as its record says."""
    reason, command = verification.get("reason"), verification.get("command")
    return "not run" + (f": {reason}" if reason else "") + (f"; to do: {command}" if command else "")


def _precision_check(candidate: CandidateResults, findings: PrecisionFindings) -> Check:
    asked = f"in the precision asked for, by {findings.basis}"
    if not findings.violations:
        return Check(candidate.name, asked, "every layer as asked", GateOutcome.HOLDS)
    first, *others = findings.violations
    return Check(candidate.name, asked, first + (f" and {len(others)} more" if others else ""), GateOutcome.FAILS)
