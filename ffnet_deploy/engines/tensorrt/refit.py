"""Give an engine that was built without weights, or to be refitted, the weights of an exported graph."""

from pathlib import Path
from typing import Any

from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.engines.bundle import Bundle
from ffnet_deploy.engines.cuda import Cuda
from ffnet_deploy.engines.onnx_metadata import with_int32_labels
from ffnet_deploy.engines.tensorrt.context_pool import EngineFile, deserialize
from ffnet_deploy.engines.tensorrt.diagnostics import LogCapture, logger
from ffnet_deploy.engines.tensorrt.variant import feature, load

_SHOWN = 5


def refit_plan(bundle: Bundle, graph: Path, device: int = 0) -> bytes:
    """The engine of `bundle` with the weights of the ONNX file `graph`, as TensorRT serialises it.

    Args:
        bundle: an engine of ``--strip-weights`` or ``--refit``.
        graph: the graph that the engine was built from, with the same or other weights.
        device: number of the CUDA device that the engine is loaded on.

    Raises:
        NoDeviceError: there is no GPU.
        OptionError: this TensorRT refits no engine from a graph; 10 was the first.
        ArtifactError: the engine cannot be loaded, or the graph does not give all of its weights.
    """
    trt = load(bundle.variant)
    refitter_of_graphs = feature(trt, "OnnxParserRefitter")
    weights_left_out = feature(trt, "SerializationFlag.EXCLUDE_WEIGHTS")
    if refitter_of_graphs is None or weights_left_out is None:
        raise OptionError(
            f"TensorRT {trt.__version__} refits no engine from a graph.\n  to do    build it again with its weights"
        )
    Cuda(device).use()
    log = LogCapture(trt)
    try:
        runtime, engine = deserialize(trt, EngineFile(bundle.path, bundle.plan, bundle.contract), log)
        refitter = trt.Refitter(engine, logger(trt))
        loader = refitter_of_graphs(refitter, logger(trt))
        widened = with_int32_labels(graph)
        if widened is None:
            complete = loader.refit_from_file(str(graph))
        else:
            complete = loader.refit_from_bytes(widened, str(graph))
        missing = [str(name) for name in refitter.get_missing_weights()]
        if not complete or missing:
            raise ArtifactError(_not_given(bundle, graph, missing, loader, log))
        if not refitter.refit_cuda_engine():
            raise ArtifactError(f"TensorRT {trt.__version__} does not refit {bundle.path}: {log.explain()}")
        serialization = engine.create_serialization_config()
        if not serialization.clear_flag(weights_left_out):
            raise ArtifactError(
                f"TensorRT {trt.__version__} does not write the weights of {bundle.path}: {log.explain()}"
            )
        plan = bytes(engine.serialize_with_config(serialization))
        del loader, refitter, engine, runtime  # in this order: each needs the next
        return plan
    finally:
        log.close()


def _not_given(bundle: Bundle, graph: Path, missing: list[str], loader: Any, log: LogCapture) -> str:
    """Why `graph` does not refit the engine of `bundle`, and what to do."""
    reasons = [loader.get_error(index).desc() for index in range(loader.num_errors)]
    found = reasons[0] if reasons else log.explain()
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        found = f"weights without a value: {', '.join(missing[:_SHOWN])}{more}"
    return (
        f"{graph} does not give {bundle.path} its weights.\n  found    {found}\n"
        "  to do    name the graph that the engine was built from"
    )
