"""The PyTorch network in the forms that people run it in; PyTorch is imported when one is opened."""

import copy
import os
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.benchmark.contenders import Candidate, Open, ProfileLayers
from ffnet_deploy.benchmark.method import Step
from ffnet_deploy.benchmark.profiling import TimedLayers
from ffnet_deploy.core.contract import STRIDE, Contract, DimensionRange, InputKind, OutputKind
from ffnet_deploy.core.errors import MissingPackageError, OptionError
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.engine import check_batch

_ANY_SIDE = DimensionRange(STRIDE, 512, 1 << 14)
_ANY_BATCH = DimensionRange(1, 1, 1 << 10)


class TorchForm(str, Enum):
    """How PyTorch runs the network."""

    PUBLISHED = "published"
    """As published: training form, eager, float32."""
    REPARAMETERIZED = "reparameterized"
    """Branches and batch norms folded; eager, float32. All forms below start from it."""
    CHANNELS_LAST = "channels-last"
    """Tensors laid out (batch, height, width, channels) in memory."""
    AMP = "amp"
    """Automatic mixed precision: bfloat16 on a CPU, float16 on a GPU."""
    FP16 = "fp16"
    """Weights and activations in float16; on a GPU only."""
    COMPILED = "compiled"
    """`torch.compile`, for each input size by itself."""

    def precision(self, device: str) -> str:
        """What it computes in on `device`."""
        if self is TorchForm.AMP:
            return "bf16" if device.startswith("cpu") else "fp16"
        return "fp16" if self is TorchForm.FP16 else "fp32"


@dataclass(frozen=True)
class TorchSource:
    """The network that PyTorch runs.

    Attributes:
        config: name or file.
        checkpoint: file, ``"published"``, ``"bundled"``; None: random weights.
        device: PyTorch device.
        progress: told of the bytes of a download.
    """

    config: str
    checkpoint: str | None = None
    device: str = "cpu"
    progress: Progress = no_progress


def torch_candidates(source: TorchSource, forms: Sequence[TorchForm]) -> list[Candidate]:
    """One contender for each form; the network is read once for all."""

    @lru_cache(maxsize=1)
    def segmentor() -> Any:
        optional("mmseg", extra="convert", purpose="timing the PyTorch network")
        from ffnet_deploy.segmentor.load import open_segmentor

        return open_segmentor(source.config, source.checkpoint, source.progress)

    def opener(form: TorchForm) -> Open:
        return lambda threads, streams: TorchFormEngine(segmentor(), form, source.device, threads)

    def profiler(form: TorchForm) -> ProfileLayers | None:
        if form is TorchForm.COMPILED:  # what is compiled has no modules any more
            return None

        def layers(batch: NDArray[np.generic], threads: int) -> TimedLayers:
            from ffnet_deploy.benchmark.torch_profile import profile_torch

            with TorchFormEngine(segmentor(), form, source.device, threads) as engine:
                return profile_torch(engine, batch)

        return layers

    return [
        Candidate(
            f"PyTorch {form.value}",
            opener(form),
            precision=form.precision(source.device),
            profile=profiler(form),
            on_gpu=not source.device.startswith("cpu"),
        )
        for form in forms
    ]


class TorchFormEngine:
    """A segmentor run by PyTorch in one of its forms; an `Engine` and a `DeviceEngine`.

    Args:
        segmentor: `ffnet_deploy.segmentor.load.Segmentor`; it is left as it is.
        form: how it is run.
        device: PyTorch device.
        threads: CPU threads within a call, for the whole process; 0: as PyTorch chooses.

    Raises:
        OptionError: PyTorch has no such device, or the form does not run on it.
        MissingPackageError: PyTorch, or a compiler that the form needs, is not installed.
    """

    def __init__(self, segmentor: Any, form: TorchForm, device: str = "cpu", threads: int = 0) -> None:
        torch = optional("torch", extra="convert", purpose="timing the PyTorch network")
        _check_form(form, device)
        self._torch: ModuleType = torch
        self._form = form
        self.contract: Contract = segmentor.contract(height=_ANY_SIDE, width=_ANY_SIDE, batch=_ANY_BATCH)
        self.notes: tuple[str, ...] = segmentor.notes
        self.name = f"PyTorch {torch.__version__} ({device})"
        if threads:
            torch.set_num_threads(threads)
        try:
            self._device = torch.device(device)
            torch.empty(1, device=self._device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise OptionError(f"PyTorch cannot use the device {device!r}: {str(error).splitlines()[0]}") from error
        self.module: Any = _network(segmentor, form).to(self._device)
        if form is TorchForm.CHANNELS_LAST:
            self.module = self.module.to(memory_format=torch.channels_last)
        if form is TorchForm.FP16:
            self.module = self.module.half()
        whole = self._published if form is TorchForm.PUBLISHED else self.module
        self._call: Any = torch.compile(whole, dynamic=False) if form is TorchForm.COMPILED else whole

    def run(self, batch: NDArray[np.generic]) -> NDArray[np.generic]:
        """The logits of `batch`; shapes and types as `contract` says.

        Raises:
            OptionError: `batch` has a shape or type that the contract excludes.
        """
        check_batch(batch, self.contract)
        return np.asarray(self._logits(self.upload(batch)).float().cpu().numpy())

    @property
    def device_type(self) -> str:
        """``"cpu"``, ``"cuda"``, ..."""
        return str(self._device.type)

    def upload(self, batch: NDArray[np.generic]) -> Any:
        """`batch` as a tensor on the device, in the form's type."""
        image = self._torch.from_numpy(np.ascontiguousarray(batch)).to(self._device)
        return image.half() if self._form is TorchForm.FP16 else image

    def _logits(self, image: Any) -> Any:
        with self._torch.inference_mode(), self._precision():
            return self._call(image)

    def _published(self, image: Any) -> Any:
        return self.module.decode_head(self.module.backbone(image))

    def _precision(self) -> Any:
        if self._form is not TorchForm.AMP:
            return nullcontext()
        kind = self._device.type
        return self._torch.autocast(kind, self._torch.bfloat16 if kind == "cpu" else self._torch.float16)

    def device_step(self, batch: NDArray[np.generic], queue: int = 1) -> Step:
        """A call that runs the network on `batch`, copied to the device beforehand; see `DeviceEngine`."""
        image = self.upload(batch)
        return self._cuda_step(image, queue) if self.device_type == "cuda" else self._host_step(image, queue)

    def _host_step(self, image: Any, queue: int) -> Step:
        def step() -> None:
            for _ in range(queue):
                self._logits(image)

        return step

    def _cuda_step(self, image: Any, queue: int) -> Step:
        begin, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))

        def step() -> float:
            begin.record()
            for _ in range(queue):
                self._logits(image)
            end.record()
            end.synchronize()
            return float(begin.elapsed_time(end)) / queue

        return step

    def close(self) -> None:
        """Release the network; calling it twice is harmless."""
        self.module = self._call = None

    def __enter__(self) -> "TorchFormEngine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _network(segmentor: Any, form: TorchForm) -> Any:
    """The module that `form` runs; a copy, so that the segmentor stays as it is."""
    if form is TorchForm.PUBLISHED:
        return copy.deepcopy(segmentor.model).eval()
    # lazy: the conversion layer
    from ffnet_deploy.export.network import DeployedNetwork

    network = DeployedNetwork(segmentor.model, segmentor.config.normalization, InputKind.FLOAT, OutputKind.LOGITS)
    return network.eval()


def _check_form(form: TorchForm, device: str) -> None:
    if form is TorchForm.FP16 and device.startswith("cpu"):
        raise OptionError("PyTorch in float16 is for GPUs: on a CPU take --torch amp, or give --device cuda")
    compilers = [os.environ.get("CXX"), "g++", "c++", "clang++"]
    if form is TorchForm.COMPILED and not any(shutil.which(one) for one in compilers if one):
        raise MissingPackageError(
            "torch.compile needs a C++ compiler, and none is installed.\n  to do    apt-get install g++"
        )
