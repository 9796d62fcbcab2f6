"""PyTorch as an engine: the segmentor as published, or in one of the faster forms that people run it in.

PyTorch is imported when an engine is opened; the conversion layer when a form needs it.
"""

import copy
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.closing import Closing
from ffnet_deploy.core.contract import STRIDE, Contract, DimensionRange, InputKind, IOType, Normalization, OutputKind
from ffnet_deploy.core.errors import MissingPackageError, OptionError
from ffnet_deploy.core.label_maps import label_type
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.engine import check_batch

_ANY_SIDE = DimensionRange(STRIDE, 512, 1 << 14)
_ANY_BATCH = DimensionRange(1, 1, 1 << 10)
_MARK = "ffnet:"
"""Begins the names of the profiler's marks that are ours."""
_OPERATORS = {"Conv2d": "Conv", "Linear": "MatMul", "Upsample": "Resize"}
"""ONNX operators by the PyTorch modules that do the same."""


class TorchForm(str, Enum):
    """How PyTorch runs the network."""

    PUBLISHED = "published"
    """As published: training form, eager, float32."""
    REPARAMETERIZED = "reparameterized"
    """Branches and batch norms folded; eager, float32. All forms below start from it."""
    CHANNELS_LAST = "channels-last"
    """Tensors laid out (batch, height, width, channels) in memory, float32."""
    AMP = "amp"
    """Automatic mixed precision: bfloat16 on a CPU, float16 on a GPU."""
    COMPILED = "compiled"
    """`torch.compile` for each input size by itself, float32."""
    FP16 = "fp16"
    """Weights and activations in float16, channels last; on a GPU only, like all forms below."""
    CUDA_GRAPH = "cuda-graph"
    """As `FP16`, captured in a CUDA graph for each input shape."""
    COMPILED_FP16 = "compiled-fp16"
    """As `FP16`, by `torch.compile` with ``mode="max-autotune"``, for each input size by itself."""

    @property
    def is_half(self) -> bool:
        """Whether weights and activations are float16."""
        return self in (TorchForm.FP16, TorchForm.CUDA_GRAPH, TorchForm.COMPILED_FP16)

    @property
    def is_compiled(self) -> bool:
        """Whether `torch.compile` makes it; such a network has no modules that could be profiled."""
        return self in (TorchForm.COMPILED, TorchForm.COMPILED_FP16)

    def precision(self, device: str) -> str:
        """What it computes in on `device`."""
        if self is TorchForm.AMP:
            return "bf16" if device.startswith("cpu") else "fp16"
        return "fp16" if self.is_half else "fp32"


@dataclass(frozen=True)
class ModuleTime:
    """The time of one innermost module of an eager network.

    Attributes:
        name: Path of the module.
        operator: ONNX operator that does the same, or the module's class.
        milliseconds: Mean time per call.
        inputs: (shape, bytes per value) of each input, then of weight and bias.
        output: (shape, bytes per value).
    """

    name: str
    operator: str
    milliseconds: float
    inputs: tuple[tuple[tuple[int, ...], int], ...]
    output: tuple[tuple[int, ...], int]


class TorchEngine(Closing):
    """A segmentor run by PyTorch; an `Engine` that can also run on input in its device's memory.

    TF32 is switched off for the whole process, as in the TensorRT engines of this toolkit: convolutions in PyTorch
    would otherwise use it on recent GPUs and be compared with engines that do not.

    Args:
        model: mmseg `EncoderDecoder`; or a `ffnet_deploy.export.network.DeployedNetwork` from floats to logits, perhaps
            rewritten, for all forms but the published.
        contract: what the engine takes and gives, but that its floats are always float32.
        device: PyTorch device, for instance ``"cpu"`` or ``"cuda:0"``.
        notes: what to know of its results.
        form: how the network is run; all but `TorchForm.PUBLISHED` run a re-parameterised copy.
        threads: CPU threads within a call, for the whole process; 0: as PyTorch chooses.

    Raises:
        OptionError: PyTorch has no such device, or the form does not run on it.
        MissingPackageError: PyTorch, the conversion layer or a compiler that the form needs is not installed.
    """

    def __init__(
        self,
        model: Any,
        contract: Contract,
        device: str = "cpu",
        notes: tuple[str, ...] = (),
        form: TorchForm = TorchForm.PUBLISHED,
        threads: int = 0,
    ) -> None:
        torch = optional("torch", extra="convert", purpose="running a segmentor in PyTorch")
        _check_form(form, device)
        self._torch: ModuleType = torch
        self._form = form
        self.contract = replace(contract, io=IOType.FP32)
        self.notes = notes
        self.name = f"PyTorch {torch.__version__} ({device})"
        if threads:
            torch.set_num_threads(threads)
        try:
            self._device = torch.device(device)
            torch.empty(1, device=self._device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise OptionError(f"PyTorch cannot use the device {device!r}: {str(error).splitlines()[0]}") from error
        if self.device_type == "cuda":
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
            # times depend on it: without it cuDNN takes a convolution that is only likely to be fast
            torch.backends.cudnn.benchmark = form is not TorchForm.PUBLISHED
            self.notes += ("TF32 is off",)
        self._module: Any = self._made(model, form)
        self._call: Any = self._callable(form)

    @classmethod
    def from_config(
        cls,
        config: str,
        checkpoint: str | None = None,
        device: str = "cpu",
        progress: Progress = no_progress,
        cfg_options: Sequence[str] = (),
        refresh: bool = False,
    ) -> "TorchEngine":
        """The engine of a config and checkpoint, as published, with float input of any size and logits as output.

        Args:
            config: name or file.
            checkpoint: file, ``"published"``, ``"bundled"`` or ``"random"``; None for the bundled one.
            device: PyTorch device.
            progress: called with the bytes of a download.
            cfg_options: ``KEY=VALUE`` that change the config.
            refresh: download a published checkpoint anew.

        Raises:
            OptionError: a change cannot be read, does not fit the config, or PyTorch has no such device.
            ConfigError: the config cannot be found, read or built.
            CheckpointError: the checkpoint cannot be found, read or fitted.
            MissingPackageError: the conversion layer is not installed.
        """
        # lazy: the conversion layer
        from ffnet_deploy.segmentor.overrides import read_config
        from ffnet_deploy.segmentor.zoo import chosen_checkpoint

        choice = chosen_checkpoint(checkpoint, Path(config).stem)
        segmentor = open_torch_segmentor(read_config(config, cfg_options), choice, progress, refresh)
        return cls.from_segmentor(segmentor, device)

    @classmethod
    def from_segmentor(
        cls, segmentor: Any, device: str = "cpu", form: TorchForm = TorchForm.PUBLISHED, threads: int = 0
    ) -> "TorchEngine":
        """The engine of a `ffnet_deploy.segmentor.load.Segmentor`, with float input of any size and logits as output.

        Raises:
            OptionError: PyTorch has no such device, or the form does not run on it.
            MissingPackageError: a compiler that the form needs is not installed.
        """
        contract = segmentor.contract(height=_ANY_SIDE, width=_ANY_SIDE, batch=_ANY_BATCH)
        return cls(segmentor.model, contract, device, segmentor.notes, form, threads)

    def _made(self, model: Any, form: TorchForm) -> Any:
        """The module that `form` runs, on the device; the segmentor's weights stay as they are."""
        if form is TorchForm.PUBLISHED:
            # a module moves in place, and other forms are made from it on the CPU
            return (model if self.device_type == "cpu" else copy.deepcopy(model)).to(self._device).eval()
        # lazy: the conversion layer
        from ffnet_deploy.export.network import DeployedNetwork

        network: Any
        if isinstance(model, DeployedNetwork):
            network = copy.deepcopy(model)
        else:
            network = DeployedNetwork(model, self.contract.normalization, InputKind.FLOAT, OutputKind.LOGITS)
        network = network.eval().to(self._device)
        if form.is_half or form is TorchForm.CHANNELS_LAST:
            network = network.to(memory_format=self._torch.channels_last)
        return network.half() if form.is_half else network

    def _callable(self, form: TorchForm) -> Any:
        if form is TorchForm.COMPILED:
            return self._torch.compile(self._module, dynamic=False)
        if form is TorchForm.COMPILED_FP16:
            return self._torch.compile(self._module, dynamic=False, mode="max-autotune")
        if form is TorchForm.CUDA_GRAPH:
            return _CapturedNetwork(self._torch, self._module)
        return self._module

    def run(self, batch: NDArray[np.generic]) -> NDArray[np.generic]:
        """The network's output for `batch`; shapes and types as `contract` says.

        Raises:
            OptionError: `batch` has a shape or type that the contract excludes.
        """
        output = np.asarray(self.run_on_device(batch).cpu().numpy())
        if self.contract.output is OutputKind.LABELS:
            return output.astype(label_type(len(self.contract.classes)))
        return output

    def run_on_device(self, batch: NDArray[np.generic]) -> Any:
        """What `run` gives, as a tensor on the device; labels are int32.

        Raises:
            OptionError: `batch` has a shape or type that the contract excludes.
        """
        check_batch(batch, self.contract)
        with self._torch.inference_mode():
            image = self._torch.from_numpy(np.ascontiguousarray(batch)).to(self._device)
            if self.contract.input is not InputKind.FLOAT:
                image = self._normalized(image, self.contract.normalization)
            return self._finished(self._logits(self._cast(image)).float(), image.shape[2:])

    @property
    def keeps_output(self) -> bool:
        """Whether label maps are made on the device: not on a CPU, where skipping most of the work is faster."""
        return self.device_type != "cpu"

    @property
    def device_type(self) -> str:
        """``"cpu"``, ``"cuda"``, ..."""
        return str(self._device.type)

    def _cast(self, image: Any) -> Any:
        """`image` in the form's type and layout."""
        if self._form.is_half:
            image = image.half()
        if self._form.is_half or self._form is TorchForm.CHANNELS_LAST:
            image = image.contiguous(memory_format=self._torch.channels_last)
        return image

    def _logits(self, image: Any) -> Any:
        with self._torch.inference_mode(), self._autocast():
            return self._call(image)

    def _autocast(self) -> Any:
        if self._form is not TorchForm.AMP:
            return nullcontext()
        kind = self._device.type
        return self._torch.autocast(kind, self._torch.bfloat16 if kind == "cpu" else self._torch.float16)

    def _normalized(self, image: Any, normalization: Normalization) -> Any:
        """uint8 (batch, H, W, 3) in the contract's channel order to normalised RGB (batch, 3, H, W)."""
        rgb = image.flip(3) if self.contract.input is InputKind.BGR else image
        mean = self._torch.tensor(normalization.mean, device=image.device)
        std = self._torch.tensor(normalization.std, device=image.device)
        return ((rgb.float() - mean) / std).permute(0, 3, 1, 2).contiguous()

    def _finished(self, logits: Any, size: Any) -> Any:
        if self.contract.output is OutputKind.LOGITS:
            return logits
        interpolate = self._torch.nn.functional.interpolate
        enlarged = interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)
        if self.contract.output is OutputKind.LABELS:
            return enlarged.argmax(1).to(self._torch.int32)
        return enlarged.softmax(1)

    def device_step(self, batch: NDArray[np.generic], queue: int = 1) -> Callable[[], float | None]:
        """A call that runs the network on `batch`, copied to the device beforehand, `queue` times in a row.

        Returns:
            The call. It is complete when it returns, and gives the milliseconds of one run by the GPU's events; None
            on a CPU.
        """
        image = self._cast(self._torch.from_numpy(np.ascontiguousarray(batch)).to(self._device))
        if self.device_type != "cuda":

            def host_step() -> None:
                for _ in range(queue):
                    self._logits(image)

            return host_step
        begin, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))

        def step() -> float:
            begin.record()
            for _ in range(queue):
                self._logits(image)
            end.record()
            end.synchronize()
            return float(begin.elapsed_time(end)) / queue

        return step

    def layer_times(self, batch: NDArray[np.generic], warmup: int, runs: int) -> list[ModuleTime]:
        """The innermost modules of an eager network, as PyTorch's profiler times them.

        What functions do between modules (residual sums, concatenation) is in none of them and is left out.
        """
        torch = self._torch
        tensors: dict[str, tuple[Any, Any]] = {}
        step = self.device_step(batch)
        on_gpu = self.device_type == "cuda"
        activities = [torch.profiler.ProfilerActivity.CPU]
        activities += [torch.profiler.ProfilerActivity.CUDA] if on_gpu else []
        with self._marked(tensors):
            for _ in range(warmup):
                step()
            with torch.profiler.profile(activities=activities) as profiler:
                for _ in range(runs):
                    step()
        times = {
            event.key.removeprefix(_MARK): (event.device_time_total if on_gpu else event.cpu_time_total) / 1000 / runs
            for event in profiler.key_averages()
            if event.key.startswith(_MARK) and event.device_type == torch.autograd.DeviceType.CPU
        }
        kinds = {name: type(module).__name__ for name, module in self._module.named_modules()}
        return [
            ModuleTime(name, _OPERATORS.get(kinds[name], kinds[name]), times[name], *tensors[name])
            for name in tensors
            if name in times
        ]

    @contextmanager
    def _marked(self, tensors: dict[str, tuple[Any, Any]]) -> Iterator[None]:
        """Mark the work of every innermost module with its name while the block runs, and note its tensors."""
        torch = self._torch
        open_marks: list[Any] = []
        handles: list[Any] = []

        def size(tensor: Any) -> tuple[tuple[int, ...], int]:
            return tuple(tensor.shape), tensor.element_size()

        def before(name: str) -> Any:
            def enter(_module: Any, _inputs: Any) -> None:
                open_marks.append(torch.profiler.record_function(_MARK + name))
                open_marks[-1].__enter__()

            return enter

        def after(name: str) -> Any:
            def leave(layer: Any, inputs: Any, output: Any) -> None:
                open_marks.pop().__exit__(None, None, None)
                weights = (getattr(layer, kind, None) for kind in ("weight", "bias"))
                read = (*inputs, *(value for value in weights if value is not None))
                tensors.setdefault(name, (tuple(map(size, read)), size(output)))

            return leave

        for name, child in self._module.named_modules():
            if not any(child.children()):
                handles += [child.register_forward_pre_hook(before(name)), child.register_forward_hook(after(name))]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def close(self) -> None:
        """Release the network; calling it twice is harmless."""
        self._module = self._call = None


class _CapturedNetwork:
    """A network replayed from a CUDA graph, captured for each input shape when it first comes.

    Source: PyTorch documentation, "CUDA semantics", section "CUDA Graphs": warm up on a side stream, then capture.
    """

    def __init__(self, torch: ModuleType, network: Any) -> None:
        self._torch, self._network = torch, network
        self._captured: dict[tuple[int, ...], tuple[Any, Any, Any]] = {}

    def __call__(self, image: Any) -> Any:
        shape = tuple(image.shape)
        if shape not in self._captured:
            self._captured[shape] = self._capture(image)
        graph, given, out = self._captured[shape]
        if given.data_ptr() != image.data_ptr():
            given.copy_(image)
        graph.replay()
        return out

    def _capture(self, image: Any) -> tuple[Any, Any, Any]:
        torch = self._torch
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._network(image)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = self._network(image)
        return graph, image, out


def open_torch_segmentor(
    config: Any, checkpoint: str | Path | None, progress: Progress = no_progress, refresh: bool = False
) -> Any:
    """The `ffnet_deploy.segmentor.load.Segmentor` of a config (name, file or `SegmentorConfig`) and checkpoint.

    Raises:
        ConfigError: the config cannot be found, read or built.
        CheckpointError: the checkpoint cannot be found, read or fitted.
        MissingPackageError: the conversion layer is not installed.
    """
    optional("mmseg", extra="convert", purpose="the torch backend")
    from ffnet_deploy.segmentor.load import open_segmentor

    return open_segmentor(config, checkpoint, progress, refresh)


def _check_form(form: TorchForm, device: str) -> None:
    if form.is_half and device.startswith("cpu"):
        raise OptionError(
            f"PyTorch's form {form.value} computes in float16, which is for GPUs.\n"
            "  to do    take the form amp on a CPU, or choose a CUDA device"
        )
    compilers = [os.environ.get("CXX"), "g++", "c++", "clang++"]
    if form.is_compiled and not any(shutil.which(one) for one in compilers if one):
        raise MissingPackageError(
            "torch.compile needs a C++ compiler, and none is installed.\n  to do    apt-get install g++"
        )
