"""A Python on which CUDA and TensorRT are the stand-ins, for rehearsals: ``python standin_python.py -m MODULE ...``.

Engines hold the description of their network and the path of its graph, so that another process can run what one has
built: by ONNX Runtime, where it is installed, else the toy network of the same contract.
"""

import hashlib
import json
import runpy
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

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
        described = json.loads(plan.removeprefix(MARK))
        contract = Contract.from_json(json.dumps(described["contract"]))
        made = network(contract)
        low, high = made.profiles[0]
        made.profiles = [((least, *low[1:]), (most, *high[1:])) for least, most in described["batches"]]
        if find_spec("onnxruntime") is not None:
            made.function = remembered(Path(described["graph"]))
        return made


def remembered(graph: Path) -> Callable[[np.ndarray], np.ndarray]:
    """What ONNX Runtime makes of a batch with `graph`; a batch that was seen before is not computed again."""
    from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeOptions

    session = OnnxRuntimeEngine(graph, OnnxRuntimeOptions(check_manifest=False))
    seen: dict[tuple[object, bytes], np.ndarray] = {}

    def function(batch: np.ndarray) -> np.ndarray:
        key = batch.shape, hashlib.sha256(np.ascontiguousarray(batch)).digest()
        if key not in seen:
            seen[key] = session.run(np.ascontiguousarray(batch))
        return seen[key]

    return function


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
    described = {"contract": json.loads(covered.to_json()), "graph": str(graph.resolve())}
    described["batches"] = [(shapes.batch.min, shapes.batch.max) for shapes in profiles]
    plan = MARK + json.dumps(described).encode()
    return EnginePlan(plan, covered, profiles, record, {}, nothing, None, {}, 0.0)


def modules() -> dict[str, Any]:
    """The stand-ins by the names of the modules whose place they take."""
    cuda = CudaStandIn()
    trt = TrtStandIn(cuda)
    trt.plans = Plans()
    return {"cuda.bindings.runtime": cuda, "tensorrt": trt}


if __name__ == "__main__":
    sys.modules.update(modules())
    engine.build_plan = build_plan
    _, _, module, *arguments = sys.argv
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
