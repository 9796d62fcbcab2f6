"""Check that a network is in the precision that was asked for, on the network as TensorRT parsed it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ffnet_deploy.core.errors import VerificationError
from ffnet_deploy.core.precision import Precision, PrecisionRecord
from ffnet_deploy.engines.tensorrt.network import NetworkLayer

CONVOLUTIONS = ("CONVOLUTION", "DECONVOLUTION")
_COMPUTING = ("ACTIVATION", "ELEMENTWISE", "MATRIX_MULTIPLY", "NORMALIZATION", "POOLING", "RESIZE", "SCALE", "UNARY")
_PASSING = ("QUANTIZE", "DEQUANTIZE", "CAST", "IDENTITY", "SHUFFLE")
"""Kinds of layers that compute nothing: what they serve lies behind them."""
_SHOWN = 6


@dataclass(frozen=True)
class NetworkCheck:
    """What the parsed network's types say.

    Attributes:
        layers: Number of layers.
        convolutions: Number of convolutions by type of input and weights; mixed ones as ``"fp16 x int8"``.
        others: Number of other computing layers by type of output.
        casts: Number of conversions between types.
        quantizations: Number of quantisations and dequantisations.
        violations: What is not as asked for, in words; empty where the check holds.
    """

    layers: int
    convolutions: dict[str, int]
    others: dict[str, int]
    casts: int
    quantizations: int
    violations: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def conv_precision(name: str, record: PrecisionRecord) -> Precision:
    """The precision that `record` asks of the convolution `name`."""
    if name in record.quantized:
        return record.precision
    return Precision.FP32 if name in record.float32 else record.base


def check_network(layers: Sequence[NetworkLayer], record: PrecisionRecord, typed: bool = True) -> NetworkCheck:
    """Compare the layers of a parsed network with what was asked for.

    Args:
        layers: of the parsed network.
        record: what was asked for.
        typed: whether TensorRT builds what the types say; below 10 they are wishes and only Q/DQ pairs bind.
    """
    convs = [layer for layer in layers if layer.kind in CONVOLUTIONS]
    found = {layer.name for layer in convs}
    violations = [
        f"{name}: asked for {record.precision.value}, not found" for name in record.quantized if name not in found
    ]
    violations += [problem for layer in convs for problem in _conv_problems(layer, record, typed)]
    if typed:
        violations += [problem for layer in layers for problem in _other_problems(layer, record)]
    violations += _lone_quantizations(layers, record)
    kinds = Counter(layer.kind for layer in layers)
    return NetworkCheck(
        layers=len(layers),
        convolutions=dict(
            Counter(
                str(layer.input) if layer.input == layer.weights else f"{layer.input} x {layer.weights}"
                for layer in convs
            )
        ),
        others=dict(Counter(layer.output for layer in layers if layer.kind in _COMPUTING)),
        casts=kinds["CAST"],
        quantizations=kinds["QUANTIZE"] + kinds["DEQUANTIZE"],
        violations=tuple(violations),
    )


def _conv_problems(layer: NetworkLayer, record: PrecisionRecord, typed: bool) -> list[str]:
    wanted = conv_precision(layer.name, record)
    quantized = Precision.INT8.value, Precision.FP8.value
    if not typed and not wanted.is_quantized and layer.input not in quantized and layer.weights not in quantized:
        return []
    output = wanted
    if wanted.is_quantized:  # of INT8 sums that reach beyond FP16 the result is FP32
        output = Precision.FP32 if layer.name in record.float32 else record.base
    found = (layer.input, layer.weights, layer.output if typed else output.value)
    if found == (wanted.value, wanted.value, output.value):
        return []
    return [
        f"{layer.name}: asked for {wanted.value}, found input {layer.input}, weights {layer.weights}, "
        f"output {layer.output}"
    ]


def _other_problems(layer: NetworkLayer, record: PrecisionRecord) -> list[str]:
    """A computing layer in FP32 that nobody asked to keep there."""
    if layer.kind not in _COMPUTING or record.base is Precision.FP32 or layer.name in record.float32:
        return []
    if layer.output != Precision.FP32.value:
        return []
    return [f"{layer.name}: asked for {record.base.value}, found {layer.output}"]


def _lone_quantizations(layers: Sequence[NetworkLayer], record: PrecisionRecord) -> list[str]:
    """Quantisations and dequantisations that serve neither a quantised convolution nor a sum fused into one."""
    users: dict[str, list[NetworkLayer]] = {}
    for layer in layers:
        for tensor in layer.inputs:
            users.setdefault(tensor, []).append(layer)
    bare = {tensor for layer in layers if layer.name in record.quantized for tensor in layer.outputs}

    def served(layer: NetworkLayer) -> list[NetworkLayer]:
        """The layers behind `layer`, looking through what only passes values on."""
        behind = [user for tensor in layer.outputs for user in users.get(tensor, [])]
        return [last for user in behind for last in (served(user) if user.kind in _PASSING else [user])]

    def is_meant(user: NetworkLayer) -> bool:
        return user.name in record.quantized or (user.kind == "ELEMENTWISE" and not bare.isdisjoint(user.inputs))

    problems = []
    for layer in (layer for layer in layers if layer.kind in ("QUANTIZE", "DEQUANTIZE")):
        behind = served(layer)
        strangers = [user.name for user in behind if not is_meant(user)]
        if strangers or not behind:
            where = f"{strangers[0]}, which was not to be quantised" if strangers else "nothing"
            problems.append(f"{layer.name}: a {layer.kind.lower()} before {where}")
    return problems


def require_precision(violations: Sequence[str], record: PrecisionRecord, where: str) -> None:
    """Stop when `violations` holds anything.

    Raises:
        VerificationError: the network is not in the precision that was asked for.
    """
    if not violations:
        return
    shown = "\n".join(f"  found    {line}" for line in violations[:_SHOWN])
    more = f"\n  found    {len(violations) - _SHOWN} more of the kind" if len(violations) > _SHOWN else ""
    raise VerificationError(
        f"{where} is not the {record.precision.value} network that was asked for:\n{shown}{more}\n"
        "  to do    export the graph again with ffnet-export; an engine built from this one would not be what it claims"
    )
