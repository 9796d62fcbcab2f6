"""The plan for a GPU machine: what is carried arrives whole, steps run once, and each costs itself only."""

import json
import random
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("mmseg")

from benchmarks import gpu, prepare_gpu
from benchmarks.gpu import Site, Step, read_state, run_plan, steps
from benchmarks.prepare_gpu import Network, list_transfers, prepare, write_parts
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.export import engine
from tests.benchmarks import standin_python
from tests.benchmarks.conftest import write_toy_reference


@pytest.fixture
def site(tmp_path: Path) -> Site:
    folders = (tmp_path / name for name in ("networks", "results", "work"))
    return Site(*folders, sys.executable, sys.executable, "cpu", seconds=0, samples=1)


def step(name: str, program: str, limit: int = 60, **settings: Any) -> Step:
    return Step("graphs", name, limit, 0, 0, [sys.executable, "-c", program], **settings)


def planned(monkeypatch: pytest.MonkeyPatch, *chosen: Step) -> None:
    monkeypatch.setattr(gpu, "steps", lambda site: iter(chosen))


def states(found: dict[str, Any]) -> dict[str, str]:
    return {name: one["state"] for name, one in found.items()}


def test_parts_arrive_whole_and_small(tmp_path: Path) -> None:
    folder = tmp_path / "machine"
    folder.mkdir()
    content = random.Random(0).randbytes(3 << 20)
    (folder / "big").write_bytes(content)
    parts = write_parts(folder, tmp_path / "parts", size=1)
    assert len(parts) > 2 and all(path.stat().st_size <= gpu.MIB for path in parts)
    there = shutil.copytree(tmp_path / "parts", tmp_path / "there")
    assert subprocess.run(prepare_gpu.UNPACK, shell=True, cwd=there).returncode == 0
    assert (there / "big").read_bytes() == content
    (there / "gpu.part.001").write_bytes(b"damaged")
    done = subprocess.run(prepare_gpu.UNPACK, shell=True, cwd=there, capture_output=True, text=True)
    assert done.returncode != 0 and "gpu.part.001: FAILED" in done.stdout


def test_transfers_are_listed_with_their_sizes(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "file").write_bytes(bytes(1000))
    parts = write_parts(tmp_path / "here", tmp_path / "parts")
    also = tmp_path / "also"
    also.mkdir()
    for name, size in (("trt.part.aa", 45 * gpu.MIB), ("trt.part.ab", 10), ("trt.sha256", 10)):
        (also / name).write_bytes(bytes(size))
    page = list_transfers(parts, also, 13 * gpu.MIB)
    assert "| 1 | gpu.part.000, gpu.sha256 | 0.0 | 13.0 |" in page
    assert "| 2 | trt.part.aa, trt.sha256 | 45.0 | 58.0 |" in page and "| 3 | trt.part.ab |" in page
    assert "after transfer 1:" in page and "after transfer 3:" in page
    with pytest.raises(OptionError, match=r"transfer 2 has 65\.0 MiB"):
        list_transfers(parts, also, 20 * gpu.MIB)


def test_a_step_that_ran_is_not_run_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = site.folder.with_name("mark")
    count = f"open(r'{mark}', 'a').write('x')"
    planned(
        monkeypatch,
        step("fails", "raise SystemExit('no GPU here')"),
        step("counts", count),
        step("waits", "", obstacle=lambda: "it is not built"),
    )
    assert states(run_plan(site, 600)) == {"graphs fails": "failed", "graphs counts": "done", "graphs waits": "skipped"}
    state = read_state(site.results)
    assert state["graphs fails"]["exit"] == 1 and "no GPU here" in state["graphs fails"]["output"]
    assert state["graphs waits"]["reason"] == "it is not built"
    run_plan(site, 600)
    assert mark.read_text() == "x"
    with pytest.raises(OptionError, match="there is no stage 'third'; they are graphs, ceilings"):
        run_plan(site, 600, ["third"])


def test_a_step_that_hangs_or_cannot_start_costs_itself_only(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = step("hangs", "import time; print('begun', flush=True); time.sleep(60)", limit=2)
    absent = replace(step("absent", ""), command=["/no/such/python"])
    planned(monkeypatch, hangs, absent, step("last", "print('fine')"))
    state = run_plan(site, 600)
    assert list(states(state).values()) == ["out of time", "failed", "done"]
    assert "begun" in state["graphs hangs"]["output"]
    assert json.loads((site.results / gpu.STATE).read_text()) == state


def test_a_run_ends_where_a_step_does_not_fit_and_failed_ones_come_last(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = site.folder.with_name("mark")
    write = f"open(r'{mark}', 'a').write"
    long = step("long", f"{write}('long ')", limit=300)
    short = step("short", f"{write}('short '); raise SystemExit(1)", limit=20)
    after = step("after", f"{write}('after ')", limit=10)
    planned(monkeypatch, short, long, after)
    assert list(run_plan(site, 100)) == ["graphs short"]
    run_plan(site, 600)
    assert mark.read_text() == "short long after short "


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs modules where PyTorch is loaded already, on the stand-ins of CUDA and TensorRT; other commands as usual."""
    usual = gpu.run_process
    for name, module in standin_python.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(engine, "build_plan", standin_python.build_plan)

    def run(command: list[str], limit: float, environment: Mapping[str, str]) -> tuple[int | None, str]:
        if command[1:2] != ["-m"] or command[2] == "pytest":
            return usual(command, limit, environment)
        _, _, module, *arguments = command
        with monkeypatch.context() as patched:
            patched.setattr(sys, "argv", [module, *arguments])
            patched.delitem(sys.modules, module, raising=False)
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except SystemExit as end:
                return int(end.code or 0), ""
        raise AssertionError(f"{module} has no exit code")

    return run


@pytest.fixture
def prepared(site: Site, tiny_files: dict[str, tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A trained network of toy graphs with labelled images, and one whose weights follow from their names."""
    monkeypatch.setattr(prepare_gpu, "OBSERVED", 2)
    config, _ = tiny_files["tiny_seg"]
    prepare([Network(str(config), (64, 96))], site.folder)
    write_toy_reference(site.folder)
    yield site


@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
def test_every_step_in_rehearsal(
    prepared: Site, in_this_process: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[list[str]] = []

    def run(command: list[str], limit: float, environment: Mapping[str, str]) -> tuple[int | None, str]:
        if command[1:2] == ["-m"]:  # and no question to the system
            written.append(sorted(read_state(prepared.results)))
        return in_this_process(command, limit, environment)

    monkeypatch.setattr(gpu, "run_process", run)
    chosen = [stage for stage in gpu.STAGES if stage != "compiled"]  # which runs the module of "pytorch", slowly
    state = run_plan(prepared, 10_000, chosen)
    assert {one.stage for one in steps(prepared)} == set(gpu.STAGES)
    assert all(one.limit <= 570 for one in steps(prepared))
    bad = {name: one for name, one in state.items() if one["state"] != "done"}
    assert set(bad) == {"onnxruntime tiny_seg", "onnxruntime tiny_seg.rewritten", "onnxruntime toy"}, bad
    assert all("no CUDAExecutionProvider" in one["reason"] for one in bad.values())
    assert [len(names) for names in written] == sorted(len(names) for names in written), "the state grows step by step"
    assert written[0] == [] and len(written[-1]) == len(state) - 1
    for name in ("ceilings", "pytorch.tiny_seg", "layers.tiny_seg", "evaluate.toy.onnx"):
        assert json.loads((prepared.results / f"{name}.json").read_text()), name
    for ending in ("", ".fp16", ".int8", ".rewritten", ".rewritten.fp16", ".rewritten.int8"):
        record = json.loads((prepared.results / f"engine.tiny_seg{ending}.onnx.json").read_text())
        assert record["verification"]["passed"] and record["streams"], ending
    again = len(written)
    run_plan(prepared, 10_000, chosen)
    assert len(written) == again, "nothing runs twice"
