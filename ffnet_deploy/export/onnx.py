"""Writing a segmentor as an ONNX graph: traced, simplified, checked, and the same bytes for the same input."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxslim
import torch

from ffnet_deploy.core.contract import (
    INPUT_NAME,
    METADATA_KEY,
    STRIDE,
    Contract,
    DimensionRange,
    InputKind,
    OutputKind,
    check_multiples,
)
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.files import storage_errors
from ffnet_deploy.core.quiet import quiet
from ffnet_deploy.export.network import DeployedNetwork
from ffnet_deploy.segmentor.load import Segmentor

NEWEST_OPSET = 20
"""The newest operator set that brings the networks anything: 20 has `Gelu`."""
OLDEST_OPSET = 17
"""The newest operator set that TensorRT 8.5 parses; GELU is written as its erf formula."""
EXTERNAL_DATA_THRESHOLD = 2_000_000_000
"""Weights beyond this many bytes go to a second file: a protobuf file ends at 2 GB."""
_IR_VERSIONS = {17: 8, 18: 8, 19: 9, 20: 9}
"""ONNX file format of the release that introduced each operator set."""


@dataclass(frozen=True)
class ExportOptions:
    """The boundary and form of the graph.

    Attributes:
        height: accepted input heights, pixels.
        width: accepted input widths, pixels.
        batch: accepted batch sizes.
        opset: operator set, 17 to 20.
        input: what the graph takes.
        output: what it gives.
    """

    height: DimensionRange = DimensionRange(512, 512, 512)  # noqa: RUF009  frozen
    width: DimensionRange = DimensionRange(512, 512, 512)  # noqa: RUF009  frozen
    batch: DimensionRange = DimensionRange(1, 1, 1)  # noqa: RUF009  frozen
    opset: int = NEWEST_OPSET
    input: InputKind = InputKind.FLOAT
    output: OutputKind = OutputKind.LOGITS

    def __post_init__(self) -> None:
        check_multiples("height", self.height)
        check_multiples("width", self.width)
        if self.opset not in _IR_VERSIONS:
            raise OptionError(f"opset must be {OLDEST_OPSET} to {NEWEST_OPSET}: got {self.opset}")


def contract_of(segmentor: Segmentor, options: ExportOptions) -> Contract:
    """What the exported graph takes and gives."""
    return segmentor.contract(
        input=options.input, output=options.output, batch=options.batch, height=options.height, width=options.width
    )


def contract_in(model: onnx.ModelProto) -> Contract:
    """The contract in the metadata of an exported graph."""
    text = next(entry.value for entry in model.metadata_props if entry.key == METADATA_KEY)
    return Contract.from_json(text)


def build_graph(segmentor: Segmentor, options: ExportOptions) -> onnx.ModelProto:
    """The ONNX graph of `segmentor`, with its contract in the metadata.

    Raises:
        OptionError: the options do not fit the segmentor.
    """
    contract = contract_of(segmentor, options)
    network = DeployedNetwork(segmentor.model, segmentor.config.normalization, options.input, options.output)
    graph = _trace(network.eval(), contract, options.opset)
    with quiet():
        graph = onnxslim.slim(graph)
    return _stamped(graph, contract, options.opset)


def _trace(network: DeployedNetwork, contract: Contract, opset: int) -> onnx.ModelProto:
    # by way of a file: in memory PyTorch's exporter ends at 2 GB
    with quiet(), torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "traced.onnx")
        torch.onnx.export(
            network,
            (example_input(contract),),
            path,
            opset_version=opset,
            input_names=[INPUT_NAME],
            output_names=[contract.output.value],
            dynamic_axes=_dynamic_axes(contract),
            dynamo=False,
        )
        return onnx.load(path)


def example_input(contract: Contract) -> torch.Tensor:
    """An input of the kind and of the smallest traceable size that `contract` accepts."""
    batch = contract.batch.min
    height, width = (
        dimension.opt if dimension.is_fixed else max(dimension.min, min(dimension.opt, 4 * STRIDE))
        for dimension in (contract.height, contract.width)
    )
    if contract.input is InputKind.FLOAT:
        return torch.zeros(batch, 3, height, width)
    return torch.zeros(batch, height, width, 3, dtype=torch.uint8)


def _dynamic_axes(contract: Contract) -> dict[str, dict[int, str]]:
    """Names of the dimensions that are not fixed, by tensor and position."""
    rows, columns = (1, 2) if contract.input is not InputKind.FLOAT else (2, 3)
    out_rows, out_columns = (1, 2) if contract.output is OutputKind.LABELS else (2, 3)
    prefix = "out_" if contract.output is OutputKind.LOGITS else ""
    axes: dict[str, dict[int, str]] = {INPUT_NAME: {}, contract.output.value: {}}
    for dimension, name, at, out_at in (
        (contract.batch, "batch", 0, 0),
        (contract.height, "height", rows, out_rows),
        (contract.width, "width", columns, out_columns),
    ):
        if not dimension.is_fixed:
            axes[INPUT_NAME][at] = name
            axes[contract.output.value][out_at] = name if name == "batch" else prefix + name
    return axes


def _stamped(graph: onnx.ModelProto, contract: Contract, opset: int) -> onnx.ModelProto:
    """The graph with its contract, without traces of who built it when."""
    del graph.metadata_props[:]
    graph.metadata_props.add(key=METADATA_KEY, value=contract.to_json())
    graph.producer_name, graph.producer_version, graph.doc_string = "ffnet-deploy", "", ""
    graph.graph.name, graph.graph.doc_string = contract.network, ""
    graph.ir_version = _IR_VERSIONS[opset]
    return graph


def write_graph(graph: onnx.ModelProto, path: Path, threshold: int = EXTERNAL_DATA_THRESHOLD) -> tuple[str, ...]:
    """Write `graph` to `path` and check the file.

    Returns:
        Names of further files beside `path` that hold weights: none below `threshold` bytes.

    Raises:
        StorageError: there is no room, or the folder cannot be written.
    """
    external = graph.ByteSize() > threshold
    location = f"{path.name}.data"
    settings: dict[str, Any] = {"save_as_external_data": True, "location": location} if external else {}
    with storage_errors(path):
        path.with_name(location).unlink(missing_ok=True)
        onnx.save(graph, path, **settings)
    onnx.checker.check_model(str(path))
    return (location,) if external else ()
