"""What a report shows: plain values, so that page, Markdown and JSON say the same."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ffnet_deploy.benchmark.record import BenchRun, LayerProfile, TimingResult
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.evaluation.intervals import PairedDifference
from ffnet_deploy.evaluation.scores import MiouLimit, Scores
from ffnet_deploy.report.training import LearningCurve

DEFAULT_LIMIT = MiouLimit(points=0.3)
"""How far mIoU may fall by default for the gate to accept it."""


@dataclass(frozen=True)
class Accuracy:
    """What scoring one candidate gave.

    Attributes:
        scores: None where the images are not labelled.
        images: Number of images.
        seconds: Wall time.
        dataset: What the label values meant.
        split: Part of the data set; empty for images without labels.
        protocol: Resizing, windows, scales and mirroring.
        agreement: Share of pixels with the same label as the first candidate's over all images, in percent; None for
            the first.
        notes: Deviations from the protocol, and what to know of the engine.
        difference: Difference of its scores from the first candidate's; None for the first, and where images are not
            labelled.
    """

    scores: Scores | None
    images: int
    seconds: float
    dataset: str
    split: str
    protocol: Mapping[str, Any] = field(default_factory=dict)
    agreement: float | None = None
    notes: tuple[str, ...] = ()
    difference: PairedDifference | None = None


@dataclass(frozen=True)
class CandidateResults:
    """One network in one runtime, and all that is known of it.

    Attributes:
        name: Name that is short and unique in the report.
        engine: Runtime and device, in words.
        network: Config name.
        artifact: File name or path; None for PyTorch.
        sha256: SHA-256 of that file.
        precision: What its graph asks for, for instance ``"fp16"``.
        sources: SHA-256 of what it was made from.
        manifest: Manifest of the artefact, as `read_manifest` gives it; None without one.
        accuracy: None where it was not scored.
        measurements: Measurements, one for each setting at which it was timed; ratios and checks name candidates of the
            report.
        notes: What to know of its results.
    """

    name: str
    engine: str
    network: str = ""
    artifact: str | None = None
    sha256: str | None = None
    precision: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    manifest: Mapping[str, Any] | None = None
    accuracy: Accuracy | None = None
    measurements: tuple[TimingResult, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def scores(self) -> Scores | None:
        """Its scores, where it was scored on labelled images."""
        return self.accuracy.scores if self.accuracy else None

    @property
    def timing(self) -> TimingResult | None:
        """The measurement at the first setting that gave samples."""
        return next((one for one in self.measurements if one.summary is not None), None)

    @property
    def profile(self) -> LayerProfile | None:
        """The first profile among its measurements."""
        return next((one.profile for one in self.measurements if one.profile is not None), None)

    @property
    def size(self) -> int | None:
        """Bytes of the artefact, where its manifest says."""
        value = (self.manifest or {}).get("bytes")
        return value if isinstance(value, int) else None


@dataclass(frozen=True)
class Panel:
    """One picture of a sample.

    Attributes:
        layer: ``"image"``, ``"truth"``, ``"labels-N"`` or ``"difference-N"``; N counts candidates from 0.
        caption: What it shows.
        alt: The same for those who do not see it, with its numbers.
        uri: The picture as ``data:`` URI.
        width: Width in pixels.
        height: Height in pixels.
    """

    layer: str
    caption: str
    alt: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class GallerySample:
    """One image with what the candidates made of it.

    Attributes:
        name: Name of the image in its data set.
        panels: The panels, the image first.
        right: Share of labelled pixels that each candidate labels right, percent; None where nothing is labelled.
        agreement: Share of pixels that each candidate labels as the first does, in percent.
        classes: Labels that occur in any of its panels.
    """

    name: str
    panels: tuple[Panel, ...]
    right: tuple[float | None, ...]
    agreement: tuple[float, ...]
    classes: tuple[int, ...]


@dataclass(frozen=True)
class Gallery:
    """Samples, and how they were chosen out of how many."""

    samples: tuple[GallerySample, ...] = ()
    of: int = 0
    choice: str = ""


@dataclass(frozen=True)
class ReportData:
    """Everything on the page.

    Attributes:
        title: Title of the page.
        created: ISO 8601, with time zone.
        candidates: The candidates, at least one; the first is what the others are compared with.
        classes: Names in label order.
        palette: RGB colour of each class.
        gallery: Pictures of samples.
        limit: How far mIoU may fall from the first candidate's for the gate to accept it.
        run: Run of the benchmark that timed them; None where nothing was timed.
        environment: By heading, what to know of machine and versions.
        notes: What concerns all candidates.
        training: Learning curve of the network; None where it is not known.
    """

    title: str
    created: str
    candidates: tuple[CandidateResults, ...]
    classes: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    gallery: Gallery = Gallery()
    limit: MiouLimit = DEFAULT_LIMIT
    run: BenchRun | None = None
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    training: LearningCurve | None = None

    def __post_init__(self) -> None:
        if not self.candidates:
            raise OptionError("a report needs at least one candidate")
        names = [candidate.name for candidate in self.candidates]
        if len(set(names)) != len(names):
            raise OptionError(f"two candidates of a report share the name {max(names, key=names.count)!r}")
        if len(self.classes) != len(self.palette):
            raise OptionError(f"{len(self.classes)} class names but {len(self.palette)} colours")
        shown = max((len(sample.agreement) for sample in self.gallery.samples), default=0)
        if shown > len(self.candidates):
            raise OptionError(f"pictures of {shown} candidates in a report of {len(self.candidates)}")

    @property
    def first(self) -> CandidateResults:
        """What the others are compared with."""
        return self.candidates[0]
