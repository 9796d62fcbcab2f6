"""Showing images to a graph and keeping what calibration needs of its tensors."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from ffnet_deploy.calib.segments import SegmentedRunner
from ffnet_deploy.core.errors import ArtifactError, DataError
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.precision.graph_index import GraphIndex

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
