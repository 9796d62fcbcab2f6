"""How weights are updated: learning rates layer by layer (UPerNet's published rule), and bfloat16 forward passes."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from torch import Tensor, nn

from ffnet_deploy.core.errors import ConfigError

_STAGE = re.compile(r"backbone\.stages\.(\d+)\.(\d+)\.")
BLOCKS_PER_LAYER = 3
"""Children of the third stage that share one layer number."""


def layer_of(name: str, num_layers: int) -> int:
    """Layer number of the parameter `name`: 1 nearest to the image, `num_layers` + 1 outside the backbone's stages.

    Stages 1 and 2 are a layer each, stage 3 has one per three children (its down-sampling counts), stage 4 is the last.
    """
    place = _STAGE.match(name)
    if place is None:
        return num_layers + 1
    stage, child = int(place[1]), int(place[2])
    return (1, 2, 3 + child // BLOCKS_PER_LAYER, num_layers)[stage]


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: not to biases nor to tensors of one dimension."""
    return parameter.ndim > 1 and not name.endswith(".bias")


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class FFNetLearningRateDecayOptimizerConstructor(DefaultOptimWrapperConstructor):  # type: ignore[misc]
    """Gives layer i of N the rate `lr` * `decay_rate` ** (N + 1 - i).

    `paramwise_cfg` holds `num_layers` (N), `decay_rate` and `decay_type`, of which only ``"layer_wise"`` exists.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None):
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        kind = self.paramwise_cfg.get("decay_type", "layer_wise")
        if kind != "layer_wise":
            raise ConfigError(
                f"paramwise_cfg.decay_type is {kind!r}; the recipes of FFNet decay rates layer by layer.\n"
                "  to do    --set optim_wrapper.paramwise_cfg.decay_type=layer_wise"
            )

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, **_: Any) -> None:
        """Append one group per layer and kind of decay to `params`."""
        layers, rate = self.paramwise_cfg["num_layers"], self.paramwise_cfg["decay_rate"]
        groups: dict[tuple[int, bool], dict[str, Any]] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            layer, decayed = layer_of(name, layers), is_decayed(name, parameter)
            group = groups.setdefault(
                (layer, decayed),
                {
                    "params": [],
                    "param_names": [],
                    "group_name": f"layer_{layer}_{'decay' if decayed else 'no_decay'}",
                    "lr": self.base_lr * rate ** (layers + 1 - layer),
                    "weight_decay": self.base_wd if decayed else 0.0,
                },
            )
            group["params"].append(parameter)
            group["param_names"].append(name)
        params.extend(groups.values())


@OPTIM_WRAPPERS.register_module()
class Bfloat16OptimWrapper(OptimWrapper):  # type: ignore[misc]
    """`OptimWrapper` whose forward passes run under bfloat16 autocast, on GPUs and CPUs; gradients need no scaling."""

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of a forward pass of `model`."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield
