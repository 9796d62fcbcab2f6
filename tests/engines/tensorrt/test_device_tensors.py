import ctypes
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ffnet_deploy.core.contract import OutputKind
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.engines.cuda import DeviceArray
from ffnet_deploy.engines.engine import DeviceEngine
from tests.engines.tensorrt.conftest import Opener
from tests.engines.tensorrt.cuda_standin import CudaStandIn
from tests.engines.tensorrt.trt_standin import network
from tests.toy import contract

IMAGES = np.random.default_rng(0).normal(size=(2, 3, 32, 64)).astype(np.float32)
CURRENT = 7
"""The stream that the tensors' owner works on."""


class Tensor:
    """A tensor in the stand-in's device memory."""

    __module__ = "torch"

    def __init__(self, cuda: CudaStandIn, shape: tuple[int, ...], dtype: str, device: int = 0) -> None:
        self.shape, self.dtype, self.device, self.cuda = shape, np.dtype(dtype), f"cuda:{device}", cuda
        size = int(np.prod(shape)) * self.dtype.itemsize
        cuda.cudaSetDevice(device)
        self.address = cuda.cudaMalloc(size)[1]
        cuda.cudaSetDevice(0)

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.address, False), "version": 2}

    @property
    def values(self) -> np.ndarray:
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        return np.ndarray(self.shape, self.dtype, buffer=(ctypes.c_uint8 * size).from_address(self.address))

    def write(self, values: np.ndarray) -> "Tensor":
        """As a kernel would: when the owner's stream comes to it."""
        self.cuda.enqueue(CURRENT, lambda: self.values.__setitem__(..., values))
        return self


def read(cuda: CudaStandIn, result: Tensor) -> np.ndarray:
    """The values as the owner reads them: in the order of its stream, and no other stream is waited for."""
    cuda.cudaStreamSynchronize(CURRENT)
    return result.values.copy()


def run_ahead(cuda: CudaStandIn) -> None:
    """Let every stream but the owner's go as far as it may."""
    for number in [number for number in cuda.streams if number != CURRENT]:
        cuda.cudaStreamSynchronize(number)


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch, cuda: CudaStandIn) -> SimpleNamespace:
    made = SimpleNamespace(
        cuda=SimpleNamespace(current_stream=lambda device: SimpleNamespace(cuda_stream=CURRENT)),
        empty=lambda shape, dtype, device: Tensor(cuda, shape, dtype),
        float32="float32",
        uint8="uint8",
    )
    monkeypatch.setitem(sys.modules, "torch", made)
    return made


def other(cuda: CudaStandIn, shape: tuple[int, ...], dtype: str = "float32", device: int = 0) -> Tensor:
    kind = type("Array", (), dict(Tensor.__dict__) | {"__module__": "elsewhere"})
    return kind(cuda, shape, dtype, device)


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("graphs", [True, False])
def test_pytorchs_tensors_are_taken_and_given_without_a_copy(
    start: Opener, cuda: CudaStandIn, torch: SimpleNamespace, graphs: bool, eager: bool
) -> None:
    with start(cuda_graph=graphs) as engine:
        tensor = Tensor(cuda, IMAGES.shape, "float32")
        for factor in range(1, 5):
            before = len(cuda.log)
            result = engine.run_device(tensor.write(IMAGES * factor))
            assert isinstance(result, Tensor)
            assert not {"cudaMemcpyAsync", "cudaStreamSynchronize"} & set(cuda.names(before)[2:]) or factor == 1
            if eager:
                run_ahead(cuda)
            np.testing.assert_array_equal(read(cuda, result), network(contract()).function(IMAGES * factor))
    assert "cudaMemcpyAsync" not in cuda.names()


def test_outputs_stay_on_the_gpu_where_pytorch_finds_it(
    start: Opener, cuda: CudaStandIn, torch: SimpleNamespace
) -> None:
    def uploaded(values: np.ndarray) -> SimpleNamespace:
        return SimpleNamespace(to=lambda device: Tensor(cuda, values.shape, values.dtype.str).write(values))

    torch.from_numpy = uploaded
    with start() as engine:
        for available in (False, True):
            torch.cuda.is_available = lambda found=available: found
            assert isinstance(engine, DeviceEngine) and engine.keeps_output is available
        result = engine.run_on_device(IMAGES)
        assert isinstance(result, Tensor)
        np.testing.assert_array_equal(read(cuda, result), network(contract()).function(IMAGES))
    assert "cudaMemcpyAsync" not in cuda.names()


def test_the_same_memory_again_is_a_graph(start: Opener, cuda: CudaStandIn, torch: SimpleNamespace) -> None:
    with start() as engine:
        tensor, out = Tensor(cuda, IMAGES.shape, "float32"), Tensor(cuda, (2, 11, 8, 16), "float32")
        for factor in range(1, 5):
            assert engine.run_device(tensor.write(IMAGES * factor), out=out) is out
            np.testing.assert_array_equal(read(cuda, out), network(contract()).function(IMAGES * factor))
        assert cuda.names().count("cudaGraphLaunch") == 3


def test_a_default_stream_is_not_given_to_tensorrt(
    start: Opener, cuda: CudaStandIn, torch: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.engines.tensorrt.test_device_tensors.CURRENT", 0)
    with start() as engine:
        tensor, out = Tensor(cuda, IMAGES.shape, "float32"), Tensor(cuda, (2, 11, 8, 16), "float32")
        for factor in range(1, 5):
            engine.run_device(tensor.write(IMAGES * factor), out=out)
            np.testing.assert_array_equal(read(cuda, out), network(contract()).function(IMAGES * factor))
        assert cuda.names().count("cudaGraphLaunch") == 3


def test_a_batch_on_a_callers_stream_is_over_before_the_next_on_another(
    start: Opener, cuda: CudaStandIn, torch: SimpleNamespace
) -> None:
    with start() as engine:
        out = Tensor(cuda, (2, 11, 8, 16), "float32")
        for factor in range(1, 4):
            engine.run_device(Tensor(cuda, IMAGES.shape, "float32").write(IMAGES * factor), out=out)
            smaller = IMAGES[:1, :, :, :32]
            np.testing.assert_array_equal(engine.run(smaller), network(contract()).function(smaller))
            np.testing.assert_array_equal(read(cuda, out), network(contract()).function(IMAGES * factor))
            np.testing.assert_array_equal(engine.run(IMAGES), network(contract()).function(IMAGES))


def test_a_replay_on_a_callers_stream_takes_two_calls(start: Opener, cuda: CudaStandIn, torch: SimpleNamespace) -> None:
    with start() as engine:
        tensor, out = Tensor(cuda, IMAGES.shape, "float32"), Tensor(cuda, (2, 11, 8, 16), "float32")
        for _ in range(3):
            engine.run_device(tensor, out=out)
        before = len(cuda.log)
        engine.run_device(tensor, out=out)
        names = [name for name in cuda.names(before) if name != "cudaPointerGetAttributes"]
        assert names == ["cudaSetDevice", "cudaGraphLaunch", "cudaEventRecord"]


def test_labels_are_bytes(start: Opener, cuda: CudaStandIn, torch: SimpleNamespace) -> None:
    described = contract(output=OutputKind.LABELS)
    with start(network(described)) as engine:
        result = engine.run_device(Tensor(cuda, IMAGES.shape, "float32").write(IMAGES))
        assert result.dtype == np.uint8 and result.shape == (2, 32, 64)
        np.testing.assert_array_equal(read(cuda, result), network(described).function(IMAGES))


def test_other_packages_tensors_are_complete_on_return(start: Opener, cuda: CudaStandIn) -> None:
    with start() as engine:
        tensor, out = other(cuda, IMAGES.shape), other(cuda, (2, 11, 8, 16))
        tensor.values[...] = IMAGES
        engine.run_device(tensor, out=out)
        np.testing.assert_array_equal(out.values, network(contract()).function(IMAGES))
        with pytest.raises(OptionError, match=r"(?s)cannot make a Array.*out=, of shape \(2, 11, 8, 16\)"):
            engine.run_device(tensor)


def test_tensors_that_do_not_fit_are_refused(start: Opener, cuda: CudaStandIn) -> None:
    cuda.devices = 2
    with start() as engine:
        fine, out = other(cuda, IMAGES.shape), other(cuda, (2, 11, 8, 16))
        part = DeviceArray(fine.address + 128, (1, 3, 32, 32), "<f4")
        for tensor, target, message in [
            (other(cuda, IMAGES.shape, "float16"), out, "float32 tensors, not float16"),
            (other(cuda, (2, 3, 32, 288)), out, r"width of 32\.\.256, not 288"),
            (other(cuda, (2, 32, 64, 3)), out, "channels of 3"),
            (other(cuda, IMAGES.shape, device=1), out, "on CUDA device 1, and the engine on 0"),
            (part, out, "(?s)not a multiple of 256 bytes.*clone"),
            (fine, other(cuda, (2, 11, 8, 8)), r"shape \(2, 11, 8, 16\), and the tensor for it \(2, 11, 8, 8\)"),
            (fine, other(cuda, (2, 11, 8, 16), "uint8"), "not uint8"),
            (IMAGES, out, "got ndarray that is not there"),
        ]:
            with pytest.raises(OptionError, match=message):
                engine.run_device(tensor, out=target)
        fine.values[...] = IMAGES
        engine.run_device(fine, out=out)
        np.testing.assert_array_equal(out.values, network(contract()).function(IMAGES))
