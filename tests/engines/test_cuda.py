import importlib.util
import subprocess
import sys
import types
from pathlib import Path

import pytest

from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.engines import cuda
from ffnet_deploy.engines.cuda import Cuda, CudaError, DeviceArray, NoDeviceError, UnusableDeviceError, find_device
from tests.engines.tensorrt.cuda_standin import CudaStandIn


def use(monkeypatch: pytest.MonkeyPatch, cuda: CudaStandIn) -> CudaStandIn:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    return cuda


def test_a_device_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, CudaStandIn(devices=2, capability=(8, 7)))
    device = find_device(1)
    assert (device.index, device.name, device.compute_capability) == (1, "Stand-in GPU", (8, 7))
    assert (device.total_memory, device.driver_version, device.runtime_version) == (1 << 40, 12040, 12000)


@pytest.mark.parametrize(
    ("machine", "index", "message"),
    [
        (CudaStandIn(driver=0), 0, "no CUDA device here: no NVIDIA driver is installed"),
        (CudaStandIn(driver=11040), 0, r"driver is too old: it knows CUDA 11\.4 at most, .* need 12\.0"),
        (CudaStandIn(driver=11040), 0, r"pip install 'cuda-bindings<12'"),
        (CudaStandIn(devices=0), 0, "the driver shows none"),
        (CudaStandIn(devices=1), 1, "no CUDA device 1: the only one is 0"),
        (CudaStandIn(devices=4), 7, "no CUDA device 7: there are 0 to 3"),
        (CudaStandIn(devices=4), -1, "no CUDA device -1"),
    ],
)
def test_a_missing_device_is_said_in_plain_words(
    monkeypatch: pytest.MonkeyPatch, machine: CudaStandIn, index: int, message: str
) -> None:
    use(monkeypatch, machine)
    with pytest.raises(NoDeviceError, match=rf"(?s){message}") as caught:
        find_device(index)
    assert "to do  " in str(caught.value)


@pytest.mark.parametrize("call", ["cudaGetDeviceCount", "cudaGetDeviceProperties"])
def test_other_refusals_keep_cudas_reason(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    use(monkeypatch, CudaStandIn()).fail(call)
    with pytest.raises(NoDeviceError, match=r"what CUDA says \(cudaErrorUnknown\)"):
        find_device()


def test_missing_bindings_name_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("cuda", "cuda.bindings", "cuda.bindings.runtime", "cuda.cudart"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(cuda, "_DRIVER_MARKS", (tmp_path / "version",))
    with pytest.raises(NoDeviceError, match=r"\[tensorrt\]") as caught:
        find_device()
    assert type(caught.value) is NoDeviceError
    (tmp_path / "version").write_text("NVRM version")  # the GPU is here: the remedy is too
    with pytest.raises(UnusableDeviceError, match=r"\[tensorrt\]"):
        find_device()


def test_the_bindings_before_cuda_bindings_serve_too(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = types.ModuleType("cuda")
    parent.__path__ = []
    monkeypatch.setitem(sys.modules, "cuda", parent)
    for name in ("cuda.bindings", "cuda.bindings.runtime"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "cuda.cudart", CudaStandIn())
    assert find_device().name == "Stand-in GPU"


def test_the_installed_bindings_end_in_words_or_a_device() -> None:
    if importlib.util.find_spec("cuda") is None:
        pytest.skip("cuda-bindings is not installed")
    program = (
        "from ffnet_deploy.engines.cuda import NoDeviceError, find_device\n"
        "try:\n    print(find_device().compute_capability)\n"
        "except NoDeviceError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and done.stderr == ""
    assert "CUDA" in done.stdout or done.stdout.startswith("(")


def test_the_installed_bindings_have_every_name_that_is_used() -> None:
    api = pytest.importorskip("cuda.bindings.runtime")
    used = {name[1:] for name in dir(CudaStandIn) if name.startswith("_cuda")}
    used |= {name for name in dir(CudaStandIn) if name.startswith("cuda")}
    assert {name for name in used if not hasattr(api, name)} == set()
    assert hasattr(api.cudaStreamCaptureMode, "cudaStreamCaptureModeThreadLocal")
    assert hasattr(api.cudaMemcpyKind, "cudaMemcpyHostToDevice")
    assert hasattr(api.cudaMemcpyKind, "cudaMemcpyDeviceToHost")
    assert hasattr(api.cudaError_t, "cudaErrorMemoryAllocation")
    assert hasattr(api.cudaError_t, "cudaErrorInsufficientDriver") and hasattr(api.cudaError_t, "cudaErrorNoDevice")


def test_a_refused_call_names_call_and_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = use(monkeypatch, CudaStandIn())
    cuda = Cuda()
    machine.fail("cudaMalloc", status="cudaErrorIllegalAddress")
    with pytest.raises(CudaError, match=r"refused cudaMalloc: what CUDA says \(cudaErrorIllegalAddress\)") as caught:
        cuda.allocate(1)
    assert caught.value.status == "cudaErrorIllegalAddress"
    machine.room = 0
    machine.recover()
    with pytest.raises(CudaError, match=r"Stand-in GPU has no room for 2\.0 MiB \(0 MiB of 1048576 free"):
        cuda.allocate(2 << 20)
    with pytest.raises(CudaError, match="no page-locked memory left"):
        cuda.allocate_pinned(1)


def test_a_failed_capture_leaves_a_usable_stream_and_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = use(monkeypatch, CudaStandIn())
    cuda = Cuda()
    stream = cuda.create_stream()
    with pytest.raises(KeyboardInterrupt), cuda.capture(stream):
        raise KeyboardInterrupt
    with cuda.capture(stream) as captured:
        pass
    cuda.launch(captured[0], stream)
    cuda.destroy_graph(captured[0])
    assert machine.live["graph"] == machine.live["executable"] == 0 and machine.wrongs == []


class Tensor:
    def __init__(self, shape: tuple[int, ...], strides: tuple[int, ...] | None = None) -> None:
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": "<f4",
            "data": (512, False),
            "strides": strides,
            "version": 3,
        }


@pytest.mark.parametrize("strides", [None, (48, 16, 4), (48, 16, 4)])
def test_packed_tensors_are_taken_by_pointer(strides: tuple[int, ...] | None) -> None:
    array = DeviceArray.of(Tensor((2, 3, 4), strides))
    assert array == DeviceArray(512, (2, 3, 4), "<f4") == DeviceArray.of(array)


def test_a_dimension_of_one_may_have_any_stride() -> None:
    assert DeviceArray.of(Tensor((1, 3, 4), (7, 16, 4))).shape == (1, 3, 4)


def test_other_tensors_are_refused_with_the_remedy() -> None:
    with pytest.raises(OptionError, match=r"(?s)one after the other.*contiguous"):
        DeviceArray.of(Tensor((2, 3, 4), (48, 4, 12)))
    with pytest.raises(OptionError, match=r"(?s)expected a tensor in GPU memory, got list.*run\(\)"):
        DeviceArray.of([1, 2])


def test_pytorchs_tensors_in_host_memory_are_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(OptionError, match="got Tensor that is not there"):
        DeviceArray.of(torch.zeros(2))
