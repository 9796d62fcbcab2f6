"""ONNX Runtime: the engine that runs exported graphs on any machine, on NVIDIA GPUs through its own providers too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.closing import Closing
from ffnet_deploy.core.contract import INPUT_NAME
from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.precision import PrecisionRecord
from ffnet_deploy.core.quiet import quiet
from ffnet_deploy.engines.engine import check_batch
from ffnet_deploy.engines.onnx_file import check_against_manifest, check_file, check_tensors
from ffnet_deploy.engines.onnx_metadata import external_files, read_description
from ffnet_deploy.engines.onnxruntime_providers import (
    CPU,
    check_providers,
    how_to_install,
    provider_notes,
    provider_options,
)


def _load() -> Any:
    return optional("onnxruntime", extra="onnxruntime", purpose="running ONNX files")


@dataclass(frozen=True)
class OnnxRuntimeOptions:
    """How ONNX Runtime runs a graph.

    Attributes:
        threads: Number of threads within an operator; 0 takes all cores.
        optimize: Whether the runtime may fuse and rewrite the graph; off, each node runs as written. None: on.
            Quantised graphs on the CPU get the settings that they need to be computed right.
        providers: Execution providers in order of preference, by ONNX Runtime's names; see
            `onnxruntime_providers.parse_device`. The first must run the graph, the others what it leaves over.
        check_manifest: Whether the file is compared with the manifest beside it; off for a file that has none yet.
        gpu: Number of the GPU, for providers that use one.
        engine_cache: Folder in which the TensorRT provider keeps what it built; None for no cache.
    """

    threads: int = 0
    optimize: bool | None = None
    providers: Sequence[str] = (CPU,)
    check_manifest: bool = True
    gpu: int = 0
    engine_cache: Path | None = None

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise OptionError(f"threads must be 0 (all cores) or more: got {self.threads}")
        available = _load().get_available_providers()
        missing = [name for name in self.providers if name not in available]
        if missing or not self.providers:
            raise OptionError(
                f"this ONNX Runtime has no {' or '.join(missing) or 'provider named'}; "
                f"it offers {', '.join(available)}{how_to_install(missing[0]) if missing else ''}"
            )


class OnnxRuntimeEngine(Closing):
    """An exported ONNX file, ready to run; an `Engine`.

    Raises:
        MissingPackageError: ONNX Runtime is not installed.
        ArtifactError: the file is missing, damaged, no ONNX graph, or was not written by ffnet-export; or the GPU that
            was asked for cannot run it.
    """

    def __init__(self, path: Path, options: OnnxRuntimeOptions | None = None) -> None:
        options = options or OnnxRuntimeOptions()
        self.path = path
        check_file(path)
        unchecked = check_against_manifest(path) if options.check_manifest else ()
        self.contract, self.precision = read_description(path)
        self._session: Any = _open_session(path, options, self.precision)
        check_tensors(_names(self._session.get_inputs()), _names(self._session.get_outputs()), self.contract, path)
        self.notes = (*unchecked, *provider_notes(options.providers, self.precision, path, _load().__version__))
        device = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        self.name = f"ONNX Runtime {_load().__version__} ({device})"

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
            outputs = self._session.run([self.contract.output.value], {INPUT_NAME: np.ascontiguousarray(batch)})
            return np.asarray(outputs[0])
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise ArtifactError(
                f"{self.path} failed on an input of shape {batch.shape}: {_first_line(error)}"
            ) from error

    def close(self) -> None:
        """Release the graph; calling it twice is harmless."""
        self._session = None


@dataclass(frozen=True)
class SessionSettings:
    """How an ONNX Runtime session is set up.

    Attributes:
        optimize: Let the runtime fuse and rewrite the graph; off, each node runs as written.
        threads: Threads within an operator; 0 takes all cores.
        providers: Execution providers in order of preference, by ONNX Runtime's names.
        provider_options: Options of each provider, in the same order; None for none.
        config: Session configuration entries by ONNX Runtime's names.
        keep_memory: Keep memory for the next run; off, it is given back after each.
        profile: Prefix of the profile that the session writes; None for no profile.
    """

    optimize: bool = True
    threads: int = 0
    providers: Sequence[str] = (CPU,)
    provider_options: Sequence[Mapping[str, Any]] | None = None
    config: Mapping[str, str] = field(default_factory=dict)
    keep_memory: bool = True
    profile: Path | None = None


def create_session(graph: Path | bytes, failure: str, settings: SessionSettings | None = None, remedy: str = "") -> Any:
    """An ONNX Runtime session for `graph`, a file or a serialised model. The one place that makes one.

    Args:
        graph: What to run.
        failure: What the error says first where the graph cannot be run.
        settings: How the session is set up; None for the defaults.
        remedy: What the error adds, from its line break on.

    Raises:
        MissingPackageError: ONNX Runtime is not installed.
        ArtifactError: ONNX Runtime cannot run the graph so, or its weights lie in what is no plain file.
    """
    onnxruntime, settings = _load(), settings or SessionSettings()
    if isinstance(graph, Path):
        external_files(graph)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = settings.keep_memory
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if settings.optimize else level.ORT_DISABLE_ALL
    for name, value in settings.config.items():
        options.add_session_config_entry(name, value)
    if settings.profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(settings.profile)
    arguments: dict[str, Any] = {"providers": list(settings.providers)}
    if settings.provider_options is not None:
        arguments["provider_options"] = [dict(one) for one in settings.provider_options]
    try:
        # without the fallback, which would run what failed on the CPU and mention it in passing
        return onnxruntime.InferenceSession(
            str(graph) if isinstance(graph, Path) else graph, options, enable_fallback=0, **arguments
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        if "NOT_IMPLEMENTED" in str(error):
            remedy = (
                "\n  to do    BF16 and FP8 graphs are for TensorRT; their manifest holds what a simulation measured"
            )
        raise ArtifactError(f"{failure}: {_first_line(error)}{remedy}") from error


def quantized_settings(record: PrecisionRecord) -> dict[str, str]:
    """Session entries with which ONNX Runtime's CPU provider computes an optimised graph as Q/DQ nodes say.

    Its integer kernels are left out: they take convolutions whose output is quantised too, here none but a few. What is
    left to them lost 15 dB over FP16, and kept the other convolutions from the fast float kernels: they took two to six
    times as long.
    """
    return {"session.disable_quant_qdq": "1"} if record.precision.is_quantized else {}


def _open_session(path: Path, options: OnnxRuntimeOptions, record: PrecisionRecord) -> Any:
    provider, chosen = options.providers[0], None
    if provider != CPU:
        described = read_description(path)
        chosen = provider_options(options.providers, options.gpu, path, described, options.engine_cache)
        if hasattr(_load(), "preload_dlls"):
            with quiet():  # CUDA's libraries are found where pip or PyTorch installed them
                _load().preload_dlls()
    session = create_session(
        path,
        f"{path} cannot be loaded as an ONNX graph{'' if provider == CPU else f' by {provider}'}",
        SessionSettings(
            options.optimize is not False, options.threads, options.providers, chosen, quantized_settings(record)
        ),
        "\n  to do    export it again with ffnet-export; keep external data (.data) files beside it"
        f"{how_to_install(provider)}",
    )
    check_providers(options.providers, session.get_providers(), path)
    return session


def _names(tensors: Sequence[Any]) -> list[str]:
    return [tensor.name for tensor in tensors]


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
