"""The rewrites by name, and a network with some of them applied, each proved on the network's own features."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import torch
from torch import Tensor, nn

from ffnet_deploy.core.contract import DimensionRange
from ffnet_deploy.export.enlarging import Enlarge, EnlargedConv
from ffnet_deploy.export.heads import ANY_SIZE
from ffnet_deploy.export.network import DeployedNetwork
from ffnet_deploy.export.rewrites.fake_run import FakeRun, Map, Resizing
from ffnet_deploy.export.rewrites.labels import BorderLabels, PhaseLabels, makes_even_labels
from ffnet_deploy.export.rewrites.matrix_resize import MatrixResize, Sides
from ffnet_deploy.export.rewrites.resizing import open_head
from ffnet_deploy.export.rewrites.squeeze_first import SqueezeFirst
from ffnet_deploy.export.rewrites.taps_first import TapsFirst, is_tappable, worth_tapping

Module = TypeVar("Module", bound=nn.Module)
Constant = tuple[bool, bool]
"""Whether the rows' and the columns' matrices are constants; else they are computed from the shape in the graph."""


class Rewrite(str, Enum):
    """A change that leaves the network's result as it is; in the order in which they are applied."""

    SQUEEZE_FIRST = "squeeze-first"
    TAPS_FIRST = "taps-first"
    MATRIX_RESIZE = "matrix-resize"
    PHASE_LABELS = "phase-labels"
    BORDER_LABELS = "border-labels"


LABEL_FORMS: dict[Rewrite, type[PhaseLabels] | type[BorderLabels]] = {
    Rewrite.PHASE_LABELS: PhaseLabels,
    Rewrite.BORDER_LABELS: BorderLabels,
}
"""What takes the place of `Finish` in a network that gives labels; one of them at most."""


@dataclass(frozen=True)
class AppliedRewrite:
    """A rewrite and its proof.

    Attributes:
        name: Name of the rewrite.
        places: Modules that it replaced, by their path in the network.
        macs_before: Multiply-adds of the network without it, for one image of the usual size.
        macs_after: The same with it.
        float64_error: Largest difference of the decoder's output from that of the decoder without any rewrite, in
            float64, relative to the largest magnitude; of label maps the share of pixels that differ.
        float32_error: The same in float32.
    """

    name: Rewrite
    places: tuple[str, ...]
    macs_before: int
    macs_after: int
    float64_error: float
    float32_error: float


def rewrite(
    network: DeployedNetwork, names: Sequence[Rewrite], height: DimensionRange, width: DimensionRange, x: Tensor
) -> tuple[DeployedNetwork, tuple[AppliedRewrite, ...]]:
    """`network` with those of the rewrites in `names` that find something to replace, and what each of them changed.

    Args:
        network: it is left alone; weights that stay as they are are shared.
        names: in any order.
        height: accepted input heights, pixels. Operations are counted at the usual one; matrices are constants where
            it is the only one.
        width: accepted input widths, alike.
        x: normalised images (batch, 3, H, W) of any size: the proof compares the decoders on their features.
    """
    run = FakeRun(network.backbone, (height.opt, width.opt))
    original = network.decode_head
    if type(original) not in ANY_SIZE:  # its inner steps are not known
        names = [name for name in names if name in LABEL_FORMS]
    double = copy.deepcopy(original).double()
    rewritten = copy.copy(network)
    rewritten._modules = dict(network._modules)
    macs = run.multiply_adds(original)
    applied = []
    with torch.no_grad():
        features = network.backbone(x)
        wide = [feature.double() for feature in features]
        expected, exact = original(features), double(wide)
        steps = zip(
            rewritten_heads(original, names, run, (height.is_fixed, width.is_fixed)),
            rewritten_heads(original, names, run, (False, False)),
            rewritten_heads(double, names, run, (False, False)),
            strict=True,
        )
        for (name, places, head), (_, _, single), (_, _, exactly) in steps:
            before, macs = macs, run.multiply_adds(head)
            errors = relative_error(exactly(wide), exact), relative_error(single(features), expected)
            paths = tuple(f"decode_head.{place}" for place in places)
            applied.append(AppliedRewrite(name, paths, before, macs, *errors))
            rewritten.decode_head = head
        finish = network.finish
        for name in (name for name in LABEL_FORMS if name in names and makes_even_labels(finish)):
            form = LABEL_FORMS[name](int(finish.stride))
            errors = _differing(form(exact), finish(exact)), _differing(form(expected), finish(expected))
            most = form.multiply_adds(expected.shape[1], height.opt, width.opt)
            applied.append(AppliedRewrite(name, ("finish",), macs, macs + most, *errors))
            rewritten.finish = form  # type: ignore[assignment]
    return rewritten, tuple(applied)


def rewritten_heads(
    head: nn.Module, names: Sequence[Rewrite], run: FakeRun, constant: Constant
) -> Iterator[tuple[Rewrite, tuple[str, ...], nn.Module]]:
    """The decoder after each rewrite that finds something to replace: its name, the places and the decoder.

    It is the same decoder each time, changed further.

    Args:
        head: of a deployed network; it is left alone.
        names: in any order.
        run: gives the shapes at the usual size.
        constant: for which directions the matrices are constants.
    """
    opened = open_head(head)
    passes = {
        Rewrite.SQUEEZE_FIRST: apply_squeeze_first,
        Rewrite.TAPS_FIRST: apply_taps_first,
        Rewrite.MATRIX_RESIZE: apply_matrix_resize,
    }
    for name in (name for name in passes if name in names):
        places = passes[name](opened, run.resizing(opened), constant)
        if places:
            yield name, places, opened.eval()


def apply_squeeze_first(head: nn.Module, shapes: Mapping[str, Resizing], constant: Constant) -> tuple[str, ...]:
    """Replace each 1x1 convolution of enlarged maps by one convolution a level, whose outputs are enlarged and summed.

    Gives the paths of what was replaced in `head`.
    """
    found = [path for path, conv in _modules(head, EnlargedConv) if conv.conv.kernel_size == (1, 1)]
    for path in found:
        channels = [channels for channels, _, _ in shapes[path].maps]
        head.set_submodule(path, SqueezeFirst(head.get_submodule(path), channels))  # type: ignore[arg-type]
    return tuple(found)


def apply_taps_first(head: nn.Module, shapes: Mapping[str, Resizing], constant: Constant) -> tuple[str, ...]:
    """Replace each 3x3 convolution of enlarged maps by its taps at the maps' own size, where those cost less.

    Gives the paths of what was replaced in `head`.
    """
    found = []
    for path, whole in _modules(head, EnlargedConv):
        seen = shapes[path]
        if is_tappable(whole.conv) and worth_tapping(whole.conv.out_channels, seen.maps):
            sides = [_sides(level, seen.out, constant) for level in seen.maps[1:]]
            head.set_submodule(path, TapsFirst(whole, seen.maps, sides))
            found.append(path)
    return tuple(found)


def apply_matrix_resize(head: nn.Module, shapes: Mapping[str, Resizing], constant: Constant) -> tuple[str, ...]:
    """Replace each enlargement that is left by two matrix products.

    Gives the paths of what was replaced in `head`.
    """
    dtype = next(head.parameters()).dtype
    found = list(_modules(head, Enlarge))
    for path, enlarge in found:
        seen = shapes[path]
        head.set_submodule(path, MatrixResize(enlarge.mode, _sides(seen.maps[0], seen.out, constant), dtype))
    return tuple(path for path, _ in found)


def _modules(head: nn.Module, kind: type[Module]) -> list[tuple[str, Module]]:
    return [(path, module) for path, module in head.named_modules() if isinstance(module, kind)]


def _sides(level: Map, out: tuple[int, int], constant: Constant) -> Sides:
    _, height, width = level
    return (height, out[0]) if constant[0] else None, (width, out[1]) if constant[1] else None


def _differing(found: Tensor, expected: Tensor) -> float:
    """Share of the labels that differ."""
    return float((found != expected).double().mean())


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest expected magnitude."""
    return float((found - expected).abs().max() / expected.abs().max())
