"""An ONNX file as TensorRT's network: parsed, and its layers as plain values."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.engines.cuda import Cuda, NoDeviceError
from ffnet_deploy.engines.onnx_metadata import node_at, with_int32_labels
from ffnet_deploy.engines.tensorrt.diagnostics import LogMessage, explain_parser, explain_start, listen, logger
from ffnet_deploy.engines.tensorrt.variant import Variant, feature, has, is_strongly_typed, load


@dataclass(frozen=True)
class ParsedNetwork:
    """A network in TensorRT's hands.

    Attributes:
        trt: The module it belongs to.
        builder: TensorRT's builder.
        network: The network definition.
        parser: Owns the weights that `network` points to, and so lives as long.
        typed: Whether its types bind the builder; otherwise builder flags allow them.
    """

    trt: Any
    builder: Any
    network: Any
    parser: Any
    typed: bool = True


def open_builder(variant: Variant, device: int | None) -> tuple[Any, Any]:
    """The module of `variant` and a builder of it.

    Args:
        variant: which TensorRT.
        device: number of the CUDA device to build on, chosen for the calling thread; None builds without one, which
            only TensorRT for RTX can.

    Raises:
        NoDeviceError: there is no such device, without which TensorRT's builder would end the process; or its driver
            does not fit this TensorRT.
        MissingPackageError: TensorRT is not installed.
    """
    trt = load(variant)
    if device is not None or variant is Variant.TENSORRT:
        Cuda(device or 0).use()
    with listen(trt) as messages:
        try:
            return trt, trt.Builder(logger(trt))
        except (TypeError, RuntimeError) as error:  # what the bindings make of a null pointer
            raise NoDeviceError(explain_start(variant.label, trt.__version__, messages)) from error


def parse_onnx(variant: Variant, path: Path, device: int | None = None, strongly_typed: bool = True) -> ParsedNetwork:
    """The network of the ONNX file `path`, strongly typed where the version knows that.

    Args:
        variant: which TensorRT.
        path: the graph; external weights are found beside it.
        device: see `open_builder`.
        strongly_typed: False for what cannot be typed: layers on a DLA core.

    Raises:
        ArtifactError: the graph cannot be parsed; its nodes are named with the reason.
        NoDeviceError: see `open_builder`.
    """
    trt, builder = open_builder(variant, device)
    typed = strongly_typed and is_strongly_typed(trt)
    flag = feature(trt, f"NetworkDefinitionCreationFlag.{'STRONGLY_TYPED' if typed else 'EXPLICIT_BATCH'}")
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger(trt))
    with listen(trt) as messages:
        widened = with_int32_labels(path)
        complete = parser.parse_from_file(str(path)) if widened is None else parser.parse(widened, str(path))
    # a file that is no graph at all is "parsed" into a network of nothing
    if not complete or not network.num_layers:
        raise ArtifactError(explain_parser(variant.label, str(path), _failures(parser, path, messages)))
    return ParsedNetwork(trt, builder, network, parser, typed)


def _failures(parser: Any, path: Path, messages: list[LogMessage]) -> list[tuple[str, str]]:
    """(node, reason) of each thing that the parser did not accept."""
    failures = []
    for error in (parser.get_error(index) for index in range(parser.num_errors)):
        named = has(error, "node_name") and has(error, "node_operator") and error.node_name()
        node = f"{error.node_name()} ({error.node_operator()})" if named else node_at(path, error.node())
        failures.append((node, error.desc()))
    logged = [("the graph", message.text) for message in messages if message.is_error]
    return failures or logged or [("the graph", "it holds no nodes")]


_METADATA = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_TYPES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "FP8": "fp8", "INT8": "int8"}
_FREE = (
    *("CONSTANT", "SHAPE", "SHUFFLE", "IDENTITY", "CAST", "QUANTIZE", "DEQUANTIZE", "GATHER", "CONCATENATION", "SLICE"),
)
"""Kinds of layers that compute nothing, and are fused into what they serve where that is possible."""
_PASSING = ("CAST", "IDENTITY", "SHUFFLE")
"""Kinds of layers that may lie between a dequantisation and what it serves."""


@dataclass(frozen=True)
class NetworkLayer:
    """One layer of a parsed network.

    Attributes:
        name: Name of the ONNX node that it came from; the parser's own name where there is none.
        kind: TensorRT's layer type, for instance ``"CONVOLUTION"``.
        inputs: Names of its input tensors.
        outputs: Names of its output tensors.
        input: Type of its first input: ``"fp32"``, ``"fp16"``, ...; where that comes from a dequantisation the type
            before it, ``"int8"`` or ``"fp8"``; None without inputs.
        weights: The same for a convolution's weights; None for other layers.
        output: Type of its first output.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input: str | None
    weights: str | None
    output: str


def node_name(layer: Any) -> str:
    """Name of the ONNX node that `layer` came from: from its metadata where the version keeps them."""
    found = _METADATA.search(layer.metadata) if has(layer, "metadata") else None
    return found[1] if found else str(layer.name)


def read_layers(trt: Any, network: Any) -> list[NetworkLayer]:
    """The layers of `network` in order."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    makers = {tensor.name: layer for layer in layers for tensor in _outputs(layer)}
    return [_read(trt, layer, makers) for layer in layers]


@dataclass(frozen=True)
class LargestTensor:
    """The tensor of a network with the most elements at one input shape.

    Attributes:
        name: Name of the layer that gives it, or of the input.
        shape: Shape of the tensor.
        elements: Number of elements; TensorRT allows 2^31 - 1.
        bytes: Memory that the tensor takes.
    """

    name: str
    shape: tuple[int, ...]
    elements: int
    bytes: int


@contextmanager
def at_shape(network: Any, shape: tuple[int, ...]) -> Iterator[None]:
    """Give the network's input a fixed shape while the block runs, so that every tensor's shape is known."""
    tensor = network.get_input(0)
    free = tuple(int(size) for size in tensor.shape)
    tensor.shape = shape
    try:
        yield
    finally:
        tensor.shape = free


def input_shape(contract: Contract, batch: int, height: int, width: int) -> tuple[int, ...]:
    """The shape of the input tensor, whose dimensions are in the order of its kind."""
    sizes = {"batch": batch, "channels": 3, "height": height, "width": width}
    return tuple(sizes[name] for name, _ in contract.input_ranges)


def largest_tensor(network: Any, shape: tuple[int, ...]) -> LargestTensor:
    """The largest tensor of `network` for inputs of `shape`, without building it."""
    with at_shape(network, shape):
        found = [("the input", network.get_input(0))]
        for layer in (network.get_layer(index) for index in range(network.num_layers)):
            found += [(node_name(layer), tensor) for tensor in _outputs(layer)]
        known = [
            (name, tuple(int(size) for size in tensor.shape), tensor.dtype)
            for name, tensor in found
            if _is_known(tensor)
        ]
        name, sizes, dtype = max(known, key=lambda one: prod(one[1]))
    return LargestTensor(name, sizes, prod(sizes), prod(sizes) * _itemsize(_type_name(dtype)))


def node_costs(trt: Any, network: Any, shape: tuple[int, ...]) -> dict[str, tuple[float, float]]:
    """(operations, bytes) that each node of the graph needs at least for inputs of `shape`.

    Operations: two for a multiply-add, one for each value of what is no product. Bytes: inputs, weights and outputs,
    once each, in the types they are stored in. Nodes that move or convert data alone are left out: they are fused.
    """
    costs: dict[str, tuple[float, float]] = {}
    with at_shape(network, shape):
        layers = [network.get_layer(index) for index in range(network.num_layers)]
        makers = {tensor.name: layer for layer in layers for tensor in _outputs(layer)}
        for layer in layers:
            kind, outputs, inputs = _last(layer.type), _outputs(layer), _inputs(layer)
            if kind in _FREE or not outputs or not all(_is_known(tensor) for tensor in (*inputs, *outputs)):
                continue
            values, each, traffic = prod(outputs[0].shape), 1.0, 0.0
            if kind in ("CONVOLUTION", "DECONVOLUTION"):
                weights = int(
                    prod(inputs[1].shape) if len(inputs) > 1 else _as_convolution(trt, layer, kind).kernel.size
                )
                each = 2 * weights / outputs[0].shape[1]
                if len(inputs) == 1:
                    traffic += weights * _itemsize(_weight_type(trt, layer, kind, inputs, makers))
            elif kind == "MATRIX_MULTIPLY":
                each = 2.0 * inputs[0].shape[-1]
            traffic += sum(prod(tensor.shape) * _itemsize(_stored_type(tensor, makers)) for tensor in inputs)
            traffic += sum(prod(tensor.shape) * _itemsize(_type_name(tensor.dtype)) for tensor in outputs)
            before = costs.get(node_name(layer), (0.0, 0.0))
            costs[node_name(layer)] = (before[0] + values * each, before[1] + traffic)
    return costs


def tensor_shapes(network: Any) -> dict[str, list[int]]:
    """Shapes of the network's input and output; -1 where a dimension is free."""
    tensors = {"input": network.get_input(0), "output": network.get_output(0)}
    return {name: [int(size) for size in tensor.shape] for name, tensor in tensors.items()}


def _read(trt: Any, layer: Any, makers: dict[str, Any]) -> NetworkLayer:
    inputs, outputs = _inputs(layer), _outputs(layer)
    kind = _last(layer.type)
    is_conv = kind in ("CONVOLUTION", "DECONVOLUTION")
    return NetworkLayer(
        name=node_name(layer),
        kind=kind,
        inputs=tuple(tensor.name for tensor in inputs),
        outputs=tuple(tensor.name for tensor in outputs),
        input=_stored_type(inputs[0], makers) if inputs else None,
        weights=_weight_type(trt, layer, kind, inputs, makers) if is_conv else None,
        output=_type_name(outputs[0].dtype) if outputs else "none",
    )


def _is_known(tensor: Any) -> bool:
    try:
        return all(int(size) >= 0 for size in tensor.shape)
    except (TypeError, ValueError):  # of a tensor without a rank
        return False


def _itemsize(kind: str) -> int:
    return {"fp32": 4, "int32": 4, "int64": 8, "fp16": 2, "bf16": 2}.get(kind, 1)


def _inputs(layer: Any) -> list[Any]:
    tensors = [layer.get_input(index) for index in range(layer.num_inputs)]
    return [tensor for tensor in tensors if tensor is not None]


def _outputs(layer: Any) -> list[Any]:
    return [layer.get_output(index) for index in range(layer.num_outputs)]


def _weight_type(trt: Any, layer: Any, kind: str, inputs: list[Any], makers: dict[str, Any]) -> str:
    if len(inputs) > 1:
        return _stored_type(inputs[1], makers)
    return _type_name(feature(_as_convolution(trt, layer, kind), "kernel.dtype"))


def _as_convolution(trt: Any, layer: Any, kind: str) -> Any:
    # a layer comes as its base class, and its kernel as an array or, in types that NumPy lacks, as TensorRT's weights
    conv = layer
    conv.__class__ = trt.IConvolutionLayer if kind == "CONVOLUTION" else trt.IDeconvolutionLayer
    return conv


def _stored_type(tensor: Any, makers: dict[str, Any]) -> str:
    """Type that `tensor` has, or had before it was dequantised."""
    maker = makers.get(tensor.name)
    while maker is not None and _last(maker.type) in _PASSING:
        maker = makers.get(maker.get_input(0).name)
    if maker is not None and _last(maker.type) == "DEQUANTIZE":
        return _type_name(maker.get_input(0).dtype)
    return _type_name(tensor.dtype)


def _last(value: Any) -> str:
    return str(value).rpartition(".")[2]


def _type_name(value: Any) -> str:
    """Our name of a type of TensorRT or NumPy."""
    name = _last(value)
    numpy_names = {"float32": "fp32", "float16": "fp16"}
    return _TYPES.get(name) or numpy_names.get(name, name.lower())
