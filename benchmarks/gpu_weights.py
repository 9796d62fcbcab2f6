"""Weights from the names of their tensors, so that the graphs of large networks travel without them.

    python -m benchmarks.gpu_weights FOLDER      # there: the weights are made again

The speed of a network does not depend on the values of its weights. `name_weights` gives the convolutions of a graph
values that follow from their names; `strip` leaves those out of the file, and `restore` puts them back, so that the
file is the same byte for byte. Restoring needs NumPy alone.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray

from benchmarks.gpu_reference import find_references, write_arrays
from ffnet_deploy.cli.console import console, make_app, run_command
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.core.files import sha256, write_bytes

if TYPE_CHECKING:
    import onnx

SUFFIX = ".stripped"
"""Ends the name of a graph without its weights."""
LEAST_BYTES = 1 << 14
"""Smaller tensors stay in the file."""
_END_OF_HEADER = b"\n"


@dataclass(frozen=True)
class Hole:
    """Where a weight was in the file.

    Attributes:
        at: position of its first byte in the whole file.
        name: of the tensor.
        shape: of the tensor.
        dtype: of the tensor in this file: float32 or float16.
        deviation: standard deviation of its values.
    """

    at: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    deviation: float

    @property
    def content(self) -> bytes:
        """The bytes that belong there."""
        return named_values(self.name, self.shape, self.deviation).astype(self.dtype).tobytes()


def named_values(name: str, shape: tuple[int, ...], deviation: float) -> NDArray[np.float32]:
    """Evenly distributed values around zero that depend on nothing but the arguments.

    They are drawn by the Mersenne twister, whose numbers NumPy promises never to change (NEP 19), and need no function
    that rounds differently elsewhere.
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    drawn = np.random.RandomState(seed).random_sample(shape)
    return ((drawn - 0.5) * (deviation * 12**0.5)).astype(np.float32)


def name_weights(model: "onnx.ModelProto") -> dict[str, tuple[tuple[int, ...], float]]:
    """Give all large weights of convolutions in an FP32 graph the values of their names; their deviation stays.

    Args:
        model: changed in place.

    Returns:
        Shape and deviation of each by its name.
    """
    from onnx import numpy_helper

    weights = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    named = {}
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name in weights and values.nbytes >= LEAST_BYTES:
            named[tensor.name] = values.shape, float(values.std())
            tensor.CopyFrom(numpy_helper.from_array(named_values(tensor.name, *named[tensor.name]), tensor.name))
    return named


def strip(graph: Path, named: Mapping[str, tuple[tuple[int, ...], float]]) -> Path:
    """Write `graph` without those weights that follow from their names, as ``NAME.onnx.stripped`` beside it.

    Args:
        graph: FP32, FP16 or with Q/DQ nodes, made from a graph whose weights are named.
        named: of `name_weights`.
    """
    import onnx

    content = graph.read_bytes()
    tensors = onnx.load(graph).graph.initializer
    shapes = {tuple(tensor.dims) for tensor in tensors}
    # a typed graph names its constants anew: weights are recognised by their bytes
    known: dict[bytes, Hole] = {}
    for name, (shape, deviation) in named.items():
        for dtype in ("float32", "float16") if shape in shapes else ():
            hole = Hole(0, name, shape, dtype, deviation)
            known[hashlib.sha256(hole.content).digest()] = hole
    holes = []
    for tensor in tensors:
        hole = known.get(hashlib.sha256(tensor.raw_data).digest())
        if hole is not None:
            holes.append(replace(hole, at=content.find(tensor.raw_data)))
    holes.sort(key=lambda hole: hole.at)
    kept, position = [], 0
    for hole in holes:
        kept.append(content[position : hole.at])
        position = hole.at + len(hole.content)
    header = json.dumps({"sha256": sha256(graph), "holes": [asdict(hole) for hole in holes]}).encode()
    stripped = graph.with_name(f"{graph.name}{SUFFIX}")
    write_bytes(stripped, header + _END_OF_HEADER + b"".join([*kept, content[position:]]))
    return stripped


def restore(stripped: Path) -> Path:
    """Write the whole graph of what `strip` wrote, beside it.

    Raises:
        ArtifactError: it is not the graph that was stripped.
    """
    text, _, content = stripped.read_bytes().partition(_END_OF_HEADER)
    header = json.loads(text)
    parts, taken, position = [], 0, 0
    for hole in (Hole(**{**raw, "shape": tuple(raw["shape"])}) for raw in header["holes"]):
        kept = content[taken : taken + hole.at - position]
        parts += [kept, hole.content]
        taken, position = taken + len(kept), hole.at + len(parts[-1])
    graph = stripped.with_name(stripped.name.removesuffix(SUFFIX))
    write_bytes(graph, b"".join([*parts, content[taken:]]))
    if sha256(graph) != header["sha256"]:
        raise ArtifactError(f"{graph} is not the graph that was stripped.\n  to do    prepare the folder again")
    return graph


app = make_app("gpu_weights", "Give the graphs of a prepared folder their weights, and run them once.", "FOLDER")


@app.default
def command(folder: Annotated[Path, Parameter(help="Made by benchmarks.prepare_gpu.")], /) -> None:
    """Restore what travelled without weights, and let ONNX Runtime give the outputs that engines are compared with."""
    for stripped in sorted(folder.rglob(f"*{SUFFIX}")):
        console.print(f"{restore(stripped).name}: restored")
    from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine

    for reference in find_references(folder):
        if not reference.has_outputs:
            with OnnxRuntimeEngine(reference.graphs[0]) as engine:
                write_arrays(reference.folder, engine, reference.images())
            console.print(f"{reference.name}: outputs of {engine.name}")


if __name__ == "__main__":
    run_command(app)
