"""CUDA's runtime by NVIDIA's own Python bindings: device, memory, streams, events and graphs, every call checked."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from ffnet_deploy.core.errors import FFNetDeployError, MissingPackageError, OptionError
from ffnet_deploy.core.optional import optional

Handle: TypeAlias = Any
"""A stream, event or graph of the bindings; `int` of it is its address."""

_OUT_OF_MEMORY = "cudaErrorMemoryAllocation"
_REMEDY = "to do    run this on a machine with an NVIDIA GPU and its driver; `nvidia-smi` there lists the GPU"
_DRIVER_MARKS = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"), Path("/etc/nv_tegra_release"))
"""Files of which one exists where NVIDIA's driver is loaded; the last one on a Jetson."""
_MIB = 1 << 20


class NoDeviceError(FFNetDeployError):
    """No CUDA device can be used here."""


class UnusableDeviceError(NoDeviceError):
    """There is a GPU, or one was asked for by a wrong number: its remedy is here, not on another machine."""


class CudaError(FFNetDeployError):
    """A CUDA call that failed; `status` is CUDA's name for the reason."""

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class CudaDevice:
    """One GPU.

    Attributes:
        index: Number of the device among those that CUDA shows.
        name: Name of the model, for instance ``"NVIDIA H200"``.
        compute_capability: (major, minor).
        total_memory: Memory in bytes.
        driver_version: Newest CUDA version that the driver knows, as CUDA codes it (12040 is 12.4).
        runtime_version: CUDA version of the bindings, coded alike; None where they do not say.
    """

    index: int
    name: str
    compute_capability: tuple[int, int]
    total_memory: int
    driver_version: int
    runtime_version: int | None


def has_nvidia_driver() -> bool:
    """Whether NVIDIA's driver is loaded, as far as the system's files tell."""
    return any(mark.exists() for mark in _DRIVER_MARKS)


def load_runtime() -> ModuleType:
    """The runtime module of cuda-bindings, or of the cuda-python before it.

    Raises:
        MissingPackageError: neither is installed.
    """
    try:
        return optional("cuda.bindings.runtime", extra="tensorrt", purpose="running on an NVIDIA GPU")
    except MissingPackageError:
        try:
            return importlib.import_module("cuda.cudart")  # cuda-python 11 and 12, which JetPack 5 has
        except ImportError:
            pass
        raise


def find_device(index: int = 0) -> CudaDevice:
    """The CUDA device number `index`.

    Raises:
        NoDeviceError: the bindings, the driver or the device is missing, or they do not fit each other.
    """
    try:
        api = load_runtime()
    except MissingPackageError as error:
        raise (UnusableDeviceError if has_nvidia_driver() else NoDeviceError)(str(error)) from error
    driver, runtime = _version(api, "cudaDriverGetVersion"), _version(api, "cudaRuntimeGetVersion")
    count = _device_count(api, driver, runtime)
    if not 0 <= index < count:
        only = "the only one is 0" if count == 1 else f"there are 0 to {count - 1}"
        raise UnusableDeviceError(f"there is no CUDA device {index}: {only}.\n  to do    choose one of those")
    status, properties = api.cudaGetDeviceProperties(index)
    if _name(status) != "cudaSuccess":
        raise NoDeviceError(f"CUDA device {index} cannot be used: {_describe(api, status)}.\n  {_REMEDY}")
    name = properties.name
    return CudaDevice(
        index=index,
        name=name.decode(errors="replace").rstrip("\0") if isinstance(name, bytes) else str(name),
        compute_capability=(int(properties.major), int(properties.minor)),
        total_memory=int(properties.totalGlobalMem),
        driver_version=driver or 0,
        runtime_version=runtime,
    )


def _version(api: ModuleType, function: str) -> int | None:
    status, version = getattr(api, function)()
    return int(version) if _name(status) == "cudaSuccess" else None


def _device_count(api: ModuleType, driver: int | None, runtime: int | None) -> int:
    status, count = api.cudaGetDeviceCount()
    if _name(status) == "cudaSuccess" and count:
        return int(count)
    if not driver:
        raise NoDeviceError(f"there is no CUDA device here: no NVIDIA driver is installed.\n  {_REMEDY}")
    if _name(status) == "cudaErrorInsufficientDriver":
        raise UnusableDeviceError(
            f"the NVIDIA driver is too old: it knows CUDA {_dotted(driver)} at most, and the Python bindings need "
            f"{_dotted(runtime)}.\n  to do    update the driver, or: pip install 'cuda-bindings<{driver // 1000 + 1}'"
        )
    if _name(status) in ("cudaErrorNoDevice", "cudaSuccess"):
        raise NoDeviceError(
            "there is no CUDA device here: the driver shows none.\n"
            "  to do    check `nvidia-smi`, CUDA_VISIBLE_DEVICES, and that a container was started with --gpus all"
        )
    raise NoDeviceError(f"CUDA cannot be used here: {_describe(api, status)}.\n  {_REMEDY}")


def _dotted(version: int | None) -> str:
    return "a newer one" if version is None else f"{version // 1000}.{version % 1000 // 10}"


def _name(status: Any) -> str:
    return str(getattr(status, "name", status))


def _describe(api: ModuleType, status: Any) -> str:
    text = None
    with suppress(Exception):  # the reason is worth more than its description
        text = api.cudaGetErrorString(status)[1]
    return f"{text.decode() if isinstance(text, bytes) else text or 'no description'} ({_name(status)})"


class Cuda:
    """CUDA's runtime on one device. Memory is given as addresses (int), sizes in bytes.

    Args:
        index: number of the device.

    Raises:
        NoDeviceError: see `find_device`.
    """

    def __init__(self, index: int = 0) -> None:
        self.device = find_device(index)
        self._api = load_runtime()
        self._success: Any = None

    def _call(self, function: str, *arguments: Any) -> Any:
        """The result of a CUDA function: None, a value, or a tuple of values.

        Raises:
            CudaError: it failed.
        """
        result = getattr(self._api, function)(*arguments)
        status = result[0]
        if status is not self._success:
            if _name(status) != "cudaSuccess":
                raise CudaError(f"the GPU refused {function}: {_describe(self._api, status)}", _name(status))
            self._success = status  # an enumeration's members exist once: the next calls need no look at its name
        return result[1] if len(result) == 2 else result[1:] or None

    def use(self) -> None:
        """Make this the calling thread's device; each thread has its own."""
        self._call("cudaSetDevice", self.device.index)

    def free_memory(self) -> int:
        """Bytes that are free on the device."""
        return int(self._call("cudaMemGetInfo")[0])

    def allocate(self, size: int) -> int:
        """Address of `size` bytes of device memory, aligned to 256 bytes."""
        return self._allocated("cudaMalloc", size, f"{self.device.name} has no room")

    def allocate_pinned(self, size: int) -> int:
        """Address of `size` bytes of host memory that the device copies from and to by itself."""
        return self._allocated("cudaMallocHost", size, "the machine has no page-locked memory left")

    def _allocated(self, function: str, size: int, reason: str) -> int:
        try:
            return int(self._call(function, size))
        except CudaError as error:
            self.forget_error()
            if error.status != _OUT_OF_MEMORY:
                raise
            free = ""
            with suppress(CudaError):
                free = f" ({self.free_memory() // _MIB} MiB of {self.device.total_memory // _MIB} free on the GPU)"
            raise CudaError(
                f"{reason} for {size / _MIB:.1f} MiB{free}.\n"
                "  to do    use smaller batches or images, fewer contexts, or end what else uses the GPU",
                error.status,
            ) from error

    def free(self, address: int) -> None:
        """Release what `allocate` gave."""
        self._call("cudaFree", address)

    def free_pinned(self, address: int) -> None:
        """Release what `allocate_pinned` gave."""
        self._call("cudaFreeHost", address)

    def device_of(self, address: int) -> int:
        """Number of the device that the memory at `address` belongs to; negative where it is the host's."""
        return int(self._call("cudaPointerGetAttributes", address).device)

    def upload(self, device: int, host: int, size: int, stream: Handle) -> None:
        """Copy from pinned host memory to the device, in the order of `stream`."""
        self._copy(device, host, size, "cudaMemcpyHostToDevice", stream)

    def download(self, host: int, device: int, size: int, stream: Handle) -> None:
        """Copy from the device to pinned host memory, in the order of `stream`."""
        self._copy(host, device, size, "cudaMemcpyDeviceToHost", stream)

    def _copy(self, target: int, source: int, size: int, kind: str, stream: Handle) -> None:
        self._call("cudaMemcpyAsync", target, source, size, getattr(self._api.cudaMemcpyKind, kind), stream)

    def create_stream(self) -> Handle:
        """A stream that does not wait for the default stream."""
        return self._call("cudaStreamCreateWithFlags", self._api.cudaStreamNonBlocking)

    def destroy_stream(self, stream: Handle) -> None:
        """Release a stream."""
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: Handle) -> None:
        """Wait until all work of `stream` is done; failures of that work are raised here."""
        self._call("cudaStreamSynchronize", stream)

    def create_event(self, timing: bool = False) -> Handle:
        """A mark in a stream; with `timing` it keeps when it was passed."""
        return self._call("cudaEventCreateWithFlags", 0 if timing else self._api.cudaEventDisableTiming)

    def destroy_event(self, event: Handle) -> None:
        """Release an event."""
        self._call("cudaEventDestroy", event)

    def record(self, event: Handle, stream: Handle) -> None:
        """Put `event` after what `stream` has been given so far."""
        self._call("cudaEventRecord", event, stream)

    def wait_for(self, stream: Handle, event: Handle) -> None:
        """Let `stream` go on only when `event` has been passed; the host goes on at once."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def wait_on_host(self, event: Handle) -> None:
        """Wait until `event` has been passed."""
        self._call("cudaEventSynchronize", event)

    def elapsed(self, begin: Handle, end: Handle) -> float:
        """Milliseconds between two passed events with timing."""
        return float(self._call("cudaEventElapsedTime", begin, end))

    @contextmanager
    def capture(self, stream: Handle) -> Iterator[list[Handle]]:
        """Record what the block gives to `stream` without running it; afterwards the list holds the launchable graph.

        The mode is thread-local: a global capture would forbid other threads to allocate meanwhile.

        Raises:
            CudaError: something in the block cannot be captured; the stream is usable again.
        """
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        captured: list[Handle] = []
        self._call("cudaStreamBeginCapture", stream, mode)
        try:
            yield captured
        except BaseException:
            with suppress(CudaError):  # the block's error is the one to report
                self._call("cudaGraphDestroy", self._call("cudaStreamEndCapture", stream))
            self.forget_error()
            raise
        try:
            captured.append(self._instantiated(self._call("cudaStreamEndCapture", stream)))
        except CudaError:
            self.forget_error()
            raise

    def _instantiated(self, graph: Handle) -> Handle:
        try:
            return self._call("cudaGraphInstantiateWithFlags", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Handle, stream: Handle) -> None:
        """Run a captured graph in the order of `stream`."""
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: Handle) -> None:
        """Release a captured graph."""
        self._call("cudaGraphExecDestroy", graph)

    def forget_error(self) -> None:
        """Take back the last error, which CUDA would otherwise report once more at a later call."""
        self._api.cudaGetLastError()


@dataclass(frozen=True)
class DeviceArray:
    """A tensor in device memory that someone else owns.

    Attributes:
        address: Address of the first value.
        shape: Shape of the tensor, which is C-contiguous.
        typestr: Value type in NumPy's notation, for instance ``"<f4"``.
        stream: Address of the stream that its values are written on; None where that has ended.
    """

    address: int
    shape: tuple[int, ...]
    typestr: str
    stream: int | None = None

    @classmethod
    def of(cls, tensor: Any) -> "DeviceArray":
        """The memory of a tensor that offers ``__cuda_array_interface__``: PyTorch's, CuPy's, Numba's, ...

        Raises:
            OptionError: it is not on a GPU, or its values do not lie one after the other.
        """
        try:
            interface = tensor.__cuda_array_interface__
        except (AttributeError, TypeError, RuntimeError) as error:
            raise OptionError(
                f"expected a tensor in GPU memory, got {type(tensor).__name__} that is not there.\n"
                "  to do    move it there (PyTorch: tensor.cuda()), or use run() for arrays in host memory"
            ) from error
        shape = tuple(int(size) for size in interface["shape"])
        array = cls(int(interface["data"][0]), shape, str(interface["typestr"]), interface.get("stream"))
        strides = interface.get("strides")
        if strides is not None and not array.is_packed(tuple(strides)):
            raise OptionError(
                f"the tensor's values must lie one after the other in memory: strides {tuple(strides)} bytes for shape "
                f"{shape}.\n  to do    give tensor.contiguous()"
            )
        return array

    def is_packed(self, strides: tuple[int, ...]) -> bool:
        """Whether with `strides`, in bytes, values lie one after the other; a dimension of size 1 may have any."""
        step = int(self.typestr[2:])
        for size, stride in zip(reversed(self.shape), reversed(strides), strict=True):
            if size > 1 and stride != step:
                return False
            step *= size
        return True

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.typestr,
            "data": (self.address, False),
            "strides": None,
            "stream": self.stream,
            "version": 3,
        }
