"""Cross-layer equalisation: the channels of a tensor are given like ranges, and the weights around it make up for it.

A tensor quantised with one scale is as coarse for its quiet channels as for its loudest. Where nothing but linear or
positively homogeneous operators lies between convolutions, a factor per channel can be taken out of the producers and
put into the readers: the network stays the same. Source: Nagel et al., arXiv 1906.04721, section 4.1; the trade between
activations and weights: Xiao et al., arXiv 2211.10438, section 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from ffnet_deploy.calib.channel_groups import ChannelGroup, ChannelGroups, divide_input, rescale
from ffnet_deploy.calib.observers import ChannelHistograms
from ffnet_deploy.calib.plan import Plan
from ffnet_deploy.calib.thresholds import channel_thresholds
from ffnet_deploy.precision.graph_index import Conv, GraphIndex, drop_unused_initializers

_STRENGTHS = tuple(step / 10 for step in range(11))
"""Shares of the channels' ranges that the factors take up; the rest goes by the weights."""
_WIDEST = 1e3
"""Largest ratio of two ranges that is evened out. Channels beyond said nothing on these images; they are left as they
are, so that they are not clipped on others."""
_LEVELS = 127.0
WORTH_IT = 4.0
"""How many times less noise must be expected of a tensor before weights are changed for it: 6 dB."""
WORTH_A_MUL = 8.0
"""The same where it costs a Mul in the graph: 9 dB."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """A quantised tensor that holds a group's channels, perhaps among others, and who reads it.

    Attributes:
        tensor: Name of the tensor.
        largest: For each channel of the tensor, the threshold that would serve it best alone.
        squares: Mean square of each channel.
        weights: Weights of the quantised convolutions that read them, float64 (outputs, channels, taps); of a depthwise
            one (1, channels, taps).
        depthwise: Whether the convolution of the same index keeps channels apart.
        sums: Residual sums that read the tensor without a convolution between.
        own: The group's channels within the tensor.
    """

    tensor: str
    largest: Values
    squares: Values
    weights: tuple[Values, ...]
    depthwise: tuple[bool, ...]
    sums: int
    own: slice

    @property
    def is_shared(self) -> bool:
        """Whether the tensor, a concatenation, holds other channels too."""
        return len(self.largest[self.own]) < len(self.largest)

    def all_factors(self, factors: Values) -> Values:
        """`factors` of the group's channels, and 1 for the others."""
        spread = np.ones(len(self.largest))
        spread[self.own] = factors
        return spread


def scalable_groups(groups: ChannelGroups) -> dict[int, ChannelGroup]:
    """The groups that factors can pass: made by convolutions and read by some; the graph's outputs stay as they are."""
    return {
        number: group for number, group in groups.all().items() if group.producers and group.readers and not group.fixed
    }


def tensors_needing_mul(graph: GraphIndex, groups: ChannelGroups, plan: Plan) -> list[str]:
    """The quantised tensors that no exact factor can reach: what activations and norms make, inputs left out."""
    return [
        name
        for name, uses in plan.uses.items()
        if not groups.layout(name) and name in graph.producers and any(use.node.op_type == "Conv" for use in uses)
    ]


def tensors_to_observe(graph: GraphIndex, plan: Plan) -> list[str]:
    """The quantised tensors whose channels `choose_factors` needs to know."""
    groups = ChannelGroups(graph)
    scalable = scalable_groups(groups)
    exact = [name for name in plan.uses if any(piece.group in scalable for piece in groups.layout(name))]
    return exact + tensors_needing_mul(graph, groups, plan)


@dataclass(frozen=True)
class Factors:
    """What equalisation does to a graph.

    Attributes:
        groups: Factors (channels,) by name of the group's first convolution: its producers are divided by them.
        with_mul: Factors (channels,) by name of tensor: it is divided by them in front of its convolutions, in a Mul.
        restored: Groups of `groups` whose tensors other operators read, through a Mul that restores them.
    """

    groups: Mapping[str, Values]
    with_mul: Mapping[str, Values]
    restored: tuple[str, ...]


def choose_factors(graph: GraphIndex, plan: Plan, seen: Mapping[str, ChannelHistograms]) -> Factors:
    """The factors that are expected to make the noise of quantisation least.

    Ranges that are alike already are left alone: factors also make weights less even, and a good threshold clips the
    few values that stick out anyway.
    """
    groups = ChannelGroups(graph)
    chosen: dict[str, Values] = {}
    restored: list[str] = []
    for number, group in scalable_groups(groups).items():
        readings = _readings(graph, groups, number, plan, seen)
        factors, gain = _best_factors(readings, group.channels)
        if gain >= (WORTH_A_MUL if group.sinks else WORTH_IT):
            chosen[group.producers[0].name] = factors
            restored += [group.producers[0].name] if group.sinks else []
    with_mul = {}
    for tensor in tensors_needing_mul(graph, groups, plan):
        reading = _reading(graph, tensor, plan, seen[tensor], slice(None))
        factors, gain = _best_factors([replace(reading, sums=0)], len(seen[tensor].maximum))
        if gain >= WORTH_A_MUL:
            with_mul[tensor] = factors
    return Factors(chosen, with_mul, tuple(restored))


def equalize(model: onnx.ModelProto, factors: Factors) -> None:
    """Divide tensors by their factors and multiply the weights that read them, in place; the network stays the same."""
    graph = GraphIndex(model)
    groups = {group.producers[0].name: group for group in ChannelGroups(graph).all().values()}
    for tensor, values in factors.with_mul.items():
        divide_input(model, tensor, [conv for conv in graph.convs if conv.input == tensor], values)
    for name, values in factors.groups.items():
        rescale(model, groups[name], values)
    drop_unused_initializers(model)


def _readings(
    graph: GraphIndex, groups: ChannelGroups, number: int, plan: Plan, seen: Mapping[str, ChannelHistograms]
) -> list[Reading]:
    readings = []
    for tensor in plan.uses:
        pieces = [piece for piece in groups.layout(tensor) if piece.group == number]
        readings += [_reading(graph, tensor, plan, seen[tensor], piece.slice) for piece in pieces]
    return readings


def _reading(graph: GraphIndex, tensor: str, plan: Plan, seen: ChannelHistograms, own: slice) -> Reading:
    convs = {conv.name: conv for conv in plan.convs}
    readers = [convs[use.node.name] for use in plan.uses[tensor] if use.node.name in convs]
    return Reading(
        tensor,
        channel_thresholds(seen),
        seen.mean_square,
        tuple(_weights(graph, conv) for conv in readers),
        tuple(conv.is_depthwise for conv in readers),
        len(plan.uses[tensor]) - len(readers),
        own,
    )


def _weights(graph: GraphIndex, conv: Conv) -> Values:
    weight = graph.array(conv.weight).astype(np.float64)
    if conv.is_depthwise:
        return weight.reshape(1, conv.channels, -1)
    return weight.reshape(conv.shape[0], conv.shape[1], -1)


def _best_factors(readings: Sequence[Reading], channels: int) -> tuple[Values, float]:
    """The best factors, and how many times less noise they let expect than none."""
    if not readings:
        return np.ones(channels), 1.0
    loud = _geometric_mean([_relative(reading.largest[reading.own]) for reading in readings], channels)
    dense = [
        _relative(np.abs(weight[:, reading.own]).max(axis=(0, 2)))
        for reading in readings
        for weight, apart in zip(reading.weights, reading.depthwise, strict=True)
        if not apart
    ]
    heavy = _geometric_mean(dense, channels)
    candidates = [loud**strength / heavy ** (1 - strength) for strength in _STRENGTHS]
    candidates = [_anchored(factors, readings) for factors in (*candidates, np.ones(channels))]
    noises = [sum(_noise(reading, factors) for reading in readings) for factors in candidates]
    best = int(np.argmin(noises))
    before = sum(_noise(reading, np.ones(channels)) for reading in readings)
    return candidates[best], before / noises[best] if noises[best] > 0 else 1.0


def _relative(values: Values) -> Values:
    """`values` over the largest of them; 1 for those next to nothing."""
    largest = float(values.max())
    return np.where(values * _WIDEST > largest, values / largest, 1.0) if largest > 0 else np.ones_like(values)


def _geometric_mean(rows: Sequence[Values], channels: int) -> Values:
    return np.exp(np.mean(np.log(rows), axis=0)) if rows else np.ones(channels)


def _anchored(factors: Values, readings: Sequence[Reading]) -> Values:
    """`factors` times a constant: the loudest channels keep their range.

    In a concatenation they get the range of its loudest channel, whichever group that belongs to: its one scale stays.
    """
    shared = [reading for reading in readings if reading.is_shared]
    ratios = [
        float((reading.largest[reading.own] / factors).max()) / float(reading.largest.max())
        for reading in shared or readings[:1]
        if reading.largest.max() > 0
    ]
    ratio = max(ratios, default=0.0)
    return factors * ratio if ratio > 0 else factors


def _noise(reading: Reading, factors: Values) -> float:
    """Expected noise that quantising the tensor and its readers' weights adds to what they make, relative to that.

    Rounding to steps of d adds an error of mean square d^2 / 12.
    """
    scaled = reading.all_factors(factors)
    step = float((reading.largest / scaled).max()) / _LEVELS
    total = 0.0
    for weight, apart in zip(reading.weights, reading.depthwise, strict=True):
        squares = np.square(weight).sum(axis=(0, 2))
        signal = float(squares @ reading.squares)
        noise = step**2 * float(squares @ scaled**2)
        if not apart:
            steps = np.abs(weight * scaled[None, :, None]).max(axis=(1, 2)) / _LEVELS
            taps = weight.shape[2]
            noise += float(np.square(steps).sum() * taps * (reading.squares / scaled**2).sum())
        total += noise / signal if signal > 0 else 0.0
    if reading.sums:
        power = float(reading.squares.sum())
        total += reading.sums * step**2 * float(np.square(scaled).sum()) / power if power > 0 else 0.0
    return total
