"""Engines on a real GPU: what they compute, and how they behave over many runs, shapes and threads.

FFNET_GPU_FOLDER=gpu python -m pytest tests/gpu -m gpu
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu_reference import Reference, verify_engine
from ffnet_deploy.core.contract import Contract, IOType, OutputKind
from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.engines.bundle import open_bundle
from ffnet_deploy.engines.cuda import Cuda, DeviceArray
from ffnet_deploy.engines.tensorrt.options import BuildOptions
from ffnet_deploy.engines.tensorrt.runner import TensorRTEngine, TensorRTOptions, layer_times
from ffnet_deploy.engines.tensorrt.variant import feature, load
from ffnet_deploy.evaluation.preprocessing import network_input
from ffnet_deploy.export.engine import build_engine, refit_engine
from tests.toy import contract, fixed, logits, weights, write_onnx

Engines = list[tuple[Path, Reference]]
_MIB = 1 << 20


def inputs(contract: Contract, seed: int = 0) -> np.ndarray:
    """A batch of noise at the usual size."""
    return sized(contract, (contract.height.opt, contract.width.opt), contract.batch.opt, seed)


def sized(contract: Contract, size: tuple[int, int], count: int, seed: int = 0) -> np.ndarray:
    images = np.random.default_rng(seed).integers(0, 256, (count, *size, 3)).astype(np.uint8)
    return np.ascontiguousarray(network_input(images, contract))


def shapes(reference: Reference) -> list[tuple[tuple[int, int], int]]:
    """((height, width), batch) of all cases: the usual size, and where sizes are dynamic others up to the limits."""
    found = [case.images.shape for case in reference.cases()]
    return list(dict.fromkeys(((height, width), count) for count, height, width, _ in found))


def agreement(found: np.ndarray, expected: np.ndarray, contract: Contract) -> float:
    """Positions with the same label, percent: kernels of other shapes and graphs may sum in another order."""
    if contract.output is not OutputKind.LABELS:
        found, expected = found.argmax(1), expected.argmax(1)
    return float((found == expected).mean() * 100)


def test_outputs_and_miou_are_those_of_pytorch(engines: Engines) -> None:
    failures = []
    for path, reference in engines:
        with TensorRTEngine(path) as engine:
            result = verify_engine(engine, reference, open_bundle(path).record.precision)
        print(f"{path.name}: agreement {result.agreement:.3f} %, mIoU (PyTorch, engine) {result.miou}")
        assert result.comparisons
        failures += [f"{path.name}: {failure}" for failure in result.failures]
    assert failures == []


def test_graphs_change_nothing_and_are_captured(engines: Engines) -> None:
    for path, _ in engines:
        with TensorRTEngine(path) as engine, TensorRTEngine(path, TensorRTOptions(cuda_graph=False)) as plain:
            batch = inputs(engine.contract)
            expected = plain.run(batch)
            for _ in range(5):
                np.testing.assert_array_equal(engine.run(batch), expected)
            assert engine.notes == (), engine.notes


def test_every_accepted_shape_runs_in_any_order(engines: Engines) -> None:
    for path, reference in engines:
        with TensorRTEngine(path) as engine:
            cases = shapes(reference)
            first = [engine.run(sized(engine.contract, *case)) for case in cases]
            for _ in range(3):
                for case, expected in reversed(list(zip(cases, first, strict=True))):
                    found = engine.run(sized(engine.contract, *case))
                    assert agreement(found, expected, engine.contract) > 99.9, f"{path.name} at {case}"


def test_threads_get_their_own_results(engines: Engines) -> None:
    for path, _ in engines:
        with TensorRTEngine(path, TensorRTOptions(contexts=3)) as engine:
            fewer = [note for note in engine.notes if "contexts" in note]
            assert not fewer or load(engine.variant).__version__.startswith("8.5"), fewer
            batches = [inputs(engine.contract, seed) for seed in range(4)]
            expected = [engine.run(batch) for batch in batches]

            def work(index: int, engine: TensorRTEngine = engine, batches=batches, expected=expected) -> float:
                return agreement(engine.run(batches[index % 4]), expected[index % 4], engine.contract)

            with ThreadPoolExecutor(8) as threads:
                worst = min(threads.map(work, range(200)))
            assert worst > 99.9, f"{path.name}: {worst}"


def test_a_stream_gives_what_single_runs_give(engines: Engines) -> None:
    for path, _ in engines:
        with TensorRTEngine(path) as engine:
            batches = [inputs(engine.contract, seed) for seed in range(9)]
            singles = [engine.run(batch) for batch in batches]
            for found, expected in zip(engine.run_stream(batches), singles, strict=True):
                assert agreement(found, expected, engine.contract) > 99.9


def test_tensors_on_the_gpu_are_used_where_they_are(engines: Engines, gpu: Cuda) -> None:
    path, _ = engines[0]
    with TensorRTEngine(path) as engine:
        batch = inputs(engine.contract)
        expected = engine.run(batch)
        gpu.use()
        stream = gpu.create_stream()
        source, target = gpu.allocate(batch.nbytes), gpu.allocate(expected.nbytes)
        found = np.empty_like(expected)
        try:
            gpu.upload(source, batch.ctypes.data, batch.nbytes, stream)
            image = DeviceArray(source, batch.shape, batch.dtype.str, int(stream))
            out = DeviceArray(target, expected.shape, expected.dtype.str, int(stream))
            for _ in range(4):
                assert engine.run_device(image, out=out) is out
            gpu.download(found.ctypes.data, target, found.nbytes, stream)
            gpu.synchronize(stream)
        finally:
            gpu.free(source)
            gpu.free(target)
            gpu.destroy_stream(stream)
    assert agreement(found, expected, engine.contract) > 99.9


def test_pytorchs_tensors_stay_on_the_gpu(engines: Engines) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    path, _ = engines[0]
    with TensorRTEngine(path) as engine:
        batch = inputs(engine.contract)
        expected = engine.run(batch)
        for _ in range(4):
            found = engine.run_device(torch.from_numpy(batch).cuda())
            assert found.is_cuda
            assert agreement(found.cpu().numpy(), expected, engine.contract) > 99.9


def test_ten_thousand_runs_leave_no_memory_behind(engines: Engines, gpu: Cuda) -> None:
    path, _ = min(engines, key=lambda one: one[0].stat().st_size)
    gpu.use()
    with TensorRTEngine(path) as engine:
        batch = sized(
            engine.contract, (engine.contract.height.min, engine.contract.width.min), engine.contract.batch.min
        )
        for _ in range(20):
            engine.run(batch)
        for _ in engine.run_stream(repeat(batch, 4)):  # it has buffers of its own
            pass
        before = gpu.free_memory()
        for _ in range(8_000):
            engine.run(batch)
        for _ in engine.run_stream(repeat(batch, 2_000)):
            pass
        lost = before - gpu.free_memory()
    assert lost < 8 * _MIB, f"{lost / _MIB:.1f} MiB"


def test_closing_gives_the_memory_back(engines: Engines, gpu: Cuda) -> None:
    path, _ = engines[0]
    gpu.use()
    free = []
    for _ in range(6):
        with TensorRTEngine(path) as engine:
            for _ in range(3):
                engine.run(inputs(engine.contract))
        free.append(gpu.free_memory())
    assert free[1] - free[-1] < 8 * _MIB, free


def test_times_and_layers_are_measured(engines: Engines) -> None:
    path, _ = engines[0]
    with TensorRTEngine(path) as engine:
        batch = inputs(engine.contract)
        times = engine.device_times(batch, repeats=50)
        contract = engine.contract
    layers = layer_times(path, inputs(contract), repeats=10)
    print(f"{path.name}: median {np.median(times):.3f} ms, {len(layers)} layers")
    assert len(times) == 50 and min(times) > 0
    assert layers and all(len(values) % 10 == 0 for values in layers.values())


def test_shapes_that_do_not_fit_are_refused(engines: Engines) -> None:
    path, _ = engines[0]
    with TensorRTEngine(path) as engine:
        contract = engine.contract
        too_high = sized(contract, (contract.height.max + 32, contract.width.opt), contract.batch.min)
        with pytest.raises(OptionError, match=f"height of .*, not {contract.height.max + 32}"):
            engine.run(too_high)
        engine.run(inputs(contract))


def test_a_plan_cut_short_is_refused(engines: Engines, tmp_path: Path) -> None:
    path, reference = engines[0]
    cut = tmp_path / path.name
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    graph = reference.graphs[0]
    shutil.copyfile(graph, tmp_path / graph.name)
    with pytest.raises(ArtifactError, match="cannot load"):
        TensorRTEngine(cut, TensorRTOptions(trust_engine=True))


def test_an_engine_without_weights_gets_them_from_the_graph(tmp_path: Path, gpu: Cuda) -> None:
    pytest.importorskip("onnx")
    if feature(pytest.importorskip("tensorrt"), "BuilderFlag.STRIP_PLAN") is None:
        pytest.skip("this TensorRT builds no engines without weights")
    graph = write_onnx(tmp_path / "toy.onnx", contract(**fixed(64, 96)))
    for name, bare in (("whole", False), ("bare", True)):
        build_engine(graph, tmp_path / f"{name}.engine", BuildOptions(strip_weights=bare))
    with pytest.raises(ArtifactError, match="--refit-engine"):
        TensorRTEngine(tmp_path / "bare.engine")
    refit_engine(tmp_path / "bare.engine", graph, tmp_path / "full.engine")
    with TensorRTEngine(tmp_path / "whole.engine") as whole, TensorRTEngine(tmp_path / "full.engine") as full:
        batch = inputs(whole.contract)
        np.testing.assert_allclose(full.run(batch), whole.run(batch), rtol=1e-5, atol=1e-4)


def test_fp16_at_the_boundary_is_fp16_in_the_engine(tmp_path: Path, gpu: Cuda) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("tensorrt")
    graph = write_onnx(tmp_path / "toy.onnx", contract(io=IOType.FP16, **fixed(64, 96)))
    build_engine(graph, tmp_path / "toy.engine", BuildOptions())
    with TensorRTEngine(tmp_path / "toy.engine") as engine:
        batch = inputs(engine.contract)
        found = engine.run(batch)
    assert batch.dtype == found.dtype == np.float16
    expected = logits(batch.astype(np.float32), weights(11))
    np.testing.assert_allclose(found, expected, atol=2e-2 * np.abs(expected).max())
