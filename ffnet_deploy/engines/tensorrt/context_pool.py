"""A deserialised engine with its execution contexts, each lent to one thread at a time."""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.errors import ArtifactError, OptionError, StorageError
from ffnet_deploy.engines.cuda import Cuda, NoDeviceError
from ffnet_deploy.engines.tensorrt.diagnostics import LogCapture, explain_start, logger
from ffnet_deploy.engines.tensorrt.execution_context import ExecutionContext
from ffnet_deploy.engines.tensorrt.tensors import EngineTensors, Shape, read_engine_tensors
from ffnet_deploy.engines.tensorrt.timing_cache import keep_runtime_cache, use_runtime_cache
from ffnet_deploy.engines.tensorrt.variant import feature, has


class ContextPool:
    """An engine and its execution contexts.

    Args:
        runtime: TensorRT's runtime; the pool owns it.
        engine: the deserialised engine; the pool owns it.
        tensors: input and output of the engine.
        name: of the engine, for messages.
    """

    def __init__(self, runtime: Any, engine: Any, tensors: EngineTensors, name: str) -> None:
        self._runtime = runtime
        self._engine = engine
        self.tensors = tensors
        """Input and output of the engine."""
        self._name = name
        self._idle: list[ExecutionContext] = []
        self._lent: dict[ExecutionContext, int] = {}
        self._closed = False
        self._changed = threading.Condition()
        self.before_release: Callable[[], None] = lambda: None
        """Called once when nothing runs any more and everything is still there."""

    def __len__(self) -> int:
        return len(self._idle) + len(self._lent)

    def add(self, context: ExecutionContext) -> None:
        """Add `context` to the pool, which owns it from now on."""
        self._idle.append(context)

    def context(self, shape: Shape) -> "ContextLoan":
        """Lend a context for inputs of `shape` to the calling thread while the block runs; waits until one is free.

        Raises, when the block begins:
            OptionError: the engine is closed, or the thread holds all contexts itself and would wait for ever.
        """
        return ContextLoan(self, shape)

    def _acquire(self, shape: Shape) -> ExecutionContext:
        with self._changed:
            while True:
                if self._closed:
                    raise OptionError(f"the engine of {self._name} is closed")
                for context in self._idle:
                    if context.shape == shape:  # ready: nothing better can be found
                        self._idle.remove(context)
                        self._lent[context] = threading.get_ident()
                        return context
                suited = self._suited(shape)
                idle = [context for context in self._idle if context in suited]
                if idle:
                    context = self._best(idle)
                    self._idle.remove(context)
                    self._lent[context] = threading.get_ident()
                    return context
                if all(self._lent[context] == threading.get_ident() for context in suited):
                    raise OptionError(
                        "all contexts of the engine are in use by unfinished streams of this thread.\n"
                        "  to do    finish them first, or open the engine with more contexts"
                    )
                self._changed.wait()

    def _suited(self, shape: Shape) -> list[ExecutionContext]:
        """Contexts whose profile holds `shape`; all, one of which then changes its profile, where none does.

        Up to TensorRT 8.5 a profile serves one context only, so that a free context cannot take that of a busy one.
        """
        contexts = [*self._idle, *self._lent]
        return [context for context in contexts if self.tensors.profiles[context.profile].holds(shape)] or contexts

    def _best(self, idle: list[ExecutionContext]) -> ExecutionContext:
        """Prefer an unused context, then the least recently used; `_idle` is in the order of use."""
        return ([context for context in idle if context.shape is None] or idle)[0]

    def _give_back(self, context: ExecutionContext) -> None:
        with self._changed:
            del self._lent[context]
            self._idle.append(context)
            if self._closed and not self._lent:
                self._release()
            self._changed.notify_all()

    def close(self) -> None:
        """Release everything once no thread runs it any more; nothing new starts. Calling it twice is harmless."""
        with self._changed:
            self._closed = True
            if not self._lent:
                self._release()
            self._changed.notify_all()

    def _release(self) -> None:
        """Contexts, engine, runtime, and only then the memory and streams that they worked on."""
        if self._engine is not None:
            self.before_release()
            self.before_release = lambda: None  # what it holds must end before the engine
        for context in self._idle:
            context.release_context()
        self._engine = None
        self._runtime = None
        for context in self._idle:
            context.release_memory()
        self._idle = []


RUNTIME_CACHE_SUFFIX = ".kernels"
"""Ends the name of the file beside an engine of TensorRT for RTX that keeps its compiled kernels."""


class ContextLoan:
    """A context for the calling thread alone while the block runs."""

    __slots__ = ("_context", "_pool", "_shape")

    def __init__(self, pool: ContextPool, shape: Shape) -> None:
        self._pool, self._shape = pool, shape
        self._context: ExecutionContext | None = None

    def __enter__(self) -> ExecutionContext:
        self._context = self._pool._acquire(self._shape)
        return self._context

    def __exit__(self, *_: object) -> None:
        if self._context is not None:
            self._pool._give_back(self._context)


@dataclass(frozen=True)
class EngineFile:
    """What is loaded.

    Attributes:
        path: Path of the file, for messages.
        plan: The file's bytes.
        contract: What the network takes and gives.
    """

    path: Path
    plan: bytes
    contract: Contract


def open_contexts(
    trt: Any, cuda: Cuda, file: EngineFile, contexts: int, cuda_graph: bool, log: LogCapture, eager: bool = False
) -> ContextPool:
    """The engine of `file` with up to `contexts` execution contexts; fewer, and a note, where there cannot be more.

    Raises:
        ArtifactError: the plan cannot be loaded here, or is not of the network it should be.
        CudaError: the GPU has no room for a context.
    """
    cuda.use()
    runtime, engine = deserialize(trt, file, log)
    pool = ContextPool(runtime, engine, read_engine_tensors(trt, engine, file.contract, file.path), str(file.path))
    try:
        config = _runtime_config(trt, engine, cuda_graph, eager) if has(trt, "CudaGraphStrategy") else None
        if config is not None and has(config, "create_runtime_cache"):
            path = file.path.with_name(f"{file.path.name}{RUNTIME_CACHE_SUFFIX}")
            cache = use_runtime_cache(config, path, trt.__version__, cuda.device.name)
            pool.before_release = partial(_keep_kernels, cache, path, trt.__version__, cuda.device.name)
        for index in range(contexts):
            context = _open_context(cuda, engine, config, pool.tensors, index, cuda_graph, log)
            if context is None and index == 0:
                raise ArtifactError(f"TensorRT cannot run {file.path}: {log.explain()}")
            if context is None:
                log.add_note(f"runs {index} of {contexts} contexts: no further one could be made")
                break
            pool.add(context)
    except BaseException:
        pool.close()
        raise
    return pool


def deserialize(trt: Any, file: EngineFile, log: LogCapture) -> tuple[Any, Any]:
    """TensorRT's runtime and the engine of `file`, which must end before it; the device is chosen already.

    Raises:
        NoDeviceError: the driver does not fit this TensorRT.
        ArtifactError: the plan cannot be loaded here.
    """
    try:
        runtime = trt.Runtime(logger(trt))
    except (TypeError, RuntimeError) as error:  # what the bindings make of a null pointer
        raise NoDeviceError(explain_start("TensorRT", trt.__version__, log.messages)) from error
    if has(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = True  # version-compatible plans hold code; reading the bundle settled trust
    engine = runtime.deserialize_cuda_engine(file.plan)
    if engine is None:
        raise ArtifactError(
            f"TensorRT {trt.__version__} cannot load {file.path}: {log.explain()}\n"
            "  to do    build it again on this machine with ffnet-export"
        )
    return runtime, engine


def _open_context(
    cuda: Cuda, engine: Any, config: Any, tensors: EngineTensors, index: int, cuda_graph: bool, log: LogCapture
) -> ExecutionContext | None:
    """Context number `index`; None where TensorRT gives no further context, or no profile for it."""
    native = engine.create_execution_context() if config is None else engine.create_execution_context(config)
    if native is None:
        return None
    context = ExecutionContext(cuda, native, tensors, cuda_graph and config is None, log)
    try:
        context.open()
        count = len(tensors.profiles)
        # up to TensorRT 8.5 contexts cannot share a profile: another context begins with another one
        if any(context.choose_profile((index + step) % count) for step in range(count)):
            return context
    except BaseException:
        context.release()
        raise
    context.release()
    return None


def _runtime_config(trt: Any, engine: Any, cuda_graph: bool, eager: bool) -> Any:
    """How TensorRT for RTX runs: it captures CUDA graphs by itself, and compiles its kernels as shapes come.

    With `eager` a new shape waits for the kernels made for it; otherwise they are compiled while general ones run.
    """
    config, strategy = engine.create_runtime_config(), trt.CudaGraphStrategy
    config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE if cuda_graph else strategy.DISABLED
    specialized = feature(trt, "DynamicShapesKernelSpecializationStrategy.EAGER")
    if eager and specialized is not None:
        config.dynamic_shapes_kernel_specialization_strategy = specialized
    return config


def _keep_kernels(cache: Any, path: Path, version: str, gpu: str) -> None:
    with suppress(StorageError):  # it only saves time, and the folder may be read-only
        keep_runtime_cache(cache, path, version, gpu)
