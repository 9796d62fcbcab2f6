"""NVIDIA Model Optimizer's histogram calibrator in the place of our own: a second opinion on thresholds, on the CPU."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.calib.options import Method
from ffnet_deploy.core.optional import optional

_BITS = 8
_METHODS = {Method.ENTROPY: "entropy", Method.PERCENTILE: "percentile"}


class ModelOptHistogram:
    """An observer that leaves bins and thresholds to `HistogramCalibrator`; its range grows from the first image on.

    Attributes:
        maximum: largest magnitude so far.

    Raises:
        MissingPackageError: Model Optimizer is not installed.
    """

    def __init__(self) -> None:
        purpose = "the calibrator modelopt"
        self._torch = optional("torch", extra="convert", purpose=purpose)
        calib = optional("modelopt.torch.quantization.calib", extra="modelopt", purpose=purpose)
        self._calibrator: Any = calib.HistogramCalibrator(_BITS, None, False)
        self.maximum = 0.0

    def update(self, values: NDArray[np.float32]) -> None:
        """Count the magnitudes of a finite tensor; one that holds nothing but zeros tells it nothing."""
        magnitudes = np.abs(values)
        largest = float(magnitudes.max())
        if largest > 0:
            self._calibrator.collect(self._torch.from_numpy(magnitudes))
        self.maximum = max(self.maximum, largest)

    def threshold(self, method: Method, percentile: float) -> float:
        """The clipping threshold; 0 where the tensor was always zero."""
        if method is Method.MINMAX or self.maximum == 0:
            return self.maximum
        settings = {"percentile": percentile} if method is Method.PERCENTILE else {}
        return min(float(self._calibrator.compute_amax(_METHODS[method], **settings)), self.maximum)
