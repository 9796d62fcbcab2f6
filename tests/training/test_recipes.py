import re
from collections.abc import Iterator

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from torch import nn

from ffnet_deploy.core.errors import ConfigError
from ffnet_deploy.segmentor.config import build_segmentor, load_config
from ffnet_deploy.training.optimizer import layer_of

ITERATIONS, WARM_UP = 160_000, 1500
DECAYED = {  # config: rate, weight decay, layers, decay per layer
    "upernet_ffnet_2_512_160k_ade20k": (1e-4, 0.05, 9, 1.0),
    "upernet_ffnet_3_512_160k_ade20k": (1e-4, 0.05, 12, 0.9),
    "upernet_ffnet_4_512_160k_ade20k": (1e-4, 0.05, 12, 0.9),
}
HEAD_FASTER = {"ffnet_seg_512_ade_160k": (6e-5, 0.05), "ffnet_seg_1024_city_160k": (6e-5, 0.02)}
DROP_PATH = {
    "upernet_ffnet_2_512_160k_ade20k": (0.2, None),
    "upernet_ffnet_3_512_160k_ade20k": (0.3, None),
    "upernet_ffnet_4_512_160k_ade20k": (0.3, None),
    "ffnet_seg_512_ade_160k": (0.3, 0.1),
    "ffnet_seg_1024_city_160k": (0.35, 0.0),
}


def groups_of(name: str) -> Iterator[tuple[str, torch.Tensor, float, float]]:
    """Name, tensor, rate and weight decay of every parameter."""
    config = load_config(name)
    with torch.device("meta"):
        model = build_segmentor(config)
    with DefaultScope.overwrite_default_scope("mmseg"):
        optimizer = build_optim_wrapper(model, config.cfg.optim_wrapper).optimizer
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    assert type(optimizer) is torch.optim.AdamW and tuple(optimizer.defaults["betas"]) == (0.9, 0.999)
    seen = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(seen) == sorted(names)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield names[id(parameter)], parameter, group["lr"], group["weight_decay"]


def published_layer(name: str, layers: int) -> int:
    """NETWORKS.md: 1, 2, 3 + block // 3, N for the four stages, N + 1 for everything else."""
    if not name.startswith("backbone.stages."):
        return layers + 1
    stage, block = map(int, re.findall(r"\d+", name)[:2])
    return {0: 1, 1: 2, 2: 3 + block // 3, 3: layers}[stage]


@pytest.mark.parametrize("name", DECAYED)
def test_layer_decay_of_every_parameter_is_the_published_one(name: str) -> None:
    base, decay, layers, rate = DECAYED[name]
    for key, parameter, found_rate, found_decay in groups_of(name):
        assert found_rate == pytest.approx(base * rate ** (layers + 1 - published_layer(key, layers)), rel=1e-12), key
        assert found_decay == (0.0 if parameter.ndim == 1 or key.endswith(".bias") else decay), key


@pytest.mark.parametrize("name", HEAD_FASTER)
def test_the_head_of_ffnet_seg_is_ten_times_faster(name: str) -> None:
    base, decay = HEAD_FASTER[name]
    for key, _, found_rate, found_decay in groups_of(name):
        assert found_rate == pytest.approx(base * (10 if "head" in key else 1), rel=1e-12), key
        assert found_decay == (0.0 if ("norm" in key or "pos_block" in key) and "head" not in key else decay), key


def published_rate(iteration: int) -> float:
    """Rate of MMSegmentation 0.x: poly of power 1, times a linear warm-up from 1e-6."""
    poly = 1 - iteration / ITERATIONS
    return poly if iteration >= WARM_UP else poly * (1 - (1 - iteration / WARM_UP) * (1 - 1e-6))


@pytest.mark.parametrize("name", [*DECAYED, *HEAD_FASTER])
def test_the_schedule_is_the_published_one_at_every_iteration(name: str) -> None:
    config = load_config(name)
    assert config.cfg.train_cfg.max_iters == ITERATIONS and config.cfg.train_cfg.val_interval == 4000
    steps = ITERATIONS if name == "ffnet_seg_512_ade_160k" else WARM_UP + 100
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(settings, optimizer=optimizer)) for settings in config.cfg.param_scheduler
    ]
    worst = 0.0
    for iteration in range(steps):
        worst = max(worst, abs(optimizer.param_groups[0]["lr"] - published_rate(iteration)))
        for scheduler in schedulers:
            scheduler.step()
    assert worst < 1e-9, f"{worst:.1e}"


@pytest.mark.parametrize("name", DROP_PATH)
def test_drop_path_crop_and_augmentation_are_the_published_ones(name: str) -> None:
    cfg = load_config(name).cfg
    size = 1024 if "city" in name else 512
    backbone, head = DROP_PATH[name]
    assert (cfg.model.backbone.drop_path_rate, cfg.model.decode_head.get("drop_path")) == (backbone, head)
    steps = {step.type: step for step in cfg.train_pipeline}
    assert steps["RandomCrop"].crop_size == (size, size) and steps["RandomCrop"].cat_max_ratio == 0.75
    assert tuple(steps["RandomResize"].ratio_range) == (0.5, 2.0) and steps["RandomFlip"].prob == 0.5
    assert tuple(steps["RandomResize"].scale) == (2048, size) and "PhotoMetricDistortion" in steps
    assert cfg.model.data_preprocessor.pad_val == 0 and cfg.model.data_preprocessor.seg_pad_val == 255
    assert cfg.train_dataloader.batch_size == 2


def test_num_layers_cover_the_third_stage() -> None:
    assert layer_of("backbone.stages.2.27.x", 12) == 12
    assert layer_of("backbone.stages.3.0.x", 12) == 12
    assert layer_of("backbone.patch_embed.0.c.weight", 12) == 13


@pytest.mark.parametrize("kind", ["stage_wise", "layerwise"])
def test_another_decay_than_layer_by_layer_is_refused(kind: str) -> None:
    config = load_config("upernet_ffnet_3_512_160k_ade20k")
    assert config.cfg.optim_wrapper.paramwise_cfg.decay_type == "layer_wise"
    config.cfg.optim_wrapper.paramwise_cfg.decay_type = kind
    with pytest.raises(ConfigError, match=f"{kind}.*layer by layer"), DefaultScope.overwrite_default_scope("mmseg"):
        build_optim_wrapper(nn.Linear(1, 1), config.cfg.optim_wrapper)


@pytest.mark.parametrize("name", [*DECAYED, *HEAD_FASTER])
def test_every_4000_iterations_and_the_best_are_kept(name: str) -> None:
    hook = load_config(name).cfg.default_hooks.checkpoint
    assert (hook.interval, hook.max_keep_ckpts, hook.save_best) == (4000, -1, "mIoU")
