"""A Python on which CUDA and TensorRT are the stand-ins, for rehearsals: ``python standin_python.py -m MODULE ...``.

Engines hold the description of their network, so that another process can run what one has built.
"""

import runpy
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.precision import PrecisionRecord
from ffnet_deploy.engines.tensorrt.build import EnginePlan, PrecisionCheck
from ffnet_deploy.engines.tensorrt.options import BuildOptions, BuildTarget, covering
from ffnet_deploy.engines.tensorrt.precision_check import NetworkCheck
from ffnet_deploy.export import engine
from tests.engines.tensorrt.cuda_standin import CudaStandIn
from tests.engines.tensorrt.trt_standin import Network, TrtStandIn, network

MARK = b"stand-in engine of "


class Plans(dict[bytes, Network]):
    """Networks by the descriptions of them that their engines hold."""

    def __contains__(self, plan: object) -> bool:
        return isinstance(plan, bytes) and plan.startswith(MARK)

    def __missing__(self, plan: bytes) -> Network:
        return network(Contract.from_json(plan.removeprefix(MARK).decode()))


def build_plan(
    graph: Path,
    contract: Contract,
    record: PrecisionRecord,
    options: BuildOptions,
    target: BuildTarget,
    *_: Any,
) -> EnginePlan:
    """An engine that holds what its network takes and gives."""
    profiles = options.profile_shapes(contract)
    covered = covering(contract, profiles)
    nothing = PrecisionCheck(True, NetworkCheck(0, {}, {}, 0, 0, ()), None)
    plan = MARK + covered.to_json().encode()
    return EnginePlan(plan, covered, profiles, record, {}, nothing, None, {}, 0.0)


if __name__ == "__main__":
    cuda = CudaStandIn()
    trt = TrtStandIn(cuda)
    trt.plans = Plans()
    sys.modules["cuda.bindings.runtime"] = cuda  # type: ignore[assignment]
    sys.modules["tensorrt"] = trt  # type: ignore[assignment]
    engine.build_plan = build_plan
    _, _, module, *arguments = sys.argv
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
