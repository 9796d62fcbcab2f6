"""How a graph is typed."""

from dataclasses import dataclass

from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.precision import Precision


@dataclass(frozen=True)
class TypingOptions:
    """What may be computed in 16 bits.

    Attributes:
        precision: the 16-bit format, FP16 or BF16.
        headroom: stored values must stay this many times below the format's largest one on the images seen, since
            other images reach further.
        amplification: rounding a node's inputs, weights and output may move its output by this many times the format's
            roundoff. 16 leaves FP16 seven good digits, BF16 four.
        share: positions whose features are divided by their own deviation (layer norms) may exceed `amplification` in
            this share at most.
        flips: share of positions, 0..1, whose label may change when the scores that decide it are rounded.
        stagnation: a mean or sum over n values may be taken in 16 bits while n times the roundoff is at most this:
            beyond, a running sum stops seeing what is added to it.
    """

    precision: Precision = Precision.FP16
    headroom: float = 4.0
    amplification: float = 16.0
    share: float = 0.001
    flips: float = 0.0025
    stagnation: float = 0.125

    def __post_init__(self) -> None:
        if self.precision not in (Precision.FP16, Precision.BF16):
            raise OptionError(f"a graph is typed fp16 or bf16, not {self.precision.value}")
        if self.headroom < 1 or self.amplification < 1 or min(self.share, self.flips) < 0 or self.stagnation <= 0:
            raise OptionError(
                "typing needs a headroom and an amplification from 1, shares from 0 and a positive stagnation: "
                f"got {self}"
            )
