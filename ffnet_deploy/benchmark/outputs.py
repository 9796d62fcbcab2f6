"""Whether a fast candidate is also a right one: its output beside the baseline's, for the same images."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.benchmark.record import OutputCheck
from ffnet_deploy.core.contract import Contract, OutputKind
from ffnet_deploy.core.label_maps import LabelMap, label_type
from ffnet_deploy.evaluation.finishing import finish
from ffnet_deploy.evaluation.resampling import nearest
from ffnet_deploy.evaluation.windows import whole_map

LEAST_AGREEMENT: Mapping[str, float] = {"fp32": 99.5, "fp16": 99.0, "bf16": 97.0, "int8": 90.0, "fp8": 90.0}
"""Pixels, in percent, that must have the baseline's label, by precision. Far wider than what an export is held to: it
is to find a wrong network, not to judge a good one."""


def label_maps(output: NDArray[np.generic], contract: Contract, size: tuple[int, int]) -> LabelMap:
    """The class of every pixel at `size` (height, width), as (batch, height, width), from a network's output."""
    if contract.output is OutputKind.LABELS:
        return np.stack([nearest(one.astype(label_type(len(contract.classes)), copy=False), size) for one in output])
    return np.stack([finish([whole_map(one.astype(np.float32, copy=False), size)], size) for one in output])


def check_output(
    mine: tuple[NDArray[np.generic], Contract],
    other: tuple[NDArray[np.generic], Contract],
    size: tuple[int, int],
    against: str,
    least: float,
) -> OutputCheck:
    """Compare two outputs for the same images.

    Args:
        mine: output under test, and what it means.
        other: output to compare with, and what it means.
        size: input (height, width): where labels are compared.
        against: name of the candidate that gave `other`.
        least: agreement, percent, below which `mine` is wrong.
    """
    with np.errstate(invalid="ignore"):  # what is not finite is found below
        found, expected = label_maps(*mine, size), label_maps(*other, size)
    agreement = float((found == expected).mean() * 100) if found.shape == expected.shape else 0.0
    finite = bool(np.isfinite(mine[0].astype(np.float64, copy=False)).all())
    relative = _relative(mine[0], other[0]) if mine[1].output is other[1].output else None
    if mine[1].output is OutputKind.LABELS:
        relative = None
    return OutputCheck(against, agreement, relative, least, passed=finite and agreement >= least)


def _relative(found: NDArray[np.generic], expected: NDArray[np.generic]) -> float | None:
    if found.shape != expected.shape:
        return None
    magnitude = float(np.abs(expected.astype(np.float64)).max())
    error = float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max())
    relative = error / magnitude if magnitude else error
    return relative if np.isfinite(relative) else None
