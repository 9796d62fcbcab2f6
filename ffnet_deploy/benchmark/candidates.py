"""What can be timed: artefacts on the runtimes that take them, and the PyTorch network in its forms."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
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
        name: by which it is told from the others.
        open: opens it; `MissingPackageError` and `NoDeviceError` mean that it cannot start here.
        artifact: its file, where it has one.
        precision: None: the engine tells.
        profile: times its layers for an input and a number of threads; None: nothing can.
        on_gpu: whether it computes on a GPU.
    """

    name: str
    open: Open
    artifact: Path | None = None
    precision: str | None = None
    profile: ProfileLayers | None = None
    on_gpu: bool = False


class Runtime(str, Enum):
    """What runs an ONNX file."""

    ONNXRUNTIME = "onnxruntime"
    ONNXRUNTIME_CUDA = "onnxruntime-cuda"
    ONNXRUNTIME_TENSORRT = "onnxruntime-tensorrt"
    OPENVINO = "openvino"

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU."""
        return self in (Runtime.ONNXRUNTIME_CUDA, Runtime.ONNXRUNTIME_TENSORRT)

    @property
    def label(self) -> str:
        """For people."""
        return {
            Runtime.ONNXRUNTIME: "ONNX Runtime",
            Runtime.ONNXRUNTIME_CUDA: "ONNX Runtime CUDA",
            Runtime.ONNXRUNTIME_TENSORRT: "ONNX Runtime TensorRT",
            Runtime.OPENVINO: "OpenVINO",
        }[self]


@dataclass(frozen=True)
class ArtifactOptions:
    """How artefacts are opened.

    Attributes:
        runtimes: for ONNX files, one candidate each.
        trust_engine: run TensorRT engines that no manifest vouches for.
        cuda_graph: let TensorRT engines launch a captured CUDA graph.
        device: number of the GPU.
    """

    runtimes: Sequence[Runtime] = (Runtime.ONNXRUNTIME,)
    trust_engine: bool = False
    cuda_graph: bool = True
    device: int = 0

    def __post_init__(self) -> None:
        if not self.runtimes:
            raise OptionError(f"name at least one runtime: {', '.join(runtime.value for runtime in Runtime)}")


def artifact_candidates(paths: Sequence[Path], options: ArtifactOptions) -> list[Candidate]:
    """The candidates of artefacts: an ONNX file once for each runtime, an engine once.

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
        return [
            Candidate(
                name=f"{name.removesuffix('.onnx')}, {runtime.label}",
                open=_opener(path, runtime, options),
                artifact=path,
                profile=_profiler(path, runtime),
                on_gpu=runtime.on_gpu,
            )
            for runtime in options.runtimes
        ]
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
        config: name, file, or a `ffnet_deploy.segmentor.config.SegmentorConfig`.
        checkpoint: file, ``"published"``, ``"bundled"``; None: random weights.
        device: PyTorch device.
        progress: called with the bytes of a download.
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


def _providers(runtime: Runtime) -> tuple[str, ...]:
    return DEVICES[runtime.value.partition("-")[2] or "cpu"]


def _profiler(path: Path, runtime: Runtime) -> ProfileLayers:
    if runtime is Runtime.OPENVINO:
        return lambda batch, threads: profile_openvino(path, batch, threads)
    return lambda batch, threads: profile_onnxruntime(path, batch, threads, _providers(runtime))


def _opener(path: Path, runtime: Runtime, options: ArtifactOptions) -> Open:
    if runtime is Runtime.OPENVINO:
        return lambda threads, streams: OpenVinoEngine(path, OpenVinoOptions(threads=threads, streams=streams))
    providers = _providers(runtime)

    def open_session(threads: int, streams: int) -> Engine:
        available = optional("onnxruntime", extra="onnxruntime", purpose="timing ONNX files").get_available_providers()
        if providers[0] not in available:
            raise MissingPackageError(
                f"this ONNX Runtime has no {providers[0]}; it offers {', '.join(available)}"
                f"{how_to_install(providers[0])}"
            )
        if runtime.on_gpu:
            find_device(options.device)
        return OnnxRuntimeEngine(path, OnnxRuntimeOptions(threads=threads, providers=providers, gpu=options.device))

    return open_session


def _engine_candidate(path: Path, name: str, options: ArtifactOptions) -> Candidate:
    def options_for(streams: int) -> "TensorRTOptions":
        from ffnet_deploy.engines.tensorrt.runner import TensorRTOptions

        return TensorRTOptions(options.trust_engine, options.cuda_graph, streams, options.device)

    def open_engine(threads: int, streams: int) -> Engine:
        from ffnet_deploy.engines.tensorrt.runner import TensorRTEngine

        return TensorRTOnDevice(TensorRTEngine(path, options_for(streams)), options.device)

    def layers(batch: NDArray[np.generic], threads: int) -> TimedLayers:
        return profile_tensorrt(path, batch, options_for(1))

    return Candidate(name, open_engine, path, profile=layers, on_gpu=True)
