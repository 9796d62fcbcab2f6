from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("mmseg")

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ffnet_deploy.core.contract import InputKind, Normalization, OutputKind
from ffnet_deploy.export.network import DeployedNetwork
from tests.tiny import FAMILIES


class Devices(TorchDispatchMode):
    """Notes on which devices tensors come to be."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        self.seen |= {out.device.type} if isinstance(out, torch.Tensor) else set()
        return out


@pytest.mark.parametrize("name", FAMILIES)
def test_a_run_makes_nothing_on_the_cpu_that_a_gpu_would_wait_for(name: str, tiny: dict[str, Any]) -> None:
    network = DeployedNetwork(tiny[name].model, Normalization(), InputKind.FLOAT, OutputKind.LOGITS).eval().to("meta")
    with torch.inference_mode(), Devices() as devices:
        network(torch.empty(2, 3, 64, 96, device="meta"))
    assert devices.seen == {"meta"}
