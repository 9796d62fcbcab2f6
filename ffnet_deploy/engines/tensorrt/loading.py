"""From the bytes of a plan to an engine with execution contexts on a GPU."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.engines.cuda import Cuda
from ffnet_deploy.engines.tensorrt.flavour import has, logger
from ffnet_deploy.engines.tensorrt.journal import Journal
from ffnet_deploy.engines.tensorrt.lane import Lane
from ffnet_deploy.engines.tensorrt.pool import Pool
from ffnet_deploy.engines.tensorrt.tensors import Tensors, read_tensors


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


def open_lanes(trt: Any, cuda: Cuda, file: EngineFile, contexts: int, cuda_graph: bool, journal: Journal) -> Pool:
    """The engine of `file` with up to `contexts` execution contexts; fewer, and a note, where there cannot be more.

    Raises:
        ArtifactError: the plan cannot be loaded here, or is not of the network it should be.
        CudaError: the GPU has no room for a context.
    """
    cuda.use()
    runtime, engine = _deserialized(trt, file, journal)
    pool = Pool(runtime, engine, read_tensors(trt, engine, file.contract, file.path), str(file.path))
    try:
        for index in range(contexts):
            lane = _open_lane(trt, cuda, engine, pool.tensors, index, cuda_graph, journal)
            if lane is None and index == 0:
                raise ArtifactError(f"TensorRT cannot run {file.path}: {journal.explain()}")
            if lane is None:
                journal.add_note(f"runs {index} of {contexts} contexts: no further one could be made")
                break
            pool.add(lane)
    except BaseException:
        pool.close()
        raise
    return pool


def _deserialized(trt: Any, file: EngineFile, journal: Journal) -> tuple[Any, Any]:
    try:
        runtime = trt.Runtime(logger(trt))
    except (TypeError, RuntimeError) as error:  # what the bindings make of a null pointer
        raise ArtifactError(f"TensorRT cannot start on this GPU: {journal.explain()}") from error
    if has(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = True  # version-compatible plans hold code; reading the bundle settled trust
    engine = runtime.deserialize_cuda_engine(file.plan)
    if engine is None:
        raise ArtifactError(
            f"TensorRT {trt.__version__} cannot load {file.path}: {journal.explain()}\n"
            "  to do    build it again on this machine with ffnet-export"
        )
    return runtime, engine


def _open_lane(
    trt: Any, cuda: Cuda, engine: Any, tensors: Tensors, index: int, cuda_graph: bool, journal: Journal
) -> Lane | None:
    """Lane number `index`; None where TensorRT gives no further context, or no profile for it."""
    captures_itself = has(trt, "CudaGraphStrategy")
    context = _context(trt, engine, cuda_graph) if captures_itself else engine.create_execution_context()
    if context is None:
        return None
    lane = Lane(cuda, context, tensors, cuda_graph and not captures_itself, journal)
    try:
        lane.open()
        count = len(tensors.profiles)
        # up to TensorRT 8.5 contexts cannot share a profile: another lane begins with another one
        if any(lane.choose_profile((index + step) % count) for step in range(count)):
            return lane
    except BaseException:
        lane.release()
        raise
    lane.release()
    return None


def _context(trt: Any, engine: Any, cuda_graph: bool) -> Any:
    """A context of TensorRT for RTX, which captures CUDA graphs by itself: its kernels are compiled as shapes come."""
    config, strategy = engine.create_runtime_config(), trt.CudaGraphStrategy
    config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE if cuda_graph else strategy.DISABLED
    return engine.create_execution_context(config)
