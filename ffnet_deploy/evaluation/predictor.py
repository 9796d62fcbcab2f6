"""A network with its preprocessing and protocol, for programs: from images to label maps."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.closing import Closing
from ffnet_deploy.core.contract import Contract, TestProtocol
from ffnet_deploy.core.errors import DataError, OptionError
from ffnet_deploy.core.label_maps import LabelMap
from ffnet_deploy.engines.backend import Backend, Provider
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.engines.source import Source, names_config
from ffnet_deploy.evaluation.pipeline import predict_stream
from ffnet_deploy.evaluation.protocol import Prediction, PredictOptions, check_protocol, predict

Choice = TypeVar("Choice", Backend, Provider)
Image = NDArray[np.uint8]
"""uint8 (height, width, 3), BGR as OpenCV decodes it."""


class Predictor(Closing):
    """An engine that also takes whole images; itself an `Engine`. All methods may be called from several threads.

    Args:
        engine: Runs the network; it is closed with the predictor.
        protocol: How to resize and cut; None takes the artefact's own.
        options: Scales, mirroring, batch and thresholds; None for one pass.

    Raises:
        OptionError: the artefact cannot run what is asked for.
    """

    def __init__(
        self,
        engine: Engine,
        protocol: TestProtocol | None = None,
        options: PredictOptions | None = None,
    ) -> None:
        self._engine = engine
        self.protocol = protocol or engine.contract.protocol
        self.options = options or PredictOptions()
        check_protocol(engine.contract, self.protocol, self.options)

    @property
    def contract(self) -> Contract:
        """What the network takes and gives: classes, palette, sizes, normalisation, protocol."""
        return self._engine.contract

    @property
    def name(self) -> str:
        """Runtime and device, for people."""
        return self._engine.name

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of its results, in words."""
        return self._engine.notes

    def predict(self, image: Image) -> LabelMap:
        """The class of each pixel of `image`, uint8 (uint16 above 255 classes) (height, width).

        Raises:
            DataError: `image` is no image, or too narrow to be resized.
            ArtifactError: the network fails.
        """
        return predict(self._engine, _checked(image), self.protocol, self.options).labels

    def predict_scores(self, image: Image) -> Prediction:
        """The labels of `image` with the probability of each class, float32 (classes, height, width).

        Raises:
            OptionError: the artefact gives labels only.
            DataError, ArtifactError: as `predict`.
        """
        options = replace(self.options, scores=True)
        return predict(self._engine, _checked(image), self.protocol, options)

    def predict_many(self, images: Iterable[Image]) -> Iterator[LabelMap]:
        """The label maps of `images`, in their order, with several images in flight.

        Images are resized ahead of the network and label maps are made behind it; images of equal size run together
        where the artefact takes batches. `images` is read a few ahead of what was yielded: it may be endless.

        Raises:
            DataError, ArtifactError: as `predict`, at the turn of the image.
        """
        return predict_stream(
            self._engine,
            enumerate(images),
            lambda numbered: (_checked(numbered[1]), None),
            lambda numbered, image, extra, prediction: prediction.labels,
            self.protocol,
            self.options,
            name=lambda numbered: f"image {numbered[0]}",
        )

    def run(self, batch: NDArray[np.generic]) -> NDArray[np.generic]:
        """The network's own output for `batch`, as `Engine.run`."""
        return self._engine.run(batch)

    def close(self) -> None:
        """Release the engine; calling it twice is harmless."""
        self._engine.close()


def open_engine(
    network: str | PathLike[str],
    checkpoint: str | PathLike[str] | None = None,
    *,
    device: str | None = None,
    backend: str | Backend | None = None,
    provider: str | Provider | None = None,
    threads: int = 0,
    trust_engine: bool = False,
    protocol: TestProtocol | None = None,
    options: PredictOptions | None = None,
) -> Predictor:
    """Open an exported graph, an engine, or a config with its checkpoint, ready for images.

    ::

        with ffnet_deploy.open_engine("export/ffnet_seg_nano_camvid.onnx") as engine:
            labels = engine.predict(cv2.imread("street.jpg"))

    Args:
        network: File that ffnet-export wrote (.onnx, .engine); or the name of a config or a config file (.py), which
            needs the conversion layer.
        checkpoint: Weights of the config: file, ``"published"``, ``"bundled"`` or ``"random"``; None for the bundled.
        device: ``cpu``, ``cuda`` or ``cuda:N``; None for the CPU, and for engines the first GPU.
        backend: ``torch``, ``onnxruntime``, ``openvino``, ``trt`` or ``trt-rtx``; None for what fits.
        provider: Execution provider of ONNX Runtime: ``cpu``, ``cuda`` or ``tensorrt``; None for what fits the device.
        threads: CPU threads of ONNX Runtime or OpenVINO; 0 takes all cores.
        trust_engine: Run an engine that this toolkit did not build. Engines are executable code.
        protocol: How to resize and cut; None takes the artefact's own.
        options: Scales, mirroring, batch and thresholds; None for one pass.

    Raises:
        OptionError: the arguments do not go together.
        FFNetDeployError: it cannot be opened.
    """
    is_config = names_config(network)
    source = Source(
        backend=_member(Backend, backend),
        artifact=None if is_config else Path(network),
        config=str(network) if is_config else None,
        checkpoint=None if checkpoint is None else str(checkpoint),
        device=device,
        provider=_member(Provider, provider),
        threads=threads,
        trust_engine=trust_engine,
    )
    engine = source.open()
    try:
        return Predictor(engine, protocol, options)
    except BaseException:
        engine.close()
        raise


def _member(kind: type[Choice], value: str | Choice | None) -> Choice | None:
    try:
        return None if value is None else kind(value)
    except ValueError as error:
        raise OptionError(f"{error}; expected one of {', '.join(one.value for one in kind)}") from error


def _checked(image: Image) -> Image:
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3):
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(f"an image is uint8 (height, width, 3), BGR as OpenCV decodes it: got {found}")
    return image
