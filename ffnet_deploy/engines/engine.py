"""What every engine offers, whatever runs it."""

from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.contract import Contract, DimensionRange, InputKind, IOType, OutputKind, check_multiples
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.label_maps import label_type


class Engine(Protocol):
    """A network ready to run on one device."""

    contract: Contract
    """What it takes and gives."""
    name: str
    """Runtime and device, for people: for instance ``"ONNX Runtime 1.31 (CPU)"``."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of its results, in words: what was assumed or left out on the way to it."""
        ...

    def run(self, batch: NDArray[np.generic]) -> NDArray[np.generic]:
        """The network's output for `batch`; shapes and types as `contract` says.

        Raises:
            OptionError: `batch` has a shape or type that the network does not accept.
        """
        ...

    def close(self) -> None:
        """Release device memory; the engine cannot be used afterwards. Calling it twice is harmless."""
        ...

    def __enter__(self) -> "Engine": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class DeviceEngine(Protocol):
    """An engine that can leave its output on its GPU, so that label maps are made there too."""

    @property
    def keeps_output(self) -> bool:
        """Whether `run_on_device` is to be preferred: there is a GPU, and PyTorch to go on there."""
        ...

    def run_on_device(self, batch: NDArray[np.generic]) -> Any:
        """What `run` gives, as a PyTorch tensor in the memory of the device.

        Raises:
            OptionError: `batch` has a shape or type that the network does not accept.
        """
        ...


def input_type(contract: Contract) -> np.dtype[Any]:
    """NumPy type of the input that `contract` describes."""
    return _float_type(contract) if contract.input is InputKind.FLOAT else np.dtype(np.uint8)


def output_type(contract: Contract) -> np.dtype[Any]:
    """NumPy type of the output that `contract` describes; TensorRT gives int32 in the place of uint16."""
    return label_type(len(contract.classes)) if contract.output is OutputKind.LABELS else _float_type(contract)


def _float_type(contract: Contract) -> np.dtype[Any]:
    return np.dtype(np.float16 if contract.io is IOType.FP16 else np.float32)


def check_batch(batch: NDArray[np.generic], contract: Contract) -> None:
    """Raise `OptionError`, naming the dimension and what it accepts, unless `batch` is an input of `contract`."""
    dtype = input_type(contract)
    if batch.dtype != dtype:
        raise OptionError(f"the network takes {dtype} images ({contract.input.value}), not {batch.dtype}")
    expected = contract.input_ranges
    if batch.ndim != len(expected):
        raise OptionError(f"the network takes ({', '.join(name for name, _ in expected)}), not shape {batch.shape}")
    for (name, dimension), size in zip(expected, batch.shape, strict=True):
        if size not in dimension:
            raise OptionError(f"the network accepts a {name} of {dimension}, not {size} (shape {batch.shape})")
        if name in ("height", "width"):
            check_multiples(name, DimensionRange.fixed(size))
