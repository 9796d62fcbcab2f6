"""Exported graphs as files: writing them, with weights beside them where they are large, and reading their contract."""

from pathlib import Path
from typing import Any

import onnx

from ffnet_deploy.core.contract import METADATA_KEY, Contract
from ffnet_deploy.core.files import storage_errors

EXTERNAL_DATA_THRESHOLD = 2_000_000_000
"""Weights beyond this many bytes go to a second file: a protobuf file ends at 2 GB."""


def contract_in(model: onnx.ModelProto) -> Contract:
    """The contract in the metadata of an exported graph."""
    text = next(entry.value for entry in model.metadata_props if entry.key == METADATA_KEY)
    return Contract.from_json(text)


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
