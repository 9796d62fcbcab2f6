import errno
import io
import json
import logging
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from rich.console import Console

from ffnet_deploy.core.errors import CheckpointError, OptionError, StorageError
from ffnet_deploy.segmentor.checkpoint import read_checkpoint, read_training_state
from ffnet_deploy.segmentor.config import load_config
from ffnet_deploy.segmentor.load import load_segmentor
from ffnet_deploy.training import saving
from ffnet_deploy.training.hooks import TrainingError
from ffnet_deploy.training.options import AmpType, ClassWeights
from ffnet_deploy.training.train import dry_run, silent_log_errors, train
from tests.disks import largest_file, read_only
from tests.training.tiny import tiny_options


class Doing(Hook):  # type: ignore[misc]
    """Calls `action` after the iteration `after`."""

    def __init__(self, after: int, action: Any):
        self.after, self.action = after, action

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter + 1 == self.after:
            self.action()


@HOOKS.register_module()
class TerminateHook(Doing):
    def __init__(self, after: int):
        super().__init__(after, lambda: os.kill(os.getpid(), signal.SIGTERM))


@HOOKS.register_module()
class SpoilWeightsHook(Hook):  # type: ignore[misc]
    def __init__(self, after: int):
        self.after = after

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter + 1 == self.after:
            next(runner.model.parameters()).data.fill_(float("nan"))


def with_hook(hook: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"custom_hooks": [hook], **more}


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp("runs") / "finished"
    result = train(tiny_options(data, work_dir), Console(quiet=True))
    assert result.iterations == 4 and not result.stopped and result.best is not None
    return work_dir


def losses(work_dir: Path) -> dict[int, float]:
    logs = sorted(work_dir.glob("*/vis_data/2*.json"))
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return {line["iter"]: line["loss"] for line in lines if "loss" in line}


def test_a_run_leaves_config_last_and_best_checkpoint(finished: Path) -> None:
    assert {path.name for path in finished.glob("*.pth")} >= {"iter_4.pth"}
    assert list(finished.glob("best_mIoU_iter_*.pth"))
    assert load_config(finished / "ffnet_seg_nano_scenes.py").labels.classes == ("ground", "box", "sky")


def test_what_was_trained_is_loaded_by_the_rest_of_the_toolkit(finished: Path) -> None:
    best = next(finished.glob("best_*.pth"))
    model = load_segmentor(finished / "ffnet_seg_nano_scenes.py", best)
    assert model.decode_head.num_classes == 3


def test_predictions_and_scalars_are_recorded(finished: Path) -> None:
    assert len(list(finished.glob("*/vis_data/vis_image/val_*.png"))) == 2
    assert {1, 2, 3, 4} == set(losses(finished))
    pytest.importorskip("tensorboard", reason="TensorBoard comes with the extra train")
    assert list(finished.glob("*/vis_data/events.out.tfevents.*"))


def test_checkpoints_hold_random_states(finished: Path) -> None:
    content = read_training_state(finished / "iter_4.pth")
    assert {"python", "numpy", "torch"} <= set(content["random_state"])


def test_the_same_seed_gives_the_same_losses(data: Path, finished: Path, tmp_path: Path) -> None:
    train(tiny_options(data, tmp_path / "again"), Console(quiet=True))
    assert losses(tmp_path / "again") == pytest.approx(losses(finished), rel=1e-5)


@pytest.mark.parametrize("option", ["save_memory", pytest.param("compile", marks=pytest.mark.slow)])
def test_memory_and_compilation_change_no_loss(option: str, data: Path, finished: Path, tmp_path: Path) -> None:
    train(tiny_options(data, tmp_path / "run", **{option: True}), Console(quiet=True))
    print(f"{option}: {losses(tmp_path / 'run')}, plain {losses(finished)}")
    assert losses(tmp_path / "run") == pytest.approx(losses(finished), rel=1e-3)
    best = next((tmp_path / "run").glob("best_*.pth"))
    assert load_segmentor(tmp_path / "run" / "ffnet_seg_nano_scenes.py", best).decode_head.num_classes == 3


def test_a_second_run_does_not_overwrite_the_first(data: Path, finished: Path) -> None:
    with pytest.raises(OptionError, match="--resume"):
        train(tiny_options(data, finished), Console(quiet=True))


def test_sigterm_saves_and_stops_and_resuming_gives_the_same_end(data: Path, finished: Path, tmp_path: Path) -> None:
    options = tiny_options(data, tmp_path, overrides=with_hook({"type": "TerminateHook", "after": 1}))
    result = train(options, Console(quiet=True))
    assert result.stopped and result.iterations == 1
    assert (tmp_path / "iter_1.pth").is_file()
    resumed = train(tiny_options(data, tmp_path, resume=True), Console(quiet=True))
    assert resumed.iterations == 4 and not resumed.stopped
    difference = max(
        (a - b).abs().max().item()
        for a, b in zip(
            read_checkpoint(tmp_path / "iter_4.pth").tensors.values(),
            read_checkpoint(finished / "iter_4.pth").tensors.values(),
            strict=True,
        )
    )
    assert difference < 1e-4, f"weights differ by {difference:.1e}"


def test_a_truncated_checkpoint_is_skipped_and_told(data: Path, tmp_path: Path) -> None:
    train(tiny_options(data, tmp_path), Console(quiet=True))
    newest = tmp_path / "iter_4.pth"
    newest.write_bytes(newest.read_bytes()[:-5000])
    console = Console(record=True, quiet=False, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    train(tiny_options(data, tmp_path, resume=True), console)
    told = console.export_text()
    assert "skipped" in told and "iter_4.pth" in told and "resuming" in told and "iter_2.pth" in told


def test_resuming_from_nothing_is_one_clear_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing to resume"):
        train(tiny_options(data, tmp_path / "empty", resume=True), Console(quiet=True))


def test_a_loss_that_is_no_number_stops_with_the_last_good_checkpoint(data: Path, tmp_path: Path) -> None:
    hook = {"type": "SpoilWeightsHook", "after": 3}
    options = tiny_options(data, tmp_path, iterations=8, overrides=with_hook(hook))
    with pytest.raises(TrainingError, match=r"nan in iteration 4(?s:.)*iter_2\.pth"):
        train(options, Console(quiet=True))


def test_a_full_disk_leaves_older_checkpoints_intact(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def write(path: Path, content: bytes) -> None:
        if written:
            raise StorageError(f"no room left to write {path}") from OSError(errno.ENOSPC, "full")
        written.append(path)
        path.write_bytes(content)

    monkeypatch.setattr(saving, "write_bytes", write)
    with pytest.raises(StorageError, match="no room left"):
        train(tiny_options(data, tmp_path), Console(quiet=True))
    assert saving.newest_intact(tmp_path)[0] == written[0]


@pytest.mark.parametrize("room", [100, 30_000])
def test_a_full_disk_is_told_with_what_to_do_and_the_checkpoint_before_stays_whole(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], room: int
) -> None:
    train(tiny_options(data, tmp_path, iterations=2), Console(quiet=True))
    before = {path: path.read_bytes() for path in tmp_path.glob("*.pth")}
    assert before and min(map(len, before.values())) > room
    with largest_file(room), pytest.raises(StorageError, match=r"no room left to write /[\s\S]*to do "):
        train(tiny_options(data, tmp_path, iterations=4, resume=True), Console(quiet=True))
    assert {path: path.read_bytes() for path in tmp_path.glob("*.pth")} == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert "Traceback" not in capfd.readouterr().err


def test_a_work_folder_that_cannot_be_written_is_told(data: Path, tmp_path: Path) -> None:
    with read_only(tmp_path / "run"), pytest.raises(StorageError, match=r"cannot write [\s\S]*to do "):
        train(tiny_options(data, tmp_path / "run"), Console(quiet=True))
    assert list((tmp_path / "run").iterdir()) == []


def test_dry_run_takes_one_step_and_keeps_nothing(data: Path, tmp_path: Path) -> None:
    found = dry_run(tiny_options(data, tmp_path / "none"), Console(quiet=True))
    assert found.pairs == {"train": 8, "val": 2}
    assert found.contact_sheet is not None and found.contact_sheet.is_file()
    assert 0.5 < found.loss < 3
    assert not (tmp_path / "none").exists()


def test_fine_tuning_to_other_classes_starts_the_classifier_anew(data: Path, finished: Path, tmp_path: Path) -> None:
    classes = tmp_path / "classes.txt"
    classes.write_text("ground 90 90 90\nbox 200 40 40\nsky 90 160 220\nspare 1 2 3\n")
    console = Console(record=True, file=open(os.devnull, "w"), width=200)  # noqa: SIM115, PTH123
    options = tiny_options(data, tmp_path / "run", load=str(finished / "iter_4.pth"))
    train(replace(options, classes=classes), console)
    told = console.export_text()
    assert "starts anew, other shape: decode_head.conv_seg" in told
    assert read_checkpoint(tmp_path / "run" / "iter_4.pth").tensors["decode_head.conv_seg.weight"].shape[0] == 4


@pytest.mark.parametrize(
    ("changes", "bound"),
    [({"amp": AmpType.BF16}, 0.05), ({"batch": 2, "effective_batch": 4}, 0.8), ({"ema": True}, 1e-5)],
)
def test_recipes_for_small_machines_train(
    changes: dict[str, Any], bound: float, data: Path, finished: Path, tmp_path: Path
) -> None:
    """bfloat16 on the CPU, half the batch twice as often, averaged weights: the losses stay near the plain run's."""
    result = train(tiny_options(data, tmp_path / "run", **changes), Console(quiet=True))
    worst = max(abs(losses(tmp_path / "run")[step] - loss) for step, loss in losses(finished).items())
    print(f"{changes}: losses differ by {worst:.1e} at most")
    assert result.best is not None and worst < bound


def test_bfloat16_is_really_computed_in(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = set()
    forward = torch.nn.Conv2d.forward

    def noting(self: Any, x: torch.Tensor) -> torch.Tensor:
        y = forward(self, x)
        kinds.add(y.dtype)
        return y

    monkeypatch.setattr(torch.nn.Conv2d, "forward", noting)
    dry_run(tiny_options(data, tmp_path / "run", amp=AmpType.BF16), Console(quiet=True))
    assert kinds == {torch.bfloat16}


def test_a_run_that_no_longer_improves_ends_early(data: Path, tmp_path: Path) -> None:
    overrides = {"optim_wrapper.optimizer.lr": 0.0, "train_cfg.val_interval": 1}
    options = tiny_options(data, tmp_path / "run", iterations=20, patience=2, overrides=overrides)
    result = train(options, Console(quiet=True))
    assert result.iterations < 20 and "ended early" in result.notes[0]
    assert (tmp_path / "run" / f"iter_{result.iterations}.pth").is_file()


def test_a_name_keeps_two_fine_tunings_apart(data: Path, tmp_path: Path) -> None:
    result = train(tiny_options(data, tmp_path / "run", iterations=1, name="roofs"), Console(quiet=True))
    assert result.config == tmp_path / "run" / "roofs.py"
    assert load_config(result.config).name == "roofs"
    assert load_segmentor(result.config, result.checkpoint).decode_head.num_classes == 3


def test_automatic_class_weights_reach_the_loss(data: Path, tmp_path: Path) -> None:
    console = Console(record=True, file=open(os.devnull, "w"), width=200)  # noqa: SIM115, PTH123
    result = train(tiny_options(data, tmp_path / "run", iterations=1, class_weights=ClassWeights.AUTO), console)
    weights = load_config(result.config).cfg.model.decode_head.loss_decode.class_weight
    assert weights[1] == max(weights) and f"box {weights[1]:.2f}" in console.export_text()


@HOOKS.register_module()
class StopInValidationHook(Hook):  # type: ignore[misc]
    def after_val_iter(self, runner: Any, batch_idx: int, **kwargs: Any) -> None:
        if batch_idx == 0:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_while_validating_is_told_at_once_and_saves(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    overrides = with_hook({"type": "StopInValidationHook"}, **{"train_cfg.val_interval": 1})
    result = train(tiny_options(data, tmp_path, iterations=8, overrides=overrides), Console(quiet=True))
    assert result.stopped and result.iterations == 1 and result.best is None
    assert (tmp_path / "iter_1.pth").is_file()
    assert "stopping after this step, saving" in capfd.readouterr().err
    resumed = train(tiny_options(data, tmp_path, iterations=2, resume=True), Console(quiet=True))
    assert resumed.iterations == 2 and resumed.best is not None


class _Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")


def test_a_full_disk_does_not_print_a_traceback_for_each_line_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.Logger("full")
    logger.addHandler(logging.StreamHandler(_Full()))
    with silent_log_errors():
        logger.error("a line")
    assert capsys.readouterr().err == ""
    logger.error("a line")
    assert "Traceback" in capsys.readouterr().err
