import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ffnet_deploy.core.errors import MissingPackageError, OptionError
from ffnet_deploy.report.training import learning_curve
from ffnet_deploy.segmentor.config import load_config
from ffnet_deploy.training import recipe
from ffnet_deploy.training.options import Logger
from ffnet_deploy.training.recipe import run_config, shorten, weigh_classes
from ffnet_deploy.training.train import train
from tests.training.tiny import tiny_options


def test_the_effective_batch_is_reached_by_accumulation(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steps(**options: Any) -> int:
        found = run_config(tiny_options(data, tmp_path, batch=2, **options)).optim_wrapper
        return int(found.get("accumulative_counts", 1))

    assert steps(effective_batch=16) == 8 and steps(effective_batch=2) == 1 and steps(accumulate=3) == 3
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert steps(effective_batch=16) == 2
    with pytest.raises(OptionError, match=r"no multiple of the 8 images of a step.*the nearest are 8 and 16"):
        steps(effective_batch=12)
    with pytest.raises(OptionError, match="leave out --accumulate"):
        tiny_options(data, tmp_path, effective_batch=16, accumulate=2)


def test_class_weights_are_inverse_shares_with_a_limit(data: Path, tmp_path: Path) -> None:
    cfg = run_config(tiny_options(data, tmp_path))
    pixels = np.array([6000, 3000, 999, 1, 0])
    weights = np.array(weigh_classes(cfg, pixels.tolist()))
    assert np.allclose(weights, [10 / 5 / 6, 10 / 5 / 3, 10 / 5 / 0.999, 10, 1], rtol=1e-3), weights
    assert cfg.model.decode_head.loss_decode.class_weight == weights.tolist()
    assert cfg.model.decode_head.loss_decode.avg_non_ignore is False


def test_a_logger_that_is_not_installed_is_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingPackageError, match=r"--logger wandb needs the package wandb[\s\S]*pip install"):
        run_config(tiny_options(data, tmp_path, loggers=(Logger.WANDB,)))
    monkeypatch.setattr(recipe, "optional", lambda *args, **kwargs: None)
    cfg = run_config(tiny_options(data, tmp_path, loggers=(Logger.WANDB, Logger.MLFLOW), name="mine"))
    kinds = [backend["type"] for backend in cfg.visualizer["vis_backends"]]
    assert kinds == ["LocalVisBackend", "WandbVisBackend", "MLflowVisBackend"]
    assert cfg.visualizer["vis_backends"][1]["init_kwargs"]["name"] == "mine"


def test_the_average_of_the_weights_is_added_once(data: Path, tmp_path: Path) -> None:
    cfg = run_config(tiny_options(data, tmp_path, iterations=400, ema=True))
    (hook,) = cfg.custom_hooks
    assert (hook["type"], hook["begin_iter"], hook["momentum"]) == ("EMAHook", 100, 0.05)
    packaged = tiny_options(
        data, tmp_path, ema=True, overrides={"custom_hooks": [{"type": "EMAHook", "momentum": 0.3}]}
    )
    assert [hook["momentum"] for hook in run_config(packaged).custom_hooks] == [0.3]


def test_fine_tuning_on_few_images_takes_twenty_passes(data: Path, tmp_path: Path) -> None:
    def steps(**options: Any) -> int:
        return int(run_config(tiny_options(data, tmp_path, iterations=None, **options)).train_cfg.max_iters)

    recipe_steps = load_config("ffnet_seg_nano_scenes").cfg.train_cfg.max_iters
    assert steps() == recipe_steps, "from nothing the recipe's number stands"
    assert steps(load="bundled") == 200, "at least 200 steps"
    assert steps(load="bundled", batch=1, effective_batch=4) == 20 * 8 * 4


def test_resuming_without_a_number_goes_on_to_the_end_that_was_set(data: Path, tmp_path: Path) -> None:
    train(tiny_options(data, tmp_path, iterations=3), Console(quiet=True))
    cfg = run_config(tiny_options(data, tmp_path, iterations=None, resume=True))
    assert cfg.train_cfg.max_iters == 3
    curve = learning_curve(tmp_path)
    assert curve is not None and [step for step, _ in curve.losses] == [1, 2, 3] and curve.validations[-1][0] == 3


@pytest.mark.parametrize(("iterations", "interval"), [(4, 1), (200, 10), (8000, 50)])
def test_a_short_run_records_enough_losses_for_a_curve(iterations: int, interval: int) -> None:
    cfg = load_config("ffnet_seg_nano_scenes").cfg
    shorten(cfg, iterations)
    assert cfg.default_hooks.logger.interval == interval


def test_the_text_of_a_config_is_made_without_yapf(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was formatted anew for every checkpoint, for seconds where the paths in it are long."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("formatted")

    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", never)
    cfg = run_config(tiny_options(data, tmp_path / "run"))
    cfg.dump(tmp_path / "saved.py")
    assert copy.deepcopy(cfg).pretty_text == (tmp_path / "saved.py").read_text()
    assert load_config(tmp_path / "saved.py").cfg.to_dict() == cfg.to_dict()


def test_hooks_that_are_no_list_are_refused(data: Path, tmp_path: Path) -> None:
    options = tiny_options(data, tmp_path)
    with pytest.raises(OptionError, match="list of hooks: got 5"):
        run_config(replace(options, overrides={**options.overrides, "custom_hooks": 5}))
