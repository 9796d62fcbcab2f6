"""Raising a graph to the operator set that brought a type."""

import onnx
from onnx import version_converter

from ffnet_deploy.core.errors import ArtifactError

_IR_VERSION = 10
"""ONNX file format of the releases with operator sets 21 and 22."""


def upgraded(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """`model` in operator set `opset`, or as it is where its own is not older.

    Raises:
        ArtifactError: an operator cannot be converted.
    """
    current = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if current >= opset:
        return model
    try:
        raised = version_converter.convert_version(model, opset)
    except Exception as error:  # the converter's errors are plain RuntimeErrors and others
        raise ArtifactError(
            f"the graph cannot be raised from operator set {current} to {opset}: {str(error).splitlines()[0]}"
        ) from error
    raised.ir_version = max(model.ir_version, _IR_VERSION)
    return raised
