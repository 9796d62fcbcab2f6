"""Where the time of a call goes: layers as a runtime's own profiler times them, summed over the blocks of FFNet."""

from collections.abc import Sequence
from dataclasses import dataclass

from ffnet_deploy.benchmark.blocks import block_of, block_order
from ffnet_deploy.benchmark.record import Layer, Peaks, Profile
from ffnet_deploy.benchmark.roofline import Cost


@dataclass(frozen=True)
class TimedLayer:
    """A layer as a profiler knows it.

    Attributes:
        name: of the layer, or of all that were fused into it.
        operator: what it computes.
        milliseconds: per call, mean.
        cost: what it has to do at least; None: unknown.
    """

    name: str
    operator: str
    milliseconds: float
    cost: Cost | None = None


@dataclass(frozen=True)
class TimedLayers:
    """What a profiler measured: its name, the calls it averaged, and the layers in the order they run."""

    tool: str
    runs: int
    layers: Sequence[TimedLayer]


def profile(timed: TimedLayers, peaks: Peaks | None) -> Profile:
    """Layers and blocks with their limits on a device with `peaks`; None: no limits."""
    total = sum(layer.milliseconds for layer in timed.layers)
    layers = tuple(_layer(one, total, peaks) for one in timed.layers)
    names = sorted({layer.block for layer in layers}, key=block_order)
    blocks = tuple(_block(name, [layer for layer in layers if layer.block == name], total) for name in names)
    return Profile(timed.tool, timed.runs, layers, blocks, peaks)


def _layer(timed: TimedLayer, total: float, peaks: Peaks | None) -> Layer:
    limit, bound = _limit(timed.cost, peaks)
    return Layer(
        name=timed.name,
        block=block_of(timed.name),
        operator=timed.operator,
        milliseconds=timed.milliseconds,
        share=_percent(timed.milliseconds, total),
        flops=None if timed.cost is None else timed.cost.flops,
        bytes=None if timed.cost is None else timed.cost.bytes,
        limit_ms=limit,
        bound=bound,
        of_limit=None if limit is None else _percent(limit, timed.milliseconds),
    )


def _limit(cost: Cost | None, peaks: Peaks | None) -> tuple[float | None, str | None]:
    """The least milliseconds that `peaks` allow, and what sets them."""
    if cost is None or peaks is None:
        return None, None
    compute, memory = cost.flops / peaks.flops * 1000, (cost.bytes or 0.0) / peaks.bytes * 1000
    return (compute, "compute") if compute > memory else (memory, "memory")


def _block(name: str, layers: Sequence[Layer], total: float) -> Layer:
    milliseconds = sum(layer.milliseconds for layer in layers)
    known = [layer for layer in layers if layer.limit_ms is not None]
    limit = _total([layer.limit_ms for layer in layers])
    return Layer(
        name=name,
        block=name,
        operator="",
        milliseconds=milliseconds,
        share=_percent(milliseconds, total),
        flops=_total([layer.flops for layer in layers]),
        bytes=_total([layer.bytes for layer in layers]),
        limit_ms=limit,
        bound=_main_bound(layers),
        of_limit=None if limit is None else _percent(limit, sum(layer.milliseconds for layer in known)),
    )


def _main_bound(layers: Sequence[Layer]) -> str | None:
    """What sets most of the limits of `layers`, by time."""
    weights: dict[str, float] = {}
    for layer in layers:
        if layer.bound is not None and layer.limit_ms is not None:
            weights[layer.bound] = weights.get(layer.bound, 0.0) + layer.limit_ms
    return max(weights, key=lambda bound: weights[bound], default=None)


def _total(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _percent(part: float, whole: float) -> float:
    return part / whole * 100 if whole > 0 else 0.0
