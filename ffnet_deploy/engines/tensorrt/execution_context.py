"""One execution context with its streams, buffers and CUDA graphs: runs one batch after the other."""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.errors import ArtifactError, FFNetDeployError
from ffnet_deploy.engines.cuda import Cuda, CudaError, DeviceArray, Handle
from ffnet_deploy.engines.tensorrt.buffers import DeviceBuffer, PinnedBuffer
from ffnet_deploy.engines.tensorrt.diagnostics import LogCapture
from ffnet_deploy.engines.tensorrt.tensors import EngineTensors, Shape

_KEPT = 8
_REMEMBERED = 32


class CudaGraphs:
    """The captured launches of one execution context at its present shape.

    A key's first launch runs plainly, because TensorRT finishes what a new shape needs in the first run and that work
    must stay out of the graph; its second one is captured. When something cannot be captured, everything runs plainly
    from then on and `on_failure` is called with the reason. A graph holds addresses and shapes as they were: `clear` on
    a change. One that still runs ends afterwards.

    Args:
        cuda: the device.
        enabled: whether to capture at all.
        on_failure: called once with the reason in words.
    """

    def __init__(self, cuda: Cuda, enabled: bool, on_failure: Callable[[str], None]) -> None:
        self._cuda = cuda
        self.enabled = enabled
        self._on_failure = on_failure
        self._graphs: OrderedDict[Hashable, Handle] = OrderedDict()
        self._warm: deque[Hashable] = deque(maxlen=_REMEMBERED)

    def __len__(self) -> int:
        return len(self._graphs)

    def launch(
        self, key: Hashable, stream: Handle, enqueue: Callable[[Handle], None], on: Handle | None = None
    ) -> None:
        """Do what `enqueue` gives to a stream, by the graph of `key` where there is one.

        Args:
            key: of the work: what it reads and writes.
            stream: that is captured; and that the work runs in, unless `on` says otherwise.
            enqueue: gives the work to the stream it is called with.
            on: stream that the work runs in.

        Raises:
            CudaError: the GPU fails.
            ArtifactError: the engine fails.
        """
        if self.enabled and key not in self._graphs and key in self._warm:
            self._capture(key, stream, enqueue)
        if key in self._graphs:
            self._graphs.move_to_end(key)
            self._cuda.launch(self._graphs[key], stream if on is None else on)
            return
        enqueue(stream if on is None else on)
        if self.enabled and key not in self._warm:
            self._warm.append(key)

    def _capture(self, key: Hashable, stream: Handle, enqueue: Callable[[Handle], None]) -> None:
        try:
            with self._cuda.capture(stream) as captured:
                enqueue(stream)
        except FFNetDeployError as error:
            self.clear()
            self.enabled = False
            self._on_failure(f"runs without CUDA graphs: {str(error).splitlines()[0]}")
            return
        self._graphs[key] = captured[0]
        if len(self._graphs) > _KEPT:
            self._end(next(iter(self._graphs)))

    def holds(self, key: Hashable) -> bool:
        """Whether the next launch of `key` runs a graph."""
        return key in self._graphs or (self.enabled and key in self._warm)

    def clear(self) -> None:
        """End all graphs."""
        self._warm.clear()
        for key in list(self._graphs):
            self._end(key)

    def _end(self, key: Hashable) -> None:
        with suppress(CudaError):  # on a device that failed nothing can be released, and the rest must go on
            self._cuda.destroy_graph(self._graphs.pop(key))


_DEFAULT_STREAMS = (0, 1, 2)
"""Addresses of CUDA's default streams: the legacy one (also as 1) and each thread's."""
_IN_FLIGHT = 2
"""Batches on their way at once in a stream of batches: one computes while another is copied."""


@dataclass(frozen=True)
class _Slot:
    """Where one batch goes through: host, device, device, host; and the marks that its steps leave in the streams."""

    incoming: PinnedBuffer
    input: DeviceBuffer
    output: DeviceBuffer
    outgoing: PinnedBuffer
    uploaded: Handle
    computed: Handle
    downloaded: Handle

    @property
    def buffers(self) -> tuple[DeviceBuffer, ...]:
        return self.incoming, self.input, self.output, self.outgoing


@dataclass(frozen=True)
class _Job:
    """A batch on its way."""

    slot: _Slot
    output_shape: Shape


@dataclass(frozen=True)
class _Route:
    """The streams of the three steps: one for all, or one each so that batches overlap."""

    upload: Handle
    compute: Handle
    download: Handle


class ExecutionContext:
    """An execution context, used by one thread at a time.

    Args:
        cuda: the device.
        context: TensorRT's execution context; owned by this object.
        tensors: input and output of its engine.
        capture: whether to use CUDA graphs.
        log: called if CUDA graphs cannot be used, and asked for TensorRT's reasons.
    """

    def __init__(self, cuda: Cuda, context: Any, tensors: EngineTensors, capture: bool, log: LogCapture) -> None:
        self._cuda = cuda
        self._context = context
        self._tensors = tensors
        self._explain = log.explain
        self._graphs = CudaGraphs(cuda, capture, log.add_note)
        self._streams: list[Handle] = []
        self._events: list[Handle] = []
        self._slots: list[_Slot] = []
        self._addresses: tuple[int, int] | None = None
        self._output_shape: Shape = ()
        self._sizes = 0, 0
        self._caller: int | None = None
        """A caller's stream that the last batch was given to; `_done` marks its end there."""
        self.shape: Shape | None = None
        """Input shape that the context is set to."""
        self.profile = int(context.active_optimization_profile)
        """Index of its optimisation profile; -1 where it has none."""

    def open(self) -> None:
        """Create streams and events; `release` gives back what there is, also after a failure.

        Raises:
            CudaError: the GPU refuses.
        """
        for _ in range(3):
            self._streams.append(self._cuda.create_stream())
        for _ in range(_IN_FLIGHT):
            buffers = PinnedBuffer(self._cuda), DeviceBuffer(self._cuda), DeviceBuffer(self._cuda)
            self._slots.append(_Slot(*buffers, PinnedBuffer(self._cuda), *(self._event() for _ in range(3))))
        self._done = self._event()

    def _event(self, timing: bool = False) -> Handle:
        event = self._cuda.create_event(timing)
        self._events.append(event)
        return event

    @property
    def stream(self) -> Handle:
        """The stream that computes."""
        return self._streams[0]

    def choose_profile(self, index: int) -> bool:
        """Give the context the optimisation profile `index`; whether TensorRT agrees."""
        if self.profile == index:
            return True
        if not self._context.set_optimization_profile_async(index, int(self.stream)):
            return False
        self._settle()
        self.profile, self.shape, self._addresses = index, None, None
        self._graphs.clear()
        return True

    def run(self, batch: NDArray[np.generic], out: NDArray[np.generic] | None = None) -> NDArray[np.generic]:
        """The network's output for `batch`, copied up, computed and copied down.

        Args:
            batch: in any memory; in the pinned input itself it is not copied on the host.
            out: where to write the output; None: a new array.

        Raises:
            CudaError: the GPU fails.
            ArtifactError: the engine fails.
        """
        incoming, outgoing = self.pinned(batch.shape, batch.dtype)
        if batch is not incoming:
            np.copyto(incoming, batch)
        self.round_trip()
        if out is None:
            return np.array(outgoing)
        np.copyto(out, outgoing)
        return out

    def pinned(self, shape: Shape, dtype: np.dtype[Any]) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
        """The page-locked arrays that `round_trip` reads from and writes to, for inputs of `shape`.

        They are valid until the next call with another shape.
        """
        self._cuda.use()
        self._set_shape(shape)
        slot, size = self._slots[0], prod(shape) * dtype.itemsize
        output_size = prod(self._output_shape) * self._tensors.output_type.itemsize
        self._reserve(slot, size, output_size)
        self._sizes = size, output_size
        return slot.incoming.view(shape, dtype), slot.outgoing.view(self._output_shape, self._tensors.output_type)

    def round_trip(self) -> None:
        """Copy the pinned input up, compute, and copy the output down; complete on return.

        From the second time at one shape on, copies and kernels are one CUDA graph.
        """
        stream = self.stream
        try:
            self._follow_caller(stream)
            self._graphs.launch("round trip", stream, self._enqueue_round_trip)
            self._cuda.record(self._slots[0].downloaded, stream)
            self._cuda.wait_on_host(self._slots[0].downloaded)
        except BaseException:
            self.drain()
            raise

    def _enqueue_round_trip(self, stream: Handle) -> None:
        slot = self._slots[0]
        input_size, output_size = self._sizes
        self._cuda.upload(slot.input.address, slot.incoming.address, input_size, stream)
        self._enqueue(slot.input.address, slot.output.address, stream)
        self._cuda.download(slot.outgoing.address, slot.output.address, output_size, stream)

    def run_stream(self, batches: Iterable[NDArray[np.generic]]) -> Iterator[NDArray[np.generic]]:
        """The outputs of `batches` in their order; copies of one batch overlap with the computing of another.

        Raises:
            CudaError: the GPU fails.
            ArtifactError: the engine fails.
        """
        route = _Route(self._streams[1], self._streams[0], self._streams[2])
        free, jobs = deque(self._slots), deque[_Job]()
        try:
            for batch in batches:
                done = None
                if not free:
                    free.append(jobs[0].slot)
                    done = self._finish(jobs.popleft())
                jobs.append(self._start(free.popleft(), batch, route))
                if done is not None:
                    yield done
            while jobs:
                yield self._finish(jobs.popleft())
        finally:
            self.drain()

    def run_device(self, array: DeviceArray, output: Callable[[Shape], int]) -> None:
        """Compute from `array` into the memory that `output` gives for the output's shape.

        Where the array names the stream that writes it, all is in the order of that stream and this returns at once;
        otherwise the result is complete on return.

        Raises:
            CudaError: the GPU fails.
            ArtifactError: the engine fails.
        """
        self._cuda.use()
        self._set_shape(array.shape)
        addresses, caller = (array.address, output(self._output_shape)), array.stream
        if caller is None:
            self._compute(*addresses)
            self._cuda.synchronize(self.stream)
            return
        self._follow_caller(caller)
        if caller not in _DEFAULT_STREAMS or self._graphs.holds(addresses):
            self._graphs.launch(addresses, self.stream, lambda stream: self._enqueue(*addresses, stream), caller)
        else:  # TensorRT synchronises the device when it is given a default stream
            self._hand_over(caller, self.stream, self._slots[0].uploaded)
            self._compute(*addresses)
            self._hand_over(self.stream, caller, self._slots[0].computed)
        self._cuda.record(self._done, caller)
        self._caller = caller

    def _settle(self) -> None:
        """Wait until the context runs no batch."""
        self._cuda.synchronize(self.stream)
        if self._caller is not None:
            self._cuda.wait_on_host(self._done)
            self._caller = None

    def _follow_caller(self, stream: Handle) -> None:
        """Let `stream` wait for a last batch in a caller's stream: a context runs one at a time."""
        if self._caller is not None and stream != self._caller:
            self._cuda.wait_for(stream, self._done)
            self._caller = None

    def time_device(self, batch: NDArray[np.generic], repeats: int, warmup: int) -> list[float]:
        """Milliseconds that the GPU computes, by its own clock, for each of `repeats` launches in a row.

        Raises:
            CudaError: the GPU fails.
            ArtifactError: the engine fails.
        """
        self.run(batch)
        source, target = self._slots[0].input.address, self._slots[0].output.address
        kept = len(self._events)
        try:
            for _ in range(warmup):
                self._compute(source, target)
            pairs = [(self._event(timing=True), self._event(timing=True)) for _ in range(repeats)]
            for begin, end in pairs:
                self._cuda.record(begin, self.stream)
                self._compute(source, target)
                self._cuda.record(end, self.stream)
            self._cuda.synchronize(self.stream)
            return [self._cuda.elapsed(begin, end) for begin, end in pairs]
        finally:
            self.drain()
            while len(self._events) > kept:
                self._cuda.destroy_event(self._events.pop())

    def attach_profiler(self, profiler: Any) -> None:
        """Report the time of each layer of every run from now on to `profiler`; graphs end, since they hide layers."""
        self._graphs.clear()
        self._graphs.enabled = False
        self._context.profiler = profiler
        self._context.enqueue_emits_profile = True

    def _start(self, slot: _Slot, batch: NDArray[np.generic], route: _Route) -> _Job:
        """Give a batch to the streams; `slot` must be free, and is taken until `_finish`."""
        self._cuda.use()
        self._set_shape(batch.shape)
        job = _Job(slot, self._output_shape)
        output_size = prod(job.output_shape) * self._tensors.output_type.itemsize
        self._reserve(slot, batch.nbytes, output_size)
        np.copyto(slot.incoming.view(batch.shape, batch.dtype), batch)
        self._cuda.upload(slot.input.address, slot.incoming.address, batch.nbytes, route.upload)
        self._hand_over(route.upload, route.compute, slot.uploaded)
        self._compute(slot.input.address, slot.output.address)
        self._hand_over(route.compute, route.download, slot.computed)
        self._cuda.download(slot.outgoing.address, slot.output.address, output_size, route.download)
        self._cuda.record(slot.downloaded, route.download)
        return job

    def _finish(self, job: _Job) -> NDArray[np.generic]:
        self._cuda.wait_on_host(job.slot.downloaded)
        return np.array(job.slot.outgoing.view(job.output_shape, self._tensors.output_type))

    def _hand_over(self, before: Handle, after: Handle, mark: Handle) -> None:
        if before is not after:
            self._cuda.record(mark, before)
            self._cuda.wait_for(after, mark)

    def _reserve(self, slot: _Slot, input_size: int, output_size: int) -> None:
        # a slot that grows had another shape before, so that no graph holds its old addresses any more
        slot.incoming.reserve(input_size)
        slot.input.reserve(input_size)
        slot.output.reserve(output_size)
        slot.outgoing.reserve(output_size)

    def _set_shape(self, shape: Shape) -> None:
        """Make the context ready for inputs of `shape`."""
        if shape == self.shape:
            return
        self._settle()  # earlier batches may still read what a new shape rewrites
        self._graphs.clear()
        self.shape = None
        if not self._tensors.profiles[self.profile].holds(shape):
            self._switch_profile(shape)
        name = self._tensors.input
        if not self._context.set_input_shape(name, shape):
            raise ArtifactError(f"TensorRT refused the input shape {shape}: {self._explain()}")
        found = tuple(int(size) for size in self._context.get_tensor_shape(self._tensors.output))
        if min(found, default=-1) < 0:
            raise ArtifactError(f"TensorRT cannot tell the output's shape for the input {shape}: {self._explain()}")
        self.shape, self._output_shape = shape, found

    def _switch_profile(self, shape: Shape) -> None:
        fitting = [index for index, profile in enumerate(self._tensors.profiles) if profile.holds(shape)]
        if not any(self.choose_profile(index) for index in fitting):
            raise ArtifactError(f"no free optimisation profile accepts the input shape {shape}: {self._explain()}")

    def _compute(self, source: int, target: int) -> None:
        self._follow_caller(self.stream)
        self._graphs.launch((source, target), self.stream, lambda stream: self._enqueue(source, target, stream))

    def _enqueue(self, source: int, target: int, stream: Handle) -> None:
        if self._addresses != (source, target):
            self._addresses = None
            for name, address in ((self._tensors.input, source), (self._tensors.output, target)):
                if not self._context.set_tensor_address(name, address):
                    raise ArtifactError(f"TensorRT refused the memory for {name!r}: {self._explain()}")
            self._addresses = (source, target)
        if not self._context.execute_async_v3(int(stream)):
            raise ArtifactError(f"TensorRT failed on an input of shape {self.shape}: {self._explain()}")

    def drain(self) -> None:
        """Wait until nothing of this context runs any more, whatever came of it."""
        with suppress(CudaError):
            self._cuda.use()
        for stream in self._streams:
            with suppress(CudaError):
                self._cuda.synchronize(stream)
        if self._caller is not None:
            with suppress(CudaError):
                self._cuda.wait_on_host(self._done)
            self._caller = None

    def release_context(self) -> None:
        """End graphs and context, before their engine ends; calling it twice is harmless."""
        self.drain()
        self._graphs.clear()
        self._context = None

    def release(self) -> None:
        """Give back everything; calling it twice is harmless."""
        self.release_context()
        self.release_memory()

    def release_memory(self) -> None:
        """Give back buffers, events and streams, after the context; calling it twice is harmless."""
        for buffer in (buffer for slot in self._slots for buffer in slot.buffers):
            with suppress(CudaError):
                buffer.release()
        for event in self._events:
            with suppress(CudaError):
                self._cuda.destroy_event(event)
        for stream in self._streams:
            with suppress(CudaError):
                self._cuda.destroy_stream(stream)
        self._slots, self._events, self._streams = [], [], []
