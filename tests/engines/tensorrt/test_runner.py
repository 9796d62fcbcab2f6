import gc
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ffnet_deploy.core.contract import Contract, DimensionRange, InputKind, IOType, OutputKind
from ffnet_deploy.core.errors import ArtifactError, FFNetDeployError, OptionError
from ffnet_deploy.core.precision import PrecisionRecord
from ffnet_deploy.engines.cuda import CudaError, NoDeviceError
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.engines.tensorrt.options import BuildOptions
from ffnet_deploy.engines.tensorrt.runner import TensorRTEngine
from tests.engines.bundles import write_bundle
from tests.engines.tensorrt.conftest import Opener
from tests.engines.tensorrt.cuda_standin import CudaStandIn
from tests.engines.tensorrt.trt_standin import DataType, TensorFormat, TrtStandIn, network
from tests.toy import contract, fixed

SMALL = contract(height=DimensionRange(32, 32, 96), width=DimensionRange(32, 32, 96))


def batch(size: tuple[int, int, int] = (1, 32, 64), seed: int = 0) -> np.ndarray:
    count, height, width = size
    return np.random.default_rng(seed).normal(size=(count, 3, height, width)).astype(np.float32)


def expected(images: np.ndarray, described: Contract | None = None) -> np.ndarray:
    return network(described or contract()).function(images)


def live(cuda: CudaStandIn) -> dict[str, int]:
    return {kind: count for kind, count in cuda.live.items() if count}


def test_a_batch_goes_up_is_computed_and_comes_down(start: Opener, cuda: CudaStandIn) -> None:
    with start() as engine:
        typed: Engine = engine
        first = len(cuda.log)
        images = batch((2, 32, 64))
        np.testing.assert_array_equal(typed.run(images), expected(images))
        order = [name for name in cuda.names(first) if name.startswith(("cudaMemcpy", "cudaEventSync"))]
        assert order == ["cudaMemcpyAsync", "cudaMemcpyAsync", "cudaEventSynchronize"]
        kinds = [arguments[2:4] for name, arguments in cuda.log if name == "cudaMemcpyAsync"]
        assert kinds == [(images.nbytes, "up"), (2 * 11 * 8 * 16 * 4, "down")]
        assert engine.name == "TensorRT 8.5.3 (Stand-in GPU)" and engine.notes == ()


def test_fp16_at_the_boundary_halves_the_copies(start: Opener, cuda: CudaStandIn) -> None:
    described = contract(io=IOType.FP16)
    with start(network(described)) as engine:
        images = batch((2, 32, 64)).astype(np.float16)
        found = engine.run(images)
        np.testing.assert_array_equal(found, expected(images, described))
        assert found.dtype == np.float16
        kinds = [arguments[2:4] for name, arguments in cuda.log if name == "cudaMemcpyAsync"]
        assert kinds == [(2 * 3 * 32 * 64 * 2, "up"), (2 * 11 * 8 * 16 * 2, "down")]
        with pytest.raises(OptionError, match="takes float16 images"):
            engine.run(batch())


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("set_input_shape", r"refused the input shape \(1, 3, 32, 64\): no such shape"),
        ("set_tensor_address", "refused the memory for 'image': no such address"),
    ],
)
def test_a_refusal_of_tensorrt_is_told_and_forgotten(start: Opener, trt: TrtStandIn, method: str, told: str) -> None:
    with start() as engine:
        trt.refused.add(method)
        for _ in range(2):
            with pytest.raises(ArtifactError, match=told):
                engine.run(batch())
        trt.refused.clear()
        np.testing.assert_array_equal(engine.run(batch()), expected(batch()))


def test_copies_and_kernels_of_a_repeated_batch_are_one_graph(start: Opener, cuda: CudaStandIn) -> None:
    with start() as engine:
        for seed in range(4):
            np.testing.assert_array_equal(engine.run(batch(seed=seed)), expected(batch(seed=seed)))
        before = len(cuda.log)
        engine.run(batch())
        assert cuda.names(before) == ["cudaSetDevice", "cudaGraphLaunch", "cudaEventRecord", "cudaEventSynchronize"]


def test_the_output_goes_where_the_caller_wants_it(start: Opener) -> None:
    with start() as engine:
        out = np.empty((1, 11, 8, 16), np.float32)
        assert engine.run(batch(), out=out) is out
        np.testing.assert_array_equal(out, expected(batch()))


def test_a_caller_fills_and_reads_the_pinned_memory_itself(start: Opener, cuda: CudaStandIn) -> None:
    with start() as engine:
        with engine.pinned((1, 3, 32, 64)) as pinned:
            for seed in range(4):
                pinned.input[...] = batch(seed=seed)
                pinned.run()
                np.testing.assert_array_equal(pinned.output, expected(batch(seed=seed)))
            with pytest.raises(OptionError, match="in use"):
                engine.run(batch())
        np.testing.assert_array_equal(engine.run(batch(seed=9)), expected(batch(seed=9)))
        with pytest.raises(OptionError, match=r"width of 32\.\.256"), engine.pinned((1, 3, 32, 288)):
            pass


def test_only_one_byte_per_pixel_of_a_label_map_leaves_the_gpu(start: Opener, cuda: CudaStandIn) -> None:
    described = contract(input=InputKind.BGR, output=OutputKind.LABELS)
    image = np.random.default_rng(0).integers(0, 255, (1, 64, 96, 3)).astype(np.uint8)
    made = network(described)
    made.function = lambda images: images[..., 0] // 32
    with start(made) as engine:
        labels = engine.run(image)
    np.testing.assert_array_equal(labels, image[..., 0] // 32)
    down = [arguments[2] for name, arguments in cuda.log if name == "cudaMemcpyAsync" and arguments[3] == "down"]
    assert down == [64 * 96] and labels.dtype == np.uint8


def test_memory_grows_with_the_largest_batch_and_is_kept(start: Opener, cuda: CudaStandIn) -> None:
    def allocations() -> int:
        return sum(name in ("cudaMalloc", "cudaMallocHost") for name, _ in cuda.log)

    with start() as engine:
        counts = []
        for size in [(1, 64, 96), (1, 32, 32), (4, 32, 32), (4, 64, 96), (1, 64, 96), (4, 32, 96)]:
            images = batch(size)
            np.testing.assert_array_equal(engine.run(images), expected(images))
            counts.append(allocations())
        assert counts == [4, 4, 4, 8, 8, 8]
        assert cuda.live["device"] == 2 and cuda.live["pinned"] == 2


def test_arrays_of_any_memory_order_are_taken_and_results_stay(start: Opener) -> None:
    with start() as engine:
        images = np.asfortranarray(batch((2, 32, 64)))
        first = engine.run(images)
        kept = first.copy()
        engine.run(batch((2, 32, 64), seed=1))
        np.testing.assert_array_equal(first, kept)
        np.testing.assert_array_equal(kept, expected(images))


def test_a_stream_of_batches_overlaps_and_keeps_their_order(start: Opener, cuda: CudaStandIn) -> None:
    sizes = [(1, 32, 64)] * 5 + [(2, 64, 64), (1, 32, 32), (4, 64, 96), (4, 64, 96), (4, 64, 96)]
    batches = [batch(size, seed) for seed, size in enumerate(sizes)]
    with start() as engine:
        found = list(engine.run_stream(iter(batches)))
        assert list(engine.run_stream([])) == []
    for one, images in zip(found, batches, strict=True):
        np.testing.assert_array_equal(one, expected(images))
    copies = [arguments for name, arguments in cuda.log if name == "cudaMemcpyAsync"]
    assert len({int(arguments[4]) for arguments in copies}) == 2, "uploads and downloads share a stream"


def test_a_stream_starts_the_next_batch_before_it_gives_the_last_result(start: Opener) -> None:
    asked = []

    def batches():
        for index in range(4):
            asked.append(index)
            yield batch(seed=index)

    with start() as engine:
        stream = engine.run_stream(batches())
        next(stream)
        assert asked == [0, 1, 2]
        stream.close()
        for size in [(4, 64, 96), (1, 32, 64)]:
            np.testing.assert_array_equal(engine.run(batch(size)), expected(batch(size)))


def test_the_second_batch_of_a_shape_is_a_graph(start: Opener, cuda: CudaStandIn, trt: TrtStandIn) -> None:
    with start() as engine:
        for seed in range(5):
            images = batch(seed=seed)
            np.testing.assert_array_equal(engine.run(images), expected(images))
        assert trt.events.count("execute") == 1 and trt.events.count("capture") == 1
        assert cuda.names().count("cudaGraphLaunch") == 4
        for size in [(1, 64, 64), (1, 64, 64), (1, 32, 64), (1, 64, 64), (1, 64, 64)]:
            images = batch(size)
            np.testing.assert_array_equal(engine.run(images), expected(images))
        assert cuda.live["executable"] == 1, "a graph of another shape is kept"
        assert engine.notes == ()


def test_both_batches_of_a_stream_get_a_graph(start: Opener, cuda: CudaStandIn) -> None:
    batches = [batch(seed=seed) for seed in range(9)]
    with start() as engine:
        for one, images in zip(engine.run_stream(batches), batches, strict=True):
            np.testing.assert_array_equal(one, expected(images))
        assert cuda.live["executable"] == 2
        assert cuda.names().count("cudaGraphLaunch") == 7


def test_memory_that_grows_takes_its_graphs_with_it(start: Opener, cuda: CudaStandIn) -> None:
    with start() as engine:
        for _ in range(3):
            engine.run(batch((1, 32, 32)))
        for size in [(4, 64, 64), (1, 32, 32), (1, 32, 32), (1, 32, 32)]:
            np.testing.assert_array_equal(engine.run(batch(size)), expected(batch(size)))


def test_graphs_can_be_left_out(start: Opener, cuda: CudaStandIn) -> None:
    with start(cuda_graph=False) as engine:
        for _ in range(4):
            engine.run(batch())
    assert "cudaStreamBeginCapture" not in cuda.names()


@pytest.mark.parametrize("call", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiateWithFlags"])
def test_a_capture_that_fails_is_said_and_the_engine_runs_on(start: Opener, cuda: CudaStandIn, call: str) -> None:
    cuda.fail(call)
    with start() as engine:
        for seed in range(4):
            images = batch(seed=seed)
            np.testing.assert_array_equal(engine.run(images), expected(images))
        assert engine.notes == (f"runs without CUDA graphs: the GPU refused {call}: what CUDA says (cudaErrorUnknown)",)
        assert cuda.names().count("cudaStreamBeginCapture") == 1
    assert live(cuda) == {}


def test_an_engine_that_cannot_be_captured_says_why(start: Opener, cuda: CudaStandIn, trt: TrtStandIn) -> None:
    trt.capturable = False
    with start() as engine:
        for seed in range(4):
            images = batch(seed=seed)
            np.testing.assert_array_equal(engine.run(images), expected(images))
        assert len(engine.notes) == 1 and "not permitted when stream is capturing" in engine.notes[0]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (batch((5, 32, 64)), r"batch of 1\.\.4, not 5"),
        (batch((1, 288, 64)), r"height of 32\.\.256, not 288"),
        (batch((1, 32, 16)), r"width of 32\.\.256, not 16"),
        (batch((1, 32, 33)), "width 33 is not a multiple of 32"),
        (batch().astype(np.float64), "takes float32 images"),
        ((batch() * 9).astype(np.uint8), "takes float32 images"),
        (batch().transpose(0, 2, 3, 1), "channels of 3, not 32"),
        (batch()[0], "not shape"),
    ],
)
def test_wrong_input_names_what_is_wrong(start: Opener, cuda: CudaStandIn, images: np.ndarray, message: str) -> None:
    with start() as engine:
        before = len(cuda.log)
        with pytest.raises(OptionError, match=message):
            engine.run(images)
        with pytest.raises(OptionError, match=message):
            list(engine.run_stream([images]))
        assert len(cuda.log) == before, "the GPU was asked"


def test_an_engine_narrower_than_its_description_names_dimension_and_range(start: Opener) -> None:
    made = network(contract(), profiles=[((1, 3, 32, 32), (2, 3, 64, 96))])
    with start(made) as engine, pytest.raises(OptionError, match=r"built for a height of 32\.\.64, not 96"):
        engine.run(batch((1, 96, 64)))


def test_shapes_find_the_profile_that_accepts_them(start: Opener) -> None:
    profiles = [((1, 3, 32, 32), (1, 3, 64, 64)), ((2, 3, 96, 96), (4, 3, 256, 256))]
    with start(network(contract(), profiles=profiles)) as engine:
        for size in [(1, 32, 32), (2, 96, 128), (2, 96, 128), (1, 64, 64), (4, 256, 256)]:
            np.testing.assert_array_equal(engine.run(batch(size)), expected(batch(size)))
        with pytest.raises(OptionError, match=r"none of the engine's profiles .*\(2\.\.4\)x3x\(96\.\.256\)"):
            engine.run(batch((1, 96, 96)))


@pytest.mark.parametrize("shares", [True, False])
def test_several_threads_get_their_own_results(start: Opener, cuda: CudaStandIn, trt: TrtStandIn, shares: bool) -> None:
    trt.shares_profiles = shares
    with start(network(SMALL), contexts=3) as engine:

        def work(seed: int) -> None:
            images = batch((1 + seed % 3, 32, 32 + 32 * (seed % 2)), seed)
            np.testing.assert_array_equal(engine.run(images), expected(images, SMALL))

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(work, range(120)))
        assert engine.notes == (() if shares else ("runs 1 of 3 contexts: no further one could be made",))
    assert live(cuda) == {}


def test_a_context_at_the_shape_already_is_taken_first(start: Opener, cuda: CudaStandIn, trt: TrtStandIn) -> None:
    with start(contexts=2) as engine:
        for _ in range(6):
            for size in [(1, 32, 32), (1, 64, 64)]:
                np.testing.assert_array_equal(engine.run(batch(size)), expected(batch(size)))
        assert trt.events.count("execute") == 2 and trt.events.count("capture") == 2
        assert cuda.names().count("cudaGraphLaunch") == 10


def test_contexts_beyond_the_gpus_room_are_said(start: Opener, trt: TrtStandIn) -> None:
    trt.contexts_at_most = 2
    with start(contexts=5) as engine:
        assert engine.notes == ("runs 2 of 5 contexts: no further one could be made",)
    trt.contexts_at_most = 0
    with pytest.raises(ArtifactError, match="out of memory"):
        start()


def test_a_thread_that_would_wait_for_itself_is_told(start: Opener) -> None:
    with start() as engine:
        stream = engine.run_stream(batch() for _ in range(4))
        next(stream)
        with pytest.raises(OptionError, match="unfinished streams of this thread"):
            engine.run(batch())
        stream.close()
        engine.run(batch())


def test_everything_is_released_in_order_and_once(start: Opener, cuda: CudaStandIn, trt: TrtStandIn) -> None:
    engine = start(contexts=2)
    for seed in range(3):
        engine.run(batch(seed=seed))
    list(engine.run_stream([batch()] * 5))
    before = len(cuda.log)
    engine.close()
    interesting = ["cudaGraphExecDestroy", "cudaFree", "cudaFreeHost"]
    after = [name for name in cuda.names(before) if name.startswith("release") or name in interesting]
    assert after[:4] == ["release IExecutionContext", *["cudaGraphExecDestroy"] * 3], "copies and two streamed slots"
    assert after[4:7] == ["release IExecutionContext", "release ICudaEngine", "release Runtime"]
    assert sorted(after[7:]) == ["cudaFree"] * 4 + ["cudaFreeHost"] * 4
    assert live(cuda) == {} and cuda.memory == {}
    calls = len(cuda.log)
    engine.close()
    assert len(cuda.log) == calls
    for run in (lambda: engine.run(batch()), lambda: list(engine.run_stream([batch()]))):
        with pytest.raises(OptionError, match=r"toy\.engine is closed"):
            run()


def test_an_engine_that_nobody_closes_is_released_with_its_last_reference(start: Opener, cuda: CudaStandIn) -> None:
    engine = start()
    engine.run(batch())
    del engine
    gc.collect()
    assert live(cuda) == {}


def test_closing_waits_for_what_runs(start: Opener, cuda: CudaStandIn) -> None:
    engine = start()
    stream = engine.run_stream(batch(seed=seed) for seed in range(5))
    first = next(stream)
    engine.close()
    assert cuda.live["device"] > 0, "memory was freed under a running stream"
    rest = list(stream)
    np.testing.assert_array_equal([first, *rest], [expected(batch(seed=seed)) for seed in range(5)])
    assert live(cuda) == {}


CALLS = [
    "cudaSetDevice",
    "cudaStreamCreateWithFlags",
    "cudaEventCreateWithFlags",
    "cudaMalloc",
    "cudaMallocHost",
    "cudaMemcpyAsync",
    "cudaEventRecord",
    "cudaEventSynchronize",
    "cudaStreamSynchronize",
    "cudaGraphLaunch",
    "cudaStreamWaitEvent",
]


@pytest.mark.parametrize("call", CALLS)
def test_every_failing_call_is_one_error_and_nothing_leaks(start: Opener, cuda: CudaStandIn, call: str) -> None:
    failures = 0
    for after in range(12):
        cuda.fail(call, after)
        try:
            with start(contexts=2) as engine:
                for seed in range(4):
                    engine.run(batch((1, 32, 32 + 32 * (seed // 2)), seed=seed))
                list(engine.run_stream([batch(seed=seed) for seed in range(4)]))
        except CudaError as error:
            failures += 1
            assert call in str(error) and error.status == "cudaErrorUnknown"
        cuda.recover()
        assert live(cuda) == {}, f"{call} failing after {after} calls"
    assert failures > 0


@pytest.mark.parametrize("call", ["cudaMalloc", "cudaMallocHost", "cudaMemcpyAsync", "cudaEventSynchronize"])
def test_an_engine_runs_on_after_a_failure_that_passes(start: Opener, cuda: CudaStandIn, call: str) -> None:
    with start() as engine:
        engine.run(batch())
        cuda.fail(call)
        with pytest.raises(CudaError):
            engine.run(batch((2, 64, 64)))
        cuda.recover()
        for size in [(2, 64, 64), (1, 32, 32), (2, 64, 64)]:
            np.testing.assert_array_equal(engine.run(batch(size)), expected(batch(size)))


def test_full_memory_says_how_much_was_wanted_and_what_to_do(start: Opener, cuda: CudaStandIn) -> None:
    with start() as engine:
        cuda.room = 100 << 10
        with pytest.raises(
            CudaError, match=r"(?s)no room for 0\.8 MiB \(0 MiB of \d+ free|left for 0\.8 MiB"
        ) as caught:
            engine.run(batch((4, 128, 128)))
        assert "to do    use smaller batches" in str(caught.value)


def test_an_engine_that_fails_says_why(start: Opener, cuda: CudaStandIn, trt: TrtStandIn) -> None:
    with start() as engine:
        engine.run(batch())
        trt.failing = True
        with pytest.raises(ArtifactError, match=r"failed on an input of shape .*: the engine came to harm"):
            engine.run(batch((1, 64, 64)))
        trt.failing = False
        np.testing.assert_array_equal(engine.run(batch((1, 64, 64))), expected(batch((1, 64, 64))))


def test_a_plan_that_cannot_be_loaded_is_one_error(start: Opener, cuda: CudaStandIn) -> None:
    with pytest.raises(ArtifactError, match=r"(?s)cannot load .*toy\.engine: .*cut short.*ffnet-export"):
        start(plan=b"half a plan")
    assert live(cuda) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_name": "other"}, r"outputs \['other'\]; expected \['image'\] and \['logits'\]"),
        ({"output_type": DataType.HALF}, "'logits' .* is .*HALF; expected float32"),
        ({"input_type": DataType.UINT8}, "'image' .* is .*UINT8; expected float32"),
        ({"layout": TensorFormat.CHW32}, "laid out as .*CHW32; expected LINEAR"),
    ],
)
def test_an_engine_unlike_its_description_is_refused(
    start: Opener, cuda: CudaStandIn, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        start(network(contract(), **changes))
    assert live(cuda) == {}


def test_ten_thousand_runs_leave_nothing_behind(start: Opener, cuda: CudaStandIn) -> None:
    tiny = contract(**fixed(32, 32), output=OutputKind.LABELS)
    made = network(tiny)
    result = np.zeros((1, 32, 32), np.uint8)
    made.function = lambda images: result
    image = batch((1, 32, 32))
    with start(made) as engine:
        for _ in range(3):
            engine.run(image)
        after_three = live(cuda)
        for _ in range(10_000):
            engine.run(image)
            cuda.log.clear()
        assert live(cuda) == after_three
        assert sum(len(stream.queue) for stream in cuda.streams.values()) == 0
    assert live(cuda) == {}


def test_the_device_is_chosen_in_every_thread(start: Opener, cuda: CudaStandIn) -> None:
    cuda.devices = 2
    with start(device=1, contexts=2) as engine, ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda seed: engine.run(batch(seed=seed)), range(8)))
        assert {device for _, _, device, _ in cuda.memory.values()} == {1}


@pytest.mark.parametrize(
    ("options", "message"), [({"contexts": 0}, "at least one context"), ({"device": -1}, "from 0")]
)
def test_options_that_cannot_be_are_refused(start: Opener, options: dict[str, int], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        start(**options)


def test_times_are_the_gpus(start: Opener, cuda: CudaStandIn) -> None:
    with start() as engine:
        assert engine.device_times(batch(), repeats=7, warmup=2) == [0.5] * 7
        assert cuda.live["event"] == 7
        with pytest.raises(OptionError, match="at least one repeat"):
            engine.device_times(batch(), repeats=0)
        cuda.fail("cudaEventCreateWithFlags", 3)
        with pytest.raises(CudaError):
            engine.device_times(batch())
        assert cuda.live["event"] == 7


def test_waiting_threads_wake_when_the_engine_closes(start: Opener) -> None:
    engine = start()
    stream = engine.run_stream(batch() for _ in range(4))
    next(stream)
    errors: list[FFNetDeployError] = []

    def wait() -> None:
        try:
            engine.run(batch())
        except FFNetDeployError as error:
            errors.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    engine.close()
    waiting.join(10)
    stream.close()
    assert not waiting.is_alive() and "closed" in str(errors[0])


def test_a_bundle_on_disk_is_opened_on_its_gpu_alone(cuda: CudaStandIn, trt: TrtStandIn, tmp_path: Path) -> None:
    path = tmp_path / "toy.engine"
    content = {
        "contract": json.loads(contract().to_json()),
        "precision": json.loads(PrecisionRecord().to_json()),
        "build": {
            "variant": "trt",
            "version": "8.5.3",
            "options": BuildOptions().to_dict(),
            "target": {"capabilities": ["9.0"], "gpu": "Stand-in GPU"},
        },
        "rebuild": "the command",
    }
    write_bundle(path, trt.plan(network(contract())), content)
    with TensorRTEngine(path) as engine:
        np.testing.assert_array_equal(engine.run(batch()), expected(batch()))
        assert engine.precision == PrecisionRecord()
    cuda.capability = (8, 6)
    with pytest.raises(ArtifactError, match=r"(?s)compute capability 9\.0; Stand-in GPU has 8\.6.*the command"):
        TensorRTEngine(path)
    cuda.driver = 0
    with pytest.raises(NoDeviceError, match="no NVIDIA driver"):
        TensorRTEngine(path)
    assert cuda.wrongs == [] and live(cuda) == {}
