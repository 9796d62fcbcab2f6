"""The runtimes' own profilers for exported files: ONNX Runtime, OpenVINO, TensorRT."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.benchmark.profiling import TimedLayer, TimedLayers
from ffnet_deploy.benchmark.roofline import Cost, Tensor, cost
from ffnet_deploy.core.contract import INPUT_NAME
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.core.optional import optional
from ffnet_deploy.engines.onnxruntime import SessionSettings, create_session

RUNS = 10
"""Calls that a profile averages."""
_WARM = 2

_ITEMSIZE = {"float": 4, "float16": 2, "bfloat16": 2, "double": 8, "int64": 8, "int32": 4, "uint32": 4}
"""Bytes per value by ONNX Runtime's names; 1 for the others: int8, uint8, bool, float8."""


def profile_onnxruntime(
    path: Path, batch: NDArray[np.generic], threads: int = 0, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> TimedLayers:
    """The nodes that ONNX Runtime runs, as its profiler times them; fused nodes as they are run."""
    nodes = list(_profiled_nodes(path, batch, threads, providers, optimize=True))
    return TimedLayers("ONNX Runtime profiler", RUNS, _merged(nodes))


def node_costs(path: Path, batch: NDArray[np.generic]) -> dict[str, Cost]:
    """The cost of every node of an ONNX file by the node's name, from the shapes that a run of it shows."""
    nodes = _profiled_nodes(path, batch, 0, ("CPUExecutionProvider",), optimize=False, runs=1)
    return {layer.name: layer.cost for layer in nodes if layer.cost is not None}


def _profiled_nodes(
    path: Path,
    batch: NDArray[np.generic],
    threads: int,
    providers: Sequence[str],
    optimize: bool,
    runs: int = RUNS,
) -> Iterator[TimedLayer]:
    """Each run of each node, the warm-up left out."""
    with tempfile.TemporaryDirectory() as folder:
        settings = SessionSettings(optimize, threads, providers, profile=Path(folder) / "profile")
        session = create_session(path, f"{path} cannot be profiled", settings)
        try:
            for _ in range(runs + _WARM):
                session.run(None, {INPUT_NAME: np.ascontiguousarray(batch)})
            events = json.loads(Path(session.end_profiling()).read_text())
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise ArtifactError(f"{path} cannot be profiled: {str(error).strip().partition(chr(10))[0]}") from error
    starts = [event["ts"] for event in events if event["name"] == "model_run"]
    first = sorted(starts)[_WARM]
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= first:
            yield _timed_node(event, runs)


def _timed_node(event: Mapping[str, Any], runs: int) -> TimedLayer:
    arguments = event["args"]
    operator = str(arguments["op_name"])
    inputs, outputs = (_tensors(arguments.get(key, [])) for key in ("input_type_shape", "output_type_shape"))
    return TimedLayer(
        name=event["name"].removesuffix("_kernel_time"),
        operator=operator,
        milliseconds=event["dur"] / 1000 / runs,
        cost=cost(operator, inputs, outputs),
    )


def _tensors(described: Sequence[Mapping[str, Sequence[int]]]) -> list[Tensor]:
    return [Tensor(tuple(shape), _ITEMSIZE.get(kind, 1)) for one in described for kind, shape in one.items()]


def _merged(nodes: Sequence[TimedLayer]) -> list[TimedLayer]:
    """One layer for all runs of a node, in the order of the first run."""
    times: dict[str, float] = {}
    for node in nodes:
        times[node.name] = times.get(node.name, 0.0) + node.milliseconds
    first = {node.name: node for node in reversed(nodes)}
    return [TimedLayer(name, first[name].operator, total, first[name].cost) for name, total in times.items()]


def profile_openvino(path: Path, batch: NDArray[np.generic], threads: int = 0) -> TimedLayers:
    """The nodes that OpenVINO runs on the CPU, as its performance counters time them."""
    openvino = optional("openvino", extra="openvino", purpose="profiling with OpenVINO")
    properties = {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    core = openvino.Core()
    try:
        compiled = core.compile_model(
            core.read_model(str(path)), "CPU", properties | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
        )
        request = compiled.create_infer_request()
        counters = []
        for _ in range(RUNS + _WARM):
            request.infer({INPUT_NAME: np.ascontiguousarray(batch)})
            counters.append(request.get_profiling_info())
    except RuntimeError as error:
        raise ArtifactError(f"{path} cannot be profiled: {str(error).strip().splitlines()[-1]}") from error
    origins = {
        node.get_friendly_name(): node.get_rt_info()["originalLayersNames"].astype(str).split(",")
        for node in compiled.get_runtime_model().get_ordered_ops()
        if "originalLayersNames" in node.get_rt_info()
    }
    nodes = [
        TimedLayer(node.node_name, node.node_type, node.real_time.total_seconds() * 1000 / RUNS)
        for counted in counters[_WARM:]
        for node in counted
        if node.real_time.total_seconds() > 0
    ]
    costs = node_costs(path, batch)
    return TimedLayers(
        "OpenVINO performance counters",
        RUNS,
        [_with_origin(layer, origins.get(layer.name, [layer.name]), costs) for layer in _merged(nodes)],
    )


def profile_tensorrt(path: Path, batch: NDArray[np.generic], options: Any) -> TimedLayers:
    """The layers of a TensorRT engine, as its profiler times them.

    Costs come from the ONNX file that lies beside the engine, where there is one.
    """
    from ffnet_deploy.engines.tensorrt.runner import layer_times

    times = layer_times(path, batch, repeats=RUNS, warmup=_WARM, options=options)
    graph = path.with_name(f"{path.name.removesuffix('.engine').removesuffix('.rtx')}.onnx")
    costs = node_costs(graph, batch) if graph.is_file() else {}
    layers = [TimedLayer(name, "", sum(values) / len(values)) for name, values in times.items()]
    return TimedLayers(
        "TensorRT profiler",
        RUNS,
        [_with_origin(layer, [part.strip() for part in layer.name.split("+")], costs) for layer in layers],
    )


def _with_origin(layer: TimedLayer, origins: Sequence[str], costs: Mapping[str, Cost]) -> TimedLayer:
    """`layer` named after the graph's nodes that it came from, with their operations; its traffic stays unknown."""
    name = " + ".join(origins)
    known = [costs[origin] for origin in origins if origin in costs]
    if not known:
        return TimedLayer(name, layer.operator, layer.milliseconds)
    # between fused nodes nothing goes through memory: what the whole reads and writes is not the sum of its parts
    return TimedLayer(name, layer.operator, layer.milliseconds, Cost(sum(one.flops for one in known), None))
