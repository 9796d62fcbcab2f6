"""The input and output of an engine, and the shapes that its optimisation profiles accept."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ffnet_deploy.core.contract import INPUT_NAME, Contract, DimensionRange, InputKind
from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.engines.engine import input_type, output_type

Shape = tuple[int, ...]

_DIMENSIONS = {True: ("batch", "channels", "height", "width"), False: ("batch", "height", "width", "channels")}
_TYPES = {"float32": "FLOAT", "float16": "HALF", "uint8": "UINT8", "int32": "INT32"}
_REMEDY = "to do    build it again with ffnet-export"


@dataclass(frozen=True)
class OptimizationProfile:
    """Input shapes that one optimisation profile accepts: from `least` to `most` in each dimension."""

    least: Shape
    most: Shape

    def holds(self, shape: Shape) -> bool:
        """Whether `shape` is within."""
        if len(shape) != len(self.least):
            return False
        return all(low <= size <= high for low, size, high in zip(self.least, shape, self.most, strict=True))

    def __str__(self) -> str:
        return "x".join(f"({low}..{high})" if low < high else str(low) for low, high in self.ranges)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """(least, most) of each dimension."""
        return list(zip(self.least, self.most, strict=True))


@dataclass(frozen=True)
class EngineTensors:
    """The one input and one output of an engine.

    Attributes:
        input: Name of the input tensor.
        output: Name of the output tensor.
        input_type: NumPy type of the input's values.
        output_type: NumPy type of the output's values.
        profiles: The optimisation profiles, by their index.
        dimensions: Names of the input's dimensions, for people.
    """

    input: str
    output: str
    input_type: np.dtype[Any]
    output_type: np.dtype[Any]
    profiles: tuple[OptimizationProfile, ...]
    dimensions: tuple[str, ...]

    def check(self, shape: Shape) -> None:
        """Raise `OptionError`, naming the dimension and its range, unless a profile accepts the input `shape`."""
        if any(profile.holds(shape) for profile in self.profiles):
            return
        if len(self.profiles) > 1:
            raise OptionError(
                f"none of the engine's profiles accepts the input shape {shape}; they take "
                f"{', '.join(map(str, self.profiles))} ({', '.join(self.dimensions)})"
            )
        for name, size, (low, high) in zip(self.dimensions, shape, self.profiles[0].ranges, strict=True):
            if not low <= size <= high:
                dimension = DimensionRange(low, low, high)
                raise OptionError(f"the engine was built for a {name} of {dimension}, not {size} (shape {shape})")


def read_engine_tensors(trt: Any, engine: Any, contract: Contract, path: Path) -> EngineTensors:
    """The tensors of a deserialised engine.

    Raises:
        ArtifactError: they are not those of `contract`.
    """
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    if inputs != [INPUT_NAME] or outputs != [contract.output.value]:
        raise ArtifactError(
            f"{path} has inputs {inputs} and outputs {outputs}; expected ['{INPUT_NAME}'] and "
            f"['{contract.output.value}'].\n  {_REMEDY}"
        )
    taken, given = input_type(contract), engine_output_type(contract)
    for name, expected in ((INPUT_NAME, taken), (outputs[0], given)):
        _check_tensor(trt, engine, name, expected, path)
    dimensions = _DIMENSIONS[contract.input is InputKind.FLOAT]
    return EngineTensors(INPUT_NAME, outputs[0], taken, given, _profiles(engine), dimensions)


def engine_output_type(contract: Contract) -> np.dtype[Any]:
    """NumPy type of an engine's output: int32 in the place of uint16, which TensorRT does not have."""
    usual = output_type(contract)
    return np.dtype(np.int32) if usual == np.uint16 else usual


def _check_tensor(trt: Any, engine: Any, name: str, expected: np.dtype[Any], path: Path) -> None:
    found = engine.get_tensor_dtype(name)
    if found != getattr(trt.DataType, _TYPES[expected.name]):
        raise ArtifactError(f"tensor {name!r} of {path} is {found}; expected {expected}.\n  {_REMEDY}")
    layout = engine.get_tensor_format(name)
    if layout != trt.TensorFormat.LINEAR:
        raise ArtifactError(f"tensor {name!r} of {path} is laid out as {layout}; expected LINEAR.\n  {_REMEDY}")


def _profiles(engine: Any) -> tuple[OptimizationProfile, ...]:
    fixed = tuple(int(size) for size in engine.get_tensor_shape(INPUT_NAME))
    if -1 not in fixed:
        return tuple(OptimizationProfile(fixed, fixed) for _ in range(max(1, engine.num_optimization_profiles)))
    profiles = []
    for index in range(engine.num_optimization_profiles):
        least, _, most = engine.get_tensor_profile_shape(INPUT_NAME, index)
        profiles.append(OptimizationProfile(tuple(int(size) for size in least), tuple(int(size) for size in most)))
    return tuple(profiles)
