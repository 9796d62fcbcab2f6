"""The rules by which benchmarks/stops.py judges a run that a signal was sent to."""

import math
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.stops import Job, Tally, interrupt, interrupted_once, returned


@dataclass(frozen=True)
class Script(Job):
    """A shell script in the place of a command; SIGTERM is ignored from its start."""

    def start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ["sh", "-c", self.command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
        )


def judged(script: str, folder: Path) -> tuple[bool, Tally]:
    tally = Tally("job", "stop", 0, 0, 0, 0.0, [])
    return interrupted_once(Script("job", script, (), folder), signal.SIGTERM, 0.0, tally), tally


def test_a_run_that_went_on_to_its_end_after_the_signal_is_a_fault(tmp_path: Path) -> None:
    for said in ("returned 1e18", "nothing"):
        sent, tally = judged(f"sleep 0.2; echo {said} >&2", tmp_path)
        assert sent and (tally.sent, tally.right) == (1, 0)
        assert "SIGTERM at 0.00 s: exit code 0" in tally.faults[0]


def test_a_run_that_had_returned_before_the_signal_is_over(tmp_path: Path) -> None:
    sent, tally = judged("echo returned 0 >&2; sleep 0.2", tmp_path)
    assert not sent and tally.sent == 0 and not tally.faults


def test_an_undocumented_code_and_half_a_file_are_faults(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text('{"mIoU": 6')
    sent, tally = judged("sleep 0.2; exit 1", tmp_path)
    assert sent and [fault.split(": ")[1] for fault in tally.faults] == ["half-written", "exit code 1"]


def test_runs_that_end_early_are_repeated_with_an_earlier_signal_and_all_is_kept(tmp_path: Path) -> None:
    tally, kept = Tally("job", "stop", 0, 0, 0, 0.0, []), []
    job = Script("job", f"mkdir {tmp_path}/ran 2>/dev/null && exit 0; sleep 0.2; exit 143", (), tmp_path)
    interrupt(job, (signal.SIGTERM,), 1, 0.2, tally, lambda: kept.append(tally.sent))
    assert (tally.sent, tally.right, tally.ended_before, kept) == (1, 1, 1, [1])


@pytest.mark.parametrize(("errors", "when"), [("", math.inf), ("note: x\nreturned 12.5\n", 12.5)])
def test_a_run_says_when_it_returned(errors: str, when: float) -> None:
    assert returned(errors) == when
