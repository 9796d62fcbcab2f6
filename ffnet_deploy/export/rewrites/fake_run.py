"""A decoder on PyTorch's fake tensors, which have shapes and no content, behind the backbone at one input size."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ffnet_deploy.export.enlarging import Enlarge, EnlargedConv

Map = tuple[int, int, int]
"""Channels, height and width of a feature map."""


@dataclass(frozen=True)
class Resizing:
    """What a module that enlarges is given, and what size it gives.

    Attributes:
        maps: Channels, height and width of each input, finest first.
        out: Height and width of its output.
    """

    maps: tuple[Map, ...]
    out: tuple[int, int]


class FakeRun:
    """Runs decoders behind one backbone; nothing is computed but shapes and counts.

    Args:
        backbone: gives the features.
        size: (height, width) of the backbone's input, pixels.
    """

    def __init__(self, backbone: nn.Module, size: tuple[int, int]):
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        dtype = next(backbone.parameters()).dtype
        with self._mode, torch.no_grad(), FlopCounterMode(display=False) as counter:
            self._features = backbone(torch.empty(1, 3, *size, dtype=dtype))
        self._backbone_flops = counter.get_total_flops()

    def multiply_adds(self, head: nn.Module) -> int:
        """Of backbone and `head`, convolutions and matrix products, one image."""
        with FlopCounterMode(display=False) as counter:
            self._run(head)
        return int(self._backbone_flops + counter.get_total_flops()) // 2

    def resizing(self, head: nn.Module) -> dict[str, Resizing]:
        """What each `Enlarge` and `EnlargedConv` of `head` is given, by its path."""
        found: dict[str, Resizing] = {}

        def note(path: str, inputs: tuple[Any, ...], output: Tensor) -> None:
            levels = [inputs[0]] if isinstance(inputs[0], Tensor) else inputs[0]
            maps = tuple((int(level.shape[1]), int(level.shape[2]), int(level.shape[3])) for level in levels)
            found[path] = Resizing(maps, (int(output.shape[2]), int(output.shape[3])))

        handles = [
            module.register_forward_hook(lambda _, inputs, output, path=path: note(path, inputs, output))
            for path, module in head.named_modules()
            if isinstance(module, Enlarge | EnlargedConv)
        ]
        try:
            self._run(head)
        finally:
            for handle in handles:
                handle.remove()
        return found

    def _run(self, head: nn.Module) -> None:
        dtype = next(head.parameters()).dtype
        with self._mode, torch.no_grad():
            head([feature.to(dtype) for feature in self._features])
