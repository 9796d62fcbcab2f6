"""What an artefact takes and gives: the one description that exporter, engines, evaluation and benchmark share.

It travels inside the artefact (ONNX metadata) and beside it (manifest), so that the runtime layer needs no config.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from ffnet_deploy.core.errors import ArtifactError, OptionError

STRIDE = 32
"""Input heights and widths are multiples of this, in pixels: the largest stride of every FFNet backbone."""

INPUT_NAME = "image"
"""Name of the input tensor of every artefact; the output is named after its `OutputKind`."""

METADATA_KEY = "ffnet_deploy"
"""Key of the contract in the metadata of an ONNX file."""

IGNORE_LABEL = 255
"""Label value that is left out of every score."""


class InputKind(str, Enum):
    """What the network's input holds."""

    FLOAT = "float"
    """float32 (batch, 3, height, width), RGB, normalised outside the graph."""
    RGB = "rgb"
    """uint8 (batch, height, width, 3), RGB, normalised in the graph."""
    BGR = "bgr"
    """uint8 (batch, height, width, 3), BGR as OpenCV decodes it, normalised in the graph."""


class OutputKind(str, Enum):
    """What the network's output holds."""

    LOGITS = "logits"
    """float32 (batch, classes, height / s, width / s), before any resize; s is the decoder's stride."""
    LABELS = "labels"
    """uint8 (batch, height, width): logits resized to the input size (bilinear), then argmax."""
    PROBABILITIES = "probabilities"
    """float32 (batch, classes, height, width): softmax of the resized logits."""


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
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise OptionError(f"normalisation needs three means and three positive deviations: {self.mean}, {self.std}")


@dataclass(frozen=True)
class TestProtocol:
    """How images are scored: resizing, then the whole image at once or in sliding windows.

    Attributes:
        scale: (long, short) side limits in pixels of the keep-ratio resize.
        keep_ratio: resize keeping the aspect ratio; otherwise to `scale` as (width, height) exactly.
        divisor: sides are then enlarged to multiples of this (1: left alone).
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
        if min(self.scale) < 1 or self.divisor < 1:
            raise OptionError(f"scale and divisor must be positive: got {self.scale}, {self.divisor}")


@dataclass(frozen=True)
class Contract:
    """Everything a runtime must know of a network to feed it and read it.

    Attributes:
        network: config name, for instance ``"ffnet_seg_512_ade_160k"``.
        dataset: label set it predicts: ``"ade20k"``, ``"cityscapes"``, ``"camvid"``, ``"scenes"`` or ``"custom"``.
        classes: class names in label order.
        palette: RGB colour (0..255) of each class.
        input: what the input tensor holds.
        output: what the output tensor holds.
        batch: accepted batch sizes.
        height: accepted input heights, pixels.
        width: accepted input widths, pixels.
        normalization: applied to RGB values, inside or outside the graph according to `input`.
        protocol: how the network is scored.
        sources: SHA-256 of what the artefact was made from, for instance ``{"checkpoint": ..., "config": ...}``.
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

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.palette):
            raise OptionError(f"{len(self.classes)} class names but {len(self.palette)} colours")
        if self.output is OutputKind.LABELS and len(self.classes) > IGNORE_LABEL:
            raise OptionError(f"label maps are uint8: {len(self.classes)} classes do not fit")

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
        """The contract as JSON text, the same text for the same contract."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Contract":
        """The contract that `to_json` wrote.

        Raises:
            ArtifactError: the text is not such a contract.
        """
        try:
            raw: dict[str, Any] = json.loads(text)
            return cls(
                network=raw["network"],
                dataset=raw["dataset"],
                classes=tuple(raw["classes"]),
                palette=tuple((int(r), int(g), int(b)) for r, g, b in raw["palette"]),
                input=InputKind(raw["input"]),
                output=OutputKind(raw["output"]),
                batch=DimensionRange(**raw["batch"]),
                height=DimensionRange(**raw["height"]),
                width=DimensionRange(**raw["width"]),
                normalization=Normalization(**{key: tuple(value) for key, value in raw["normalization"].items()}),
                protocol=TestProtocol(**{key: _tupled(value) for key, value in raw["protocol"].items()}),
                sources=dict(raw["sources"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"the artefact's description is damaged ({error}).\n  to do    export it again with ffnet-export"
            ) from error


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
