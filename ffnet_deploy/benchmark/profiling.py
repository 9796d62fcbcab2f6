"""Where the time of a call goes: layers as each runtime's own profiler times them, summed over the blocks of FFNet."""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.artifacts.manifest import manifest_path, read_manifest
from ffnet_deploy.benchmark.record import LayerProfile, Peaks, ProfileRow
from ffnet_deploy.benchmark.roofline import Cost, TensorSize, cost, raised
from ffnet_deploy.core.contract import INPUT_NAME, Contract
from ffnet_deploy.core.decoding import DecodingError, document_bytes
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.core.optional import optional
from ffnet_deploy.engines.onnxruntime import SessionSettings, create_session
from ffnet_deploy.engines.torch import TorchEngine

RUNS = 10
"""Calls that a profile averages."""
_WARM = 2
_WELL_TIMED = 0.002
"""Share of a call from which the time of a layer can raise the peaks."""

_ITEMSIZE = {"float": 4, "float16": 2, "bfloat16": 2, "double": 8, "int64": 8, "int32": 4, "uint32": 4}
"""Bytes per value by ONNX Runtime's names; 1 for the others: int8, uint8, bool, float8."""
_METADATA = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
"""Nodes of the graph in the inspector's words."""
_ITEMSIZES = ((1, r"int8|fp8|float8|bool"), (2, r"fp16|half|bf16|bfloat16|float16"))
"""Bytes per value by the inspector's words for a type; 4 for the others."""
_STAGE = re.compile(r"stages\.(\d+)")
_NORM = re.compile(r"backbone[./]norm(\d)")
_HEAD_ORDER = ("head", "head token mixer", "head channel mixer", "upsample", "output")
_STAGE_ORDER = ("down-sampling", "token mixer", "channel mixer", "norm")


@dataclass(frozen=True)
class TimedLayer:
    """A layer as a profiler knows it.

    Attributes:
        name: Name of the layer, or of all that were fused into it.
        operator: What it computes.
        milliseconds: Mean time per call.
        cost: Operations and bytes that the layer needs at least; None: unknown.
    """

    name: str
    operator: str
    milliseconds: float
    cost: Cost | None = None


@dataclass(frozen=True)
class TimedLayers:
    """What a profiler measured: its name, the calls it averaged, and the layers in the order they run."""

    tool: str
    runs: int
    layers: Sequence[TimedLayer]


def profile(timed: TimedLayers, peaks: Peaks | None) -> LayerProfile:
    """Layers and blocks with their limits on a device with `peaks`; None: no limits."""
    total = sum(layer.milliseconds for layer in timed.layers)
    if peaks is not None:
        # times of very short layers are little more than the clock's resolution
        long = [one for one in timed.layers if one.milliseconds > 0 and one.milliseconds >= _WELL_TIMED * total]
        peaks = raised(peaks, [(one.milliseconds, one.cost) for one in long if one.cost is not None])
    layers = tuple(_layer(one, total, peaks) for one in timed.layers)
    names = sorted({layer.block for layer in layers}, key=block_order)
    blocks = tuple(_block(name, [layer for layer in layers if layer.block == name], total) for name in names)
    return LayerProfile(timed.tool, timed.runs, layers, blocks, peaks)


def _layer(timed: TimedLayer, total: float, peaks: Peaks | None) -> ProfileRow:
    limit, bound = _limit(timed.cost, peaks)
    if limit is not None:
        limit = min(limit, timed.milliseconds)
    return ProfileRow(
        name=timed.name,
        block=block_of(timed.name),
        operator=timed.operator,
        milliseconds=timed.milliseconds,
        share=_percent(timed.milliseconds, total),
        flops=None if timed.cost is None else timed.cost.flops,
        bytes=None if timed.cost is None else timed.cost.bytes,
        limit_ms=limit,
        bound=bound,
        of_limit=None if limit is None else _percent(limit, timed.milliseconds),
    )


def _limit(cost: Cost | None, peaks: Peaks | None) -> tuple[float | None, str | None]:
    """The least milliseconds that `peaks` allow, and what sets them."""
    if cost is None or peaks is None:
        return None, None
    compute, memory = cost.flops / peaks.flops * 1000, (cost.bytes or 0.0) / peaks.bytes * 1000
    return (compute, "compute") if compute > memory else (memory, "memory")


def _block(name: str, layers: Sequence[ProfileRow], total: float) -> ProfileRow:
    milliseconds = sum(layer.milliseconds for layer in layers)
    known = [layer for layer in layers if layer.limit_ms is not None]
    limit = _total([layer.limit_ms for layer in layers])
    return ProfileRow(
        name=name,
        block=name,
        operator="",
        milliseconds=milliseconds,
        share=_percent(milliseconds, total),
        flops=_total([layer.flops for layer in layers]),
        bytes=_total([layer.bytes for layer in layers]),
        limit_ms=limit,
        bound=_main_bound(layers),
        of_limit=None if limit is None else _percent(limit, sum(layer.milliseconds for layer in known)),
    )


def _main_bound(layers: Sequence[ProfileRow]) -> str | None:
    """What sets most of the limits of `layers`, by time."""
    weights: dict[str, float] = {}
    for layer in layers:
        if layer.bound is not None and layer.limit_ms is not None:
            weights[layer.bound] = weights.get(layer.bound, 0.0) + layer.limit_ms
    return max(weights, key=lambda bound: weights[bound], default=None)


def _total(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _percent(part: float, whole: float) -> float:
    return part / whole * 100 if whole > 0 else 0.0


def block_of(name: str) -> str:
    """The part of the network that the layer `name` belongs to.

    Layers are named after the modules they came from: ``/backbone/stages.0/stages.0.1/token_mixer/.../Conv`` in ONNX
    files and what is made of them, ``backbone.stages.0.1.token_mixer...`` in PyTorch. Of a fused layer with several
    names the first counts. What no module made (copies, changes of layout) is ``"other"``.
    """
    if "patch_embed" in name:
        return "stem"
    stage = _STAGE.search(name)
    if stage is not None:
        return f"stage {int(stage[1]) + 1} {_mixer(name[stage.end() :]) or 'down-sampling'}"
    norm = _NORM.search(name)
    if norm is not None:
        return f"stage {int(norm[1]) + 1} norm"
    if "decode_head" in name or name.startswith(("logits", "conv_seg")):
        if "upsampler" in name or "Resize" in name:
            return "upsample"
        mixer = _mixer(name)
        return f"head {mixer}" if mixer else "head"
    if "finish" in name:
        return "upsample" if "Resize" in name else "output"
    return "input" if "normalize" in name else "other"


def _mixer(path: str) -> str | None:
    found = re.search(r"token_mixer|channel_mixer", path)
    return found[0].replace("_", " ") if found else None


def block_order(block: str) -> tuple[int, int]:
    """Sorts blocks as the data goes through them."""
    if block in ("input", "stem"):
        return (0, block == "stem")
    stage = re.match(r"stage (\d+) (.+)", block)
    if stage is not None:
        return (int(stage[1]), _STAGE_ORDER.index(stage[2]))
    return (100, _HEAD_ORDER.index(block)) if block in _HEAD_ORDER else (101, 0)


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
    inputs, outputs = (
        [
            TensorSize(tuple(shape), _ITEMSIZE.get(kind, 1))
            for one in arguments.get(key, [])
            for kind, shape in one.items()
        ]
        for key in ("input_type_shape", "output_type_shape")
    )
    return TimedLayer(
        name=event["name"].removesuffix("_kernel_time"),
        operator=operator,
        milliseconds=event["dur"] / 1000 / runs,
        cost=cost(operator, inputs, outputs),
    )


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


def profile_torch(engine: TorchEngine, batch: NDArray[np.generic]) -> TimedLayers:
    """The innermost modules of an eager PyTorch network, as PyTorch's profiler times them."""
    layers = [
        TimedLayer(
            one.name,
            one.operator,
            one.milliseconds,
            cost(one.operator, [TensorSize(*size) for size in one.inputs], [TensorSize(*one.output)]),
        )
        for one in engine.layer_times(batch, _WARM, RUNS)
    ]
    return TimedLayers("PyTorch profiler", RUNS, layers)


def profile_tensorrt(path: Path, batch: NDArray[np.generic], options: Any) -> TimedLayers:
    """The layers of a TensorRT engine, as its profiler times them.

    Costs of the graph's nodes stand in the engine's manifest; which nodes a layer runs, and what it reads and writes,
    in the inspector's list beside the engine, where a GPU was at hand when it was built. Older engines take both from
    the ONNX file beside them and from the names of their layers.
    """
    from ffnet_deploy.engines.tensorrt.runner import layer_times

    times = layer_times(path, batch, repeats=RUNS, warmup=_WARM, options=options)
    manifest = read_manifest(path) if manifest_path(path).is_file() else {}
    costs = _recorded_costs(manifest, batch)
    graph = path.with_name(f"{path.name.removesuffix('.engine').removesuffix('.rtx')}.onnx")
    if not costs and graph.is_file():
        costs = node_costs(graph, batch)
    listed = _inspected_layers(path)
    layers = []
    for name, values in times.items():
        entry = listed.get(name, {})
        nodes = _METADATA.findall(str(entry.get("Metadata", ""))) or [part.strip() for part in name.split("+")]
        layer = _with_origin(TimedLayer(name, "", sum(values) / len(values)), nodes, costs)
        known = [costs[node] for node in nodes if node in costs]
        if layer.cost is not None:
            traffic = _traffic(entry) or (known[0].bytes if len(known) == 1 else None)
            layer = replace(layer, cost=Cost(layer.cost.flops, traffic))
        layers.append(layer)
    return TimedLayers("TensorRT profiler", RUNS, layers)


def _recorded_costs(manifest: Mapping[str, Any], batch: NDArray[np.generic]) -> dict[str, Cost]:
    """The costs in an engine's manifest, scaled from the shape they were counted at to that of `batch`."""
    found, described = manifest.get("costs"), manifest.get("contract")
    if not isinstance(found, Mapping) or not isinstance(described, Mapping):
        return {}
    contract = Contract.from_json(json.dumps(described))
    scale = batch.size / (3 * contract.batch.opt * contract.height.opt * contract.width.opt)
    return {
        str(name): Cost(float(value[0]) * scale, float(value[1]) * scale)
        for name, value in found.items()
        if isinstance(value, list | tuple) and len(value) == 2
    }


def _inspected_layers(path: Path) -> dict[str, Mapping[str, Any]]:
    """The inspector's entry of each layer by its name; empty where the engine has no list beside it."""
    file = path.with_name(f"{path.name}.layers.json")
    if not file.is_file():
        return {}
    try:
        # not by `core.decoding.decode`: the inspector separates the names of nodes by control characters
        listed = msgspec.json.decode(document_bytes(file), type=dict[str, Any]).get("Layers")
    except (OSError, msgspec.MsgspecError, DecodingError, RecursionError) as error:
        raise ArtifactError(f"the layer list {file} is damaged: {error}.\n  to do    build the engine again") from error
    entries = listed if isinstance(listed, list) else []
    return {str(entry["Name"]): entry for entry in entries if isinstance(entry, dict) and "Name" in entry}


def _traffic(entry: Mapping[str, Any]) -> float | None:
    """Bytes of the inputs and outputs that the inspector lists for a layer; None where a shape is not known."""
    total = 0.0
    tensors = [one for side in ("Inputs", "Outputs") for one in entry.get(side) or () if isinstance(one, dict)]
    for tensor in tensors:
        shape = tensor.get("Dimensions")
        if not isinstance(shape, list) or not all(isinstance(side, int) and side >= 0 for side in shape):
            return None
        kind = str(tensor.get("Datatype") or tensor.get("Format/Datatype") or "")
        total += prod(shape) * next((size for size, words in _ITEMSIZES if re.search(words, kind, re.IGNORECASE)), 4)
    return total if tensors else None


def _with_origin(layer: TimedLayer, origins: Sequence[str], costs: Mapping[str, Cost]) -> TimedLayer:
    """`layer` named after the graph's nodes that it came from, with their operations; its traffic stays unknown."""
    name = " + ".join(origins)
    known = [costs[origin] for origin in origins if origin in costs]
    if not known:
        return TimedLayer(name, layer.operator, layer.milliseconds)
    # between fused nodes nothing goes through memory: what the whole reads and writes is not the sum of its parts
    return TimedLayer(name, layer.operator, layer.milliseconds, Cost(sum(one.flops for one in known), None))
