import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import CheckpointLoader
from rich.console import Console

from ffnet_deploy.core.errors import CheckpointError
from ffnet_deploy.training.saving import load_state
from ffnet_deploy.training.train import train
from tests.training.tiny import tiny_options


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp("saving") / "run"
    train(tiny_options(data, work_dir, iterations=2), Console(quiet=True))
    return work_dir


@pytest.fixture
def work_dir(finished: Path, tmp_path: Path) -> Path:
    """A finished run of two iterations, for the test to spoil."""
    for path in finished.glob("*.pth"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


class Hostile:
    """Makes the file `mark` when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def plant(path: Path, change: Callable[[dict[str, Any]], Any], protocol: int = 2) -> None:
    """Save again what `path` holds, with `change` made to it."""
    content = load_state(str(path))
    change(content)
    torch.save(content, path, pickle_protocol=protocol)


def in_zip(path: Path, hostile: Hostile) -> None:
    """Put the pickle of `hostile` in place of the one that an intact checkpoint holds."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, pickle.dumps(hostile) if name.endswith("data.pkl") else content)
    path.write_bytes(buffer.getvalue())


@pytest.mark.parametrize("where", ["top", "optimizer", "random_state", "message_hub", "pickle"])
def test_resuming_a_hostile_work_directory_runs_nothing(data: Path, work_dir: Path, tmp_path: Path, where: str) -> None:
    hostile = Hostile(tmp_path / "executed")
    for path in work_dir.glob("*.pth"):
        if where == "pickle":
            in_zip(path, hostile)
        else:
            plant(
                path, lambda content: (content if where == "top" else content.setdefault(where, {})).update(x=hostile)
            )
    with pytest.raises(CheckpointError, match="could run code"):
        train(tiny_options(data, work_dir, iterations=4, resume=True), Console(quiet=True))
    assert not hostile.mark.exists()


def test_the_config_in_a_checkpoint_is_not_executed(data: Path, work_dir: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    text = f"import os\nos.mkdir({str(mark)!r})\n"
    plant(work_dir / "iter_2.pth", lambda content: content["meta"].update(config=text, cfg=text))
    result = train(tiny_options(data, work_dir, iterations=3, resume=True), Console(quiet=True))
    assert result.iterations == 3 and not mark.exists()


def test_files_that_a_checkpoint_names_elsewhere_are_not_deleted(data: Path, work_dir: Path, tmp_path: Path) -> None:
    precious = tmp_path / "elsewhere"
    precious.mkdir()
    for name in ("letter.txt", "best_mIoU_iter_1.pth", "iter_7.pth"):
        (precious / name).write_text("dear")

    def name_others(content: dict[str, Any]) -> None:
        content["message_hub"]["runtime_info"].update(
            best_ckpt=str(precious / "letter.txt"),
            best_score=-1.0,
            keep_ckpt_ids=[f"/../{precious.name}/iter_7", 1, 1, 1, 1],
        )

    plant(work_dir / "iter_2.pth", name_others)
    overrides = {"train_cfg.val_interval": 1, "default_hooks.checkpoint.max_keep_ckpts": 2}
    train(tiny_options(data, work_dir, iterations=4, resume=True, overrides=overrides), Console(quiet=True))
    assert {path.name for path in precious.iterdir()} == {"letter.txt", "best_mIoU_iter_1.pth", "iter_7.pth"}


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("optimizer") and content.update(optimizer=3),
        lambda content: content.pop("meta"),
        lambda content: content.update(message_hub=[1]),
        lambda content: content.update(param_schedulers="x"),
        lambda content: content.update(random_state={"python": 1}),
    ],
)
def test_a_state_of_another_shape_is_one_clear_error(data: Path, work_dir: Path, change: Any) -> None:
    plant(work_dir / "iter_2.pth", change)
    with pytest.raises(CheckpointError):
        train(tiny_options(data, work_dir, iterations=4, resume=True), Console(quiet=True))


def test_every_way_of_mmengine_to_a_checkpoint_is_the_safe_one(tmp_path: Path) -> None:
    hostile = Hostile(tmp_path / "executed")
    torch.save({"state_dict": {}, "x": hostile}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="could run code"):
        CheckpointLoader.load_checkpoint(str(tmp_path / "x.pth"))
    for address in ("https://example.org/x.pth", "torchvision://resnet50", "open-mmlab://x", "s3://bucket/x.pth"):
        with pytest.raises(CheckpointError, match="--load FILE"):
            CheckpointLoader.load_checkpoint(address)
    assert not hostile.mark.exists()


def test_log_histories_come_back_as_they_were(work_dir: Path) -> None:
    losses = load_state(str(work_dir / "iter_2.pth"))["message_hub"]["log_scalars"]["train/loss"]
    assert len(losses.data[0]) == 2 and losses.current() > 0
