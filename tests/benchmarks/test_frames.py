"""How many functions of this package lie between a command and the call that does its work."""

from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from benchmarks.frames import chain, evaluation_chain, export_chain
from ffnet_deploy.cli import export
from tests.toy import contract, write_onnx, write_pairs

# the command line comes from the process here, as for a user
pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")


def test_an_evaluation_reaches_the_engine_in_eight(tmp_path: Path) -> None:
    graph = write_onnx(tmp_path / "toy.onnx", contract())
    functions = evaluation_chain(graph, write_pairs(tmp_path / "data", 1))
    assert functions[0] == "cli/evaluate.py: main" and functions[-1] == "engines/onnxruntime.py: run"
    assert len(functions) <= 8, functions


def test_a_build_reaches_tensorrt_in_nine(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    graph = write_onnx(tmp_path / "toy.onnx", contract())
    arguments = ("--onnx", str(graph), "--backend", "trt-rtx", "--compute-capability", "8.6", "--out", str(tmp_path))
    functions = chain(export.main, "ffnet-export", arguments, "build_serialized_network")
    assert functions[0] == "cli/export.py: main" and functions[-1] == "engines/tensorrt/build.py: build_engine"
    assert len(functions) <= 9, functions


@pytest.mark.slow
def test_an_export_reaches_tensorrt_in_nine(tmp_path: Path) -> None:
    for package in ("tensorrt_rtx", "mmseg"):
        pytest.importorskip(package)
    functions = export_chain(tmp_path)
    assert len(functions) <= 9, functions


def test_a_call_that_never_comes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="without a call of no_such_function"):
        chain(export.main, "ffnet-export", ("--onnx", str(tmp_path / "none.onnx")), "no_such_function")
