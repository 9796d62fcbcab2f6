"""What calibration measured, as a JSON file that is only ever used for what it was measured on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ffnet_deploy.calib.collect import Images
from ffnet_deploy.calib.equalize import Factors
from ffnet_deploy.calib.options import CalibrationOptions, Method
from ffnet_deploy.core.contract import METADATA_KEY
from ffnet_deploy.core.decoding import DecodingError, decode, decode_file
from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.core.files import write_json
from ffnet_deploy.core.precision import Hardware

FORMAT = 1
_DIGITS = 9
"""Significant digits: enough for float32."""


@dataclass(frozen=True)
class CalibrationKey:
    """What ranges hold for.

    Attributes:
        graph: SHA-256 of the unquantised graph, weights included.
        images: SHA-256 of the network inputs, in order.
        preprocessing: SHA-256 of how images become network inputs.
        method: How ranges are measured, in words.
    """

    graph: str
    images: str
    preprocessing: str
    method: str


@dataclass(frozen=True)
class Calibration:
    """Everything that calibration measured: enough to quantise the graph again without an image.

    Attributes:
        key: What the calibration holds for.
        images: Number of images.
        thresholds: Clipping threshold of each tensor in the equalised graph.
        maxima: Largest magnitude of each tensor.
        shapes: Shape of each tensor for the first image.
        factors: Factors of the equalisation.
        shifts: For each convolution, what is added to its bias (out,).
    """

    key: CalibrationKey
    images: int
    thresholds: Mapping[str, float]
    maxima: Mapping[str, float]
    shapes: Mapping[str, tuple[int, ...]]
    factors: Factors
    shifts: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class TensorRanges:
    """What a file of ranges holds of a tensor: clipping threshold, largest magnitude, shape for the first image."""

    threshold: float
    maximum: float
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.threshold < 0 or self.maximum < 0 or any(size < 0 for size in self.shape):
            raise OptionError("thresholds, magnitudes and sizes are not negative")


@dataclass(frozen=True)
class FactorLists:
    """What a file of ranges holds of equalisation; see `Factors`."""

    groups: dict[str, tuple[float, ...]]
    loose: dict[str, tuple[float, ...]]
    restored: tuple[str, ...]

    def __post_init__(self) -> None:
        if any(factor <= 0 for factors in (*self.groups.values(), *self.loose.values()) for factor in factors):
            raise OptionError("factors of equalisation are positive")


@dataclass(frozen=True)
class RangesFile:
    """A `Calibration` as its file holds it."""

    format: int
    key: CalibrationKey
    images: int
    tensors: dict[str, TensorRanges]
    equalisation: FactorLists
    bias_shifts: dict[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise OptionError(f"it has format {self.format}; this version reads {FORMAT}")
        if self.images < 1:
            raise OptionError(f"it was measured on {self.images} images")

    @property
    def calibration(self) -> Calibration:
        """What was measured."""
        factors = self.equalisation
        return Calibration(
            key=self.key,
            images=self.images,
            thresholds={name: tensor.threshold for name, tensor in self.tensors.items()},
            maxima={name: tensor.maximum for name, tensor in self.tensors.items()},
            shapes={name: tensor.shape for name, tensor in self.tensors.items()},
            factors=Factors(_arrays(factors.groups), _arrays(factors.loose), factors.restored),
            shifts=_arrays(self.bias_shifts),
        )


def key_of(model: onnx.ModelProto, images: Images, options: CalibrationOptions) -> CalibrationKey:
    """What ranges measured now would hold for."""
    return CalibrationKey(graph_hash(model), images_hash(images), _preprocessing_hash(model), method_name(options))


def method_name(options: CalibrationOptions) -> str:
    """How ranges are measured, in words: what is kept unquantised has no part in it."""
    parts = [options.method.value]
    if options.method is Method.PERCENTILE:
        parts.append(f"{options.percentile:g}")
    parts += [options.precision.value, f"calibrator {options.calibrator.value}"]
    parts += ["equalised"] if options.equalize else []
    parts += ["biases corrected"] if options.correct_bias else []
    parts += ["for cpu"] if options.hardware is Hardware.CPU else []
    return ", ".join(parts)


def graph_hash(model: onnx.ModelProto) -> str:
    """SHA-256 of a graph and its weights; metadata left out."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.metadata_props[:]
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def images_hash(images: Images) -> str:
    """SHA-256 of all inputs, in order."""
    digest = hashlib.sha256()
    for batch in images:
        digest.update(f"{batch.dtype} {batch.shape}".encode())
        digest.update(np.ascontiguousarray(batch).tobytes())
    return digest.hexdigest()


def _preprocessing_hash(model: onnx.ModelProto) -> str:
    text = {item.key: item.value for item in model.metadata_props}.get(METADATA_KEY, "{}")
    try:
        contract = decode(text, dict[str, Any])
    except DecodingError as error:
        raise ArtifactError(f"the graph's description is damaged: {error}.\n  to do    export it again") from error
    shown = {name: contract.get(name) for name in ("input", "normalization", "protocol", "height", "width")}
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


def rounded(calibration: Calibration) -> Calibration:
    """`calibration` with its numbers as a file keeps them, so that a graph made from either is the same to the byte."""
    factors = calibration.factors
    return replace(
        calibration,
        thresholds={name: _rounded(value) for name, value in calibration.thresholds.items()},
        maxima={name: _rounded(value) for name, value in calibration.maxima.items()},
        factors=replace(factors, groups=_arrays(_lists(factors.groups)), with_mul=_arrays(_lists(factors.with_mul))),
        shifts=_arrays(_lists(calibration.shifts)),
    )


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write `calibration` to `path` as JSON, atomically.

    Raises:
        StorageError: there is no room, or the folder cannot be written.
    """
    calibration = rounded(calibration)
    tensors = {
        name: {
            "threshold": calibration.thresholds[name],
            "maximum": calibration.maxima[name],
            "shape": list(calibration.shapes[name]),
        }
        for name in calibration.thresholds
    }
    factors = calibration.factors
    content = {
        "format": FORMAT,
        "key": {field.name: getattr(calibration.key, field.name) for field in fields(CalibrationKey)},
        "images": calibration.images,
        "tensors": tensors,
        "equalisation": {
            "groups": _lists(factors.groups),
            "loose": _lists(factors.with_mul),
            "restored": list(factors.restored),
        },
        "bias_shifts": _lists(calibration.shifts),
    }
    write_json(path, content)


def _lists(values: Mapping[str, NDArray[np.float64]]) -> dict[str, list[float]]:
    return {name: [_rounded(float(value)) for value in array] for name, array in values.items()}


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def read_calibration(path: Path, key: CalibrationKey) -> Calibration:
    """The calibration in the file `path`, which must have been measured on exactly what `key` says.

    Raises:
        ArtifactError: the file is missing or damaged, or was measured on something else; the message says on what.
    """
    remedy = "remove it to calibrate again, or name another file"
    try:
        calibration = decode_file(path, RangesFile, f"the file of ranges {path}", remedy).calibration
    except FileNotFoundError as error:
        raise ArtifactError(f"there is no file of ranges {path}.\n  to do    {remedy}") from error
    differing = [
        field.name for field in fields(key) if getattr(key, field.name) != getattr(calibration.key, field.name)
    ]
    if differing:
        found = "\n".join(f"  {name:<14} {_differs(name, calibration.key, key)}" for name in differing)
        raise ArtifactError(f"the ranges in {path} were measured on something else:\n{found}\n  to do    {remedy}")
    return calibration


def _differs(name: str, found: CalibrationKey, expected: CalibrationKey) -> str:
    one, other = getattr(found, name), getattr(expected, name)
    if name == "method":
        return f"measured with {one}; asked for {other}"
    what = {"graph": "another graph or other weights", "images": "other images, or in another order"}
    return f"{what.get(name, 'images prepared in another way')} (SHA-256 {one[:12]}..., expected {other[:12]}...)"


def _arrays(lists: Mapping[str, Sequence[float]]) -> dict[str, NDArray[np.float64]]:
    return {name: np.array(values, np.float64) for name, values in lists.items()}
