"""What a report concludes, in words."""

from dataclasses import replace
from typing import Any

import pytest

from ffnet_deploy.benchmark.record import Interval, OutputCheck, ProfileRow, Ratio, Setting, Summary, Verdict
from ffnet_deploy.report.data import CandidateResults, ReportData
from ffnet_deploy.report.gate import GateOutcome, checks, verdict
from ffnet_deploy.report.markdown import markdown
from ffnet_deploy.report.page import page
from ffnet_deploy.report.verdict import conclusions, findings, not_judged
from tests.report.examples import NAMES, example, measurement
from tests.report.reading import parse


def timed(name: str, precision: str, median: float, first: float = 40.0, **changes: Any) -> CandidateResults:
    found = measurement(name, median, first)
    summary = replace(found.summary, median=median, median_interval=Interval(median * 0.99, median * 1.01))
    ratio = None
    if median != first:
        kind = Verdict.FASTER if median < first else Verdict.SLOWER
        ratio = Ratio("PyTorch", median / first, Interval(median / first * 0.99, median / first * 1.01), kind)
    check = None if ratio is None else OutputCheck("PyTorch", 100.0, 0.0, 99.0, True)
    row = replace(found, summary=summary, ratio=ratio, check=check, profile=None, **changes)
    return CandidateResults(name, f"{name} 1.0", precision=precision, measurements=(row,))


def report(*candidates: CandidateResults) -> ReportData:
    return ReportData("net", "2026-01-02T03:04:05+00:00", candidates)


def concluded(data: ReportData) -> tuple[str, ...]:
    return conclusions(data, checks(data))


def test_the_first_sentence_says_what_to_use_and_the_second_what_is_faster_still() -> None:
    data = report(timed("PyTorch", "fp32", 40.0), timed("OpenVINO", "fp32", 14.3), timed("OpenVINO INT8", "int8", 10.0))
    assert concluded(data) == (
        "On this machine use OpenVINO: 2.8 times as fast as PyTorch, the same labels.",
        "OpenVINO INT8 (INT8) passes the gate and is 1.4 times faster still, the same labels.",
    )
    text = page(data)
    assert text.index("On this machine use OpenVINO") < text.index("judgement holds")
    assert f"**{concluded(data)[0]}**" in markdown(data).replace("\\", "")


def test_what_fails_the_gate_is_never_recommended() -> None:
    wrong = OutputCheck("PyTorch", 61.0, 0.5, 99.0, False)
    fast = timed("broken", "fp32", 2.0)
    fast = replace(fast, measurements=(replace(fast.measurements[0], check=wrong),))
    first, second = concluded(report(timed("PyTorch", "fp32", 40.0), fast))
    assert first == "On this machine use PyTorch: nothing else that passes the gate is certainly faster."
    assert second.startswith("Do not use broken: the gate asks for output as of PyTorch")
    assert "61.0 % same labels" in second


def test_what_is_not_certainly_faster_is_not_called_so() -> None:
    close = timed("other", "fp32", 39.0)
    ratio = Ratio("PyTorch", 0.975, Interval(0.94, 1.01), Verdict.SAME)
    close = replace(close, measurements=(replace(close.measurements[0], ratio=ratio),))
    (sentence,) = concluded(report(timed("PyTorch", "fp32", 40.0), close))
    assert sentence == "On this machine use other or PyTorch: neither is certainly faster."


def test_one_wrong_setting_of_a_sweep_fails_the_gate() -> None:
    one = timed("other", "fp32", 20.0)
    (row,) = one.measurements
    wrong = replace(row, setting=Setting(8), check=OutputCheck("PyTorch", 12.0, None, 99.0, False))
    found = checks(report(timed("PyTorch", "fp32", 40.0), replace(one, measurements=(row, wrong))))
    assert verdict(found) is GateOutcome.FAILS


def test_green_does_not_stand_over_what_was_not_judged() -> None:
    """A run with ``--min-agreement 0`` accepts any labels: that is no check that holds."""
    one = timed("other", "fp32", 20.0)
    unjudged = replace(one.measurements[0], check=OutputCheck("PyTorch", 61.0, 0.5, 0.0, True))
    data = report(timed("PyTorch", "fp32", 40.0), replace(one, measurements=(unjudged,)))
    found = checks(data)
    assert verdict(found) is GateOutcome.UNKNOWN
    said = not_judged(data, found)
    assert "any agreement was accepted (other: 61.0 % same labels)" in said
    assert "accuracy on labelled images" in said
    judgement = parse(page(data)).all("div", class_="judgement")[0]
    assert not judgement.has("class_", "holds")
    assert said in judgement.text


def test_what_dominates_is_named() -> None:
    data = example()
    row = ProfileRow("/decode_head/Resize", "upsample", "Resize", 7.0, 70.0)
    (first,) = data.first.measurements
    profile = replace(first.profile, layers=(row, *first.profile.layers[1:]))
    changed = replace(data.first, measurements=(replace(first, profile=profile),))
    sentences = findings(replace(data, candidates=(changed, *data.candidates[1:])))
    assert f"70 % of the time of {NAMES[0]} is one layer: Resize /decode_head/Resize." in sentences
    slow = replace(first.summary, p99=first.summary.median * 3)
    assert isinstance(slow, Summary)
    tail = replace(data.first, measurements=(replace(first, summary=slow),))
    assert any(
        "takes 3.0 times the median" in one for one in findings(replace(data, candidates=(tail, *data.candidates[1:])))
    )


FOREIGN = "road[/] <script>alert(1)</script> 'a' \"b\" | `c` [d](e)"


@pytest.mark.parametrize("place", ["class", "name", "artifact", "note", "block"])
def test_foreign_text_is_only_text_in_page_and_markdown(place: str) -> None:
    data = example(1)
    first = data.first
    if place == "class":
        scores = replace(first.scores, per_class={FOREIGN: next(iter(first.scores.per_class.values()))})
        first = replace(first, accuracy=replace(first.accuracy, scores=replace(scores, confusion=((1,),))))
        data = replace(data, classes=(FOREIGN, *data.classes[1:]))
    elif place == "block":
        row = ProfileRow(FOREIGN, FOREIGN, FOREIGN, 9.0, 90.0)
        timing = first.measurements[0]
        profile = replace(timing.profile, layers=(row,), blocks=(row,))
        first = replace(first, measurements=(replace(timing, profile=profile),))
    else:
        value: Any = (FOREIGN,) if place == "note" else FOREIGN
        first = replace(first, **{{"note": "notes"}.get(place, place): value})
    data = replace(data, candidates=(first, *data.candidates[1:]))
    document = parse(page(data))
    assert FOREIGN in document.text
    assert len(document.all("script")) == 1
    text = markdown(data)
    assert "<script>" not in text
    assert "[d](e)" not in text
    assert "road\\[/\\]" in text
