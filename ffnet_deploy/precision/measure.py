"""What the typing decides on: extremes and rounding errors of every node, observed on real images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from ffnet_deploy.core.errors import ArtifactError, DataError
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.precision.formats import Format
from ffnet_deploy.precision.probes import Probe, ProbeBuilder
from ffnet_deploy.precision.view import View

_SOUND = ("largest", "smallest", "power")
"""Quantities of the network itself, which no rounding can make NaN."""


@dataclass
class TensorRange:
    """Extremes of one tensor over all images.

    Attributes:
        largest: largest absolute value.
        smallest: smallest value, negative ones first.
        size: number of values, of the largest image.
    """

    largest: float = 0.0
    smallest: float = math.inf
    size: int = 0


@dataclass
class NodeError:
    """What rounding inputs, weights and output does to one node, at its worst image.

    Attributes:
        error: root mean square error relative to the output's root mean square.
        share: positions whose own relative error passes the limit, 0..1; where it was measured.
        flips: positions whose label rounding its input (of ArgMax) or output (of the last node) changes, 0..1.
        magnitudes: largest sum of absolute products or values (for means: their mean); where it was measured.
    """

    error: float = 0.0
    share: float = 0.0
    flips: float = 0.0
    magnitudes: float = 0.0


@dataclass
class Measurement:
    """Everything observed.

    Attributes:
        images: number of images.
        tensors: by name.
        nodes: by name.
    """

    images: int = 0
    tensors: dict[str, TensorRange] = field(default_factory=dict)
    nodes: dict[str, NodeError] = field(default_factory=dict)


def measure(
    view: View,
    to: Format,
    relative: frozenset[str],
    amplification: float,
    images: Sequence[NDArray[np.generic]],
    progress: Progress = no_progress,
) -> Measurement:
    """Observe the graph of `view` on `images`, each a network input (batch, ...).

    Args:
        view: the graph.
        to: the format that values are rounded to.
        relative: names of nodes whose error counts at each position.
        amplification: of `TypingOptions`.
        images: at least one.
        progress: told of the images done.

    Raises:
        DataError: there are no images, or activations are not finite.
        ArtifactError: ONNX Runtime cannot run the graph.
    """
    if not len(images):
        raise DataError("typing a graph needs at least one image to observe its ranges on: got none")
    builder = ProbeBuilder(view, to, relative, amplification)
    session = _session(builder.build())
    feed = session.get_inputs()[0].name
    names = list(builder.probes)
    found = Measurement()
    for done, image in enumerate(images, 1):
        values = session.run(names, {feed: np.ascontiguousarray(image)})
        _update(found, {builder.probes[name]: float(value) for name, value in zip(names, values, strict=True)}, view)
        progress("observing ranges", done, len(images))
    return found


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    # every copy has to run as written
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise ArtifactError(f"the graph cannot be observed: {str(error).splitlines()[0]}") from error


def _update(found: Measurement, values: dict[Probe, float], view: View) -> None:
    found.images += 1
    for probe, value in values.items():
        # ONNX Runtime's maximum passes over NaN, its sum of squares does not
        if probe.quantity in _SOUND and (math.isnan(value) or (probe.quantity == "largest" and math.isinf(value))):
            raise DataError(_not_finite(probe, found.images, view))
        if probe.quantity in ("largest", "smallest", "size"):
            _widen(found.tensors.setdefault(probe.of, TensorRange()), probe.quantity, value)
    for name in {probe.of for probe in values if probe.quantity in ("error", "flips")}:
        node = found.nodes.setdefault(name, NodeError())
        error, power = values.get(Probe("error", name), 0.0), values.get(Probe("power", name), 0.0)
        relative = math.sqrt(error / power) if power > 0 else 0.0
        node.error = max(node.error, relative if math.isfinite(relative) else math.inf)
        node.share = max(node.share, values.get(Probe("share", name), 0.0))
        node.flips = max(node.flips, values.get(Probe("flips", name), 0.0))
        node.magnitudes = max(node.magnitudes, values.get(Probe("magnitudes", name), 0.0))


def _widen(tensor: TensorRange, quantity: str, value: float) -> None:
    if quantity == "largest":
        tensor.largest = max(tensor.largest, value)
    elif quantity == "smallest":
        tensor.smallest = min(tensor.smallest, value)
    else:
        tensor.size = max(tensor.size, int(value))


def _not_finite(probe: Probe, image: int, view: View) -> str:
    name = probe.of if probe.of in view.nodes else getattr(view.producers.get(probe.of), "name", None)
    place = f"output of node {name}" if name else f"input {probe.of}"
    return (
        f"values that are not finite in float32 already: {place} on image {image}.\n"
        "  to do    check the checkpoint (ffnet-eval scores it in PyTorch) and the images"
    )
