import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from ffnet_deploy.core.errors import CheckpointError
from ffnet_deploy.segmentor.checkpoint import read_checkpoint
from ffnet_deploy.segmentor.config import CONFIG_FOLDER, load_config
from ffnet_deploy.segmentor.load import open_segmentor
from ffnet_deploy.segmentor.zoo import BUNDLED_FOLDER, bundled_checkpoint
from ffnet_deploy.training.publish import Card, card_text, excerpt, minutes_of, publish, score, to_half
from ffnet_deploy.training.train import train
from tests.training.tiny import tiny_options

LIMITS_MB = {"ffnet_seg_nano_scenes": 4, "ffnet_seg_nano_camvid": 6}


def test_a_run_becomes_a_small_file_with_a_card(data: Path, tmp_path: Path) -> None:
    train(tiny_options(data, tmp_path / "run"), Console(quiet=True))
    out = tmp_path / "tiny.safetensors"
    metadata = publish(tmp_path / "run", out)
    assert json.loads(metadata["classes"]) == ["ground", "box", "sky"]
    config = tmp_path / "run" / "ffnet_seg_nano_scenes.py"
    evaluation = score(str(config), out, data, "val")
    card = Card("ffnet-train --config tiny", "eight drawings", "none", "one core")
    text = card_text("tiny", out, tmp_path / "run", card, evaluation, metadata)
    for part in ("ffnet-train --config tiny", "| box |", f"{evaluation.scores.mean_iou:.2f} %", "Iter(train)", "mIoU:"):
        assert part in text
    assert minutes_of(tmp_path / "run") < 60


def test_weights_are_halved_and_batch_norms_are_not() -> None:
    half = to_half(
        {"a.c.weight": torch.rand(4, 4, 1, 1), "a.bn.weight": torch.rand(4), "a.num_batches_tracked": torch.ones(1)}
    )
    assert {name: value.dtype for name, value in half.items()} == {
        "a.c.weight": torch.float16,
        "a.bn.weight": torch.float32,
    }


def test_weights_beyond_float16_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"backbone.x": torch.full((2, 2), 1e6)}}, tmp_path / "iter_1.pth")
    with pytest.raises(CheckpointError, match="float16"):
        publish(tmp_path, tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_excerpts_keep_first_last_and_all_scores() -> None:
    lines = [f"Iter(train) [{i}]" for i in range(100)] + ["Iter(val) mIoU: 50", "Iter(train) [100]"]
    kept = excerpt(lines, 10)
    assert kept[0] == lines[0] and kept[-1] == lines[-1] and lines[100] in kept and len(kept) == 10


@pytest.mark.parametrize("path", sorted(BUNDLED_FOLDER.glob("*.safetensors")), ids=lambda path: path.stem)
def test_bundled_checkpoints_fit_their_configs_and_sizes(path: Path) -> None:
    assert bundled_checkpoint(path.stem) == path and (CONFIG_FOLDER / f"{path.stem}.py").is_file()
    assert path.stat().st_size < LIMITS_MB[path.stem] * 1e6
    segmentor = open_segmentor(path.stem, "bundled")
    assert segmentor.report is not None and not segmentor.report.untouched
    classes = json.loads(read_checkpoint(path).meta["classes"])
    assert tuple(classes) == load_config(path.stem).labels.classes
    assert "| mIoU | **" in path.with_suffix(".md").read_text()
