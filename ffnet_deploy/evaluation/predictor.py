"""A network with its preprocessing and protocol, for programs: from images to label maps."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.contract import Contract, TestProtocol
from ffnet_deploy.core.errors import DataError, OptionError
from ffnet_deploy.core.label_maps import LabelMap, ignore_label
from ffnet_deploy.engines.backend import Backend, Provider
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.engines.source import Source
from ffnet_deploy.evaluation.pipeline import predict_stream
from ffnet_deploy.evaluation.protocol import Prediction, PredictOptions, check_protocol, predict

Choice = TypeVar("Choice", Backend, Provider)
Image = NDArray[np.uint8]
"""uint8 (height, width, 3), BGR as OpenCV decodes it."""


class Predictor:
    """An engine that also takes whole images; itself an `Engine`. All methods may be called from several threads.

    Args:
        engine: Runs the network; it is closed with the predictor.
        protocol: How to resize and cut; None takes the artefact's own.
        options: Scales, mirroring and batch; None for one pass.
        thresholds: Least probability of a label, for all classes or by class name. Where the best class stays below
            its own, the pixel gets the ignore label (255, or 65535 above 255 classes).

    Raises:
        OptionError: the artefact cannot run what is asked for, or a threshold is no probability or of no class.
    """

    def __init__(
        self,
        engine: Engine,
        protocol: TestProtocol | None = None,
        options: PredictOptions | None = None,
        thresholds: float | Mapping[str, float] | None = None,
    ) -> None:
        self._engine = engine
        self._thresholds = None if thresholds is None else class_thresholds(engine.contract, thresholds)
        self.protocol = protocol or engine.contract.protocol
        options = options or PredictOptions()
        self.options = replace(options, scores=options.scores or thresholds is not None)
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
        return self._thresholded(predict(self._engine, _checked(image), self.protocol, self.options)).labels

    def predict_scores(self, image: Image) -> Prediction:
        """The labels of `image` with the probability of each class, float32 (classes, height, width).

        Raises:
            OptionError: the artefact gives labels only.
            DataError, ArtifactError: as `predict`.
        """
        options = replace(self.options, scores=True)
        return self._thresholded(predict(self._engine, _checked(image), self.protocol, options))

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
            lambda numbered, image, extra, prediction: self._thresholded(prediction).labels,
            self.protocol,
            self.options,
            name=lambda numbered: f"image {numbered[0]}",
        )

    def _thresholded(self, prediction: Prediction) -> Prediction:
        return prediction if self._thresholds is None else with_thresholds(prediction, self._thresholds)

    def run(self, batch: NDArray[np.generic]) -> NDArray[np.generic]:
        """The network's own output for `batch`, as `Engine.run`."""
        return self._engine.run(batch)

    def close(self) -> None:
        """Release the engine; calling it twice is harmless."""
        self._engine.close()

    def __enter__(self) -> "Predictor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
    thresholds: float | Mapping[str, float] | None = None,
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
        options: Scales, mirroring and batch; None for one pass.
        thresholds: Least probability of a label, for all classes or by class name; see `Predictor`.

    Raises:
        OptionError: the arguments do not go together.
        FFNetDeployError: it cannot be opened.
    """
    path = Path(network)
    is_config = path.suffix in ("", ".py")
    source = Source(
        backend=_member(Backend, backend),
        artifact=None if is_config else path,
        config=str(network) if is_config else None,
        checkpoint=None if checkpoint is None else str(checkpoint),
        device=device,
        provider=_member(Provider, provider),
        threads=threads,
        trust_engine=trust_engine,
    )
    engine = source.open()
    try:
        return Predictor(engine, protocol, options, thresholds)
    except BaseException:
        engine.close()
        raise


def _member(kind: type[Choice], value: str | Choice | None) -> Choice | None:
    try:
        return None if value is None else kind(value)
    except ValueError as error:
        raise OptionError(f"{error}; expected one of {', '.join(one.value for one in kind)}") from error


def class_thresholds(contract: Contract, thresholds: float | Mapping[str, float]) -> NDArray[np.float32]:
    """The least probability of each class, float32 (classes,): one for all, or by name and 0 for the others.

    Raises:
        OptionError: a value is no probability, or a class is not the network's.
    """
    by_name = thresholds if isinstance(thresholds, Mapping) else dict.fromkeys(contract.classes, thresholds)
    unknown = [name for name in by_name if name not in contract.classes]
    if unknown:
        raise OptionError(f"a threshold for {unknown[0]!r}: the network's classes are {', '.join(contract.classes)}")
    for name, value in by_name.items():
        if not 0 <= value <= 1:
            raise OptionError(f"a threshold is a probability, 0 to 1: got {value} for {name!r}")
    return np.array([by_name.get(name, 0.0) for name in contract.classes], np.float32)


def with_thresholds(prediction: Prediction, thresholds: NDArray[np.float32]) -> Prediction:
    """`prediction` with the ignore label where the probability of the label is below that of `thresholds`, by class."""
    assert prediction.scores is not None  # `PredictOptions.scores` was asked for
    labels = prediction.labels
    best = np.take_along_axis(prediction.scores, labels[None].astype(np.intp), axis=0)[0]
    kept: LabelMap = np.where(best < thresholds[labels], labels.dtype.type(ignore_label(labels)), labels)
    return replace(prediction, labels=kept)


def _checked(image: Image) -> Image:
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3):
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(f"an image is uint8 (height, width, 3), BGR as OpenCV decodes it: got {found}")
    return image
