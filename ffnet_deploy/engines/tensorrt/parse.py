"""From an ONNX file to TensorRT's network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.engines.cuda import Cuda
from ffnet_deploy.engines.onnx_metadata import node_at
from ffnet_deploy.engines.tensorrt.flavour import (
    Flavour,
    Message,
    feature,
    has,
    is_strongly_typed,
    listen,
    load,
    logger,
)
from ffnet_deploy.engines.tensorrt.plain_words import explain_parser


@dataclass(frozen=True)
class Parsed:
    """A network in TensorRT's hands.

    Attributes:
        trt: the module it belongs to.
        builder: TensorRT's builder.
        network: the network definition.
        parser: owns the weights that `network` points to, and so lives as long.
    """

    trt: Any
    builder: Any
    network: Any
    parser: Any


def open_builder(flavour: Flavour, device: int | None) -> tuple[Any, Any]:
    """The module of `flavour` and a builder of it.

    Args:
        flavour: which TensorRT.
        device: number of the CUDA device to build on, chosen for the calling thread; None builds without one, which
            only TensorRT for RTX can.

    Raises:
        NoDeviceError: there is no such device; TensorRT's builder without one would end the process.
        MissingPackageError: TensorRT is not installed.
    """
    trt = load(flavour)
    if device is not None or flavour is Flavour.TENSORRT:
        Cuda(device or 0).use()
    return trt, trt.Builder(logger(trt))


def parse_onnx(flavour: Flavour, path: Path, device: int | None = None) -> Parsed:
    """The network of the ONNX file `path`, strongly typed where the version knows that.

    Args:
        flavour: which TensorRT.
        path: the graph; external weights are found beside it.
        device: see `open_builder`.

    Raises:
        ArtifactError: the graph cannot be parsed; its nodes are named with the reason.
        NoDeviceError: see `open_builder`.
    """
    trt, builder = open_builder(flavour, device)
    network = builder.create_network(_creation_flags(trt))
    parser = trt.OnnxParser(network, logger(trt))
    with listen(trt) as messages:
        complete = parser.parse_from_file(str(path))
    # a file that is no graph at all is "parsed" into a network of nothing
    if not complete or not network.num_layers:
        raise ArtifactError(explain_parser(flavour.label, str(path), _failures(parser, path, messages)))
    return Parsed(trt, builder, network, parser)


def _creation_flags(trt: Any) -> int:
    name = "STRONGLY_TYPED" if is_strongly_typed(trt) else "EXPLICIT_BATCH"
    return 1 << int(feature(trt, f"NetworkDefinitionCreationFlag.{name}"))


def _failures(parser: Any, path: Path, messages: list[Message]) -> list[tuple[str, str]]:
    """(node, reason) of each thing that the parser did not accept."""
    failures = [_failure(parser.get_error(index), path) for index in range(parser.num_errors)]
    logged = [("the graph", message.text) for message in messages if message.is_error]
    return failures or logged or [("the graph", "it holds no nodes")]


def _failure(error: Any, path: Path) -> tuple[str, str]:
    if has(error, "node_name") and has(error, "node_operator") and error.node_name():
        return f"{error.node_name()} ({error.node_operator()})", error.desc()
    return node_at(path, error.node()), error.desc()
