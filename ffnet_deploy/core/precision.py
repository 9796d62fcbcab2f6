"""What precision a graph asks for: the one description that typing, calibration, builders and proofs share.

It travels in the graph's metadata, so that an engine can be checked against what was asked without any other file.
"""

from dataclasses import dataclass, field
from enum import Enum

from ffnet_deploy.core.decoding import ADDED, decode_text, encode
from ffnet_deploy.core.errors import OptionError

PRECISION_KEY = "ffnet_deploy_precision"
"""Key of the record in the metadata of an ONNX file; a file without it is FP32."""


class Precision(str, Enum):
    """Number format that a network, or a layer of it, computes in."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    FP8 = "fp8"
    INT8 = "int8"

    @property
    def is_quantized(self) -> bool:
        """Whether it takes scales, as Q/DQ nodes in the graph."""
        return self in (Precision.FP8, Precision.INT8)


class Target(str, Enum):
    """What a verified FP32 graph is lowered to; the value is part of the file's name."""

    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"
    MIXED = "mixed"
    """INT8 but for the layers that a search leaves in the base type."""

    @property
    def precision(self) -> Precision:
        """The number format asked for."""
        return Precision.INT8 if self is Target.MIXED else Precision(self.value)


class Hardware(str, Enum):
    """What computes a quantised graph as it is meant: Q/DQ nodes and weight scales differ."""

    TRT = "trt"
    """TensorRT, and TensorRT for RTX."""
    CPU = "cpu"
    """OpenVINO and ONNX Runtime on every x86-64 processor from AVX2 on, with VNNI or AMX or without."""


@dataclass(frozen=True)
class PrecisionRecord:
    """What a graph's types and Q/DQ nodes ask for.

    Attributes:
        precision: What was asked for.
        base: Type of everything that is neither quantised nor in `float32`; it equals `precision` where nothing is
            quantised.
        quantized: Names of the convolution nodes with Q/DQ on input and weights, in graph order.
        float32: Names of the nodes kept in FP32 on purpose, in graph order.
        hardware: What computes the quantised graph as it is meant.
    """

    precision: Precision = Precision.FP32
    base: Precision = Precision.FP32
    quantized: tuple[str, ...] = ()
    float32: tuple[str, ...] = ()
    hardware: Hardware = field(default=Hardware.TRT, metadata=ADDED)

    def __post_init__(self) -> None:
        if self.base.is_quantized:
            raise OptionError(f"layers that are not quantised are fp32, fp16 or bf16, not {self.base.value}")
        if not self.precision.is_quantized and (self.quantized or self.base is not self.precision):
            raise OptionError(f"a graph of {self.precision.value} has no quantised layers and no other base type")

    def to_json(self) -> str:
        """The record as JSON text, the same text for the same record; the usual hardware is not written."""
        return encode(self)

    @classmethod
    def from_json(cls, text: str) -> "PrecisionRecord":
        """The record that `to_json` wrote.

        Raises:
            ArtifactError: the text is not such a record.
        """
        return decode_text(text, cls, "the artefact's record of precision", "export it again")
