"""How an engine is timed on the GPU alone, with stand-ins that record the order of what is asked of CUDA."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from ffnet_deploy.benchmark import steps
from ffnet_deploy.benchmark.bench import BenchOptions, bench
from ffnet_deploy.benchmark.candidates import Candidate
from ffnet_deploy.benchmark.record import TimingMethod, TimingScope
from ffnet_deploy.benchmark.steps import DeviceStep, PinnedStep, TensorRTOnDevice
from ffnet_deploy.benchmark.sweep import Grid
from ffnet_deploy.engines.cuda import CudaError, DeviceArray
from ffnet_deploy.engines.tensorrt.runner import PinnedBatch
from tests.benchmark.toy_picture import PICTURE
from tests.toy import ToyEngine, contract


class Recorder:
    """CUDA that does nothing and counts three milliseconds between any two events."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.lost = False
        self.next = 256

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            self.calls.append(name)
            if self.lost:
                raise CudaError("the device is gone", "cudaErrorDeviceUnavailable")
            self.next += 256
            return 3.0 if name == "elapsed" else self.next

        return call


class FakeEngine(ToyEngine):
    notes = ()

    def __init__(self, cuda: Recorder) -> None:
        super().__init__(contract())
        self.cuda = cuda
        self.arrays: list[tuple[DeviceArray, DeviceArray]] = []
        self.pinned_input = np.zeros(0, np.float32)
        self.held = 0

    @contextmanager
    def pinned(self, shape: tuple[int, ...]) -> Iterator[PinnedBatch]:
        self.held += 1
        self.pinned_input = np.full(shape, -1, np.float32)
        yield PinnedBatch(self.pinned_input, np.zeros(0), lambda: self.cuda.calls.append("round trip"))
        self.held -= 1

    def run_device(self, tensor: DeviceArray, out: DeviceArray) -> DeviceArray:
        self.arrays.append((tensor, out))
        self.cuda.calls.append("run")
        return out


BATCH = np.zeros((1, 3, 64, 96), np.float32)


def test_only_the_network_lies_between_the_events() -> None:
    cuda = Recorder()
    engine = FakeEngine(cuda)
    step = DeviceStep(engine, cuda, BATCH, queue=3)  # type: ignore[arg-type]
    cuda.calls.clear()
    assert step() == 1.0  # three milliseconds for three runs
    assert cuda.calls == ["record", "run", "run", "run", "record", "wait_on_host", "elapsed"]
    array, out = engine.arrays[0]
    assert (array.shape, out.shape, array.typestr) == ((1, 3, 64, 96), (1, 11, 16, 24), "<f4")
    assert array.stream == out.stream is not None
    assert array.address != out.address


def test_everything_is_given_back_even_when_the_device_is_gone() -> None:
    cuda = Recorder()
    step = DeviceStep(FakeEngine(cuda), cuda, BATCH, queue=1)  # type: ignore[arg-type]
    asked = [name for name in cuda.calls if name.startswith(("create", "allocate"))]
    assert sorted(asked) == ["allocate"] * 2 + ["create_event"] * 2 + ["create_stream"]
    cuda.calls.clear()
    cuda.lost = True
    step.close()
    given = [name for name in cuda.calls if name.startswith(("destroy", "free"))]
    assert sorted(given) == ["destroy_event"] * 2 + ["destroy_stream"] + ["free"] * 2


def test_copies_are_timed_from_and_to_pinned_memory_that_is_filled_beforehand() -> None:
    engine = FakeEngine(Recorder())
    step = PinnedStep(engine, BATCH + 7, queue=2)  # type: ignore[arg-type]
    assert (engine.pinned_input == 7).all() and engine.cuda.calls == []
    assert step() is None
    assert engine.cuda.calls == ["round trip"] * 2 and engine.held == 1
    step.close()
    assert engine.held == 0


@pytest.mark.parametrize((("scope", "on_device")), [(TimingScope.NETWORK, True), (TimingScope.DEVICE, False)])
def test_the_clock_decides_whether_copies_are_timed(
    scope: TimingScope, on_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = Recorder()
    engine = FakeEngine(cuda)
    monkeypatch.setattr(steps, "Cuda", lambda index: cuda)
    wrapped = TensorRTOnDevice(engine)  # type: ignore[arg-type]
    method = TimingMethod(scope, warmup_ms=0, warmup_runs=1, seconds=0, samples=6, rounds=6, settle_ms=0)
    candidate = Candidate("engine", lambda threads, streams: wrapped, on_gpu=True)
    run = bench([candidate], BenchOptions(Grid(sizes=((64, 96),)), PICTURE, method))
    (row,) = run.measurements
    assert bool(engine.arrays) is on_device
    assert (row.device_summary is not None) is on_device
    if on_device:
        assert row.device_summary is not None
        assert row.device_summary.median == 3.0
        assert cuda.calls[-1] == "destroy_stream"
    assert ("round trip" in cuda.calls) is not on_device and engine.held == 0
    assert run.candidates[0].notes == ()
    assert engine.closed == 1
