"""TensorRT: the engine that runs what was built for one GPU, from the host's memory or from the GPU's own."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.closing import Closing
from ffnet_deploy.core.errors import MissingPackageError, OptionError
from ffnet_deploy.core.optional import optional
from ffnet_deploy.engines.bundle import read_bundle
from ffnet_deploy.engines.cuda import Cuda
from ffnet_deploy.engines.engine import check_batch
from ffnet_deploy.engines.tensorrt.buffers import check_tensor, new_output
from ffnet_deploy.engines.tensorrt.context_pool import ContextPool, EngineFile, open_contexts
from ffnet_deploy.engines.tensorrt.diagnostics import LogCapture
from ffnet_deploy.engines.tensorrt.tensors import Shape
from ffnet_deploy.engines.tensorrt.variant import Variant, load


@dataclass(frozen=True)
class TensorRTOptions:
    """How an engine is run.

    Attributes:
        trust_engine: Whether an engine is run that this toolkit did not build; an engine is code.
        cuda_graph: Whether each shape's kernel launches are replayed as one CUDA graph, from its second batch in a row.
        contexts: Number of batches that run at once, for as many threads; each takes memory of its own.
        device: Number of the GPU.
        wait_for_kernels: TensorRT for RTX: let the first batch of a shape wait for the kernels made for it, instead of
            running general ones meanwhile; what is timed must not change on the way.
    """

    trust_engine: bool = False
    cuda_graph: bool = True
    contexts: int = 1
    device: int = 0
    wait_for_kernels: bool = False

    def __post_init__(self) -> None:
        if self.contexts < 1:
            raise OptionError(f"an engine needs at least one context: got {self.contexts}")
        if self.device < 0:
            raise OptionError(f"GPUs are numbered from 0: got {self.device}")


@dataclass(frozen=True)
class PinnedBatch:
    """One batch in page-locked memory, which the GPU reads and writes without a copy on the host.

    Attributes:
        input: Array to fill, as the contract says.
        output: Array that `run` fills.
        run: Function that copies the input up, computes and copies the output down; complete on return.
    """

    input: NDArray[np.generic]
    output: NDArray[np.generic]
    run: Callable[[], None]


class TensorRTEngine(Closing):
    """A built engine, ready to run; an `Engine`. All methods may be called from several threads.

    Raises:
        ArtifactError: the file is missing, damaged, not ours, or was built for another GPU or version.
        NoDeviceError: there is no CUDA device.
        MissingPackageError: TensorRT is not installed.
        CudaError: the GPU has no room for it.
    """

    def __init__(self, path: Path, options: TensorRTOptions | None = None) -> None:
        options = options or TensorRTOptions()
        bundle = read_bundle(path, options.trust_engine, options.device)
        self.path = path
        self.contract = bundle.contract
        self.precision = bundle.record
        self._cuda = Cuda(options.device)
        self._device = f"cuda:{options.device}"
        self.variant = bundle.variant
        trt = load(bundle.variant)
        self.name = f"{bundle.variant.label} {trt.__version__} ({self._cuda.device.name})"
        self._log = LogCapture(trt)
        for note in bundle.notes:
            self._log.add_note(note)
        if options.wait_for_kernels and bundle.variant is Variant.RTX:
            self._log.add_note("each shape runs the kernels made for it from its first batch on (wait_for_kernels)")
        file = EngineFile(path, bundle.plan, bundle.contract)
        try:
            self._pool = open_contexts(
                trt, self._cuda, file, options.contexts, options.cuda_graph, self._log, options.wait_for_kernels
            )
        except BaseException:
            self._log.close()
            raise
        self._tensors = self._pool.tensors
        self._checked_last: tuple[Shape, np.dtype[Any]] | None = None
        self._release = weakref.finalize(self, _release, self._pool, self._log)

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of its results, in words; more may come with the runs."""
        return self._log.notes

    def run(self, batch: NDArray[np.generic], out: NDArray[np.generic] | None = None) -> NDArray[np.generic]:
        """The network's output for `batch`; shapes and types as `contract` says.

        Args:
            batch: the network's input.
            out: array of the output's shape and type that takes it; None: a new array.

        Raises:
            OptionError: `batch` has a shape or type that the network or the engine does not accept, or it is closed.
            ArtifactError: the engine fails.
            CudaError: the GPU fails.
        """
        self._check(batch)
        with self._pool.context(batch.shape) as context:
            return context.run(batch, out)

    @contextmanager
    def pinned(self, shape: Shape) -> Iterator["PinnedBatch"]:
        """Page-locked input and output of one context, for a caller that fills and reads them itself.

        The block holds the context: fill `input`, call `run`, read `output`, as often as needed.

        Args:
            shape: of the input.

        Raises:
            As `run`.
        """
        self._tensors.check(shape)
        with self._pool.context(shape) as context:

            def run() -> None:
                self._cuda.use()  # the thread may be another than the one that entered the block
                context.round_trip()

            yield PinnedBatch(*context.pinned(shape, self._tensors.input_type), run)

    def run_stream(self, batches: Iterable[NDArray[np.generic]]) -> Iterator[NDArray[np.generic]]:
        """The outputs of `batches` in their order, with the copies of one batch during the computing of another.

        Takes two batches ahead of the output that it gives, and one context until it is finished or closed.

        Raises:
            As `run`.
        """
        checked = (self._checked(batch) for batch in batches)
        for first in checked:
            with self._pool.context(first.shape) as context:
                yield from context.run_stream(chain([first], checked))

    def run_device(self, tensor: Any, out: Any = None) -> Any:
        """The network's output for a tensor in GPU memory, in GPU memory, without a copy of either.

        Args:
            tensor: anything that offers ``__cuda_array_interface__``, PyTorch's tensors for instance; shape and type as
                `contract` says.
            out: where to write; None makes a tensor of the same kind, which works for PyTorch's.

        Returns:
            `out`, or the new tensor. PyTorch's are computed in the order of PyTorch's current stream and may not be
            complete on return, as is usual there.

        Raises:
            OptionError: a tensor has a wrong shape, type, layout or device, or the engine is closed.
            ArtifactError: the engine fails.
            CudaError: the GPU fails.
        """
        array = check_tensor(tensor, self._tensors.input_type, self._cuda)
        self._check(np.broadcast_to(np.zeros((), array.typestr), array.shape))
        results = [out]

        def address(shape: Shape) -> int:
            if out is None:
                results[0] = new_output(tensor, shape, self._tensors.output_type)
            return check_tensor(results[0], self._tensors.output_type, self._cuda, shape).address

        with self._pool.context(array.shape) as context:
            context.run_device(array, address)
        return results[0]

    @property
    def keeps_output(self) -> bool:
        """Whether PyTorch is installed and finds a GPU, so that its tensors can hold outputs."""
        try:
            torch = optional("torch", extra="convert", purpose="keeping outputs on the GPU")
        except MissingPackageError:
            return False
        return bool(torch.cuda.is_available())

    def run_on_device(self, batch: NDArray[np.generic]) -> Any:
        """What `run` gives, as a PyTorch tensor in GPU memory; see `run_device`.

        Raises:
            MissingPackageError: PyTorch is not installed.
            As `run`.
        """
        torch = optional("torch", extra="convert", purpose="keeping outputs on the GPU")
        return self.run_device(torch.from_numpy(np.ascontiguousarray(batch)).to(self._device))

    def device_times(self, batch: NDArray[np.generic], repeats: int = 100, warmup: int = 10) -> list[float]:
        """Milliseconds that the GPU computes `batch`, copies left out, for each of `repeats` runs queued in a row.

        Raises:
            As `run`.
        """
        if repeats < 1 or warmup < 0:
            raise OptionError(f"timing needs at least one repeat and no fewer than 0 before: got {repeats}, {warmup}")
        self._check(batch)
        with self._pool.context(batch.shape) as context:
            return context.time_device(batch, repeats, warmup)

    def attach_profiler(self, profiler: Any) -> None:
        """Report each layer's time of every run from now on to `profiler`, a TensorRT ``IProfiler``.

        For an engine with one context and without CUDA graphs; `profile.layer_times` opens one of its own.
        """
        with self._pool.context(self._tensors.profiles[0].least) as context:
            context.attach_profiler(profiler)

    def _checked(self, batch: NDArray[np.generic]) -> NDArray[np.generic]:
        self._check(batch)
        return batch

    def _check(self, batch: NDArray[np.generic]) -> None:
        checked = (batch.shape, batch.dtype)
        if checked != self._checked_last:
            check_batch(batch, self.contract)
            self._tensors.check(batch.shape)
            self._checked_last = checked
        self._log.trim()

    def close(self) -> None:
        """Release device memory once no thread runs any more; calling it twice is harmless."""
        self._release()


def _release(pool: ContextPool, log: LogCapture) -> None:
    pool.close()
    log.close()


def layer_times(
    path: Path, batch: NDArray[np.generic], repeats: int = 50, warmup: int = 5, options: TensorRTOptions | None = None
) -> dict[str, list[float]]:
    """Milliseconds of each layer, in the order of the engine, for each of `repeats` runs of `batch`.

    Profiling slows an engine down and hides CUDA graphs: the sum is more than the latency.

    Raises:
        As `TensorRTEngine` and its `run`.
    """
    times: dict[str, list[float]] = {}
    with TensorRTEngine(path, replace(options or TensorRTOptions(), contexts=1, cuda_graph=False)) as engine:
        engine.attach_profiler(_collector(load(engine.variant), times))
        for _ in range(warmup):
            engine.run(batch)
        times.clear()
        for _ in range(repeats):
            engine.run(batch)
    return times


def _collector(trt: Any, times: dict[str, list[float]]) -> Any:
    class Collector(trt.IProfiler):  # type: ignore[misc]  # the base is known only at run time
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times.setdefault(layer_name, []).append(float(ms))

    return Collector()
