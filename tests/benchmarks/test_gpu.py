"""The plan for a GPU machine: what is carried arrives whole, stages run once, and each costs itself only."""

import json
import stat
import sys
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu import Site, Stage, join_parts, read_state, run_plan, write_parts
from benchmarks.prepare_gpu import Cases, prepare
from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.evaluation.datasets import open_dataset
from tests.toy import ToyEngine, contract, write_onnx, write_pairs


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "gpu", tmp_path / "results", tmp_path / "work", sys.executable, sys.executable, seconds=0)


def stage(name: str, program: str, limit: int = 60) -> Stage:
    return Stage(name, "a test", limit, 0, 0, lambda site: [[site.python, "-c", program]])


def test_parts_arrive_whole_and_small(tmp_path: Path) -> None:
    folder = tmp_path / "here" / "net"
    folder.mkdir(parents=True)
    (folder / "big").write_bytes(bytes(range(256)) * 10_000)
    (folder / "small").write_text("a")
    written = write_parts([folder], tmp_path / "parts", size=1)
    assert len(written) == 4 and all(path.stat().st_size <= gpu.MIB for path in written)
    out = join_parts(tmp_path / "parts", tmp_path / "there")
    assert (out / "net" / "big").read_bytes() == (folder / "big").read_bytes()
    written[1].write_bytes(written[1].read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"part\.001 is missing or has changed"):
        join_parts(tmp_path / "parts", tmp_path / "other")


def test_a_stage_that_ran_is_not_run_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    count = "import pathlib; p = pathlib.Path(r'{}'); p.write_text(p.read_text() + 'x' if p.exists() else 'x')"
    mark = site.folder.with_name("mark")
    stages = (stage("first", count.format(mark)), stage("second", "raise SystemExit('no GPU here')"))
    monkeypatch.setattr(gpu, "STAGES", stages)
    assert {name: one["state"] for name, one in run_plan(site).items()} == {"first": "done", "second": "failed"}
    second = read_state(site.results)["second"]["commands"][0]
    assert second["exit"] == 1 and "no GPU here" in second["output"]
    run_plan(site)
    assert mark.read_text() == "x", "and the one that failed is tried again"
    run_plan(site, ["first"], again=True)
    assert mark.read_text() == "xx"
    with pytest.raises(OptionError, match="there is no stage 'third'; they are first, second"):
        run_plan(site, ["third"])


def test_a_stage_that_hangs_or_cannot_start_costs_itself_only(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = stage("hangs", "import time; print('begun', flush=True); time.sleep(60)", limit=2)
    absent = Stage("absent", "a test", 5, 0, 0, lambda site: [["/no/such/python"]])
    monkeypatch.setattr(gpu, "STAGES", (hangs, absent, stage("last", "print('fine')")))
    state = run_plan(site)
    assert [one["state"] for one in state.values()] == ["out of time", "failed", "done"]
    assert "begun" in state["hangs"]["commands"][0]["output"]
    assert json.loads((site.results / gpu.STATE).read_text()) == state


def test_every_stage_fits_the_machines_limits() -> None:
    assert all(stage.limit <= 600 for stage in gpu.STAGES)
    assert [stage.name for stage in gpu.STAGES] == [
        *("ceilings", "pytorch", "tensorrt", "onnxruntime", "end-to-end", "tests"),
    ]


@pytest.mark.slow
def test_rehearsal_with_the_stand_ins(site: Site, tmp_path: Path) -> None:
    graphs = [write_onnx(tmp_path / name, contract()) for name in ("toy.onnx", "toy.fp16.onnx")]
    dataset = open_dataset(write_pairs(tmp_path / "data", 5), "camvid")
    prepare(graphs, ToyEngine(contract()), dataset, Cases(images=3, outputs=4), site.folder)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("standin_python.py")} "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    rehearsed = Site(site.folder, site.results, site.work, sys.executable, str(python), seconds=0)
    state = run_plan(rehearsed, ["tensorrt", "end-to-end"])
    assert {name: one["state"] for name, one in state.items()} == {"tensorrt": "done", "end-to-end": "done"}, state
    written = {path.name for path in site.results.iterdir()}
    assert {"toy.stand-in-gpu.trt.json", "evaluate.toy.json", "evaluate.toy.fp16.json"} <= written
