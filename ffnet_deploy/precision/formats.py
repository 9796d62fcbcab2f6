"""The two 16-bit formats: their limits, and how arrays are rounded to them."""

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray

from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.precision import Precision

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Format:
    """A 16-bit floating-point format.

    Attributes:
        precision: Precision that the format is of.
        tensor_type: ONNX element type.
        dtype: NumPy type.
        opset: First operator set whose convolutions take it.
    """

    precision: Precision
    tensor_type: int
    dtype: np.dtype[np.generic]
    opset: int

    @property
    def largest(self) -> float:
        """The largest finite value."""
        return float(self._limits.max)

    @property
    def smallest_normal(self) -> float:
        """The smallest value with all its digits."""
        return float(self._limits.smallest_normal)

    @property
    def roundoff(self) -> float:
        """Largest relative error of rounding a normal value: half a unit in the last place."""
        return float(self._limits.eps) / 2

    @property
    def _limits(self) -> Any:
        finfo: Any = ml_dtypes.finfo  # numpy's does not know bfloat16
        return finfo(self.dtype)


FP16 = Format(Precision.FP16, onnx.TensorProto.FLOAT16, np.dtype(np.float16), opset=11)
"""IEEE half precision: 11 digits, up to 65504."""

BF16 = Format(Precision.BF16, onnx.TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16), opset=22)
"""bfloat16: 8 digits, the range of float32."""


def format_of(precision: Precision) -> Format:
    """The 16-bit format of `precision`.

    Raises:
        OptionError: it is not a 16-bit format.
    """
    for candidate in (FP16, BF16):
        if candidate.precision is precision:
            return candidate
    raise OptionError(f"a graph is typed fp16 or bf16, not {precision.value}")


@dataclass(frozen=True)
class Conversion:
    """What rounding an array to a format did.

    Attributes:
        values: Number of values.
        overflowed: Number of finite values beyond the largest.
        zeroed: Number of values other than zero that became zero.
        subnormal: Number of values that became smaller than the smallest normal one, but not zero: they lose digits.
    """

    values: int
    overflowed: int
    zeroed: int
    subnormal: int

    def __add__(self, other: "Conversion") -> "Conversion":
        return Conversion(
            self.values + other.values,
            self.overflowed + other.overflowed,
            self.zeroed + other.zeroed,
            self.subnormal + other.subnormal,
        )


def convert(array: NDArray[np.float32], to: Format) -> tuple[Array, Conversion]:
    """`array` rounded to nearest in the format `to`, and what that did to its values."""
    with np.errstate(over="ignore"):
        rounded = array.astype(to.dtype)
    back = np.abs(rounded.astype(np.float32))
    return rounded, Conversion(
        values=array.size,
        overflowed=int((np.isfinite(array) & ~np.isfinite(back)).sum()),
        zeroed=int(((array != 0) & (back == 0)).sum()),
        subnormal=int(((back > 0) & (back < to.smallest_normal)).sum()),
    )


def rounded_up(array: NDArray[np.float32], to: Format) -> Array:
    """The smallest values of the format `to` that are not below `array`, which is positive."""
    rounded, _ = convert(array, to)
    bits = rounded.view(np.uint16)
    # the next larger value of a positive one has the next larger bits
    return np.where(rounded.astype(np.float32) < array, bits + np.uint16(1), bits).astype(np.uint16).view(to.dtype)
