"""What quantisation does to a network's outputs, simulated by ONNX Runtime: any machine can run it.

Graph optimisations are off: with them ONNX Runtime replaces Q/DQ by integer kernels of its own, which saturate on some
processors, and the simulation would no longer be of what TensorRT computes.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ffnet_deploy.calib.collect import Images
from ffnet_deploy.calib.segments import open_session
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeOptions


def outputs(model: onnx.ModelProto, images: Images) -> list[NDArray[Any]]:
    """What `model` gives for each of `images`, every node run as written."""
    session = open_session(model, optimize=False)
    feed = session.get_inputs()[0].name
    return [np.asarray(session.run(None, {feed: batch})[0]) for batch in images]


def sqnr(reference: Sequence[NDArray[Any]], found: Sequence[NDArray[Any]]) -> float:
    """Signal to quantisation noise of `found`, in dB: the power of `reference` over that of the difference."""
    signal = sum(float(np.square(one, dtype=np.float64).sum()) for one in reference)
    noise = sum(
        float(np.square(one.astype(np.float64) - other).sum()) for one, other in zip(reference, found, strict=True)
    )
    return float(10 * np.log10(signal / noise)) if noise > 0 else float("inf")


@contextmanager
def simulated(model: onnx.ModelProto, threads: int = 0) -> Iterator[Engine]:
    """`model`, with its contract in the metadata, as an engine that runs every node as written."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "simulated.onnx"
        onnx.save(model, path)
        with OnnxRuntimeEngine(path, OnnxRuntimeOptions(threads, optimize=False, check_manifest=False)) as engine:
            yield engine


@dataclass
class Recorded:
    """An engine that keeps everything it gives; an `Engine`.

    Attributes:
        engine: runs the network.
        given: its outputs in order.
    """

    engine: Engine
    given: list[NDArray[Any]]

    def __post_init__(self) -> None:
        self.contract, self.name, self.notes = self.engine.contract, self.engine.name, self.engine.notes

    def run(self, batch: NDArray[np.generic]) -> NDArray[np.generic]:
        """The network's output for `batch`."""
        result = self.engine.run(batch)
        self.given.append(np.asarray(result))
        return result

    def close(self) -> None:
        """Release the engine."""
        self.engine.close()

    def __enter__(self) -> "Recorded":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
