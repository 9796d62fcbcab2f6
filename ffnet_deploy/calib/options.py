"""How a network is quantised: the options that calibration and insertion share."""

from dataclasses import dataclass
from enum import Enum

from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.precision import Hardware, Precision


class Method(str, Enum):
    """How a clipping threshold follows from the magnitudes of a tensor."""

    MINMAX = "minmax"
    """The largest magnitude: nothing is clipped."""
    PERCENTILE = "percentile"
    """The magnitude that a given share of the values stays below."""
    ENTROPY = "entropy"
    """The least information lost: Kullback-Leibler divergence over 2048 bins."""
    MSE = "mse"
    """The least mean squared error."""


class Calibrator(str, Enum):
    """Whose arithmetic turns values into thresholds."""

    NATIVE = "native"
    """This package's."""
    MODELOPT = "modelopt"
    """NVIDIA Model Optimizer's, as a second opinion."""


@dataclass(frozen=True)
class CalibrationOptions:
    """How to quantise.

    Attributes:
        method: How activations are clipped; weights take their largest magnitude per output channel.
        percentile: Share of the values within the threshold, in percent; for `Method.PERCENTILE` alone.
        equalize: Whether channel ranges are spread between convolutions that nothing non-linear separates; this is
            exact.
        correct_bias: Whether the expected error of each convolution is taken out of its bias.
        precision: INT8, or FP8 (E4M3).
        keep: Convolutions that stay unquantised: names of their nodes, or of modules that they are in.
        calibrator: What chooses the thresholds.
        hardware: Hardware that computes the graph. For CPUs weights are scaled so that no 16-bit sum saturates, and
            what reads a concatenation and convolutions of small groups stay unquantised.
    """

    method: Method = Method.MSE
    percentile: float = 99.99
    equalize: bool = True
    correct_bias: bool = True
    precision: Precision = Precision.INT8
    keep: tuple[str, ...] = ()
    calibrator: Calibrator = Calibrator.NATIVE
    hardware: Hardware = Hardware.TRT

    def __post_init__(self) -> None:
        if not self.precision.is_quantized:
            raise OptionError(f"calibration is for int8 or fp8, not {self.precision.value}")
        if self.hardware is Hardware.CPU and self.precision is not Precision.INT8:
            raise OptionError(f"CPUs compute quantised graphs in int8, not in {self.precision.value}")
        if not 50 < self.percentile <= 100:
            raise OptionError(f"a percentile lies above 50 and up to 100: got {self.percentile}")
        if self.calibrator is Calibrator.MODELOPT and self.method is Method.MSE:
            # measured with 0.47: 0.48 where the error is least at 6.9
            raise OptionError(
                "Model Optimizer's mse chooses thresholds far below those of the least error.\n"
                "  to do    take its entropy, percentile or minmax, or leave mse to the native calibrator"
            )
