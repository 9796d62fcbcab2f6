import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ffnet_deploy.cli.console import ExitCode
from ffnet_deploy.cli.evaluate import app
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.engines.cuda import NoDeviceError, find_device
from ffnet_deploy.engines.source import Backend, Source, backend_of
from tests.commands import Result, invoke
from tests.engines.tensorrt.conftest import Opener, cuda, start, trt  # noqa: F401  # fixtures
from tests.toy import contract, write_onnx, write_pairs


def run(*arguments: object) -> Result:
    return invoke(app, *arguments, env={"COLUMNS": "200"})


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("a.onnx", Backend.ONNXRUNTIME),
        ("a.int8.onnx", Backend.ONNXRUNTIME),
        ("a.fp16.engine", Backend.TENSORRT),
        ("a.fp16.rtx.engine", Backend.TENSORRT_RTX),
    ],
)
def test_the_backend_is_told_from_the_name(name: str, backend: Backend) -> None:
    assert backend_of(Path(name)) is backend
    assert Source(backend=backend, artifact=Path(name)).fitting_backend is backend


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"artifact": "a.onnx", "backend": Backend.TENSORRT}, r"--backend trt needs --artifact FILE\.engine"),
        ({"artifact": "a.engine", "backend": Backend.TENSORRT_RTX}, r"needs --artifact FILE\.rtx\.engine"),
        ({"artifact": "a.engine", "backend": Backend.ONNXRUNTIME}, r"needs --artifact FILE\.onnx"),
        ({"artifact": "a.onnx", "trust_engine": True}, "--trust-engine is for engines"),
        ({"artifact": "a.onnx", "engine_cache": "x"}, "--engine-cache goes with .*tensorrt"),
    ],
)
def test_options_that_do_not_fit_the_source_are_refused(options: dict[str, object], message: str) -> None:
    paths = {key: Path(str(value)) for key, value in options.items() if key in ("artifact", "engine_cache")}
    with pytest.raises(OptionError, match=message):
        Source(**{**options, **paths})


@pytest.mark.parametrize(
    ("device", "artifact", "message"),
    [
        ("cpu", "a.engine", "engines run on cuda or cuda:N, not 'cpu'"),
        ("cuda:x", "a.engine", "not 'cuda:x'"),
        ("gpu", "a.onnx", "not 'gpu'"),
    ],
)
def test_devices_that_are_none_are_refused(device: str, artifact: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Source(artifact=Path(artifact), device=device).open()


def test_an_absent_engine_is_one_error(tmp_path: Path) -> None:
    result = run("--artifact", tmp_path / "absent.engine", "--images", tmp_path)
    assert result.exit_code == 1 and result.stderr.count("error:") == 1
    assert "absent.engine" in result.stderr and "Traceback" not in result.output


def test_an_engine_is_scored_like_any_artefact(
    start: Opener,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("onnx")
    data = write_pairs(tmp_path / "data")
    start().close()  # leaves the bundle behind that the command opens
    engine = tmp_path / "toy.engine"
    engine.write_bytes(b"plan")
    result = run("--artifact", engine, "--backend", "trt", "--data", data, "--json", tmp_path / "trt.json")
    assert result.exit_code == 0, result.output
    graph = write_onnx(tmp_path / "toy.onnx", contract())
    assert run("--artifact", graph, "--data", data, "--json", tmp_path / "onnx.json").exit_code == 0
    found, expected = (json.loads((tmp_path / f"{kind}.json").read_text()) for kind in ("trt", "onnx"))
    assert found["mIoU"] == pytest.approx(expected["mIoU"], abs=0.05)
    assert (found["backend"], found["engine"]) == ("trt", "TensorRT 8.5.3 (Stand-in GPU)")


BLOCKED = ("torch", "mmseg", "mmengine", "mmcv", "onnx", "onnxruntime", "openvino", "scipy", "safetensors", "PIL")


def test_engines_need_no_onnx_runtime(tmp_path: Path) -> None:
    """What the command says of an engine on a machine with TensorRT alone is about the engine or the GPU."""
    (tmp_path / "toy.engine").write_bytes(b"plan")
    program = (
        f"import sys\nfor name in {BLOCKED!r}:\n    sys.modules[name] = None\n"
        "import ffnet_deploy.engines.tensorrt.runner, ffnet_deploy.engines.tensorrt.runner\n"
        "from ffnet_deploy.cli.evaluate import main\nmain()"
    )
    command = [sys.executable, "-c", program, "--artifact", str(tmp_path / "toy.engine"), "--images", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "toy.engine" in done.stderr and "onnxruntime" not in done.stderr


def test_a_machine_without_gpu_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        find_device()
    except NoDeviceError:
        pass
    else:
        pytest.skip("there is a GPU here")
    from ffnet_deploy.engines.tensorrt import runner

    def no_device(path: Path, trust: bool, device: int) -> SimpleNamespace:
        find_device(device)
        raise AssertionError

    monkeypatch.setattr(runner, "read_bundle", no_device)
    result = run("--artifact", tmp_path / "toy.engine", "--images", tmp_path)
    assert result.exit_code == ExitCode.NO_GPU and result.stderr.startswith("error: there is no CUDA device here")
