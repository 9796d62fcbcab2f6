"""The first half of an ensemble: a graph that makes normalised images of bytes."""

from pathlib import Path

import numpy as np

from ffnet_deploy.core.contract import INPUT_NAME, Contract
from ffnet_deploy.core.files import write_bytes
from ffnet_deploy.core.optional import optional
from ffnet_deploy.engines.engine import input_type

NORMALIZED = "normalized"
"""Name of its output: (batch, 3, height, width), RGB, in the network's type."""
_OPSET = 17
_IR_VERSION = 8


def write_preprocessing(path: Path, contract: Contract, shape: tuple[int, ...]) -> None:
    """Write the graph as an ONNX file.

    Args:
        path: of the file.
        contract: of the network; its normalisation is applied.
        shape: of the input: uint8 (batch, height, width, 3), BGR as OpenCV decodes it; -1 where free.

    Raises:
        MissingPackageError: onnx is not installed.
        StorageError: there is no room, or the folder cannot be written.
    """
    onnx = optional("onnx", extra="convert", purpose="the preprocessing model of an ensemble")
    helper, kinds = onnx.helper, onnx.TensorProto
    names = ("batch", "height", "width", "channels")
    given_type = helper.np_dtype_to_tensor_dtype(input_type(contract))
    given = [name if size == -1 else size for name, size in zip(names, shape, strict=True)]
    statistics = {
        "order": np.array([2, 1, 0], np.int64),
        "mean": np.array(contract.normalization.mean, np.float32)[:, None, None],
        "std": np.array(contract.normalization.std, np.float32)[:, None, None],
    }
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["floats"], to=kinds.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Gather", ["planes", "order"], ["rgb"], axis=1),
        helper.make_node("Sub", ["rgb", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], [NORMALIZED], to=given_type),
    ]
    graph = helper.make_graph(
        nodes,
        "preprocessing",
        [helper.make_tensor_value_info(INPUT_NAME, kinds.UINT8, given)],
        [helper.make_tensor_value_info(NORMALIZED, given_type, [given[0], 3, given[1], given[2]])],
        [onnx.numpy_helper.from_array(value, name) for name, value in statistics.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(model)
    write_bytes(path, model.SerializeToString())
