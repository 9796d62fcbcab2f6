"""Check that a built engine is in the precision that was asked for, from the inspector's list of its layers.

The list needs an engine built with detailed profiling, and a GPU that takes it. Up to TensorRT 10 types stand in the
"Format/Datatype" of each tensor, in words that changed over the versions ("Row major linear FP16 format", "Half", ...);
TensorRT 11 and TensorRT for RTX write "Datatype" beside "Format". Those of dynamic shapes are there only once a context
has been given a shape.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ffnet_deploy.core.contract import INPUT_NAME, Contract
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.core.precision import Precision, PrecisionRecord
from ffnet_deploy.engines.tensorrt.diagnostics import errors_of, listen, logger
from ffnet_deploy.engines.tensorrt.network import open_builder
from ffnet_deploy.engines.tensorrt.precision_check import conv_precision
from ffnet_deploy.engines.tensorrt.variant import Variant, has

_TYPES = (
    ("bf16", r"bf16|bfloat16"),
    ("fp8", r"fp8|float8"),
    ("uint8", r"uint8"),
    ("int8", r"int8"),
    ("fp16", r"fp16|half|float16"),
    ("fp32", r"fp32|\bfloat(32)?\b"),
)
"""Our name of a type, and how the inspector writes it; the first that fits."""
_COMPUTING = ("int8", "fp8", "fp16", "bf16", "fp32")
"""Types that a convolution can compute in; images are uint8, which no kernel multiplies."""
_INT8_KERNEL = re.compile(r"i8i8|i8f32|int8|imma|_s8(?!\d)", re.IGNORECASE)
_CONV_LAYER = re.compile(r"conv", re.IGNORECASE)
_PRODUCT = re.compile(r"conv|gemm|matmul|_fc|fusion", re.IGNORECASE)
"""In the name or kind of a layer that Myelin generated: it multiplies, and is no cast, move or sum."""
_METADATA = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_NAMES = re.compile(r" \+ |[(), ]+")


@dataclass(frozen=True)
class EngineCheck:
    """What the engine's layers say.

    Attributes:
        layers: Number of layers that the engine runs.
        by_precision: Number of them by type.
        convolutions: Number of the graph's convolutions by type of the layer that runs them.
        unseen: Number of the graph's convolutions of whose type the list says nothing.
        fused: Number of layers that run several nodes of the graph.
        reformats: Number of layers that only change layout or type.
        lone_quantizations: Names of layers that only quantise or dequantise.
        violations: What is not as asked for, in words; empty where the check holds.
    """

    layers: int
    by_precision: dict[str, int]
    convolutions: dict[str, int]
    unseen: int
    fused: int
    reformats: int
    lone_quantizations: tuple[str, ...]
    violations: tuple[str, ...]

    @property
    def seen(self) -> int:
        """Number of the graph's convolutions whose type the list tells."""
        return sum(count for precision, count in self.convolutions.items() if precision != "unknown")

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def inspect_engine(variant: Variant, plan: bytes, contract: Contract, device: int) -> dict[str, Any]:
    """The inspector's description of an engine, as its JSON has it.

    Raises:
        ArtifactError: the engine cannot be loaded.
        NoDeviceError: there is no GPU.
    """
    trt, _ = open_builder(variant, device)
    runtime = trt.Runtime(logger(trt))
    if has(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = True  # version-compatible plans hold code, here of TensorRT itself
    with listen(trt) as messages:
        engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        reason = (errors_of(messages) or ["no reason given"])[0]
        raise ArtifactError(f"the engine that was just built cannot be loaded: {reason}")
    context = engine.create_execution_context()
    if context is None:
        raise ArtifactError("the engine that was just built cannot run: there is no memory left for its layers")
    shape = tuple(dimension.opt for _, dimension in contract.input_ranges)
    if not context.set_input_shape(INPUT_NAME, shape):
        raise ArtifactError(f"the engine that was just built refuses its usual input shape {shape}")
    inspector = engine.create_engine_inspector()
    inspector.execution_context = context
    described: dict[str, Any] = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    return described


def check_engine(described: Mapping[str, Any], convolutions: Sequence[str], record: PrecisionRecord) -> EngineCheck:
    """Compare the layers of an engine with what was asked for.

    Args:
        described: what `inspect_engine` gave.
        convolutions: names of the graph's convolution nodes.
        record: what was asked for.
    """
    layers = [layer for layer in described.get("Layers", []) if isinstance(layer, Mapping)]
    running: dict[str, list[Mapping[str, Any]]] = {}
    for layer in layers:
        for name in node_names(layer):
            running.setdefault(name, []).append(layer)
    found = {name: _conv_precision_in(running[name]) for name in convolutions if name in running}
    problems = [
        f"{name}: asked for {conv_precision(name, record).value}, runs in {precision}"
        for name, precision in found.items()
        if precision not in (conv_precision(name, record).value, "unknown")
    ]
    lone = tuple(str(layer.get("Name")) for layer in layers if _only_quantizes(layer))
    return EngineCheck(
        layers=len(layers),
        by_precision=dict(Counter(precision_of(layer) for layer in layers)),
        convolutions=dict(Counter(found.values())),
        unseen=len(convolutions) - sum(precision != "unknown" for precision in found.values()),
        fused=sum(len(node_names(layer)) > 1 and not _reformats(layer) for layer in layers),
        reformats=sum(_reformats(layer) for layer in layers),
        lone_quantizations=lone,
        violations=tuple(problems),
    )


def node_names(layer: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the graph's nodes that a layer runs: from its metadata, or, before 10, from its name."""
    named = _METADATA.findall(str(layer.get("Metadata", "")))
    return tuple(named or filter(None, _NAMES.split(str(layer.get("Name", "")))))


def precision_of(layer: Mapping[str, Any]) -> str:
    """The type that a layer computes in: of its kernel, its weights, or its inputs; ``"unknown"`` where nothing says.

    Of inputs of several types the first counts, which is a convolution's data; a fused sum brings others.
    """
    if not _reformats(layer) and _INT8_KERNEL.search(str(layer.get("TacticName", ""))):
        return Precision.INT8.value
    weights = layer.get("Weights")
    if isinstance(weights, Mapping) and _type_in(str(weights.get("Type", ""))):
        return str(_type_in(str(weights["Type"])))
    types = [_tensor_type(tensor) for tensor in layer.get("Inputs", [])]
    return next((name for name in types if name in _COMPUTING), "unknown")


def _conv_precision_in(layers: Sequence[Mapping[str, Any]]) -> str:
    """The type of a convolution from all layers that name it.

    Besides the kernel itself these are the reformats, casts and quantisations around it, which may be listed first. The
    layers most like a convolution decide: those with weights, then those of a convolution's kind, then generated ones
    that multiply.
    """
    ranked: dict[int, list[str]] = {}
    for layer in layers:
        kind = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}"
        if _reformats(layer) or _only_quantizes(layer):
            continue
        if isinstance(layer.get("Weights"), Mapping):
            rank = 0
        elif _CONV_LAYER.search(kind):
            rank = 1
        elif _PRODUCT.search(f"{kind} {layer.get('Name', '')}"):
            rank = 2
        else:
            continue
        ranked.setdefault(rank, []).append(precision_of(layer))
    for rank in sorted(ranked):
        known = [precision for precision in ranked[rank] if precision != "unknown"]
        if known:
            return known[0]
    return "unknown"


def _tensor_type(tensor: Mapping[str, Any]) -> str | None:
    """Type of a layer's tensor: TensorRT 11 and TensorRT for RTX write it apart from the layout."""
    for key in ("Datatype", "Format/Datatype", "Format"):
        found = _type_in(str(tensor.get(key, "")))
        if found is not None:
            return found
    return None


def _type_in(text: str) -> str | None:
    return next((name for name, pattern in _TYPES if re.search(pattern, text, re.IGNORECASE)), None)


def _reformats(layer: Mapping[str, Any]) -> bool:
    kinds = layer.get("LayerType"), layer.get("ParameterType")
    return "Reformat" in kinds or str(layer.get("Name", "")).startswith("Reformatting ")


def _only_quantizes(layer: Mapping[str, Any]) -> bool:
    kinds = str(layer.get("LayerType", "")), str(layer.get("ParameterType", ""))
    return any(re.search(r"quantize", kind, re.IGNORECASE) for kind in kinds)
