"""The machine at one moment: what a time cannot be understood without."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from ffnet_deploy.benchmark.record import CpuState, DeviceState, GpuState, JetsonState
from ffnet_deploy.core.errors import MissingPackageError
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.version import __version__
from ffnet_deploy.engines.cuda import has_nvidia_driver

_PACKAGES = (
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "torch",
    "tensorrt",
    "tensorrt-rtx",
    "cuda-bindings",
    "nvidia-ml-py",
)
_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
_THROTTLE = {
    "nvmlClocksThrottleReasonSwPowerCap": "power cap",
    "nvmlClocksThrottleReasonHwSlowdown": "hardware slowdown",
    "nvmlClocksThrottleReasonSwThermalSlowdown": "temperature (software)",
    "nvmlClocksThrottleReasonHwThermalSlowdown": "temperature (hardware)",
    "nvmlClocksThrottleReasonHwPowerBrakeSlowdown": "power brake",
    "nvmlClocksThrottleReasonApplicationsClocksSetting": "clocks set by hand",
    "nvmlClocksThrottleReasonSyncBoost": "synchronised boost",
}
_TOOL_SECONDS = 5.0
"""Longest time that a tool of the machine may take to answer."""
Value = TypeVar("Value")


def read_state() -> DeviceState:
    """The machine now. What cannot be read is left out; why is in the notes."""
    gpus, notes = _gpus()
    jetson, more = _jetson()
    return DeviceState(_cpu(), gpus, (*notes, *more), jetson)


def environment() -> dict[str, str]:
    """Operating system, Python, and the variables that steer threads and devices, where they are set."""
    driver = re.search(r"Kernel Module\D*([\d.]+)", _text(Path("/proc/driver/nvidia/version")))
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        **({"nvidia driver": driver.group(1)} if driver else {}),
        **{name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def package_versions() -> dict[str, str]:
    """Versions of this toolkit and of the installed packages that shape a measurement."""
    versions = {"ffnet-deploy": __version__}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _cpu() -> CpuState:
    lines = _text(Path("/proc/cpuinfo")).splitlines()
    clocks = [float(value) for value in _values(lines, "cpu MHz")]
    one, five, fifteen = os.getloadavg() if hasattr(os, "getloadavg") else (0.0, 0.0, 0.0)
    return CpuState(
        model=next(_values(lines, "model name"), platform.processor() or platform.machine()),
        cores=os.cpu_count() or 1,
        affinity=tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else (),
        governor=_text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")).strip() or None,
        megahertz=round(sum(clocks) / len(clocks), 1) if clocks else None,
        load=(round(one, 2), round(five, 2), round(fifteen, 2)),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _values(lines: list[str], key: str) -> Iterator[str]:
    return (line.partition(":")[2].strip() for line in lines if line.startswith(key))


def _jetson() -> tuple[JetsonState | None, tuple[str, ...]]:
    """Power mode and clocks of a Jetson, which are read and never set; None on any other machine."""
    if shutil.which("nvpmodel") is None:
        return None, ()
    mode, mode_notes = _told_by("nvpmodel", "-q")
    clocks, clock_notes = _told_by("jetson_clocks", "--show")
    found = re.search(r"NV Power Mode\s*:\s*(\S.*)", mode)
    lines = tuple(line.strip() for line in clocks.splitlines() if line.strip())
    return JetsonState(found[1].strip() if found else None, lines), (*mode_notes, *clock_notes)


def _told_by(tool: str, *arguments: str) -> tuple[str, tuple[str, ...]]:
    """What a tool of the machine prints, or nothing and a note why."""
    command = [tool, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_TOOL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", (f"{' '.join(command)} tells nothing: {error}",)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it gave no reason"]
        return "", (f"{' '.join(command)} tells nothing (exit code {done.returncode}): {lines[-1]}",)
    return done.stdout, ()


def _gpus() -> tuple[tuple[GpuState, ...], tuple[str, ...]]:
    if not has_nvidia_driver():
        return (), ()
    try:
        nvml = optional("pynvml", extra="tensorrt", purpose="reading the state of a GPU")
    except MissingPackageError as error:
        return (), (str(error),)
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return (), (f"the state of the GPU is unknown: NVML does not start ({error})",)
    try:
        driver = _as_text(nvml.nvmlSystemGetDriverVersion())
        return tuple(_gpu(nvml, index, driver) for index in range(nvml.nvmlDeviceGetCount())), ()
    except nvml.NVMLError as error:
        return (), (f"the state of the GPU is unknown: {error}",)
    finally:
        nvml.nvmlShutdown()


def _gpu(nvml: ModuleType, index: int, driver: str) -> GpuState:
    device = nvml.nvmlDeviceGetHandleByIndex(index)

    def ask(question: Callable[[], Value]) -> Value | None:
        try:
            return question()
        except nvml.NVMLError:  # this device does not tell
            return None

    memory: Any = ask(lambda: nvml.nvmlDeviceGetMemoryInfo(device))
    others: Any = ask(lambda: nvml.nvmlDeviceGetComputeRunningProcesses(device))
    power: Any = ask(lambda: nvml.nvmlDeviceGetPowerUsage(device))
    reasons: Any = ask(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device))
    return GpuState(
        index=index,
        name=_as_text(nvml.nvmlDeviceGetName(device)),
        driver=driver,
        sm_megahertz=ask(lambda: int(nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_SM))),
        memory_megahertz=ask(lambda: int(nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_MEM))),
        watts=None if power is None else power / 1000,
        celsius=ask(lambda: int(nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU))),
        throttle=tuple(text for name, text in _THROTTLE.items() if (reasons or 0) & getattr(nvml, name, 0)),
        memory_used=None if memory is None else int(memory.used),
        memory_total=None if memory is None else int(memory.total),
        processes=None if others is None else sum(process.pid != os.getpid() for process in others),
    )


def _as_text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
