import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ffnet_deploy.benchmark.files import FORMAT, read_run, run_to_dict, write_run
from ffnet_deploy.benchmark.record import BenchRun, TimingScope
from ffnet_deploy.core.errors import ArtifactError, StorageError
from tests.benchmark.runs import make_run, with_everything


@pytest.mark.parametrize("run", [make_run(), with_everything()], ids=["plain", "with everything"])
def test_a_run_is_read_as_it_was_written(run: BenchRun, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_run(path, run)
    assert read_run(path) == run


def test_every_sample_is_in_the_file(tmp_path: Path) -> None:
    run = make_run()
    write_run(tmp_path / "run.json", run)
    written = json.loads((tmp_path / "run.json").read_text())
    for row, measured in zip(written["measurements"], run.measurements, strict=True):
        assert tuple(map(tuple, row["rounds_ms"])) == measured.rounds_ms


def test_the_files_of_another_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps({**run_to_dict(make_run()), "format": FORMAT + 1}))
    with pytest.raises(ArtifactError, match=rf"has format {FORMAT + 1}; this version .* 1 and {FORMAT}(?s:.)*to do"):
        read_run(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        ("[1]", "not written by ffnet-bench"),
        ('{"mIoU": 12}', "not written by ffnet-bench"),
    ],
)
def test_other_files_are_refused(content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ArtifactError, match=reason):
        read_run(tmp_path / "x.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"there is no file .*gone\.json"):
        read_run(tmp_path / "gone.json")


@pytest.mark.parametrize(
    ("entry", "value", "where"),
    [
        ("measurements", 3, "measurements"),
        ("candidates", [{"name": "a"}], r"candidates\[0\] lacks engine"),
        ("interrupted", "no", "interrupted"),
        ("method", {**run_to_dict(make_run())["method"], "scope": "lunch"}, "method.scope"),
        ("method", {**run_to_dict(make_run())["method"], "samples": 0}, "samples"),
    ],
)
def test_the_damaged_entry_is_named(entry: str, value: object, where: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({**run_to_dict(make_run()), entry: value}))
    with pytest.raises(ArtifactError, match=f"is damaged: .*{where}"):
        read_run(tmp_path / "x.json")


def test_a_missing_entry_is_named(tmp_path: Path) -> None:
    content = run_to_dict(make_run())
    del content["measurements"][1]["summary"]["p95"]
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=r"measurements\[1\].summary lacks p95"):
        read_run(tmp_path / "x.json")


def in_format_1(run: BenchRun) -> dict[str, Any]:
    """`run` as version 0.1.0 of the toolkit wrote it."""
    text = json.dumps(run_to_dict(run)).replace('"candidate', '"contender').replace('"scope"', '"content"')
    return {**json.loads(text), "format": 1}


def test_the_files_of_format_1_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(in_format_1(with_everything())))
    assert read_run(path) == with_everything()


@pytest.mark.parametrize(
    ("old", "scope"),
    [("network", TimingScope.NETWORK), ("transfers", TimingScope.DEVICE), ("end-to-end", TimingScope.FILE)],
)
def test_the_clocks_of_format_1_mean_what_they_meant(old: str, scope: TimingScope, tmp_path: Path) -> None:
    content = in_format_1(make_run())
    content["method"]["content"] = old
    (tmp_path / "old.json").write_text(json.dumps(content))
    assert read_run(tmp_path / "old.json").method.scope is scope


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    (tmp_path / "run.json").mkdir()
    with pytest.raises(StorageError):
        write_run(tmp_path / "run.json", replace(make_run()))
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
