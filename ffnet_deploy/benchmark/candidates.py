"""What can be timed: artefacts on the runtimes that take them, and the PyTorch network in its forms."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.benchmark.profiling import (
    TimedLayers,
    profile_onnxruntime,
    profile_openvino,
    profile_tensorrt,
    profile_torch,
)
from ffnet_deploy.benchmark.steps import TensorRTOnDevice
from ffnet_deploy.core.errors import MissingPackageError, OptionError
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.backend import Backend, Provider
from ffnet_deploy.engines.cuda import find_device
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeOptions
from ffnet_deploy.engines.onnxruntime_providers import DEVICES, how_to_install
from ffnet_deploy.engines.openvino import OpenVinoEngine, OpenVinoOptions
from ffnet_deploy.engines.torch import TorchEngine, TorchForm, open_torch_segmentor

if TYPE_CHECKING:
    from ffnet_deploy.engines.tensorrt.runner import TensorRTOptions

Open = Callable[[int, int], Engine]
"""Opens an engine for (threads within a call, calls at the same time); 0 threads: all cores."""

ProfileLayers = Callable[[NDArray[np.generic], int], TimedLayers]
"""Times the layers of a candidate for (the network's input, threads)."""


@dataclass(frozen=True)
class Candidate:
    """A candidate that has not been opened.

    Attributes:
        name: Name of the candidate in tables and files.
        open: Opens the engine; `MissingPackageError` and `NoDeviceError` mean that it cannot start here.
        artifact: File of the candidate, where it has one.
        precision: None: the engine tells.
        profile: Times the layers for an input and a number of threads; None: nothing can.
        on_gpu: Whether it computes on a GPU.
    """

    name: str
    open: Open
    artifact: Path | None = None
    precision: str | None = None
    profile: ProfileLayers | None = None
    on_gpu: bool = False


@dataclass(frozen=True)
class ArtifactOptions:
    """How artefacts are opened.

    Attributes:
        backends: Backends of ONNX files, a candidate each.
        providers: Execution providers of ONNX Runtime, a candidate each.
        trust_engine: Run TensorRT engines that have no manifest.
        cuda_graph: Let TensorRT engines launch a captured CUDA graph.
        device: Number of the GPU.
    """

    backends: Sequence[Backend] = (Backend.ONNXRUNTIME,)
    providers: Sequence[Provider] = (Provider.CPU,)
    trust_engine: bool = False
    cuda_graph: bool = True
    device: int = 0

    def __post_init__(self) -> None:
        graphs = [backend for backend in Backend if backend.runs_graphs]
        if not self.backends or not set(self.backends) <= set(graphs):
            names = " or ".join(backend.value for backend in graphs)
            found = ", ".join(backend.value for backend in self.backends) or "none"
            raise OptionError(f"ONNX files are run by {names}: got {found}")
        if Backend.ONNXRUNTIME in self.backends and not self.providers:
            raise OptionError(f"name at least one provider: {', '.join(provider.value for provider in Provider)}")


def artifact_candidates(paths: Sequence[Path], options: ArtifactOptions) -> list[Candidate]:
    """The candidates of artefacts: an ONNX file once for each backend and provider, an engine once.

    Raises:
        OptionError: an artefact is of an unknown kind.
    """
    names = short_names(paths)
    return [candidate for path in paths for candidate in _candidates(path, names[path], options)]


def short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """The file name of each path, with as many of its folders before it as tell it from the others."""
    resolved = {path: path.resolve().parts for path in dict.fromkeys(paths)}
    names = {}
    for path, parts in resolved.items():
        others = {other for other in resolved.values() if other != parts}
        length = next(n for n in range(1, len(parts) + 1) if all(other[-n:] != parts[-n:] for other in others))
        names[path] = "/".join(parts[-length:])
    return names


def _candidates(path: Path, name: str, options: ArtifactOptions) -> list[Candidate]:
    if path.suffix == ".onnx":
        stem = name.removesuffix(".onnx")
        out = []
        for backend in options.backends:
            if backend is Backend.OPENVINO:
                out.append(_openvino_candidate(path, f"{stem}, {backend.label}"))
            else:
                out += [_onnxruntime_candidate(path, stem, provider, options.device) for provider in options.providers]
        return out
    if path.suffix == ".engine":
        return [_engine_candidate(path, name, options)]
    raise OptionError(
        f"{path} is an artefact of an unknown kind: expected .onnx or .engine, found {path.suffix or 'no ending'}.\n"
        "  to do    name a file that ffnet-export wrote; for the PyTorch network give --config"
    )


@dataclass(frozen=True)
class TorchSource:
    """The network that PyTorch runs.

    Attributes:
        config: Name, file, or a `ffnet_deploy.segmentor.config.SegmentorConfig`.
        checkpoint: File, ``"published"`` or ``"bundled"``; None: random weights.
        device: PyTorch device.
        progress: Called with the bytes of a download.
    """

    config: Any
    checkpoint: str | None = None
    device: str = "cpu"
    progress: Progress = no_progress


def torch_candidates(source: TorchSource, forms: Sequence[TorchForm]) -> list[Candidate]:
    """One candidate for each form; the network is read once for all."""

    @lru_cache(maxsize=1)
    def segmentor() -> Any:
        return open_torch_segmentor(source.config, source.checkpoint, source.progress)

    def opener(form: TorchForm) -> Open:
        return lambda threads, streams: TorchEngine.from_segmentor(segmentor(), source.device, form, threads)

    def profiler(form: TorchForm) -> ProfileLayers:
        def layers(batch: NDArray[np.generic], threads: int) -> TimedLayers:
            with TorchEngine.from_segmentor(segmentor(), source.device, form, threads) as engine:
                return profile_torch(engine, batch)

        return layers

    return [
        Candidate(
            f"PyTorch {form.value}",
            opener(form),
            precision=form.precision(source.device),
            # neither what is compiled nor what is captured runs its modules one by one
            profile=None if form.is_compiled or form is TorchForm.CUDA_GRAPH else profiler(form),
            on_gpu=not source.device.startswith("cpu"),
        )
        for form in forms
    ]


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """`candidates` with a number added to names that are taken, so that an artefact can be compared with itself."""
    seen: dict[str, int] = {}
    out = []
    for candidate in candidates:
        seen[candidate.name] = count = seen.get(candidate.name, 0) + 1
        out.append(candidate if count == 1 else replace(candidate, name=f"{candidate.name} ({count})"))
    return out


def baseline_first(candidates: Sequence[Candidate], wanted: str | None) -> list[Candidate]:
    """`candidates`, the first whose name holds `wanted` (in any case) moved to the front.

    Raises:
        OptionError: no name holds it.
    """
    if wanted is None:
        return list(candidates)
    fitting = [one for one in candidates if wanted.lower() in one.name.lower()]
    if not fitting:
        names = "; ".join(one.name for one in candidates)
        raise OptionError(f"no candidate is called {wanted!r}; there are: {names}")
    return [fitting[0], *(one for one in candidates if one is not fitting[0])]


def _openvino_candidate(path: Path, name: str) -> Candidate:
    def open_model(threads: int, streams: int) -> Engine:
        return OpenVinoEngine(path, OpenVinoOptions(threads=threads, streams=streams))

    def layers(batch: NDArray[np.generic], threads: int) -> TimedLayers:
        return profile_openvino(path, batch, threads)

    return Candidate(name, open_model, path, profile=layers)


def _onnxruntime_candidate(path: Path, stem: str, provider: Provider, device: int) -> Candidate:
    providers, on_gpu = DEVICES[provider.value], provider is not Provider.CPU

    def open_session(threads: int, streams: int) -> Engine:
        available = optional("onnxruntime", extra="onnxruntime", purpose="timing ONNX files").get_available_providers()
        if providers[0] not in available:
            raise MissingPackageError(
                f"this ONNX Runtime has no {providers[0]}; it offers {', '.join(available)}"
                f"{how_to_install(providers[0])}"
            )
        if on_gpu:
            find_device(device)
        return OnnxRuntimeEngine(path, OnnxRuntimeOptions(threads=threads, providers=providers, gpu=device))

    def layers(batch: NDArray[np.generic], threads: int) -> TimedLayers:
        return profile_onnxruntime(path, batch, threads, providers)

    suffix = {Provider.CPU: "", Provider.CUDA: " CUDA", Provider.TENSORRT: " TensorRT"}[provider]
    return Candidate(f"{stem}, {Backend.ONNXRUNTIME.label}{suffix}", open_session, path, profile=layers, on_gpu=on_gpu)


def _engine_candidate(path: Path, name: str, options: ArtifactOptions) -> Candidate:
    def options_for(streams: int) -> "TensorRTOptions":
        from ffnet_deploy.engines.tensorrt.runner import TensorRTOptions

        # TensorRT for RTX: general kernels, which run until those for a shape are compiled, are not what is timed
        return TensorRTOptions(options.trust_engine, options.cuda_graph, streams, options.device, wait_for_kernels=True)

    def open_engine(threads: int, streams: int) -> Engine:
        from ffnet_deploy.engines.tensorrt.runner import TensorRTEngine

        return TensorRTOnDevice(TensorRTEngine(path, options_for(streams)), options.device)

    def layers(batch: NDArray[np.generic], threads: int) -> TimedLayers:
        return profile_tensorrt(path, batch, options_for(1))

    return Candidate(name, open_engine, path, profile=layers, on_gpu=True)
