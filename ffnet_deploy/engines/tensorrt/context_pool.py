"""A deserialised engine with its execution contexts, each lent to one thread at a time."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.engines.cuda import Cuda
from ffnet_deploy.engines.tensorrt.diagnostics import LogCapture, logger
from ffnet_deploy.engines.tensorrt.execution_context import ExecutionContext
from ffnet_deploy.engines.tensorrt.tensors import EngineTensors, Shape, read_engine_tensors
from ffnet_deploy.engines.tensorrt.variant import has


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
        for context in self._idle:
            context.release_context()
        self._engine = None
        self._runtime = None
        for context in self._idle:
            context.release_memory()
        self._idle = []


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
        path: of the file, for messages.
        plan: its bytes.
        contract: what the network takes and gives.
    """

    path: Path
    plan: bytes
    contract: Contract


def open_contexts(
    trt: Any, cuda: Cuda, file: EngineFile, contexts: int, cuda_graph: bool, log: LogCapture
) -> ContextPool:
    """The engine of `file` with up to `contexts` execution contexts; fewer, and a note, where there cannot be more.

    Raises:
        ArtifactError: the plan cannot be loaded here, or is not of the network it should be.
        CudaError: the GPU has no room for a context.
    """
    cuda.use()
    runtime, engine = _deserialized(trt, file, log)
    pool = ContextPool(runtime, engine, read_engine_tensors(trt, engine, file.contract, file.path), str(file.path))
    try:
        for index in range(contexts):
            context = _open_context(trt, cuda, engine, pool.tensors, index, cuda_graph, log)
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


def _deserialized(trt: Any, file: EngineFile, log: LogCapture) -> tuple[Any, Any]:
    try:
        runtime = trt.Runtime(logger(trt))
    except (TypeError, RuntimeError) as error:  # what the bindings make of a null pointer
        raise ArtifactError(f"TensorRT cannot start on this GPU: {log.explain()}") from error
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
    trt: Any, cuda: Cuda, engine: Any, tensors: EngineTensors, index: int, cuda_graph: bool, log: LogCapture
) -> ExecutionContext | None:
    """Context number `index`; None where TensorRT gives no further context, or no profile for it."""
    captures_itself = has(trt, "CudaGraphStrategy")
    native = _native_context(trt, engine, cuda_graph) if captures_itself else engine.create_execution_context()
    if native is None:
        return None
    context = ExecutionContext(cuda, native, tensors, cuda_graph and not captures_itself, log)
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


def _native_context(trt: Any, engine: Any, cuda_graph: bool) -> Any:
    """A context of TensorRT for RTX, which captures CUDA graphs by itself: its kernels are compiled as shapes come."""
    config, strategy = engine.create_runtime_config(), trt.CudaGraphStrategy
    config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE if cuda_graph else strategy.DISABLED
    return engine.create_execution_context(config)
