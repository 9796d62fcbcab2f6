"""What an artefact takes and gives: the one description that exporter, engines, evaluation and benchmark share.

It travels inside the artefact (ONNX metadata) and beside it (manifest), so that the runtime layer needs no config.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from ffnet_deploy.core.decoding import ADDED, decode_text, encode, is_printable
from ffnet_deploy.core.errors import OptionError

STRIDE = 32
"""Input heights and widths are multiples of this, in pixels: the largest stride of every FFNet backbone."""

INPUT_NAME = "image"
"""Name of the input tensor of every artefact; the output is named after its `OutputKind`."""

METADATA_KEY = "ffnet_deploy"
"""Key of the contract in the metadata of an ONNX file."""

IGNORE_LABEL = 255
"""Label value that is left out of every score."""

MAX_SIZE = 32768
"""Largest input height or width of an artefact, pixels."""

MAX_BATCH = 4096
"""Largest batch of an artefact."""

MAX_CLASSES = 4096
"""Most classes of a network."""

MAX_ELEMENTS = 2**31 - 1
"""Most elements of an input: TensorRT and others count them in 32 bits."""


class InputKind(str, Enum):
    """What the network's input holds."""

    FLOAT = "float"
    """Floats (batch, 3, height, width), RGB, normalised outside the graph; their type is the contract's `io`."""
    RGB = "rgb"
    """uint8 (batch, height, width, 3), RGB, normalised in the graph."""
    BGR = "bgr"
    """uint8 (batch, height, width, 3), BGR as OpenCV decodes it, normalised in the graph."""


class OutputKind(str, Enum):
    """What the network's output holds."""

    LOGITS = "logits"
    """Floats (batch, classes, height / s, width / s), before any resize; s is the decoder's stride."""
    LABELS = "labels"
    """uint8, or uint16 where there are more than 255 classes, (batch, height, width): logits resized to the input size
    (bilinear), then argmax. TensorRT, which has no uint16, gives int32 in its place."""
    PROBABILITIES = "probabilities"
    """Floats (batch, classes, height, width): softmax of the resized logits."""


class IOType(str, Enum):
    """Type of the floats that an artefact takes and gives; uint8 images and label maps keep theirs."""

    FP32 = "fp32"
    FP16 = "fp16"
    """Halves what is copied to and from a GPU."""


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_classes(classes: Sequence[str], palette: Sequence[tuple[int, int, int]]) -> None:
    """Raise `OptionError` unless `classes` are unique one-line names and `palette` has an RGB colour for each."""
    if not 1 <= len(classes) <= MAX_CLASSES:
        raise OptionError(f"a network predicts 1 to {MAX_CLASSES} classes: got {len(classes)}")
    bad = [name for name in classes if not is_printable(name)]
    if bad:
        raise OptionError(f"class names are lines of text of at most 200 characters: got {bad[0]!r:.80}")
    if len(set(classes)) != len(classes):
        twice = next(name for name in classes if list(classes).count(name) > 1)
        raise OptionError(f"two classes are called {twice!r}: scores could not tell them apart")
    if len(classes) != len(palette):
        raise OptionError(f"{len(classes)} class names but {len(palette)} colours")
    for colour in palette:
        if len(colour) != 3 or not all(_is_int(value) and 0 <= value <= 255 for value in colour):
            raise OptionError(f"colours are red, green and blue within 0..255: got {colour}")


def nearest_multiples(size: int, divisor: int = STRIDE) -> tuple[int, int]:
    """The multiples of `divisor` just below (at least one `divisor`) and above `size`."""
    below = max(size // divisor * divisor, divisor)
    return below, below + divisor


@dataclass(frozen=True)
class DimensionRange:
    """Values that one input dimension accepts: min <= opt <= max; fixed when min == max."""

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not all(_is_int(value) for value in (self.min, self.opt, self.max)):
            raise OptionError(f"sizes are whole numbers: got {self.min!r}, {self.opt!r}, {self.max!r}")
        if not 1 <= self.min <= self.opt <= self.max:
            raise OptionError(f"a range must rise from at least 1: got min {self.min}, opt {self.opt}, max {self.max}")

    @classmethod
    def fixed(cls, value: int) -> "DimensionRange":
        """The range that accepts `value` alone."""
        return cls(value, value, value)

    @property
    def is_fixed(self) -> bool:
        """Whether one value alone is accepted."""
        return self.min == self.max

    def __contains__(self, value: int) -> bool:
        return self.min <= value <= self.max

    def __str__(self) -> str:
        return str(self.opt) if self.is_fixed else f"{self.min}..{self.max}"


def check_multiples(name: str, dimension: DimensionRange) -> None:
    """Raise `OptionError`, naming the nearest sizes, unless all of `dimension` are multiples of `STRIDE` pixels."""
    for size in (dimension.min, dimension.opt, dimension.max):
        if size % STRIDE:
            below, above = nearest_multiples(size)
            raise OptionError(f"{name} {size} is not a multiple of {STRIDE}; the nearest are {below} and {above}")


@dataclass(frozen=True)
class Normalization:
    """Per-channel mean and standard deviation of RGB images, on the 0..255 scale."""

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or not all(map(math.isfinite, (*self.mean, *self.std))):
            raise OptionError(f"normalisation needs three finite means and deviations: {self.mean}, {self.std}")
        if min(self.std) <= 0:
            raise OptionError(f"normalisation needs three positive deviations: got {self.std}")


@dataclass(frozen=True)
class TestProtocol:
    """How images are scored: resizing, then the whole image at once or in sliding windows.

    Attributes:
        scale: (long, short) side limits in pixels of the keep-ratio resize.
        keep_ratio: Whether resizing keeps the aspect ratio; otherwise images are resized to `scale` as (width, height)
            exactly.
        divisor: Number to whose multiples the sides are then enlarged (1: left alone).
        mode: ``"whole"`` or ``"slide"``.
        crop: (height, width) of a window, for ``"slide"``.
        stride: (vertical, horizontal) step between windows, for ``"slide"``.
    """

    __test__ = False  # not a test class, whatever pytest thinks of the name

    scale: tuple[int, int] = (2048, 512)
    keep_ratio: bool = True
    divisor: int = STRIDE
    mode: str = "whole"
    crop: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("whole", "slide"):
            raise OptionError(f"test mode must be whole or slide, not {self.mode!r}")
        if self.mode == "slide" and (self.crop is None or self.stride is None):
            raise OptionError("sliding-window evaluation needs a crop size and a stride")
        if self.crop and self.stride and not all(1 <= s <= c for s, c in zip(self.stride, self.crop, strict=True)):
            raise OptionError(f"windows must touch: the stride {self.stride} is not within 1 and the crop {self.crop}")
        for name in ("scale", "crop", "stride"):
            pair = getattr(self, name)
            if pair is None:
                continue
            if len(pair) != 2 or not all(_is_int(size) and 1 <= size <= MAX_SIZE for size in pair):
                raise OptionError(f"{name} must be two sizes within 1 and {MAX_SIZE} pixels: got {pair}")
        if not (_is_int(self.divisor) and 1 <= self.divisor <= MAX_SIZE):
            raise OptionError(f"the divisor must lie within 1 and {MAX_SIZE} pixels: got {self.divisor}")


RANDOM_WEIGHTS = "the weights are random: predictions mean nothing, and numerical error is judged in place of labels"
"""What is noted of a network without a checkpoint."""


def weight_notes(sources: Mapping[str, str]) -> tuple[str, ...]:
    """`RANDOM_WEIGHTS` where `sources` (see `Contract`) are a config without a checkpoint; else nothing."""
    return (RANDOM_WEIGHTS,) if "config" in sources and "checkpoint" not in sources else ()


@dataclass(frozen=True)
class Contract:
    """Everything a runtime must know of a network to feed it and read it.

    Attributes:
        network: Config name, for instance ``"ffnet_seg_512_ade_160k"``.
        dataset: Label set that the network predicts: ``"ade20k"``, ``"cityscapes"``, ``"camvid"``, ``"scenes"`` or
            ``"custom"``.
        classes: Class names in label order.
        palette: RGB colour (0..255) of each class.
        input: What the input tensor holds.
        output: What the output tensor holds.
        batch: Accepted batch sizes.
        height: Accepted input heights in pixels.
        width: Accepted input widths in pixels.
        normalization: Mean and standard deviation of RGB values, applied inside or outside the graph according to
            `input`.
        protocol: How the network is scored.
        sources: SHA-256 of what the artefact was made from, for instance ``{"checkpoint": ..., "config": ...}``.
        io: Type of the floats in the input and output tensors.
    """

    network: str
    dataset: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    input: InputKind = InputKind.FLOAT
    output: OutputKind = OutputKind.LOGITS
    batch: DimensionRange = DimensionRange(1, 1, 1)
    height: DimensionRange = DimensionRange(512, 512, 512)
    width: DimensionRange = DimensionRange(512, 512, 512)
    normalization: Normalization = Normalization()
    protocol: TestProtocol = TestProtocol()
    sources: Mapping[str, str] = field(default_factory=dict)
    io: IOType = field(default=IOType.FP32, metadata=ADDED)

    def __post_init__(self) -> None:
        for name in ("network", "dataset"):
            if not is_printable(getattr(self, name)):
                raise OptionError(f"the name of a {name} is a line of text: got {getattr(self, name)!r}")
        check_classes(self.classes, self.palette)
        if self.batch.max > MAX_BATCH:
            raise OptionError(f"batches hold at most {MAX_BATCH} images: got {self.batch.max}")
        if max(self.height.max, self.width.max) > MAX_SIZE:
            raise OptionError(f"images are at most {MAX_SIZE} pixels high and wide: got {self.height} x {self.width}")
        if self.batch.opt * 3 * self.height.opt * self.width.opt > MAX_ELEMENTS:
            raise OptionError(
                f"an input of {self.batch.opt} x 3 x {self.height.opt} x {self.width.opt} has more than {MAX_ELEMENTS} "
                "elements; take smaller sizes or a smaller batch"
            )

    @property
    def is_dynamic(self) -> bool:
        """Whether any input dimension accepts more than one value."""
        return not (self.batch.is_fixed and self.height.is_fixed and self.width.is_fixed)

    @property
    def input_ranges(self) -> list[tuple[str, DimensionRange]]:
        """Name and accepted sizes of each dimension of the input tensor, in its order."""
        batch, channels = ("batch", self.batch), ("channels", DimensionRange.fixed(3))
        sides = [("height", self.height), ("width", self.width)]
        return [batch, channels, *sides] if self.input is InputKind.FLOAT else [batch, *sides, channels]

    def to_json(self) -> str:
        """The contract as JSON text, the same text for the same contract; the usual `io` is not written."""
        return encode(self)

    @classmethod
    def from_json(cls, text: str) -> "Contract":
        """The contract that `to_json` wrote.

        Raises:
            ArtifactError: the text is not such a contract.
        """
        return decode_text(text, cls, "the artefact's description", "export it again with ffnet-export")
