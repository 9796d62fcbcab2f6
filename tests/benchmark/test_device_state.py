import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ffnet_deploy.benchmark import device_state
from ffnet_deploy.benchmark.device_state import environment, package_versions, read_state
from ffnet_deploy.benchmark.record import JetsonState
from ffnet_deploy.benchmark.results import with_warnings
from tests.benchmark.runs import make_run, with_everything


def test_this_machine_is_described() -> None:
    state = read_state()
    assert state.cpu.model
    assert 1 <= len(state.cpu.affinity) <= state.cpu.cores
    assert all(value >= 0 for value in state.cpu.load)


def test_variables_that_steer_threads_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("KMP_BLOCKTIME", raising=False)
    found = environment()
    assert found["OMP_NUM_THREADS"] == "3"
    assert "KMP_BLOCKTIME" not in found
    assert {"numpy", "ffnet-deploy"} <= set(package_versions())


class NvmlError(Exception):
    pass


def nvml(**answers: Any) -> SimpleNamespace:
    """NVML as its Python bindings offer it, with one GPU; an answer that is an exception is raised."""

    def call(name: str) -> Any:
        def answer(*arguments: Any) -> Any:
            value = found[name]
            if isinstance(value, Exception):
                raise value
            return value

        return answer

    found = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlSystemGetDriverVersion": b"570.1",
        "nvmlDeviceGetCount": 1,
        "nvmlDeviceGetHandleByIndex": "device",
        "nvmlDeviceGetName": "NVIDIA H200",
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=5, total=9),
        "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=-1)],
        "nvmlDeviceGetPowerUsage": 123456,
        "nvmlDeviceGetCurrentClocksThrottleReasons": 0b100,
        "nvmlDeviceGetClockInfo": 1980,
        "nvmlDeviceGetTemperature": 41,
    }
    found.update(answers)
    constants = {
        "NVML_CLOCK_SM": 1,
        "NVML_CLOCK_MEM": 2,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlClocksThrottleReasonSwPowerCap": 0b100,
        "nvmlClocksThrottleReasonHwSlowdown": 0b1000,
    }
    return SimpleNamespace(NVMLError=NvmlError, **constants, **{name: call(name) for name in found})


@pytest.fixture
def with_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_state, "has_nvidia_driver", lambda: True)


def test_a_gpu_is_described(with_driver: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml())  # type: ignore[arg-type]
    (gpu,) = read_state().gpus
    assert (gpu.name, gpu.driver, gpu.watts, gpu.celsius) == ("NVIDIA H200", "570.1", 123.456, 41)
    assert (gpu.throttle, gpu.memory_used, gpu.memory_total, gpu.processes) == (("power cap",), 5, 9, 1)


def test_what_a_gpu_does_not_tell_is_left_out(with_driver: None, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {name: NvmlError("not supported") for name in ("nvmlDeviceGetPowerUsage", "nvmlDeviceGetMemoryInfo")}
    monkeypatch.setitem(sys.modules, "pynvml", nvml(**answers))  # type: ignore[arg-type]
    (gpu,) = read_state().gpus
    assert (gpu.watts, gpu.memory_total, gpu.celsius) == (None, None, 41)


@pytest.mark.parametrize("failing", ["nvmlInit", "nvmlDeviceGetCount"])
def test_a_gpu_that_cannot_be_asked_is_a_note(failing: str, with_driver: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(**{failing: NvmlError("driver mismatch")}))  # type: ignore[arg-type]
    state = read_state()
    assert state.gpus == ()
    assert "driver mismatch" in state.notes[0]


def test_bindings_that_are_missing_are_named(with_driver: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    state = read_state()
    assert state.gpus == ()
    assert "pip install" in state.notes[0]


def test_files_that_are_not_there_leave_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_state, "_text", lambda path: "")
    state = read_state()
    assert (state.cpu.governor, state.cpu.megahertz) == (None, None)


def test_throttling_sharing_and_failures_are_warnings() -> None:
    run = with_warnings(with_everything(), ["a note of the run"])
    text = "\n".join(run.warnings)
    assert "GPU 0 held its clocks down: power cap" in text
    assert "GPU 0 was shared with 2 other processes" in text
    assert "ended early, after 100 samples: RuntimeError: gone" in text
    assert "stopped by hand" in text
    assert "a note of the run" in text
    assert len(set(run.warnings)) == len(run.warnings)


def test_a_calm_run_on_an_idle_machine_warns_of_nothing_but_its_spread() -> None:
    assert [text for text in with_warnings(make_run()).warnings if "unsteady" not in text] == []


MODE = "NV Fan Mode:quiet\nNV Power Mode: MAXN\n0"
CLOCKS = "SOC family:tegra234  Machine:Jetson AGX Orin\nGPU MinFreq=306000000 MaxFreq=1300500000 CurrentFreq=306000000"


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts executables of a Jetson on the path; each writes down how it was called."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def add(name: str, body: str) -> Path:
        file = tmp_path / name
        file.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/{name}.calls\n{body}\n')
        file.chmod(0o755)
        return file.with_name(f"{name}.calls")

    return add


def test_power_mode_and_clocks_of_a_jetson_are_read_and_never_set(tools: Any) -> None:
    calls = tools("nvpmodel", f"cat <<'END'\n{MODE}\nEND"), tools("jetson_clocks", f"cat <<'END'\n{CLOCKS}\nEND")
    state = read_state()
    assert state.jetson == JetsonState("MAXN", tuple(CLOCKS.splitlines()))
    assert [file.read_text().split() for file in calls] == [["-q"], ["--show"]]


def test_a_jetson_whose_tools_fail_is_told_as_such(tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_state, "_TOOL_SECONDS", 0.2)
    tools("nvpmodel", "exec sleep 30")
    tools("jetson_clocks", "echo 'Error: Please run jetson_clocks with root permissions!' >&2; exit 1")
    state = read_state()
    assert state.jetson == JetsonState(None, ())
    assert any(note.startswith("nvpmodel -q tells nothing") and "timed out" in note for note in state.notes)
    assert (
        "jetson_clocks --show tells nothing (exit code 1): Error: Please run jetson_clocks with root permissions!"
        in (state.notes)
    )


def test_no_other_machine_is_a_jetson() -> None:
    assert read_state().jetson is None
