"""PyTorch's profiler, told which module each piece of work belongs to; PyTorch is imported when it is used."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.benchmark.profilers import RUNS
from ffnet_deploy.benchmark.profiling import TimedLayer, TimedLayers
from ffnet_deploy.benchmark.roofline import Cost, Tensor, cost
from ffnet_deploy.benchmark.torch_forms import TorchFormEngine
from ffnet_deploy.core.optional import optional

_MARK = "ffnet:"
_WARM = 2
_OPERATORS = {"Conv2d": "Conv", "Linear": "MatMul", "Upsample": "Resize"}


def profile_torch(engine: TorchFormEngine, batch: NDArray[np.generic]) -> TimedLayers:
    """The innermost modules of an eager network, as PyTorch's profiler times them.

    What functions do between modules (residual sums, concatenation) is not in any of them and is left out.
    """
    torch = optional("torch", extra="convert", purpose="profiling the PyTorch network")
    costs: dict[str, Cost] = {}
    step = engine.device_step(batch)
    activities = [torch.profiler.ProfilerActivity.CPU]
    on_gpu = engine.device_type == "cuda"
    if on_gpu:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with _marked(torch, engine.module, costs):
        for _ in range(_WARM):
            step()
        with torch.profiler.profile(activities=activities) as profiler:
            for _ in range(RUNS):
                step()
    times = {
        event.key.removeprefix(_MARK): (event.device_time_total if on_gpu else event.cpu_time_total) / 1000 / RUNS
        for event in profiler.key_averages()
        if event.key.startswith(_MARK) and event.device_type == torch.autograd.DeviceType.CPU
    }
    kinds = {name: type(module).__name__ for name, module in engine.module.named_modules()}
    layers = [
        TimedLayer(name, _OPERATORS.get(kinds[name], kinds[name]), times[name], costs[name])
        for name in costs
        if name in times
    ]
    return TimedLayers("PyTorch profiler", RUNS, layers)


@contextmanager
def _marked(torch: Any, module: Any, costs: dict[str, Cost]) -> Iterator[None]:
    """Mark the work of every innermost module with its name while the block runs, and note what it costs."""
    open_marks: list[Any] = []
    handles: list[Any] = []

    def before(name: str) -> Any:
        def enter(_module: Any, _inputs: Any) -> None:
            open_marks.append(torch.profiler.record_function(_MARK + name))
            open_marks[-1].__enter__()

        return enter

    def after(name: str) -> Any:
        def leave(layer: Any, inputs: Any, output: Any) -> None:
            open_marks.pop().__exit__(None, None, None)
            costs.setdefault(name, _module_cost(layer, inputs, output))

        return leave

    for name, child in module.named_modules():
        if not any(child.children()):
            handles += [child.register_forward_pre_hook(before(name)), child.register_forward_hook(after(name))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _module_cost(layer: Any, inputs: Any, output: Any) -> Cost:
    operator = _OPERATORS.get(type(layer).__name__, type(layer).__name__)
    weights = [value for value in (getattr(layer, "weight", None), getattr(layer, "bias", None)) if value is not None]
    tensors = [Tensor(tuple(value.shape), value.element_size()) for value in (*inputs, *weights)]
    return cost(operator, tensors, [Tensor(tuple(output.shape), output.element_size())])
