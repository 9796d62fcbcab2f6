"""What every engine offers, whatever runs it."""

from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.contract import Contract


class Engine(Protocol):
    """A network ready to run on one device."""

    contract: Contract
    """What it takes and gives."""
    name: str
    """Runtime and device, for people: for instance ``"ONNX Runtime 1.31 (CPU)"``."""

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
