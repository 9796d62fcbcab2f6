"""What each layer costs in engines of both precisions, from a profile that ``ffnet-bench`` wrote."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ffnet_deploy.benchmark.files import read_run
from ffnet_deploy.benchmark.record import BenchRun, Profile
from ffnet_deploy.core.errors import ArtifactError

_BETWEEN = re.compile(r"\.\.\.|[\s+,:{}\[\]]+")
"""What separates the names of nodes in the name of a layer that they were fused into."""
_QUANTIZED = ("int8", "fp8")


@dataclass(frozen=True)
class Timings:
    """Milliseconds of each layer by its name, in an engine with quantised convolutions and in one without."""

    quantized: Mapping[str, float]
    base: Mapping[str, float]

    def slower(self, blocks: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        """Names of the blocks that take longer quantised than not; both engines must name them.

        Args:
            blocks: names of the convolutions of each.
        """
        owners = {conv: block for block, convs in blocks.items() for conv in convs}
        low, high = _summed(self.quantized, owners), _summed(self.base, owners)
        return tuple(block for block in blocks if block in low and block in high and low[block] > high[block])


def _summed(layers: Mapping[str, float], owners: Mapping[str, str]) -> dict[str, float]:
    """Milliseconds of each block: a layer counts for the block of the first convolution that its name holds."""
    sums: dict[str, float] = {}
    for name, milliseconds in layers.items():
        block = next((owners[part] for part in _BETWEEN.split(name) if part in owners), None)
        if block is not None:
            sums[block] = sums.get(block, 0.0) + milliseconds
    return sums


def read_timings(path: Path) -> Timings:
    """Timings from a run of ``ffnet-bench --profile --json`` over an engine of each precision.

    Raises:
        ArtifactError: the file is no such run, or does not hold one profile of each.
    """
    run = read_run(path)
    quantized = [profile for precision, profile in _profiles(run) if precision in _QUANTIZED]
    base = [profile for precision, profile in _profiles(run) if precision not in _QUANTIZED]
    if len(quantized) != 1 or len(base) != 1:
        raise ArtifactError(
            f"{path} holds {len(quantized)} profiles of quantised networks and {len(base)} of others; one each is "
            "needed.\n"
            "  to do    ffnet-bench NET.fp16.engine NET.int8.engine --profile --json FILE"
        )
    return Timings(_layers(quantized[0]), _layers(base[0]))


def _profiles(run: BenchRun) -> list[tuple[str, Profile]]:
    precisions = {contender.name: contender.precision for contender in run.contenders}
    return [(precisions[one.contender], one.profile) for one in run.measurements if one.profile is not None]


def _layers(profile: Profile) -> dict[str, float]:
    sums: dict[str, float] = {}
    for layer in profile.layers:
        sums[layer.name] = sums.get(layer.name, 0.0) + layer.milliseconds
    return sums
