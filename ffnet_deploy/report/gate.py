"""Whether a report's contenders hold the gate: what was measured against what was promised."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ffnet_deploy.report.data import Contender, ReportData
from ffnet_deploy.report.format import percent, points, share
from ffnet_deploy.report.proof import Proof, proofs_of


class Outcome(str, Enum):
    """How a check ended."""

    HOLDS = "holds"
    FAILS = "fails"
    UNKNOWN = "not measured"


@dataclass(frozen=True)
class Check:
    """One thing that the gate asks of a contender.

    Attributes:
        contender: its name.
        asked: what must hold, in words.
        found: what was measured, in words.
        outcome: of the comparison.
    """

    contender: str
    asked: str
    found: str
    outcome: Outcome


def checks(data: ReportData) -> tuple[Check, ...]:
    """All checks, contender by contender."""
    return tuple(check for contender in data.contenders for check in _checks(data, contender))


def verdict(found: tuple[Check, ...]) -> Outcome:
    """Fails when one check fails, holds when at least one holds and none fails."""
    outcomes = {check.outcome for check in found}
    return next((one for one in (Outcome.FAILS, Outcome.HOLDS) if one in outcomes), Outcome.UNKNOWN)


def miou_drop(first: Contender, other: Contender) -> float | None:
    """Fall of mIoU from the `first` contender to the `other`, points; None where one was not scored."""
    before, after = first.scores, other.scores
    return None if before is None or after is None else before.mean_iou - after.mean_iou


def _checks(data: ReportData, contender: Contender) -> Iterator[Check]:
    if contender is not data.first and (data.first.scores or contender.scores):
        yield _drop_check(data, contender)
    manifest = contender.manifest or {}
    if isinstance(manifest.get("verification"), dict):
        yield _verification_check(contender, manifest["verification"])
    for proof in proofs_of(contender):
        yield _proof_check(contender, proof)
    for measurement in contender.measurements:
        if measurement.check is not None:
            asked = f"output as of {measurement.check.against}: at least {share(measurement.check.least)} same labels"
            outcome = Outcome.HOLDS if measurement.check.passed else Outcome.FAILS
            yield Check(contender.name, asked, f"{share(measurement.check.agreement)} same labels", outcome)
            break


def _drop_check(data: ReportData, contender: Contender) -> Check:
    asked = f"mIoU at most {percent(data.max_drop)} points below {data.first.name}"
    drop = miou_drop(data.first, contender)
    if drop is None:
        return Check(contender.name, asked, "not scored", Outcome.UNKNOWN)
    outcome = Outcome.HOLDS if drop <= data.max_drop else Outcome.FAILS
    return Check(contender.name, asked, f"{points(-drop)} points", outcome)


def _verification_check(contender: Contender, verification: dict[str, Any]) -> Check:
    passed = verification.get("passed")
    asked = f"verified at export against {verification.get('reference', 'its source')}"
    if not isinstance(passed, bool):
        return Check(contender.name, asked, not_run(verification), Outcome.UNKNOWN)
    failures = [str(failure) for failure in verification.get("failures") or ()]
    count = len(verification.get("comparisons") or ())
    found = f"within tolerance in {count} comparisons" if passed else "; ".join(failures) or "out of tolerance"
    return Check(contender.name, asked, found, Outcome.HOLDS if passed else Outcome.FAILS)


def not_run(verification: Mapping[str, Any]) -> str:
    """Why a verification was not run, and what runs it, as far as its record says."""
    reason, command = verification.get("reason"), verification.get("command")
    return "not run" + (f": {reason}" if reason else "") + (f"; to do: {command}" if command else "")


def _proof_check(contender: Contender, proof: Proof) -> Check:
    asked = f"in the precision asked for, by {proof.source}"
    if not proof.violations:
        return Check(contender.name, asked, "every layer as asked", Outcome.HOLDS)
    more = len(proof.violations) - 1
    return Check(contender.name, asked, proof.violations[0] + (f" and {more} more" if more else ""), Outcome.FAILS)
