"""Proving that an exported file is the network it came from: both run on the same images, outputs are compared."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core import stopping
from ffnet_deploy.core.contract import STRIDE, Contract, OutputKind
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.precision import Precision
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.evaluation.datasets import Dataset
from ffnet_deploy.evaluation.evaluate import EvaluateOptions, Evaluation, evaluate
from ffnet_deploy.evaluation.images import read_image
from ffnet_deploy.evaluation.packaged import packaged_scenes
from ffnet_deploy.evaluation.preprocessing import network_input
from ffnet_deploy.evaluation.scores import MiouLimit

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Tolerance:
    """What a converted network may differ by.

    Attributes:
        relative: Largest difference of an output value, relative to the largest magnitude; not for label maps.
        agreement: Least share of pixels with the same label, in percent.
        miou: Largest fall of mIoU, points.
        pooled: The agreement is that of all images' pixels together, not of each image: one label of a tiny input says
            little of a network that rounds.
        tier: Least share of the reference's mIoU that is kept, in percent, in the place of `miou`; see `MiouLimit`.
    """

    relative: float = 1e-4
    agreement: float = 99.9
    miou: float = 0.05
    pooled: bool = False
    tier: float | None = None

    def __post_init__(self) -> None:
        if self.relative < 0 or not 0 <= self.agreement <= 100 or self.miou < 0:
            raise OptionError(f"a tolerance must not be negative, an agreement lies in 0..100: got {self}")
        MiouLimit(self.miou, self.tier)

    def allowed_drop(self, reference: float) -> float:
        """Largest fall of mIoU, points, from `reference` percent."""
        return MiouLimit(self.miou, self.tier).allowed_drop(reference)


_ALL_POINTS = 100.0
_NUMERICAL = {Precision.FP32: 1e-2, Precision.FP16: 0.05, Precision.BF16: 0.3}
"""Largest relative error of an output value where no labels are judged; 1 for FP8 and INT8."""


def numerical_tolerance(precision: Precision) -> Tolerance:
    """The gate of a network with random weights, whose labels are chance: numerical error alone."""
    return Tolerance(relative=_NUMERICAL.get(precision, 1.0), agreement=0.0, miou=_ALL_POINTS, pooled=True)


def usual_tolerance(
    precision: Precision, agreement: float | None, miou: float | None, tier: float | None = None
) -> Tolerance:
    """The gate of a graph or engine whose convolutions compute in `precision`; labels decide, not the size of an error.

    Args:
        precision: FP8 and INT8 may cost more than FP16 and BF16.
        agreement: least share of positions with the same label, percent; None for the usual.
        miou: largest fall of mIoU, points; None for the usual.
        tier: least share of the reference's mIoU, percent, in the place of `miou`; None for none.
    """
    usual = (90.0, 0.3) if precision.is_quantized else (99.9 if precision is Precision.FP32 else 99.5, 0.05)
    return Tolerance(
        # an output may err by its own magnitude; kernels in FP32 differ by the order of their sums alone
        relative=1e-2 if precision is Precision.FP32 else 1.0,
        agreement=usual[0] if agreement is None else agreement,
        miou=usual[1] if miou is None else miou,
        pooled=True,
        tier=tier,
    )


@dataclass(frozen=True)
class NamedImage:
    """An image to compare on: its name and its pixels, uint8 (height, width, 3) BGR."""

    name: str
    pixels: Image


def images_of(dataset: Dataset, count: int) -> list[NamedImage]:
    """The first `count` images of `dataset`.

    Raises:
        DataError: an image cannot be read.
    """
    return [NamedImage(sample.name, read_image(sample.image)) for sample in dataset.limited(count).samples]


def packaged_images(count: int) -> list[NamedImage]:
    """The first `count` of the eight packaged street scenes, 384 x 512 pixels."""
    return images_of(packaged_scenes(), count)


@dataclass(frozen=True)
class VerifyOptions:
    """What a graph or engine is verified on.

    Attributes:
        images: Images to compare; at least one.
        source: Where they come from, in words.
        labelled: Data whose mIoU is compared too; None: no comparison of mIoU.
        tolerance: The gate of an FP32 graph; others have that of their precision (`usual_tolerance`).
        reference_miou: mIoU of the reference on `labelled` in percent, where it was scored before.
        labels: Whether labels are judged; off for random weights, see `numerical_tolerance`.
    """

    images: Sequence[NamedImage]
    source: str
    labelled: Dataset | None = None
    tolerance: Tolerance = field(default_factory=Tolerance)
    reference_miou: float | None = None
    labels: bool = True

    @property
    def gate(self) -> Tolerance:
        """The tolerance, with agreement and mIoU left out where no labels are judged."""
        return self.tolerance if self.labels else replace(self.tolerance, agreement=0.0, miou=_ALL_POINTS)


@dataclass(frozen=True)
class ImageDifference:
    """Difference of two engines' outputs on one image.

    Attributes:
        image: Name of the image.
        size: Input (height, width) in pixels.
        largest: Largest absolute difference of a value; for label maps the share of differing pixels.
        mean: Mean absolute difference.
        magnitude: Largest absolute value of the reference.
        agreement: Share of positions with the same label, in percent.
        positions: Number of labels compared.
    """

    image: str
    size: tuple[int, int]
    largest: float
    mean: float
    magnitude: float
    agreement: float
    positions: int

    @property
    def relative(self) -> float:
        """Largest difference relative to the largest magnitude of the reference."""
        return self.largest / self.magnitude if self.magnitude else self.largest


@dataclass(frozen=True)
class Verification:
    """The comparisons, and whether they hold.

    Attributes:
        reference: Name of the reference engine.
        candidate: Name of the engine under test.
        output: What was compared.
        comparisons: Comparisons, one for each image.
        tolerance: The gate.
        miou: (reference, candidate) in percent where labels were at hand.
        scored_images: Number of images behind `miou`.
        notes: How the scoring deviated from the published protocol, for both engines alike.
    """

    reference: str
    candidate: str
    output: OutputKind
    comparisons: tuple[ImageDifference, ...]
    tolerance: Tolerance
    miou: tuple[float, float] | None = None
    scored_images: int = 0
    notes: tuple[str, ...] = ()

    @property
    def agreement(self) -> float:
        """Positions of all images together with the same label, percent."""
        positions = sum(row.positions for row in self.comparisons)
        return sum(row.agreement * row.positions for row in self.comparisons) / positions

    @property
    def failures(self) -> list[str]:
        """What is out of tolerance, in words; empty when everything holds."""
        gate = self.tolerance
        out = []
        for row in self.comparisons:
            where = f"on {row.image} at {row.size[0]}x{row.size[1]}"
            if self.output is not OutputKind.LABELS and not row.relative <= gate.relative:
                out.append(f"relative error {row.relative:.1e} > {gate.relative:.1e} {where}")
            if not gate.pooled and not row.agreement >= gate.agreement:
                out.append(f"label agreement {row.agreement:.3f} % < {gate.agreement} % {where}")
        if gate.pooled and not self.agreement >= gate.agreement:
            out.append(f"label agreement {self.agreement:.3f} % < {gate.agreement} % over all images")
        allowed = 0.0 if self.miou is None else gate.allowed_drop(self.miou[0])
        if self.miou is not None and not self.miou[0] - self.miou[1] <= allowed:
            limit = f"{gate.miou}" if gate.tier is None else f"{allowed:.3f}, tier {gate.tier:g} %"
            out.append(f"mIoU fell by {self.miou[0] - self.miou[1]:.3f} points, more than {limit}")
        return out

    @property
    def passed(self) -> bool:
        """Whether every comparison is within tolerance."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        scores = None
        if self.miou is not None:
            scores = {"reference": self.miou[0], "candidate": self.miou[1], "images": self.scored_images}
        return {
            "passed": self.passed,
            "failures": self.failures,
            "reference": self.reference,
            "candidate": self.candidate,
            "output": self.output.value,
            "tolerance": asdict(self.tolerance),
            "agreement": self.agreement,
            "comparisons": [{**asdict(row), "relative": row.relative} for row in self.comparisons],
            "mIoU": scores,
            "notes": list(self.notes),
        }


def verify(
    reference: Engine, candidate: Engine, options: VerifyOptions, progress: Progress = no_progress
) -> Verification:
    """Run both engines on the same images, and score both where these are labelled.

    Both engines share one contract but for the range of sizes and the type of floats; images are resized to sizes that
    the candidate accepts.

    Args:
        reference: the network as it should be.
        candidate: what is made of it.
        options: images, labelled data and the gate.
        progress: called with the labelled images scored, for each engine.

    Raises:
        DataError: a labelled image cannot be used.
    """
    differences = []
    for images, size in _cases(list(options.images), candidate.contract):
        stopping.check()
        differences.append(compare(reference, candidate, images, size))
    measured = Verification(
        reference.name, candidate.name, candidate.contract.output, tuple(differences), options.tolerance
    )
    if options.labelled is None:
        return measured
    scored = evaluate(candidate, options.labelled, EvaluateOptions(), progress)
    before = options.reference_miou
    if before is None:
        before = _mean_iou(evaluate(reference, options.labelled, EvaluateOptions(), progress))
    return replace(measured, miou=(before, _mean_iou(scored)), scored_images=scored.images, notes=scored.notes)


def _mean_iou(evaluation: Evaluation) -> float:
    return evaluation.scores.mean_iou if evaluation.scores else float("nan")


def _cases(images: Sequence[NamedImage], contract: Contract) -> Iterator[tuple[list[NamedImage], tuple[int, int]]]:
    """Batches of images with an input size each: the sizes taken in turn, and a larger batch where one is accepted.

    Every image and every size occurs; the images of a batch differ where there are several.
    """
    sizes = verification_sizes(contract)
    for index in range(max(len(images), len(sizes))):
        yield _batch(images, index, contract.batch.min), sizes[index % len(sizes)]
    if not contract.batch.is_fixed:
        yield _batch(images, 0, contract.batch.min + 1), sizes[-1]


def _batch(images: Sequence[NamedImage], first: int, count: int) -> list[NamedImage]:
    return [images[(first + offset) % len(images)] for offset in range(count)]


def verification_sizes(contract: Contract) -> list[tuple[int, int]]:
    """Input (height, width) to verify at: the optimum; where sizes are dynamic also beyond it, and the smallest."""
    height, width = contract.height, contract.width
    above = min(height.opt + STRIDE, height.max), min(width.opt + 2 * STRIDE, width.max)
    sizes = [(height.opt, width.opt), above, (height.min, width.opt), (height.opt, width.min), (height.min, width.min)]
    return list(dict.fromkeys(sizes))


def compare(
    reference: Engine, candidate: Engine, images: Sequence[NamedImage], size: tuple[int, int]
) -> ImageDifference:
    """The difference of both engines' outputs for a batch of `images`, resized to `size` (height, width)."""
    name = ", ".join(dict.fromkeys(image.name for image in images))
    expected, found = (engine.run(input_batch(images, size, engine.contract)) for engine in (reference, candidate))
    if candidate.contract.output is OutputKind.LABELS:
        return _compare_labels(name, size, expected, found)
    difference = np.abs(expected.astype(np.float64) - found.astype(np.float64))
    return ImageDifference(
        image=name,
        size=size,
        largest=float(difference.max()),
        mean=float(difference.mean()),
        magnitude=float(np.abs(expected).max()),
        agreement=_agreement(expected.argmax(1), found.argmax(1)),
        positions=expected.size // expected.shape[1],
    )


def input_batch(images: Sequence[NamedImage], size: tuple[int, int], contract: Contract) -> NDArray[np.generic]:
    """`images`, resized to `size` (height, width), as an input of the network that `contract` describes."""
    pixels = [
        image.pixels
        if image.pixels.shape[:2] == size
        else cv2.resize(image.pixels, (size[1], size[0]), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
        for image in images
    ]
    return network_input(np.stack(pixels), contract)


def _compare_labels(
    name: str, size: tuple[int, int], expected: NDArray[np.generic], found: NDArray[np.generic]
) -> ImageDifference:
    agreement = _agreement(expected, found)
    differing = 1 - agreement / 100
    return ImageDifference(name, size, differing, differing, 1.0, agreement, expected.size)


def _agreement(expected: NDArray[np.generic], found: NDArray[np.generic]) -> float:
    return float((expected == found).mean() * 100)
