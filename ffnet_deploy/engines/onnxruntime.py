"""ONNX Runtime: the engine that runs exported graphs on any machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ffnet_deploy.contract import INPUT_NAME, METADATA_KEY, Contract
from ffnet_deploy.engines.engine import check_batch
from ffnet_deploy.errors import ArtifactError, OptionError
from ffnet_deploy.manifest import manifest_path, read_manifest


@dataclass(frozen=True)
class OnnxRuntimeOptions:
    """How ONNX Runtime runs a graph.

    Attributes:
        threads: threads within an operator; 0 takes all cores.
        optimize: let the runtime fuse and rewrite the graph. Off, each node runs as written: what INT8 graphs need to
            be simulated exactly.
        providers: execution providers in order of preference, by ONNX Runtime's names.
        check_manifest: compare the file with the manifest beside it; off for a file that has none yet.
    """

    threads: int = 0
    optimize: bool = True
    providers: Sequence[str] = ("CPUExecutionProvider",)
    check_manifest: bool = True

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise OptionError(f"threads must be 0 (all cores) or more: got {self.threads}")
        missing = [name for name in self.providers if name not in onnxruntime.get_available_providers()]
        if missing or not self.providers:
            raise OptionError(
                f"this ONNX Runtime has no {' or '.join(missing) or 'provider named'}; "
                f"it offers {', '.join(onnxruntime.get_available_providers())}"
            )


class OnnxRuntimeEngine:
    """An exported ONNX file, ready to run; an `Engine`.

    Raises:
        ArtifactError: the file is missing, damaged, no ONNX graph, or was not written by ffnet-export.
    """

    def __init__(self, path: Path, options: OnnxRuntimeOptions | None = None) -> None:
        options = options or OnnxRuntimeOptions()
        self.path = path
        self.notes = _vouch(path) if options.check_manifest else ()
        self._session: Any = _open_session(path, options)
        self.contract = _read_contract(self._session, path)
        self._output = _check_tensors(self._session, self.contract, path)
        device = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        self.name = f"ONNX Runtime {onnxruntime.__version__} ({device})"

    def run(self, batch: NDArray[np.generic]) -> NDArray[np.generic]:
        """The network's output for `batch`; shapes and types as `contract` says.

        Raises:
            OptionError: `batch` has a shape or type that the network does not accept, or the engine is closed.
            ArtifactError: the graph fails.
        """
        if self._session is None:
            raise OptionError(f"the engine of {self.path} is closed")
        check_batch(batch, self.contract)
        try:
            return np.asarray(self._session.run([self._output], {INPUT_NAME: np.ascontiguousarray(batch)})[0])
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise ArtifactError(
                f"{self.path} failed on an input of shape {batch.shape}: {_first_line(error)}"
            ) from error

    def close(self) -> None:
        """Release the graph; calling it twice is harmless."""
        self._session = None

    def __enter__(self) -> "OnnxRuntimeEngine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open_session(path: Path, options: OnnxRuntimeOptions) -> Any:
    _check_file(path)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.log_severity_level = 4
    level = onnxruntime.GraphOptimizationLevel
    settings.graph_optimization_level = level.ORT_ENABLE_ALL if options.optimize else level.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(str(path), settings, providers=list(options.providers))
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise ArtifactError(
            f"{path} cannot be loaded as an ONNX graph: {_first_line(error)}\n"
            "  to do    export it again with ffnet-export; keep external data (.data) files beside it"
        ) from error


def _vouch(path: Path) -> tuple[str, ...]:
    """Check `path` against its manifest; a note where there is none.

    Raises:
        ArtifactError: the file is not the one that was verified.
    """
    _check_file(path)
    if manifest_path(path).is_file():
        read_manifest(path)
        return ()
    return (f"{path.name} has no manifest beside it: nothing vouches for the file",)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise ArtifactError(f"there is no artefact {path}.\n  to do    write one with ffnet-export")
    if path.stat().st_size == 0:
        raise ArtifactError(f"{path} is empty (0 bytes).\n  to do    export it again with ffnet-export")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _read_contract(session: Any, path: Path) -> Contract:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise ArtifactError(
            f"{path} was not exported by ffnet-export: its metadata has no {METADATA_KEY!r}, so that its classes, "
            "sizes and normalisation are unknown.\n  to do    export the network with ffnet-export"
        )
    try:
        return Contract.from_json(text)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error


def _check_tensors(session: Any, contract: Contract, path: Path) -> str:
    """Name of the output, after a check that the graph's tensors are those of `contract`."""
    inputs = [tensor.name for tensor in session.get_inputs()]
    outputs = [tensor.name for tensor in session.get_outputs()]
    if inputs != [INPUT_NAME] or contract.output.value not in outputs:
        raise ArtifactError(
            f"{path} has inputs {inputs} and outputs {outputs}; expected ['{INPUT_NAME}'] and "
            f"['{contract.output.value}'].\n  to do    export it again with ffnet-export"
        )
    return contract.output.value
