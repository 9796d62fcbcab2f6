import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ffnet_deploy.core.precision import PrecisionRecord
from ffnet_deploy.engines.bundle import Bundle
from ffnet_deploy.engines.tensorrt import runner
from ffnet_deploy.engines.tensorrt.runner import TensorRTEngine, TensorRTOptions
from ffnet_deploy.engines.tensorrt.variant import Variant
from tests.engines.tensorrt.cuda_standin import CudaStandIn
from tests.engines.tensorrt.trt_standin import Network, TrtStandIn, network
from tests.toy import contract

Opener = Callable[..., TensorRTEngine]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> CudaStandIn:
    """One GPU of the stand-in."""
    made = CudaStandIn()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", made)
    return made


@pytest.fixture
def trt(cuda: CudaStandIn, monkeypatch: pytest.MonkeyPatch) -> TrtStandIn:
    """The stand-in's TensorRT, which behaves as 8.5 does unless told otherwise."""
    made = TrtStandIn(cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", made)
    return made


@pytest.fixture
def start(cuda: CudaStandIn, trt: TrtStandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Opener]:
    """Opens engines on the stand-in; afterwards nothing wrong may have happened there."""

    def opener(made: Network | None = None, plan: bytes | None = None, **options: object) -> TensorRTEngine:
        made = made or network(contract())
        content = trt.plan(made) if plan is None else plan
        bundle = Bundle(tmp_path / "toy.engine", content, made.contract, PrecisionRecord(), Variant.TENSORRT, {"a": 1})
        monkeypatch.setattr(runner, "read_bundle", lambda path, trust, device: bundle)
        return TensorRTEngine(tmp_path / "toy.engine", TensorRTOptions(**options))

    yield opener
    assert cuda.wrongs == []
