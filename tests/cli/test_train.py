import shlex
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mmseg")

from ffnet_deploy.cli import evaluate, export
from ffnet_deploy.cli.console import ExitCode
from ffnet_deploy.cli.train import app
from ffnet_deploy.training.options import AmpType, ClassWeights, Logger
from ffnet_deploy.training.train import DryRun, Training
from tests.commands import Result, invoke


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Options that the command hands on; training itself is tested beside its own code."""
    options: list[Any] = []

    def train(wanted: Any, console: Any) -> Training:
        options.append(wanted)
        return Training(wanted.folder, 7, wanted.seed == 13, 61.5)

    def dry_run(wanted: Any, console: Any) -> DryRun:
        options.append(wanted)
        return DryRun(
            {"train": 3, "val": 2}, 2_000_000, ((1e-3, 0.05, 10),), 2.1, 0.5, 600, Path("work_dirs/camvid.samples.png")
        )

    monkeypatch.setattr("ffnet_deploy.training.train.train", train)
    monkeypatch.setattr("ffnet_deploy.training.train.dry_run", dry_run)
    return options


def call(*arguments: str) -> Result:
    return invoke(app, *arguments)


def test_options_reach_the_training(asked: list[Any], tmp_path: Path) -> None:
    result = call(
        "--config", "ffnet_seg_nano_camvid", "--data", str(tmp_path), "--iterations", "9", "--batch", "2",
        "--seed", "4",
        "--accumulate", "3", "--set", "optim_wrapper.optimizer.lr=1e-4", "--set", "train_cfg.val_interval=5",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "best mIoU 61.50" in result.output
    options = asked[0]
    assert options.folder == Path("work_dirs/ffnet_seg_nano_camvid")
    assert (options.iterations, options.batch, options.seed, options.accumulate) == (9, 2, 4, 3)
    assert options.overrides == {"optim_wrapper.optimizer.lr": 1e-4, "train_cfg.val_interval": 5}


def test_the_options_of_own_data_and_schedule_reach_the_training(asked: list[Any], tmp_path: Path) -> None:
    result = call(
        "--config", "ffnet_seg_nano_camvid", "--data", str(tmp_path), "--images-dir", "photos", "--masks-dir", "truth",
        "--mask-suffix", "_mask", "--name", "roofs", "--effective-batch", "16", "--class-weights", "AUTO",
        "--patience", "3", "--ema", "--amp", "bf16", "--logger", "tensorboard", "--logger", "wandb",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    options = asked[0]
    assert (options.images_dir, options.masks_dir, options.mask_suffix) == ("photos", "truth", "_mask")
    assert options.folder == Path("work_dirs/roofs") and options.name == "roofs"
    assert (options.effective_batch, options.patience, options.ema) == (16, 3, True)
    assert options.class_weights is ClassWeights.AUTO and options.amp is AmpType.BF16
    assert options.loggers == (Logger.TENSORBOARD, Logger.WANDB)
    assert "tensorboard --logdir work_dirs/roofs" in result.output


def test_the_next_commands_are_ones_that_exist(asked: list[Any], tmp_path: Path) -> None:
    result = call("--config", "ffnet_seg_nano_camvid", "--data", str(tmp_path / "my data"), "--mask-suffix", "_mask")
    lines = [shlex.split(line) for line in result.output.partition("next:")[2].splitlines() if line.strip()]
    assert [line[0] for line in lines] == ["ffnet-export", "ffnet-eval", "ffnet-eval"]
    for command, *words in lines:
        help_page = invoke({"ffnet-export": export.app, "ffnet-eval": evaluate.app}[command], "--help").output
        for word in words:
            assert not word.startswith("--") or word in help_page, f"{command} has no {word}"
        assert str(tmp_path / "my data") in words


def test_a_run_stopped_by_a_signal_says_how_to_go_on(asked: list[Any]) -> None:
    result = call("--config", "ffnet_seg_nano_camvid", "--seed", "13")
    assert result.exit_code == ExitCode.STOPPED == 4
    assert "--resume" in result.output


def test_dry_run_shows_what_would_be_trained(asked: list[Any]) -> None:
    result = call("--config", "ffnet_seg_nano_camvid", "--dry-run")
    assert result.exit_code == 0, result.output
    for word in ("2.00 M parameters", "0.001", "600 MiB", "work_dirs/camvid.samples.png"):
        assert word in result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--config", "ffnet_seg_nano_camvit"], "ffnet_seg_nano_camvid"),
        (["--config", "ffnet_seg_nano_camvid", "--data", "/nowhere"], "the data folder /nowhere does not exist"),
        (["--config", "ffnet_seg_nano_camvid", "--iterations", "0"], "--iterations takes a number from 1"),
        (["--config", "ffnet_seg_nano_camvid", "--set", "nonsense"], "key=value"),
        (["--config", "ffnet_seg_nano_camvid", "--resume", "--work-dir", "/nowhere"], "nothing to resume"),
        (["--config", "ffnet_seg_nano_camvid", "--classes", "classes.txt"], "--data"),
    ],
)
def test_mistakes_end_with_one_clear_message(arguments: list[str], told: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 1
    assert told in result.output and "Traceback" not in result.output
