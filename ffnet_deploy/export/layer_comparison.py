"""Where a graph of lower precision begins to differ from its FP32 graph: node by node, on one image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from ffnet_deploy.calib.collect import SegmentedRunner
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.files import scratch_folder
from ffnet_deploy.core.precision import PrecisionRecord
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.onnx_metadata import read_description
from ffnet_deploy.evaluation.verify import NamedImage, input_batch, numerical_tolerance
from ffnet_deploy.precision import simulated
from ffnet_deploy.precision.graph_index import GraphIndex

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class LayerDifference:
    """How far the result of one node is from that of the same node of the FP32 graph.

    Attributes:
        node: Name of the node.
        operator: Operator of the node.
        relative: Largest difference of a value, relative to the largest magnitude in the FP32 graph.
    """

    node: str
    operator: str
    relative: float


@dataclass(frozen=True)
class LayerComparison:
    """The nodes that two graphs share, in graph order.

    Attributes:
        layers: Difference of each node.
        tolerance: Relative difference beyond which a node differs.
        record: Precision of the graph that was compared with FP32.
    """

    layers: tuple[LayerDifference, ...]
    tolerance: float
    record: PrecisionRecord

    @property
    def first(self) -> LayerDifference | None:
        """The first node that differs; None where all are within the tolerance."""
        return next((one for one in self.layers if not one.relative <= self.tolerance), None)

    @property
    def worst(self) -> LayerDifference:
        """The node with the largest difference."""
        return max(self.layers, key=lambda one: one.relative)


def compare_layers(
    reference: Path, candidate: Path, image: NamedImage, progress: Progress = no_progress
) -> LayerComparison:
    """Compare the results of all nodes that `candidate` shares with the FP32 graph `reference`, by name.

    ONNX Runtime computes both on the CPU at the typical input size; 16-bit values are rounded as on a device that
    computes in 16 bits. In a quantised graph equalisation scales channels between layers on purpose, so that nodes in
    between may differ where the output does not.

    Args:
        reference: the FP32 graph.
        candidate: what was made of it.
        image: shown to both.
        progress: called with the graphs.

    Raises:
        ArtifactError: a file is missing, damaged or no exported graph.
        OptionError: the graphs share no nodes.
    """
    (wide, _), (narrow, record) = read_description(reference), read_description(candidate)
    plain, typed = onnx.load(reference), onnx.load(candidate)
    results, counterparts = _float_results(plain), _float_results(typed)
    shared = {name: tensor for name, tensor in results.items() if name in counterparts}
    if not shared:
        raise OptionError(
            f"{candidate} shares no nodes with {reference}.\n  to do    name the FP32 graph that it was made from"
        )
    size = narrow.height.opt, narrow.width.opt
    images = [image] * narrow.batch.min
    files = {tensor: f"{at}.npy" for at, tensor in enumerate(shared.values())}
    made = {counterparts[name]: (name, tensor) for name, tensor in shared.items()}
    differences: dict[str, float] = {}
    with scratch_folder() as folder:
        progress(f"running {reference.name}")
        SegmentedRunner(plain, shared.values()).run(
            input_batch(images, size, wide), lambda tensor, values: np.save(folder / files[tensor], values)
        )
        progress(f"running {candidate.name}")

        def compare(tensor: str, values: NDArray[Any]) -> None:
            name, original = made[tensor]
            differences[name] = _relative_difference(np.load(folder / files[original]), values)

        SegmentedRunner(simulated(typed), made, optimize=False).run(input_batch(images, size, narrow), compare)
    operators = {node.name: node.op_type for node in plain.graph.node}
    layers = tuple(LayerDifference(name, operators[name], differences[name]) for name in shared)
    return LayerComparison(layers, numerical_tolerance(record.precision).relative, record)


def _float_results(model: onnx.ModelProto) -> dict[str, str]:
    """Name of the first float tensor that each node makes from the image, by the node's name."""
    index = GraphIndex(model)
    return {
        node.name: node.output[0]
        for node in index.nodes
        if index.types.get(node.output[0]) in _FLOATS and node.output[0] in index.features and node.op_type != "Cast"
    }


def _relative_difference(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """Largest difference relative to the largest magnitude; infinite where values are not finite."""
    difference = np.abs(expected.astype(np.float64) - found.astype(np.float64)).max(initial=0.0)
    magnitude = float(np.abs(expected).max(initial=0.0))
    relative = float(difference) / magnitude if magnitude else float(difference)
    return relative if np.isfinite(relative) else float("inf")
