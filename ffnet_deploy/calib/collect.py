"""Showing images to a graph, piece by piece, and keeping what calibration needs of its tensors.

A graph runs as a chain of sub-graphs, so that intermediate values are seen without holding all of them at once.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper

from ffnet_deploy.core.errors import ArtifactError, DataError
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.onnxruntime import SessionSettings, create_session
from ffnet_deploy.precision.graph_index import GraphIndex

OBSERVED_AT_ONCE = 12
"""Observed tensors of one segment: what a segment hands out is all held at the same time."""

Observe = Callable[[str, NDArray[Any]], None]
"""Called with the name and the values of each observed tensor."""


def open_session(model: onnx.ModelProto, optimize: bool = True) -> Any:
    """An ONNX Runtime session that gives memory back after each run.

    Raises:
        ArtifactError: ONNX Runtime cannot run the graph.
    """
    # threads that spin while they wait slow everything down on a busy machine
    settings = SessionSettings(optimize, config={"session.intra_op.allow_spinning": "0"}, keep_memory=False)
    return create_session(model.SerializeToString(), "the graph cannot be run for calibration", settings)


@dataclass(frozen=True)
class _Segment:
    session: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    observed: tuple[str, ...]
    last_used: tuple[str, ...]
    """Tensors that no later segment reads."""


class SegmentedRunner:
    """Runs a graph as a chain of sub-graphs; every node runs once, and few intermediate values are alive at a time.

    Args:
        model: with value types that shape inference can find.
        observed: names of tensors to hand out, graph inputs included.
        optimize: let ONNX Runtime fuse and rewrite each sub-graph; off, each node runs as written.
    """

    def __init__(self, model: onnx.ModelProto, observed: Iterable[str], optimize: bool = True) -> None:
        graph = GraphIndex(model)
        self._inputs = graph.inputs
        wanted = set(observed)
        self._first = tuple(name for name in graph.inputs if name in wanted)
        pieces = _pieces(_needed(graph, wanted), wanted)
        inferred = onnx.shape_inference.infer_shapes(model).graph
        tensors = [*inferred.value_info, *inferred.input, *inferred.output]
        types = {tensor.name: tensor.type.tensor_type.elem_type for tensor in tensors}
        self._segments = [
            _segment(graph, piece, pieces[at + 1 :], wanted, types, optimize)
            for at, piece in enumerate(pieces)
            if piece
        ]

    def run(self, batch: NDArray[Any], observe: Observe) -> None:
        """Run one batch and hand every observed tensor to `observe`, in graph order."""
        alive: dict[str, NDArray[Any]] = {self._inputs[0]: batch}
        for name in self._first:
            observe(name, batch)
        for segment in self._segments:
            values = segment.session.run(list(segment.outputs), {name: alive[name] for name in segment.inputs})
            alive.update(zip(segment.outputs, values, strict=True))
            del values
            for name in segment.observed:
                observe(name, alive[name])
            for name in segment.last_used:
                alive.pop(name, None)


def _needed(graph: GraphIndex, wanted: set[str]) -> list[NodeProto]:
    """The nodes that `wanted` depends on, in graph order."""
    needed, kept = set(wanted), []
    for node in reversed(graph.nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    return kept[::-1]


def _pieces(nodes: Sequence[NodeProto], wanted: set[str]) -> list[list[NodeProto]]:
    """`nodes` in runs that make at most `OBSERVED_AT_ONCE` of the wanted tensors each."""
    pieces: list[list[NodeProto]] = [[]]
    count = 0
    for node in nodes:
        made = len(wanted.intersection(node.output))
        if count + made > OBSERVED_AT_ONCE:
            pieces.append([])
            count = 0
        pieces[-1].append(node)
        count += made
    return pieces


def _segment(
    graph: GraphIndex,
    nodes: Sequence[NodeProto],
    later: Sequence[Sequence[NodeProto]],
    wanted: set[str],
    types: Any,
    optimize: bool,
) -> _Segment:
    made = {name for node in nodes for name in node.output if name}
    read = list(dict.fromkeys(name for node in nodes for name in node.input if name))
    inputs = [name for name in read if name not in made and name not in graph.initializers]
    needed_later = {name for piece in later for node in piece for name in node.input}
    observed = [name for name in made if name in wanted]
    order = [name for node in nodes for name in node.output if name in needed_later or name in wanted]
    values = [helper.make_tensor_value_info(name, types[name], None) for name in inputs]
    piece = helper.make_graph(
        nodes,
        "segment",
        values,
        [helper.make_tensor_value_info(name, types[name], None) for name in order],
        [graph.initializers[name] for name in read if name in graph.initializers],
    )
    model = helper.make_model(piece, opset_imports=list(graph.model.opset_import), ir_version=graph.model.ir_version)
    return _Segment(
        open_session(model, optimize),
        tuple(inputs),
        tuple(order),
        tuple(name for name in order if name in observed),
        tuple(name for name in (*inputs, *order) if name not in needed_later),
    )


Images = Sequence[NDArray[Any]]
"""Network inputs, one batch each, of the kind and shape that the graph takes; read again in each pass."""


class Observer(Protocol):
    """Something that takes in tensors."""

    def update(self, values: NDArray[np.float32]) -> None:
        """Take in one tensor."""
        ...


def collect(
    model: onnx.ModelProto,
    observers: Mapping[str, Observer],
    images: Images,
    step: str,
    progress: Progress = no_progress,
) -> dict[str, tuple[int, ...]]:
    """Show all `images` to the graph, and each tensor named in `observers` to its observer.

    Returns:
        The shape of each of these tensors for the first image.

    Raises:
        ArtifactError: a layer gives NaN or infinity; the message names it.
        DataError: an image shows the network nothing but one constant.
    """
    graph = GraphIndex(model)
    shapes: dict[str, tuple[int, ...]] = {}
    # what the last convolution makes is not quantised, but it must be finite too
    runner = SegmentedRunner(model, {*observers, *(conv.output for conv in graph.convs[-1:])})

    def observe(name: str, values: NDArray[Any]) -> None:
        if not np.isfinite(values).all():
            raise _NotFiniteError
        if name in observers:
            observers[name].update(values)
            shapes.setdefault(name, tuple(values.shape))

    for done, batch in enumerate(images, 1):
        check_varied(batch, done)
        try:
            runner.run(batch, observe)
        except _NotFiniteError:
            raise _first_failure(model, batch, done) from None
        progress(step, done, len(images))
    return shapes


class _NotFiniteError(Exception):
    pass


def _first_failure(model: onnx.ModelProto, batch: NDArray[Any], number: int) -> ArtifactError:
    """The error that names the first layer of `model` whose output for `batch` is not finite."""
    graph = GraphIndex(model)
    failures: list[str] = []

    def look(name: str, values: NDArray[Any]) -> None:
        bad = int(values.size - np.count_nonzero(np.isfinite(values)))
        if bad and not failures:
            producer = graph.producers.get(name)
            layer = producer.name if producer is not None else name
            failures.append(
                f"layer {layer} gives {bad} of {values.size} values that are NaN or infinite for calibration image "
                f"{number}.\n  to do    check the checkpoint: its weights, or its batch statistics, are damaged"
            )

    SegmentedRunner(model, [*graph.inputs, *graph.producers]).run(batch, look)
    return ArtifactError(failures[0])


def is_constant(batch: NDArray[Any]) -> bool:
    """Whether a batch, (batch, 3, H, W) or (batch, H, W, 3), holds an image of one constant colour."""
    channels = 1 if batch.shape[1] == 3 else 3
    return any(np.all(image == image[:, :1, :1]) for image in np.moveaxis(batch, channels, 1))


def check_varied(batch: NDArray[Any], number: int) -> None:
    """Raise `DataError` where a batch, (batch, 3, H, W) or (batch, H, W, 3), holds an image of one constant colour."""
    if is_constant(batch):
        raise DataError(
            f"calibration image {number} is one constant colour: it says nothing of the ranges of a network.\n"
            "  to do    calibrate on images like those that the network will see"
        )
