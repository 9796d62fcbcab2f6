"""OpenVINO: the engine that runs exported graphs on CPUs faster than most, INT8 graphs as INT8 included."""

from dataclasses import dataclass
from pathlib import Path
from threading import local
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.closing import Closing
from ffnet_deploy.core.contract import INPUT_NAME
from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.precision import Hardware
from ffnet_deploy.engines.engine import check_batch
from ffnet_deploy.engines.onnx_file import check_against_manifest, check_file, check_tensors
from ffnet_deploy.engines.onnx_metadata import read_description

_FOR_TENSORRT = (
    "this INT8 graph was made for TensorRT. OpenVINO saturates its 8-bit weights on processors without VNNI, and "
    "computes a quantised concatenation with several times the noise: export with --int8 --target cpu"
)


@dataclass(frozen=True)
class OpenVinoOptions:
    """How OpenVINO runs a graph.

    Attributes:
        threads: Number of threads within a call; 0 takes all cores.
        streams: Number of calls that may run at the same time; the threads are shared out among them.
        device: OpenVINO device.
        check_manifest: Whether the file is compared with the manifest beside it; off for a file that has none yet.
    """

    threads: int = 0
    streams: int = 1
    device: str = "CPU"
    check_manifest: bool = True

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise OptionError(f"threads must be 0 (all cores) or more: got {self.threads}")
        if self.streams < 1:
            raise OptionError(f"at least one stream is needed: got {self.streams}")

    @property
    def properties(self) -> dict[str, Any]:
        """OpenVINO's names for these options. What is not quantised computes in float32, as the graph says."""
        chosen = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if self.streams > 1:
            chosen = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": str(self.streams)}
        return chosen | ({"INFERENCE_NUM_THREADS": str(self.threads)} if self.threads else {})


class OpenVinoEngine(Closing):
    """An exported ONNX file run by OpenVINO; an `Engine`. Several threads may call `run` at the same time.

    Raises:
        MissingPackageError: OpenVINO is not installed.
        OptionError: OpenVINO has no such device here.
        ArtifactError: the file is missing, damaged, no ONNX graph, or was not written by ffnet-export.
    """

    def __init__(self, path: Path, options: OpenVinoOptions | None = None) -> None:
        options = options or OpenVinoOptions()
        openvino = optional("openvino", extra="openvino", purpose="the openvino backend")
        self.path = path
        check_file(path)
        self.notes = check_against_manifest(path) if options.check_manifest else ()
        core = openvino.Core()
        if options.device.partition(".")[0] not in {name.partition(".")[0] for name in core.available_devices}:
            raise OptionError(
                f"OpenVINO has no device {options.device} here; it offers {', '.join(core.available_devices)}"
            )
        self.contract, self.precision = read_description(path)
        model = _read_model(core, path)
        if self.precision.precision.is_quantized and self.precision.hardware is not Hardware.CPU:
            self.notes = (*self.notes, _FOR_TENSORRT)
        check_tensors(_names(model.inputs), _names(model.outputs), self.contract, path)
        try:
            self._compiled: Any = core.compile_model(model, options.device, options.properties)
        except RuntimeError as error:
            raise ArtifactError(f"{path} cannot be compiled by OpenVINO: {_reason(error)}") from error
        self._requests = local()
        self.name = f"OpenVINO {openvino.get_version().partition('-')[0]} ({options.device})"

    def run(self, batch: NDArray[np.generic]) -> NDArray[np.generic]:
        """The network's output for `batch`; shapes and types as `contract` says.

        Raises:
            OptionError: `batch` has a shape or type that the network does not accept, or the engine is closed.
            ArtifactError: the graph fails.
        """
        if self._compiled is None:
            raise OptionError(f"the engine of {self.path} is closed")
        check_batch(batch, self.contract)
        try:
            request = self._request()
            request.infer({INPUT_NAME: np.ascontiguousarray(batch)}, share_inputs=True)
            return np.array(request.get_tensor(self.contract.output.value).data)
        except RuntimeError as error:
            raise ArtifactError(f"{self.path} failed on an input of shape {batch.shape}: {_reason(error)}") from error

    def _request(self) -> Any:
        """This thread's own request: a request runs one call at a time."""
        if not hasattr(self._requests, "request"):
            self._requests.request = self._compiled.create_infer_request()
        return self._requests.request

    def close(self) -> None:
        """Release the graph; calling it twice is harmless."""
        self._compiled, self._requests = None, local()


def _read_model(core: Any, path: Path) -> Any:
    try:
        return core.read_model(str(path))
    except RuntimeError as error:
        raise ArtifactError(
            f"{path} cannot be read by OpenVINO: {_reason(error)}\n"
            "  to do    export it again with ffnet-export; keep external data (.data) files beside it"
        ) from error


def _names(ports: Any) -> list[str]:
    return [name for port in ports for name in port.get_names()]


def _reason(error: Exception) -> str:
    """The last line with text: OpenVINO begins with where in its own source it failed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
