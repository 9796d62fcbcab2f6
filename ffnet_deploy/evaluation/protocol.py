"""From an image to its label map on any engine: whole or in windows, at one scale or several, as the papers score."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.contract import STRIDE, Contract, DimensionRange, OutputKind, TestProtocol, check_multiples
from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.core.label_maps import LabelMap, ignore_label, label_type
from ffnet_deploy.engines.engine import DeviceEngine, Engine
from ffnet_deploy.evaluation.finishing import class_probabilities, finish
from ffnet_deploy.evaluation.preprocessing import network_input, resize_for_test, resize_image, scaled_protocol_size
from ffnet_deploy.evaluation.resampling import nearest
from ffnet_deploy.evaluation.windows import Box, ScoredWindow, ScoreMap, window_boxes

MULTI_SCALE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Ratios of multi-scale evaluation, as published."""

Output = Any
"""What the network gives for one window: an array (classes, height, width) or (height, width), or a PyTorch tensor."""

_NOT_FINITE = "the network's output holds NaN or infinity for some images: its precision does not hold its values"


@dataclass(frozen=True)
class PredictOptions:
    """Test-time augmentation: the passes of the network over each image.

    Attributes:
        ratios: Factors on the protocol's scale; softmax is averaged over them where there are several.
        flip: Whether the mirrored image is run too, and softmax averaged.
        batch: Largest number of windows run together; fewer or more where the artefact's batch sizes demand it.
        scores: Whether the probability of each class at each pixel is given too.
        thresholds: Least probability of a label, for all classes or by class name. Where the best class stays below
            its own, the pixel gets the ignore label (255, or 65535 above 255 classes). None keeps every label.
    """

    ratios: tuple[float, ...] = (1.0,)
    flip: bool = False
    batch: int = 4
    scores: bool = False
    thresholds: float | Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if not self.ratios or min(self.ratios) <= 0:
            raise OptionError(f"scale ratios must be positive, and at least one: got {self.ratios}")
        if self.batch < 1:
            raise OptionError(f"at least one window runs at a time: got a batch of {self.batch}")

    @property
    def needs_scores(self) -> bool:
        """Whether the probabilities of all classes are computed."""
        return self.scores or self.thresholds is not None

    @property
    def passes(self) -> int:
        """Passes of the network over each image."""
        return len(self.ratios) * (2 if self.flip else 1)


@dataclass(frozen=True)
class Prediction:
    """The result for one image.

    Attributes:
        labels: Label map, uint8 (uint16 above 255 classes) (height, width), at the image's own size.
        notes: How the evaluation differed from the protocol asked for; empty where it did not.
        scores: Probability of each class, float32 (classes, height, width), at the image's own size; None where
            `PredictOptions.scores` does not ask for it.
    """

    labels: LabelMap
    notes: tuple[str, ...] = ()
    scores: NDArray[np.float32] | None = None


@dataclass
class _Notes:
    texts: dict[str, None] = field(default_factory=dict)

    def add(self, text: str) -> None:
        self.texts[text] = None


def predict(
    engine: Engine,
    image: NDArray[np.uint8],
    protocol: TestProtocol | None = None,
    options: PredictOptions | None = None,
) -> Prediction:
    """The label map of `image`, uint8 (height, width, 3) BGR.

    Logits are resized to the size that the network saw, averaged over windows, resized to the image's size, and only
    then compared, as MMSegmentation does; probabilities in the place of logits where the artefact gives those.

    Args:
        engine: runs the network.
        image: as `read_image` gives it.
        protocol: how to score; None takes the artefact's own.
        options: scales and mirroring; None for one pass.

    Raises:
        OptionError: the artefact cannot run what `protocol` and `options` ask for.
        DataError: the image is too narrow to be resized.
        ArtifactError: the network's output is not what the artefact's description says.
    """
    protocol, options = protocol or engine.contract.protocol, options or PredictOptions()
    check_protocol(engine.contract, protocol, options)
    prepared = prepare(engine.contract, image, protocol, options)
    (outputs,) = run_network(engine, [prepared], options.batch)
    return finish_image(engine.contract, prepared, outputs, options)


def check_protocol(contract: Contract, protocol: TestProtocol, options: PredictOptions) -> None:
    """Raise `OptionError` where an artefact with `contract` cannot be scored like this, whatever the images."""
    if contract.output is OutputKind.LABELS and options.passes > 1:
        raise OptionError(
            "multi-scale and flip average scores, and this artefact gives labels only.\n"
            "  to do    export it with --output logits, or score it without --multi-scale and --flip"
        )
    if options.thresholds is not None:
        class_thresholds(contract, options.thresholds)
    if contract.output is OutputKind.LABELS and options.needs_scores:
        raise OptionError(
            "this artefact gives labels only, and scores or thresholds are asked for.\n"
            "  to do    export it with --output logits"
        )
    if protocol.mode == "whole" and len(options.ratios) > 1 and contract.height.is_fixed and contract.width.is_fixed:
        raise OptionError(
            f"multi-scale needs several input sizes; this artefact's is fixed ({contract.height}x{contract.width}).\n"
            "  to do    export it with --dynamic, or score it with --mode slide"
        )
    if protocol.mode == "slide" and protocol.crop is not None:
        _check_crop(contract, protocol.crop)


def _check_crop(contract: Contract, crop: tuple[int, int]) -> None:
    sides = ("height", contract.height, crop[0]), ("width", contract.width, crop[1])
    for name, sizes, side in sides:
        check_multiples(f"window {name}", DimensionRange.fixed(side))
        if side not in sizes:
            raise OptionError(
                f"windows of {_size(crop)} (height x width) do not fit the artefact: it accepts a {name} of {sizes}.\n"
                f"  to do    give --crop {contract.height.opt}x{contract.width.opt}, "
                f"or export it with --shape {_size(crop)}"
            )


def _size(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"


@dataclass(frozen=True)
class View:
    """One pass of the network over an image: at one scale, mirrored or not.

    Attributes:
        size: (height, width) of the image shown to the network.
        boxes: Windows that cover it.
        crops: What the network sees of each window, uint8 (height, width, 3) BGR; all of one size.
        mirrored: Whether the image was mirrored.
    """

    size: tuple[int, int]
    boxes: tuple[Box, ...]
    crops: tuple[NDArray[np.uint8], ...]
    mirrored: bool = False


@dataclass(frozen=True)
class Prepared:
    """An image ready for the network.

    Attributes:
        size: (height, width) of the image itself.
        views: The passes over it, in the order in which they are averaged.
        notes: How they differ from the protocol asked for.
    """

    size: tuple[int, int]
    views: tuple[View, ...]
    notes: tuple[str, ...] = ()


def prepare(contract: Contract, image: NDArray[np.uint8], protocol: TestProtocol, options: PredictOptions) -> Prepared:
    """Resize `image`, uint8 (height, width, 3) BGR, and cut it into the windows that the network sees.

    Raises:
        OptionError: the artefact cannot run what `protocol` asks for.
        DataError: the image is too narrow to be resized.
    """
    notes, views = _Notes(), []
    for ratio in options.ratios:
        shown = _shown_image(contract, image, protocol, ratio, notes)
        size = (shown.shape[0], shown.shape[1])
        boxes = [Box(0, 0, *size)]
        if protocol.mode == "slide" and protocol.crop is not None and protocol.stride is not None:
            boxes = window_boxes(size, protocol.crop, protocol.stride)
        if contract.output is OutputKind.LABELS and len(boxes) > 1:
            raise OptionError(
                f"sliding windows average scores where they overlap, and this artefact gives labels only ({len(boxes)} "
                "windows).\n  to do    export it with --output logits, or score it with --mode whole"
            )
        accepted = _accepted_size(contract, boxes[0].size)
        if accepted != boxes[0].size:
            notes.add(
                f"windows smaller than the artefact's input ({contract.height}x{contract.width}) were stretched to it"
            )
        for mirrored in (False, True) if options.flip else (False,):
            seen = shown[:, ::-1] if mirrored else shown
            crops = [seen[box.top : box.bottom, box.left : box.right] for box in boxes]
            if accepted != boxes[0].size:
                crops = [resize_image(np.ascontiguousarray(crop), accepted) for crop in crops]
            views.append(View(size, tuple(boxes), tuple(crops), mirrored))
    return Prepared((image.shape[0], image.shape[1]), tuple(views), tuple(notes.texts))


def run_network(engine: Engine, images: Sequence[Prepared], batch: int) -> list[list[Output]]:
    """The network's output for each window of each image, image by image, in the order of views and windows.

    Windows of equal size run together, `batch` at most, also those of different images. Scores stay on the GPU that
    computed them where the engine can leave them there.
    """
    contract = engine.contract
    run: Callable[[NDArray[np.generic]], Any] = engine.run
    if isinstance(engine, DeviceEngine) and engine.keeps_output and contract.output is not OutputKind.LABELS:
        run = engine.run_on_device
    crops = [crop for image in images for view in image.views for crop in view.crops]
    together = min(max(batch, contract.batch.min), contract.batch.max)
    outputs: list[Output] = []
    for _, alike in groupby(crops, lambda crop: crop.shape):
        group = list(alike)
        for first in range(0, len(group), together):
            part = group[first : first + together]
            # artefacts of a fixed batch are fed the last image again where there are too few
            filled = part + part[-1:] * (contract.batch.min - len(part))
            outputs.extend(run(network_input(np.stack(filled), contract))[: len(part)])
    remaining = iter(outputs)
    return [[next(remaining) for view in image.views for _ in view.crops] for image in images]


def finish_image(contract: Contract, image: Prepared, outputs: Sequence[Output], options: PredictOptions) -> Prediction:
    """The label map of an image from the network's output for each of its windows, and what else `options` ask for.

    Raises:
        ArtifactError: the network's output is not what the artefact's description says.
    """
    notes = _Notes(dict.fromkeys(image.notes))
    if options.needs_scores:  # probabilities of all classes are made on the host, whatever ran the network
        outputs = [output if isinstance(output, np.ndarray) else output.cpu().numpy() for output in outputs]
    if contract.output is OutputKind.LABELS:
        return Prediction(_own_labels(contract, outputs[0], image.size, notes), tuple(notes.texts))
    if contract.output is OutputKind.PROBABILITIES:
        notes.add("probabilities were enlarged in the place of logits, which the published protocol enlarges")
    remaining = iter(outputs)
    maps = [
        ScoreMap(
            view.size,
            tuple(ScoredWindow(box, checked_scores(next(remaining), contract, notes.add)) for box in view.boxes),
            view.mirrored,
        )
        for view in image.views
    ]
    logits = contract.output is OutputKind.LOGITS
    labels = finish(maps, image.size, softmax=logits and len(maps) > 1)
    if not options.needs_scores:
        return Prediction(labels, tuple(notes.texts))
    probabilities = class_probabilities(maps, image.size, softmax=logits)
    if options.thresholds is not None:
        best = np.take_along_axis(probabilities, labels[None].astype(np.intp), axis=0)[0]
        refused = best < class_thresholds(contract, options.thresholds)[labels]
        labels = np.where(refused, labels.dtype.type(ignore_label(labels)), labels)
    return Prediction(labels, tuple(notes.texts), probabilities if options.scores else None)


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


def _shown_image(
    contract: Contract, image: NDArray[np.uint8], protocol: TestProtocol, ratio: float, notes: _Notes
) -> NDArray[np.uint8]:
    """`image` at the size at which the network, or the windows, see it."""
    if protocol.mode == "slide":
        return resize_for_test(image, protocol, ratio)
    wanted = scaled_protocol_size(image.shape[0], image.shape[1], protocol, ratio)
    accepted = _accepted_size(contract, wanted)
    if accepted == wanted:
        return resize_for_test(image, protocol, ratio)
    notes.add(_stretch_note(contract, protocol))
    return resize_image(image, accepted)


def _stretch_note(contract: Contract, protocol: TestProtocol) -> str:
    kept = "keeping its shape within" if protocol.keep_ratio else "resized to"
    return (
        f"images were stretched to the artefact's input ({contract.height}x{contract.width}); the published protocol "
        f"shows them {kept} {protocol.scale[0]}x{protocol.scale[1]} (width x height): "
        "these scores do not stand beside published ones"
    )


def _accepted_size(contract: Contract, wanted: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) nearest to `wanted` that the artefact takes.

    Raises:
        OptionError: a side is out of the artefact's range.
    """
    return _accepted_side("height", contract.height, wanted[0]), _accepted_side("width", contract.width, wanted[1])


def _accepted_side(name: str, sizes: DimensionRange, side: int) -> int:
    if sizes.is_fixed:
        return sizes.opt
    enlarged = -(-side // STRIDE) * STRIDE
    for candidate in (side, enlarged):
        if candidate in sizes and candidate % STRIDE == 0:
            return candidate
    raise OptionError(
        f"the protocol shows an image at a {name} of {side}, and the artefact accepts {sizes}.\n"
        f"  to do    export it with a range of {name}s that holds {enlarged}, or score it with --mode slide"
    )


def checked_scores(output: Output, contract: Contract, note: Callable[[str], None]) -> Output:
    """The network's output for one window, (classes, height, width), as float32; `note` is told of NaN and infinity.

    Raises:
        ArtifactError: its shape is not what the artefact's description says.
    """
    if output.ndim != 3 or output.shape[0] != len(contract.classes):
        raise ArtifactError(
            f"the network gives {contract.output.value} of shape {output.shape} for an image; expected "
            f"({len(contract.classes)}, height, width).\n  to do    export it again with ffnet-export"
        )
    if isinstance(output, np.ndarray):
        scores: Output = output.astype(np.float32, copy=False)
        finite = np.isfinite(scores).all()
    else:
        scores = output.float()
        finite = scores.isfinite().all()
    if not finite:
        note(_NOT_FINITE)
    return scores


def _own_labels(contract: Contract, output: NDArray[np.generic], size: tuple[int, int], notes: _Notes) -> LabelMap:
    """The label map of an artefact that gives labels itself."""
    labels = output.astype(label_type(len(contract.classes)), copy=False)
    if labels.ndim != 2:
        raise ArtifactError(f"the network gives labels of shape {labels.shape} for an image; expected (height, width)")
    if labels.shape != size:
        notes.add("label maps were resized to the images; the published protocol enlarges logits before comparing them")
    return nearest(labels, size)
