"""What is run: an exported artefact or a config with its checkpoint, on the backend that fits it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.backend import Backend, Provider, backend_of, gpu_index
from ffnet_deploy.engines.engine import Engine

ENGINE_CACHE = Path("engines/onnxruntime")
"""Where ONNX Runtime's TensorRT provider keeps what it built, unless another folder is named."""

TAKES = {
    Backend.TORCH: "--config",
    Backend.ONNXRUNTIME: "--artifact FILE.onnx",
    Backend.OPENVINO: "--artifact FILE.onnx",
    Backend.TENSORRT: "--artifact FILE.engine",
    Backend.TENSORRT_RTX: "--artifact FILE.rtx.engine",
}
"""The options that name what each backend runs."""


def names_config(network: str | os.PathLike[str]) -> bool:
    """Whether `network` is the name or the file of a config; otherwise it is an artefact, by its suffix."""
    return Path(network).suffix in ("", ".py")


def check_weights(config: str | None, checkpoint: str | None, refresh: bool, cfg_options: Sequence[str]) -> None:
    """Raise `OptionError` for what is said of the weights or keys of a config that is not named."""
    if checkpoint is not None and config is None:
        raise OptionError("--checkpoint goes with --config; an artefact brings its own weights")
    if refresh and checkpoint != "published":
        raise OptionError("--refresh downloads anew: it goes with --checkpoint published")
    if cfg_options and config is None:
        raise OptionError("--cfg-options change a config: they go with --config")


@dataclass(frozen=True)
class RunOptions:
    """The weights of a network, and where it runs."""

    checkpoint: str | None = None
    """Weights of the config: a file, 'published', 'bundled' or 'random'. By default the bundled ones."""
    backend: Backend | None = None
    """What runs the network. By default PyTorch for a config, ONNX Runtime for a graph, TensorRT for an engine."""
    refresh: bool = False
    """With --checkpoint published: download it anew, whatever the cache holds."""
    cfg_options: tuple[str, ...] = ()
    """Change keys of the config, in mmengine's syntax, as model.decode_head.num_classes=19."""
    device: str | None = None
    """Where the network runs: cpu, cuda or cuda:N. By default the CPU, and for engines the first GPU."""
    provider: Provider | None = None
    """Execution provider of ONNX Runtime. By default the one that fits the device."""
    threads: int = 0
    """CPU threads of ONNX Runtime or OpenVINO; 0 takes all cores."""
    trust_engine: bool = False
    """Run an engine that this toolkit did not build. Engines are executable code."""
    engine_cache: Path | None = None
    """Folder of the engines that --provider tensorrt builds. By default engines/onnxruntime."""


@dataclass(frozen=True)
class Source(RunOptions):
    """Where the network comes from: an artefact, or a config with its weights; and where it runs."""

    artifact: Path | None = None
    """Exported graph or engine."""
    config: str | None = None
    """Config name, or a config file, in place of an artefact."""

    def __post_init__(self) -> None:
        if (self.artifact is None) == (self.config is None):
            raise OptionError("give either --artifact FILE (exported) or --config NAME [--checkpoint FILE]")
        check_weights(self.config, self.checkpoint, self.refresh, self.cfg_options)
        if self.backend is not None and self.backend is not self.fitting_backend:
            raise OptionError(f"--backend {self.backend.value} needs {TAKES[self.backend]}")
        if self.trust_engine and not self.fitting_backend.runs_engines:
            raise OptionError("--trust-engine is for engines; a graph or checkpoint needs none")
        if self.provider is not None and self.fitting_backend is not Backend.ONNXRUNTIME:
            raise OptionError("--provider is ONNX Runtime's: it goes with --backend onnxruntime")
        if self.engine_cache is not None and self.provider is not Provider.TENSORRT:
            raise OptionError("--engine-cache goes with --backend onnxruntime --provider tensorrt")
        if self.device is not None:
            self._check_device(self.device)

    def _check_device(self, device: str) -> None:
        if self.fitting_backend is Backend.OPENVINO:
            if device.lower().startswith("cuda"):
                raise OptionError(f"OpenVINO runs on cpu, or on devices of its own (gpu, npu), not {device!r}")
            return
        if self.fitting_backend.runs_engines or self.provider in (Provider.CUDA, Provider.TENSORRT):
            what = "engines run" if self.provider is None else f"the provider {self.provider.value} runs"
            if device.partition(":")[0] != "cuda" or gpu_index(device, what) is None:
                raise OptionError(f"{what} on cuda or cuda:N, not {device!r}")
            return
        gpu = gpu_index(device, "PyTorch" if self.artifact is None else "ONNX Runtime")
        if gpu is not None and self.provider is Provider.CPU:
            raise OptionError(f"the provider cpu runs on cpu, not {device!r}")

    @property
    def files(self) -> tuple[Path, ...]:
        """What it is read from, as far as it is named by a path."""
        named = (self.artifact, self.config and Path(self.config), self.checkpoint and Path(self.checkpoint))
        return tuple(path for path in named if path)

    @property
    def fitting_backend(self) -> Backend:
        """The backend that runs this source: by the artefact's kind, and of the two for graphs the one asked for."""
        own = backend_of(self.artifact)
        return Backend.OPENVINO if (own, self.backend) == (Backend.ONNXRUNTIME, Backend.OPENVINO) else own

    def open(self, progress: Progress = no_progress) -> Engine:
        """The engine of this source.

        Args:
            progress: called with the bytes of a checkpoint's download.

        Raises:
            FFNetDeployError: it cannot be opened.
        """
        if self.fitting_backend.runs_engines:
            return self._open_engine()
        if self.fitting_backend is Backend.OPENVINO:
            return self._open_openvino()
        return self._open_torch(progress) if self.artifact is None else self._open_onnx()

    def _open_openvino(self) -> Engine:
        # lazy: an optional package
        from ffnet_deploy.engines.openvino import OpenVinoEngine, OpenVinoOptions

        assert self.artifact is not None  # `fitting_backend` saw to it
        device = (self.device or "cpu").upper()
        return OpenVinoEngine(self.artifact, OpenVinoOptions(threads=self.threads, device=device))

    def _open_torch(self, progress: Progress) -> Engine:
        # read when PyTorch is loaded: threads that spin while they wait slow it down several times on a busy machine
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        # lazy: the torch engine belongs to the conversion layer
        from ffnet_deploy.engines.torch import TorchEngine

        assert self.config is not None  # `open` saw to it
        device = self.device or "cpu"
        return TorchEngine.from_config(self.config, self.checkpoint, device, progress, self.cfg_options, self.refresh)

    def _open_onnx(self) -> Engine:
        # lazy: a machine for engines alone need not have ONNX Runtime
        from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeOptions
        from ffnet_deploy.engines.onnxruntime_providers import DEVICES

        assert self.artifact is not None  # `open` saw to it
        gpu = None if self.device is None else gpu_index(self.device)
        provider = self.provider or (Provider.CPU if gpu is None else Provider.CUDA)
        cache = self.engine_cache or ENGINE_CACHE
        options = OnnxRuntimeOptions(
            threads=self.threads, providers=DEVICES[provider.value], gpu=gpu or 0, engine_cache=cache
        )
        return OnnxRuntimeEngine(self.artifact, options)

    def _open_engine(self) -> Engine:
        # lazy: only engines need CUDA and TensorRT
        from ffnet_deploy.engines.tensorrt.runner import TensorRTEngine, TensorRTOptions

        assert self.artifact is not None  # `open` saw to it
        options = TensorRTOptions(self.trust_engine, device=gpu_index(self.device or "cuda") or 0)
        return TensorRTEngine(self.artifact, options)
