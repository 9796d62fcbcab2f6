"""A recording stand-in of the ``tensorrt`` module's runtime half, over the stand-in of CUDA."""

import ctypes
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np

from ffnet_deploy.core.contract import INPUT_NAME, Contract, InputKind, IOType, OutputKind
from tests.engines.tensorrt.cuda_standin import CudaStandIn
from tests.toy import logits, weights

DataType = Enum("DataType", "FLOAT HALF BF16 INT8 INT32 UINT8")
TensorIOMode = Enum("TensorIOMode", "NONE INPUT OUTPUT")
TensorFormat = Enum("TensorFormat", "LINEAR CHW32 HWC")
Severity = Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")

TYPES = {DataType.FLOAT: np.float32, DataType.UINT8: np.uint8, DataType.HALF: np.float16, DataType.INT32: np.int32}


@dataclass
class Network:
    """What a plan of the stand-in holds."""

    contract: Contract
    function: Callable[[np.ndarray], np.ndarray]
    profiles: list[tuple[tuple[int, ...], tuple[int, ...]]]
    input_type: Any = DataType.FLOAT
    output_type: Any = DataType.FLOAT
    output_name: str = ""
    layout: Any = TensorFormat.LINEAR
    layers: tuple[str, ...] = ("conv", "resize")


def network(contract: Contract, **changes: Any) -> Network:
    """The toy network of `contract`, with one profile of all that the contract accepts."""
    ranges = [getattr(contract, name) for name in ("batch", "height", "width")]
    least, most = ([dimension.min for dimension in ranges], [dimension.max for dimension in ranges])
    kernel = weights(len(contract.classes))
    floats = DataType.HALF if contract.io is IOType.FP16 else DataType.FLOAT

    def function(batch: np.ndarray) -> np.ndarray:
        scores = logits(np.asarray(batch, np.float32), kernel)
        if contract.output is OutputKind.LABELS:
            return scores.argmax(1).astype(np.uint8).repeat(4, 1).repeat(4, 2)
        return scores.astype(TYPES[floats])

    if contract.input is InputKind.FLOAT:
        profile = ((least[0], 3, *least[1:]), (most[0], 3, *most[1:]))
    else:
        profile = ((*least, 3), (*most, 3))
    made = Network(contract, function, [profile], output_name=contract.output.value)
    made.input_type = floats if contract.input is InputKind.FLOAT else DataType.UINT8
    made.output_type = DataType.UINT8 if contract.output is OutputKind.LABELS else floats
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@dataclass
class TrtStandIn:
    """Stands in the place of the module ``tensorrt``; hashable, as modules are.

    Attributes:
        cuda: the stand-in whose streams it uses.
        events: what was created, run and released, in order.
        contexts_at_most: contexts of an engine that fit on the GPU.
        shares_profiles: whether contexts may share a profile, as they may not in 8.5.
        capturable: whether execution can be captured.
        failing: execution fails from now on.
        refused: methods of contexts that say no from now on.
    """

    cuda: CudaStandIn
    events: list[str] = field(default_factory=list)
    plans: dict[bytes, Network] = field(default_factory=dict)
    contexts_at_most: int = 8
    shares_profiles: bool = True
    capturable: bool = True
    failing: bool = False
    refused: set[str] = field(default_factory=set)
    captures_itself: bool = False
    caches: Any = None

    def __post_init__(self) -> None:
        self.__version__ = "8.5.3"
        self.DataType, self.TensorIOMode, self.TensorFormat = DataType, TensorIOMode, TensorFormat
        self.ILogger, self.IProfiler = ILogger, IProfiler
        self.log: Any = None
        self.configs: list[Any] = []
        self.living: Counter[str] = Counter()
        self._numbers = itertools.count()
        if self.captures_itself:
            self.CudaGraphStrategy = Enum("CudaGraphStrategy", "DISABLED WHOLE_GRAPH_CAPTURE")
            self.DynamicShapesKernelSpecializationStrategy = Enum("Strategy", "NONE LAZY EAGER")

    __hash__ = object.__hash__

    def plan(self, made: Network) -> bytes:
        """The bytes of a plan that holds `made`."""
        name = f"plan {next(self._numbers)}".encode()
        self.plans[name] = made
        return name

    def Runtime(self, log: Any) -> "Runtime":  # noqa: N802
        if self.cuda.devices == 0:
            raise AssertionError("a runtime without a device ends the process")
        self.log = log
        return Runtime(self)

    def complain(self, text: str) -> None:
        self.log.log(Severity.ERROR, text)


class ILogger:
    def __init__(self) -> None:
        pass


class IProfiler:
    def __init__(self) -> None:
        pass


class _Owned:
    """Notes its creation and its end; keeps no owner alive, as little as the C++ objects do."""

    def __init__(self, trt: TrtStandIn) -> None:
        self._trt = trt
        trt.events.append(f"create {type(self).__name__}")
        trt.living[type(self).__name__] += 1

    def __del__(self) -> None:
        living = self._trt.living
        living[type(self).__name__] -= 1
        if not isinstance(self, IExecutionContext) and living["IExecutionContext"]:
            self._trt.cuda.wrongs.append(f"{type(self).__name__} is released before its contexts")
        self._trt.events.append(f"release {type(self).__name__}")
        self._trt.cuda.log.append((self._trt.events[-1], ()))


class Runtime(_Owned):
    def deserialize_cuda_engine(self, plan: bytes) -> "ICudaEngine | None":
        if plan not in self._trt.plans:
            self._trt.complain("Serialization assertion failed: the plan is cut short")
            return None
        return ICudaEngine(self._trt, self._trt.plans[plan])


class ICudaEngine(_Owned):
    def __init__(self, trt: TrtStandIn, made: Network) -> None:
        super().__init__(trt)
        self._made = made
        self._contexts = 0
        self._profiles_in_use: list[int] = []

    @property
    def num_io_tensors(self) -> int:
        return 2

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._made.profiles)

    def get_tensor_name(self, index: int) -> str:
        return (INPUT_NAME, self._made.output_name)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return TensorIOMode.INPUT if name == INPUT_NAME else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return self._made.input_type if name == INPUT_NAME else self._made.output_type

    def get_tensor_format(self, name: str) -> Any:
        return self._made.layout

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        low, high = self._made.profiles[0]
        return tuple(a if a == b and len(self._made.profiles) == 1 else -1 for a, b in zip(low, high, strict=True))

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        low, high = self._made.profiles[index]
        return [low, high, high]

    def create_runtime_config(self) -> Any:
        config = SimpleNamespace(cuda_graph_strategy=None, dynamic_shapes_kernel_specialization_strategy=None)
        if self._trt.caches is not None:
            config.create_runtime_cache = lambda: self._trt.caches(self._trt)
            config.set_runtime_cache = lambda cache: setattr(config, "cache", cache)
        self._trt.configs.append(config)
        return config

    def create_execution_context(self, config: Any = None) -> "IExecutionContext | None":
        if self._contexts >= self._trt.contexts_at_most:
            self._trt.complain("Cuda Runtime (out of memory)")
            return None
        self._contexts += 1
        return IExecutionContext(self._trt, self)


class IExecutionContext(_Owned):
    def __init__(self, trt: TrtStandIn, engine: ICudaEngine) -> None:
        super().__init__(trt)
        self._made = engine._made
        self._in_use = engine._profiles_in_use
        self._shape: tuple[int, ...] | None = None
        self._settled = False
        self._addresses: dict[str, int] = {}
        self.profiler: Any = None
        self.enqueue_emits_profile = True
        self.active_optimization_profile = -1
        if 0 not in self._in_use:
            self._take(0)

    def _take(self, index: int) -> None:
        if self.active_optimization_profile in self._in_use:
            self._in_use.remove(self.active_optimization_profile)
        self.active_optimization_profile = index
        self._in_use.append(index)
        self._shape = None

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        if index in self._in_use and not self._trt.shares_profiles:
            self._trt.complain(f"Profile {index} has been chosen by another IExecutionContext")
            return False
        self._take(index)
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if "set_input_shape" in self._trt.refused:
            self._trt.complain("no such shape")
            return False
        low, high = self._made.profiles[self.active_optimization_profile]
        if not all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True)):
            self._trt.complain("the shape does not satisfy the profile")
            return False
        if self._is_computing():
            self._trt.cuda.wrongs.append("a new shape while an earlier batch computes")
        self._trt.events.append(f"shape {tuple(shape)}")
        self._shape, self._settled = tuple(shape), False
        return True

    def _is_computing(self) -> bool:
        waiting = [op for stream in self._trt.cuda.streams.values() for op in stream.queue]
        return any(getattr(op.work, "context", None) == id(self) for op in waiting)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if self._shape is None:
            return (-1, -1, -1)
        return self._made.function(np.zeros(self._shape, TYPES[self._made.input_type])).shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        if "set_tensor_address" in self._trt.refused:
            self._trt.complain("no such address")
            return False
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        cuda, made, shape = self._trt.cuda, self._made, self._shape
        if self._trt.failing or shape is None:
            self._trt.complain("the engine came to harm")
            return False
        if cuda.is_capturing(stream) and (not self._settled or not self._trt.capturable):
            cuda.spoil(stream)
            self._trt.complain("operation not permitted when stream is capturing")
            return False
        self._settled = True
        addresses = dict(self._addresses)
        self._trt.events.append("capture" if cuda.is_capturing(stream) else "execute")

        def work() -> None:
            source, target = addresses[INPUT_NAME], addresses[made.output_name]
            batch = _array(cuda, source, shape, made.input_type)
            result = np.ascontiguousarray(made.function(batch), TYPES[made.output_type])
            _array(cuda, target, result.shape, made.output_type)[...] = result
            cuda.clock += 0.5

        work.context = id(self)  # and not the context, which work in a log would keep from its end
        cuda.enqueue(stream, work)
        if self.profiler is not None and self.enqueue_emits_profile:
            for layer in made.layers:
                self.profiler.report_layer_time(layer, 0.25)
        return True


def _array(cuda: CudaStandIn, address: int, shape: tuple[int, ...], kind: Any) -> np.ndarray:
    dtype = np.dtype(TYPES[kind])
    size = int(np.prod(shape)) * dtype.itemsize
    if not cuda.holds(address, size, "device"):
        cuda.wrongs.append(f"computing on {size} bytes outside device memory")
        return np.zeros(shape, dtype)
    return np.ndarray(shape, dtype, buffer=(ctypes.c_uint8 * size).from_address(address))
