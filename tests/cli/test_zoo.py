"""``ffnet-eval --zoo``, and what a run says of the mIoU that was published."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from ffnet_deploy.cli.evaluate import app
from ffnet_deploy.cli.zoo import beside_published
from ffnet_deploy.core.contract import TestProtocol
from ffnet_deploy.evaluation.evaluate import Evaluation
from ffnet_deploy.evaluation.protocol import MULTI_SCALE, PredictOptions
from ffnet_deploy.evaluation.scores import Scores
from ffnet_deploy.segmentor.config import config_names
from ffnet_deploy.segmentor.zoo import PUBLISHED, SCORES
from tests.commands import invoke


def test_the_zoo_tells_what_is_here(tmp_path: Path) -> None:
    cached = "upernet_ffnet_3_512_160k_ade20k"
    (tmp_path / PUBLISHED[cached]).write_bytes(b"weights")
    result = invoke(app, "--zoo", env={"COLUMNS": "84", "FFNET_DEPLOY_CACHE": str(tmp_path)})
    assert result.exit_code == 0, result.output
    for name in config_names():
        (line,) = [line for line in result.stdout.splitlines() if f" {name} " in line]
        cells = re.split(r"  +", line.strip())
        known = SCORES[name]
        weights = "published" if name in PUBLISHED else "bundled"
        here = "cached" if name == cached else "no" if name in PUBLISHED else "yes"
        augmented = "-" if known.augmented is None else f"{known.augmented:g}"
        assert cells == [name, weights, here, known.dataset, f"{known.miou:g}", augmented]


@pytest.mark.parametrize(
    ("predict", "miou", "images", "expected"),
    [
        (PredictOptions(), 50.05, 2000, "published mIoU 50.1 on 2000 images of ADE20K val: measured \u22120.05 points"),
        (
            PredictOptions(MULTI_SCALE, flip=True),
            51.3,
            2000,
            "published mIoU 51.2 on 2000 images of ADE20K val: measured",
        ),
        (PredictOptions(flip=True), 50.2, 2000, ""),
        (PredictOptions(), 50.05, 23, "published mIoU 50.1 on 2000 images of ADE20K val; these are 23 of ade20k val"),
    ],
)
def test_a_run_is_told_beside_what_was_published(
    predict: PredictOptions, miou: float, images: int, expected: str
) -> None:
    scored = Evaluation(Scores(miou, 0, 0, {}), images, 1.0, (), TestProtocol(), predict, "ade20k", "val")
    told = beside_published("ffnet_seg_512_ade_160k", scored)
    assert told.startswith(expected) and bool(told) == bool(expected)
    assert beside_published("another", scored) == beside_published(
        "ffnet_seg_512_ade_160k", replace(scored, scores=None)
    )
