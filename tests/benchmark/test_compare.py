from dataclasses import replace

import pytest

from ffnet_deploy.benchmark.compare import compare
from ffnet_deploy.benchmark.record import Setting, TimingScope, Verdict
from ffnet_deploy.core.errors import OptionError
from tests.benchmark.runs import make_run, rows, run_of


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_slow_down_of_ten_percent_is_found(seed: int) -> None:
    old = make_run({"a": 10.0, "b": 12.0}, seed=seed)
    new = make_run({"a": 10.0, "b": 13.2}, seed=seed + 100)
    found = compare(new, old)
    assert [change.candidate for change in found.beyond(5)] == ["b"]
    same, slower = found.changes
    assert (same.ratio.verdict, slower.ratio.verdict) == (Verdict.SAME, Verdict.SLOWER)
    assert slower.percent == pytest.approx(10, abs=2)
    assert found.beyond(20) == ()


def test_what_became_faster_never_fails() -> None:
    found = compare(make_run({"a": 8.0}, seed=1), make_run({"a": 10.0}))
    assert found.changes[0].ratio.verdict is Verdict.FASTER
    assert found.beyond(0) == ()


def test_noise_is_no_regression() -> None:
    found = compare(make_run({"a": 10.0}, seed=3), make_run({"a": 10.0}))
    assert found.beyond(2) == ()
    assert found.changes[0].ratio.verdict is Verdict.SAME


def test_candidates_are_compared_at_the_same_setting_and_the_others_named() -> None:
    big = Setting(batch=8)
    old = run_of([*rows({"a": 10.0, "gone": 5.0}), *rows({"a": 70.0}, big)])
    new = run_of([*rows({"a": 10.0, "new": 5.0}, seed=1), *rows({"a": 140.0}, big, seed=1)])
    found = compare(new, old)
    assert [(change.candidate, change.setting.batch) for change in found.changes] == [("a", 1), ("a", 8)]
    assert found.changes[1].percent == pytest.approx(100, abs=5)
    assert "gone (1x512x512) is only in the old run" in found.notes
    assert "new (1x512x512) is only in the new run" in found.notes


def test_another_machine_is_told() -> None:
    old = make_run()
    cpu = replace(old.before.cpu, model="another processor", affinity=(0,))
    old = replace(old, before=replace(old.before, cpu=cpu), versions={"numpy": "1.0"})
    notes = compare(make_run(seed=1), old).notes
    assert "CPU differs: another processor then, a processor now" in notes
    assert "cores differs: 1 then, 2 now" in notes
    assert "numpy differs: 1.0 then, 2.0 now" in notes


def test_other_clocks_and_strangers_are_refused() -> None:
    old = make_run()
    other = replace(old, method=replace(old.method, scope=TimingScope.END_TO_END))
    with pytest.raises(OptionError, match="timed end-to-end and this one network"):
        compare(make_run(), other)
    with pytest.raises(OptionError, match="no candidate and setting in common"):
        compare(make_run({"x": 1.0}), old)


def test_too_few_rounds_prove_nothing() -> None:
    old, new = make_run({"a": 10.0}), make_run({"a": 20.0}, seed=1)
    short = replace(new.measurements[0], rounds_ms=new.measurements[0].rounds_ms[:3])
    found = compare(replace(new, measurements=(short,)), old)
    assert found.beyond(5) == ()
    assert any("nothing is certain" in note for note in found.notes)
