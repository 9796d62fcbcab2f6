"""What differs between TensorRT's versions when an engine runs, and the layer times."""

from pathlib import Path

import numpy as np
import pytest

from ffnet_deploy.engines.tensorrt.runner import layer_times
from tests.engines.tensorrt import trt_standin
from tests.engines.tensorrt.conftest import Opener
from tests.engines.tensorrt.cuda_standin import CudaStandIn
from tests.engines.tensorrt.test_names import LISTS
from tests.engines.tensorrt.trt_standin import IExecutionContext, TrtStandIn, network
from tests.toy import contract

IMAGES = np.random.default_rng(0).normal(size=(1, 3, 32, 64)).astype(np.float32)


@pytest.mark.parametrize(("wanted", "strategy"), [(True, "WHOLE_GRAPH_CAPTURE"), (False, "DISABLED")])
def test_a_runtime_that_captures_graphs_itself_is_left_to_it(
    start: Opener, cuda: CudaStandIn, trt: TrtStandIn, wanted: bool, strategy: str
) -> None:
    trt.captures_itself = True
    trt.__post_init__()
    with start(cuda_graph=wanted) as engine:
        for _ in range(4):
            np.testing.assert_array_equal(engine.run(IMAGES), network(contract()).function(IMAGES))
    assert [config.cuda_graph_strategy.name for config in trt.configs] == [strategy]
    assert "cudaStreamBeginCapture" not in cuda.names()


class RuntimeCache:
    """Keeps kernels as names, one for each shape that was set."""

    def __init__(self, trt: TrtStandIn) -> None:
        self.trt, self.kernels = trt, b""

    def deserialize(self, content: bytes) -> bool:
        self.kernels = content
        return content.startswith(b"kernels")

    def reset(self) -> None:
        self.kernels = b""

    def serialize(self) -> bytes:
        return self.kernels or b"kernels of " + ", ".join(self.trt.events[:1]).encode()


def test_compiled_kernels_are_kept_beside_the_engine(start: Opener, trt: TrtStandIn, tmp_path: Path) -> None:
    trt.captures_itself, trt.caches = True, RuntimeCache
    trt.__post_init__()
    kept = tmp_path / "toy.engine.kernels"
    with start(wait_for_kernels=True) as engine:
        engine.run(IMAGES)
        assert not kept.exists()
    first = kept.read_bytes()
    assert b"kernels of" in first and trt.configs[-1].dynamic_shapes_kernel_specialization_strategy.name == "EAGER"
    with start(contexts=2) as engine:
        engine.run(IMAGES)
    assert trt.configs[-1].cache.kernels.startswith(b"kernels of") and kept.read_bytes() == first
    assert trt.configs[-1].dynamic_shapes_kernel_specialization_strategy is None
    kept.write_bytes(first[:-1])
    with start() as engine:
        engine.run(IMAGES)
    assert kept.read_bytes() == first, "a damaged one is ignored and overwritten"


def test_layers_are_timed_run_by_run(start: Opener, cuda: CudaStandIn, tmp_path: Path) -> None:
    start().close()  # leaves the bundle behind that the next engine opens
    times = layer_times(tmp_path / "toy.engine", IMAGES, repeats=6, warmup=2)
    assert times == {"conv": [0.25] * 6, "resize": [0.25] * 6}
    assert "cudaStreamBeginCapture" not in cuda.names()
    assert not any(cuda.live.values())


@pytest.mark.parametrize("version", LISTS)
def test_the_stand_in_has_only_names_that_every_tensorrt_has(version: str) -> None:
    for kind in (trt_standin.Runtime, trt_standin.ICudaEngine, IExecutionContext):
        offered = {name for name in dir(kind) if not name.startswith("_")} - {"create_runtime_config"}
        assert offered <= set(LISTS[version]["classes"][kind.__name__]), kind.__name__
    settings = {"profiler", "enqueue_emits_profile", "active_optimization_profile"}
    assert settings <= set(LISTS[version]["classes"]["IExecutionContext"])
