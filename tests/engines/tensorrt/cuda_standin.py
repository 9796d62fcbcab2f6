# ruff: noqa: N802, N818
"""A recording stand-in of CUDA's Python bindings: real memory, streams that run as late as they are allowed to.

What is given to a stream waits in it until something must have it done: a missing wait therefore shows as a wrong
result. Every address that is read or written must lie in memory that is allocated at that moment.
"""

import ctypes
import threading
from collections import Counter, deque
from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import Any

Status = Enum(
    "Status",
    "cudaSuccess cudaErrorMemoryAllocation cudaErrorUnknown cudaErrorNoDevice cudaErrorInsufficientDriver "
    "cudaErrorStreamCaptureUnsupported cudaErrorStreamCaptureInvalidated cudaErrorIllegalAddress",
)


class Handle:
    """A stream, event or graph; `int` of it is its address."""

    def __init__(self, kind: str, number: int) -> None:
        self.kind, self.number = kind, number
        self.queue: deque[Op] = deque()
        self.captured: list[Callable[[], None]] | None = None
        self.spoilt = False
        self.thread = 0
        self.last: Op | None = None
        self.time = 0.0
        self.timing = False

    def __int__(self) -> int:
        return self.number

    def __repr__(self) -> str:
        return f"{self.kind}{self.number}"


class Op:
    """Work in a stream."""

    def __init__(self, stream: Handle, work: Callable[[], None]) -> None:
        self.stream, self.work, self.done = stream, work, False


class Refusal(Exception):
    def __init__(self, status: Status) -> None:
        self.status = status


class CudaStandIn:
    """Stands in the place of the module ``cuda.bindings.runtime``.

    Attributes:
        log: every call as (name, arguments), in order.
        live: what was created and not given back: kinds and their numbers.
        wrongs: what must not happen and did.
    """

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="up", cudaMemcpyDeviceToHost="down")  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal="thread-local")  # noqa: N815
    cudaStreamNonBlocking = 1  # noqa: N815
    cudaEventDisableTiming = 2  # noqa: N815

    def __init__(self, devices: int = 1, driver: int = 12040, capability: tuple[int, int] = (9, 0)) -> None:
        self.devices, self.driver, self.capability = devices, driver, capability
        self.log: list[tuple[str, tuple[Any, ...]]] = []
        self.wrongs: list[str] = []
        self.live: Counter[str] = Counter()
        self.clock = 0.0
        self.memory: dict[int, tuple[int, str, int, Any]] = {}
        self.streams: dict[int, Handle] = {}
        self.room = 1 << 40
        self.lock = threading.RLock()
        self._numbers = 1000
        self._failures: dict[str, tuple[int, Status]] = {}
        self._thread = threading.local()

    # what tests ask and tell

    def fail(self, name: str, after: int = 0, status: str = "cudaErrorUnknown") -> None:
        """Let the call of `name` that follows `after` successful ones fail, and all later ones."""
        self._failures[name] = (after, Status[status])

    def recover(self) -> None:
        """Let nothing fail any more."""
        self._failures.clear()

    def names(self, start: int = 0) -> list[str]:
        """Names of the calls since the call number `start`."""
        return [name for name, _ in self.log[start:]]

    def holds(self, address: int, size: int, kind: str) -> bool:
        return any(
            base <= address and address + size <= base + length and kind == what
            for base, (length, what, _, _) in self.memory.items()
        )

    @property
    def device(self) -> int:
        return getattr(self._thread, "device", 0)

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        implementation = getattr(type(self), f"_{name}", None)
        if not name.startswith("cuda") or implementation is None:
            raise AttributeError(name)

        def call(*arguments: Any) -> tuple[Any, ...]:
            with self.lock:
                self.log.append((name, arguments))
                try:
                    self._maybe_fail(name, arguments)
                    value = implementation(self, *arguments)
                except Refusal as refusal:
                    return (refusal.status, None)
                if value is None:
                    return (Status.cudaSuccess,)
                return (Status.cudaSuccess, *value) if isinstance(value, tuple) else (Status.cudaSuccess, value)

        return call

    def _maybe_fail(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name in self._failures:
            after, status = self._failures[name]
            self._failures[name] = (after - 1, status)
            if after <= 0:
                if name == "cudaStreamEndCapture":
                    arguments[0].captured = None  # a capture that fails to end is over all the same
                raise Refusal(status)

    # devices

    def _cudaDriverGetVersion(self) -> int:
        return self.driver

    def _cudaRuntimeGetVersion(self) -> int:
        return 12000

    def _cudaGetDeviceCount(self) -> int:
        if self.driver == 0 or self.driver < 12000:
            raise Refusal(Status.cudaErrorInsufficientDriver)
        if self.devices == 0:
            raise Refusal(Status.cudaErrorNoDevice)
        return self.devices

    def _cudaGetDeviceProperties(self, index: int) -> Any:
        major, minor = self.capability
        return SimpleNamespace(name=b"Stand-in GPU\0\0", major=major, minor=minor, totalGlobalMem=1 << 40)

    def _cudaSetDevice(self, index: int) -> None:
        self._thread.device = index

    def _cudaMemGetInfo(self) -> tuple[int, int]:
        return self.room, 1 << 40

    def _cudaGetErrorString(self, status: Status) -> bytes:
        return b"what CUDA says"

    def _cudaGetLastError(self) -> None:
        return None

    # memory

    def _cudaMalloc(self, size: int) -> int:
        self._forbid_while_capturing("cudaMalloc")
        return self._allocate(size, "device")

    def _cudaMallocHost(self, size: int) -> int:
        self._forbid_while_capturing("cudaMallocHost")
        return self._allocate(size, "pinned")

    def _allocate(self, size: int, kind: str) -> int:
        if size > self.room:
            raise Refusal(Status.cudaErrorMemoryAllocation)
        block = (ctypes.c_uint8 * (size + 256))(*b"\xcc" * min(size, 64))
        address = -(-ctypes.addressof(block) // 256) * 256
        self.memory[address] = (size, kind, self.device, block)
        self.room -= size
        self.live[kind] += 1
        return address

    def _cudaFree(self, address: int) -> None:
        self._release(address, "device")

    def _cudaFreeHost(self, address: int) -> None:
        self._release(address, "pinned")

    def _release(self, address: int, kind: str) -> None:
        if address not in self.memory or self.memory[address][1] != kind:
            self.wrongs.append(f"freeing {address} which is no {kind} memory")
            return
        self.room += self.memory.pop(address)[0]
        self.live[kind] -= 1

    def _cudaPointerGetAttributes(self, address: int) -> Any:
        found = [entry for base, entry in self.memory.items() if base <= address < base + entry[0]]
        return SimpleNamespace(device=found[0][2] if found and found[0][1] == "device" else -2)

    def _cudaMemcpyAsync(self, target: int, source: int, size: int, kind: str, stream: Any) -> None:
        ends = ("device", "pinned") if kind == "up" else ("pinned", "device")

        def work() -> None:
            for address, what in zip((target, source), ends, strict=True):
                if not self.holds(address, size, what):
                    self.wrongs.append(f"copying {kind} {size} bytes outside {what} memory")
                    return
            ctypes.memmove(target, source, size)

        self.enqueue(stream, work)

    # streams

    def enqueue(self, stream: Any, work: Callable[[], None]) -> Op:
        """Put `work` at the end of `stream`."""
        handle = self._stream(stream)
        op = Op(handle, work)
        if handle.captured is not None:
            handle.captured.append(work)
        else:
            handle.queue.append(op)
        return op

    def _stream(self, stream: Any) -> Handle:
        number = int(stream)
        if number not in self.streams:
            if number >= 1000:
                self.wrongs.append(f"stream {number} does not exist")
            self.streams[number] = Handle("stream", number)  # others' streams, PyTorch's for instance
        return self.streams[number]

    def is_capturing(self, stream: Any) -> bool:
        return self._stream(stream).captured is not None

    def spoil(self, stream: Any) -> None:
        """What happens when something that cannot be captured is given to a capturing stream."""
        self._stream(stream).spoilt = True

    def _create(self, kind: str) -> Handle:
        self._numbers += 1
        self.live[kind] += 1
        return Handle(kind, self._numbers)

    def _cudaStreamCreateWithFlags(self, flags: int) -> Handle:
        handle = self._create("stream")
        self.streams[handle.number] = handle
        return handle

    def _cudaStreamDestroy(self, stream: Handle) -> None:
        if stream.queue:
            self.wrongs.append("a stream is destroyed with work in it")
        del self.streams[stream.number]
        self.live["stream"] -= 1

    def _cudaStreamSynchronize(self, stream: Any) -> None:
        handle = self._stream(stream)
        if handle.captured is not None:
            handle.spoilt = True
            raise Refusal(Status.cudaErrorStreamCaptureUnsupported)
        while handle.queue:
            self._step(handle)

    def _step(self, handle: Handle) -> None:
        op = handle.queue[0]
        op.work()
        op.done = True
        handle.queue.popleft()

    def _finish(self, op: Op | None) -> None:
        while op is not None and not op.done:
            self._step(op.stream)

    # events

    def _cudaEventCreateWithFlags(self, flags: int) -> Handle:
        event = self._create("event")
        event.timing = not flags & self.cudaEventDisableTiming
        return event

    def _cudaEventDestroy(self, event: Handle) -> None:
        self.live["event"] -= 1

    def _cudaEventRecord(self, event: Handle, stream: Any) -> None:
        def work() -> None:
            event.time = self.clock

        event.last = self.enqueue(stream, work)

    def _cudaStreamWaitEvent(self, stream: Any, event: Handle, flags: int) -> None:
        awaited = event.last
        self.enqueue(stream, lambda: self._finish(awaited))

    def _cudaEventSynchronize(self, event: Handle) -> None:
        self._finish(event.last)

    def _cudaEventElapsedTime(self, begin: Handle, end: Handle) -> float:
        if not (begin.timing and end.timing):
            self.wrongs.append("elapsed time of events without timing")
        return end.time - begin.time

    # graphs

    def _forbid_while_capturing(self, name: str) -> None:
        me = threading.get_ident()  # other threads may: the capture is thread-local
        if any(stream.captured is not None and stream.thread == me for stream in self.streams.values()):
            self.wrongs.append(f"{name} during a capture")

    def _cudaStreamBeginCapture(self, stream: Handle, mode: str) -> None:
        if mode != "thread-local" or stream.captured is not None:
            self.wrongs.append(f"capture begun with {mode} on {stream}")
        stream.captured, stream.spoilt, stream.thread = [], False, threading.get_ident()

    def _cudaStreamEndCapture(self, stream: Handle) -> Handle:
        captured, stream.captured = stream.captured, None
        if stream.spoilt or captured is None:
            raise Refusal(Status.cudaErrorStreamCaptureInvalidated)
        graph = self._create("graph")
        graph.captured = captured
        return graph

    def _cudaGraphInstantiateWithFlags(self, graph: Handle, flags: int) -> Handle:
        executable = self._create("executable")
        executable.captured = graph.captured
        return executable

    def _cudaGraphDestroy(self, graph: Handle) -> None:
        self.live["graph"] -= 1

    def _cudaGraphExecDestroy(self, graph: Handle) -> None:
        self.live["executable"] -= 1

    def _cudaGraphLaunch(self, graph: Handle, stream: Any) -> None:
        for work in graph.captured or []:
            self.enqueue(stream, work)
